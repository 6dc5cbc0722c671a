//! Finds the cells of an image that changed.

/// The images of one slice, divided into cells of `merge × merge` patches.
#[derive(Debug, Clone, Copy)]
pub struct ImageView<'a> {
    /// One image for each frame, `[height × width × 3]`, normalized as the encoder needs them.
    pub images: &'a [&'a [f32]],
    /// Width in pixels.
    pub width: usize,
    /// For each channel, the factor that converts a difference to the range 0 to 1 of pixel values.
    pub scale: [f32; 3],
    /// The side of a patch in pixels.
    pub patch: usize,
    /// The side of a cell in patches.
    pub merge: usize,
    /// Cells in a row.
    pub cells_x: usize,
    /// Rows of cells.
    pub cells_y: usize,
}

/// The means of an image's blocks. Each patch has two by two blocks, for each channel and frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Blocks {
    /// `[cells × patches × values]`, scaled to the range 0 to 1 up to a constant, which cancels out in differences.
    means: Vec<f32>,
    /// Values of a patch.
    of_patch: usize,
    /// Values of a cell.
    of_cell: usize,
}

/// The side of a patch in blocks.
const SIDE: usize = 2;

impl Blocks {
    /// Computes the means of an image's blocks.
    pub fn of(image: &ImageView<'_>) -> Self {
        let ImageView { images, width, scale, patch, merge, cells_x, cells_y } = *image;
        let of_patch = images.len() * SIDE * SIDE * 3;
        let of_cell = of_patch * merge * merge;
        let mut means = Vec::with_capacity(of_cell * cells_x * cells_y);
        // A patch with an odd side has blocks of two sizes.
        let borders = [0, patch / SIDE, patch];
        for cell in 0..cells_x * cells_y {
            for part in 0..merge * merge {
                let left = (cell % cells_x * merge + part % merge) * patch;
                let top = (cell / cells_x * merge + part / merge) * patch;
                for image in images {
                    for block in 0..SIDE * SIDE {
                        let (x0, x1) = (left + borders[block % SIDE], left + borders[block % SIDE + 1]);
                        let (y0, y1) = (top + borders[block / SIDE], top + borders[block / SIDE + 1]);
                        let mut sum = [0.0_f32; 3];
                        for y in y0..y1 {
                            for pixel in image[(y * width + x0) * 3..(y * width + x1) * 3].chunks_exact(3) {
                                for (sum, value) in sum.iter_mut().zip(pixel) {
                                    *sum += value;
                                }
                            }
                        }
                        let n = ((x1 - x0) * (y1 - y0)).max(1) as f32;
                        means.extend(sum.iter().zip(&scale).map(|(sum, scale)| sum / n * scale));
                    }
                }
            }
        }
        Self { means, of_patch, of_cell }
    }

    /// The number of cells.
    pub fn n_cells(&self) -> usize {
        self.means.len() / self.of_cell.max(1)
    }

    /// The indices, ascending, of the changed cells. A cell has changed if, in one of its patches, the mean absolute
    /// difference from `before` over blocks and channels exceeds `threshold`. Returns all cells if `before` is from an
    /// image of another size.
    pub fn changed_from(&self, before: &Self, threshold: f32) -> Vec<u32> {
        let all = 0..self.n_cells() as u32;
        if (self.of_patch, self.of_cell, self.means.len()) != (before.of_patch, before.of_cell, before.means.len()) {
            return all.collect();
        }
        let differs = |cell: &u32| {
            let at = *cell as usize * self.of_cell..(*cell as usize + 1) * self.of_cell;
            let patches = self.means[at.clone()].chunks_exact(self.of_patch);
            patches.zip(before.means[at].chunks_exact(self.of_patch)).any(|(now, then)| {
                let sum: f32 = now.iter().zip(then).map(|(a, b)| (a - b).abs()).sum();
                let mean = sum / self.of_patch as f32;
                mean > threshold || mean.is_nan()
            })
        };
        all.filter(differs).collect()
    }

    /// Copies `cells` from `other`, an image of the same size, after they were encoded.
    pub fn take(&mut self, other: &Self, cells: &[u32]) {
        if self.means.len() != other.means.len() {
            self.clone_from(other);
            return;
        }
        for &cell in cells {
            let at = cell as usize * self.of_cell..(cell as usize + 1) * self.of_cell;
            self.means[at.clone()].copy_from_slice(&other.means[at]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A grey image of 12 × 8 pixels: 3 × 2 cells, each one patch of 4 × 4 pixels.
    fn blocks(pixels: impl Fn(usize, usize) -> f32) -> Blocks {
        let image: Vec<f32> = (0..12 * 8).flat_map(|i| [pixels(i % 12, i / 12); 3]).collect();
        let images = [image.as_slice()];
        let image =
            ImageView { images: &images, width: 12, scale: [0.5; 3], patch: 4, merge: 1, cells_x: 3, cells_y: 2 };
        Blocks::of(&image)
    }

    #[test]
    fn what_did_not_change_is_not_told() {
        let (one, two) = (blocks(|x, y| (x * y) as f32), blocks(|x, y| (x * y) as f32));
        assert_eq!(one.n_cells(), 6);
        assert!(two.changed_from(&one, 0.0).is_empty());
    }

    #[test]
    fn a_change_is_told_where_it_is() {
        let still = blocks(|_, _| 0.0);
        // One pixel changes in the top left block of cell 5. A cell has four blocks of four pixels.
        let moved = blocks(|x, y| if (x, y) == (8, 4) { 1.6 } else { 0.0 });
        let difference = 1.6 * 0.5 / 4.0 / 4.0;
        assert_eq!(moved.changed_from(&still, difference - 1e-6), [5]);
        assert!(moved.changed_from(&still, difference + 1e-6).is_empty());
    }

    #[test]
    fn noise_cancels_out_and_motion_does_not() {
        let still = blocks(|_, _| 0.0);
        let noise = blocks(|x, y| if (x + y) % 2 == 0 { 0.1 } else { -0.1 });
        let shifted = blocks(|x, _| if x % 4 < 2 { 0.1 } else { 0.0 });
        assert!(noise.changed_from(&still, 0.001).is_empty());
        assert_eq!(shifted.changed_from(&still, 0.001).len(), 6);
    }

    #[test]
    fn cells_are_compared_with_what_was_encoded_last() {
        let mut last = blocks(|_, _| 0.0);
        let drifted = blocks(|_, _| 0.02);
        last.take(&drifted, &[1, 2]);
        assert_eq!(drifted.changed_from(&last, 0.0), [0, 3, 4, 5]);
    }

    #[test]
    fn another_size_and_no_numbers_have_changed() {
        let mut small = blocks(|_, _| 0.0);
        let image = vec![0.0; 16 * 8 * 3];
        let images = [image.as_slice()];
        let other = Blocks::of(&ImageView {
            images: &images,
            width: 16,
            scale: [1.0; 3],
            patch: 4,
            merge: 2,
            cells_x: 2,
            cells_y: 1,
        });
        assert_eq!(other.changed_from(&small, 1.0), [0, 1]);
        assert_eq!(blocks(|_, _| f32::NAN).changed_from(&small, 1.0).len(), 6);
        small.take(&other, &[]);
        assert_eq!(small, other);
    }
}
