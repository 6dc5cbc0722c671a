//! The variants that a run compares: methods, budgets and encoder modes.

use crate::error::{Error, Result};
use crate::lab::methods;
use crate::prune::{Budget, Method, PruneParams};
use crate::skip::EncodeMode;
use std::fmt;

/// A method with a budget and an encoder mode.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Variant {
    /// The method.
    pub method: Method,
    /// How many tokens are kept; ignored by [`Method::OFF`].
    pub budget: Budget,
    /// The encoder mode.
    pub encode: EncodeMode,
}

impl Variant {
    /// Every method at every budget in every encoder mode; dense first and once. Names are those of
    /// [`lab::methods`](crate::lab::methods). A budget is a share of the visual tokens, or `auto`: as many as the
    /// method finds necessary. If two modes are the same for a method, one is kept: only SharpV's tokens can stop early
    /// in the encoder, and [`EncodeMode::Auto`] means exact for [`Method::SHARPV_PAPER`].
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for an unknown name or an invalid share.
    pub fn all(methods: &[impl AsRef<str>], budgets: &[impl AsRef<str>], encodes: &[EncodeMode]) -> Result<Vec<Self>> {
        let budgets: Vec<Budget> = budgets.iter().map(|text| budget(text.as_ref())).collect::<Result<_>>()?;
        let mut variants: Vec<Self> = Vec::new();
        for name in methods {
            let method = methods::by_name(name.as_ref())?;
            let encodes = encodes.iter().map(|&encode| match encode {
                EncodeMode::Auto if method.needs_exact_embeddings() => EncodeMode::Exact,
                EncodeMode::Stop if !method.is_causal() => EncodeMode::Exact,
                EncodeMode::Fast if !method.is_causal() => EncodeMode::Reuse,
                encode => encode,
            });
            for encode in encodes {
                if !method.prunes() {
                    variants.push(Self { method, budget: Budget::Adaptive, encode });
                    continue;
                }
                variants.extend(budgets.iter().map(|&budget| Self { method, budget, encode }));
            }
        }
        let mut seen: Vec<Self> = Vec::new();
        variants.retain(|variant| {
            let is_new = !seen.contains(variant);
            seen.push(*variant);
            is_new
        });
        variants.sort_by_key(|variant| variant.method.prunes());
        if variants.is_empty() {
            return Err(Error::InvalidParameter {
                name: "methods",
                value: "empty".into(),
                expected: "at least one method, and a budget for those that prune".into(),
            });
        }
        Ok(variants)
    }

    /// The method's name, `dense` for [`Method::OFF`], and after a plus the encoder mode if it is not exact.
    pub fn method_name(&self) -> String {
        let name = methods::name(self.method);
        match self.encode {
            EncodeMode::Exact => name.to_owned(),
            encode => format!("{name}+{encode}"),
        }
    }

    /// The budget's name in options and results; `all` for dense.
    pub fn budget_name(&self) -> String {
        match self.budget {
            _ if !self.method.prunes() => "all".to_owned(),
            Budget::Keep(share) => share.to_string(),
            Budget::MaxTokens(n) => format!("{n} tokens"),
            Budget::Threshold(k) => format!("over {k}"),
            Budget::Adaptive => "auto".to_owned(),
        }
    }

    /// `base` with the method and the budget of this variant.
    pub fn params(&self, base: &PruneParams) -> PruneParams {
        PruneParams { method: self.method, budget: self.budget, ..base.clone() }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.method.prunes() {
            false => f.pad(&self.method_name()),
            true => f.pad(&format!("{}@{}", self.method_name(), self.budget_name())),
        }
    }
}

fn budget(text: &str) -> Result<Budget> {
    if text == "auto" {
        return Ok(Budget::Adaptive);
    }
    let share = text.parse().ok().filter(|share: &f32| *share > 0.0 && *share <= 1.0);
    share.map(Budget::Keep).ok_or_else(|| Error::InvalidParameter {
        name: "budgets",
        value: format!("\"{text}\""),
        expected: "auto, or shares of the visual tokens, over 0 and at most 1".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(methods: &[&str], budgets: &[&str]) -> Vec<String> {
        Variant::all(methods, budgets, &[EncodeMode::Exact]).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn dense_comes_first_and_once() {
        assert_eq!(
            names(&["sharpv", "dense", "off", "random"], &["auto", "0.1", "0.10"]),
            ["dense", "sharpv@auto", "sharpv@0.1", "random@auto", "random@0.1"]
        );
        assert_eq!(names(&["dense"], &[]), ["dense"]);
    }

    #[test]
    fn ways_to_encode_are_told_behind_the_method_where_they_differ() {
        let encodes = [EncodeMode::Exact, EncodeMode::Reuse, EncodeMode::Stop, EncodeMode::Fast];
        let variants = Variant::all(&["dense", "random", "sharpv"], &["auto"], &encodes).unwrap();
        let names: Vec<String> = variants.iter().map(ToString::to_string).collect();
        let expected = ["dense", "dense+reuse", "random@auto", "random+reuse@auto"];
        let sharpv = ["sharpv@auto", "sharpv+reuse@auto", "sharpv+stop@auto", "sharpv+fast@auto"];
        assert_eq!(names, [expected, sharpv].concat());
    }

    #[test]
    fn the_papers_own_is_encoded_exactly_unless_told_otherwise() {
        let encodes = [EncodeMode::Exact, EncodeMode::Auto, EncodeMode::Fast];
        let variants = Variant::all(&["sharpv-paper", "sharpv"], &["auto"], &encodes).unwrap();
        let names: Vec<String> = variants.iter().map(ToString::to_string).collect();
        let paper = ["sharpv-paper@auto", "sharpv-paper+fast@auto"];
        assert_eq!(names, [&paper[..], &["sharpv@auto", "sharpv+auto@auto", "sharpv+fast@auto"]].concat());
    }

    #[test]
    fn what_is_no_method_or_budget_is_named() {
        for (methods, budgets) in
            [(["best"], ["0.1"]), (["sharpv"], ["0"]), (["sharpv"], ["1.5"]), (["sharpv"], ["nan"]), (["sharpv"], [""])]
        {
            assert!(Variant::all(&methods, &budgets, &[EncodeMode::Exact]).is_err(), "{methods:?} {budgets:?}");
        }
        assert!(Variant::all(&["sharpv"], &[""; 0], &[EncodeMode::Exact]).is_err());
        assert!(Variant::all(&["sharpv"], &["auto"], &[]).is_err());
    }
}
