//! Measuring: how right a model's answers are with each way to keep visual tokens, what they cost, and both as
//! images. Behind the feature `lab`.
//!
//! It is for people who compare methods, and is all that `sharpv eval`, `sharpv bench` and `sharpv report` do but for
//! reading the command line. A program that chats about videos needs nothing of it.
//!
//! - [`eval`]: accuracy, on the questions of benchmarks or of one's own.
//! - [`cost`]: time and memory.
//! - [`calibrate`]: in which layers a model can do without its visual tokens.
//! - [`report`]: images and a page.
//! - [`inspect`]: what became of the tokens of one video, as a page, images and a video.
//! - [`results`]: what the first two write and the third reads. They know it, and not each other.

pub mod calibrate;
pub mod cost;
pub mod eval;
pub mod inspect;
pub mod methods;
pub mod report;
pub mod results;
