//! What of a video the vision encoder need not compute, found before and while it computes.
//!
//! Two ways, which multiply; each can be off, and with both off the encoder works as llama.cpp's does.
//!
//! **What did not change is not computed again** ([`Reuse`]). An image is compared with what was *last encoded* at the
//! same place, block by block: the mean over a quarter of a patch, so that noise cancels out and motion does not
//! ([`Blocks`]). A patch has changed when its blocks differ by more than a threshold; a cell (the patches of one visual
//! token) when one of its patches has. Only changed cells go through the encoder; they see the others' keys and values
//! as they were. After a cut, and now and then, an image is computed whole, for what others see gets old
//! ([`Reuse::refresh`]).
//!
//! **What will be dropped is not finished** ([`Stop`]). After a part of the layers, SharpV's scores of the states in
//! the middle tell which tokens it will keep. A multiple of them goes on; the others stop, and end as their own state
//! plus what the token most like them gained. Tokens to keep are chosen among those that went all the way.
//!
//! Ideas: Eventful Transformers (arXiv 2308.13494) for the first, IPCV (arXiv 2512.18747) for the second; both were
//! tried out anew for SharpV.
//!
//! Nothing here computes an embedding, and nothing knows llama.cpp.

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
