//! The rows of a prompt.

use crate::runtime::{Position, Token};

/// What a row holds. Two rows with the same key and position have the same keys and values in the KV cache if all rows
/// before them are the same too.
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
    /// The encoder's embedding for the end of a line.
    Newline,
}

/// One row of the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PlannedRow {
    /// What the row holds.
    pub key: RowKey,
    /// Its position in the unpruned prompt.
    pub position: Position,
}

impl PlannedRow {
    /// Whether its embedding comes from the vision encoder.
    pub(in crate::chat) fn is_visual(&self) -> bool {
        !matches!(self.key, RowKey::Token(_))
    }
}

/// The index of the first row after the last visual row; 0 if no row is visual.
pub(in crate::chat) fn after_visual(rows: &[PlannedRow]) -> usize {
    rows.iter().rposition(PlannedRow::is_visual).map_or(0, |last| last + 1)
}
