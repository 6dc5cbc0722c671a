//! Results as charts, in SVG or PNG, and as one self-contained HTML page.
//!
//! [`Report::read`] reads the results of evaluations, benchmarks and calibrations; [`Report::write`] draws them.
//! `docs/bench.md` lists the charts.

mod bars;
pub(in crate::lab) mod charts;
pub(in crate::lab) mod draw;
mod image_file;
mod input;
pub(in crate::lab) mod lines;
mod page;

pub use charts::Chart;
pub use draw::DrawError;
pub use image_file::ImageFormat;

use crate::error::{Error, Result};
use input::Input;
use std::path::{Path, PathBuf};

/// The results of one or more runs.
#[derive(Debug)]
pub struct Report {
    inputs: Vec<Input>,
}

impl Report {
    /// Reads results: files, or folders with `summary.json` or `bench.json`.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read, [`Error::Unusable`] if it holds no results.
    pub fn read(paths: &[PathBuf]) -> Result<Self> {
        let mut inputs = Vec::new();
        for path in paths {
            for file in input::files(path)? {
                inputs.push(Input::read(&file)?);
            }
        }
        Ok(Self { inputs })
    }

    /// All charts.
    ///
    /// # Errors
    /// [`Error::Unusable`] if one cannot be drawn.
    pub fn charts(&self) -> Result<Vec<Chart>> {
        Ok(self.sections()?.into_iter().flatten().collect())
    }

    /// The page with all charts, tables and settings.
    ///
    /// # Errors
    /// As [`charts`](Self::charts).
    pub fn html(&self) -> Result<String> {
        Ok(page::html(self.inputs.iter().zip(self.sections()?)))
    }

    /// Writes `report.html` and the charts in each of `formats` into `folder`, and returns the paths of the files.
    ///
    /// # Errors
    /// As [`charts`](Self::charts), and [`Error::Io`].
    pub fn write(&self, folder: &Path, formats: &[ImageFormat]) -> Result<Vec<PathBuf>> {
        // Everything is drawn before anything is written.
        let mut files = Vec::new();
        let sections = self.sections()?;
        for (input, charts) in self.inputs.iter().zip(&sections) {
            for (chart, format) in charts.iter().flat_map(|chart| formats.iter().map(move |format| (chart, *format))) {
                let content = match format {
                    ImageFormat::Svg => chart.svg().into_bytes(),
                    ImageFormat::Png => chart.png().map_err(|reason| input.not_drawn(&reason))?,
                };
                files.push((format!("{}.{}", chart.name, format.name()), content));
            }
        }
        let page = page::html(self.inputs.iter().zip(sections));
        files.push(("report.html".to_owned(), page.into_bytes()));
        std::fs::create_dir_all(folder).map_err(Error::io("making the folder of the report", folder))?;
        let mut written = Vec::new();
        for (name, content) in files {
            let path = folder.join(name);
            std::fs::write(&path, content).map_err(Error::io("writing the report", &path))?;
            written.push(path);
        }
        Ok(written)
    }

    /// The charts of each input, under unique names.
    fn sections(&self) -> Result<Vec<Vec<Chart>>> {
        let mut sections: Vec<Vec<Chart>> = Vec::new();
        for input in &self.inputs {
            let mut charts = charts::of(input).map_err(|reason| input.not_drawn(&reason))?;
            for chart in &mut charts {
                let plain = chart.name.clone();
                let mut number = 1;
                while sections.iter().flatten().any(|other| other.name == chart.name) {
                    number += 1;
                    chart.name = format!("{plain}-{number}");
                }
            }
            sections.push(charts);
        }
        Ok(sections)
    }
}
