//! What to propose: as many frames as fit, as large as they can be.
//!
//! What the user asked for stays. What is left open becomes less, in this order: the size of images, where a family has
//! a choice of sizes; where memory or cells are short and tokens are pruned anyway, the number of tokens that are kept;
//! the number of frames.

use super::needed::{Need, Without};
use super::{ANSWER_ROOM, Fit, Shortage};
use crate::chat::encoded::{EncodeTimings, timed};
use crate::chat::sampling::VideoOptions;
use crate::error::{Resource, Result};
use crate::layout::{Layout, SliceCount};
use crate::observer::{Observer, Stage};
use crate::video::{FrameSource, Rate, Sampling, Source, Survey, SurveyReport};
use std::time::Duration;

/// Times that a video is made smaller before it is refused. Each gets it within a few percent.
const ATTEMPTS: usize = 8;

/// Keeping fewer visual tokens than this share is no answer to a lack of memory: fewer frames are.
const LEAST_KEPT: f64 = 0.05;

/// A video that was opened, and what will be made of it.
#[derive(Debug)]
pub(in crate::chat) struct Proposal {
    pub frames: FrameSource,
    pub timings: EncodeTimings,
    /// In the place of the session's, if images are made smaller.
    pub layout: Option<Box<dyn Layout>>,
    /// The frames that are taken.
    pub sampling: Sampling,
    pub asked: Need,
    pub need: Need,
    /// Visual tokens of this video that are kept at most.
    pub max_kept: Option<usize>,
    pub changes: Vec<String>,
    /// The frames are to be chosen by what changes: see [`Fit::survey`].
    pub by_changes: bool,
    /// What `max_kept` means, in words: worth saying when it is reached.
    pub capped: Option<String>,
    /// What was short of what was asked for.
    pub(super) first_shortage: Option<Shortage>,
    /// What is still short.
    pub shortage: Option<Shortage>,
}

/// Whether a video fits.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fitting {
    Fits,
    /// If no more than this number of its visual tokens is kept.
    Capped(usize, Shortage),
    Short(Shortage),
}

impl Fitting {
    /// What is short of the dense prompt.
    fn shortage(self) -> Option<Shortage> {
        match self {
            Self::Fits => None,
            Self::Capped(_, shortage) | Self::Short(shortage) => Some(shortage),
        }
    }
}

impl Fit<'_> {
    /// Opens a video and makes it fit, if the user lets it and leaves a choice. The file is opened once, and each
    /// attempt after it only plans.
    pub fn propose(&self, source: &Source, options: &VideoOptions) -> Result<Proposal> {
        let own_layout = self.engine.layout.as_ref();
        let mut sampling = options.sampling(own_layout);
        let without = Without::of(self.engine, self.conversation, self.params.tokenization, &options.question)?;
        let mut timings = EncodeTimings::default();
        let cancel = self.params.cancel.clone();
        let stop = move || cancel.is_cancelled();
        let open = || FrameSource::of(source, &sampling, stop.clone());
        let frames = timed(&mut timings.decode_video, open)?;
        if let Some(more) = options.for_long_video(&sampling, own_layout, frames.info().duration_s) {
            sampling = more;
        }
        let mut layout: Option<Box<dyn Layout>> = None;
        let mut first: Option<(Need, Fitting)> = None;
        let mut attempts = ATTEMPTS;
        let (need, fitting, shortage, max_kept) = loop {
            let used_layout = layout.as_deref().unwrap_or(own_layout);
            let planned = frames.plan(&sampling)?;
            let need = without.with(frames.info(), &planned.times, planned.fps, used_layout)?;
            let fitting = self.fitting(&need)?;
            first.get_or_insert((need, fitting));
            let (max_kept, shortage) = match fitting {
                Fitting::Fits => (None, None),
                Fitting::Capped(max_kept, _) if self.params.fit => (Some(max_kept), None),
                // Pruning may make it short enough, or the prompt is refused after it.
                Fitting::Capped(..) => (None, None),
                Fitting::Short(shortage) => (None, Some(shortage)),
            };
            let smaller = shortage
                .filter(|_| self.params.fit && attempts > 0)
                .and_then(|shortage| smaller(&shortage, &need, used_layout, sampling, options));
            attempts = attempts.saturating_sub(1);
            match smaller {
                Some(Smaller::Images(smaller)) => layout = Some(smaller),
                Some(Smaller::Frames(fewer)) => sampling = fewer,
                None => break (need, fitting, shortage, max_kept),
            }
        };
        let frames = timed(&mut timings.decode_video, || frames.sampled(source, &sampling, stop))?;
        let (asked, first_fitting) = first.unwrap_or((need, fitting));
        let first_shortage = first_fitting.shortage();
        let capped = max_kept.zip(fitting.shortage()).map(|(max_kept, shortage)| {
            let (of, reason) = (need.visual_tokens, shortage.reason());
            format!("at most {max_kept} of {of} visual tokens are kept, however many are worth it: {reason}")
        });
        let n_looks = Survey::n_looks(frames.info(), &sampling);
        let by_changes =
            sampling.is_spread(frames.info().duration_s) && options.choice.needs_survey(need.frames, n_looks);
        let changes = changes(&asked, &need, first_shortage);
        Ok(Proposal {
            frames,
            timings,
            layout,
            sampling,
            asked,
            need,
            max_kept,
            changes,
            by_changes,
            capped,
            first_shortage,
            shortage,
        })
    }

    /// Looks over the video of `proposal`, and chooses as many frames as were planned by what changes: a few less where
    /// their times take more of the prompt.
    pub fn survey(
        &self,
        source: &Source,
        options: &VideoOptions,
        proposal: &mut Proposal,
        observer: &mut dyn Observer,
    ) -> Result<SurveyReport> {
        let without = Without::of(self.engine, self.conversation, self.params.tokenization, &options.question)?;
        let layout = proposal.layout.as_deref().unwrap_or(self.engine.layout.as_ref());
        let per_slice = layout.frames().per_slice.max(1);
        let cancel = self.params.cancel.clone();
        let stop = move || cancel.is_cancelled();
        let (sampling, info) = (proposal.sampling, proposal.frames.info().clone());
        let mut taken = Duration::ZERO;
        let survey = timed(&mut taken, || {
            let progress = |done, total| observer.progress(Stage::Survey, done, total);
            Survey::of(source, &info, &sampling, stop.clone(), progress)
        })?;
        let mut slices = SliceCount((proposal.need.frames / per_slice).max(1));
        let times = loop {
            let times = with_companions(&survey.moments(slices.0), per_slice, info.duration_s);
            let need = without.with(&info, &times, None, layout)?;
            if !matches!(self.fitting(&need)?, Fitting::Short(_)) || slices == SliceCount(1) {
                break times;
            }
            slices.0 -= (slices.0 / 50).max(1);
        };
        proposal.frames = timed(&mut taken, || FrameSource::at_times(source, &sampling, times, stop))?;
        proposal.timings.decode_video += taken;
        Ok(survey.report())
    }

    /// Whether a video fits, and how many of its visual tokens can be kept if that helps.
    fn fitting(&self, need: &Need) -> Result<Fitting> {
        let room = ANSWER_ROOM.min(self.params.n_predict) + need.question_room;
        let positions = (need.positions + room) as u64;
        let own_positions = need.own_positions as u64;
        let limit = self.engine.model.n_ctx_train() as u64;
        if let Some(shortage) = Shortage::of(Resource::Positions, positions, limit, own_positions) {
            return Ok(Fitting::Short(shortage));
        }
        let own_rows = need.own_rows as u64;
        let (shortage, cells) = match self.params.n_ctx {
            Some(cells) => {
                let needed = (need.prompt_tokens + room) as u64;
                (Shortage::of(Resource::Cells, needed, cells as u64, own_rows), cells.saturating_sub(room))
            }
            None => (None, usize::MAX),
        };
        let (memory, in_memory) = self.memory_shortage(need)?;
        let Some(shortage) = shortage.or(memory) else { return Ok(Fitting::Fits) };
        // Where tokens are pruned, the prompt is shorter than this; the pruning only has to be told how short.
        let text = need.prompt_tokens - need.visual_tokens;
        let max_kept = cells.min(in_memory).saturating_sub(text).min(need.visual_tokens);
        let helps = self.params.prune.method.prunes() && max_kept as f64 >= LEAST_KEPT * need.visual_tokens as f64;
        Ok(if helps && max_kept > 0 { Fitting::Capped(max_kept, shortage) } else { Fitting::Short(shortage) })
    }

    /// What memory is short, and how many rows of a prompt fit.
    fn memory_shortage(&self, need: &Need) -> Result<(Option<Shortage>, usize)> {
        let available = &self.available;
        let Some(free) = available.free() else { return Ok((None, usize::MAX)) };
        let cells = need.prompt_tokens + need.question_room + self.params.n_predict;
        if available.is_surely_free(&free, cells.max(available.n_ubatch(need.at_once))) {
            return Ok((None, usize::MAX));
        }
        let cost = available.cell_cost(need.at_once)?;
        let embeddings = if free.is_system { available.embedding_bytes(need.visual_tokens) } else { 0 };
        let own = (cost.kv_per_cell * need.own_rows as f64) as u64 + embeddings;
        let Some(free) = available.free_beside_encoder() else { return Ok((None, usize::MAX)) };
        let shortage = Shortage::of(Resource::Memory, cost.bytes(cells) + embeddings, free.bytes, own);
        let rows = cost.cells_in(free.bytes.saturating_sub(embeddings));
        Ok((shortage, rows.saturating_sub(need.question_room + self.params.n_predict)))
    }
}

/// The frames of slices that begin at `moments`. Where two frames make a slice, the second is half a second later, as
/// models with such slices are used to it; two distant images in one would be a blend of both.
fn with_companions(moments: &[f64], per_slice: usize, duration_s: Option<f64>) -> Vec<f64> {
    const STEP_S: f64 = 0.5;
    let mut times = Vec::with_capacity(moments.len() * per_slice);
    for (i, &moment) in moments.iter().enumerate() {
        let next = moments.get(i + 1).copied().or(duration_s).unwrap_or(f64::INFINITY);
        let step = STEP_S.min((next - moment) / per_slice as f64).max(0.0);
        times.extend((0..per_slice).map(|k| moment + k as f64 * step));
    }
    times
}

/// What is made smaller next.
enum Smaller {
    Images(Box<dyn Layout>),
    Frames(Sampling),
}

fn smaller(
    shortage: &Shortage,
    need: &Need,
    layout: &dyn Layout,
    sampling: Sampling,
    options: &VideoOptions,
) -> Option<Smaller> {
    // A little less than what fits: sizes come in steps.
    let share = shortage.share() * 0.98;
    let per_slice = need.visual_tokens / need.slices.max(1);
    if let Some((least, _)) = layout.slice_tokens()
        && per_slice > least
    {
        let fewer = ((per_slice as f64 * share) as usize).clamp(least, per_slice - 1);
        return layout.with_slice_tokens(fewer).map(Smaller::Images);
    }
    let frames = (need.frames as f64 * share) as usize;
    if options.max_frames.is_some() || frames == 0 {
        return None;
    }
    let frames = frames.min(need.frames - 1).max(1);
    let rate = match sampling.rate {
        Rate::Uniform { .. } => Rate::Uniform { frames },
        Rate::Fps { fps, .. } => Rate::Fps { fps, max_frames: frames },
    };
    Some(Smaller::Frames(Sampling { rate, ..sampling }))
}

/// What is done less than asked, in words.
fn changes(asked: &Need, need: &Need, shortage: Option<Shortage>) -> Vec<String> {
    let reason = shortage.map(|shortage| shortage.reason()).unwrap_or_default();
    let mut changes = Vec::new();
    if need.image != asked.image {
        let [(w, h), (asked_w, asked_h)] = [need.image, asked.image];
        changes.push(format!("images of {w}×{h} in place of {asked_w}×{asked_h} pixels: {reason}"));
    }
    if need.frames != asked.frames {
        changes.push(format!("{} of {} frames, spread evenly: {reason}", need.frames, asked.frames));
    }
    changes
}
