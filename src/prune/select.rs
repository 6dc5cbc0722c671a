//! Selection by importance.

use super::score::SliceScore;

/// Indices of the `k` usable tokens of highest importance, ascending; on a tie, the token of lower index.
pub(crate) fn top(slice: &SliceScore, k: usize) -> Vec<u32> {
    let mut indices = slice.usable();
    if k < indices.len() {
        let importance = |index: u32| slice.importance[index as usize];
        if k > 0 {
            indices.select_nth_unstable_by(k - 1, |&a, &b| importance(b).total_cmp(&importance(a)).then(a.cmp(&b)));
        }
        indices.truncate(k);
        indices.sort_unstable();
    }
    indices
}
