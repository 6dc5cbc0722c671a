//! Validates our part of a saved state before our C++ reads it: eviction relies on these properties. The C++ that
//! writes and reads the part (`src/ffi/layered_kv_state.cpp`) checks the same things.
//!
//! ```text
//! version, layers of the model, cells, cells with a row, V transposed, evicted layers
//! for each evicted layer: its number
//! for each cell: a byte of flags: 1 visual, 2 measured, 4 has a row in the evicted layers
//!                the rank of its row in order of arrival, from 0, unique
//!                if it was measured, a float for each layer of the model
//! for each evicted layer, first of K and then of V: type, bytes of an element (64 bits), lines (64 bits)
//!                for each line an element for each cell with a row
//! ```
//!
//! Numbers have 32 bits unless stated otherwise.

use super::state::Rest;

/// `STATE_VERSION` of the C++.
const VERSION: u32 = 2;

const VISUAL: u8 = 1;
const MEASURED: u8 = 2;
const HAS_ROW: u8 = 4;

/// Returns how many cells our part describes, for a model with `n_layer` layers. `None` if its counts and lengths
/// contradict each other, or if a cell is impossible: one of text that was measured, or that some layers lack.
pub(super) fn n_cells(ours: &[u8], n_layer: u32) -> Option<usize> {
    let mut rest = Rest(ours);
    rest.is(VERSION)?;
    rest.is(n_layer)?;
    let (n_cells, n_rows) = (rest.u32()?, rest.u32()?);
    let transposed = rest.u32()?;
    let n_evicted = rest.u32()?;
    if transposed > 1 || n_rows > n_cells || n_evicted >= n_layer.max(1) || (n_evicted == 0 && n_rows > 0) {
        return None;
    }
    let mut evicted = Vec::new();
    for _ in 0..n_evicted {
        let layer = rest.u32()?;
        if layer >= n_layer || evicted.contains(&layer) {
            return None;
        }
        evicted.push(layer);
    }
    let mut left = n_rows;
    // The data bounds the allocation: each cell takes at least five bytes.
    let mut came = vec![false; (n_cells as usize).min(ours.len())];
    for _ in 0..n_cells {
        let flags = rest.u8()?;
        let [visual, measured, has_row] = [VISUAL, MEASURED, HAS_ROW].map(|flag| flags & flag > 0);
        let is_in_all = visual || has_row || n_evicted == 0;
        if flags > VISUAL | MEASURED | HAS_ROW || (measured && !visual) || !is_in_all {
            return None;
        }
        let order = usize::try_from(rest.u32()?).ok()?;
        if std::mem::replace(came.get_mut(order)?, true) {
            return None;
        }
        if measured {
            rest.skip(n_layer, 4)?;
        }
        if has_row {
            left = left.checked_sub(1)?;
        }
    }
    for _ in 0..2 * n_evicted {
        rest.u32()?;
        let (size, lines) = (rest.u64()?, rest.u64()?);
        rest.skip(n_rows, size.checked_mul(lines)?)?;
    }
    (left == 0 && rest.0.is_empty()).then_some(n_cells as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const N_LAYER: u32 = 3;

    /// A part with these flags of its cells and these evicted layers, and with rows of four bytes.
    fn part(cells: &[u8], evicted: &[u32]) -> Vec<u8> {
        let n_rows = cells.iter().filter(|&&flags| flags & HAS_ROW > 0).count() as u32;
        let numbers = [VERSION, N_LAYER, cells.len() as u32, n_rows, 0, evicted.len() as u32];
        let mut part: Vec<u8> = numbers.iter().chain(evicted).flat_map(|number| number.to_ne_bytes()).collect();
        for (order, &flags) in cells.iter().enumerate() {
            part.push(flags);
            part.extend((order as u32).to_ne_bytes());
            part.extend(vec![0; if flags & MEASURED > 0 { 4 * N_LAYER as usize } else { 0 }]);
        }
        for _ in 0..2 * evicted.len() {
            part.extend(
                [1_u32.to_ne_bytes().to_vec(), 4_u64.to_ne_bytes().to_vec(), 1_u64.to_ne_bytes().to_vec()].concat(),
            );
            part.extend(vec![0; 4 * n_rows as usize]);
        }
        part
    }

    #[test]
    fn text_is_in_all_layers() {
        for (cells, evicted) in [
            // Nothing evicted; visual tokens evicted; a later one kept; no cells at all.
            (&[0, 1, 3, 0][..], &[][..]),
            (&[4, 1, 3, 4], &[1]),
            (&[4, 3, 7, 5, 4], &[2, 0]),
            (&[], &[]),
        ] {
            assert_eq!(n_cells(&part(cells, evicted), N_LAYER), Some(cells.len()), "{cells:?} {evicted:?}");
        }
        for (cells, evicted) in [
            (&[4, 1, 0][..], &[1][..]),
            (&[0, 1, 4], &[1]),
            (&[6, 1], &[1]),
            (&[2, 1], &[]),
            (&[12, 1], &[1]),
            (&[4, 1], &[]),
            (&[4, 1], &[3]),
            (&[4, 1], &[1, 1]),
            (&[4, 1], &[0, 1, 2]),
        ] {
            assert_eq!(n_cells(&part(cells, evicted), N_LAYER), None, "{cells:?} {evicted:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_no_part() {
        let good = part(&[4, 3, 4], &[1]);
        for length in 0..good.len() {
            assert_eq!(n_cells(&good[..length], N_LAYER), None, "{length}");
        }
        assert_eq!(n_cells(&[&good[..], &[0]].concat(), N_LAYER), None);
        // The first two cells have the same rank.
        let order = 6 * 4 + 4 + 5 + 1;
        let mut part = good.clone();
        part[order] = 0;
        assert_eq!(n_cells(&part, N_LAYER), None);
        assert_eq!(n_cells(&good, N_LAYER + 1), None);
        for at in 0..6 {
            for value in [9, u32::MAX] {
                let mut part = good.clone();
                part[4 * at..4 * at + 4].copy_from_slice(&value.to_ne_bytes());
                assert_eq!(n_cells(&part, N_LAYER), None, "{value} at {at}");
            }
        }
    }
}
