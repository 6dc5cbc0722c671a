//! Selecting visual tokens anew, without decoding or encoding a video again: for comparing methods and budgets.

use super::encode::{EncodedSlice, EncodedVideo, keep, timed, view};
use super::evict::{EvictMode, Evicted};
use super::report::VisualTokens;
use super::{Session, count, slice_reports};
use crate::error::{Error, Result};
use crate::prune::{self, Decision, PruneParams, SliceDecision};

impl Session {
    /// Changes which visual tokens are kept, of the videos that are here and of those to come. The selection is the one that a new session
    /// with these parameters makes. If it differs from the one before, the KV cache is freed; the conversation stays.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if `prune` is out of range, if the session was not opened with
    /// [`keep_unpruned`](super::SessionParams::keep_unpruned), or if a video came from a saved session, which holds only what was kept.
    pub fn set_prune(&mut self, prune: PruneParams) -> Result<()> {
        prune.validate()?;
        if !self.params.keep_unpruned {
            return Err(Error::InvalidParameter {
                name: "SessionParams::keep_unpruned",
                value: "false".into(),
                expected: "true for selecting visual tokens anew".into(),
            });
        }
        if let Some(video) = self.videos.iter().find(|video| video.unpruned.len() != video.slices.len()) {
            return Err(Error::InvalidParameter {
                name: "the video",
                value: video.info.path.display().to_string(),
                expected: "encoded in this session, to select its visual tokens anew: add it again".into(),
            });
        }
        let mut taken = std::time::Duration::ZERO;
        let decisions: Vec<Decision> =
            timed(&mut taken, || self.videos.iter().map(|video| self.decide(video, &prune)).collect::<Result<_>>())?;

        // Nothing fails from here on.
        let evicted_before = self.evict_mode();
        self.params.prune = prune;
        let evicts = [evicted_before, self.evict_mode()].iter().any(|&mode| mode != EvictMode::Off);
        let mut changed = false;
        let stride = self.model.n_embd_inp();
        timed(&mut taken, || {
            for (video, decision) in self.videos.iter_mut().zip(&decisions) {
                changed |= select(video, decision, stride);
            }
        });
        self.spent.prune += taken;
        // What was evicted, and what was found out about evicting, belongs to the selection before.
        if changed || evicts {
            self.free_cache();
        }
        if evicts {
            self.evicted = Evicted::default();
        }
        Ok(())
    }

    /// The visual tokens of all videos of the conversation, and how many of them are kept.
    pub fn visual_tokens(&self) -> VisualTokens {
        count(&slice_reports(&self.videos))
    }

    fn decide(&self, video: &EncodedVideo, params: &PruneParams) -> Result<Decision> {
        let slices = video.slices.iter().zip(&video.unpruned);
        let views: Vec<_> = slices.map(|(slice, all)| view(all, slice.n_tokens, &self.model)).collect::<Result<_>>()?;
        let cap = params.cap.into_iter().chain(video.max_kept).min();
        prune::prune(&PruneParams { cap, ..params.clone() }, &views)
    }
}

/// Whether another selection than before came of it.
fn select(video: &mut EncodedVideo, decision: &Decision, stride: usize) -> bool {
    let same = |(slice, decided): (&EncodedSlice, &SliceDecision)| slice.kept == decided.kept;
    if video.slices.len() == decision.slices.len() && video.slices.iter().zip(&decision.slices).all(same) {
        return false;
    }
    for (slice, all) in video.slices.iter_mut().zip(&video.unpruned) {
        slice.rows.clone_from(all);
    }
    keep(&mut video.slices, decision, stride);
    true
}
