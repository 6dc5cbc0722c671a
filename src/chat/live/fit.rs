//! Checks that the frames to hold fit the model and the memory.

use super::params::LivePolicy;
use super::session::{LiveSession, QUESTION};
use crate::chat::encoded::markers::Markers;
use crate::chat::fit::Available;
use crate::chat::prompt::{self, PromptVideo};
use crate::chat::rows::RowKey;
use crate::error::{Error, Result};
use crate::layout::{FrameCount, Size, SliceCount, SliceTime};
use crate::prune::{Budget, PruneParams};
use crate::runtime::MemoryUsage;

/// What slices take of a prompt, with all their visual tokens.
#[derive(Debug, Clone, Copy)]
struct Taken {
    rows: usize,
    positions: usize,
    tokens: usize,
}

/// What any number of slices takes: a linear function.
#[derive(Debug)]
struct Line {
    /// What one slice takes.
    first: Taken,
    /// What each further slice takes.
    more: Taken,
}

impl Line {
    fn of(&self, SliceCount(slices): SliceCount) -> Taken {
        let of = |part: fn(&Taken) -> usize| part(&self.first) + part(&self.more) * slices.saturating_sub(1);
        Taken { rows: of(|t| t.rows), positions: of(|t| t.positions), tokens: of(|t| t.tokens) }
    }
}

impl LiveSession {
    /// Checks that the model has positions, and the machine memory, for the frames that the policy holds and for those
    /// to remember, of this `size` in pixels. Without this check, a session that does not fit holds fewer frames, with
    /// a warning.
    ///
    /// It rejects only what certainly does not fit: with adaptive pruning, a window counts the fewest tokens that may
    /// be kept.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`], with the number that fits; [`Error::Llama`] if the memory of a context cannot be
    /// measured.
    pub fn check_fit(&self, size: Size) -> Result<()> {
        let policy = self.live.policy;
        let (name, unit, asked) = match policy {
            LivePolicy::Window { frames } => ("the window", "frames", frames),
            LivePolicy::Memory { tokens, .. } => ("the memory", "visual tokens", tokens),
        };
        let line = self.line(size)?;
        let fit = self.params.fit(&self.engine, &self.conversation, MemoryUsage::default());
        let available = &fit.available;
        let mut free = available.free_beside_encoder();
        if let Some(free) = free.as_mut().filter(|free| free.is_system) {
            free.bytes -= self.recall_bytes(available, &line, free.bytes)?;
        }
        // What `n` of them lack, in words; `None` if they fit.
        let shortage = |n: usize| -> Result<Option<String>> {
            let (slices, tokens) = self.held_of(n, &line);
            let taken = line.of(slices);
            let positions = self.engine.model.n_ctx_train();
            // After a rebase, as many slices again must fit before the next one.
            if slices > SliceCount(1) && taken.positions > self.positions() / 2 {
                return Ok(Some(format!("the model was trained for {positions} positions")));
            }
            let rows = taken.rows - taken.tokens + tokens + QUESTION + self.params.n_predict;
            let Some(free) = &free else { return Ok(None) };
            let at_once = if self.engine.vision.uses_non_causal() { line.first.tokens } else { 0 };
            let short = available.shortage(free, (rows, at_once), tokens)?.is_some();
            Ok(short.then(|| format!("{} MB of memory are free", free.bytes >> 20)))
        };
        let Some(reason) = shortage(asked)? else { return Ok(()) };
        let (mut fits, mut too_many) = (0, asked);
        while too_many - fits > 1 {
            let middle = fits + (too_many - fits) / 2;
            match shortage(middle)? {
                Some(_) => too_many = middle,
                None => fits = middle,
            }
        }
        let expected = match fits {
            0 => format!("smaller, but not even one fits: {reason}"),
            fits => format!("at most {fits} {unit}: {reason}"),
        };
        Err(Error::InvalidParameter { name, value: format!("{asked} {unit}"), expected })
    }

    /// Returns how many of the `free` bytes the frames to remember take.
    fn recall_bytes(&self, available: &Available<'_>, line: &Line, free: u64) -> Result<u64> {
        let frames = self.live.recall;
        let bytes = |frames: usize| {
            let slices = FrameCount(frames).slices(self.engine.layout.frames().per_slice);
            available.embedding_bytes(kept_at_least(&self.params.prune, slices, line.first.tokens))
        };
        let needed = bytes(frames);
        if needed <= free {
            return Ok(needed);
        }
        let fits = (frames as f64 * free as f64 / needed as f64) as usize;
        Err(Error::InvalidParameter {
            name: "the frames to remember",
            value: frames.to_string(),
            expected: format!("at most {fits}: {} MB of memory are free", free >> 20),
        })
    }

    /// Returns the least numbers of slices and of visual tokens that are held if the policy's limit is `n`.
    fn held_of(&self, n: usize, line: &Line) -> (SliceCount, usize) {
        let per_slice = line.first.tokens.max(1);
        match self.live.policy {
            LivePolicy::Window { .. } => {
                let slices = FrameCount(n).slices(self.engine.layout.frames().per_slice);
                (slices, kept_at_least(&self.params.prune, slices, per_slice))
            }
            LivePolicy::Memory { .. } => (SliceCount(n.div_ceil(per_slice)), n),
        }
    }

    /// The times of a slice if every frame is held.
    fn time_of(&self, slice: usize) -> SliceTime {
        let (per_slice, fps) = (self.engine.layout.frames().per_slice.max(1), self.live.fps);
        let first = slice * per_slice;
        SliceTime { first_s: first as f64 / fps, last_s: (first + per_slice - 1) as f64 / fps }
    }

    /// Measures what slices of frames of this size take.
    fn line(&self, size: Size) -> Result<Line> {
        let Self { engine, conversation, params, .. } = self;
        let info = self.info_of(size);
        let (live, _) = self.arrangement_of(&info, 0.0);
        let layout = engine.layout.as_ref();
        let of = |slices: usize| -> Result<Taken> {
            let times: Vec<SliceTime> = (0..slices).map(|slice| self.time_of(slice)).collect();
            let arrangement = live.of_slices(layout, &times);
            let markers = Markers::of(&engine.model, &engine.vision, &arrangement)?;
            let index = conversation.videos.len();
            let mut message = conversation.user_message(layout, "");
            message.media.push(conversation.media(layout, index, &arrangement, &info));
            let own = PromptVideo { arrangement: &arrangement, markers: &markers, slices: None };
            let videos: Vec<PromptVideo<'_>> =
                conversation.videos.iter().map(|video| PromptVideo::from(video.as_ref())).chain([own]).collect();
            let plan = prompt::plan_with(engine, conversation, &message, &videos, &params.prompt())?;
            let is_own = |key: RowKey| matches!(key, RowKey::Visual { video, .. } if video == index);
            let tokens = plan.rows.iter().filter(|row| is_own(row.key)).count();
            Ok(Taken { rows: plan.rows.len(), positions: plan.next_position.max(0) as usize, tokens })
        };
        let (first, second, third) = (of(1)?, of(2)?, of(3)?);
        // From the second slice on, all take the same.
        let more = Taken {
            rows: third.rows - second.rows,
            positions: third.positions.saturating_sub(second.positions),
            tokens: third.tokens - second.tokens,
        };
        Ok(Line { first, more })
    }
}

/// Returns the fewest visual tokens that are kept of slices, whatever they show.
fn kept_at_least(prune: &PruneParams, SliceCount(slices): SliceCount, per_slice: usize) -> usize {
    match prune.budget {
        _ if !prune.method.prunes() => slices * per_slice,
        Budget::Keep(share) => ((slices * per_slice) as f64 * f64::from(share)) as usize,
        // A slice without kept tokens is not held.
        _ => slices,
    }
}
