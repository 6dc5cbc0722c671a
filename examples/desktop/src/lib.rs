//! An example of sharpv: chat about a video in a window.
//!
//! - [`engine`]: requests of the window and updates for it, as data, and the trait of whatever does the work. The
//!   window never waits, and does not know sharpv.
//! - [`worker`]: an engine that uses [`sharpv::Worker`].
//! - [`app`]: the window. [`player`]: the part of it that shows the frames and their kept visual tokens.

pub mod app;
pub mod engine;
pub mod player;
pub mod worker;
