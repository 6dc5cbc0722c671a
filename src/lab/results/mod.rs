//! What was measured, as it stands on disk: for whoever writes results, and for whoever reads them again.
//!
//! An evaluation writes [`Results`], answer by answer, and a [`Summary`] of them; a bench writes a [`Bench`].
//! `docs/eval.md` and `docs/bench.md` have the keys. These types know nothing of how they came about or of how they are
//! shown.

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
