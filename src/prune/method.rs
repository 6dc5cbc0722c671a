//! A pruning method as a value.

use super::{Decision, PruneParams, SliceView, off, sharpv};
use crate::error::Error;
use serde::{Serialize, Serializer};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

/// How the tokens to keep are chosen.
///
/// It carries its implementation. Two methods are equal if their names are; it serializes as its name. Of the methods
/// that SharpV is compared with, this module knows none: they are in `lab::methods`, behind the feature `lab`.
#[derive(Clone, Copy)]
pub struct Method(&'static dyn Algorithm);

/// What a [`Method`] carries: the description of an algorithm. The state for one video is a [`Pruner`].
pub(crate) trait Algorithm: Sync {
    /// A name that no other method has, as users write it.
    fn name(&self) -> &'static str;

    /// Begins a video, or the videos of one prompt.
    fn pruner(&self, params: &PruneParams) -> Box<dyn Pruner>;

    /// See [`Method::prunes`].
    fn prunes(&self) -> bool {
        true
    }

    /// See [`Method::is_causal`].
    fn is_causal(&self) -> bool {
        false
    }

    /// See [`Method::needs_exact_embeddings`].
    fn needs_exact_embeddings(&self) -> bool {
        false
    }

    /// Whether each token has an importance of its own, which a threshold can be compared with.
    fn scores_tokens(&self) -> bool {
        true
    }

    /// Whether it keeps a [cover](super#visual-sharpv) of each scene.
    fn keeps_covers(&self) -> bool {
        false
    }
}

/// A method at work on one video.
///
/// It is given the slices in order and may keep of them what it needs. [`Scorer`](super::Scorer) has checked their
/// shapes.
pub(crate) trait Pruner: Send {
    /// Scores the next slice.
    fn push(&mut self, slice: SliceView<'_>);

    /// Scores several slices, in parallel if the method can. The result equals that of [`push`](Self::push) for one
    /// after the other.
    fn push_all(&mut self, slices: &[SliceView<'_>]) {
        for &slice in slices {
            self.push(slice);
        }
    }

    /// Chooses the tokens to keep of all slices.
    fn finish(self: Box<Self>) -> Decision;
}

impl Method {
    /// Visual SharpV: the tokens of highest spatial and temporal importance, and one token of each scene for the rest
    /// of it.
    pub const SHARPV: Self = Self::new(&sharpv::SharpV);

    /// Visual SharpV as in the paper: the tokens of highest importance, and nothing else. It equals the paper's only
    /// with [exact embeddings](Self::needs_exact_embeddings).
    pub const SHARPV_PAPER: Self = Self::new(&sharpv::PaperSharpV);

    /// Keeps every token of every slice, and does not read the embeddings.
    pub const OFF: Self = Self::new(&off::Off);

    /// The methods of this module, in the order of help texts. These are the names that [`FromStr`] accepts.
    pub const ALL: [Self; 3] = [Self::SHARPV, Self::SHARPV_PAPER, Self::OFF];

    /// The method that `algorithm` implements.
    pub(crate) const fn new(algorithm: &'static dyn Algorithm) -> Self {
        Self(algorithm)
    }

    /// Its name, as users write it and as results have it.
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// Whether it drops tokens: all methods do but [`OFF`](Self::OFF).
    pub fn prunes(self) -> bool {
        self.0.prunes()
    }

    /// Whether the importance of a token depends on its slice and those before it alone, as SharpV's does. Then
    /// [`RunningScores`](super::RunningScores) has it while the video is still being encoded.
    pub fn is_causal(self) -> bool {
        self.0.is_causal()
    }

    /// Whether it requires what the encoder computes of each whole image. Other methods accept estimates for patches
    /// that hardly change or will be dropped; [`SHARPV_PAPER`](Self::SHARPV_PAPER) stands for what its authors
    /// published, which has no estimates.
    pub fn needs_exact_embeddings(self) -> bool {
        self.0.needs_exact_embeddings()
    }

    /// See [`Algorithm::scores_tokens`].
    pub(super) fn scores_tokens(self) -> bool {
        self.0.scores_tokens()
    }

    /// See [`Algorithm::keeps_covers`].
    pub(super) fn keeps_covers(self) -> bool {
        self.0.keeps_covers()
    }

    /// See [`Algorithm::pruner`].
    pub(super) fn pruner(self, params: &PruneParams) -> Box<dyn Pruner> {
        self.0.pruner(params)
    }
}

/// [`SHARPV`](Method::SHARPV).
impl Default for Method {
    fn default() -> Self {
        Self::SHARPV
    }
}

impl PartialEq for Method {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Method {}

impl Hash for Method {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl fmt::Debug for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for Method {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A name of [`ALL`](Method::ALL).
impl FromStr for Method {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let named = Self::ALL.into_iter().find(|method| method.name() == name);
        named.ok_or_else(|| Error::unknown_name::<Self>("the pruning method", name))
    }
}

impl strum::VariantNames for Method {
    const VARIANTS: &'static [&'static str] = &[sharpv::NAME, sharpv::PAPER_NAME, off::NAME];
}
