//! Searching in what is remembered of video that went by.

use super::album::{Album, Page, Shots};
use super::script::Script;
use super::session::LiveSession;
use crate::chat::session::Session;
use crate::chat::video::EncodedVideo;
use crate::chat::zoom::{LEAST_PARTS, Search, SearchedPart};
use crate::error::{Error, Result};
use crate::observer::Observer;
use crate::video::VideoInfo;
use std::time::Instant;

impl LiveSession {
    /// Asks each part that is remembered ([`recall`](super::LiveParams::recall)) alone, and lets the next question be
    /// answered from the one whose answer to `question` differs most from those of the others, if one differs: see
    /// [`Session::search`]. Otherwise it is answered from what is held, as ever, and so are all behind it. A frame that
    /// is pushed in between ends it. `None` if there are fewer than four parts.
    ///
    /// For what was seen once, at any time; what goes on now is what is held for. The cache stays as it is; parts have
    /// one of their own, until the answer is there.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if nothing is remembered; otherwise as [`Session::ask`].
    pub fn search(&mut self, question: &str, observer: &mut dyn Observer) -> Result<Option<Search>> {
        self.forget_search();
        if self.params().recall == 0 {
            return Err(Error::InvalidParameter {
                name: "LiveParams::recall",
                value: "0".into(),
                expected: "the frames to remember, for searching in them".into(),
            });
        }
        let Some(feed) = &self.feed else { return Ok(None) };
        let Some(album) = &feed.album else { return Ok(None) };
        let mut pages: Vec<Page> = album.pages().cloned().collect();
        if !album.open.slices.is_empty() {
            pages.push(page(&self.session, feed.reel.script(), &feed.info, &album.open)?);
        }
        if pages.len() < LEAST_PARTS {
            return Ok(None);
        }
        let start = Instant::now();
        let part = |_: &Session, i: usize| Ok(pages[i].video.clone());
        let surprises = self.beside(|session| session.compare(pages.len(), &part, question, observer));
        self.session.searched = start.elapsed();
        let surprises = match surprises {
            Ok(surprises) => surprises,
            Err(error) => {
                self.forget_search();
                return Err(error);
            }
        };
        if self.session.aside.is_none() {
            self.spare.reset();
        }
        let described = |(page, surprise): (&Page, f64)| SearchedPart {
            start_s: page.video.slices.first().map_or(0.0, |slice| slice.time_s()),
            end_s: page.end_s,
            frames: page.video.arrangement.n_frames,
            surprise,
        };
        Ok(Some(Search::new(pages.iter().zip(surprises).map(described).collect())))
    }

    /// The next question is about what is held.
    pub(super) fn forget_search(&mut self) {
        self.session.aside = None;
        self.spare.reset();
    }

    /// Does something in the spare cache.
    pub(super) fn beside<T>(&mut self, work: impl FnOnce(&mut Session) -> T) -> T {
        std::mem::swap(&mut self.session.kv, &mut self.spare);
        // A part is short, however many cells there are to be for what is held.
        let n_ctx = self.session.params.n_ctx.take();
        let result = work(&mut self.session);
        self.session.params.n_ctx = n_ctx;
        std::mem::swap(&mut self.session.kv, &mut self.spare);
        result
    }

    /// The parts that are remembered beside what is held, by the moments of their first and last frames, in seconds.
    pub fn recalled_times(&self) -> impl Iterator<Item = (f64, f64)> {
        let album = self.feed.as_ref().and_then(|feed| feed.album.as_ref());
        let pages = album.into_iter().flat_map(Album::pages);
        pages.map(|page| (page.video.slices.first().map_or(0.0, |slice| slice.time_s()), page.end_s))
    }
}

/// The part that `shots` are.
pub(super) fn page(session: &Session, script: &Script, info: &VideoInfo, shots: &Shots) -> Result<Page> {
    let times: Vec<f64> = shots.times().collect();
    let end_s = times.last().copied().unwrap_or(0.0);
    let info = VideoInfo { duration_s: Some(end_s), ..info.clone() };
    let arrangement = session.arranged(&info, script.frame().image_size, &times);
    let Shots { slices, unpruned, .. } = shots.clone();
    let empty = EncodedVideo::empty(&session.engine.model, &session.engine.vision, &info, arrangement)?;
    let part = EncodedVideo { slices, unpruned, ..empty };
    Ok(Page { video: session.selected(part)?, end_s })
}
