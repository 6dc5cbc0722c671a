//! Pooling visual tokens two by two after the projector, as LLaVA-OneVision does with the frames of videos.

/// The number of tokens after pooling the `n` tokens of a square image; `n` itself if they do not form a square.
pub fn pooled_len(n: usize) -> usize {
    side(n).map_or(n, |side| side.div_ceil(2).pow(2))
}

/// Pools the tokens of a square image, `[side × side × n_embd]`, into `[⌈side/2⌉ × ⌈side/2⌉ × n_embd]`. Each pooled
/// token is interpolated bilinearly from the tokens around its center, as PyTorch's `interpolate` does without
/// `align_corners`. Returns `rows` unchanged if the tokens do not form a square.
pub fn pool(rows: &[f32], n_embd: usize) -> Vec<f32> {
    let Some(side) = rows.len().checked_div(n_embd).and_then(side) else { return rows.to_vec() };
    let pooled = side.div_ceil(2);
    let between = |i: usize| between(side, i);
    let mut result = Vec::with_capacity(pooled * pooled * n_embd);
    for (top, bottom, down) in (0..pooled).map(between) {
        for (left, right, across) in (0..pooled).map(between) {
            let row = |y: usize, x: usize| &rows[(y * side + x) * n_embd..][..n_embd];
            let corners = [row(top, left), row(top, right), row(bottom, left), row(bottom, right)];
            result.extend((0..n_embd).map(|i| {
                let [top_left, top_right, bottom_left, bottom_right] = corners.map(|row| row[i]);
                let top = top_left + (top_right - top_left) * across;
                let bottom = bottom_left + (bottom_right - bottom_left) * across;
                top + (bottom - top) * down
            }));
        }
    }
    result
}

/// The tokens that [`pool`] interpolates the token `pooled` from, in an image of `n` tokens. Ascending.
pub fn pooled_from(n: usize, pooled: usize) -> Vec<usize> {
    let Some(side) = side(n) else { return vec![pooled] };
    let width = side.div_ceil(2);
    let ((top, bottom, down), (left, right, across)) = (between(side, pooled / width), between(side, pooled % width));
    let pair = |first: usize, second: usize, part: f32| if part > 0.0 { vec![first, second] } else { vec![first] };
    let rows = pair(top, bottom, down);
    let mut tokens: Vec<usize> =
        rows.into_iter().flat_map(|y| pair(left, right, across).into_iter().map(move |x| y * side + x)).collect();
    tokens.dedup();
    tokens
}

/// The two of `side` values that the center of the pooled value `i` lies between, and the weight of the second.
fn between(side: usize, i: usize) -> (usize, usize, f32) {
    let scale = side as f32 / side.div_ceil(2) as f32;
    let at = ((i as f32 + 0.5) * scale - 0.5).max(0.0);
    let first = (at as usize).min(side - 1);
    (first, (first + 1).min(side - 1), at - first as f32)
}

fn side(n: usize) -> Option<usize> {
    let side = n.isqrt();
    (n > 0 && side * side == n).then_some(side)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_even_side_gives_the_means_of_four() {
        let rows: Vec<f32> = (0..16).map(|i| i as f32).collect();
        assert_eq!(pool(&rows, 1), [2.5, 4.5, 10.5, 12.5]);
        assert_eq!(pooled_len(16), 4);
    }

    #[test]
    fn an_odd_side_is_rounded_up() {
        assert_eq!(pooled_len(729), 196);
        // Sampled at 0.25 and 1.75: 3·y + x.
        let rows: Vec<f32> = (0..9).map(|i| i as f32).collect();
        assert_eq!(pool(&rows, 1), [1.0, 2.5, 5.5, 7.0]);
    }

    #[test]
    fn values_stay_in_their_columns() {
        let rows: Vec<f32> = (0..4).flat_map(|i| [i as f32, -1.0]).collect();
        assert_eq!(pool(&rows, 2), [1.5, -1.0]);
    }

    #[test]
    fn each_token_is_told_what_it_is_mixed_of() {
        for side in [2, 3, 4, 7, 27] {
            let n = side * side;
            for pooled in 0..pooled_len(n) {
                let sources = pooled_from(n, pooled);
                let has_part = |token: usize| {
                    let rows: Vec<f32> = (0..n).map(|i| if i == token { 1.0 } else { 0.0 }).collect();
                    pool(&rows, 1)[pooled] > 0.0
                };
                assert_eq!(sources, (0..n).filter(|&token| has_part(token)).collect::<Vec<_>>(), "{side} {pooled}");
            }
        }
        assert_eq!(pooled_from(6, 4), [4]);
    }

    #[test]
    fn no_square_no_pooling() {
        assert_eq!(pooled_len(6), 6);
        assert_eq!(pool(&[1.0, 2.0, 3.0], 1), [1.0, 2.0, 3.0]);
        assert!(pool(&[], 4).is_empty());
    }
}
