use crate::values;
use clap::Args;
use sharpv::lab::report::ImageFormat;
use std::path::PathBuf;

/// See [`Command::Report`](super::Command::Report).
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ReportArgs {
    /// summary.json of `sharpv eval`, bench.json of `sharpv bench`, their folders, or a profile of `sharpv calibrate`
    #[arg(value_name = "FILE|DIR", required = true)]
    pub results: Vec<PathBuf>,

    /// The folder for the images and report.html
    #[arg(long, value_name = "DIR", value_parser = values::folder())]
    pub out: PathBuf,

    /// The format of the images: svg, png, or both
    #[arg(long, value_name = "FORMAT,…", value_delimiter = ',', default_value = "svg", value_parser = values::one_of::<ImageFormat>())]
    pub format: Vec<ImageFormat>,
}

const EXAMPLES: &str = "\
Examples:
  sharpv report sharpv-eval-mvbench --out images
  sharpv report results/bench.json results/summary.json --out images";
