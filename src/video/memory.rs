//! Frames in memory: from a camera, a screen or the program's own decoder.

use std::path::PathBuf;
use std::sync::Arc;

use super::sampling::{Plan, index_at};
use super::spread::Known;
use super::{Frame, Images, Kind, Opened, Sampling, Stop, VideoInfo};
use crate::error::{Error, Result};

/// A video in memory: images of one size, each with the time from which it is shown.
///
/// An image is `height` rows of `width` pixels, from the top left, without padding between rows. A pixel is three
/// bytes: red, green and blue, in sRGB, without alpha. Images must be upright and have square pixels.
///
/// Times are in seconds and ascend. As with a file, only the time since the first frame matters. The last frame lasts
/// as long as the others do on average, unless [`ends_at`](Self::ends_at) sets its end. A single frame without an end
/// counts as a still image.
///
/// Clones share the images.
///
/// ```
/// use sharpv::video::{FrameSource, Frames, Sampling};
///
/// let mut frames = Frames::new(64, 48);
/// for i in 0..30 {
///     let rgb = vec![8 * i as u8; 64 * 48 * 3];
///     frames.push(rgb, f64::from(i) / 10.0)?;
/// }
/// let source = FrameSource::from_frames("camera", &frames, &Sampling::fps(2.0, 16))?;
/// assert_eq!(source.planned_times(), [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]);
/// # Ok::<(), sharpv::Error>(())
/// ```
#[derive(Clone)]
pub struct Frames {
    width: u32,
    height: u32,
    images: Vec<Arc<Vec<u8>>>,
    /// The times passed to [`push`](Self::push).
    times: Vec<f64>,
    end_s: Option<f64>,
}

impl Frames {
    /// An empty video of `width` × `height` pixels.
    pub fn new(width: u32, height: u32) -> Self {
        Self { width, height, images: Vec::new(), times: Vec::new(), end_s: None }
    }

    /// Adds a frame that is shown from `time_s` on: `height × width × 3` bytes, copied unless they are a `Vec`.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if the number of bytes is wrong, if the width or height is 0, or if the time is not
    /// finite or not after that of the previous frame.
    pub fn push(&mut self, rgb: impl Into<Vec<u8>>, time_s: f64) -> Result<()> {
        let rgb = rgb.into();
        check_image((self.width, self.height), rgb.len(), time_s, self.times.last().copied())?;
        self.images.push(Arc::new(rgb));
        self.times.push(time_s);
        Ok(())
    }

    /// Sets the time at which the last frame ends. Has no effect if that is not after the frame's start.
    pub fn ends_at(&mut self, time_s: f64) {
        self.end_s = Some(time_s);
    }

    /// The number of frames.
    pub fn len(&self) -> usize {
        self.images.len()
    }

    /// Whether there are no frames.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// The frames' width and height in pixels.
    pub fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// The start of each frame, in seconds since the first.
    fn times_since_first(&self) -> Vec<f64> {
        let first = self.times.first().copied().unwrap_or_default();
        self.times.iter().map(|time| time - first).collect()
    }

    /// The video's length in seconds; `None` for a still image.
    fn duration_s(&self) -> Option<f64> {
        let (&first, &last) = self.times.first().zip(self.times.last())?;
        match self.end_s.filter(|&end| end.is_finite() && end > last) {
            Some(end) => Some(end - first),
            None if self.len() < 2 => None,
            None => Some((last - first) * self.len() as f64 / (self.len() - 1) as f64),
        }
    }
}

/// Checks that an image can be the next frame: that its size is not empty, that its number of bytes is right, and that
/// its time is after `before`, the time of the previous frame.
pub(crate) fn check_image((width, height): (u32, u32), bytes: usize, time_s: f64, before: Option<f64>) -> Result<()> {
    let invalid = |name, value, expected| Err(Error::InvalidParameter { name, value, expected });
    if width == 0 || height == 0 {
        let expected = "at least one pixel wide and high".to_owned();
        return invalid("the size of the frames", format!("{width}×{height}"), expected);
    }
    let n_bytes = u64::from(width) * u64::from(height) * 3;
    if bytes as u64 != n_bytes {
        let expected = format!("{n_bytes}: {width}×{height} pixels of three bytes (red, green, blue)");
        return invalid("the number of bytes of a frame", bytes.to_string(), expected);
    }
    if !time_s.is_finite() {
        return invalid("the time of a frame", time_s.to_string(), "a number of seconds".to_owned());
    }
    match before {
        Some(before) if time_s <= before => {
            let expected = format!("later than the frame before, {before} s");
            invalid("the time of a frame", format!("{time_s} s"), expected)
        }
        _ => Ok(()),
    }
}

impl std::fmt::Debug for Frames {
    /// Leaves out the pixels.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frames({} of {}x{})", self.len(), self.width, self.height)
    }
}

/// Opens `frames`. `name` takes the place of a path.
pub(super) fn open(name: &str, frames: &Frames, stop: &Stop) -> Result<Opened> {
    if frames.is_empty() {
        return Err(Error::InvalidParameter {
            name: "the number of frames",
            value: "0".into(),
            expected: "at least 1".into(),
        });
    }
    let path = PathBuf::from(name);
    let (times, duration_s) = (frames.times_since_first(), frames.duration_s());
    let fps = duration_s.map(|duration_s| frames.len() as f64 / duration_s);
    let info = VideoInfo {
        path: path.clone(),
        kind: if duration_s.is_some() { Kind::Frames } else { Kind::Image },
        width: 0,
        height: 0,
        duration_s,
        fps,
        n_frames: Some(frames.len() as u64),
        container: "memory".to_owned(),
        codec: "rawvideo".to_owned(),
    };
    let images = Memory { frames: frames.clone(), times: times.clone(), stop: stop.clone(), n_yielded: 0 };
    let planner = move |sampling: &Sampling| match duration_s {
        Some(duration_s) => {
            Ok(sampling.plan(&sampling.range(&path, duration_s)?, Known { fps, frame_times: Some(&times) }))
        }
        None => Ok(Plan::image()),
    };
    Ok(Opened { info, planner: Box::new(planner), images: Box::new(images), warnings: Vec::new() })
}

struct Memory {
    frames: Frames,
    times: Vec<f64>,
    stop: Stop,
    n_yielded: u64,
}

impl Images for Memory {
    fn at(&mut self, time_s: f64) -> Result<Option<Frame>> {
        self.stop.check()?;
        let Some(image) = self.frames.images.get(index_at(&self.times, time_s).unwrap_or(0)) else {
            return Ok(None);
        };
        self.n_yielded += 1;
        let (width, height) = self.frames.size();
        Ok(Some(Frame { width, height, rgb: image.to_vec(), time_s }))
    }

    fn frames_decoded(&self) -> u64 {
        self.n_yielded
    }

    fn warnings(&mut self) -> Vec<String> {
        Vec::new()
    }
}
