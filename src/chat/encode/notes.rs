//! Takes [`Notes`] on the slices of a video while they are encoded.

use crate::chat::encoded::arrangement::Arrangement;
use crate::chat::encoded::notes::{Area, Grid, Notes, TokenScores};
use crate::error::Result;
use crate::layout::Size;
use crate::prune::{PruneParams, RunningScores, SliceView};
use crate::runtime::{Chunk, Chunks, Model};

/// Takes notes on the slices of a video, one after the other.
#[derive(Debug)]
pub(in crate::chat) struct NoteTaker {
    scores: RunningScores,
}

impl NoteTaker {
    pub fn new(params: &PruneParams) -> Result<Self> {
        Ok(Self { scores: RunningScores::new(params)? })
    }

    /// Takes notes on the next slice, whose images form `grids`.
    pub fn note(&mut self, slice: SliceView<'_>, grids: Vec<Grid>) -> Notes {
        let scores = self.scores.push(slice);
        let numbers = |values: &[Option<f64>]| values.iter().map(|v| v.map_or(f32::NAN, |v| v as f32)).collect();
        Notes {
            grids,
            scores: TokenScores {
                spatial: numbers(scores.spatial),
                temporal: numbers(scores.temporal),
                combined: scores.importance.to_vec(),
                ratio: scores.ratio,
            },
            opens_scene: scores.opens_scene,
            importance: None,
        }
    }
}

/// The properties of an encoder that decide how the tokens of an image form a grid.
#[derive(Debug, Clone, Copy)]
pub(in crate::chat) struct GridRules<'a> {
    /// The name of the projector in the encoder's file.
    pub projector: &'a str,
    /// Whether visual tokens have positions in space (M-RoPE).
    pub mrope: bool,
    /// Whether the encoder has an embedding for the end of a line. Such encoders choose among several image shapes.
    pub has_newline: bool,
}

/// Projectors that return a square of tokens, row by row.
const SQUARES: [&str; 9] =
    ["mlp", "mlp_norm", "ldp", "ldpv2", "idefics3", "gemma3", "gemma3nv", "internvl", "janus_pro"];

/// Projectors that pad an image to a square with borders.
const BORDERED: [&str; 6] = ["mlp", "mlp_norm", "ldp", "ldpv2", "gemma3", "gemma3nv"];

impl GridRules<'_> {
    /// The grids of the images in `chunks` that `arrangement` uses, for a frame of the size `frame`.
    pub fn grids(&self, chunks: &Chunks, arrangement: &Arrangement, frame: Size, model: &Model) -> Vec<Grid> {
        let mut images = Vec::new();
        let mut before = Vec::new();
        for chunk in chunks.iter() {
            match chunk {
                Chunk::Text(tokens) => before.extend_from_slice(tokens),
                Chunk::Image(image) => {
                    let text: Vec<u8> = before.drain(..).flat_map(|token| model.token_bytes(token, true)).collect();
                    let positions = if self.mrope { image.positions(0, true) } else { Vec::new() };
                    images.push((image.n_tokens(), positions, tile_of(&String::from_utf8_lossy(&text))));
                }
            }
        }
        let n_images = images.len();
        // The number of rows and columns of tiles, if the text before each tile names them.
        let tiles = images.iter().filter_map(|image| image.2);
        let (rows, columns) = tiles.fold((0, 0), |(rows, columns), (row, column)| (rows.max(row), columns.max(column)));
        let is_mosaic = rows * columns > 0 && n_images == rows * columns + 1;
        let used = arrangement.used(images);
        let n_used = used.len();
        let grid = |(n_tokens, positions, tile): (usize, Vec<[i32; 4]>, Option<(usize, usize)>)| {
            let n_tokens = arrangement.tokens_left(n_tokens);
            let area = match tile {
                Some((row, column)) if is_mosaic => Some(Area {
                    left: (column - 1) as f64 / columns as f64,
                    top: (row - 1) as f64 / rows as f64,
                    right: column as f64 / columns as f64,
                    bottom: row as f64 / rows as f64,
                }),
                // The image of the whole frame comes after the tiles.
                None if is_mosaic => Some(Area::WHOLE),
                _ if n_used == 1 => self.whole(arrangement.image_size, frame, n_images),
                _ => None,
            };
            let shape = self.shape(n_tokens, &positions);
            Grid { n_tokens, shape, area: area.filter(|_| shape.is_some()) }
        };
        used.into_iter().map(grid).collect()
    }

    fn shape(&self, n_tokens: usize, positions: &[[i32; 4]]) -> Option<(usize, usize)> {
        if self.mrope {
            let largest = |axis: usize| positions.iter().map(|position| position[axis]).max();
            let (rows, columns) = (largest(1)? as usize + 1, largest(2)? as usize + 1);
            return (rows * columns == n_tokens).then_some((columns, rows));
        }
        let side = n_tokens.isqrt();
        (SQUARES.contains(&self.projector) && side > 0 && side * side == n_tokens).then_some((side, side))
    }

    /// The part of a frame that the image of the whole frame shows; with borders, that is more than the frame.
    fn whole(&self, given: Size, frame: Size, n_images: usize) -> Option<Area> {
        // sharpv resizes to a square, or to a size that the encoder accepts as it is. Then the encoder adds no borders.
        if given.0 == given.1 || self.mrope || self.projector == "idefics3" {
            return Some(Area::WHOLE);
        }
        if !BORDERED.contains(&self.projector) || self.has_newline || n_images > 1 {
            return None;
        }
        let (width, height) = (f64::from(frame.0), f64::from(frame.1));
        let side = width.max(height);
        let (x, y) = ((side - width) / 2.0 / width, (side - height) / 2.0 / height);
        Some(Area { left: -x, top: -y, right: 1.0 + x, bottom: 1.0 + y })
    }
}

/// Row and column, counted from 1, of the tile that follows `text`, for example `<row_2_col_1>`.
fn tile_of(text: &str) -> Option<(usize, usize)> {
    let (_, rest) = text.rsplit_once("row_")?;
    let (row, rest) = rest.split_once("_col_")?;
    let column = rest.split_once(|c: char| !c.is_ascii_digit()).map_or(rest, |(digits, _)| digits);
    let number = |text: &str| text.parse().ok().filter(|&n| n > 0);
    Some((number(row)?, number(column)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LLAVA: GridRules<'static> = GridRules { projector: "mlp", mrope: false, has_newline: false };

    #[test]
    fn tiles_are_named_by_row_and_column() {
        assert_eq!(tile_of("\n<fake_token_around_image><row_2_col_13>"), Some((2, 13)));
        assert_eq!(tile_of("<|img_row_1_col_2|>"), Some((1, 2)));
        for text in ["", "<global-img>", "<row_0_col_1>", "<row_1>", "row_x_col_1"] {
            assert_eq!(tile_of(text), None, "{text}");
        }
    }

    #[test]
    fn an_image_with_borders_reaches_beyond_its_frame() {
        let area = LLAVA.whole((640, 360), (640, 360), 1).expect("it is known");
        assert_eq!((area.left, area.right), (0.0, 1.0));
        // 140 of 360 rows above and below.
        assert!((area.top + 140.0 / 360.0).abs() < 1e-12 && (area.bottom - 500.0 / 360.0).abs() < 1e-12, "{area:?}");
        assert_eq!(LLAVA.whole((384, 384), (640, 360), 1), Some(Area::WHOLE));
        let next = GridRules { has_newline: true, ..LLAVA };
        assert_eq!(next.whole((640, 360), (640, 360), 1), None, "it chooses a shape of its own");
        let unknown = GridRules { projector: "pixtral", ..LLAVA };
        assert_eq!(unknown.whole((640, 360), (640, 360), 1), None);
    }

    #[test]
    fn tokens_lie_on_a_grid_where_that_is_known() {
        assert_eq!(LLAVA.shape(49, &[]), Some((7, 7)));
        assert_eq!(LLAVA.shape(50, &[]), None);
        // The resampler's tokens form no grid.
        assert_eq!(GridRules { projector: "resampler", ..LLAVA }.shape(64, &[]), None);
        let qwen = GridRules { projector: "qwen2vl_merger", mrope: true, has_newline: false };
        let positions: Vec<[i32; 4]> = (0..6).map(|i| [0, i / 3, i % 3, 0]).collect();
        assert_eq!(qwen.shape(6, &positions), Some((3, 2)));
        assert_eq!(qwen.shape(7, &positions), None);
    }
}
