//! What a prompt may take, and the errors that say by how much it is too long.

use crate::chat::prompt::Plan;
use crate::chat::rows::RowKey;
use crate::error::{Error, Fix, Resource, Result};
use std::path::Path;

/// Positions that must be left for an answer when a prompt is accepted.
pub(in crate::chat) const ANSWER_ROOM: usize = 64;

/// A prompt that does not fit: what it passes, and by how much.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::chat) struct Shortage {
    /// What is short; [`Resource::Memory`] in bytes.
    pub resource: Resource,
    /// What the prompt takes, with room for an answer.
    pub needed: u64,
    /// What there is.
    pub limit: u64,
    /// What the video takes of it.
    pub by_video: u64,
}

impl Shortage {
    /// `None` if it fits.
    pub fn of(resource: Resource, needed: u64, limit: u64, by_video: u64) -> Option<Self> {
        (needed > limit).then_some(Self { resource, needed, limit, by_video })
    }

    /// The share of the video that fits.
    pub fn share(&self) -> f64 {
        self.limit.saturating_sub(self.needed.saturating_sub(self.by_video)) as f64 / self.by_video.max(1) as f64
    }

    /// Whose limit it is, for a sentence.
    pub fn reason(&self) -> String {
        match self.resource {
            Resource::Positions => format!("the model was trained for {} positions", self.limit),
            Resource::Cells => format!("the context has {} cells", self.limit),
            Resource::Memory => format!("{} MB of memory are free", self.limit >> 20),
        }
    }

    /// The error for the video at `path`, of `n_frames`.
    pub fn error(&self, path: &Path, n_frames: usize) -> Error {
        let mut fixes = Vec::new();
        // What stands around the video may not fit by itself.
        let text_fits = self.needed.saturating_sub(self.by_video) <= self.limit;
        match (self.share() * n_frames as f64) as usize {
            0 => {}
            frames => fixes.push(Fix::MaxFrames(frames)),
        }
        match self.resource {
            Resource::Cells => fixes.push(Fix::CtxSize(self.needed as usize)),
            Resource::Memory => fixes.push(Fix::QuantizeKv),
            Resource::Positions => {}
        }
        if text_fits && self.resource != Resource::Positions {
            fixes.push(Fix::KeepFewer);
        }
        if !text_fits || fixes.is_empty() {
            fixes.extend([Fix::ShorterQuestion, Fix::NewConversation]);
        }
        let scale = if self.resource == Resource::Memory { 20 } else { 0 };
        let (limit, needed) = (self.limit >> scale, (self.needed >> scale).max((self.limit >> scale) + 1));
        Error::PromptTooLong {
            video: Some(path.to_owned()),
            resource: self.resource,
            needed: needed as usize,
            limit: limit as usize,
            fixes,
        }
    }
}

/// How much a prompt may take.
#[derive(Debug, Clone, Copy)]
pub(in crate::chat) struct Limits {
    /// Positions that the model was trained for.
    pub positions: usize,
    /// Cells, if the user fixed them.
    pub cells: Option<usize>,
}

impl Limits {
    pub fn check_prompt(&self, plan: &Plan, n_predict: usize) -> Result<()> {
        let room = ANSWER_ROOM.min(n_predict);
        let text = plan.rows.iter().filter(|row| matches!(row.key, RowKey::Token(_))).count() + room;
        let check = |resource: Resource, needed: usize, limit: usize| {
            if needed <= limit {
                return Ok(());
            }
            let mut fixes = Vec::new();
            if resource == Resource::Cells {
                fixes.push(Fix::CtxSize(needed));
            }
            match (resource, text > limit) {
                (_, true) => fixes.push(Fix::ShorterQuestion),
                (Resource::Positions, false) => fixes.push(Fix::FewerFrames),
                (_, false) => fixes.push(Fix::KeepFewer),
            }
            fixes.push(Fix::NewConversation);
            Err(Error::PromptTooLong { video: None, resource, needed, limit, fixes })
        };
        check(Resource::Positions, plan.next_position.max(0) as usize + room, self.positions)?;
        self.cells.map_or(Ok(()), |cells| check(Resource::Cells, plan.rows.len() + room, cells))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixes(error: &Error) -> Vec<Fix> {
        error.fixes()
    }

    #[test]
    fn a_video_that_is_too_long_is_told_what_fits() {
        let shortage = Shortage::of(Resource::Positions, 1764, 1000, 1600).expect("too long");
        let error = shortage.error("clip.mp4".as_ref(), 16);
        // 1000 − 164 positions are left, at 100 a frame.
        assert_eq!(fixes(&error), [Fix::MaxFrames(8)]);
        let told = error.to_string();
        assert!(told.contains("clip.mp4: the prompt needs 1764 positions, 764 more than the 1000"), "{told}");
        assert!(told.ends_with("take at most 8 of its frames"), "{told}");
        assert_eq!(Shortage::of(Resource::Positions, 1000, 1000, 900), None);
    }

    #[test]
    fn a_fixed_context_is_told_how_large_it_has_to_be() {
        let error = Shortage::of(Resource::Cells, 864, 512, 800).expect("too long").error("clip.mp4".as_ref(), 8);
        assert_eq!(fixes(&error), [Fix::MaxFrames(4), Fix::CtxSize(864), Fix::KeepFewer]);
    }

    #[test]
    fn memory_is_told_in_megabytes() {
        let shortage = Shortage::of(Resource::Memory, (100 << 20) + 1, 100 << 20, 10).expect("too long");
        let error = shortage.error("clip.mp4".as_ref(), 8).to_string();
        assert!(error.contains("101 MB of memory, 1 more than the 100 that are free"), "{error}");
        let none = Shortage { limit: 0, ..shortage }.error("clip.mp4".as_ref(), 8);
        assert_eq!(fixes(&none), [Fix::QuantizeKv, Fix::ShorterQuestion, Fix::NewConversation]);
    }
}
