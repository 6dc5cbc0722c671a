//! Measurements: how accurate a model's answers are with each method that keeps visual tokens, and what the methods
//! cost. Behind the feature `lab`.
//!
//! It is for people who compare methods. `sharpv eval`, `bench`, `calibrate`, `inspect` and `report` are this module
//! plus a command line. A program that chats about videos does not need it.
//!
//! - [`methods`]: what SharpV is compared with.
//! - [`eval`]: accuracy, on the questions of a benchmark or of your own.
//! - [`cost`]: time and memory.
//! - [`calibrate`]: the layers in which a model can do without visual tokens.
//! - [`report`]: charts and an HTML page.
//! - [`inspect`]: which tokens of one video are kept, as an HTML page, images and a video.
//! - [`results`]: the files that [`eval`] and [`cost`] write and [`report`] reads. These know it, and not each other.

pub mod calibrate;
pub mod cost;
pub mod eval;
pub mod inspect;
pub mod methods;
pub mod report;
pub mod results;
