//! From a video file to the visual tokens that are kept of it.

mod id;
mod partial;
mod running;

pub(super) use id::VideoId;
use partial::{EncodedImage, PartialEncoder, Purpose};
pub(super) use running::Running;

use super::inspect::{EncoderCells, Grid, NoteTaker, Notes, Places};
use super::prompt::arrangement::Arrangement;
use super::prompt::markers::Markers;
use crate::error::{Error, Result};
use crate::layout::{Layout, Size};
use crate::observer::{Observer, Stage};
use crate::prune::{self, Decision, PruneParams, Scorer, SliceDecision, SliceView};
use crate::runtime::{Bitmap, CancelToken, Model, Part, Vision};
use crate::skip::EncodeParams;
use crate::video::{Frame, FrameSource, Sampling, SurveyReport, VideoInfo};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A video as the prompt needs it: its arrangement, and the embeddings of the kept tokens.
#[derive(Debug, Clone)]
pub(super) struct EncodedVideo {
    /// Tells it from others.
    pub id: VideoId,
    /// What was opened.
    pub info: VideoInfo,
    /// How it stands in the prompt.
    pub arrangement: Arrangement,
    /// What the encoder puts around its slices.
    pub markers: Markers,
    /// One for each slice.
    pub slices: Vec<EncodedSlice>,
    /// How long each step took.
    pub timings: EncodeTimings,
    /// Tokens that are kept at most, whatever the pruning wants: what there was room for when it was planned.
    pub max_kept: Option<usize>,
    /// The embeddings of all tokens, slice by slice, for selecting anew; empty if they were not to be kept.
    pub unpruned: Vec<Vec<f32>>,
    /// Which frames were taken; `None` if it was encoded in another session.
    pub sampling: Option<Sampling>,
    /// How its frames were chosen, if it was by what changes.
    pub survey: Option<SurveyReport>,
}

impl EncodedVideo {
    /// One whose slices are still to come.
    pub fn empty(model: &Model, vision: &Vision, info: &VideoInfo, arrangement: Arrangement) -> Result<Self> {
        Ok(Self {
            id: VideoId::new(),
            info: info.clone(),
            markers: Markers::of(model, vision, &arrangement)?,
            arrangement,
            slices: Vec::new(),
            timings: EncodeTimings::default(),
            max_kept: None,
            unpruned: Vec::new(),
            sampling: None,
            survey: None,
        })
    }
}

/// The visual tokens of a frame, or of a merged pair of frames.
#[derive(Debug, Clone, Default)]
pub(super) struct EncodedSlice {
    /// Where in the video its frames are, in seconds, ascending: one for each, so that their number is that of its
    /// frames.
    pub times_s: Vec<f64>,
    /// Visual tokens before pruning.
    pub n_tokens: usize,
    /// The kept tokens, ascending, numbered over all images that the encoder made of the slice.
    pub kept: Vec<u32>,
    /// Their embeddings, `[kept × n_embd_inp]`.
    pub rows: Vec<f32>,
    /// Tokens, ascending, that did not go through all of the encoder and may not be kept.
    pub unfinished: Vec<u32>,
    /// The share of the encoder's work that was done, 0 to 1; 0 if the slice before had the same pixels.
    pub computed: f32,
    /// What the encoder did of it, where it can leave out something.
    pub cells: Option<EncoderCells>,
    /// What is kept for looking at, if that was asked for.
    pub notes: Option<Box<Notes>>,
    /// It left video that goes on: nothing is kept of it, and the text around it goes as well.
    pub has_left: bool,
}

impl EncodedSlice {
    /// Where in the video its first frame is, in seconds.
    pub fn time_s(&self) -> f64 {
        self.times_s.first().copied().unwrap_or_default()
    }

    /// Whether some of its embeddings are what the encoder gave for a slice before, or did not finish.
    pub fn is_estimated(&self) -> bool {
        self.cells.is_some() && self.computed < 1.0
    }

    /// How many frames it shows.
    pub fn n_frames(&self) -> usize {
        self.times_s.len()
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

/// Decodes, encodes and prunes one video.
pub(super) struct Encoder<'a> {
    pub model: &'a Model,
    pub vision: &'a mut Vision,
    pub layout: &'a dyn Layout,
    pub prune: &'a PruneParams,
    /// How much of each image is computed.
    pub encode: &'a EncodeParams,
    /// Whether the embeddings of all tokens stay in memory.
    pub keep_unpruned: bool,
    /// Where tokens lie, if notes of each slice are to be taken.
    pub inspect: Option<Places<'a>>,
    pub cancel: &'a CancelToken,
}

impl Encoder<'_> {
    /// Encodes the frames of `source`. `timings` has what was spent on opening it.
    pub fn encode(
        &mut self,
        mut source: FrameSource,
        mut timings: EncodeTimings,
        observer: &mut dyn Observer,
    ) -> Result<EncodedVideo> {
        let mrope = self.vision.uses_mrope();
        let sampled_fps = source.sampled_fps();
        let planned = Arrangement::new(self.layout, source.info(), source.planned_times(), sampled_fps, mrope);
        let mut slices: Vec<EncodedSlice> = Vec::with_capacity(planned.n_slices());
        let mut scorer = Scorer::new(self.prune)?;
        let purpose = Purpose {
            prune: self.prune,
            keeps_all: self.keep_unpruned,
            pools: planned.pools,
            n_slices: planned.n_slices(),
            path: &source.info().path,
        };
        let mut partial = PartialEncoder::new(self.encode, purpose)?;
        let mut taker = self.inspect.map(|_| NoteTaker::new(self.prune)).transpose()?;
        let mut times = Vec::with_capacity(planned.n_frames);
        let mut grids: Vec<Grid> = Vec::new();
        let mut previous: Vec<Frame> = Vec::new();
        loop {
            self.cancel.check()?;
            let frames: Vec<Frame> = timed(&mut timings.decode_video, || {
                source.by_ref().take(planned.frames_per_slice).collect::<Result<_>>()
            })?;
            if frames.is_empty() {
                break;
            }
            times.extend(times_of(&frames));
            let same_pixels = frames.len() == previous.len()
                && frames.iter().zip(&previous).all(|(frame, before)| frame.rgb == before.rgb);
            let mut slice = match slices.last().filter(|_| same_pixels) {
                // The same pixels give the same embeddings: the encoder's work is the larger part of what is left after
                // pruning.
                Some(encoded) => EncodedSlice {
                    times_s: times_of(&frames),
                    n_tokens: encoded.n_tokens,
                    kept: Vec::new(),
                    rows: encoded.rows.clone(),
                    unfinished: encoded.unfinished.clone(),
                    computed: 0.0,
                    cells: encoded.cells.as_ref().map(EncoderCells::all_reused),
                    notes: None,
                    has_left: false,
                },
                None => {
                    let encode = || self.encode_slice(&frames, &planned, &mut partial, &mut grids);
                    timed(&mut timings.encode, encode)?
                }
            };
            if let Some(taker) = &mut taker {
                let view = view(&slice.rows, slice.n_tokens, self.model)?.with_unfinished(&slice.unfinished);
                slice.notes = Some(Box::new(taker.note(view, grids.clone())));
            }
            timed(&mut timings.prune, || {
                scorer.push(view(&slice.rows, slice.n_tokens, self.model)?.with_unfinished(&slice.unfinished))
            })?;
            slices.push(slice);
            previous = frames;
            observer.progress(Stage::Encode, times.len() as u64, planned.n_frames as u64);
        }
        for warning in source.warnings() {
            observer.warning(warning);
        }
        let unpruned =
            if self.keep_unpruned { slices.iter().map(|slice| slice.rows.clone()).collect() } else { Vec::new() };
        let decision = timed(&mut timings.prune, || {
            let decision = scorer.finish();
            keep(&mut slices, &decision, self.model.n_embd_inp());
            note_importance(&mut slices, &decision);
            decision
        });
        let info = source.info().clone();
        if decision.non_finite > 0 {
            observer.warning(&format!(
                "{}: the encoder gave {} visual tokens that are no finite numbers; they were left out",
                info.path.display(),
                decision.non_finite
            ));
        }
        // Fewer frames than planned when the file is cut short: text and times are those of the frames there are. They
        // keep the size that they were encoded in.
        let there = Arrangement::new(self.layout, &info, &times, sampled_fps, mrope);
        let arrangement = Arrangement { image_size: planned.image_size, ..there };
        let markers = Markers::of(self.model, self.vision, &arrangement)?;
        let id = VideoId::new();
        let (max_kept, sampling, survey) = (None, None, None);
        Ok(EncodedVideo { id, info, arrangement, markers, slices, timings, max_kept, unpruned, sampling, survey })
    }

    fn encode_slice(
        &mut self,
        frames: &[Frame],
        arrangement: &Arrangement,
        partial: &mut Option<PartialEncoder>,
        grids: &mut Vec<Grid>,
    ) -> Result<EncodedSlice> {
        let bitmaps: Vec<Bitmap> = frames.iter().map(|frame| bitmap(frame, arrangement)).collect::<Result<_>>()?;
        let parts: Vec<Part<'_>> = bitmaps.iter().map(Part::Image).collect();
        let chunks = arrangement.tokenize(self.vision, &parts)?;
        let mut slice = EncodedSlice {
            times_s: times_of(frames),
            n_tokens: 0,
            kept: Vec::new(),
            rows: Vec::new(),
            unfinished: Vec::new(),
            computed: 1.0,
            cells: None,
            notes: None,
            has_left: false,
        };
        if let (Some(places), Some(frame)) = (self.inspect, frames.first()) {
            *grids = places.grids(&chunks, arrangement, (frame.width, frame.height), self.model);
        }
        let used = arrangement.used(chunks.images().collect());
        // Tiles of one image do not follow each other as frames do.
        if used.len() > 1 {
            *partial = None;
        }
        let n_embd = self.model.n_embd_inp();
        for chunk in used {
            self.cancel.check()?;
            slice.n_tokens += arrangement.tokens_left(chunk.n_tokens());
            let encoded = match partial {
                Some(encoder) => encoder.encode(self.vision, &chunk)?,
                None => None,
            };
            let Some(EncodedImage { rows, unfinished, computed, cells }) = encoded else {
                *partial = None;
                slice.rows.extend_from_slice(&arrangement.rows_left(self.vision.encode(&chunk)?, n_embd));
                continue;
            };
            slice.rows = arrangement.rows_left(&rows, n_embd).into_owned();
            slice.unfinished = unfinished;
            slice.computed = computed;
            slice.cells = Some(cells);
        }
        Ok(slice)
    }
}

/// When frames are shown, in seconds.
fn times_of(frames: &[Frame]) -> Vec<f64> {
    frames.iter().map(|frame| frame.time_s).collect()
}

/// What a pruning method sees of a slice: without what some models append to each row for deeper layers.
fn view<'a>(rows: &'a [f32], n_tokens: usize, model: &Model) -> Result<SliceView<'a>> {
    SliceView::with_stride(rows, n_tokens, model.n_embd(), model.n_embd_inp())
}

fn bitmap(frame: &Frame, arrangement: &Arrangement) -> Result<Bitmap> {
    let size = arrangement.image_size;
    if (frame.width, frame.height) == size {
        return Bitmap::rgb(frame.width, frame.height, &frame.rgb, arrangement.merges());
    }
    Bitmap::rgb(size.0, size.1, &resize(frame, size)?, arrangement.merges())
}

/// Leaves the rows of the kept tokens only.
fn keep(slices: &mut [EncodedSlice], decision: &Decision, stride: usize) {
    for (slice, decided) in slices.iter_mut().zip(&decision.slices) {
        keep_rows(slice, &decided.kept, stride);
    }
}

/// Leaves the rows of the `kept` tokens (ascending) of a slice whose rows are all there.
fn keep_rows(slice: &mut EncodedSlice, kept: &[u32], stride: usize) {
    for (to, &from) in kept.iter().enumerate() {
        let from = from as usize * stride;
        // Kept indices ascend, so a row never moves over one that is still needed.
        slice.rows.copy_within(from..from + stride, to * stride);
    }
    slice.rows.truncate(kept.len() * stride);
    slice.rows.shrink_to_fit();
    slice.kept = kept.to_vec();
}

/// Notes down what the decision was made by.
fn note_importance(slices: &mut [EncodedSlice], decision: &Decision) {
    for (slice, decided) in slices.iter_mut().zip(&decision.slices) {
        if let Some(notes) = &mut slice.notes {
            notes.importance.clone_from(&decided.importance);
        }
    }
}

/// What `params` keep of a video whose embeddings are all here. For comparing methods and budgets without encoding
/// anew.
pub(super) fn decide(video: &EncodedVideo, params: &PruneParams, model: &Model) -> Result<Decision> {
    let slices = video.slices.iter().zip(&video.unpruned);
    let views: Vec<_> = slices
        .map(|(slice, all)| Ok(view(all, slice.n_tokens, model)?.with_unfinished(&slice.unfinished)))
        .collect::<Result<_>>()?;
    let cap = params.cap.into_iter().chain(video.max_kept).min();
    prune::prune(&PruneParams { cap, ..params.clone() }, &views)
}

/// Keeps what was decided of a video whose embeddings are all here, rows of `stride` values. Returns whether that is
/// another selection than before.
pub(super) fn select(video: &mut Arc<EncodedVideo>, decision: &Decision, stride: usize) -> bool {
    note_importance(&mut Arc::make_mut(video).slices, decision);
    let same = |(slice, decided): (&EncodedSlice, &SliceDecision)| slice.kept == decided.kept;
    if video.slices.len() == decision.slices.len() && video.slices.iter().zip(&decision.slices).all(same) {
        return false;
    }
    let video = Arc::make_mut(video);
    video.id = VideoId::new();
    for (slice, all) in video.slices.iter_mut().zip(&video.unpruned) {
        slice.rows.clone_from(all);
    }
    keep(&mut video.slices, decision, stride);
    true
}

/// Bicubic, as most of Hugging Face's video processors do it.
fn resize(frame: &Frame, (width, height): Size) -> Result<Vec<u8>> {
    let image = image::ImageBuffer::<image::Rgb<u8>, _>::from_raw(frame.width, frame.height, frame.rgb.as_slice())
        .ok_or_else(|| Error::InvalidParameter {
            name: "frame",
            value: format!("{} bytes", frame.rgb.len()),
            expected: format!("{}×{} pixels of three bytes", frame.width, frame.height),
        })?;
    Ok(image::imageops::resize(&image, width, height, image::imageops::FilterType::CatmullRom).into_raw())
}

/// Runs `work` and adds the time it takes to `total`.
pub(super) fn timed<T>(total: &mut Duration, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    *total += start.elapsed();
    result
}
