//! Checkpoints of a cache: where a model that cannot remove its last rows can go back to.

use crate::chat::prompt::Plan;
use crate::chat::rows::{PlannedRow, RowKey};

/// After how many rows of `plan` to make a checkpoint, ascending: after the last row of each video, and after the last
/// row that the next turn's prompt will share.
pub(super) fn places(plan: &Plan) -> Vec<(usize, After)> {
    let rows = &plan.rows;
    let video = |row: &PlannedRow| match row.key {
        RowKey::Visual { video, .. } => Some(video),
        _ => None,
    };
    let of = |rows: &[PlannedRow]| rows.iter().find_map(video);
    // A video ends where the next visual row is another video's, or where none follows.
    let mut places: Vec<(usize, After)> = Vec::new();
    for (index, this) in rows.iter().enumerate().filter_map(|(index, row)| Some((index, video(row)?))) {
        if of(&rows[index + 1..]) != Some(this) {
            places.push((index + 1, After::Video));
        }
    }
    let next = plan.rows_for_next_turn.filter(|&next| next > 0 && places.iter().all(|(place, _)| *place != next));
    places.extend(next.map(|next| (next, After::Turn)));
    places.sort_unstable_by_key(|(place, _)| *place);
    // Rows are removed by position, so the next row must have a later one.
    places.retain(|(place, _)| rows.get(*place).is_none_or(|row| row.position[0] > rows[place - 1].position[0]));
    places
}

/// Why there is a checkpoint after a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::chat) enum After {
    /// It is the last row of a video: another question about the video goes on from there.
    Video,
    /// It is the last row that the next turn's prompt will share with this one.
    Turn,
}

/// A copy of the part of the cache that cannot be cut back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::chat) struct Checkpoint {
    /// How many rows were computed.
    pub rows: usize,
    pub after: After,
    /// See [`Context::checkpoint`](crate::runtime::Context::checkpoint).
    pub state: Vec<u8>,
}

/// The checkpoints of a cache, by their rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::chat) struct Checkpoints(Vec<Checkpoint>);

impl Checkpoints {
    /// All of them, by their rows.
    pub fn all(&self) -> &[Checkpoint] {
        &self.0
    }

    /// The bytes that they occupy together.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|checkpoint| checkpoint.state.len() as u64).sum()
    }

    /// The state after exactly `rows` rows.
    pub fn at(&self, rows: usize) -> Option<&[u8]> {
        self.0.iter().find(|checkpoint| checkpoint.rows == rows).map(|checkpoint| checkpoint.state.as_slice())
    }

    /// The last checkpoint among the first `rows` rows.
    pub fn last_before(&self, rows: usize) -> Option<&Checkpoint> {
        self.0.iter().rfind(|checkpoint| checkpoint.rows <= rows)
    }

    /// Adds a checkpoint, in place of one after the same row.
    pub fn add(&mut self, checkpoint: Checkpoint) {
        self.0.retain(|other| other.rows != checkpoint.rows);
        let at = self.0.partition_point(|other| other.rows < checkpoint.rows);
        self.0.insert(at, checkpoint);
    }

    /// Drops those after more than `rows` rows.
    pub fn truncate(&mut self, rows: usize) {
        self.0.retain(|checkpoint| checkpoint.rows <= rows);
    }

    /// Drops checkpoints until another one of `size` bytes leaves them within `budget` bytes: first those of turns, the
    /// oldest first, then those of videos, the oldest first. The last video's makes no room for a turn's. Returns false
    /// if there is no room even so.
    pub fn make_room(&mut self, size: u64, after: After, budget: u64) -> bool {
        while self.bytes() + size > budget {
            let oldest_turn = self.0.iter().position(|checkpoint| checkpoint.after == After::Turn);
            let least_videos = usize::from(after == After::Turn);
            match oldest_turn.or((self.0.len() > least_videos).then_some(0)) {
                Some(oldest) => drop(self.0.remove(oldest)),
                None => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoints(rows: &[(usize, After)]) -> Checkpoints {
        let mut all = Checkpoints::default();
        rows.iter().for_each(|&(rows, after)| all.add(Checkpoint { rows, after, state: vec![0; 10] }));
        all
    }

    fn rows(checkpoints: &Checkpoints) -> Vec<usize> {
        checkpoints.all().iter().map(|checkpoint| checkpoint.rows).collect()
    }

    #[test]
    fn turns_go_before_videos_and_the_oldest_first() {
        let mut all = checkpoints(&[(50, After::Video), (5, After::Video), (9, After::Turn), (60, After::Turn)]);
        assert_eq!(rows(&all), [5, 9, 50, 60]);
        let mut left = Vec::new();
        for budget in [50, 40, 30, 20] {
            assert!(all.make_room(10, After::Turn, budget));
            left.push(rows(&all));
        }
        assert_eq!(left, [vec![5, 9, 50, 60], vec![5, 50, 60], vec![5, 50], vec![50]]);
        assert!(!all.make_room(10, After::Turn, 10), "a turn takes no place of the last video");
        assert_eq!(rows(&all), [50]);
        assert!(all.make_room(10, After::Video, 10), "another video does");
        assert!(rows(&all).is_empty() && !all.make_room(11, After::Video, 10), "it never fits");
    }

    #[test]
    fn the_nearest_checkpoint_is_the_last_that_is_early_enough() {
        let mut all = checkpoints(&[(5, After::Video), (9, After::Turn)]);
        let nearest = |all: &Checkpoints, n| all.last_before(n).map(|checkpoint| checkpoint.rows);
        assert_eq!([4, 5, 8, 9, 100].map(|n| nearest(&all, n)), [None, Some(5), Some(5), Some(9), Some(9)]);
        assert!(all.at(9).is_some() && all.at(8).is_none());
        all.truncate(8);
        assert_eq!(rows(&all), [5]);
        all.add(Checkpoint { rows: 5, after: After::Turn, state: vec![1] });
        assert_eq!((rows(&all), all.bytes()), (vec![5], 1));
    }
}
