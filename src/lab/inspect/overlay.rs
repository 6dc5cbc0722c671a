//! Frames with dimmed dropped cells.

use super::panels::{PanelPart, panels};
use crate::chat::SliceInspection;
use crate::video::Frame;

/// The color over dropped cells: a dark gray, so that they differ from kept cells of a dark image, too.
pub const VEIL: [u8; 3] = [40, 44, 52];
/// Its opacity, of 256.
const VEIL_SHARE: u32 = 200;
/// Its opacity, 0 to 1.
pub const VEIL_OPACITY: f64 = VEIL_SHARE as f64 / 256.0;

/// `frame` with the cells of dropped tokens dimmed; unchanged if the tokens have no known positions in it.
pub fn dimmed(mut frame: Frame, slice: &SliceInspection) -> Frame {
    let panels = panels(slice);
    let Some(panel) = panels.first().filter(|panel| panel.on_frame) else { return frame };
    let mut is_kept = vec![false; slice.n_tokens];
    slice.kept.iter().for_each(|&token| {
        if let Some(kept) = is_kept.get_mut(token as usize) {
            *kept = true;
        }
    });
    let (width, height) = (f64::from(frame.width), f64::from(frame.height));
    let row_bytes = frame.width as usize * 3;
    for (y, row) in frame.rgb.chunks_exact_mut(row_bytes.max(1)).enumerate() {
        let y = (y as f64 + 0.5) / height;
        for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
            let x = (x as f64 + 0.5) / width;
            let at = |part: &PanelPart| part.token_at(x, y);
            if let Some(token) = panel.parts.iter().find_map(at)
                && !is_kept.get(token).copied().unwrap_or(false)
            {
                pixel.iter_mut().zip(VEIL).for_each(|(value, veil)| *value = veiled(*value, veil));
            }
        }
    }
    frame
}

fn veiled(value: u8, veil: u8) -> u8 {
    ((u32::from(value) * (256 - VEIL_SHARE) + u32::from(veil) * VEIL_SHARE) / 256) as u8
}
