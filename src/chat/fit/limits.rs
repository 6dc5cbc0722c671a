//! The limits of a prompt, and the errors for prompts that exceed them.

use crate::chat::prompt::Plan;
use crate::chat::rows::RowKey;
use crate::error::{Error, Fix, Resource, Result};
use std::path::Path;

/// Positions and cells that a prompt must leave for the answer.
pub(in crate::chat) const ANSWER_RESERVE: usize = 64;

/// A limit that a prompt exceeds, and by how much.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::chat) struct Shortage {
    /// The limited resource. The amounts of [`Resource::Memory`] are in bytes.
    pub resource: Resource,
    /// What the prompt needs, including the reserve for the answer.
    pub needed: u64,
    /// The limit.
    pub limit: u64,
    /// The part of `needed` that the video adds.
    pub by_video: u64,
}

impl Shortage {
    /// The shortage of `resource`; `None` if `needed` is within `limit`.
    pub fn of(resource: Resource, needed: u64, limit: u64, by_video: u64) -> Option<Self> {
        (needed > limit).then_some(Self { resource, needed, limit, by_video })
    }

    /// The share of the video that fits, 0 to 1.
    pub fn share(&self) -> f64 {
        self.limit.saturating_sub(self.needed.saturating_sub(self.by_video)) as f64 / self.by_video.max(1) as f64
    }

    /// The limit as a clause, for a message.
    pub fn reason(&self) -> String {
        match self.resource {
            Resource::Positions => format!("the model was trained for {} positions", self.limit),
            Resource::Cells => format!("the context has {} cells", self.limit),
            Resource::Memory => format!("{} MB of memory are free", self.limit >> 20),
        }
    }

    /// The error for the video at `path`, which has `n_frames` frames.
    pub fn error(&self, path: &Path, n_frames: usize) -> Error {
        let mut fixes = Vec::new();
        // The rest of the prompt may exceed the limit by itself.
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

/// The limits of a prompt.
#[derive(Debug, Clone, Copy)]
pub(in crate::chat) struct Limits {
    /// Positions that the model was trained for.
    pub positions: usize,
    /// Cells of the context, if the user set them.
    pub cells: Option<usize>,
}

impl Limits {
    pub fn check_prompt(&self, plan: &Plan, n_predict: usize) -> Result<()> {
        let reserve = ANSWER_RESERVE.min(n_predict);
        let text = plan.rows.iter().filter(|row| matches!(row.key, RowKey::Token(_))).count() + reserve;
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
        check(Resource::Positions, plan.next_position.max(0) as usize + reserve, self.positions)?;
        self.cells.map_or(Ok(()), |cells| check(Resource::Cells, plan.rows.len() + reserve, cells))
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
        // 1000 − 164 positions are left, at 100 per frame.
        assert_eq!(fixes(&error), [Fix::MaxFrames(8)]);
        let message = error.to_string();
        assert!(message.contains("clip.mp4: the prompt needs 1764 positions, 764 more than the 1000"), "{message}");
        assert!(message.ends_with("take at most 8 of its frames"), "{message}");
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
