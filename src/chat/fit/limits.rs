//! What a prompt may take, and the errors that say by how much it is too long.

use crate::chat::prompt::{Plan, RowKey};
use crate::error::{Error, Result};
use std::path::Path;

/// Positions that must be left for an answer when a prompt is accepted.
pub(in crate::chat) const ANSWER_ROOM: usize = 64;

/// What to do where the text alone does not fit.
const TOO_MUCH_TEXT: &str = "the text alone is too long: ask a shorter question, or begin a new conversation";

/// A prompt that does not fit: what it passes, and by how much.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::chat) struct Shortage {
    pub resource: Resource,
    /// What the prompt takes, with room for an answer.
    pub needed: u64,
    /// What there is.
    pub limit: u64,
    /// What the video takes of it.
    pub by_video: u64,
}

/// What a prompt can run out of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::chat) enum Resource {
    /// Positions that the model was trained for.
    Positions,
    /// Cells of a context whose size the user fixed.
    Cells,
    /// Bytes of memory.
    Bytes,
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
            Resource::Cells => format!("the context has {} cells (-c)", self.limit),
            Resource::Bytes => format!("{} MB of memory are free", self.limit >> 20),
        }
    }

    /// The error for the video at `path`, of `n_frames`.
    pub fn error(&self, path: &Path, n_frames: usize) -> Error {
        let advice = match (self.share() * n_frames as f64) as usize {
            // What stands around the video does not fit by itself.
            _ if self.needed.saturating_sub(self.by_video) > self.limit => TOO_MUCH_TEXT.to_owned(),
            0 => format!("not one frame of {} fits", path.display()),
            frames => format!("of {}, {frames} of its {n_frames} frames fit (--max-frames {frames})", path.display()),
        };
        let (unit, of, scale, more) = match self.resource {
            Resource::Positions => ("positions", "the model was trained for", 0, String::new()),
            Resource::Cells => ("cells", "the context has (-c)", 0, format!("; or give -c {}, or prune", self.needed)),
            Resource::Bytes => ("MB of memory", "are free", 20, "; or quantize the KV cache (-ctk, -ctv)".to_owned()),
        };
        let (limit, needed) = (self.limit >> scale, (self.needed >> scale).max((self.limit >> scale) + 1));
        Error::PromptTooLong { unit, needed: needed as usize, limit: limit as usize, of, advice: advice + &more }
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
        let advice = |limit: usize, advice: String| if text > limit { TOO_MUCH_TEXT.to_owned() } else { advice };
        let needed = plan.next_position.max(0) as usize + room;
        if needed > self.positions {
            return Err(Error::PromptTooLong {
                unit: "positions",
                needed,
                limit: self.positions,
                of: "the model was trained for",
                advice: advice(self.positions, "take fewer frames (--max-frames), or /clear in a chat".into()),
            });
        }
        let needed = plan.rows.len() + room;
        match self.cells {
            Some(cells) if needed > cells => Err(Error::PromptTooLong {
                unit: "cells",
                needed,
                limit: cells,
                of: "the context has (-c)",
                advice: advice(
                    cells,
                    format!("give -c {needed} or more, or keep fewer visual tokens (--keep, --max-visual-tokens)"),
                ),
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_video_that_is_too_long_is_told_what_fits() {
        let shortage = Shortage::of(Resource::Positions, 1764, 1000, 1600).expect("too long");
        let error = shortage.error("clip.mp4".as_ref(), 16).to_string();
        // 1000 − 164 positions are left, at 100 a frame.
        assert!(error.contains("1764 positions, 764 more than the 1000"), "{error}");
        assert!(error.contains("of clip.mp4, 8 of its 16 frames"), "{error}");
        assert_eq!(Shortage::of(Resource::Positions, 1000, 1000, 900), None);
    }

    #[test]
    fn a_fixed_context_is_told_how_large_it_has_to_be() {
        let error =
            Shortage::of(Resource::Cells, 864, 512, 800).expect("too long").error("clip.mp4".as_ref(), 8).to_string();
        assert!(error.contains("-c 864") && error.contains("4 of its 8 frames"), "{error}");
    }

    #[test]
    fn memory_is_told_in_megabytes() {
        let shortage = Shortage::of(Resource::Bytes, (100 << 20) + 1, 100 << 20, 10).expect("too long");
        let error = shortage.error("clip.mp4".as_ref(), 8).to_string();
        assert!(error.contains("101 MB of memory, 1 more than the 100 that are free"), "{error}");
        assert!(Shortage { limit: 0, ..shortage }.error("clip.mp4".as_ref(), 8).to_string().contains("not one frame"));
    }
}
