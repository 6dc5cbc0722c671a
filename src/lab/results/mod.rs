//! Results on disk, as they are written and read.
//!
//! An evaluation writes [`Results`], answer by answer, and a [`Summary`] of them; a benchmark writes a [`Bench`].
//! `docs/eval.md` and `docs/bench.md` describe the keys. These types know neither how results are measured nor how they
//! are shown.

mod answers;
mod bench;
mod settings;
mod spread;
mod summary;

pub use answers::{Judge, Results, Row, RunSettings};
pub use bench::{
    BENCH_FORMAT, Bench, GpuFacts, Machine, MemoryUse, MethodCost, Ratios, Scaling, ScalingPoint, StageSpreads,
    VideoBench,
};
pub use settings::Conditions;
pub use spread::Spread;
pub use summary::{Accuracy, BadRow, Comparison, SUMMARY_FORMAT, Summary, VariantSummary};

pub(super) use spread::ratio;
