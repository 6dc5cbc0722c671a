//! Proposes how to reduce a video that does not fit: as many frames as possible, as large as possible.
//!
//! What the user requested stays. The rest is reduced in this order: the size of images, if the family has a choice;
//! the number of kept tokens, if memory or cells are short and tokens are pruned anyway; the number of frames.

use super::needed::{Need, Without};
use super::{ANSWER_RESERVE, Fit, Shortage};
use crate::chat::encoded::{EncodeTimings, timed};
use crate::chat::sampling::VideoOptions;
use crate::error::{Resource, Result};
use crate::layout::{Layout, SliceCount};
use crate::observer::{Observer, Stage};
use crate::video::{FrameSource, Rate, Sampling, Source, Survey, SurveyReport};
use std::time::Duration;

/// How often a video is reduced before it is rejected. Each attempt comes within a few percent of the limit.
const ATTEMPTS: usize = 8;

/// The least keep ratio that is used to save memory. Below it, the number of frames is reduced instead.
const LEAST_KEPT: f64 = 0.05;

/// An opened video, and how it will be encoded.
#[derive(Debug)]
pub(in crate::chat) struct Proposal {
    pub frames: FrameSource,
    pub timings: EncodeTimings,
    /// Replaces the engine's layout if images become smaller.
    pub layout: Option<Box<dyn Layout>>,
    /// Which frames are sampled.
    pub sampling: Sampling,
    pub asked: Need,
    pub need: Need,
    /// The maximum number of kept visual tokens of this video.
    pub max_kept: Option<usize>,
    pub changes: Vec<String>,
    /// Whether a survey will choose the frames: see [`Fit::survey`].
    pub by_changes: bool,
    /// The reason for `max_kept`, in words, to be reported when the limit is reached.
    pub capped: Option<String>,
    /// The limit that the request exceeds.
    pub(super) first_shortage: Option<Shortage>,
    /// The limit that the proposal still exceeds.
    pub shortage: Option<Shortage>,
}

/// Whether a video fits.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fitting {
    Fits,
    /// It fits if at most this number of its visual tokens is kept.
    Capped(usize, Shortage),
    Short(Shortage),
}

impl Fitting {
    /// The limit that the unpruned prompt exceeds.
    fn shortage(self) -> Option<Shortage> {
        match self {
            Self::Fits => None,
            Self::Capped(_, shortage) | Self::Short(shortage) => Some(shortage),
        }
    }
}

impl Fit<'_> {
    /// Opens a video and reduces it until it fits, if the user allows it and leaves a choice. The file is opened once;
    /// the attempts only plan.
    pub fn propose(&self, source: &Source, options: &VideoOptions) -> Result<Proposal> {
        let own_layout = self.engine.layout.as_ref();
        let mut sampling = options.sampling(own_layout);
        let without = Without::of(self.engine, self.conversation, self.params.prompt, &options.question)?;
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
                // Pruning may make the prompt short enough. If not, the prompt is rejected after it.
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
            format!("at most {max_kept} of {of} visual tokens are kept: {reason}")
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

    /// Surveys the video of `proposal`, and chooses as many frames as planned by what changes. It chooses a few less if
    /// their times take more tokens in the prompt.
    pub fn survey(
        &self,
        source: &Source,
        options: &VideoOptions,
        proposal: &mut Proposal,
        observer: &mut dyn Observer,
    ) -> Result<SurveyReport> {
        let without = Without::of(self.engine, self.conversation, self.params.prompt, &options.question)?;
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

    /// Whether a video fits, or would with a limit on its kept visual tokens.
    fn fitting(&self, need: &Need) -> Result<Fitting> {
        let reserve = ANSWER_RESERVE.min(self.params.n_predict) + need.question_reserve;
        let positions = (need.positions + reserve) as u64;
        let own_positions = need.own_positions as u64;
        let limit = self.engine.model.n_ctx_train() as u64;
        if let Some(shortage) = Shortage::of(Resource::Positions, positions, limit, own_positions) {
            return Ok(Fitting::Short(shortage));
        }
        let own_rows = need.own_rows as u64;
        let (shortage, cells) = match self.params.n_ctx {
            Some(cells) => {
                let needed = (need.prompt_tokens + reserve) as u64;
                (Shortage::of(Resource::Cells, needed, cells as u64, own_rows), cells.saturating_sub(reserve))
            }
            None => (None, usize::MAX),
        };
        let (memory, in_memory) = self.memory_shortage(need)?;
        let Some(shortage) = shortage.or(memory) else { return Ok(Fitting::Fits) };
        // Pruning shortens the prompt, so it can be given a limit that makes the prompt fit.
        let text = need.prompt_tokens - need.visual_tokens;
        let max_kept = cells.min(in_memory).saturating_sub(text).min(need.visual_tokens);
        let helps = self.params.prune.method.prunes() && max_kept as f64 >= LEAST_KEPT * need.visual_tokens as f64;
        Ok(if helps && max_kept > 0 { Fitting::Capped(max_kept, shortage) } else { Fitting::Short(shortage) })
    }

    /// The shortage of memory, and the number of rows of a prompt that fits.
    fn memory_shortage(&self, need: &Need) -> Result<(Option<Shortage>, usize)> {
        let available = &self.available;
        let Some(free) = available.free() else { return Ok((None, usize::MAX)) };
        let cells = need.prompt_tokens + need.question_reserve + self.params.n_predict;
        if available.is_surely_free(&free, cells.max(available.n_ubatch(need.at_once))) {
            return Ok((None, usize::MAX));
        }
        let cost = available.cell_cost(need.at_once)?;
        let embeddings = if free.is_system { available.embedding_bytes(need.visual_tokens) } else { 0 };
        let own = (cost.kv_per_cell * need.own_rows as f64) as u64 + embeddings;
        let Some(free) = available.free_beside_encoder() else { return Ok((None, usize::MAX)) };
        let shortage = Shortage::of(Resource::Memory, cost.bytes(cells) + embeddings, free.bytes, own);
        let rows = cost.cells_in(free.bytes.saturating_sub(embeddings));
        Ok((shortage, rows.saturating_sub(need.question_reserve + self.params.n_predict)))
    }
}

/// The times of the frames of slices that begin at `moments`, in seconds. If a slice has two frames, the second is half
/// a second after the first, as in the training of such models. The encoder would blend two distant frames.
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

/// The next reduction.
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
    // A little less than what fits, because sizes come in steps.
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

/// The differences between `asked` and `need`, in words.
fn changes(asked: &Need, need: &Need, shortage: Option<Shortage>) -> Vec<String> {
    let reason = shortage.map(|shortage| shortage.reason()).unwrap_or_default();
    let mut changes = Vec::new();
    if need.image != asked.image {
        let [(w, h), (asked_w, asked_h)] = [need.image, asked.image];
        changes.push(format!("images of {w}×{h} instead of {asked_w}×{asked_h} pixels: {reason}"));
    }
    if need.frames != asked.frames {
        changes.push(format!("{} of {} frames, spread evenly: {reason}", need.frames, asked.frames));
    }
    changes
}
