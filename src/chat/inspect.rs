//! What became of each part of a video, for looking at: where its tokens lie, what they scored, which are kept, and
//! what the encoder left out.
//!
//! It is noted while a video is encoded, if [`SessionParams::inspect`](super::SessionParams::inspect) asks for it, and
//! changes nothing of what is kept.

use super::conversation::Conversation;
use super::prompt::arrangement::Arrangement;
use super::session::Session;
use super::video::{EncodedSlice, EncodedVideo};
use crate::error::Result;
use crate::layout::Size;
use crate::prune::{PruneParams, RunningScores, SliceView};
use crate::runtime::{Chunk, Chunks, KvLayer, Model};
use crate::video::{Sampling, VideoInfo};
use serde::{Deserialize, Serialize};

/// A video of a conversation.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct VideoInspection {
    /// What was opened.
    pub info: VideoInfo,
    /// Which frames were taken: [`FrameSource`](crate::video::FrameSource) gives them again.
    pub sampling: Sampling,
    /// Its slices, in order.
    pub slices: Vec<SliceInspection>,
}

/// The visual tokens of a frame, or of a merged pair of frames.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SliceInspection {
    /// Where in the video its frames are, in seconds.
    pub times_s: Vec<f64>,
    /// The images that the encoder made of it. Their tokens follow each other.
    pub grids: Vec<Grid>,
    /// Its visual tokens.
    pub n_tokens: usize,
    /// Those that are kept, ascending.
    pub kept: Vec<u32>,
    /// The importance of each token to the method that chose; `None` where that gives tokens none.
    pub importance: Option<Vec<f32>>,
    /// SharpV's scores, whatever the method.
    pub scores: TokenScores,
    /// A scene begins with it, as SharpV sees it.
    pub opens_scene: bool,
    /// The share of its encoding that was computed, 0 to 1.
    pub computed: f32,
    /// What the encoder did of it, cell by cell; `None` where it always computes all.
    pub cells: Option<EncoderCells>,
}

/// SharpV's scores of the tokens of a slice: see [`prune`](crate::prune). NaN for tokens that are not finite.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TokenScores {
    /// How far each token is from the mean of the slice.
    pub spatial: Vec<f32>,
    /// How far it is from the same place of the slice before; empty in a first slice.
    pub temporal: Vec<f32>,
    /// Both together, by the weight that held when it was encoded.
    pub combined: Vec<f32>,
    /// The share of the slice that SharpV would keep by itself, 0 to 1.
    pub ratio: f64,
}

/// One of the images that the encoder makes of a frame: the frame itself, or a tile of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Grid {
    /// Its visual tokens.
    pub n_tokens: usize,
    /// Columns and rows of its tokens; `None` where a token stands for no place of the image.
    pub shape: Option<(usize, usize)>,
    /// Which part of the frame it shows; `None` where that is not known.
    pub area: Option<Area>,
}

/// A part of a frame, in widths and heights of it from its upper left corner. An image with borders reaches beyond it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Area {
    /// Where it begins.
    pub left: f64,
    /// Where it begins.
    pub top: f64,
    /// Where it ends.
    pub right: f64,
    /// Where it ends.
    pub bottom: f64,
}

/// What the encoder did of an image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct EncoderCells {
    /// Cells in a row.
    pub columns: usize,
    /// Rows of cells.
    pub rows: usize,
    /// What was done with each, row by row.
    pub work: Vec<CellWork>,
}

/// What the encoder did with a cell of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CellWork {
    /// It went through all layers.
    Computed,
    /// It stopped in the middle: its token would have been dropped.
    Stopped,
    /// It is what it was in the slice before: nothing had changed.
    Reused,
}

impl EncoderCells {
    /// The same cells in a slice that equals this one.
    pub(super) fn all_reused(&self) -> Self {
        Self { work: vec![CellWork::Reused; self.work.len()], ..*self }
    }
}

/// What is noted of a slice while it is encoded.
#[derive(Debug, Clone, Default)]
pub(super) struct Notes {
    pub grids: Vec<Grid>,
    pub scores: TokenScores,
    pub opens_scene: bool,
    pub importance: Option<Vec<f32>>,
}

/// Takes notes of the slices of a video, one after the other.
#[derive(Debug)]
pub(super) struct NoteTaker {
    scores: RunningScores,
}

impl NoteTaker {
    pub fn new(params: &PruneParams) -> Result<Self> {
        Ok(Self { scores: RunningScores::new(params)? })
    }

    /// Notes of the next slice; its grids are known already.
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

/// What has to be known of an encoder to tell where its tokens lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places<'a> {
    /// Its projector, as its file names it.
    pub projector: &'a str,
    /// Visual tokens have positions in space.
    pub mrope: bool,
    /// It has embeddings for line ends, as those do that choose among several shapes.
    pub has_newline: bool,
}

/// Projectors that give a square of tokens, row by row.
const SQUARES: [&str; 9] =
    ["mlp", "mlp_norm", "ldp", "ldpv2", "idefics3", "gemma3", "gemma3nv", "internvl", "janus_pro"];

/// Projectors whose images are squares, with borders around what is none.
const BORDERED: [&str; 6] = ["mlp", "mlp_norm", "ldp", "ldpv2", "gemma3", "gemma3nv"];

impl Places<'_> {
    /// The images of `chunks` that are used for a frame of `frame` pixels in `arrangement`.
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
        // The rows and columns of tiles, where the text between them names them.
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
                // Behind the tiles the whole.
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

    /// The part of a frame that an image of all of it shows.
    fn whole(&self, given: Size, frame: Size, n_images: usize) -> Option<Area> {
        // What is a square, or has sizes that the encoder takes as they are, is stretched by us and by no one else.
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

impl Area {
    /// All of a frame.
    pub const WHOLE: Self = Self { left: 0.0, top: 0.0, right: 1.0, bottom: 1.0 };
}

/// Row and column, from 1 on, of the tile that `text` announces: `<row_2_col_1>`.
fn tile_of(text: &str) -> Option<(usize, usize)> {
    let (_, rest) = text.rsplit_once("row_")?;
    let (row, rest) = rest.split_once("_col_")?;
    let column = rest.split_once(|c: char| !c.is_ascii_digit()).map_or(rest, |(digits, _)| digits);
    let number = |text: &str| text.parse().ok().filter(|&n| n > 0);
    Some((number(row)?, number(column)?))
}

fn inspection(video: &EncodedVideo) -> Option<VideoInspection> {
    let slice = |slice: &EncodedSlice| {
        let notes = slice.notes.as_deref()?.clone();
        Some(SliceInspection {
            times_s: slice.times_s.clone(),
            grids: notes.grids,
            n_tokens: slice.n_tokens,
            kept: slice.kept.clone(),
            importance: notes.importance,
            scores: notes.scores,
            opens_scene: notes.opens_scene,
            computed: slice.computed,
            cells: slice.cells.clone(),
        })
    };
    let slices = video.slices.iter().map(slice).collect::<Option<Vec<_>>>()?;
    Some(VideoInspection { info: video.info.clone(), sampling: video.sampling?, slices })
}

impl Conversation {
    fn inspections(&self) -> Vec<VideoInspection> {
        self.videos.iter().filter_map(|video| inspection(video)).collect()
    }
}

impl Session {
    /// What became of the videos of the conversation: those that were encoded in this session, if it was opened with
    /// [`inspect`](super::SessionParams::inspect).
    pub fn inspect(&self) -> Vec<VideoInspection> {
        self.conversation.inspections()
    }

    /// The KV cache layer by layer; empty if there is none, or if nothing can be evicted from it.
    pub fn kv_layers(&self) -> Vec<KvLayer> {
        self.kv.layers()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LLAVA: Places<'static> = Places { projector: "mlp", mrope: false, has_newline: false };

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
        let next = Places { has_newline: true, ..LLAVA };
        assert_eq!(next.whole((640, 360), (640, 360), 1), None, "it chooses a shape of its own");
        let unknown = Places { projector: "pixtral", ..LLAVA };
        assert_eq!(unknown.whole((640, 360), (640, 360), 1), None);
    }

    #[test]
    fn tokens_lie_on_a_grid_where_that_is_known() {
        assert_eq!(LLAVA.shape(49, &[]), Some((7, 7)));
        assert_eq!(LLAVA.shape(50, &[]), None);
        // The resampler's tokens stand for no place.
        assert_eq!(Places { projector: "resampler", ..LLAVA }.shape(64, &[]), None);
        let qwen = Places { projector: "qwen2vl_merger", mrope: true, has_newline: false };
        let positions: Vec<[i32; 4]> = (0..6).map(|i| [0, i / 3, i % 3, 0]).collect();
        assert_eq!(qwen.shape(6, &positions), Some((3, 2)));
        assert_eq!(qwen.shape(7, &positions), None);
    }
}
