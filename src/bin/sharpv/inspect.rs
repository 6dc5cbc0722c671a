//! `sharpv inspect`: which tokens of a video are kept, as a page, images and a video.

use crate::args::InspectArgs;
use crate::interrupt::Interrupts;
use crate::options::thinking_or_off;
use crate::screen::{Screen, Watch};
use crate::{ask, habits, output, session};
use sharpv::chat::{EvictParams, SessionParams};
use sharpv::lab::inspect::{Images, Inspection};
use sharpv::models::ModelFiles;
use sharpv::prune::PruneParams;
use sharpv::runtime::Model;
use sharpv::skip::{EncodeMode, EncodeParams};

/// The second Ctrl-C ends the program at once.
const PATIENCE: u32 = 2;

pub fn run(args: &InspectArgs, mut screen: Screen) -> anyhow::Result<()> {
    let interrupts = Interrupts::install(PATIENCE)?;
    let cancel = interrupts.cancel_token();
    let question = args.question.as_deref().map(ask::question).transpose()?;
    let (files, params) = session::prepare(&args.session, &[&args.video], &interrupts, &mut screen, args.json)?;
    let params = SessionParams { inspect: true, thinking: thinking_or_off(&params), ..params };
    let mut session = session::load(&files, params.clone(), None, &mut screen)?;
    let work = interrupts.work();
    let options = args.session.video.options();
    screen.busy(&format!("opening {}", args.video.display()));
    let mut watch = Watch::new(&mut screen, None, &cancel);
    let inspection = Inspection::new(&mut session, &args.video, &options, question.as_deref(), &mut watch);
    screen.clear();
    let mut inspection = inspection?;
    inspection.command = command();
    let model = session.model().clone();
    // Frees its cache before that of the dense run is allocated.
    drop(session);
    if (args.out.is_some() || args.json) && !args.no_dense {
        measure_dense(args, &mut inspection, (&files, &params, model), &mut screen)?;
    }

    let images = Images {
        video: &inspection.video,
        small: args.out.is_some(),
        png: args.png.as_deref(),
        film: args.film.as_deref(),
    };
    let mut watch = Watch::new(&mut screen, None, &cancel);
    let shown = images.make(&cancel, &mut watch);
    screen.clear();
    let shown = shown?;
    if let Some(path) = &args.out {
        inspection.write_page(&shown, path)?;
    }
    drop(work);
    if args.json {
        output::print_json(&inspection.data())?;
    }
    let folder = args.png.iter().map(|folder| {
        let n = shown.written.len() - usize::from(args.film.is_some());
        format!("{}: {n} images", folder.display())
    });
    let files = args.film.iter().chain(&args.out).map(|path| path.display().to_string());
    folder.chain(files).for_each(|line| screen.note(&line));
    Ok(())
}

/// Runs the same video and question as stock llama.cpp does.
fn measure_dense(
    args: &InspectArgs,
    inspection: &mut Inspection,
    (files, params, model): (&ModelFiles, &SessionParams, Model),
    screen: &mut Screen,
) -> anyhow::Result<()> {
    let params = SessionParams {
        inspect: false,
        prune: PruneParams::off(),
        evict: EvictParams::off(),
        layer_profile: None,
        encode: EncodeParams::default().in_mode(EncodeMode::Exact),
        ..params.clone()
    };
    let cancel = params.cancel.clone();
    let mut session = session::load(files, params, Some(model), screen)?;
    screen.busy("running it with all tokens");
    let mut watch = Watch::new(screen, None, &cancel);
    let measured = inspection.measure_dense(&mut session, &args.video, &args.session.video.options(), &mut watch);
    screen.clear();
    Ok(measured?)
}

/// The command line that this program was called with.
fn command() -> String {
    let words = std::env::args_os().skip(1).map(|word| habits::quoted(&word.to_string_lossy()));
    std::iter::once("sharpv".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}
