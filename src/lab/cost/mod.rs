//! What methods cost: time by stage, memory, and how both grow with the length of a video.
//!
//! [`run`] measures methods on a video, [`scale`] on synthetic embeddings of any length. Both results go into a
//! [`Bench`](super::results::Bench). `docs/bench.md` describes the numbers and `bench.json`.
//!
//! Methods take turns within a run, so that other programs on the machine affect their ratios less.

mod machine;
mod markdown;
mod on_video;
mod scaling;
mod synthetic;

pub use machine::gpu_bytes_free;
pub use on_video::run;
pub use scaling::{ScalingSize, scale};

use crate::error::{Error, Result};
use crate::lab::methods;
use crate::prune::PruneParams;

/// Checks the parameters that [`run`] and [`scale`] share.
///
/// # Errors
/// [`Error::InvalidParameter`].
pub fn check(methods: &[PruneParams], repeats: usize) -> Result<()> {
    let refuse = |name, value: String, expected: &str| {
        Err(Error::InvalidParameter { name, value, expected: expected.to_owned() })
    };
    if methods.is_empty() {
        return refuse("methods", "empty".into(), "at least one method");
    }
    for (i, params) in methods.iter().enumerate() {
        params.validate()?;
        if methods.iter().take(i).any(|before| before.method == params.method) {
            return refuse("methods", format!("{} twice", methods::name(params.method)), "each method once");
        }
    }
    if repeats == 0 {
        return refuse("repeats", "0".into(), "at least 1");
    }
    Ok(())
}
