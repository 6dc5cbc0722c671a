//! Norms and distances of embeddings.
//!
//! Sums within a row run in f32 over [`LANES`] independent accumulators, which the compiler vectorizes, and are joined
//! in f64. Dissimilarity is computed as the norm of a difference of unit vectors. The equal
//! `sqrt(2 − 2·cos)` cancels: for equal vectors it gives about 3e-4 in f32, and the norm gives exactly 0.

/// Accumulators of a sum: enough to fill two AVX-512 or eight SSE registers with independent additions.
const LANES: usize = 32;

/// Norms in this range can be inverted, and their square summed, in f32 without loss.
const NORM_RANGE: std::ops::RangeInclusive<f64> = 1e-30..=1e30;

/// Sums of squares in this range had no overflow, and little underflow, when they were computed in f32.
const F32_SQUARE_RANGE: std::ops::RangeInclusive<f64> = 1e-24..=1e36;

/// `1/‖x‖`: 0 for a row without a direction, `None` for a row that is not finite ([special cases](super)).
pub(crate) fn inverse_norm(row: &[f32]) -> Option<f32> {
    let mut square = sum_lanes(row, row, |a, _| a * a);
    if !F32_SQUARE_RANGE.contains(&square) {
        square = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    }
    let norm = square.sqrt();
    if NORM_RANGE.contains(&norm) {
        Some((1.0 / norm) as f32)
    } else {
        // Too short; otherwise too long, infinite or NaN.
        (norm < *NORM_RANGE.start()).then_some(0.0)
    }
}

/// `‖a·inv_a − b·inv_b‖`, with `inv` as in [`inverse_norm`].
pub(crate) fn dissim(a: &[f32], inv_a: f32, b: &[f32], inv_b: f32) -> f64 {
    match (inv_a == 0.0, inv_b == 0.0) {
        (true, true) => 0.0,
        (true, false) | (false, true) => 1.0,
        (false, false) => {
            let square = sum_lanes(a, b, |a, b| {
                let difference = a * inv_a - b * inv_b;
                difference * difference
            });
            square.sqrt().min(2.0)
        }
    }
}

/// `Σ_k term(a[k], b[k])` over rows of equal length. The order of the additions is fixed in the source, so that the
/// compiler can vectorize them without reordering.
#[inline(always)]
pub(crate) fn sum_lanes(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f64 {
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    let mut lanes = [0.0_f32; LANES];
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            lanes[lane] += term(a[lane], b[lane]);
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(&a, &b)| f64::from(term(a, b))).sum();
    lanes.iter().map(|&lane| f64::from(lane)).sum::<f64>() + rest
}
