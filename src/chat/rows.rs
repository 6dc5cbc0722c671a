//! What a row of a prompt is.

use crate::runtime::{Position, Token};

/// What a row is. Rows with equal keys at equal positions have equal keys and values in the KV cache, if all rows
/// before do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum RowKey {
    /// A text token.
    Token(Token),
    /// A kept visual token.
    Visual {
        /// Index of the video in the session.
        video: usize,
        /// Index of the slice in the video.
        slice: usize,
        /// Index among the slice's kept tokens.
        kept: usize,
    },
    /// The encoder's embedding of a line end.
    Newline,
}

/// One row of the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PlannedRow {
    /// What it is.
    pub key: RowKey,
    /// Where it stands: its place in the prompt before pruning.
    pub position: Position,
}

impl PlannedRow {
    /// Whether the vision encoder made its embedding.
    pub(in crate::chat) fn is_visual(&self) -> bool {
        !matches!(self.key, RowKey::Token(_))
    }
}

/// The index of the first row after the last visual one; 0 if there is none.
pub(in crate::chat) fn after_visual(rows: &[PlannedRow]) -> usize {
    rows.iter().rposition(PlannedRow::is_visual).map_or(0, |last| last + 1)
}
