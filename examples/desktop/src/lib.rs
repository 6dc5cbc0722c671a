//! An example of sharpv: chat about a video in a window.
//!
//! - [`engine`]: what the window asks for and is told, as data, and the trait behind which the work is done. The window
//!   never waits, and knows nothing of sharpv.
//! - [`worker`]: that trait over [`sharpv::Worker`].
//! - [`app`]: the window. [`player`]: the part that shows the frames, with the visual tokens that are kept of them.

pub mod app;
pub mod engine;
pub mod player;
pub mod worker;
