//! What a prompt may take, and the errors that say by how much it is too long.

use super::plan::Plan;
use crate::error::{Error, Result};

/// Positions that must be left for an answer when a prompt is accepted.
pub(super) const ANSWER_ROOM: usize = 64;

/// What a video will take, known before a frame is encoded.
#[derive(Debug, Clone, Copy)]
pub(super) struct VideoCost {
    /// Frames.
    pub frames: usize,
    /// Positions of its whole layout, markers and text included. They do not shrink with pruning.
    pub positions: usize,
    /// Rows of its whole layout, unpruned.
    pub rows: usize,
}

/// How much a prompt may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Positions that the model was trained for.
    pub positions: usize,
    /// Cells, if the user fixed them.
    pub cells: Option<usize>,
}

impl Limits {
    /// Refuses a video that cannot fit, before it is encoded. `used` positions are taken by the conversation so far.
    pub fn check_video(&self, used: usize, cost: VideoCost, unpruned: bool) -> Result<()> {
        let check = |needed: usize, limit: usize, unit, of, per_video: usize, other: &str| {
            if needed <= limit {
                return Ok(());
            }
            let left = limit.saturating_sub(needed - per_video);
            let advice = match left * cost.frames / per_video.max(1) {
                0 => format!("not one frame fits{other}"),
                frames => format!("{frames} of its {} frames fit (--max-frames {frames}){other}", cost.frames),
            };
            Err(Error::PromptTooLong { unit, needed, limit, of, advice })
        };
        let needed = |per_video| used + per_video + ANSWER_ROOM;
        check(needed(cost.positions), self.positions, "positions", "the model was trained for", cost.positions, "")?;
        match self.cells.filter(|_| unpruned) {
            Some(cells) => {
                let other = format!("; or give -c {}, or prune", needed(cost.rows));
                check(needed(cost.rows), cells, "cells", "the context has (-c)", cost.rows, &other)
            }
            None => Ok(()),
        }
    }

    pub fn check_prompt(&self, plan: &Plan, n_predict: usize) -> Result<()> {
        let room = ANSWER_ROOM.min(n_predict);
        let needed = plan.next_position.max(0) as usize + room;
        if needed > self.positions {
            return Err(Error::PromptTooLong {
                unit: "positions",
                needed,
                limit: self.positions,
                of: "the model was trained for",
                advice: "take fewer frames (--max-frames), or /clear in a chat".into(),
            });
        }
        let needed = plan.rows.len() + room;
        match self.cells {
            Some(cells) if needed > cells => Err(Error::PromptTooLong {
                unit: "cells",
                needed,
                limit: cells,
                of: "the context has (-c)",
                advice: format!("give -c {needed} or more, or keep fewer visual tokens (--keep, --max-visual-tokens)"),
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
        let limits = Limits { positions: 1000, cells: None };
        let cost = VideoCost { frames: 16, positions: 1600, rows: 1600 };
        let error = limits.check_video(100, cost, false).unwrap_err().to_string();
        // 1000 − 100 − 64 positions are left, at 100 a frame.
        assert!(error.contains("1764 positions, 764 more than the 1000"), "{error}");
        assert!(error.contains("8 of its 16 frames"), "{error}");
        assert!(limits.check_video(0, VideoCost { frames: 8, positions: 800, rows: 800 }, false).is_ok());
    }

    #[test]
    fn a_fixed_context_refuses_an_unpruned_video_only() {
        let limits = Limits { positions: 10_000, cells: Some(512) };
        let cost = VideoCost { frames: 8, positions: 800, rows: 800 };
        assert!(limits.check_video(0, cost, false).is_ok());
        assert!(limits.check_video(0, cost, true).unwrap_err().to_string().contains("-c 864"));
    }
}
