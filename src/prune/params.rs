//! What the caller can choose.

use super::Method;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// The manual cut-off `K` of the paper: a token is kept if its importance is over it.
pub const DEFAULT_THRESHOLD: f32 = 1.6;

/// How many tokens to keep.
///
/// [`Keep`](Self::Keep) and [`MaxTokens`](Self::MaxTokens) set the total over all slices, which every method meets
/// exactly. SharpV scales the adaptive ratio of every slice by one common factor, so that the order of the slices stays
/// the same; a slice whose tokens are all kept stops growing, and the others share the rest. Fractions of a token go to
/// the slices with the largest ones; on a tie, to the earlier slice. Slices with ratio 0 (equal to the previous one)
/// get tokens only when all others are full, and then in equal shares. First slices get [`PruneParams::min_keep`]
/// tokens before the rest is shared, unless the total is too small for that: the total always wins. A total above the
/// number of tokens keeps all.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Budget {
    /// As many tokens as the method considers necessary: `ceil(r_t·n)` of slice `t` with SharpV.
    #[default]
    Adaptive,
    /// Every token whose importance is over this cut-off, [`DEFAULT_THRESHOLD`] in the paper. SharpV's importance is in
    /// `[0, 2 + 2w]`, and in `[0, 2]` in a first slice. A [cap](PruneParams::cap) drops some of the tokens over the
    /// cut-off, and keeps none of the others. A method that gives tokens no importance rejects this budget.
    Threshold(f32),
    /// This share of all visual tokens, 0 to 1; rounded to the nearest number of tokens, at least 1.
    Keep(f32),
    /// This number of tokens, at least 1, or all if there are fewer.
    MaxTokens(usize),
}

/// Parameters of [`prune`](super::prune) and [`Scorer`](super::Scorer).
///
/// The default is [`Method::SHARPV`] with an adaptive budget.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PruneParams {
    /// How tokens are chosen.
    pub method: Method,
    /// How many tokens are kept.
    pub budget: Budget,
    /// Upper limit of the total, whatever the budget gives: what there is memory for. [`Method::OFF`] ignores it.
    pub cap: Option<usize>,
    /// `w` in SharpV's `I = T + w·S`: weight of spatial against temporal importance. 1 in the paper; 0 or more.
    pub spatial_weight: f32,
    /// Tokens that SharpV keeps at least of a first slice, which has no previous slice to be compared with. Default 1.
    pub min_keep: usize,
    /// Seed of a method that draws tokens at random. SharpV does not.
    pub seed: u64,
}

impl Default for PruneParams {
    fn default() -> Self {
        Self {
            method: Method::default(),
            budget: Budget::default(),
            cap: None,
            spatial_weight: 1.0,
            min_keep: 1,
            seed: 0,
        }
    }
}

impl PruneParams {
    /// Parameters that keep every token.
    pub fn off() -> Self {
        Self { method: Method::OFF, ..Self::default() }
    }

    /// Whether covers are kept. A threshold decides on each token alone, so it leaves no place for them.
    pub(super) fn covers(&self) -> bool {
        self.method.keeps_covers() && !matches!(self.budget, Budget::Threshold(_))
    }

    /// Checks that every parameter is in its range, and that the method supports the budget.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`], naming the parameter, its value and its range.
    pub fn validate(&self) -> Result<()> {
        let check = |valid: bool, name: &'static str, value: &dyn std::fmt::Display, expected: &str| {
            if valid {
                return Ok(());
            }
            Err(Error::InvalidParameter { name, value: value.to_string(), expected: expected.into() })
        };
        let finite = "a finite number of at least 0";
        check(is_finite_non_negative(self.spatial_weight), "the spatial weight", &self.spatial_weight, finite)?;
        match self.budget {
            Budget::Adaptive => Ok(()),
            Budget::Threshold(k) if !self.method.scores_tokens() => check(
                false,
                "the importance threshold",
                &k,
                &format!(
                    "left out with {}, which gives tokens no importance: set a share or a number of tokens",
                    self.method
                ),
            ),
            Budget::Threshold(k) => check(is_finite_non_negative(k), "the importance threshold", &k, finite),
            Budget::Keep(share) => {
                check((0.0..=1.0).contains(&share), "the share of visual tokens to keep", &share, "between 0 and 1")
            }
            Budget::MaxTokens(n) => check(n > 0, "the maximum of visual tokens", &n, "at least 1"),
        }
    }
}

fn is_finite_non_negative(value: f32) -> bool {
    value.is_finite() && value >= 0.0
}
