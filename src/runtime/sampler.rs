//! Choosing the next token.

use super::call::guarded;
use super::{Context, Model, Token};
use crate::error::{Error, Result};
use crate::ffi;
use std::ffi::CString;
use std::ptr::NonNull;

/// How the next token is chosen. The defaults are llama.cpp's, but for the temperature: greedy, since a question about
/// a video has a right answer.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct SamplerParams {
    /// 0 takes the likeliest token always (greedy); higher is more random.
    pub temperature: f32,
    /// Only the `top_k` likeliest tokens; 0 is all.
    pub top_k: u32,
    /// Only the likeliest tokens that together have this probability; 1 is all.
    pub top_p: f32,
    /// Only tokens with at least this share of the likeliest token's probability; 0 is all.
    pub min_p: f32,
    /// Divides the logits of tokens already seen; 1 is off.
    pub repeat_penalty: f32,
    /// Taken from the logits of tokens already seen, for each time; 0 is off.
    pub frequency_penalty: f32,
    /// Taken from the logits of tokens already seen, once; 0 is off.
    pub presence_penalty: f32,
    /// How many of the last tokens the penalties look at.
    pub repeat_last_n: u32,
    /// A GBNF grammar that the answer must follow.
    pub grammar: Option<String>,
    /// The seed of the random choice; `None` takes a new one each time.
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

impl SamplerParams {
    /// # Errors
    /// [`Error::InvalidParameter`] for the first value out of range.
    pub fn validate(&self) -> Result<()> {
        let within = |name, value: f32, low: f32, high: f32| {
            if value.is_finite() && (low..=high).contains(&value) {
                return Ok(());
            }
            Err(Error::InvalidParameter {
                name,
                value: value.to_string(),
                expected: if high == f32::MAX { format!("at least {low}") } else { format!("from {low} to {high}") },
            })
        };
        within("temp", self.temperature, 0.0, f32::MAX)?;
        within("top-p", self.top_p, 0.0, 1.0)?;
        within("min-p", self.min_p, 0.0, 1.0)?;
        within("repeat-penalty", self.repeat_penalty, f32::MIN_POSITIVE, f32::MAX)?;
        within("frequency-penalty", self.frequency_penalty, -100.0, 100.0)?;
        within("presence-penalty", self.presence_penalty, -100.0, 100.0)
    }
}

/// `logits`, if a token can be chosen by them. A model may rule tokens out with minus infinity.
pub(super) fn checked(logits: &[f32]) -> Result<&[f32]> {
    // Without a branch for each value: this is done for every token.
    let has_no_number = |some: &[f32]| some.iter().fold(false, |found, l| found | l.is_nan() | (*l == f32::INFINITY));
    if logits.chunks(4096).any(has_no_number) || logits.iter().all(|&l| l == f32::NEG_INFINITY) {
        return Err(Error::LogitsNotFinite);
    }
    Ok(logits)
}

/// A chain of samplers with its state: the tokens seen, the grammar's position, the random generator.
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
    /// choice.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for a value out of range or a grammar that cannot be parsed.
    pub fn new(model: &Model, params: &SamplerParams) -> Result<Self> {
        params.validate()?;
        // SAFETY: plain struct in, owned chain out.
        let chain = unsafe { ffi::llama_sampler_chain_init(ffi::llama_sampler_chain_default_params()) };
        let chain = NonNull::new(chain)
            .ok_or_else(|| Error::Llama { action: "making a sampler", reason: "out of memory".into() })?;
        let mut sampler = Self { chain, _model: model.clone() };
        if let Some(grammar) = &params.grammar {
            sampler.add_grammar(model, grammar)?;
        }
        // SAFETY: each init returns an owned sampler, which `add` gives to the chain.
        unsafe {
            if params.repeat_penalty != 1.0 || params.frequency_penalty != 0.0 || params.presence_penalty != 0.0 {
                sampler.add(ffi::llama_sampler_init_penalties(
                    model.n_vocab() as i32,
                    i32::try_from(params.repeat_last_n).unwrap_or(i32::MAX),
                    params.repeat_penalty,
                    params.frequency_penalty,
                    params.presence_penalty,
                ));
            }
            if params.temperature == 0.0 {
                sampler.add(ffi::llama_sampler_init_greedy());
            } else {
                sampler.add(ffi::llama_sampler_init_top_k(i32::try_from(params.top_k).unwrap_or(i32::MAX)));
                sampler.add(ffi::llama_sampler_init_top_p(params.top_p, 1));
                sampler.add(ffi::llama_sampler_init_min_p(params.min_p, 1));
                sampler.add(ffi::llama_sampler_init_temp(params.temperature));
                sampler.add(ffi::llama_sampler_init_dist(params.seed.unwrap_or(ffi::LLAMA_DEFAULT_SEED)));
            }
        }
        Ok(sampler)
    }

    fn add_grammar(&mut self, model: &Model, grammar: &str) -> Result<()> {
        let invalid = |reason: String| Error::InvalidParameter {
            name: "grammar",
            value: grammar.lines().next().unwrap_or_default().to_owned(),
            expected: format!("a GBNF grammar with a rule named root ({reason})"),
        };
        let text = CString::new(grammar).map_err(|_| invalid("it has a NUL byte".into()))?;
        // SAFETY: the strings outlive the call, which copies them; the vocabulary lives as long as `_model`.
        let made = guarded(std::ptr::null_mut(), |result, err, err_len| unsafe {
            let root = c"root".as_ptr();
            ffi::sharpv_try_sampler_init_grammar(model.vocab(), text.as_ptr(), root, result, err, err_len)
        });
        let Some(raw) = made.value.filter(|raw| !raw.is_null()) else { return Err(invalid(made.reason)) };
        // SAFETY: an owned sampler.
        unsafe { self.add(raw) };
        Ok(())
    }

    /// # Safety
    /// `sampler` must be null or owned by the caller, who gives it away.
    unsafe fn add(&mut self, sampler: *mut ffi::llama_sampler) {
        if !sampler.is_null() {
            // SAFETY: the chain is ours and takes ownership.
            unsafe { ffi::llama_sampler_chain_add(self.chain.as_ptr(), sampler) };
        }
    }

    /// Chooses a token from the last logits of `context`, and remembers it.
    ///
    /// # Errors
    /// [`Error::Llama`] if the context has no logits, or the grammar allows no token; [`Error::LogitsNotFinite`].
    pub fn sample(&mut self, context: &mut Context) -> Result<Token> {
        // llama.cpp ends the process when there are none, and takes any token where they are no numbers.
        context.logits()?;
        // SAFETY: both objects live and are borrowed mutably; -1 names the last logits, which exist.
        let sampled = guarded(-1, |result, err, err_len| unsafe {
            ffi::sharpv_try_sampler_sample(self.chain.as_ptr(), context.as_ptr(), -1, result, err, err_len)
        });
        sampled
            .value
            .filter(|&token| token >= 0)
            .ok_or(Error::Llama { action: "choosing a token", reason: sampled.reason })
    }

    /// Forgets the tokens seen and the grammar's position.
    pub fn reset(&mut self) {
        // SAFETY: the chain is ours.
        unsafe { ffi::llama_sampler_reset(self.chain.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
