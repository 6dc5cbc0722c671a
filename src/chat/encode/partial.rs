//! Encodes slices one after the other, and computes only what is needed of each.

use crate::chat::encoded::notes::{CellWork, EncoderCells};
use crate::error::{Error, Result};
use crate::layout::SliceCount;
use crate::layout::{pool, pooled_from, pooled_len};
use crate::prune::{PruneParams, RunningScores, SliceView};
use crate::runtime::{CellState, Image, ImageChunk, Vision, VisionStream};
use crate::skip::{Blocks, Changes, Demand, EncodeMode, EncodeParams, ImageView, Stop, candidates};
use std::path::{Path, PathBuf};

/// If more than this share of the changed cells would pass all layers, all of them do.
const NEARLY_ALL: f32 = 0.8;

/// The embeddings of a slice.
#[derive(Debug, Clone, Default)]
pub(super) struct EncodedImage {
    /// The embeddings of all tokens that the encoder returns, `[n_tokens × n_embd_inp]`.
    pub rows: Vec<f32>,
    /// The indices, ascending and counted after pooling, of visual tokens that did not pass all layers.
    pub unfinished: Vec<u32>,
    /// The share of the encoder's work that was done, in patches times layers, 0 to 1.
    pub computed: f32,
    /// What was done with each cell.
    pub cells: EncoderCells,
}

/// Encodes the slices of one video, and reuses work from one slice to the next.
#[derive(Debug)]
pub(super) struct PartialEncoder {
    /// The video's file.
    path: PathBuf,
    params: EncodeParams,
    stream: VisionStream,
    changes: Option<Changes>,
    stopping: Option<Stopping>,
    /// The previous slice.
    last: Option<EncodedImage>,
    /// Whether all cells were computed in the latest slice in which any was.
    was_whole: bool,
}

/// The state that decides which cells stop at the middle layers.
#[derive(Debug)]
struct Stopping {
    params: Stop,
    pools: bool,
    scores: RunningScores,
    demand: Demand,
    /// The state of each cell at the middle layers, as the mean of its patches: `[cells × n_embd]`.
    middle: Vec<f32>,
    /// For each cell, whether it passed all layers since it last changed.
    finished: Vec<bool>,
}

/// What the slices of a video are encoded for: the pruning that follows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Purpose<'a> {
    /// How tokens are pruned.
    pub prune: &'a PruneParams,
    /// Whether the embeddings of all tokens are kept, to prune them again.
    pub keeps_all: bool,
    /// Whether visual tokens are pooled two by two.
    pub pools: bool,
    /// The number of slices of the video.
    pub n_slices: SliceCount,
    /// The video's file.
    pub path: &'a Path,
}

impl PartialEncoder {
    /// An encoder for one video; `None` if all of each image has to be computed.
    pub fn new(params: &EncodeParams, purpose: Purpose<'_>) -> Result<Option<Self>> {
        let params = &params.of(purpose.prune.method);
        // Tokens may stop only if they are pruned, and only SharpV decides that before the last layer.
        let keeps_all = purpose.keeps_all && params.mode == EncodeMode::Auto;
        let stop = params.stop().filter(|_| purpose.prune.method.is_causal() && !keeps_all);
        if params.reuse().is_none() && stop.is_none() {
            return Ok(None);
        }
        let stopping = match stop {
            Some(&params) => Some(Stopping {
                params,
                pools: purpose.pools,
                scores: RunningScores::new(purpose.prune)?,
                demand: Demand::new(purpose.prune, purpose.n_slices.0),
                middle: Vec::new(),
                finished: Vec::new(),
            }),
            None => None,
        };
        let changes = params.reuse().map(|&reuse| Changes::new(reuse));
        Ok(Some(Self {
            params: *params,
            path: purpose.path.to_owned(),
            stream: VisionStream::new()?,
            changes,
            stopping,
            last: None,
            was_whole: false,
        }))
    }

    /// Encodes the next slice. `None` if the encoder can only compute whole images, and the mode is
    /// [`EncodeMode::Auto`].
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if the encoder can only compute whole images, and the user requested another mode.
    pub fn encode(&mut self, vision: &mut Vision, chunk: &ImageChunk<'_>) -> Result<Option<EncodedImage>> {
        let Some(image) = self.stream.look(vision, chunk)? else {
            return match self.params.mode {
                EncodeMode::Auto => Ok(None),
                mode => Err(Error::InvalidParameter {
                    name: "how to encode",
                    value: mode.to_string(),
                    expected: format!(
                        "exact: this model's encoder cannot compute parts of the images of {}",
                        self.path.display()
                    ),
                }),
            };
        };
        let cells = match &mut self.changes {
            Some(changes) => changes.next(blocks(&image)),
            None => (0..image.n_cells() as u32).collect(),
        };
        if let Some(last) = self.last.as_ref().filter(|_| cells.is_empty()) {
            let cells = last.cells.all_reused();
            return Ok(Some(EncodedImage { computed: 0.0, cells, ..last.clone() }));
        }
        let is_whole = cells.len() == image.n_cells();
        // While the camera stands still, later images reuse the first image of a scene, so that one is computed to the
        // end. If one whole image follows another, the camera moves, and this is not worth it.
        let opens_scene = self.changes.is_some() && is_whole && !self.was_whole;
        self.was_whole = is_whole;
        let encoded = self.compute(vision, chunk, &image, &cells, opens_scene)?;
        self.last = Some(encoded.clone());
        Ok(Some(encoded))
    }

    fn compute(
        &mut self,
        vision: &mut Vision,
        chunk: &ImageChunk<'_>,
        image: &Image<'_>,
        cells: &[u32],
        to_the_end: bool,
    ) -> Result<EncodedImage> {
        let n_cells = image.n_cells();
        let share = |cells: usize| cells as f32 / n_cells as f32;
        let stopping = self.stopping.as_mut().filter(|_| image.cells_are_tokens());
        let Some((stopping, layer)) = stopping.and_then(|s| s.params.layer(image.n_layers()).map(|layer| (s, layer)))
        else {
            let rows = self.stream.encode(vision, chunk, cells)?.to_vec();
            let mut work = vec![CellWork::Reused; n_cells];
            cells.iter().for_each(|&cell| work[cell as usize] = CellWork::Computed);
            let (computed, cells) = (share(cells.len()), encoder_cells(image, work));
            return Ok(EncodedImage { rows, unfinished: Vec::new(), computed, cells });
        };
        let middle = self.stream.begin(vision, chunk, cells, layer)?;
        let states = stopping.choose(image, cells, &middle, to_the_end)?;
        let rows = self.stream.finish(vision, chunk, &states)?.to_vec();
        let n_finished = states.iter().filter(|&&state| state == CellState::Computed).count();
        let depth = layer as f32 / image.n_layers() as f32;
        Ok(EncodedImage {
            rows,
            unfinished: stopping.unfinished(),
            computed: share(cells.len()) * depth + share(n_finished) * (1.0 - depth),
            cells: encoder_cells(image, states.into_iter().map(work).collect()),
        })
    }
}

impl Stopping {
    /// Decides the state of each cell of `image`. `middle` holds the states of `cells`, which changed, at the middle
    /// layers. `to_the_end` says that none of them may stop.
    fn choose(&mut self, image: &Image<'_>, cells: &[u32], middle: &[f32], to_the_end: bool) -> Result<Vec<CellState>> {
        let (n_cells, n_embd) = (image.n_cells(), image.n_embd());
        if cells.len() == n_cells {
            self.middle = vec![0.0; n_cells * n_embd];
            self.finished = vec![false; n_cells];
        }
        let n_patches = (image.merge() * image.merge()) as f32;
        for (&cell, states) in cells.iter().zip(middle.chunks_exact(image.cell_len())) {
            let mean = &mut self.middle[cell as usize * n_embd..][..n_embd];
            mean.fill(0.0);
            for state in states.chunks_exact(n_embd) {
                mean.iter_mut().zip(state).for_each(|(mean, x)| *mean += x / n_patches);
            }
            self.finished[cell as usize] = false;
        }
        let pooled = self.pools.then(|| pool(&self.middle, n_embd));
        let tokens = pooled.as_deref().unwrap_or(&self.middle);
        let scores = self.scores.push(SliceView::new(tokens, tokens.len() / n_embd, n_embd)?);
        let wanted = self.demand.of(&scores);
        let mut is_changed = vec![false; n_cells];
        cells.iter().for_each(|&cell| is_changed[cell as usize] = true);
        let cells_of = |token: u32| cells_of(token, n_cells, self.pools);
        let n_tokens = scores.importance.len() as u32;
        let changed: Vec<u32> =
            (0..n_tokens).filter(|&token| cells_of(token).iter().any(|&cell| is_changed[cell])).collect();

        let mut states: Vec<CellState> = is_changed
            .iter()
            .zip(&self.finished)
            .map(|states| match states {
                (true, _) => CellState::Filled,
                (false, true) => CellState::Kept,
                (false, false) => CellState::Stopped,
            })
            .collect();
        for token in candidates(&self.params, &scores, &changed, wanted) {
            for cell in cells_of(token).into_iter().filter(|&cell| !self.finished[cell]) {
                states[cell] = CellState::Computed;
            }
        }
        let n_filled = states.iter().filter(|&&state| state == CellState::Filled).count();
        if to_the_end || (n_filled as f32) < (1.0 - NEARLY_ALL) * cells.len() as f32 {
            states.iter_mut().filter(|state| **state == CellState::Filled).for_each(|s| *s = CellState::Computed);
        }
        for (finished, state) in self.finished.iter_mut().zip(&states) {
            *finished |= *state == CellState::Computed;
        }
        Ok(states)
    }

    /// The indices, ascending, of the tokens that did not pass all layers.
    fn unfinished(&self) -> Vec<u32> {
        let n_cells = self.finished.len();
        let n_tokens = if self.pools { pooled_len(n_cells) } else { n_cells } as u32;
        let is_finished = |token: u32| cells_of(token, n_cells, self.pools).iter().all(|&cell| self.finished[cell]);
        (0..n_tokens).filter(|&token| !is_finished(token)).collect()
    }
}

/// The work that the state of a cell stands for.
fn work(state: CellState) -> CellWork {
    match state {
        CellState::Computed => CellWork::Computed,
        CellState::Filled => CellWork::Stopped,
        CellState::Kept | CellState::Stopped => CellWork::Reused,
    }
}

fn encoder_cells(image: &Image<'_>, work: Vec<CellWork>) -> EncoderCells {
    EncoderCells { columns: image.cells_x(), rows: image.cells_y(), work }
}

/// The indices of the cells that a visual token is made of.
fn cells_of(token: u32, n_cells: usize, pools: bool) -> Vec<usize> {
    if pools { pooled_from(n_cells, token as usize) } else { vec![token as usize] }
}

fn blocks(image: &Image<'_>) -> Blocks {
    Blocks::of(&ImageView {
        images: image.images(),
        width: image.width(),
        scale: image.scale(),
        patch: image.patch(),
        merge: image.merge(),
        cells_x: image.cells_x(),
        cells_y: image.cells_y(),
    })
}
