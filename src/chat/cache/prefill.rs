//! Prefill: computes a planned prompt.

use super::ledger::{Entry, Ledger};
use crate::chat::encoded::EncodedVideo;
use crate::chat::engine::Engine;
use crate::chat::prompt::{Plan, is_image};
use crate::chat::rows::{PlannedRow, RowKey};
use crate::error::{Error, Result};
use crate::observer::{Observer, Stage};
use crate::runtime::{Row, RowInput};
use std::sync::Arc;

/// How text and visual tokens are batched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PrefillMode {
    /// One pass if the model supports it, otherwise chunk by chunk.
    #[default]
    Auto,
    /// Text and visual tokens share full ubatches. Models that do not support this prefill chunk by chunk.
    OnePass,
    /// A batch for each chunk, of text or of an image, as llama.cpp's own tools do.
    PerChunk,
}

/// Which batches the model supports.
#[derive(Debug, Clone, Copy)]
pub(in crate::chat) struct Batching {
    /// A batch may hold both text and visual tokens.
    pub mixed: bool,
    /// The tokens of an image attend to each other in both directions, so an image must be one batch.
    pub non_causal: bool,
}

impl Batching {
    /// The batches that the model of `engine` supports.
    pub fn of(engine: &Engine) -> Self {
        Self { mixed: engine.model.supports_mixed_batch(), non_causal: engine.vision.uses_non_causal() }
    }

    fn one_pass(self, mode: PrefillMode) -> bool {
        let possible = self.mixed && !self.non_causal;
        possible && mode != PrefillMode::PerChunk
    }
}

/// Computes the rows of `plan` from `first` to `end`, and the logits of the last row of the plan. Reports progress in
/// rows of the plan from `start` on. A ubatch of the context must have at least [`rows_at_once`](Plan::rows_at_once)
/// rows.
pub(in crate::chat) fn prefill(
    ledger: &mut Ledger,
    plan: &Plan,
    (start, first, end): (usize, usize, usize),
    inputs: Inputs<'_>,
    (mode, batching): (PrefillMode, Batching),
    observer: &mut dyn Observer,
) -> Result<()> {
    let total = plan.rows.len() - start;
    let mut done = first - start;
    let stride = ledger.context().model().n_embd_inp();
    let n_ubatch = ledger.context().n_ubatch();
    let mut compute = |ledger: &mut Ledger, rows: &[PlannedRow]| -> Result<()> {
        done += rows.len();
        let entries = rows.iter().map(|row| Entry::of(row, inputs.videos)).collect::<Result<Vec<_>>>()?;
        let batch: Vec<Row<'_>> = rows
            .iter()
            .enumerate()
            .map(|(i, row)| {
                Ok(Row {
                    input: inputs.of(row.key, stride)?,
                    position: row.position,
                    logits: done == total && i + 1 == rows.len(),
                })
            })
            .collect::<Result<_>>()?;
        ledger.extend(&entries, &batch)?;
        observer.progress(Stage::Prefill, done as u64, total as u64);
        Ok(())
    };
    if batching.one_pass(mode) {
        return plan.rows[first..end].chunks(n_ubatch).try_for_each(|rows| compute(ledger, rows));
    }
    for chunk in plan.chunks(first, end) {
        if !(is_image(chunk) && batching.non_causal) {
            chunk.chunks(n_ubatch).try_for_each(|rows| compute(ledger, rows))?;
            continue;
        }
        ledger.context_mut().set_causal(false);
        let result = compute(ledger, chunk);
        ledger.context_mut().set_causal(true);
        result?;
    }
    Ok(())
}

/// Where to find the embeddings of rows.
#[derive(Debug, Clone, Copy)]
pub(in crate::chat) struct Inputs<'a> {
    pub videos: &'a [Arc<EncodedVideo>],
    /// The encoder's embedding of a newline.
    pub newline: Option<&'a [f32]>,
}

impl<'a> Inputs<'a> {
    fn of(self, key: RowKey, stride: usize) -> Result<RowInput<'a>> {
        let embedding = match key {
            RowKey::Token(token) => return Ok(RowInput::Token(token)),
            RowKey::Newline => self.newline.filter(|row| row.len() == stride),
            RowKey::Visual { video, slice, kept } => self
                .videos
                .get(video)
                .and_then(|v| v.slices.get(slice))
                .and_then(|s| s.rows.get(kept * stride..(kept + 1) * stride)),
        };
        embedding.map(RowInput::Embedding).ok_or_else(|| Error::Llama {
            action: "filling a batch",
            reason: "a visual token has no embedding; please report this".into(),
        })
    }
}
