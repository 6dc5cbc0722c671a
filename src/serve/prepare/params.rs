//! How to sample the answer, and which visual tokens to keep, within what the server was started with.

use super::thinking;
use crate::chat::{EvictMode, EvictParams, TurnParams};
use crate::prune::{Budget, Method, PruneParams};
use crate::runtime::SamplerParams;
use crate::serve::api::error::ApiError;
use crate::serve::api::request::{ChatRequest, SharpvParams, StopTexts, Whole};

/// The most stop texts, and the most bytes of each.
const MAX_STOPS: usize = 16;
const MAX_STOP: usize = 256;

/// The texts that end an answer.
pub(super) fn stops(stop: Option<StopTexts>) -> Result<Vec<String>, ApiError> {
    let stops = match stop {
        None => Vec::new(),
        Some(StopTexts::One(stop)) => vec![stop],
        Some(StopTexts::Several(stops)) => stops,
    };
    let is_good = stops.len() <= MAX_STOPS && stops.iter().all(|stop| (1..=MAX_STOP).contains(&stop.len()));
    let expected = || format!("stop must be at most {MAX_STOPS} texts of 1 to {MAX_STOP} bytes");
    if is_good { Ok(stops) } else { Err(ApiError::invalid("stop", expected())) }
}

/// The parameters of one answer. `base` are those of the server.
pub(super) fn turn_params(
    request: &ChatRequest<'_>,
    own: &SharpvParams,
    base: &TurnParams,
) -> Result<TurnParams, ApiError> {
    let n_predict = match request.max_completion_tokens.or(request.max_tokens) {
        None | Some(Whole(-1)) => base.n_predict,
        Some(Whole(n)) if n < 1 => {
            let expected = "max_tokens must be at least 1, or -1 for as many as the server allows";
            return Err(ApiError::invalid("max_tokens", expected));
        }
        Some(Whole(n)) => usize::try_from(n).unwrap_or(usize::MAX).min(base.n_predict),
    };
    let top_k = match request.top_k {
        // vLLM's −1 is all tokens.
        Some(Whole(k)) if k < 1 => 0,
        Some(Whole(k)) => u32::try_from(k).unwrap_or(u32::MAX),
        None => base.sampler.top_k,
    };
    let seed = match request.seed {
        Some(Whole(-1)) => None,
        // The lower half of a longer seed.
        Some(Whole(seed)) => Some(seed as u32),
        None => base.sampler.seed,
    };
    let repeat_penalty = request.repeat_penalty.or(request.repetition_penalty);
    let sampler = SamplerParams {
        temperature: request.temperature.unwrap_or(base.sampler.temperature),
        top_p: request.top_p.unwrap_or(base.sampler.top_p),
        top_k,
        min_p: request.min_p.unwrap_or(base.sampler.min_p),
        repeat_penalty: repeat_penalty.unwrap_or(base.sampler.repeat_penalty),
        frequency_penalty: request.frequency_penalty.unwrap_or(base.sampler.frequency_penalty),
        presence_penalty: request.presence_penalty.unwrap_or(base.sampler.presence_penalty),
        seed,
        ..base.sampler.clone()
    };
    sampler.validate()?;
    let evict = match &own.evict {
        None => base.evict,
        Some(name) => match name.parse::<EvictMode>()? {
            // A threshold has no meaning where nothing is evicted.
            EvictMode::Off => EvictParams::off(),
            mode => EvictParams { mode: Some(mode), ..base.evict },
        },
    };
    let prune = prune_params(own, &base.prune)?;
    let (thinking, template_kwargs) = thinking::params(request, base, n_predict)?;
    Ok(TurnParams { sampler, n_predict, prune, evict, thinking, template_kwargs })
}

fn prune_params(own: &SharpvParams, base: &PruneParams) -> Result<PruneParams, ApiError> {
    let invalid = |message| ApiError::invalid("sharpv", message);
    let method = match &own.prune {
        Some(name) => name.parse::<Method>()?,
        None if !base.method.prunes() && (own.keep.is_some() || own.max_visual_tokens.is_some()) => Method::SHARPV,
        None => base.method,
    };
    let beyond = || {
        invalid(
            "this server was started with a budget of visual tokens: a request can lower the budget, but not raise it",
        )
    };
    let budget = match (own.keep, own.max_visual_tokens) {
        (Some(_), Some(_)) => return Err(invalid("send either keep or max_visual_tokens")),
        (Some(_), None) | (None, Some(_)) if !method.prunes() => {
            return Err(invalid("keep and max_visual_tokens need a pruning method: send another prune than off"));
        }
        (Some(ratio), None) => Budget::Keep(ratio),
        (None, Some(Whole(n))) => {
            Budget::MaxTokens(usize::try_from(n).map_err(|_| invalid("max_visual_tokens must be at least 1"))?)
        }
        (None, None) => base.budget,
    };
    let (budget, cap) = match (base.budget, budget) {
        (Budget::Adaptive, budget) => (budget, base.cap),
        _ if !method.prunes() => return Err(beyond()),
        (Budget::Keep(most), Budget::Keep(ratio)) => (Budget::Keep(ratio.min(most)), base.cap),
        (Budget::MaxTokens(most), Budget::MaxTokens(n)) => (Budget::MaxTokens(n.min(most)), base.cap),
        (Budget::MaxTokens(most), budget @ Budget::Keep(_)) => (budget, base.cap.into_iter().chain([most]).min()),
        (own, budget) if own == budget => (budget, base.cap),
        _ => return Err(beyond()),
    };
    let params = PruneParams { method, budget, cap, ..base.clone() };
    params.validate()?;
    Ok(params)
}
