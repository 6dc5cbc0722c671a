//! Turns the frames of a video into encoded slices: decodes, encodes and prunes.

mod notes;
mod partial;
mod running;
mod select;

pub(in crate::chat) use notes::GridRules;
pub(in crate::chat) use running::Running;
pub(in crate::chat) use select::{decide, select};

use crate::chat::encoded::arrangement::Arrangement;
use crate::chat::encoded::markers::Markers;
use crate::chat::encoded::notes::{EncoderCells, Grid};
use crate::chat::encoded::{EncodeTimings, EncodedSlice, EncodedVideo, VideoId, timed};
use crate::error::{Error, Result};
use crate::layout::{Layout, Size};
use crate::observer::{Observer, Stage};
use crate::prune::{PruneParams, Scorer};
use crate::runtime::{Bitmap, CancelToken, Model, Part, Vision};
use crate::skip::EncodeParams;
use crate::video::{Frame, FrameSource};
use notes::NoteTaker;
use partial::{EncodedImage, PartialEncoder, Purpose};
use select::{keep, note_importance, view};

/// Decodes, encodes and prunes the frames of one video.
pub(in crate::chat) struct Encoder<'a> {
    pub model: &'a Model,
    pub vision: &'a mut Vision,
    pub layout: &'a dyn Layout,
    pub prune: &'a PruneParams,
    /// How much of each image the encoder computes.
    pub encode: &'a EncodeParams,
    /// Whether the embeddings of all tokens are kept in memory.
    pub keep_unpruned: bool,
    /// How tokens form a grid, if notes on each slice are taken.
    pub inspect: Option<GridRules<'a>>,
    pub cancel: &'a CancelToken,
}

impl Encoder<'_> {
    /// Encodes the frames of `source`. `timings` holds the time spent on opening it, and the rest is added.
    pub fn encode(
        &mut self,
        mut source: FrameSource,
        mut timings: EncodeTimings,
        observer: &mut dyn Observer,
    ) -> Result<EncodedVideo> {
        let mrope = self.vision.uses_mrope();
        let sampled_fps = source.sampled_fps();
        let planned = Arrangement::new(self.layout, source.info(), source.planned_times(), sampled_fps, mrope);
        let mut slices: Vec<EncodedSlice> = Vec::with_capacity(planned.n_slices().0);
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
        let mut times = Vec::with_capacity(planned.n_frames.0);
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
                // The same pixels give the same embeddings. After pruning, encoding is most of the remaining work.
                Some(encoded) => EncodedSlice {
                    times_s: times_of(&frames),
                    n_tokens: encoded.n_tokens,
                    kept: Vec::new(),
                    rows: encoded.rows.clone(),
                    unfinished: encoded.unfinished.clone(),
                    computed: 0.0,
                    cells: encoded.cells.as_ref().map(EncoderCells::all_reused),
                    notes: None,
                    is_removed: false,
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
            observer.progress(Stage::Encode, times.len() as u64, planned.n_frames.0 as u64);
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
                "{}: the encoder returned {} visual tokens that are not finite numbers; they were dropped",
                info.path.display(),
                decision.non_finite
            ));
        }
        // A truncated file has fewer frames than planned. The text and the times follow the frames that were decoded;
        // the image size stays the one that they were encoded with.
        let decoded = Arrangement::new(self.layout, &info, &times, sampled_fps, mrope);
        let arrangement = Arrangement { image_size: planned.image_size, ..decoded };
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
            is_removed: false,
        };
        if let (Some(rules), Some(frame)) = (self.inspect, frames.first()) {
            *grids = rules.grids(&chunks, arrangement, (frame.width, frame.height), self.model);
        }
        let used = arrangement.used(chunks.images().collect());
        // The tiles of an image do not resemble each other as frames do, so they share no work.
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

/// The times of frames, in seconds.
fn times_of(frames: &[Frame]) -> Vec<f64> {
    frames.iter().map(|frame| frame.time_s).collect()
}

fn bitmap(frame: &Frame, arrangement: &Arrangement) -> Result<Bitmap> {
    let size = arrangement.image_size;
    if (frame.width, frame.height) == size {
        return Bitmap::rgb(frame.width, frame.height, &frame.rgb, arrangement.merges());
    }
    Bitmap::rgb(size.0, size.1, &resize(frame, size)?, arrangement.merges())
}

/// Bicubic, like most of Hugging Face's video processors.
fn resize(frame: &Frame, (width, height): Size) -> Result<Vec<u8>> {
    let image = image::ImageBuffer::<image::Rgb<u8>, _>::from_raw(frame.width, frame.height, frame.rgb.as_slice())
        .ok_or_else(|| Error::InvalidParameter {
            name: "frame",
            value: format!("{} bytes", frame.rgb.len()),
            expected: format!("{}×{} pixels of three bytes", frame.width, frame.height),
        })?;
    Ok(image::imageops::resize(&image, width, height, image::imageops::FilterType::CatmullRom).into_raw())
}
