//! What methods cost: time by stage, memory, and how both grow with a video's length. For who wants to know what a
//! method wins.
//!
//! [`run`] measures methods on a video, [`scale`] on made-up ones of any length; both go into a
//! [`Bench`](super::results::Bench). `docs/bench.md` describes the numbers and `bench.json`.
//!
//! Methods take turns within a run, so that the ratios mean something on a machine that does other things too.

mod machine;
mod markdown;
mod methods;
mod scaling;
mod synthetic;

pub use machine::gpu_bytes_free;
pub use methods::run;
pub use scaling::{ScalingSize, scale};

use crate::error::{Error, Result};
use crate::prune::{Method, PruneParams};

/// A method under the name that comparisons give it: keeping all tokens is called `dense`.
pub fn method_name(method: Method) -> &'static str {
    if method == Method::Off { "dense" } else { method.name() }
}

/// The method of a name of [`method_name`], or of the command line.
///
/// # Errors
/// [`Error::InvalidParameter`], listing the names.
pub fn method_by_name(name: &str) -> Result<Method> {
    let dense = Some(Method::Off).filter(|_| name == "dense");
    let method = dense.or_else(|| Method::ALL.into_iter().find(|method| method.name() == name));
    method.ok_or_else(|| Error::InvalidParameter {
        name: "methods",
        value: format!("\"{name}\""),
        expected: format!("of {}", Method::ALL.map(method_name).join(", ")),
    })
}

/// Checks what [`run`] and [`scale`] take alike.
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
            return refuse("methods", format!("{} twice", method_name(params.method)), "each method once");
        }
    }
    if repeats == 0 {
        return refuse("repeats", "0".into(), "at least 1");
    }
    Ok(())
}
