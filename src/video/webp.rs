//! Animated WebP, which FFmpeg cannot decode before version 8.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use image_webp::WebPDecoder;

use super::frame::over_white;
use super::limits::{MAX_VIDEO_PIXELS, check_size};
use super::sampling::index_at;
use super::spread::Known;
use super::{Frame, Images, Kind, Opened, Sampling, Stop, VideoInfo};
use crate::error::{Error, MediaProblem, Result};

/// Opens an animated WebP.
pub(super) fn open(path: &Path, stop: &Stop) -> Result<Opened> {
    let mut file = BufReader::new(File::open(path).map_err(Error::io("opening the animation", path))?);
    let durations = frame_durations(&mut file).map_err(Error::io("reading the animation", path))?;
    file.rewind().map_err(Error::io("reading the animation", path))?;
    let decoder = WebPDecoder::new(file).map_err(|error| decode_error(path, &error))?;

    let mut end = 0.0;
    let mut times = Vec::with_capacity(durations.len());
    for duration in durations {
        times.push(end);
        end += duration;
    }
    if times.is_empty() {
        return Err(Error::NoFrames { path: path.to_owned() });
    }
    let fps = Some(times.len() as f64 / end);
    let (of_plan, path_of_plan) = (times.clone(), path.to_owned());
    let planner = Box::new(move |sampling: &Sampling| {
        let range = sampling.range(&path_of_plan, end)?;
        Ok(sampling.plan(&range, Known { fps, frame_times: Some(&of_plan) }))
    });
    let (width, height) = decoder.dimensions();
    check_size(path, width.into(), height.into(), MAX_VIDEO_PIXELS)?;
    let info = VideoInfo {
        path: path.to_owned(),
        kind: Kind::Animation,
        width,
        height,
        duration_s: Some(end),
        fps,
        n_frames: Some(times.len() as u64),
        container: "webp".to_owned(),
        codec: "webp".to_owned(),
    };
    let images = Animation {
        path: path.to_owned(),
        decoder,
        times,
        stop: stop.clone(),
        n_decoded: 0,
        current: None,
        damage: None,
    };
    Ok(Opened { info, planner, images: Box::new(images), warnings: Vec::new() })
}

/// The duration of each frame in seconds, from the headers of the `ANMF` chunks.
///
/// Source: the WebP container specification. A chunk is a name, a 32-bit length and that many bytes, padded to an even
/// number. `ANMF` starts with x, y, width, height and the duration in ms, each 24 bits, little endian.
fn frame_durations(file: &mut (impl Read + Seek)) -> std::io::Result<Vec<f64>> {
    let mut durations = Vec::new();
    let end = file.seek(SeekFrom::End(0))?;
    let mut position = 12; // after RIFF, length, WEBP
    while position + 8 <= end {
        file.seek(SeekFrom::Start(position))?;
        let mut header = [0; 8];
        file.read_exact(&mut header)?;
        let length = u64::from(u32::from_le_bytes([header[4], header[5], header[6], header[7]]));
        if &header[..4] == b"ANMF" && position + 8 + 16 <= end {
            let mut frame = [0; 16];
            file.read_exact(&mut frame)?;
            let ms = u32::from_le_bytes([frame[12], frame[13], frame[14], 0]);
            // Browsers show frames of 10 ms and less for 100 ms, and such files are made for that.
            durations.push(if ms <= 10 { 0.1 } else { f64::from(ms) / 1000.0 });
        }
        position += 8 + length + length % 2;
    }
    Ok(durations)
}

struct Animation {
    path: PathBuf,
    decoder: WebPDecoder<BufReader<File>>,
    times: Vec<f64>,
    stop: Stop,
    n_decoded: usize,
    /// The last decoded image: RGBA if the file has an alpha channel, else RGB.
    current: Option<Vec<u8>>,
    damage: Option<String>,
}

impl Images for Animation {
    fn at(&mut self, time_s: f64) -> Result<Option<Frame>> {
        let target = index_at(&self.times, time_s).unwrap_or(0);
        let Some(size) = self.decoder.output_buffer_size() else { return Ok(None) };
        while self.n_decoded <= target {
            self.stop.check()?;
            let image = self.current.get_or_insert_with(|| vec![0; size]);
            if let Err(error) = self.decoder.read_frame(image) {
                if self.n_decoded == 0 {
                    return Err(decode_error(&self.path, &error));
                }
                self.damage = Some(error.to_string());
                return Ok(None);
            }
            self.n_decoded += 1;
        }
        let (width, height) = self.decoder.dimensions();
        let frame = self.current.as_ref().map(|image| {
            let rgb = if self.decoder.has_alpha() { over_white(image) } else { image.clone() };
            Frame { width, height, rgb, time_s }
        });
        Ok(frame)
    }

    fn frames_decoded(&self) -> u64 {
        self.n_decoded as u64
    }

    fn warnings(&mut self) -> Vec<String> {
        let reason = self.damage.take();
        reason.map(|reason| format!("{}: {reason}", self.path.display())).into_iter().collect()
    }
}

fn decode_error(path: &Path, error: &image_webp::DecodingError) -> Error {
    Error::Media { problem: MediaProblem::Image, path: path.to_owned(), reason: error.to_string() }
}
