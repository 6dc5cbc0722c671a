//! Chooses the cells of each image that have to be computed.

use super::{Blocks, Reuse};

/// The pixels that were last encoded at each place of a video's images.
#[derive(Debug, Clone)]
pub struct Changes {
    params: Reuse,
    seen: Option<Blocks>,
    /// Changed images since the last one that was computed whole.
    since_whole: usize,
}

impl Changes {
    /// The state before the first image.
    pub fn new(params: Reuse) -> Self {
        Self { params, seen: None, since_whole: 0 }
    }

    /// The indices, ascending, of the cells of the next image that have to be computed; empty if nothing changed. From
    /// now on these cells count as encoded.
    pub fn next(&mut self, blocks: Blocks) -> Vec<u32> {
        let n_cells = blocks.n_cells();
        let changed = match &self.seen {
            Some(seen) => blocks.changed_from(seen, self.params.threshold),
            None => (0..n_cells as u32).collect(),
        };
        if changed.is_empty() {
            return changed;
        }
        self.since_whole += 1;
        let is_cut = changed.len() as f32 > self.params.whole * n_cells as f32;
        match &mut self.seen {
            Some(seen) if !is_cut && self.since_whole < self.params.refresh => {
                seen.take(&blocks, &changed);
                changed
            }
            seen => {
                *seen = Some(blocks);
                self.since_whole = 0;
                (0..n_cells as u32).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ImageView;
    use super::*;

    /// A row of eight cells. Those in `bright` are white, the others black.
    fn blocks(bright: &[usize]) -> Blocks {
        let image: Vec<f32> =
            (0..2 * 16).flat_map(|i| [if bright.contains(&(i % 16 / 2)) { 1.0 } else { 0.0 }; 3]).collect();
        let images = [image.as_slice()];
        let image =
            ImageView { images: &images, width: 16, scale: [1.0; 3], patch: 2, merge: 1, cells_x: 8, cells_y: 1 };
        Blocks::of(&image)
    }

    const ALL: [u32; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

    #[test]
    fn only_what_changed_is_computed_but_for_cuts() {
        let mut changes = Changes::new(Reuse { whole: 0.5, ..Reuse::default() });
        assert_eq!(changes.next(blocks(&[])), ALL, "the first image");
        assert!(changes.next(blocks(&[])).is_empty());
        assert_eq!(changes.next(blocks(&[3])), [3]);
        assert_eq!(changes.next(blocks(&[4])), [3, 4]);
        assert_eq!(changes.next(blocks(&[0, 1, 2, 3])), ALL, "more than half: a cut");
        assert_eq!(changes.next(blocks(&[0, 1, 2])), [3]);
    }

    #[test]
    fn now_and_then_all_is_computed() {
        let mut changes = Changes::new(Reuse { refresh: 3, ..Reuse::default() });
        let counts: Vec<usize> = (0..9)
            .map(|i| {
                // The third image is unchanged and does not count.
                let bright = if i == 2 { 1 } else { i % 8 };
                changes.next(blocks(&[bright])).len()
            })
            .collect();
        assert_eq!(counts, [8, 2, 0, 2, 8, 2, 2, 8, 2]);
        let mut each = Changes::new(Reuse { refresh: 1, ..Reuse::default() });
        assert_eq!([0, 1, 2].map(|i| each.next(blocks(&[i])).len()), [8, 8, 8]);
    }
}
