//! What is noted of each slice while it is encoded: where its tokens lie, what they scored, what the encoder computed.

use serde::{Deserialize, Serialize};

/// SharpV's scores of the tokens of a slice: see [`prune`](crate::prune). NaN for tokens that are not finite.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TokenScores {
    /// How far each token is from the mean of the slice.
    pub spatial: Vec<f32>,
    /// How far it is from the same place of the slice before; empty in a first slice.
    pub temporal: Vec<f32>,
    /// Both together, by the weight that held when it was encoded.
    pub combined: Vec<f32>,
    /// The share of the slice that SharpV would keep by itself, 0 to 1.
    pub ratio: f64,
}

/// One of the images that the encoder makes of a frame: the frame itself, or a tile of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Grid {
    /// Its visual tokens.
    pub n_tokens: usize,
    /// Columns and rows of its tokens; `None` where a token stands for no place of the image.
    pub shape: Option<(usize, usize)>,
    /// Which part of the frame it shows; `None` where that is not known.
    pub area: Option<Area>,
}

/// A part of a frame, in widths and heights of it from its upper left corner. An image with borders reaches beyond it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Area {
    /// Where it begins.
    pub left: f64,
    /// Where it begins.
    pub top: f64,
    /// Where it ends.
    pub right: f64,
    /// Where it ends.
    pub bottom: f64,
}

/// What the encoder did of an image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct EncoderCells {
    /// Cells in a row.
    pub columns: usize,
    /// Rows of cells.
    pub rows: usize,
    /// What was done with each, row by row.
    pub work: Vec<CellWork>,
}

/// What the encoder did with a cell of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CellWork {
    /// It went through all layers.
    Computed,
    /// It stopped in the middle: its token would have been dropped.
    Stopped,
    /// It is what it was in the slice before: nothing had changed.
    Reused,
}

impl EncoderCells {
    /// The same cells in a slice that equals this one.
    pub(in crate::chat) fn all_reused(&self) -> Self {
        Self { work: vec![CellWork::Reused; self.work.len()], ..*self }
    }
}

/// What is noted of a slice while it is encoded.
#[derive(Debug, Clone, Default)]
pub(in crate::chat) struct Notes {
    pub grids: Vec<Grid>,
    pub scores: TokenScores,
    pub opens_scene: bool,
    pub importance: Option<Vec<f32>>,
}

impl Area {
    /// All of a frame.
    pub const WHOLE: Self = Self { left: 0.0, top: 0.0, right: 1.0, bottom: 1.0 };
}
