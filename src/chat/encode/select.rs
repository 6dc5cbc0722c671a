//! Selects the kept visual tokens of an encoded video: when it is encoded, and again if all embeddings are in memory.

use crate::chat::encoded::{EncodedSlice, EncodedVideo, VideoId};
use crate::error::Result;
use crate::prune::{self, Decision, PruneParams, SliceDecision, SliceView};
use crate::runtime::Model;
use std::sync::Arc;

/// A pruning method's view of a slice. It leaves out the values that some models append to each row for deeper layers.
pub(super) fn view<'a>(rows: &'a [f32], n_tokens: usize, model: &Model) -> Result<SliceView<'a>> {
    SliceView::with_stride(rows, n_tokens, model.n_embd(), model.n_embd_inp())
}

/// Drops the rows of all tokens that `decision` does not keep.
pub(super) fn keep(slices: &mut [EncodedSlice], decision: &Decision, stride: usize) {
    for (slice, decided) in slices.iter_mut().zip(&decision.slices) {
        keep_rows(slice, &decided.kept, stride);
    }
}

/// Drops the rows of all tokens that are not in `kept` (ascending). `slice` must have the rows of all tokens.
pub(super) fn keep_rows(slice: &mut EncodedSlice, kept: &[u32], stride: usize) {
    for (to, &from) in kept.iter().enumerate() {
        let from = from as usize * stride;
        // Indices ascend, so no row overwrites one that is still needed.
        slice.rows.copy_within(from..from + stride, to * stride);
    }
    slice.rows.truncate(kept.len() * stride);
    slice.rows.shrink_to_fit();
    slice.kept = kept.to_vec();
}

/// Adds the importance that `decision` is based on to the notes.
pub(super) fn note_importance(slices: &mut [EncodedSlice], decision: &Decision) {
    for (slice, decided) in slices.iter_mut().zip(&decision.slices) {
        if let Some(notes) = &mut slice.notes {
            notes.importance.clone_from(&decided.importance);
        }
    }
}

/// Decides which tokens of `video` `params` keep. `video` must have the embeddings of all tokens. This compares methods
/// and budgets without encoding again.
pub(in crate::chat) fn decide(video: &EncodedVideo, params: &PruneParams, model: &Model) -> Result<Decision> {
    let slices = video.slices.iter().zip(&video.unpruned);
    let views: Vec<_> = slices
        .map(|(slice, all)| Ok(view(all, slice.n_tokens, model)?.with_unfinished(&slice.unfinished)))
        .collect::<Result<_>>()?;
    let cap = params.cap.into_iter().chain(video.max_kept).min();
    prune::prune(&PruneParams { cap, ..params.clone() }, &views)
}

/// Applies `decision` to `video`, which must have the embeddings of all tokens, in rows of `stride` values. Returns
/// whether the selection changed.
pub(in crate::chat) fn select(video: &mut Arc<EncodedVideo>, decision: &Decision, stride: usize) -> bool {
    note_importance(&mut Arc::make_mut(video).slices, decision);
    let same = |(slice, decided): (&EncodedSlice, &SliceDecision)| slice.kept == decided.kept;
    if video.slices.len() == decision.slices.len() && video.slices.iter().zip(&decision.slices).all(same) {
        return false;
    }
    let video = Arc::make_mut(video);
    video.id = VideoId::new();
    for (slice, all) in video.slices.iter_mut().zip(&video.unpruned) {
        slice.rows.clone_from(all);
    }
    keep(&mut video.slices, decision, stride);
    true
}
