//! The frames of an inspected video, decoded again: small images for the page, and images and a video in full size with
//! the dropped cells dimmed.

use super::panels::canvas;
use super::{files, overlay};
use crate::chat::{Area, SliceInspection, VideoInspection};
use crate::error::{Error, FileKind, MediaProblem, Result};
use crate::observer::{Observer, Stage};
use crate::runtime::CancelToken;
use crate::video::{Frame, FrameSource, VideoWriter};
use image::codecs::jpeg::JpegEncoder;
use image::imageops::{self, FilterType};
use image::{ExtendedColorType, ImageFormat, RgbImage};
use std::io::Cursor;
use std::path::{Path, PathBuf};

/// The longest side of a small image, and that of one of many, in pixels.
const SMALL: u32 = 480;
const SMALLER: u32 = 320;
/// With more frames than this, images are smaller: the page should not become tens of megabytes.
const MANY: usize = 64;
/// JPEG quality, up to 100.
const QUALITY: u8 = 80;

/// The images to make of a video.
#[derive(Debug, Clone, Copy)]
pub struct Images<'a> {
    /// The inspected video.
    pub video: &'a VideoInspection,
    /// Whether to make small images, for the page.
    pub small: bool,
    /// A folder for a PNG of each frame, with the dropped cells dimmed.
    pub png: Option<&'a Path>,
    /// A file for a video of these images. Each is shown from its time in the video on.
    pub film: Option<&'a Path>,
}

/// The images that were made.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// A small JPEG of each frame, in order.
    pub(super) small: Vec<Vec<u8>>,
    /// The files that were written.
    pub written: Vec<PathBuf>,
}

impl Images<'_> {
    /// Decodes the frames once, and makes all requested images.
    ///
    /// # Errors
    /// Those of [`FrameSource::open`]; [`Error::Unusable`] if the file has other frames than before;
    /// [`Error::InvalidParameter`], [`Error::Media`] and [`Error::Io`] if a file cannot be written;
    /// [`Error::Cancelled`]. A file is written completely or not at all.
    pub fn make(&self, cancel: &CancelToken, observer: &mut dyn Observer) -> Result<Shown> {
        let slices = &self.video.slices;
        let frames: Vec<(f64, &SliceInspection)> =
            slices.iter().flat_map(|slice| slice.times_s.iter().map(move |&time| (time, slice))).collect();
        let mut shown = Shown::default();
        if let Some(folder) = self.png {
            std::fs::create_dir_all(folder).map_err(Error::io("making the folder of the images", folder))?;
        }
        let small = Small::new(&self.video.slices, (self.video.info.width, self.video.info.height), frames.len());
        let mut film = self.film.map(|path| Film::begin(path, &self.video.info)).transpose()?;
        for (i, frame) in decode(self.video, cancel)?.enumerate() {
            cancel.check()?;
            let frame = frame?;
            let Some(&(_, slice)) = frames.get(i).filter(|(time_s, _)| *time_s == frame.time_s) else {
                return Err(changed(self.video));
            };
            if self.small {
                shown.small.push(small.jpeg(&frame).map_err(|error| self.not_drawn(&error))?);
            }
            if self.png.is_some() || film.is_some() {
                let dimmed = overlay::dimmed(frame, slice);
                if let Some(folder) = self.png {
                    let path = folder.join(format!("frame-{:04}.png", i + 1));
                    files::write(&path, &png(&dimmed).map_err(|error| self.not_drawn(&error))?)?;
                    shown.written.push(path);
                }
                if let Some(film) = &mut film {
                    film.writer.push(&dimmed)?;
                }
            }
            observer.progress(Stage::Draw, i as u64 + 1, frames.len() as u64);
        }
        if self.small && shown.small.len() != frames.len() {
            return Err(changed(self.video));
        }
        shown.written.extend(film.map(Film::finish).transpose()?);
        Ok(shown)
    }

    fn not_drawn(&self, error: &image::ImageError) -> Error {
        let (path, reason) = (self.video.info.path.clone(), error.to_string());
        Error::Media { problem: MediaProblem::Image, path, reason }
    }
}

/// The frames of `video` as rows of small images, with the dropped cells dimmed: `columns` images in each row, `width`
/// pixels wide.
///
/// # Errors
/// Those of [`FrameSource::open`]; [`Error::Unusable`] if the file has other frames than before; [`Error::Cancelled`].
pub fn strips(
    video: &VideoInspection,
    columns: usize,
    width: u32,
    cancel: &CancelToken,
    observer: &mut dyn Observer,
) -> Result<Vec<Frame>> {
    let frames: Vec<(f64, &SliceInspection)> =
        video.slices.iter().flat_map(|slice| slice.times_s.iter().map(move |&time| (time, slice))).collect();
    let width = width.max(GAP + 1) - GAP;
    let scale = f64::from(width) / f64::from(video.info.width.max(1));
    let height = ((f64::from(video.info.height) * scale).round() as u32).max(1);
    let columns = columns.max(1);
    let mut rows: Vec<Frame> = Vec::new();
    for (i, frame) in decode(video, cancel)?.enumerate() {
        cancel.check()?;
        let Some(&(time_s, slice)) = frames.get(i) else { return Err(changed(video)) };
        let image = image_of(&frame?);
        let small = imageops::resize(&image, width, height, FilterType::Triangle);
        // Dimmed after scaling, so that cells have sharp edges.
        let small = overlay::dimmed(Frame { width, height, rgb: small.into_raw(), time_s }, slice);
        if i % columns == 0 {
            let n = columns.min(frames.len() - i) as u32;
            let width = n * (width + GAP);
            rows.push(Frame { width, height, rgb: vec![0; (width * height * 3) as usize], time_s });
        }
        if let Some(row) = rows.last_mut() {
            let left = (i % columns) * (width + GAP) as usize * 3;
            let (from_bytes, to_bytes) = (width as usize * 3, row.width as usize * 3);
            for (from, to) in small.rgb.chunks_exact(from_bytes).zip(row.rgb.chunks_exact_mut(to_bytes)) {
                to[left..left + from_bytes].copy_from_slice(from);
            }
        }
        observer.progress(Stage::Draw, i as u64 + 1, frames.len() as u64);
    }
    Ok(rows)
}

/// The gap between two images of a strip, in pixels.
const GAP: u32 = 2;

fn decode(video: &VideoInspection, cancel: &CancelToken) -> Result<FrameSource> {
    let cancel = cancel.clone();
    let times = video.slices.iter().flat_map(|slice| slice.times_s.iter().copied()).collect();
    FrameSource::at_times(&(&video.info.path).into(), &video.sampling, times, move || cancel.is_cancelled())
}

fn changed(video: &VideoInspection) -> Error {
    Error::Unusable {
        what: FileKind::Video,
        path: video.info.path.clone(),
        reason: "its frames are no longer those that were encoded".into(),
        advice: "it has changed meanwhile: run this again".into(),
    }
}

/// A video that is being written to a temporary file.
struct Film<'a> {
    writer: VideoWriter,
    file: tempfile::NamedTempFile,
    path: &'a Path,
}

impl<'a> Film<'a> {
    fn begin(path: &'a Path, info: &crate::video::VideoInfo) -> Result<Self> {
        // The format is that of the final name, not of the temporary one.
        VideoWriter::check_name(path)?;
        let file = files::beside(path)?;
        Ok(Self { writer: VideoWriter::create(file.path(), info.width, info.height)?, file, path })
    }

    fn finish(self) -> Result<PathBuf> {
        self.writer.finish()?;
        files::put(self.file, self.path)?;
        Ok(self.path.to_owned())
    }
}

/// Makes small images of frames, including the borders around them that tokens reach into.
struct Small {
    /// The whole image, in pixels.
    size: (u32, u32),
    /// The frame in it: its offset and size.
    at: (i64, i64),
    frame: (u32, u32),
}

impl Small {
    fn new(slices: &[SliceInspection], (width, height): (u32, u32), n_frames: usize) -> Self {
        let Area { left, top, right, bottom } = canvas(slices);
        let (width, height) = (f64::from(width.max(1)), f64::from(height.max(1)));
        let (all_width, all_height) = ((right - left) * width, (bottom - top) * height);
        let longest = f64::from(if n_frames > MANY { SMALLER } else { SMALL });
        let scale = (longest / all_width.max(all_height)).min(1.0);
        let pixels = |length: f64| ((length * scale).round() as u32).max(1);
        Self {
            size: (pixels(all_width), pixels(all_height)),
            at: ((-left * width * scale).round() as i64, (-top * height * scale).round() as i64),
            frame: (pixels(width), pixels(height)),
        }
    }

    fn jpeg(&self, frame: &Frame) -> image::ImageResult<Vec<u8>> {
        let image = image_of(frame);
        let (width, height) = self.frame;
        let small = imageops::resize(&image, width, height, FilterType::Triangle);
        let mut canvas = RgbImage::new(self.size.0, self.size.1);
        imageops::replace(&mut canvas, &small, self.at.0, self.at.1);
        let mut bytes = Vec::new();
        let encoder = JpegEncoder::new_with_quality(&mut bytes, QUALITY);
        canvas.write_with_encoder(encoder)?;
        Ok(bytes)
    }
}

fn image_of(frame: &Frame) -> RgbImage {
    // The length of the data matches the frame's size.
    RgbImage::from_raw(frame.width, frame.height, frame.rgb.clone()).unwrap_or_default()
}

fn png(frame: &Frame) -> image::ImageResult<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    let (width, height) = (frame.width, frame.height);
    image::write_buffer_with_format(&mut bytes, &frame.rgb, width, height, ExtendedColorType::Rgb8, ImageFormat::Png)?;
    Ok(bytes.into_inner())
}
