//! The methods that SharpV is compared with.
//!
//! Each is implemented from its formula, on the same embeddings, as a [`Method`] like SharpV. A budget or a cap has the
//! same meaning as with SharpV: the same total, met exactly. `1 − cos` is computed as `dissim²/2`.
//!
//! | | importance | keeps without a budget |
//! |---|---|---|
//! | EVS (arXiv 2510.14624) | `1 − cos` with the same cell of the previous slice; 2 in a first slice | first slices whole, and the best of the video up to 25 % |
//! | VidCom² (arXiv 2505.14454) | `1 − (g(x, video) + g(x, slice))/10` | `0.25·(1 + p_t − mean p)` of slice `t`, at least one token |
//! | DyCoke TTM (arXiv 2411.15024) | `1 − cos` with an earlier slice of its window; 2 in a first slice | first slices whole, 30 % of others |
//! | DivPrune (arXiv 2503.02175) | none | 9.8 % of the video |
//!
//! - **EVS** ranks the tokens of all slices together. It compares embeddings, as the authors' released code does.
//! - **VidCom²** uses the half of the channels that varies least over the video, as unit vectors.
//!   `g(x, c) = Σ_α exp(−‖x − c‖²/(2α))`, `α = 2⁻³ … 2¹`, is a token's similarity to the mean `c` of the video or of
//!   its slice; `p` is the softmax over slices of `−mean g(x, video)/0.01`. A total is shared in proportion to the
//!   ratios.
//! - **DyCoke**'s window is four slices: the second is compared with the first, the third with the first, the fourth
//!   with the third. Only the first stage of DyCoke is implemented; its second works in the KV cache. What a total
//!   leaves after the first slices is shared evenly among the others.
//! - **DivPrune** takes the token whose nearest neighbor is farthest, and then repeatedly the token that is farthest
//!   from all those taken. It chooses among the tokens of all slices together, as its authors do.
//!
//! In EVS and DyCoke a *first slice* is one that is compared with no other. If a total is too small for the first
//! slices, evenly spaced tokens of them are kept, and nothing else. A slice that shares no usable token with the
//! previous one is not a first slice: each of its tokens is new. So is a token whose counterpart is not finite; the
//! importance of new tokens is 2. In VidCom² importance is in `[0, 1]`. A [threshold](crate::prune::Budget::Threshold)
//! keeps first slices of EVS and DyCoke whole; DivPrune rejects it.
//!
//! VidCom² and DivPrune hold a copy of all embeddings until the end, so they need twice the memory of the video's
//! embeddings; the others hold one slice, or DyCoke two. The time of DivPrune grows with the number of tokens times
//! that of the kept ones, and for the first token up to the square of the number of tokens (less if more tokens are
//! alike); that of the others with the number of tokens.
//!
//! There are two controls: [`RANDOM`] and [`UNIFORM`], which keep as many tokens as SharpV with the same parameters and
//! report its scores. They respect [unfinished tokens](crate::prune::SliceView::with_unfinished), as SharpV does.

mod copied;
mod divprune;
mod dycoke;
mod evs;
mod random;
mod temporal;
mod uniform;
mod vidcom2;

use crate::error::{Error, Result};
use crate::prune::Method;

/// Control: as many tokens of each slice as SharpV keeps of it, drawn at random.
pub const RANDOM: Method = Method::new(&random::Random);

/// Control: whole slices, evenly spaced, up to the total that SharpV keeps. The last of them is cut to fit: evenly
/// spaced tokens of its grid are kept.
pub const UNIFORM: Method = Method::new(&uniform::Uniform);

/// Efficient Video Sampling: the tokens of the whole video that differ most from the same cell of the previous slice.
/// [`SliceDecision::ratio`](crate::prune::SliceDecision::ratio) is the share of the slice among the best quarter of all
/// tokens.
pub const EVS: Method = Method::new(&evs::Evs);

/// Video Compression Commander: the tokens that stand out from their slice and from the video, more of the slices that
/// stand out themselves. The ratio is a quarter, raised or lowered by how much the slice stands out.
pub const VIDCOM2: Method = Method::new(&vidcom2::VidCom2);

/// DyCoke's token temporal merging: in windows of four slices, tokens similar to those of an earlier slice are dropped.
/// The ratio is 1 in first slices of windows, 0.3 in others.
pub const DYCOKE: Method = Method::new(&dycoke::DyCoke);

/// DivPrune: tokens as different from each other as possible, over the whole video. The ratio is 0.098 in every slice.
pub const DIVPRUNE: Method = Method::new(&divprune::DivPrune);

/// The methods of this module, in the order of help texts.
pub const COMPARED: [Method; 6] = [RANDOM, UNIFORM, EVS, VIDCOM2, DYCOKE, DIVPRUNE];

/// All methods: those of [`prune`](crate::prune), then those of this module.
pub fn all() -> impl Iterator<Item = Method> + Clone {
    Method::ALL.into_iter().chain(COMPARED)
}

/// The name of a method in results: `dense` for [`Method::OFF`], which keeps all tokens, otherwise its own.
pub fn name(method: Method) -> &'static str {
    if method.prunes() { method.name() } else { DENSE }
}

const DENSE: &str = "dense";

/// The method of that [`name`]; `off` is another name of `dense`.
///
/// # Errors
/// [`Error::InvalidParameter`], which lists the names.
pub fn by_name(text: &str) -> Result<Method> {
    let method = all().find(|&method| name(method) == text || method.name() == text);
    method.ok_or_else(|| Error::InvalidParameter {
        name: "the pruning method",
        value: format!("\"{text}\""),
        expected: format!("one of {}", all().map(name).collect::<Vec<_>>().join(", ")),
    })
}

/// `m` of `0..n`, ascending: the middles of `m` equal parts.
fn spread(m: usize, n: usize) -> Vec<usize> {
    (0..m).map(|i| (2 * i + 1) * n / (2 * m)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_found_by_their_names() {
        for method in all() {
            assert_eq!(by_name(method.name()).unwrap(), method);
            assert_eq!(by_name(name(method)).unwrap(), method);
        }
        assert_eq!(all().map(name).collect::<std::collections::HashSet<_>>().len(), 9);
        let error = by_name("fastv").unwrap_err().to_string();
        assert!(
            error.contains("sharpv, sharpv-paper, dense, random, uniform, evs, vidcom2, dycoke, divprune"),
            "{error}"
        );
    }
}
