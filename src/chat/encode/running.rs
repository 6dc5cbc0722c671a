//! The encoder at work on video that does not end, slice by slice.

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

/// What is known of the slices so far, as far as the next one is encoded and pruned by it. Does not grow with them.
#[derive(Debug)]
pub(in crate::chat) struct Running {
    partial: Option<PartialEncoder>,
    pruner: CausalPruner,
    /// The frames of the slice before.
    previous: Vec<Frame>,
    grids: Vec<Grid>,
}

impl Running {
    /// Before the first slice of a video that is arranged as `arrangement`; `path` stands for it in errors.
    pub fn new(encoder: &Encoder<'_>, arrangement: &Arrangement, path: &Path) -> Result<Self> {
        let partial = partial(encoder, arrangement, path)?;
        let pruner = CausalPruner::new(encoder.prune)?;
        Ok(Self { partial, pruner, previous: Vec::new(), grids: Vec::new() })
    }

    /// Whether `frames` show what the slice before showed, pixel by pixel.
    pub fn repeats(&self, frames: &[Frame]) -> bool {
        let same = |(frame, before): (&Frame, &Frame)| frame.rgb == before.rgb;
        frames.len() == self.previous.len() && frames.iter().zip(&self.previous).all(same)
    }

    /// Encodes and prunes the slice of `frames`; `key`: to be understood without those before it. Gives the embeddings
    /// of all of its tokens as well, if they are to be kept ([`Encoder::keep_unpruned`]).
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
                // What the encoder has of a slice that it did not finish is of no use to the next.
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
