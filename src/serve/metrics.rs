//! Numbers for Prometheus.

use super::cache::Origin;
use crate::chat::{Answer, EncodedVideo};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

type Labels = Vec<(&'static str, String)>;
type Seconds = Counter<f64, AtomicU64>;

/// What is counted.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
    duration: Histogram,
    given_up: Family<Labels, Counter>,
    processing: Gauge,
    waiting: Gauge,
    prompt_tokens: Counter,
    cached_tokens: Counter,
    predicted_tokens: Counter,
    stage_seconds: Family<Labels, Seconds>,
    frames: Counter,
    videos: Family<Labels, Counter>,
    visual_tokens: Counter,
    visual_tokens_kept: Counter,
    cache_videos: Gauge,
    cache_bytes: Gauge,
    kv_bytes: Family<Labels, Gauge>,
}

/// How things are at the moment of the question.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub processing: usize,
    pub waiting: usize,
    pub cache_videos: usize,
    pub cache_bytes: u64,
}

impl Metrics {
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("sharpv"),
            requests: Family::default(),
            duration: Histogram::new(exponential_buckets(0.01, 2.5, 13)),
            given_up: Family::default(),
            processing: Gauge::default(),
            waiting: Gauge::default(),
            prompt_tokens: Counter::default(),
            cached_tokens: Counter::default(),
            predicted_tokens: Counter::default(),
            stage_seconds: Family::default(),
            frames: Counter::default(),
            videos: Family::default(),
            visual_tokens: Counter::default(),
            visual_tokens_kept: Counter::default(),
            cache_videos: Gauge::default(),
            cache_bytes: Gauge::default(),
            kv_bytes: Family::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("requests", "HTTP requests, by route and status", self.requests.clone());
        registry.register_with_unit(
            "request_duration",
            "Time to an answer's end",
            Unit::Seconds,
            self.duration.clone(),
        );
        registry.register("requests_given_up", "Chat requests that were given up, and why", self.given_up.clone());
        registry.register("requests_processing", "Chat requests at work", self.processing.clone());
        registry.register("requests_deferred", "Chat requests that wait for a slot", self.waiting.clone());
        registry.register("prompt_tokens", "Rows of prompts: text and kept visual tokens", self.prompt_tokens.clone());
        registry.register("prompt_tokens_cached", "Those that were in a KV cache already", self.cached_tokens.clone());
        registry.register("tokens_predicted", "Tokens of answers", self.predicted_tokens.clone());
        registry.register_with_unit("stage", "Time by stage", Unit::Seconds, self.stage_seconds.clone());
        registry.register("frames_encoded", "Frames that went through the vision encoder", self.frames.clone());
        registry.register("videos", "Videos of requests: encoded, or from the cache", self.videos.clone());
        registry.register("visual_tokens", "Visual tokens of encoded videos", self.visual_tokens.clone());
        registry.register("visual_tokens_kept", "Those that pruning kept", self.visual_tokens_kept.clone());
        registry.register("video_cache_videos", "Encoded videos in the cache", self.cache_videos.clone());
        registry.register_with_unit("video_cache", "Memory that they take", Unit::Bytes, self.cache_bytes.clone());
        registry.register_with_unit("kv", "Memory of each slot's KV cache", Unit::Bytes, self.kv_bytes.clone());
    }

    /// In the text format of OpenMetrics.
    pub fn text(&self, now: Now) -> String {
        let set = |gauge: &Gauge, value: u64| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.processing, now.processing as u64);
        set(&self.waiting, now.waiting as u64);
        set(&self.cache_videos, now.cache_videos as u64);
        set(&self.cache_bytes, now.cache_bytes);
        let mut text = String::new();
        // A string takes everything.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// A request was answered, if only with an error.
    pub fn request(&self, route: &'static str, status: u16) {
        self.requests.get_or_create(&vec![("route", route.into()), ("status", status.to_string())]).inc();
    }

    /// An answer came to its end.
    pub fn finished(&self, took: Duration) {
        self.duration.observe(took.as_secs_f64());
    }

    /// Nobody waits for an answer any more.
    pub fn given_up(&self, why: &'static str) {
        self.given_up.get_or_create(&vec![("reason", why.into())]).inc();
    }

    pub fn frames(&self, n: u64) {
        self.frames.inc_by(n);
    }

    pub fn video(&self, origin: Origin, video: &EncodedVideo) {
        let name = match origin {
            Origin::Cached => "cache",
            Origin::Encoded => {
                let tokens = video.visual_tokens();
                self.visual_tokens.inc_by(tokens.total as u64);
                self.visual_tokens_kept.inc_by(tokens.kept as u64);
                "encoder"
            }
        };
        self.videos.get_or_create(&vec![("from", name.into())]).inc();
    }

    pub fn answered(&self, answer: &Answer) {
        self.prompt_tokens.inc_by(answer.tokens.prompt as u64);
        self.cached_tokens.inc_by((answer.tokens.prompt - answer.tokens.prompt_computed) as u64);
        self.predicted_tokens.inc_by(answer.tokens.generated as u64);
        let times = &answer.timings_ms;
        for (stage, ms) in [
            ("decode_video", times.decode_video),
            ("encode", times.encode),
            ("prune", times.prune),
            ("prefill", times.prefill),
            ("evict", times.evict),
            ("generate", times.generate),
        ] {
            self.stage_seconds.get_or_create(&vec![("stage", stage.into())]).inc_by(ms / 1000.0);
        }
    }

    pub fn kv_bytes(&self, slot: usize, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.kv_bytes.get_or_create(&vec![("slot", slot.to_string())]).set(bytes);
    }
}
