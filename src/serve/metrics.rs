//! Metrics for Prometheus.

use super::cache::Lookup;
use crate::chat::{Answer, EncodedVideo};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry, Unit};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

type Labels = Vec<(&'static str, String)>;
type Seconds = Counter<f64, AtomicU64>;

/// The metrics of one server.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
    duration: Histogram,
    cancelled: Family<Labels, Counter>,
    processing: Gauge,
    waiting: Gauge,
    prompt_tokens: Counter,
    cached_tokens: Counter,
    predicted_tokens: Counter,
    reasoning_tokens: Counter,
    stage_seconds: Family<Labels, Seconds>,
    frames: Counter,
    videos: Family<Labels, Counter>,
    visual_tokens: Counter,
    visual_tokens_kept: Counter,
    cache_videos: Gauge,
    cache_bytes: Gauge,
    kv_bytes: Family<Labels, Gauge>,
}

/// Values at the time of a query.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub processing: usize,
    pub waiting: usize,
    pub cache_videos: usize,
    pub cache_bytes: u64,
}

impl Metrics {
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("sharpv");
        let duration = Histogram::new(exponential_buckets(0.01, 2.5, 13));
        let help = "Time from a request to the end of its answer";
        registry.register_with_unit("request_duration", help, Unit::Seconds, duration.clone());
        let of = &mut registry;
        Self {
            requests: add(of, "requests", "HTTP requests, by route and status"),
            duration,
            cancelled: add(of, "requests_given_up", "Cancelled chat requests, by reason"),
            processing: add(of, "requests_processing", "Chat requests that slots work on"),
            waiting: add(of, "requests_deferred", "Chat requests that wait for a slot"),
            prompt_tokens: add(of, "prompt_tokens", "Rows of prompts: text and kept visual tokens"),
            cached_tokens: add(of, "prompt_tokens_cached", "Rows of prompts that were in a KV cache already"),
            predicted_tokens: add(of, "tokens_predicted", "Tokens of answers, with their thoughts"),
            reasoning_tokens: add(of, "tokens_predicted_reasoning", "Tokens of thoughts"),
            stage_seconds: add_with_unit(of, "stage", "Time by stage", Unit::Seconds),
            frames: add(of, "frames_encoded", "Frames that the vision encoder computed"),
            videos: add(of, "videos", "Videos of requests, encoded or from the cache"),
            visual_tokens: add(of, "visual_tokens", "Visual tokens of encoded videos"),
            visual_tokens_kept: add(of, "visual_tokens_kept", "Visual tokens that pruning kept"),
            cache_videos: add(of, "video_cache_videos", "Encoded videos in the cache"),
            cache_bytes: add_with_unit(of, "video_cache", "Memory of the encoded videos in the cache", Unit::Bytes),
            kv_bytes: add_with_unit(of, "kv", "Memory of each slot's KV cache", Unit::Bytes),
            registry,
        }
    }

    /// All metrics, in the text format of OpenMetrics.
    pub fn text(&self, now: Now) -> String {
        let set = |gauge: &Gauge, value: u64| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.processing, now.processing as u64);
        set(&self.waiting, now.waiting as u64);
        set(&self.cache_videos, now.cache_videos as u64);
        set(&self.cache_bytes, now.cache_bytes);
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// A request was answered, perhaps with an error.
    pub fn request(&self, route: &'static str, status: u16) {
        self.requests.get_or_create(&vec![("route", route.into()), ("status", status.to_string())]).inc();
    }

    /// An answer is complete, after this time.
    pub fn finished(&self, took: Duration) {
        self.duration.observe(took.as_secs_f64());
    }

    /// A chat request was cancelled.
    pub fn cancelled(&self, reason: &'static str) {
        self.cancelled.get_or_create(&vec![("reason", reason.into())]).inc();
    }

    pub fn frames(&self, n: u64) {
        self.frames.inc_by(n);
    }

    pub fn video(&self, lookup: Lookup, video: &EncodedVideo) {
        let name = match lookup {
            Lookup::Hit => "cache",
            Lookup::Miss => {
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
        self.reasoning_tokens.inc_by(answer.tokens.reasoning as u64);
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

fn add<M: Metric + Default + Clone>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

fn add_with_unit<M: Metric + Default + Clone>(registry: &mut Registry, name: &str, help: &str, unit: Unit) -> M {
    let metric = M::default();
    registry.register_with_unit(name, help, unit, metric.clone());
    metric
}
