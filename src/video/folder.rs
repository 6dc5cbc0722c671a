//! Folders with one image per frame, as benchmarks distribute them.

use std::path::{Path, PathBuf};

use super::sampling::index_at;
use super::sniff::has_extension;
use super::spread::Known;
use super::{Frame, Images, Kind, Opened, Sampling, Stop, VideoInfo, image_file};
use crate::error::{Error, Result};

const EXTENSIONS: [&str; 4] = ["jpg", "jpeg", "png", "webp"];

/// Opens the images of a folder, in natural order of their names, at `folder_fps` frames per second.
pub(super) fn open(path: &Path, fps: f64, stop: &Stop) -> Result<Opened> {
    let files = list(path)?;
    let times: Vec<f64> = (0..files.len()).map(|i| i as f64 / fps).collect();
    let duration_s = files.len() as f64 / fps;
    let info = VideoInfo {
        path: path.to_owned(),
        kind: Kind::FrameFolder,
        width: 0,
        height: 0,
        duration_s: Some(duration_s),
        fps: Some(fps),
        n_frames: Some(files.len() as u64),
        container: "folder".to_owned(),
        codec: files[0].extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase(),
    };
    let (of_plan, path_of_plan) = (times.clone(), path.to_owned());
    let planner = Box::new(move |sampling: &Sampling| {
        let range = sampling.range(&path_of_plan, duration_s)?;
        Ok(sampling.plan(&range, Known { fps: Some(fps), frame_times: Some(&of_plan) }))
    });
    let images = Folder { path: path.to_owned(), files, times, stop: stop.clone(), n_decoded: 0, n_damaged: 0 };
    Ok(Opened { info, planner, images: Box::new(images), warnings: Vec::new() })
}

/// The images in the folder, in natural order; at least one.
fn list(path: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in path.read_dir().map_err(Error::io("listing the frames", path))? {
        let file = entry.map_err(Error::io("listing the frames", path))?.path();
        let hidden = file.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !hidden && has_extension(&file, &EXTENSIONS) && file.is_file() {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(Error::NoImages { path: path.to_owned() });
    }
    let name = |file: &PathBuf| file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // By the values of numbers: `frame9` before `frame10`.
    files.sort_by(|a, b| alphanumeric_sort::compare_str(name(a), name(b)));
    Ok(files)
}

struct Folder {
    path: PathBuf,
    files: Vec<PathBuf>,
    times: Vec<f64>,
    stop: Stop,
    n_decoded: u64,
    n_damaged: u64,
}

impl Images for Folder {
    /// A damaged image is replaced by the nearest intact one before it, as in a player, or else by the next intact one.
    fn at(&mut self, time_s: f64) -> Result<Option<Frame>> {
        let target = index_at(&self.times, time_s).unwrap_or(0);
        let mut first_error = None;
        for i in (0..=target).rev().chain(target + 1..self.files.len()) {
            self.stop.check()?;
            match image_file::read(&self.files[i]) {
                Ok(frame) => {
                    self.n_decoded += 1;
                    return Ok(Some(frame));
                }
                Err(error) => {
                    self.n_damaged += u64::from(i == target);
                    first_error.get_or_insert(error);
                }
            }
        }
        first_error.map_or(Ok(None), Err)
    }

    fn frames_decoded(&self) -> u64 {
        self.n_decoded
    }

    fn warnings(&mut self) -> Vec<String> {
        let taken = match self.n_damaged {
            0 => return Vec::new(),
            1 => "its neighbor was taken",
            _ => "their neighbors were taken",
        };
        vec![format!("{}: {} of the images could not be decoded; {taken}", self.path.display(), self.n_damaged)]
    }
}
