//! Which visual tokens of an encoded video are kept: chosen when it is encoded, and anew where all embeddings are there.

use crate::chat::encoded::{EncodedSlice, EncodedVideo, VideoId};
use crate::error::Result;
use crate::prune::{self, Decision, PruneParams, SliceDecision, SliceView};
use crate::runtime::Model;
use std::sync::Arc;

/// What a pruning method sees of a slice: without what some models append to each row for deeper layers.
pub(super) fn view<'a>(rows: &'a [f32], n_tokens: usize, model: &Model) -> Result<SliceView<'a>> {
    SliceView::with_stride(rows, n_tokens, model.n_embd(), model.n_embd_inp())
}

/// Leaves the rows of the kept tokens only.
pub(super) fn keep(slices: &mut [EncodedSlice], decision: &Decision, stride: usize) {
    for (slice, decided) in slices.iter_mut().zip(&decision.slices) {
        keep_rows(slice, &decided.kept, stride);
    }
}

/// Leaves the rows of the `kept` tokens (ascending) of a slice whose rows are all there.
pub(super) fn keep_rows(slice: &mut EncodedSlice, kept: &[u32], stride: usize) {
    for (to, &from) in kept.iter().enumerate() {
        let from = from as usize * stride;
        // Kept indices ascend, so a row never moves over one that is still needed.
        slice.rows.copy_within(from..from + stride, to * stride);
    }
    slice.rows.truncate(kept.len() * stride);
    slice.rows.shrink_to_fit();
    slice.kept = kept.to_vec();
}

/// Notes down what the decision was made by.
pub(super) fn note_importance(slices: &mut [EncodedSlice], decision: &Decision) {
    for (slice, decided) in slices.iter_mut().zip(&decision.slices) {
        if let Some(notes) = &mut slice.notes {
            notes.importance.clone_from(&decided.importance);
        }
    }
}

/// What `params` keep of a video whose embeddings are all here. For comparing methods and budgets without encoding
/// anew.
pub(in crate::chat) fn decide(video: &EncodedVideo, params: &PruneParams, model: &Model) -> Result<Decision> {
    let slices = video.slices.iter().zip(&video.unpruned);
    let views: Vec<_> = slices
        .map(|(slice, all)| Ok(view(all, slice.n_tokens, model)?.with_unfinished(&slice.unfinished)))
        .collect::<Result<_>>()?;
    let cap = params.cap.into_iter().chain(video.max_kept).min();
    prune::prune(&PruneParams { cap, ..params.clone() }, &views)
}

/// Keeps what was decided of a video whose embeddings are all here, rows of `stride` values. Returns whether that is
/// another selection than before.
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
