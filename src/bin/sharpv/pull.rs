//! `sharpv pull`: downloads a model.

use crate::args::PullArgs;
use crate::screen::Screen;
use indicatif::DecimalBytes;
use sharpv::Observer;
use sharpv::models::hub::{Hub, HubSpec, Wish};
use sharpv::models::{KnownModel, ModelFiles, Store};
use sharpv::runtime::{FreeMemory, ModelParams, VisionParams};
use sharpv::weights::Copies;

/// Makes copies of the weights that this processor computes faster. A failure is only a warning.
fn make_faster_copies(files: &ModelFiles, screen: &mut Screen) -> sharpv::Result<()> {
    let store = Store::from_env()?;
    let copies = Copies::new(&store);
    for copy in copies.of(files, &ModelParams::default(), &VisionParams::default())? {
        if let Err(error) = copies.make(&copy, screen) {
            screen.warning(&format!("no faster copy: {error}"));
        }
    }
    Ok(())
}

pub fn run(args: &PullArgs, mut screen: Screen) -> anyhow::Result<()> {
    let files = match HubSpec::parse(&args.name) {
        Some(spec) if KnownModel::find(&args.name).is_err() => {
            let memory = FreeMemory::for_weights(&ModelParams::default()).map(|free| free.bytes);
            let wish = Wish { memory, ..Wish::default() };
            Hub::from_env()?.pull(&spec, wish, &mut screen)?
        }
        _ => {
            let model = KnownModel::find(&args.name)?;
            let store = Store::from_env()?;
            if store.files(model).is_none() {
                let (bytes, download) = (DecimalBytes(model.bytes()), DecimalBytes(model.download_bytes()));
                screen.note(&format!("{} takes {bytes} on disk, and up to {download} are downloaded", model.name));
            }
            store.pull(model, &mut screen)?
        }
    };
    make_faster_copies(&files, &mut screen)?;
    screen.note(&format!("{0} is ready: sharpv ask VIDEO QUESTION -m {0}", files.name));
    Ok(())
}
