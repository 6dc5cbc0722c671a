//! Search in the parts that are remembered of live video.

use super::recall::{Recall, RecalledPart, part_of};
use super::session::LiveSession;
use crate::chat::search::{LEAST_PARTS, Search, SearchedPart, Searcher};
use crate::error::{Error, Result};
use crate::observer::Observer;

impl LiveSession {
    /// Asks about each remembered part ([`recall`](super::LiveParams::recall)) alone, and finds the part whose answer
    /// to `question` differs most from the others, if one differs. [`Search::question`] then makes a question about
    /// that part: see [`Session::search`](crate::chat::Session::search). Returns `None` if there are fewer than four
    /// parts.
    ///
    /// Use it for what was seen once, at any time; [`ask`](Self::ask) is for what goes on now. The parts have a cache
    /// of their own, so that of the held frames does not change.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if [`recall`](super::LiveParams::recall) is 0; otherwise as
    /// [`Session::ask`](crate::chat::Session::ask).
    pub fn search(&mut self, question: &str, observer: &mut dyn Observer) -> Result<Option<Search>> {
        if self.live.recall == 0 {
            return Err(Error::InvalidParameter {
                name: "LiveParams::recall",
                value: "0".into(),
                expected: "the number of frames to remember for search, more than 0".into(),
            });
        }
        let Self { engine, conversation, params, .. } = &*self;
        let Some(feed) = &self.feed else { return Ok(None) };
        let Some(recall) = &feed.recall else { return Ok(None) };
        let mut parts: Vec<RecalledPart> = recall.parts().cloned().collect();
        if !recall.open.slices.is_empty() {
            parts.push(part_of(engine, &params.prune, feed.held.arrangement(), &feed.info, &recall.open)?);
        }
        if parts.len() < LEAST_PARTS {
            return Ok(None);
        }
        let described = |i: usize, surprise: f64| {
            let RecalledPart { video, end_s } = &parts[i];
            SearchedPart {
                start_s: video.slices.first().map_or(0.0, |slice| slice.time_s()),
                end_s: *end_s,
                frames: video.arrangement.n_frames.0,
                surprise,
            }
        };
        let part = |i: usize| Ok(parts[i].video.clone());
        let searcher = Searcher { engine, params, conversation };
        searcher.search(parts.len(), part, described, question, observer).map(Some)
    }

    /// Returns the remembered parts as the times of their first and last frames, in seconds.
    pub fn recalled_times(&self) -> impl Iterator<Item = (f64, f64)> {
        let recall = self.feed.as_ref().and_then(|feed| feed.recall.as_ref());
        let parts = recall.into_iter().flat_map(Recall::parts);
        parts.map(|part| (part.video.slices.first().map_or(0.0, |slice| slice.time_s()), part.end_s))
    }
}
