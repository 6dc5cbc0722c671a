//! Notes on a slice for inspection: the grid of its tokens, their scores, and what the encoder computed.

use serde::{Deserialize, Serialize};

/// SharpV's scores of the tokens of a slice ([`prune`](crate::prune)), one per token. NaN if a token is not finite.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TokenScores {
    /// The distance of each token from the mean of the slice.
    pub spatial: Vec<f32>,
    /// The distance of each token from the token at the same index in the previous slice; empty for the first slice.
    pub temporal: Vec<f32>,
    /// Both combined, with the weight that was set when the slice was encoded.
    pub combined: Vec<f32>,
    /// SharpV's adaptive ratio: the share of the slice that it keeps without a budget, 0 to 1.
    pub ratio: f64,
}

/// One image that the encoder makes of a frame: the whole frame or a tile.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Grid {
    /// The number of its visual tokens.
    pub n_tokens: usize,
    /// Columns and rows of its tokens; `None` if its tokens do not form a grid.
    pub shape: Option<(usize, usize)>,
    /// The part of the frame that it shows; `None` if unknown.
    pub area: Option<Area>,
}

/// A part of a frame, in units of the frame's width and height, from its upper left corner. An image with borders
/// extends beyond 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Area {
    /// The left edge.
    pub left: f64,
    /// The upper edge.
    pub top: f64,
    /// The right edge.
    pub right: f64,
    /// The lower edge.
    pub bottom: f64,
}

/// What the encoder did with the cells of an image. A cell is a square of patches that the encoder merges.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct EncoderCells {
    /// Cells per row.
    pub columns: usize,
    /// The number of rows.
    pub rows: usize,
    /// What was done with each cell, row by row.
    pub work: Vec<CellWork>,
}

/// What the encoder did with a cell of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CellWork {
    /// It passed all layers.
    Computed,
    /// It stopped at a middle layer, because its token would have been dropped.
    Stopped,
    /// It was reused from the previous slice, because its pixels did not change.
    Reused,
}

impl EncoderCells {
    /// The same cells, all reused.
    pub(in crate::chat) fn all_reused(&self) -> Self {
        Self { work: vec![CellWork::Reused; self.work.len()], ..*self }
    }
}

/// Notes on a slice, taken while it is encoded.
#[derive(Debug, Clone, Default)]
pub(in crate::chat) struct Notes {
    pub grids: Vec<Grid>,
    pub scores: TokenScores,
    pub opens_scene: bool,
    pub importance: Option<Vec<f32>>,
}

impl Area {
    /// The whole frame.
    pub const WHOLE: Self = Self { left: 0.0, top: 0.0, right: 1.0, bottom: 1.0 };
}
