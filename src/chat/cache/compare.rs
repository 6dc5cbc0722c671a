//! Comparing a cache with a prompt.

use super::ledger::Entry;
use crate::chat::encoded::EncodedVideo;
use crate::chat::rows::PlannedRow;
use std::ops::Range;
use std::sync::Arc;

/// How many entries, from the first on, can stay for the prompt of `rows` about `videos`. At least one row of the
/// prompt stays to be computed, for its logits.
pub(super) fn shared(entries: &[Entry], rows: &[PlannedRow], videos: &[Arc<EncodedVideo>]) -> usize {
    let equal = entries.iter().zip(rows).take_while(|(entry, row)| entry.is_row(row, videos)).count();
    let mut keep = equal.min(rows.len().saturating_sub(1));
    // Rows are removed by position, and under M-RoPE the rows of an image share theirs: cut before the image.
    let next = |keep: usize| {
        let cached = entries.get(keep).map(|entry| entry.position[0]);
        [cached, rows.get(keep).map(|row| row.position[0])].into_iter().flatten()
    };
    while keep > 0 && next(keep).any(|position| rows[keep - 1].position[0] >= position) {
        keep -= 1;
    }
    keep
}

/// The runs of entries that the prompt of `rows` lacks, ascending, between rows that are the same at the same
/// positions. Each run has a visual token: text alone is not an evicted image.
///
/// Rows are removed by position, so no row that stays may have a position within a run. Under M-RoPE, slices of one
/// block may share theirs: the result is empty then.
pub(super) fn lacked(entries: &[Entry], rows: &[PlannedRow], videos: &[Arc<EncodedVideo>]) -> Vec<Range<usize>> {
    let (mut runs, mut next, mut at) = (Vec::new(), 0, 0);
    while let Some(row) = rows.get(next) {
        let start = at;
        let differs = |entry: &Entry| !entry.is_row(row, videos);
        while entries.get(at).is_some_and(|entry| differs(entry) && entry.position[0] < row.position[0]) {
            at += 1;
        }
        if entries.get(at).is_none_or(differs) {
            // This last run may be the end of the cache, or text of an earlier question.
            at = if entries[start..at].iter().any(Entry::is_visual) { at } else { start };
            runs.push(start..at);
            break;
        }
        runs.push(start..at);
        (next, at) = (next + 1, at + 1);
    }
    runs.retain(|run| !run.is_empty());
    let is_apart = |run: &Range<usize>| {
        let (first, last) = (entries[run.start].position[0], entries[run.end - 1].position[0]);
        let within = |entry: &Entry| (first..=last).contains(&entry.position[0]);
        let (before, after) = (&entries[..run.start], &entries[run.end..]);
        entries[run.clone()].is_sorted_by_key(|entry| entry.position[0])
            && entries[run.clone()].iter().any(Entry::is_visual)
            && !before.iter().chain(after).any(within)
    };
    if runs.iter().all(is_apart) { runs } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::super::ledger::{Evicted, Key};
    use super::*;
    use crate::chat::rows::RowKey;

    fn text(token: i32, position: i32) -> PlannedRow {
        PlannedRow { key: RowKey::Token(token), position: [position, 0, 0, 0] }
    }

    /// A visual row: [`RowKey::Newline`], which refers to no video. `number` sets another axis of its position, so that
    /// rows differ.
    fn visual(number: i32, position: i32) -> PlannedRow {
        PlannedRow { key: RowKey::Newline, position: [position, number, 0, 0] }
    }

    fn entries(rows: &[PlannedRow]) -> Vec<Entry> {
        rows.iter().map(|row| Entry::of(row, &[]).expect("it needs no video")).collect()
    }

    fn shared(cached: &[PlannedRow], wanted: &[PlannedRow]) -> usize {
        super::shared(&entries(cached), wanted, &[])
    }

    /// The start and the end of each run.
    fn lacked(cached: &[PlannedRow], wanted: &[PlannedRow]) -> Vec<(usize, usize)> {
        super::lacked(&entries(cached), wanted, &[]).into_iter().map(|run| (run.start, run.end)).collect()
    }

    #[test]
    fn a_longer_prompt_keeps_what_it_shares() {
        let cached = [text(1, 0), text(2, 1), text(3, 2)];
        assert_eq!(shared(&cached, &[text(1, 0), text(2, 1), text(3, 2), text(4, 3)]), 3);
        assert_eq!(shared(&cached, &[text(1, 0), text(9, 1), text(3, 2)]), 1);
        assert_eq!(shared(&[], &cached), 0);
    }

    #[test]
    fn the_same_prompt_computes_its_last_row_again() {
        let rows = [text(1, 0), text(2, 1)];
        assert_eq!(shared(&rows, &rows), 1);
    }

    #[test]
    fn rows_that_share_a_position_are_not_parted() {
        // M-RoPE: three visual tokens at position 1; the prompts differ from the third on.
        let cached = [text(1, 0), visual(0, 1), visual(1, 1), visual(2, 1), text(2, 3)];
        let wanted = [text(1, 0), visual(0, 1), visual(1, 1), text(7, 3), text(8, 4)];
        assert_eq!(shared(&cached, &wanted), 1);
    }

    #[test]
    fn a_row_of_another_video_is_another_row() {
        let row = PlannedRow { key: RowKey::Visual { video: 0, slice: 0, kept: 0 }, position: [0; 4] };
        let key = Key::Visual { video: crate::chat::encoded::VideoId::new(), slice: 0, kept: 0 };
        let entry = Entry { key, position: row.position, evicted: Evicted::No };
        assert!(!entry.is_row(&row, &[]) && entry.row(&[]).is_none() && Entry::of(&row, &[]).is_err());
    }

    #[test]
    fn an_image_that_is_not_wanted_any_more_is_a_run() {
        let cached = [text(1, 0), text(7, 1), visual(0, 2), visual(1, 4), text(7, 6), visual(2, 7), text(7, 9)];
        // Another image follows in place of text. The rows from there on do not match and are not a run.
        let wanted = [text(1, 0), text(7, 6), visual(2, 7), text(7, 9), visual(3, 10)];
        assert_eq!(lacked(&cached, &wanted), [(1, 4)]);
        let all = [text(1, 0), text(7, 9), visual(3, 10)];
        assert_eq!(lacked(&cached, &all), [(1, 6)]);
        assert!(lacked(&cached, &cached).is_empty());
        assert!(lacked(&cached, &[]).is_empty() && lacked(&[], &cached).is_empty());
    }

    #[test]
    fn two_images_that_are_apart_are_two_runs() {
        let cached = [text(1, 0), visual(0, 2), text(7, 6), visual(1, 7), text(7, 9), visual(2, 10)];
        let wanted = [text(1, 0), text(7, 6), text(7, 9), visual(2, 10), text(8, 12)];
        assert_eq!(lacked(&cached, &wanted), [(1, 2), (3, 4)]);
    }

    #[test]
    fn what_was_said_is_no_run() {
        let cached = [text(1, 0), visual(0, 2), text(3, 6), text(4, 7), text(5, 8)];
        let wanted = [text(1, 0), visual(0, 2), text(5, 8), visual(1, 9)];
        assert!(lacked(&cached, &wanted).is_empty());
        // Another token at the position of one.
        assert!(lacked(&cached, &[text(2, 0), visual(0, 2)]).is_empty());
    }

    #[test]
    fn an_image_that_shares_its_position_is_no_run() {
        // M-RoPE: two slices of a block at the same time, of which the first is evicted.
        let cached = [text(1, 0), visual(0, 1), visual(1, 1), visual(2, 1), text(7, 9)];
        let wanted = [text(1, 0), visual(2, 1), text(7, 9)];
        assert!(lacked(&cached, &wanted).is_empty());
        let later = [text(1, 0), visual(0, 1), visual(1, 1), visual(2, 2), text(7, 9)];
        assert_eq!(lacked(&later, &[text(1, 0), visual(2, 2), text(7, 9)]), [(1, 3)]);
    }
}
