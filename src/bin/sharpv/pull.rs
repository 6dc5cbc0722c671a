//! `sharpv pull`: fetches a model.

use crate::args::PullArgs;
use crate::screen::Screen;
use sharpv::models;

pub fn run(args: &PullArgs, mut screen: Screen) -> anyhow::Result<()> {
    let files = models::pull(&args.name, &mut screen)?;
    screen.note(&format!("{0} is ready: sharpv ask VIDEO QUESTION -m {0}", files.name));
    Ok(())
}
