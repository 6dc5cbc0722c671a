//! Methods on one video, from the file to the last token of an answer.

use super::spread::ratio;
use super::{BenchObserver, Spread, check, method_name};
use crate::chat::{Answer, Kv, Observer, Session, Settings, Timings, VideoOptions, VisualTokens};
use crate::error::{Error, Result};
use crate::prune::{Budget, PruneParams};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What methods cost on a video.
#[derive(Debug, Clone, Serialize)]
pub struct VideoBench {
    /// The name of the video's file.
    pub video: String,
    /// The question.
    pub question: String,
    /// The model's description.
    pub model: String,
    /// Frames taken.
    pub frames: usize,
    /// Runs of each method.
    pub repeats: usize,
    /// How many visual tokens all methods but dense may keep.
    pub budget: Budget,
    /// What the answers were made with; `prune` and `evict` are those of the last method.
    pub settings: Settings,
    /// The method that the ratios are to.
    pub base: &'static str,
    /// One entry for each method, in the order asked for.
    pub methods: Vec<MethodCost>,
}

/// What one method costs.
#[derive(Debug, Clone, Serialize)]
pub struct MethodCost {
    /// Its name.
    pub name: &'static str,
    /// Visual tokens of the video.
    pub visual_tokens: VisualTokens,
    /// Rows of the prompt: text and kept visual tokens.
    pub prompt_rows: usize,
    /// Tokens of the answer; fewer than asked for if the model ended it.
    pub generated: usize,
    /// Wall time.
    pub timings_ms: StageSpreads,
    /// Tokens for each second behind the first token; `null` for an answer of one token.
    pub decode_tokens_per_second: Option<Spread>,
    /// The KV cache behind the answer.
    pub kv: Kv,
    /// What a process of its own took.
    pub memory: MemoryUse,
    /// This method's medians over those of the base.
    pub ratios: Ratios,
}

/// Milliseconds of each stage, as in [`Timings`].
#[derive(Debug, Clone, Copy, Serialize)]
pub struct StageSpreads {
    /// Opening and decoding the video.
    pub decode_video: Spread,
    /// The vision encoder.
    pub encode: Spread,
    /// Scoring and choosing visual tokens.
    pub prune: Spread,
    /// The prompt through the language model.
    pub prefill: Spread,
    /// All of it, to the first token.
    pub ttft: Spread,
    /// Evicting visual tokens behind the first token.
    pub evict: Spread,
    /// From the first token to the last.
    pub generate: Spread,
}

/// Memory that a method needs, measured in a process that runs nothing else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct MemoryUse {
    /// The most that the process held at once; `null` if it was not measured.
    pub peak_rss_bytes: Option<u64>,
    /// What of the GPUs' memory was taken behind the answer, with the model; `null` without a GPU.
    pub device_bytes: Option<u64>,
}

/// Medians over those of the base: under 1 is less time, or less memory. `null` where the base has 0 or nothing was measured.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Ratios {
    /// Of the kept visual tokens.
    pub visual_tokens: Option<f64>,
    /// Of [`StageSpreads::encode`].
    pub encode: Option<f64>,
    /// Of [`StageSpreads::prefill`].
    pub prefill: Option<f64>,
    /// Of [`StageSpreads::ttft`].
    pub ttft: Option<f64>,
    /// Of [`MethodCost::decode_tokens_per_second`]: over 1 is faster.
    pub decode_tokens_per_second: Option<f64>,
    /// Of the KV cache's bytes.
    pub kv_bytes: Option<f64>,
    /// Of [`MemoryUse::peak_rss_bytes`].
    pub peak_rss_bytes: Option<f64>,
    /// Of [`MemoryUse::device_bytes`].
    pub device_bytes: Option<f64>,
}

/// Runs each of `methods` on the video `repeats` times, taking turns, with nothing reused but the loaded model. One more run, of the first
/// method, comes before and does not count. The session must have been opened with
/// [`keep_unpruned`](crate::chat::SessionParams::keep_unpruned). Memory is left to [`VideoBench::set_memory`].
///
/// # Errors
/// [`Error::InvalidParameter`] for a method that is there twice, and what [`Session::add_video`] and [`Session::ask`] fail with.
pub fn run(
    session: &mut Session,
    (video, options): (&Path, &VideoOptions),
    question: &str,
    methods: &[PruneParams],
    repeats: usize,
    observer: &mut dyn BenchObserver,
) -> Result<VideoBench> {
    check(methods, repeats)?;
    let mut watch = Warnings { observer, told: Vec::new() };
    let total = methods.len() * repeats + 1;
    let mut done = 0;
    let mut once = |session: &mut Session, params: &PruneParams| {
        session.clear();
        session.set_prune(params.clone())?;
        session.add_video(video, options, &mut watch)?;
        let answer = session.ask(question, &mut watch)?;
        // A stop during the answer leaves one, but it measures nothing.
        session.cancel_token().check()?;
        done += 1;
        watch.observer.step(done, total, done as f64 / total as f64);
        Ok::<_, Error>(answer)
    };
    let first = methods.first().map(|params| once(session, params)).transpose()?;
    let mut answers: Vec<Vec<Answer>> = vec![Vec::new(); methods.len()];
    for _ in 0..repeats {
        for (params, answers) in methods.iter().zip(&mut answers) {
            answers.push(once(session, params)?);
        }
    }
    session.clear();
    let costs = methods.iter().zip(&answers).filter_map(|(params, answers)| cost(params, answers)).collect();
    let last = answers.pop().and_then(|mut answers| answers.pop()).or(first);
    let nothing = || Error::Llama { action: "measuring", reason: "there is no answer; please report this".into() };
    let last = last.ok_or_else(nothing)?;
    let budget = methods.iter().map(|params| params.budget).find(|budget| *budget != Budget::Adaptive);
    let mut bench = VideoBench {
        video: video.file_name().unwrap_or(video.as_os_str()).to_string_lossy().into_owned(),
        question: question.to_owned(),
        model: last.model,
        frames: last.frames,
        repeats,
        budget: budget.unwrap_or_default(),
        settings: last.settings,
        base: methods.first().map_or("", |params| method_name(params.method)),
        methods: costs,
    };
    bench.compare();
    Ok(bench)
}

impl VideoBench {
    /// Adds what the method `name` took in a process of its own.
    pub fn set_memory(&mut self, name: &str, memory: MemoryUse) {
        for cost in self.methods.iter_mut().filter(|cost| cost.name == name) {
            cost.memory = memory;
        }
        self.compare();
    }

    fn compare(&mut self) {
        let Some(base) = self.methods.first().cloned() else { return };
        for cost in &mut self.methods {
            cost.ratios = ratios(cost, &base);
        }
    }
}

/// Tells each warning once: every run gives the same. Steps within a run are not shown, as no run is to wait for the terminal.
struct Warnings<'a> {
    observer: &'a mut dyn BenchObserver,
    told: Vec<String>,
}

impl Observer for Warnings<'_> {
    fn warning(&mut self, message: &str) {
        if !self.told.iter().any(|told| told == message) {
            self.told.push(message.to_owned());
            self.observer.warning(message);
        }
    }
}

fn cost(params: &PruneParams, answers: &[Answer]) -> Option<MethodCost> {
    let last = answers.last()?;
    let spread = |of: fn(&Timings) -> f64| Spread::of(answers.iter().map(|answer| of(&answer.timings_ms)));
    let speeds = answers.iter().map(Answer::tokens_per_second).filter(|&speed| speed > 0.0);
    Some(MethodCost {
        name: method_name(params.method),
        visual_tokens: last.visual_tokens,
        prompt_rows: last.tokens.prompt,
        generated: last.tokens.generated,
        timings_ms: StageSpreads {
            decode_video: spread(|t| t.decode_video)?,
            encode: spread(|t| t.encode)?,
            prune: spread(|t| t.prune)?,
            prefill: spread(|t| t.prefill)?,
            ttft: spread(|t| t.ttft)?,
            evict: spread(|t| t.evict)?,
            generate: spread(|t| t.generate)?,
        },
        decode_tokens_per_second: Spread::of(speeds),
        kv: last.kv,
        memory: MemoryUse::default(),
        ratios: Ratios::default(),
    })
}

fn ratios(cost: &MethodCost, base: &MethodCost) -> Ratios {
    let stage = |of: fn(&StageSpreads) -> &Spread| of(&cost.timings_ms).ratio_to(of(&base.timings_ms));
    let bytes = |value: Option<u64>, base: Option<u64>| ratio(value? as f64, base? as f64);
    Ratios {
        visual_tokens: ratio(cost.visual_tokens.kept as f64, base.visual_tokens.kept as f64),
        encode: stage(|t| &t.encode),
        prefill: stage(|t| &t.prefill),
        ttft: stage(|t| &t.ttft),
        decode_tokens_per_second: cost
            .decode_tokens_per_second
            .zip(base.decode_tokens_per_second)
            .and_then(|(speed, base)| speed.ratio_to(&base)),
        kv_bytes: bytes(Some(cost.kv.bytes), Some(base.kv.bytes)),
        peak_rss_bytes: bytes(cost.memory.peak_rss_bytes, base.memory.peak_rss_bytes),
        device_bytes: bytes(cost.memory.device_bytes, base.memory.device_bytes),
    }
}
