//! Accuracy: the questions of a benchmark, answered with several methods side by side.
//!
//! [`Task::load`] reads a dataset in its published form. [`Run::run`] asks the questions that have no answer in
//! [`Results`] yet; each video is decoded and encoded once for all its questions and all [`Variant`]s. [`Summary`] has
//! the accuracies with their intervals, and the paired tests. `docs/eval.md` describes the formats, the prompts and the
//! scores.
//!
//! [`Results`]: super::results::Results
//! [`Summary`]: super::results::Summary

#![forbid(unsafe_code)]

mod datasets;
mod extract;
mod job;
mod likelihood;
mod question;
mod run;
mod select;
mod side_by_side;
mod stats;
mod summary;
mod task;
mod variant;
mod worker;

pub use likelihood::Letters;
pub use question::{Clip, Dataset, MAX_CHOICES, Question, RightAnswer};
pub use run::{Run, RunObserver, Score};
pub use select::{category_names, fingerprint, select};
pub use stats::{Mean, Paired, clustered_mean, wilson};
pub use task::{Judged, Task};
pub use variant::Variant;
