//! Methods on one video, from the file to the last token of an answer.

use super::check;
use crate::chat::{Answer, Session, Settings, Timings, VideoOptions};
use crate::error::{Error, Result};
use crate::lab::methods;
use crate::lab::results::{MemoryUse, MethodCost, Ratios, RunSettings, Spread, StageSpreads, VideoBench, ratio};
use crate::observer::{Observer, Stage};
use crate::prune::{Budget, PruneParams};
use std::path::Path;

/// Runs each of `methods` on the video `repeats` times, in turns. Nothing but the loaded model is reused. One more run,
/// of the first method, precedes them and does not count. The session must have been opened with
/// [`keep_unpruned`](crate::chat::SessionParams::keep_unpruned). [`VideoBench::set_memory`] adds the memory.
///
/// # Errors
/// [`Error::InvalidParameter`] if a method is listed twice, and the errors of [`Session::add_video`] and
/// [`Session::ask`].
pub fn run(
    session: &mut Session,
    (video, options): (&Path, &VideoOptions),
    question: &str,
    methods: &[PruneParams],
    repeats: usize,
    observer: &mut dyn Observer,
) -> Result<VideoBench> {
    check(methods, repeats)?;
    let mut watch = Warnings { observer, told: Vec::new() };
    let total = (methods.len() * repeats + 1) as u64;
    let mut done = 0;
    let mut once = |session: &mut Session, params: &PruneParams| {
        session.clear();
        session.set_prune(params.clone())?;
        session.add_video(video, options, &mut watch)?;
        let answer = session.ask(question, &mut watch)?;
        // A cancelled answer is returned without an error, but its times are useless.
        session.cancel_token().check()?;
        done += 1;
        watch.observer.progress(Stage::Work, done * 1000 / total, 1000);
        watch.observer.progress(Stage::Runs, done, total);
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
    let last = last.ok_or_else(|| broken("there is no answer"))?;
    let budget = methods.iter().map(|params| params.budget).find(|budget| *budget != Budget::Adaptive);
    let mut bench = VideoBench {
        video: video.file_name().unwrap_or(video.as_os_str()).to_string_lossy().into_owned(),
        question: question.to_owned(),
        model: last.model,
        frames: last.frames,
        repeats,
        budget: budget.unwrap_or_default(),
        settings: as_shown(&last.settings)?,
        base: methods.first().map_or("", |params| methods::name(params.method)).to_owned(),
        methods: costs,
    };
    bench.compare();
    Ok(bench)
}

/// The settings as JSON. They pass through text, because 0.1 as an `f32` would become 0.10000000149011612 in a
/// [`Value`](serde_json::Value).
fn as_shown(settings: &Settings) -> Result<RunSettings> {
    let text = serde_json::to_string(settings);
    text.and_then(|text| serde_json::from_str(&text)).map_err(|error| broken(&format!("the settings: {error}")))
}

fn broken(what: &str) -> Error {
    Error::Llama { action: "measuring", reason: format!("{what}; please report this") }
}

impl VideoBench {
    /// Sets the memory that the method `name` took in a process of its own.
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

/// Forwards each warning once, since every run repeats it. Progress within a run is dropped: no run may wait for the
/// terminal.
struct Warnings<'a> {
    observer: &'a mut dyn Observer,
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
        name: methods::name(params.method).to_owned(),
        visual_tokens: last.visual_tokens,
        computed: last.encoder.computed,
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
