//! Generating: one token after the other, behind a prompt that is in the cache.

use super::answer::StopReason;
use super::engine::Engine;
use super::kv::KvState;
use super::kv::trial::LOOKED_AT;
use super::params::SessionParams;
use super::utf8::Utf8Stream;
use crate::error::{Error, Result};
use crate::observer::Observer;
use crate::runtime::Sampler;
use std::time::{Duration, Instant};

/// Writes the answer that the prefilled prompt calls for, until the model ends it or it has to end. Its first token
/// stands at `position`.
pub(super) fn generate(
    engine: &Engine,
    params: &SessionParams,
    kv: &mut KvState,
    mut position: i32,
    observer: &mut dyn Observer,
) -> Result<Generated> {
    let mut sampler = Sampler::new(&engine.model, &params.sampler)?;
    let last_position = engine.model.n_ctx_train();
    let mut utf8 = Utf8Stream::default();
    let mut text = String::new();
    let mut n_tokens = 0;
    let mut first_token_at = None;
    let mut evict = Duration::ZERO;
    let mut evicted = false;
    // Behind the first token, which nobody has to wait for, or when there is enough of the answer to look at.
    let evict_at = if kv.looks(params) { LOOKED_AT } else { 1 };
    let stop = loop {
        let token = kv.read_logits(|context| sampler.sample(context))?;
        first_token_at.get_or_insert_with(Instant::now);
        if engine.model.is_end_of_generation(token) {
            break StopReason::EndOfTurn;
        }
        n_tokens += 1;
        emit(utf8.push(&engine.model.token_bytes(token, false)), &mut text, observer);
        if n_tokens >= params.n_predict {
            break StopReason::Length;
        }
        if !evicted && n_tokens >= evict_at {
            evicted = true;
            let start = Instant::now();
            let result = kv.settle(engine, params, observer);
            evict = start.elapsed();
            match result {
                Ok(()) => {}
                Err(Error::Cancelled) => break StopReason::Cancelled,
                Err(error) => return Err(error),
            }
        }
        if !kv.has_room() || position as usize >= last_position {
            break StopReason::ContextFull;
        }
        match kv.push_token(token, position) {
            Ok(()) => {}
            Err(Error::Cancelled) => break StopReason::Cancelled,
            Err(error) => return Err(error),
        }
        position += 1;
    };
    emit(utf8.finish(), &mut text, observer);
    let generated = first_token_at.map_or(Duration::ZERO, |at| at.elapsed());
    let first_token_at = first_token_at.unwrap_or_else(Instant::now);
    let decode = generated.saturating_sub(evict);
    Ok(Generated { text, stop, n_tokens, first_token_at, decode, evict })
}

/// An answer as it came out of the model.
pub(super) struct Generated {
    pub text: String,
    pub stop: StopReason,
    pub n_tokens: usize,
    pub first_token_at: Instant,
    /// From there to the last token, without evicting.
    pub decode: Duration,
    /// Choosing and evicting.
    pub evict: Duration,
}

/// Hands a piece of an answer on.
fn emit(piece: String, text: &mut String, observer: &mut dyn Observer) {
    if !piece.is_empty() {
        observer.text(&piece);
        text.push_str(&piece);
    }
}
