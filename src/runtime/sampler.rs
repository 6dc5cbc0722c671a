//! Samplers: choosing the next token.

use super::call::guarded;
use super::{Context, Model, Token};
use crate::error::{Error, Result};
use crate::ffi;
use std::ffi::CString;
use std::ptr::NonNull;

/// How the next token is chosen. The defaults are llama.cpp's, except the temperature: it is 0 (greedy), because a
/// question about a video has a right answer.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct SamplerParams {
    /// 0 always chooses the likeliest token (greedy); 0.001 to 100 chooses more randomly the higher it is.
    pub temperature: f32,
    /// Considers only the `top_k` likeliest tokens; 0 considers all.
    pub top_k: u32,
    /// Considers only the likeliest tokens that together have this probability; 1 considers all.
    pub top_p: f32,
    /// Considers only tokens with at least this share of the likeliest token's probability; 0 considers all.
    pub min_p: f32,
    /// Divides the logits of tokens already seen, 0.01 to 100; 1 is off.
    pub repeat_penalty: f32,
    /// Subtracted from the logit of a token for each time it was seen, −100 to 100; 0 is off.
    pub frequency_penalty: f32,
    /// Subtracted once from the logit of a token that was seen, −100 to 100; 0 is off.
    pub presence_penalty: f32,
    /// How many of the last tokens the penalties consider, up to a million.
    pub repeat_last_n: u32,
    /// A GBNF grammar that the answer must follow.
    pub grammar: Option<String>,
    /// The seed of the random choice, below 2³² − 1; `None` uses a new one each time.
    pub seed: Option<u32>,
}

impl Default for SamplerParams {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repeat_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            repeat_last_n: 64,
            grammar: None,
            seed: None,
        }
    }
}

/// The ranges of [`SamplerParams`]. Values outside of them waste memory, or make logits that are not finite.
mod range {
    use std::ops::RangeInclusive;

    /// For temperatures above 0. The largest logits stay finite, and distinct, when they are divided by the least.
    pub const TEMPERATURE: RangeInclusive<f32> = 1e-3..=100.0;
    pub const SHARE: RangeInclusive<f32> = 0.0..=1.0;
    pub const REPEAT_PENALTY: RangeInclusive<f32> = 0.01..=100.0;
    pub const PENALTY: RangeInclusive<f32> = -100.0..=100.0;
    /// More than any conversation has; llama.cpp allocates memory for all of them at once.
    pub const REPEAT_LAST_N: RangeInclusive<u32> = 0..=1_000_000;
    /// Excludes `LLAMA_DEFAULT_SEED`, with which llama.cpp chooses a random seed.
    pub const SEED: RangeInclusive<u32> = 0..=u32::MAX - 1;
}

/// Fails if `value` is not in `range`. `or` precedes the range in the message.
fn within<T: PartialOrd + std::fmt::Display>(
    name: &'static str,
    value: T,
    range: &std::ops::RangeInclusive<T>,
    or: &str,
) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    let expected = format!("{or}from {} to {}", range.start(), range.end());
    Err(Error::InvalidParameter { name, value: value.to_string(), expected })
}

impl SamplerParams {
    /// Checks that every value is in its range.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for the first value out of range.
    pub fn validate(&self) -> Result<()> {
        if self.temperature != 0.0 {
            within("temp", self.temperature, &range::TEMPERATURE, "0, or ")?;
        }
        within("top-p", self.top_p, &range::SHARE, "")?;
        within("min-p", self.min_p, &range::SHARE, "")?;
        within("repeat-penalty", self.repeat_penalty, &range::REPEAT_PENALTY, "")?;
        within("repeat-last-n", self.repeat_last_n, &range::REPEAT_LAST_N, "")?;
        within("frequency-penalty", self.frequency_penalty, &range::PENALTY, "")?;
        within("presence-penalty", self.presence_penalty, &range::PENALTY, "")?;
        within("seed", self.seed.unwrap_or_default(), &range::SEED, "")
    }
}

/// Returns `logits` if a token can be chosen from them. Minus infinity is allowed: models rule tokens out with it.
pub(super) fn checked(logits: &[f32]) -> Result<&[f32]> {
    // No branch for each value: this runs for every token.
    let has_no_number = |some: &[f32]| some.iter().fold(false, |found, l| found | l.is_nan() | (*l == f32::INFINITY));
    if logits.chunks(4096).any(has_no_number) || logits.iter().all(|&l| l == f32::NEG_INFINITY) {
        return Err(Error::LogitsNotFinite);
    }
    Ok(logits)
}

/// A chain of samplers and its state: the tokens seen, the position in the grammar, the random generator.
#[derive(Debug)]
pub struct Sampler {
    chain: NonNull<ffi::llama_sampler>,
    /// The grammar refers to the model's vocabulary.
    _model: Model,
}

// SAFETY: the chain owns all its state and nothing of it is tied to a thread; `&mut self` guards every change.
unsafe impl Send for Sampler {}

impl Drop for Sampler {
    fn drop(&mut self) {
        // SAFETY: the chain is ours, and frees the samplers that were added to it.
        unsafe { ffi::llama_sampler_free(self.chain.as_ptr()) };
    }
}

impl Sampler {
    /// Builds the chain for `params`, in llama.cpp's order: grammar, penalties, top-k, top-p, min-p, temperature,
    /// random choice.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for a value out of range or a grammar that cannot be parsed; [`Error::Llama`] if
    /// memory runs out.
    pub fn new(model: &Model, params: &SamplerParams) -> Result<Self> {
        params.validate()?;
        let grammar = params.grammar.as_deref().map(|text| c_grammar(text).map(|c_text| (text, c_text))).transpose()?;
        let raw = ffi::sharpv_sampler {
            grammar: grammar.as_ref().map_or(std::ptr::null(), |(_, c_text)| c_text.as_ptr()),
            repeat_last_n: i32::try_from(params.repeat_last_n).unwrap_or(i32::MAX),
            repeat_penalty: params.repeat_penalty,
            frequency_penalty: params.frequency_penalty,
            presence_penalty: params.presence_penalty,
            temperature: params.temperature,
            top_k: i32::try_from(params.top_k).unwrap_or(i32::MAX),
            top_p: params.top_p,
            min_p: params.min_p,
            seed: params.seed.unwrap_or(ffi::LLAMA_DEFAULT_SEED),
        };
        // SAFETY: the parameters and the grammar outlive the call, which copies them; the vocabulary lives as long as
        // `_model`. The chain that comes out is ours.
        let made = guarded(std::ptr::null_mut(), |result, err, err_len| unsafe {
            ffi::sharpv_try_sampler_init(model.vocab(), &raw, result, err, err_len)
        });
        match (made.value.map(NonNull::new), grammar) {
            (Some(Some(chain)), _) => Ok(Self { chain, _model: model.clone() }),
            (_, Some((text, _))) => Err(invalid_grammar(text, &made.reason)),
            (_, None) => Err(Error::Llama { action: "making a sampler", reason: made.reason }),
        }
    }

    /// Chooses a token from the last logits of `context`, and adds it to the tokens seen.
    ///
    /// # Errors
    /// [`Error::Llama`] if the context has no logits, or the grammar allows no token; [`Error::LogitsNotFinite`].
    pub fn sample(&mut self, context: &mut Context) -> Result<Token> {
        // llama.cpp aborts the process if there are no logits, and returns an arbitrary token if they are NaN.
        context.logits()?;
        // SAFETY: both objects live and are borrowed mutably; -1 names the last logits, which exist.
        let sampled = guarded(-1, |result, err, err_len| unsafe {
            ffi::sharpv_try_sampler_sample(self.chain.as_ptr(), context.as_ptr(), -1, result, err, err_len)
        });
        sampled
            .value
            .filter(|&token| token >= 0)
            .ok_or(Error::Llama { action: "sampling a token", reason: sampled.reason })
    }

    /// Forgets the tokens seen, and returns to the beginning of the grammar.
    ///
    /// # Errors
    /// [`Error::Llama`] if memory for the grammar's state runs out.
    pub fn reset(&mut self) -> Result<()> {
        // SAFETY: the chain is ours.
        let reset =
            guarded((), |(), err, err_len| unsafe { ffi::sharpv_try_sampler_reset(self.chain.as_ptr(), err, err_len) });
        reset.into_result().map_err(|reason| Error::Llama { action: "resetting the sampler", reason })
    }
}

/// The most bytes of a grammar. llama.cpp follows references between rules recursively.
const MAX_GRAMMAR: usize = 1 << 16;

/// The deepest nesting of parentheses, which llama.cpp parses recursively, too.
const MAX_DEPTH: usize = 250;

/// Returns `text` as a C string, if it is too small to overflow llama.cpp's stack.
fn c_grammar(text: &str) -> Result<CString> {
    // Counts parentheses within quotes, too. No sensible grammar has that many.
    let depth = text.bytes().scan(0_usize, |depth, byte| {
        match byte {
            b'(' => *depth += 1,
            b')' => *depth = depth.saturating_sub(1),
            _ => {}
        }
        Some(*depth)
    });
    if text.len() > MAX_GRAMMAR {
        return Err(invalid_grammar(text, &format!("it has {} bytes, more than {MAX_GRAMMAR}", text.len())));
    }
    if depth.max() > Some(MAX_DEPTH) {
        return Err(invalid_grammar(text, &format!("more than {MAX_DEPTH} parentheses are open at once")));
    }
    CString::new(text).map_err(|_| invalid_grammar(text, "it has a NUL byte"))
}

fn invalid_grammar(text: &str, reason: &str) -> Error {
    Error::InvalidParameter {
        name: "grammar",
        value: text.lines().next().unwrap_or_default().chars().take(200).collect(),
        // llama.cpp's reason ends with the rest of the grammar.
        expected: format!("a GBNF grammar with a rule named root ({})", reason.chars().take(300).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_has_a_range() {
        let good = SamplerParams::default();
        good.validate().expect("the default");
        SamplerParams { temperature: 1e-3, seed: Some(0), repeat_last_n: 0, ..good.clone() }.validate().expect("good");
        for (name, bad) in [
            ("temp", SamplerParams { temperature: 1e-4, ..good.clone() }),
            ("temp", SamplerParams { temperature: -1.0, ..good.clone() }),
            ("temp", SamplerParams { temperature: f32::NAN, ..good.clone() }),
            ("temp", SamplerParams { temperature: f32::INFINITY, ..good.clone() }),
            ("top-p", SamplerParams { top_p: 1.01, ..good.clone() }),
            ("min-p", SamplerParams { min_p: -0.01, ..good.clone() }),
            ("repeat-penalty", SamplerParams { repeat_penalty: 0.0, ..good.clone() }),
            ("repeat-penalty", SamplerParams { repeat_penalty: 1e9, ..good.clone() }),
            ("repeat-last-n", SamplerParams { repeat_last_n: 1_000_001, ..good.clone() }),
            ("frequency-penalty", SamplerParams { frequency_penalty: f32::NEG_INFINITY, ..good.clone() }),
            ("presence-penalty", SamplerParams { presence_penalty: 100.5, ..good.clone() }),
            ("seed", SamplerParams { seed: Some(u32::MAX), ..good.clone() }),
        ] {
            let error = bad.validate().expect_err(name).to_string();
            assert!(error.starts_with(&format!("{name} is ")) && error.contains("from "), "{error}");
        }
    }

    #[test]
    fn logits_that_are_no_numbers_are_refused() {
        let many = |value| [vec![0.5; 5000], vec![value]].concat();
        for good in [vec![1.0, -2.0], vec![f32::NEG_INFINITY, 0.0], many(f32::MIN), many(f32::NEG_INFINITY)] {
            assert_eq!(checked(&good).expect("good"), good);
        }
        for bad in [many(f32::NAN), many(-f32::NAN), many(f32::INFINITY), vec![f32::NEG_INFINITY; 3]] {
            assert!(matches!(checked(&bad), Err(Error::LogitsNotFinite)));
        }
    }
}
