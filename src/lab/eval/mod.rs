//! Benchmarks: questions about videos, asked with several ways to keep visual tokens side by side.
//!
//! [`Task::load`] reads a dataset as people have it on disk; [`Run::run`] asks what [`Results`] does not have yet, each video decoded and
//! encoded once for all its questions and all [`Variant`]s; [`Summary`] has the accuracies with their intervals and the paired tests.
//! `docs/eval.md` has the formats, the prompts and what a score means.

#![forbid(unsafe_code)]

mod datasets;
mod extract;
mod likelihood;
mod question;
mod run;
mod stats;
mod summary;
mod task;
mod variant;
mod worker;

pub use likelihood::Letters;
pub use question::{Clip, Dataset, MAX_CHOICES, Question, RightAnswer};
pub use run::{Run, RunObserver, Score, category_names, fingerprint, select};
pub use stats::{Paired, wilson};
pub use task::{Judged, Task};
pub use variant::Variant;
