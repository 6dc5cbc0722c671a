//! Finds the computations that the vision encoder can skip.
//!
//! There are two methods, whose gains multiply. Each can be turned off; with both off, the encoder works as
//! llama.cpp's does.
//!
//! **Unchanged patches are reused** ([`Reuse`]). Each block (a quarter of a patch) of an image is compared with the
//! block that was *last encoded* at the same place. The mean over a block cancels noise, but not motion ([`Blocks`]). A
//! patch has changed if its blocks differ by more than a threshold. A cell (the patches of one visual token) has
//! changed if one of its patches has. Only changed cells go through the encoder. They attend to the cached keys and
//! values of the others. These grow stale, so an image is computed whole after a cut, and at least every
//! [`Reuse::refresh`] changed images.
//!
//! **Tokens that will be dropped stop early** ([`Stop`]). After part of the layers, SharpV scores the hidden states to
//! predict which tokens it will keep. A multiple of that number goes on. Every other token stops, and its output is
//! its hidden state plus what the most similar of the remaining tokens gained in the later layers. SharpV then keeps
//! only tokens that went through all layers.
//!
//! The ideas are those of Eventful Transformers (arXiv 2308.13494) and IPCV (arXiv 2512.18747). Both were evaluated
//! again together with SharpV.
//!
//! This module computes no embeddings and does not depend on llama.cpp.

#![forbid(unsafe_code)]

mod blocks;
mod candidates;
mod changes;
mod encoder;
mod params;

pub use blocks::{Blocks, ImageView};
pub use candidates::{Demand, candidates};
pub use changes::Changes;
pub use encoder::{Ability, EncoderShape};
pub use params::{EncodeMode, EncodeParams, Reuse, Stop};
