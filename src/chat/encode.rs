//! From a video file to the visual tokens that are kept of it.

use super::observer::{Observer, Stage};
use crate::error::{Error, Result};
use crate::layout::{self, Layout};
use crate::prune::{Decision, PruneParams, Scorer, SliceView};
use crate::runtime::{Bitmap, CancelToken, Model, Part, Vision};
use crate::video::{Frame, FrameSource, Sampling, VideoInfo};
use std::path::Path;
use std::time::{Duration, Instant};

/// The most that a frame's longer side may exceed what any encoder looks at before it is made smaller here.
type Size = (u32, u32);

/// A video as the prompt needs it: its layout, and the embeddings of the kept tokens.
#[derive(Debug)]
pub(super) struct EncodedVideo {
    /// What was opened.
    pub info: VideoInfo,
    /// Text and frames in prompt order.
    pub parts: Vec<layout::Part>,
    /// The picture size that the encoder was given.
    pub frame_size: Size,
    /// One for each frame.
    pub slices: Vec<EncodedSlice>,
    /// How long each step took.
    pub timings: EncodeTimings,
}

/// The visual tokens of one frame.
#[derive(Debug)]
pub(super) struct EncodedSlice {
    /// Where in the video the frame is.
    pub time_s: f64,
    /// The tokens of each chunk that the encoder cut the frame into: one, unless it tiles.
    pub chunk_tokens: Vec<usize>,
    /// The kept tokens, ascending, numbered over all chunks.
    pub kept: Vec<u32>,
    /// Their embeddings, `[kept × n_embd_inp]`.
    pub rows: Vec<f32>,
}

impl EncodedSlice {
    /// Visual tokens before pruning.
    pub fn n_tokens(&self) -> usize {
        self.chunk_tokens.iter().sum()
    }
}

/// Wall time of the steps before prefill.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct EncodeTimings {
    pub decode_video: Duration,
    pub encode: Duration,
    pub prune: Duration,
}

impl std::ops::AddAssign for EncodeTimings {
    fn add_assign(&mut self, other: Self) {
        self.decode_video += other.decode_video;
        self.encode += other.encode;
        self.prune += other.prune;
    }
}

/// What a video will take, known before a frame is encoded.
#[derive(Debug, Clone, Copy)]
pub(super) struct VideoCost {
    /// Frames.
    pub frames: usize,
    /// Positions of its whole layout, markers and text included. They do not shrink with pruning.
    pub positions: usize,
    /// Rows of its whole layout, unpruned.
    pub rows: usize,
}

/// Decodes, encodes and prunes one video.
pub(super) struct Encoder<'a> {
    pub model: &'a Model,
    pub vision: &'a mut Vision,
    pub layout: &'a dyn Layout,
    /// Side of the encoder's square tile in pixels, if the mmproj tells.
    pub tile_side: Option<u32>,
    pub prune: &'a PruneParams,
    pub cancel: &'a CancelToken,
}

impl Encoder<'_> {
    /// Encodes the video at `path`. `check` sees what it will take before the first frame is encoded, and can refuse.
    pub fn encode(
        &mut self,
        path: &Path,
        sampling: &Sampling,
        observer: &mut dyn Observer,
        check: impl FnOnce(VideoCost) -> Result<()>,
    ) -> Result<EncodedVideo> {
        let mut timings = EncodeTimings::default();
        let mut source = timed(&mut timings.decode_video, || FrameSource::open(path, sampling))?;
        let planned = source.planned_times().to_vec();
        let frame_size = self.frame_size((source.info().width, source.info().height))?;
        check(self.cost(&self.layout.parts(&planned), frame_size)?)?;

        let mut slices: Vec<EncodedSlice> = Vec::with_capacity(planned.len());
        let mut scorer = Scorer::new(self.prune)?;
        let mut previous: Option<Frame> = None;
        loop {
            self.cancel.check()?;
            let Some(frame) = timed(&mut timings.decode_video, || source.next()) else { break };
            let frame = frame?;
            let slice = match previous.as_ref().zip(slices.last()) {
                // The same pixels give the same embeddings: the encoder's work is the larger part of what is left after pruning.
                Some((before, encoded)) if before.rgb == frame.rgb => EncodedSlice {
                    time_s: frame.time_s,
                    chunk_tokens: encoded.chunk_tokens.clone(),
                    kept: Vec::new(),
                    rows: encoded.rows.clone(),
                },
                _ => timed(&mut timings.encode, || self.encode_frame(&frame, frame_size))?,
            };
            timed(&mut timings.prune, || self.score(&mut scorer, &slice))?;
            slices.push(slice);
            previous = Some(frame);
            observer.progress(Stage::Encode, slices.len() as u64, planned.len() as u64);
        }
        for warning in source.warnings() {
            observer.warning(warning);
        }
        let decision = timed(&mut timings.prune, || {
            let decision = scorer.finish();
            keep(&mut slices, &decision, self.model.n_embd_inp());
            decision
        });
        if decision.non_finite > 0 {
            observer.warning(&format!(
                "{}: the encoder gave {} visual tokens that are no finite numbers; they were left out",
                path.display(),
                decision.non_finite
            ));
        }
        // Fewer frames than planned when the file is cut short: the layout is that of the frames there are.
        let times: Vec<f64> = slices.iter().map(|slice| slice.time_s).collect();
        Ok(EncodedVideo { info: source.info().clone(), parts: self.layout.parts(&times), frame_size, slices, timings })
    }

    /// The size to give frames of `size` to the encoder in: their own, unless it would cut them up and the layout wants one tile.
    fn frame_size(&self, size: Size) -> Result<Size> {
        let Some(side) = self.tile_side.filter(|_| self.layout.single_tile()) else { return Ok(size) };
        let bitmap = Bitmap::placeholder(size.0, size.1, false)?;
        let tiles = self.vision.tokenize(&[Part::Image(&bitmap)], false)?.images().count();
        Ok(if tiles > 1 { (side, side) } else { size })
    }

    fn cost(&self, parts: &[layout::Part], size: Size) -> Result<VideoCost> {
        let bitmap = Bitmap::placeholder(size.0, size.1, false)?;
        let chunks = self.vision.tokenize(&as_vision_parts(parts, &bitmap), false)?;
        let mut cost = VideoCost { frames: 0, positions: 0, rows: 0 };
        cost.frames = parts.iter().filter(|part| matches!(part, layout::Part::Frame(_))).count();
        for chunk in chunks.iter() {
            let (rows, positions) = match &chunk {
                crate::runtime::Chunk::Text(tokens) => (tokens.len(), tokens.len()),
                crate::runtime::Chunk::Image(image) => (image.n_tokens(), image.n_pos().max(0) as usize),
            };
            cost.rows += rows;
            cost.positions += positions;
        }
        Ok(cost)
    }

    fn encode_frame(&mut self, frame: &Frame, size: Size) -> Result<EncodedSlice> {
        let bitmap = if (frame.width, frame.height) == size {
            Bitmap::rgb(frame.width, frame.height, &frame.rgb, false)?
        } else {
            let resized = resize(frame, size)?;
            Bitmap::rgb(size.0, size.1, &resized, false)?
        };
        let chunks = self.vision.tokenize(&[Part::Image(&bitmap)], false)?;
        let mut slice =
            EncodedSlice { time_s: frame.time_s, chunk_tokens: Vec::new(), kept: Vec::new(), rows: Vec::new() };
        for chunk in chunks.images() {
            self.cancel.check()?;
            slice.rows.extend_from_slice(self.vision.encode(&chunk)?);
            slice.chunk_tokens.push(chunk.n_tokens());
        }
        Ok(slice)
    }

    fn score(&self, scorer: &mut Scorer, slice: &EncodedSlice) -> Result<()> {
        let (n_embd, stride) = (self.model.n_embd(), self.model.n_embd_inp());
        scorer.push(SliceView::with_stride(&slice.rows, slice.n_tokens(), n_embd, stride)?)
    }
}

/// Leaves the rows of the kept tokens only.
fn keep(slices: &mut [EncodedSlice], decision: &Decision, stride: usize) {
    for (slice, decided) in slices.iter_mut().zip(&decision.slices) {
        for (to, &from) in decided.kept.iter().enumerate() {
            let from = from as usize * stride;
            // Kept indices ascend, so a row never moves over one that is still needed.
            slice.rows.copy_within(from..from + stride, to * stride);
        }
        slice.rows.truncate(decided.kept.len() * stride);
        slice.rows.shrink_to_fit();
        slice.kept.clone_from(&decided.kept);
    }
}

/// A layout's parts with `bitmap` in place of every frame.
fn as_vision_parts<'a>(parts: &'a [layout::Part], bitmap: &'a Bitmap) -> Vec<Part<'a>> {
    parts
        .iter()
        .map(|part| match part {
            layout::Part::Text(text) => Part::Text(text),
            layout::Part::Frame(_) => Part::Image(bitmap),
        })
        .collect()
}

/// Bicubic, as Hugging Face's processors of the one-tile families do it.
fn resize(frame: &Frame, (width, height): Size) -> Result<Vec<u8>> {
    let picture = image::ImageBuffer::<image::Rgb<u8>, _>::from_raw(frame.width, frame.height, frame.rgb.as_slice())
        .ok_or_else(|| Error::InvalidParameter {
            name: "frame",
            value: format!("{} bytes", frame.rgb.len()),
            expected: format!("{}×{} pixels of three bytes", frame.width, frame.height),
        })?;
    Ok(image::imageops::resize(&picture, width, height, image::imageops::FilterType::CatmullRom).into_raw())
}

/// Runs `work` and adds the time it takes to `total`.
fn timed<T>(total: &mut Duration, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    *total += start.elapsed();
    result
}
