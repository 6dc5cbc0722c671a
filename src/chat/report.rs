//! Reports: the numbers that a program shows of a turn and of a video.

use super::cache::evict::EvictParams;
use super::cache::{Cache, Kv};
use super::conversation::Conversation;
use super::encoded::{EncodeTimings, EncodedSlice, EncodedVideo};
use super::engine::{Engine, Thinking};
use super::params::SessionParams;
use super::turn::{Chat, Finished, StopReason};
use crate::prune::PruneParams;
use crate::runtime::{SamplerParams, default_threads, peak_rss_bytes};
use crate::skip::EncodeParams;
use crate::video::{SurveyReport, VideoInfo};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;

/// An answer, with the time, the tokens and the memory that it took.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Answer {
    /// The text, without the white space around it and without the thought before it.
    pub answer: String,
    /// What the model thought before it answered, without the white space around it; `None` without a thought.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// Why the answer ended.
    pub stop: StopReason,
    /// The model's description: architecture, size, quantization.
    pub model: String,
    /// Frames in the conversation.
    pub frames: usize,
    /// Each slice in the conversation; there are fewer than `frames` if the encoder merges frames.
    pub slices: Vec<SliceReport>,
    /// Visual tokens in the conversation.
    pub visual_tokens: VisualTokens,
    /// How much of the conversation's videos the vision encoder computed.
    pub encoder: EncoderWork,
    /// Wall time of this turn.
    pub timings_ms: Timings,
    /// Text and visual tokens of this turn.
    pub tokens: Tokens,
    /// The KV cache after this turn.
    pub kv: Kv,
    /// The mean cosine between the visual tokens' states at the input of each layer and their embeddings, `[n_layer]`.
    /// Empty if nothing is evicted; NaN (`null` in JSON) for a layer without a value.
    pub similarity: Vec<f32>,
    /// The process's peak resident memory in bytes; `None` where the system does not report it.
    pub peak_rss_bytes: Option<u64>,
    /// The settings that produced it.
    pub settings: Settings,
}

/// One slice: a frame, or a group of frames that the encoder merged.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SliceReport {
    /// The time of its first frame in the video, in seconds.
    pub time_s: f64,
    /// The number of its frames.
    pub frames: usize,
    /// Its visual tokens.
    pub total: usize,
    /// How many of them were kept.
    pub kept: usize,
    /// The share of its encoding that was computed, 0 to 1; 0 if nothing had changed.
    pub computed: f32,
}

/// How much of its work the vision encoder computed, and how much time that saved.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct EncoderWork {
    /// The share of patches times layers that was computed, 0 to 1, averaged over all slices; 1 if there are none.
    pub computed: f64,
    /// The time saved, in ms: what the rest would have taken at the same speed.
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
    /// `kept / total`; 1 if there are none.
    pub keep_ratio: f64,
}

/// Wall time in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Timings {
    /// Loading language model and vision encoder, before the first turn.
    pub load: f64,
    /// Opening the videos that are new in this turn, and decoding their frames. If frames are decoded
    /// [ahead](crate::chat::SessionParams::decode_ahead), only the time that the encoder waited for them.
    pub decode_video: f64,
    /// Encoding images, including preprocessing.
    pub encode: f64,
    /// Scoring and selecting visual tokens.
    pub prune: f64,
    /// Prefilling the prompt, including allocating the context.
    pub prefill: f64,
    /// From the start of the turn to the first token that the model writes, be it of a thought or of the answer;
    /// without `load`.
    pub ttft: f64,
    /// From the start of the turn to the first token of the answer, without `load`: `ttft` if the model did not think.
    /// 0 if the answer did not begin.
    pub first_answer: f64,
    /// Deciding which visual tokens to evict, and evicting them, during the answer or after it.
    pub evict: f64,
    /// From the first token to the end of the answer, with the thought and without `evict`. In this time
    /// [`Tokens::decoded`] tokens were decoded, and as many were sampled.
    pub generate: f64,
}

/// Tokens of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Tokens {
    /// Rows of the prompt: text tokens and kept visual tokens, including those of earlier turns.
    pub prompt: usize,
    /// How many of them were computed in this turn; the others were in the KV cache.
    pub prompt_computed: usize,
    /// Tokens of the answer and of the thought before it, without the one that ends the model's turn.
    pub generated: usize,
    /// How many of them are the thought and its delimiters.
    pub reasoning: usize,
    /// How many of them were decoded: all if the model ended its turn, all but the last if the answer was cut off. The
    /// first token is sampled from the prompt's logits.
    pub decoded: usize,
}

/// The settings that produce an answer.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Settings {
    /// The prompt layout.
    pub layout: &'static str,
    /// How visual tokens are pruned.
    pub prune: PruneParams,
    /// What is evicted from the KV cache.
    pub evict: EvictParams,
    /// How much of each image is encoded.
    pub encode: EncodeParams,
    /// How tokens are sampled.
    pub sampler: SamplerParams,
    /// The maximum number of tokens of an answer, with the thought before it.
    pub n_predict: usize,
    /// Whether the model thinks before it answers.
    pub thinking: Thinking,
    /// What the chat template is told besides.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub template_kwargs: Map<String, Value>,
    /// Rows of a ubatch.
    pub n_ubatch: usize,
    /// Threads of the language model.
    pub n_threads: usize,
    /// The types of the keys and of the values in the KV cache.
    pub cache_type: [&'static str; 2],
}

impl Settings {
    /// The settings with which questions of `conversation` are answered.
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
            thinking: params.thinking,
            template_kwargs: params.template_kwargs.clone(),
            n_ubatch: cache.n_ubatch(&params.cache()),
            n_threads: compute.n_threads.unwrap_or_else(default_threads),
            cache_type: [compute.type_k.name(), compute.type_v.name()],
        }
    }
}

/// What an answer took before its turn.
#[derive(Debug)]
pub(in crate::chat) struct BeforeTurn {
    /// Time spent on the videos that are new in the turn.
    pub videos: EncodeTimings,
    /// What the vision encoder computed for the videos of the conversation.
    pub encoder: EncoderWork,
    /// Time spent before the turn, on a search for example. It counts as prefill.
    pub before: Duration,
}

impl Answer {
    /// The answer of a finished turn of `chat`.
    pub(in crate::chat) fn of(chat: &Chat<'_>, finished: Finished, before_turn: BeforeTurn) -> Self {
        let Chat { engine, params, conversation, cache, .. } = chat;
        let Finished { prompt_rows, prompt_computed, prefill, answer } = finished;
        let BeforeTurn { videos, encoder, before } = before_turn;
        let prefill = prefill + before;
        let slices = slice_reports(&conversation.videos);
        let before_token = videos.decode_video + videos.encode + videos.prune + prefill;
        let ttft = before_token + answer.first_token;
        let first_answer = answer.first_answer.map(|time| before_token + time);
        Self {
            reasoning: answer.reasoning(),
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
                ttft: ms(ttft),
                first_answer: first_answer.map_or(0.0, ms),
                evict: ms(answer.evict),
                generate: ms(answer.decode),
            },
            tokens: Tokens {
                prompt: prompt_rows,
                prompt_computed,
                generated: answer.n_tokens,
                reasoning: answer.n_reasoning,
                decoded: answer.n_decoded,
            },
            kv: cache.report(engine, &chat.cache_params),
            similarity: chat.learned.similarity.layers.clone(),
            peak_rss_bytes: peak_rss_bytes(),
            settings: Settings::of(engine, params, conversation, cache),
        }
    }

    /// The decoding speed, in tokens per second: [`Tokens::decoded`] over [`Timings::generate`]; 0 if no token was
    /// decoded.
    ///
    /// The answer's first token is sampled from the prompt's logits, so neither it nor its time counts. Decoding the
    /// last token counts if the model then ended its turn.
    pub fn tokens_per_second(&self) -> f64 {
        let decoded = self.tokens.decoded as f64;
        if self.timings_ms.generate > 0.0 { decoded * 1000.0 / self.timings_ms.generate } else { 0.0 }
    }
}

/// What adding a video to a session took and produced.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct VideoReport {
    /// The source that was opened.
    pub info: VideoInfo,
    /// The survey that chose its frames; `None` without one.
    pub survey: Option<SurveyReport>,
    /// Its slices, in order.
    pub slices: Vec<SliceReport>,
    /// Its visual tokens.
    pub visual_tokens: VisualTokens,
    /// How much of it the vision encoder computed.
    pub encoder: EncoderWork,
    /// The time spent so far on opening, encoding and pruning it.
    pub timings_ms: Timings,
}

impl VideoReport {
    /// The report of a video that `engine` encoded.
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

    /// The number of frames taken from it.
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
