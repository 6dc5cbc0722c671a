//! `sharpv report`: results as pictures and one HTML page.

use crate::args::ReportArgs;
use crate::screen::Screen;
use sharpv::report::Report;
use std::path::{Path, PathBuf};

pub fn run(args: &ReportArgs, screen: &Screen) -> anyhow::Result<()> {
    write(&args.results, &args.out, screen)
}

/// Draws `results` into `folder`.
pub fn write(results: &[PathBuf], folder: &Path, screen: &Screen) -> anyhow::Result<()> {
    let written = Report::read(results)?.write(folder)?;
    for path in written {
        screen.note(&path.display().to_string());
    }
    Ok(())
}
