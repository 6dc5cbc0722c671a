//! Ways to take some of many.

use super::score::SliceScore;

/// Indices of the `k` usable tokens of highest importance, ascending; of equals the one of lower index.
pub(super) fn top(slice: &SliceScore, k: usize) -> Vec<u32> {
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

/// `m` of `0..n`, ascending: the middles of `m` equal parts.
pub(super) fn spread(m: usize, n: usize) -> Vec<usize> {
    (0..m).map(|i| (2 * i + 1) * n / (2 * m)).collect()
}
