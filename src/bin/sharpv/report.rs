//! `sharpv report`: draws results as images and an HTML page.

use crate::args::ReportArgs;
use crate::screen::Screen;
use sharpv::lab::report::{ImageFormat, Report};
use std::path::{Path, PathBuf};

pub fn run(args: &ReportArgs, screen: &Screen) -> anyhow::Result<()> {
    write(&args.results, &args.out, &args.format, screen)
}

/// Draws `results` into `folder`.
pub fn write(results: &[PathBuf], folder: &Path, formats: &[ImageFormat], screen: &Screen) -> anyhow::Result<()> {
    let written = Report::read(results)?.write(folder, formats)?;
    for path in written {
        screen.note(&path.display().to_string());
    }
    Ok(())
}
