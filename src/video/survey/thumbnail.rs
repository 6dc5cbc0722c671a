//! Thumbnails that are compared with each other.

use crate::video::Frame;

/// Blocks in a row, and rows of blocks.
const GRID: (usize, usize) = (16, 12);

/// Blocks whose colors have a smaller squared distance than this count much less: they differ by light and shadow.
const WEAK: f64 = 0.1;

/// The means of an image's blocks, `[12 × 16 × 3]`, 0 to 1.
///
/// Noise hardly changes the mean of a block, but an object that moves into it does.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Thumbnail(Vec<f32>);

impl Thumbnail {
    pub fn of(frame: &Frame) -> Self {
        let (width, height) = (frame.width as usize, frame.height as usize);
        let mut sums = vec![0_u64; GRID.0 * GRID.1 * 3];
        let mut pixels = vec![0_u32; GRID.0 * GRID.1];
        for (y, row) in frame.rgb.chunks_exact((width * 3).max(1)).enumerate() {
            let line = y * GRID.1 / height.max(1) * GRID.0;
            for column in 0..GRID.0 {
                // In an image that is narrower than the grid, some blocks are empty.
                let (from, to) = ((column * width).div_ceil(GRID.0), ((column + 1) * width).div_ceil(GRID.0));
                let block = line + column;
                pixels[block] += (to - from) as u32;
                for pixel in row[from * 3..to * 3].chunks_exact(3) {
                    for (sum, &value) in sums[block * 3..block * 3 + 3].iter_mut().zip(pixel) {
                        *sum += u64::from(value);
                    }
                }
            }
        }
        let mean = |(i, &sum): (usize, &u64)| (sum as f64 / f64::from(pixels[i / 3].max(1)) / 255.0) as f32;
        Self(sums.iter().enumerate().map(mean).collect())
    }

    /// The mean of `self`, the mean of `n` images, and `other`, the mean of `m` images.
    pub fn mean(&self, n: f64, other: &Self, m: f64) -> Self {
        let (a, b) = ((n / (n + m)) as f32, (m / (n + m)) as f32);
        Self(self.0.iter().zip(&other.0).map(|(x, y)| a * x + b * y).collect())
    }

    /// The sum of `e²/(e + `[`WEAK`]`)` over the blocks, where `e` is the squared Euclidean distance between a block's
    /// two colors. For blocks that differ much, the summand is close to `e`.
    pub fn distance(&self, other: &Self) -> f64 {
        let square = |(a, b): (&[f32], &[f32])| a.iter().zip(b).map(|(x, y)| f64::from(x - y).powi(2)).sum::<f64>();
        self.0.chunks(3).zip(other.0.chunks(3)).map(square).map(|e| e * e / (e + WEAK)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(width: u32, height: u32, pixel: impl Fn(u32, u32) -> u8) -> Frame {
        let rgb = (0..width * height).flat_map(|i| [pixel(i % width, i / width); 3]).collect();
        Frame { width, height, rgb, time_s: 0.0 }
    }

    #[test]
    fn each_block_is_the_mean_of_its_pixels() {
        // Blocks of 4 × 5 pixels; the left half is white.
        let Thumbnail(means) = Thumbnail::of(&frame(64, 60, |x, _| if x < 34 { 255 } else { 0 }));
        assert_eq!(means.len(), 576);
        for row in means.chunks(48) {
            assert!(row[..24].iter().all(|&mean| (mean - 1.0).abs() < 1e-6));
            assert!(row[24..27].iter().all(|&mean| (mean - 0.5).abs() < 1e-6), "{row:?}");
            assert!(row[27..].iter().all(|&mean| mean == 0.0));
        }
    }

    #[test]
    fn images_of_any_size_have_one() {
        for (width, height) in [(1, 1), (7, 3), (17, 1000), (0, 0)] {
            let Thumbnail(means) = Thumbnail::of(&frame(width, height, |_, _| 255));
            assert!(means.iter().all(|mean| (0.0..=1.0).contains(mean)), "{width}×{height}");
            assert_eq!(means.contains(&1.0), width > 0);
        }
    }

    #[test]
    fn means_are_weighted() {
        let (white, black) = (Thumbnail::of(&frame(16, 12, |_, _| 255)), Thumbnail::of(&frame(16, 12, |_, _| 0)));
        assert!(white.mean(3.0, &black, 1.0).0.iter().all(|&value| (value - 0.75).abs() < 1e-6));
        assert!((white.distance(&black) - 192.0 * 9.0 / 3.1).abs() < 1e-6);
        assert_eq!(white.distance(&white), 0.0);
    }

    #[test]
    fn one_block_that_changes_counts_more_than_all_that_change_a_little() {
        let grey = |value| Thumbnail::of(&frame(16, 12, |_, _| value));
        let one = Thumbnail::of(&frame(16, 12, |x, y| if (x, y) == (3, 4) { 255 } else { 100 }));
        // In squared distance, 155² in one of 192 blocks equals about 11² in all of them.
        let (strong, weak) = (grey(100).distance(&one), grey(100).distance(&grey(111)));
        assert!(strong > 10.0 * weak, "{strong} {weak}");
    }
}
