//! Encodes live video, slice by slice.

use super::Encoder;
use super::partial::{PartialEncoder, Purpose};
use super::select::{keep_rows, view};
use crate::chat::encoded::EncodedSlice;
use crate::chat::encoded::arrangement::Arrangement;
use crate::chat::encoded::notes::Grid;
use crate::error::Result;
use crate::layout::SliceCount;
use crate::prune::{CausalChoice, CausalPruner};
use crate::video::Frame;
use std::path::Path;

/// The state from earlier slices that encoding and pruning the next slice needs. Its size does not grow with their
/// number.
#[derive(Debug)]
pub(in crate::chat) struct Running {
    partial: Option<PartialEncoder>,
    pruner: CausalPruner,
    /// The frames of the previous slice.
    previous: Vec<Frame>,
    grids: Vec<Grid>,
}

impl Running {
    /// The state before the first slice of a video with this `arrangement`. Errors name it `path`.
    pub fn new(encoder: &Encoder<'_>, arrangement: &Arrangement, path: &Path) -> Result<Self> {
        let partial = partial(encoder, arrangement, path)?;
        let pruner = CausalPruner::new(encoder.prune)?;
        Ok(Self { partial, pruner, previous: Vec::new(), grids: Vec::new() })
    }

    /// Whether `frames` have the same pixels as the previous slice.
    pub fn repeats(&self, frames: &[Frame]) -> bool {
        let same = |(frame, before): (&Frame, &Frame)| frame.rgb == before.rgb;
        frames.len() == self.previous.len() && frames.iter().zip(&self.previous).all(same)
    }

    /// Encodes and prunes the slice of `frames`. `key` says that the slice must be understandable without earlier ones.
    /// The last value is the embeddings of all its tokens, if [`Encoder::keep_unpruned`] is set.
    pub fn encode(
        &mut self,
        encoder: &mut Encoder<'_>,
        arrangement: &Arrangement,
        frames: Vec<Frame>,
        key: bool,
        path: &Path,
    ) -> Result<(EncodedSlice, CausalChoice, Option<Vec<f32>>)> {
        let result = self.try_encode(encoder, arrangement, &frames, key);
        match &result {
            Ok(_) => self.previous = frames,
            Err(_) => {
                // The next slice cannot be based on a slice that the encoder did not finish.
                self.partial = partial(encoder, arrangement, path)?;
                self.previous.clear();
            }
        }
        result
    }

    fn try_encode(
        &mut self,
        encoder: &mut Encoder<'_>,
        arrangement: &Arrangement,
        frames: &[Frame],
        key: bool,
    ) -> Result<(EncodedSlice, CausalChoice, Option<Vec<f32>>)> {
        let mut slice = encoder.encode_slice(frames, arrangement, &mut self.partial, &mut self.grids)?;
        let seen = view(&slice.rows, slice.n_tokens, encoder.model)?.with_unfinished(&slice.unfinished);
        let choice = self.pruner.push(seen, key)?;
        let all = encoder.keep_unpruned.then(|| slice.rows.clone());
        keep_rows(&mut slice, &choice.kept, encoder.model.n_embd_inp());
        Ok((slice, choice, all))
    }
}

fn partial(encoder: &Encoder<'_>, arrangement: &Arrangement, path: &Path) -> Result<Option<PartialEncoder>> {
    let purpose = Purpose {
        prune: encoder.prune,
        keeps_all: encoder.keep_unpruned,
        pools: arrangement.pools,
        n_slices: SliceCount(usize::MAX),
        path,
    };
    PartialEncoder::new(encoder.encode, purpose)
}
