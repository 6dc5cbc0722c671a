//! Panels: the tokens of a slice are shown on an image of the frame, or separately if they have no known positions in
//! it.

use crate::chat::{Area, Grid, SliceInspection};

/// The encoder's images that are shown together.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// Whether they are parts of the frame.
    pub on_frame: bool,
    /// Its images.
    pub parts: Vec<PanelPart>,
}

/// One image of the encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct PanelPart {
    /// The index of its first token in the slice.
    pub first: usize,
    /// The number of its tokens.
    pub n_tokens: usize,
    pub columns: usize,
    pub rows: usize,
    /// Its area in the frame; the whole panel if it is not part of the frame.
    pub area: Area,
}

/// The panels of a slice, the one with the most tokens on the frame first.
pub fn panels(slice: &SliceInspection) -> Vec<Panel> {
    let mut panels: Vec<Panel> = Vec::new();
    let mut first = 0;
    for grid in &slice.grids {
        let part = part(first, grid);
        first += grid.n_tokens;
        let is_free = |panel: &&mut Panel| panel.on_frame && panel.parts.iter().all(|p| !overlap(&p.area, &part.area));
        match panels.iter_mut().find(is_free).filter(|_| grid.area.is_some()) {
            Some(panel) => panel.parts.push(part),
            None => panels.push(Panel { on_frame: grid.area.is_some(), parts: vec![part] }),
        }
    }
    let n_tokens = |panel: &Panel| panel.parts.iter().map(|part| part.n_tokens).sum::<usize>();
    panels.sort_by_key(|panel| (!panel.on_frame, std::cmp::Reverse(n_tokens(panel))));
    panels
}

/// The area that shows all tokens: the frame, and borders if tokens reach beyond it.
pub fn canvas(slices: &[SliceInspection]) -> Area {
    let areas = slices.iter().flat_map(|slice| &slice.grids).filter_map(|grid| grid.area);
    areas.fold(Area::WHOLE, |all, area| Area {
        left: all.left.min(area.left),
        top: all.top.min(area.top),
        right: all.right.max(area.right),
        bottom: all.bottom.max(area.bottom),
    })
}

fn part(first: usize, grid: &Grid) -> PanelPart {
    let n_tokens = grid.n_tokens;
    // Without a known shape, tokens are in reading order.
    let columns = grid.shape.map_or_else(|| (n_tokens as f64).sqrt().ceil() as usize, |(columns, _)| columns).max(1);
    let area = grid.area.unwrap_or(Area::WHOLE);
    PanelPart { first, n_tokens, columns, rows: n_tokens.div_ceil(columns).max(1), area }
}

fn overlap(a: &Area, b: &Area) -> bool {
    // Neighbors share an edge, up to rounding.
    const EDGE: f64 = 1e-9;
    a.left + EDGE < b.right && b.left + EDGE < a.right && a.top + EDGE < b.bottom && b.top + EDGE < a.bottom
}

impl PanelPart {
    /// The token at a point of the frame, if it is in this part.
    pub fn token_at(&self, x: f64, y: f64) -> Option<usize> {
        let Area { left, top, right, bottom } = self.area;
        if !(left..right).contains(&x) || !(top..bottom).contains(&y) {
            return None;
        }
        let column = ((x - left) / (right - left) * self.columns as f64) as usize;
        let row = ((y - top) / (bottom - top) * self.rows as f64) as usize;
        let token = row.min(self.rows - 1) * self.columns + column.min(self.columns - 1);
        (token < self.n_tokens).then_some(self.first + token)
    }
}
