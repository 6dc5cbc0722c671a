//! What a turn cost: the numbers that a program shows.

use super::cache::evict::EvictParams;
use super::cache::{Cache, Kv};
use super::conversation::Conversation;
use super::encoded::{EncodeTimings, EncodedSlice, EncodedVideo};
use super::engine::Engine;
use super::params::SessionParams;
use super::turn::{Chat, Finished, StopReason};
use crate::prune::PruneParams;
use crate::runtime::{SamplerParams, default_threads, peak_rss_bytes};
use crate::skip::EncodeParams;
use crate::video::{SurveyReport, VideoInfo};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// An answer, and what it cost.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Answer {
    /// The text, without the white space around it.
    pub answer: String,
    /// Why it ended.
    pub stop: StopReason,
    /// The model's description: architecture, size, quantization.
    pub model: String,
    /// Frames in the conversation.
    pub frames: usize,
    /// Slices in the conversation, one by one: fewer than frames, where the encoder merges those.
    pub slices: Vec<SliceReport>,
    /// Visual tokens in the conversation.
    pub visual_tokens: VisualTokens,
    /// What the vision encoder did of the work that the videos of the conversation would have taken.
    pub encoder: EncoderWork,
    /// Wall time of this turn.
    pub timings_ms: Timings,
    /// Text and visual tokens of this turn.
    pub tokens: Tokens,
    /// The KV cache after this turn.
    pub kv: Kv,
    /// How similar the visual tokens still are to what entered the model, for each of its layers: a mean cosine. Empty
    /// if nothing is evicted; `null` (NaN) for a layer without a value.
    pub similarity: Vec<f32>,
    /// The most memory that the process has held at once, in bytes; `null` where the system does not tell.
    pub peak_rss_bytes: Option<u64>,
    /// What produced it.
    pub settings: Settings,
}

/// One frame, or merged pair of frames.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SliceReport {
    /// The time of its first frame in the video, in seconds.
    pub time_s: f64,
    /// Frames that it shows.
    pub frames: usize,
    /// Its visual tokens.
    pub total: usize,
    /// Those that were kept.
    pub kept: usize,
    /// The share of its encoding that was computed, 0 to 1; 0 if nothing had changed.
    pub computed: f32,
}

/// What the vision encoder did.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct EncoderWork {
    /// The share of its work that was done, 0 to 1: patches times layers, mean over all slices. 1 when there are none.
    pub computed: f64,
    /// What the rest would have taken at the speed of what was done, in ms.
    pub saved_ms: f64,
}

/// Visual tokens over all slices.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VisualTokens {
    /// Before pruning.
    pub total: usize,
    /// After pruning.
    pub kept: usize,
    /// `kept / total`; 1 when there are none.
    pub keep_ratio: f64,
}

/// Wall time in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Timings {
    /// Loading language model and vision encoder, before the first turn.
    pub load: f64,
    /// Opening the videos that are new in this turn, and waiting for their frames. Of the decoding that is done
    /// [ahead](crate::chat::SessionParams::decode_ahead), only what the encoder had to wait for.
    pub decode_video: f64,
    /// The vision encoder, with its preprocessing.
    pub encode: f64,
    /// Scoring and choosing visual tokens.
    pub prune: f64,
    /// Feeding the prompt to the language model, with the allocation of the context.
    pub prefill: f64,
    /// From the start of the turn to the first token of the answer, without `load`.
    pub ttft: f64,
    /// Choosing and evicting visual tokens, within the answer or behind it.
    pub evict: f64,
    /// From the first token to the end of the answer, without `evict`: [`Tokens::decoded`] tokens went through the
    /// model in that time, and as many were chosen.
    pub generate: f64,
}

/// Tokens of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Tokens {
    /// Rows of the prompt: text tokens and kept visual tokens, with all earlier turns.
    pub prompt: usize,
    /// Those that were computed in this turn; the others were in the cache.
    pub prompt_computed: usize,
    /// Tokens of the answer, without the one that ends the model's turn.
    pub generated: usize,
    /// Those of them that went through the model, one after the other, to choose what follows: all, if the model ended
    /// its turn; all but the last, if the answer had to end. The first token comes from the prompt.
    pub decoded: usize,
}

/// What produced an answer.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Settings {
    /// The prompt layout.
    pub layout: &'static str,
    /// How visual tokens were pruned.
    pub prune: PruneParams,
    /// What was evicted from the KV cache.
    pub evict: EvictParams,
    /// How much of each image was encoded.
    pub encode: EncodeParams,
    /// How tokens were chosen.
    pub sampler: SamplerParams,
    /// The most tokens an answer may have.
    pub n_predict: usize,
    /// Rows computed at once.
    pub n_ubatch: usize,
    /// Threads.
    pub n_threads: usize,
    /// Types of the cached keys and values.
    pub cache_type: [&'static str; 2],
}

impl Settings {
    /// Those by which the questions of a conversation are answered.
    pub(in crate::chat) fn of(
        engine: &Engine,
        params: &SessionParams,
        conversation: &Conversation,
        cache: &Cache,
    ) -> Self {
        let compute = &params.compute;
        let caps = conversation.videos.iter().filter_map(|video| video.max_kept).chain(params.prune.cap);
        Self {
            layout: engine.layout.name(),
            prune: PruneParams { cap: caps.min(), ..params.prune.clone() },
            evict: EvictParams { mode: Some(params.evict_mode()), ..params.evict },
            encode: params.encode.of(params.prune.method),
            sampler: params.sampler.clone(),
            n_predict: params.n_predict,
            n_ubatch: cache.n_ubatch(&params.cache()),
            n_threads: compute.n_threads.unwrap_or_else(default_threads),
            cache_type: [compute.type_k.name(), compute.type_v.name()],
        }
    }
}

/// What an answer cost beside its turn.
#[derive(Debug)]
pub(in crate::chat) struct Beside {
    /// What was spent on the videos that are new in the turn.
    pub videos: EncodeTimings,
    /// What the vision encoder did for the videos of the conversation.
    pub encoder: EncoderWork,
    /// What was spent on the prompt before the turn.
    pub before: Duration,
}

impl Answer {
    /// What came of a turn in `chat`.
    pub(in crate::chat) fn of(chat: &Chat<'_>, finished: Finished, beside: Beside) -> Self {
        let Chat { engine, params, conversation, cache, .. } = chat;
        let Finished { prompt_rows, prompt_computed, prefill, answer } = finished;
        let Beside { videos, encoder, before } = beside;
        let prefill = prefill + before;
        let slices = slice_reports(&conversation.videos);
        Self {
            answer: answer.text.trim().to_owned(),
            stop: answer.stop,
            model: engine.model.description(),
            frames: conversation.videos.iter().map(|video| video.arrangement.n_frames.0).sum(),
            visual_tokens: count(&slices),
            slices,
            encoder,
            timings_ms: Timings {
                load: ms(engine.load),
                decode_video: ms(videos.decode_video),
                encode: ms(videos.encode),
                prune: ms(videos.prune),
                prefill: ms(prefill),
                ttft: ms(videos.decode_video + videos.encode + videos.prune + prefill + answer.first_token),
                evict: ms(answer.evict),
                generate: ms(answer.decode),
            },
            tokens: Tokens {
                prompt: prompt_rows,
                prompt_computed,
                generated: answer.n_tokens,
                decoded: answer.n_decoded,
            },
            kv: cache.report(engine, &chat.cache_params),
            similarity: chat.learned.similarity.layers.clone(),
            peak_rss_bytes: peak_rss_bytes(),
            settings: Settings::of(engine, params, conversation, cache),
        }
    }

    /// The speed of decoding: [`Tokens::decoded`] for each second of [`Timings::generate`]; 0 if no token was decoded.
    ///
    /// A token that is decoded goes through the model, and the next is chosen from its logits. So what the model takes
    /// to end its turn counts as the token before that end, and the answer's first token, which the prompt's logits
    /// give, is no part of it, nor is its time.
    pub fn tokens_per_second(&self) -> f64 {
        let decoded = self.tokens.decoded as f64;
        if self.timings_ms.generate > 0.0 { decoded * 1000.0 / self.timings_ms.generate } else { 0.0 }
    }
}

/// A video that was added to a session.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct VideoReport {
    /// What was opened.
    pub info: VideoInfo,
    /// How its frames were chosen, if it was by what changes.
    pub survey: Option<SurveyReport>,
    /// Its slices: frames, or merged pairs of them.
    pub slices: Vec<SliceReport>,
    /// Its visual tokens.
    pub visual_tokens: VisualTokens,
    /// What the vision encoder did.
    pub encoder: EncoderWork,
    /// What it took so far: opening, encoding and pruning it.
    pub timings_ms: Timings,
}

impl VideoReport {
    /// That of a video which `engine` encoded.
    pub(in crate::chat) fn of(engine: &Engine, video: &Arc<EncodedVideo>) -> Self {
        let slices = slice_reports(std::slice::from_ref(video));
        let timings_ms = Timings {
            load: ms(engine.load),
            decode_video: ms(video.timings.decode_video),
            encode: ms(video.timings.encode),
            prune: ms(video.timings.prune),
            ..Timings::default()
        };
        Self {
            info: video.info.clone(),
            survey: video.survey,
            visual_tokens: count(&slices),
            slices,
            encoder: encoder_work(std::slice::from_ref(video)),
            timings_ms,
        }
    }

    /// Frames that were taken of it.
    pub fn frames(&self) -> usize {
        self.slices.iter().map(|slice| slice.frames).sum()
    }
}

pub(in crate::chat) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

pub(in crate::chat) fn slice_reports(videos: &[Arc<EncodedVideo>]) -> Vec<SliceReport> {
    let slices = videos.iter().flat_map(|video| &video.slices);
    let report = |s: &EncodedSlice| SliceReport {
        time_s: s.time_s(),
        frames: s.n_frames(),
        total: s.n_tokens,
        kept: s.kept.len(),
        computed: s.computed,
    };
    slices.map(report).collect()
}

pub(in crate::chat) fn encoder_work(videos: &[Arc<EncodedVideo>]) -> EncoderWork {
    let slices = videos.iter().flat_map(|video| &video.slices);
    let (n, done) = slices.fold((0, 0.0), |(n, done), slice| (n + 1, done + f64::from(slice.computed)));
    let computed = if n == 0 { 1.0 } else { done / f64::from(n) };
    let taken: f64 = videos.iter().map(|video| video.timings.encode.as_secs_f64() * 1000.0).sum();
    let saved_ms = if computed > 0.0 { taken * (1.0 / computed - 1.0) } else { 0.0 };
    EncoderWork { computed, saved_ms }
}

pub(in crate::chat) fn count(slices: &[SliceReport]) -> VisualTokens {
    let (total, kept) = slices.iter().fold((0, 0), |(total, kept), s| (total + s.total, kept + s.kept));
    let keep_ratio = if total == 0 { 1.0 } else { kept as f64 / total as f64 };
    VisualTokens { total, kept, keep_ratio }
}
