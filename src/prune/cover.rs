//! Covers: a token of each scene for what importance leaves out.
//!
//! Importance is distance: from the mean of the slice, and from the previous slice. Most of an image, above all its
//! background, is close to both, so the tokens of highest importance do not show it. The token closest to the mean
//! does.

use super::score::{Rows, SliceScore, Spread};
use super::select::top;
use super::vector::{dissim, inverse_norm};

/// Fewest kept tokens of a slice of which one is the cover. A single token is better spent on what is important.
pub(super) const LEAST: usize = 2;

/// A slice's candidate for the cover of its scene.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Cover {
    /// The slice is the first of a scene.
    pub opens_scene: bool,
    /// The usable token closest to the mean of the slice: [`Spread::typical`].
    pub typical: Option<u32>,
}

/// Finds where scenes begin.
#[derive(Debug, Default)]
pub(super) struct Scenes {
    /// Mean of the first slice of the scene, and its inverse norm.
    opening: Option<(Vec<f32>, f32)>,
}

impl Scenes {
    /// Checks the next slice. A scene lasts as long as the mean of a slice is no farther from that of the scene's first
    /// slice than the slice's own tokens are from their mean: then the cover of the first one represents it, too.
    pub fn next(&mut self, rows: &Rows, slice: &SliceScore, spread: &Spread) -> Cover {
        let Some(rms) = spread.rms else {
            return Cover { opens_scene: false, typical: None };
        };
        let inv_mean = inverse_norm(rows.mean()).unwrap_or(0.0);
        let lasts = |(opening, inv): &(Vec<f32>, f32)| dissim(rows.mean(), inv_mean, opening, *inv) <= rms;
        let opens_scene = slice.first || !self.opening.as_ref().is_some_and(lasts);
        if opens_scene {
            self.opening = Some((rows.mean().to_vec(), inv_mean));
        }
        Cover { opens_scene, typical: spread.typical }
    }
}

/// [`top`] of each slice, but in the first slice of each scene that keeps enough tokens, the cover replaces the least
/// important of them.
pub(super) fn top_and_cover(slices: &[SliceScore], counts: &[usize], covers: &[Cover]) -> Vec<Vec<u32>> {
    let mut is_due = false;
    let choose = |((slice, &count), cover): ((&SliceScore, &usize), &Cover)| {
        is_due |= cover.opens_scene;
        match cover.typical.filter(|_| is_due && count >= LEAST) {
            Some(typical) => {
                is_due = false;
                top_with(slice, count, typical)
            }
            None => top(slice, count),
        }
    };
    slices.iter().zip(counts).zip(covers).map(choose).collect()
}

/// `token`, and the `k - 1` of highest importance among the others, ascending.
fn top_with(slice: &SliceScore, k: usize, token: u32) -> Vec<u32> {
    let kept = top(slice, k);
    if kept.binary_search(&token).is_ok() {
        return kept;
    }
    let mut kept = top(slice, k - 1);
    let place = kept.partition_point(|&other| other < token);
    kept.insert(place, token);
    kept
}
