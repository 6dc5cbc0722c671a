//! The options that `ask` and `chat` share, in the groups in which the help shows them, and what they mean to the library.

use crate::args::SessionArgs;
use crate::memory;
use crate::values::{self, GpuLayers, Seed};
use anyhow::Context;
use clap::Args;
use sharpv::chat::{self, EvictMode, EvictParams, SessionParams};
use sharpv::models::{self, ModelFiles};
use sharpv::prune::{Budget, Method, PruneParams};
use sharpv::runtime::{CancelToken, ComputeParams, FlashAttention, KvType, ModelParams, SamplerParams, VisionParams};
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub struct ModelOptions {
    /// A name of `sharpv models`, a language model in GGUF, or a repository of Hugging Face, fetched if need be [default: smol]
    #[arg(short, long, value_name = "NAME|FILE|ORG/REPO[:QUANT]")]
    pub model: Option<String>,

    /// The model's multimodal projector in GGUF [default: the *mmproj*.gguf beside the model, or of its repository]
    #[arg(long, value_name = "FILE")]
    mmproj: Option<PathBuf>,

    /// A LoRA adapter in GGUF; may be given more than once
    #[arg(long, value_name = "FILE")]
    lora: Vec<PathBuf>,

    /// Layers of the model to put on the GPU: a number, or `all` [short: -ngl] [default: all]
    #[arg(long, visible_alias = "n-gpu-layers", value_name = "N", allow_hyphen_values = true)]
    gpu_layers: Option<GpuLayers>,

    /// Devices to use, separated by commas (`sharpv doctor` lists them); `none` is the CPU alone [short: -dev] [default: all GPUs]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    device: Vec<String>,

    /// Run the vision encoder on the CPU
    #[arg(long)]
    no_mmproj_offload: bool,

    /// Keep the KV cache in the system's memory [short: -nkvo]
    #[arg(long)]
    no_kv_offload: bool,

    /// Read the model into memory rather than map its file
    #[arg(long)]
    no_mmap: bool,

    /// Threads to compute with [default: one for each core]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    threads: Option<u16>,

    /// Cells of the KV cache; 0 allocates what the conversation needs
    #[arg(short, long, value_name = "N", default_value_t = 0)]
    ctx_size: u32,

    /// Take no more memory than this for KV cache and buffers: bytes, or with K, M, G [default: what is free]
    #[arg(long, value_name = "SIZE", value_parser = values::bytes)]
    max_memory: Option<u64>,

    /// Rows (text and visual tokens) computed at once [short: -ub]
    #[arg(long, value_name = "N", default_value_t = ComputeParams::default().n_ubatch as u32)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=65536))]
    ubatch_size: u32,

    /// Fused attention [short: -fa]
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = values::flash_attention())]
    flash_attn: FlashAttention,

    /// How the KV cache stores keys [short: -ctk]
    #[arg(long, value_name = "TYPE", default_value = "f16", value_parser = values::kv_type())]
    cache_type_k: KvType,

    /// How the KV cache stores values; a quantized type needs flash attention [short: -ctv]
    #[arg(long, value_name = "TYPE", default_value = "f16", value_parser = values::kv_type())]
    cache_type_v: KvType,

    /// A chat template (Jinja) in place of the model's own
    #[arg(long, value_name = "FILE")]
    chat_template_file: Option<PathBuf>,

    /// The prompt layout: what stands between the frames [default: that of the model's family]
    #[arg(long, value_name = "NAME", value_parser = values::layout_name())]
    layout: Option<String>,

    /// Cut frames into tiles where the encoder cuts up single pictures: many more visual tokens
    #[arg(long)]
    tile: bool,

    /// A system message [short: -sys] [default: none, or the chat template's]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    system_prompt: Option<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Frames")]
pub struct VideoOptions {
    /// Frames to take for each second of video [default: that of the model's family (docs/layouts.md)]
    #[arg(long, value_name = "N", value_parser = values::rate)]
    fps: Option<f64>,

    /// Take no more frames than this; without --fps, the number of frames
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_frames: Option<u32>,

    /// Take fewer frames, smaller pictures or fewer visual tokens where a video does not fit; what is asked for stays [default]
    #[arg(long, overrides_with = "no_fit")]
    fit: bool,

    /// Refuse a video that does not fit
    #[arg(long, overrides_with = "fit")]
    no_fit: bool,

    /// Where to begin: seconds or [H:]MM:SS [default: the video's start]
    #[arg(long, value_name = "TIME", value_parser = values::moment)]
    start: Option<f64>,

    /// Where to end: seconds or [H:]MM:SS [default: the video's end]
    #[arg(long, value_name = "TIME", value_parser = values::moment)]
    end: Option<f64>,

    /// Pictures for each second of a folder of numbered pictures [default: 1]
    #[arg(long, value_name = "N", value_parser = values::rate)]
    folder_fps: Option<f64>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Visual tokens")]
pub struct PruneOptions {
    /// Which visual tokens to keep: those that SharpV finds important; all (off); as many as SharpV, chosen blindly (random, uniform); or what
    /// another method chooses (evs, vidcom2, dycoke, divprune)
    #[arg(long, value_name = "METHOD", default_value = "sharpv", value_parser = values::method())]
    prune: Method,

    /// Keep this share of the visual tokens, 0 to 1 [default: what the video needs, as SharpV sees it; with other methods what their papers keep]
    #[arg(long, value_name = "SHARE", group = "budget")]
    keep: Option<f32>,

    /// Keep at most this many visual tokens in all
    #[arg(long, value_name = "N", group = "budget")]
    max_visual_tokens: Option<usize>,

    /// Keep the tokens whose importance is over this: the manual mode of the paper, which has 1.6. Not with --prune divprune
    #[arg(long, value_name = "K", group = "budget")]
    threshold: Option<f32>,

    /// SharpV's weight of spatial against temporal importance
    #[arg(long, value_name = "W", default_value_t = PruneParams::default().spatial_weight)]
    spatial_weight: f32,

    /// Keep at least this many tokens of a video's first frame (SharpV, random, uniform)
    #[arg(long, value_name = "N", default_value_t = PruneParams::default().min_keep)]
    min_keep: usize,
}

impl PruneOptions {
    /// The options of SharpV as it is without any.
    pub fn default_method() -> Self {
        let PruneParams { method, spatial_weight, min_keep, .. } = PruneParams::default();
        Self { prune: method, keep: None, max_visual_tokens: None, threshold: None, spatial_weight, min_keep }
    }

    /// How visual tokens are chosen.
    pub fn method(&self) -> Method {
        self.prune
    }
}

#[derive(Debug, Args)]
#[command(next_help_heading = "KV cache")]
pub struct EvictOptions {
    /// What leaves the KV cache behind the prompt: all visual tokens in the layers where little is left of them (layers), the visual tokens of
    /// which little is left (tokens), or nothing (off) [default: layers; off with --prune off]
    #[arg(long, value_name = "WHAT", value_parser = values::evict_mode())]
    evict: Option<EvictMode>,

    /// Evict below this similarity, -1 to 1; the paper has 0.2 [default: as much as leaves answers as they are]
    #[arg(long, value_name = "M", allow_negative_numbers = true)]
    evict_threshold: Option<f32>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Answer")]
pub struct SamplerOptions {
    /// The most tokens an answer may have
    #[arg(short = 'n', long, visible_alias = "n-predict", value_name = "N")]
    #[arg(default_value_t = SessionParams::default().n_predict as u32, value_parser = clap::value_parser!(u32).range(1..))]
    predict: u32,

    /// Temperature: 0 always takes the likeliest token, higher is more random
    #[arg(long, value_name = "T", default_value_t = SamplerParams::default().temperature)]
    temp: f32,

    /// Choose among this many of the likeliest tokens; 0 is all
    #[arg(long, value_name = "N", default_value_t = SamplerParams::default().top_k)]
    top_k: u32,

    /// Choose among the likeliest tokens that together have this probability; 1 is all
    #[arg(long, value_name = "P", default_value_t = SamplerParams::default().top_p)]
    top_p: f32,

    /// Choose among tokens with at least this share of the likeliest one's probability; 0 is all
    #[arg(long, value_name = "P", default_value_t = SamplerParams::default().min_p)]
    min_p: f32,

    /// Divide the logits of tokens already seen by this; 1 is off
    #[arg(long, value_name = "X", default_value_t = SamplerParams::default().repeat_penalty)]
    repeat_penalty: f32,

    /// How many of the last tokens the penalties look at
    #[arg(long, value_name = "N", default_value_t = SamplerParams::default().repeat_last_n)]
    repeat_last_n: u32,

    /// Take this from the logits of tokens already seen, once; 0 is off
    #[arg(long, value_name = "X", default_value_t = SamplerParams::default().presence_penalty, allow_negative_numbers = true)]
    presence_penalty: f32,

    /// Take this from the logits of tokens already seen, for each time; 0 is off
    #[arg(long, value_name = "X", default_value_t = SamplerParams::default().frequency_penalty, allow_negative_numbers = true)]
    frequency_penalty: f32,

    /// A grammar (GBNF) that the answer must follow
    #[arg(long, value_name = "GBNF", conflicts_with = "grammar_file")]
    grammar: Option<String>,

    /// A file with such a grammar
    #[arg(long, value_name = "FILE")]
    grammar_file: Option<PathBuf>,

    /// Seed of the random choices of --temp and --prune random [default: a new one each time; 0 for --prune random]
    #[arg(short, long, value_name = "N", allow_hyphen_values = true)]
    seed: Option<Seed>,
}

impl SamplerOptions {
    /// The options of an answer of `predict` tokens that is the same each time.
    pub fn greedy(predict: u32) -> Self {
        let SamplerParams {
            top_k,
            top_p,
            min_p,
            repeat_penalty,
            repeat_last_n,
            presence_penalty,
            frequency_penalty,
            ..
        } = SamplerParams::default();
        Self {
            predict,
            temp: 0.0,
            top_k,
            top_p,
            min_p,
            repeat_penalty,
            repeat_last_n,
            presence_penalty,
            frequency_penalty,
            grammar: None,
            grammar_file: None,
            seed: None,
        }
    }
}

impl ModelOptions {
    /// The files of the model, which are fetched where they are not here yet.
    pub fn files(&self, progress: &mut dyn models::Progress) -> sharpv::Result<ModelFiles> {
        let memory = memory::for_model(&self.model_params());
        models::obtain(self.name(), self.mmproj.as_deref(), &self.lora, memory, progress)
    }

    fn model_params(&self) -> ModelParams {
        let cpu_only = self.is_cpu_only();
        ModelParams {
            n_gpu_layers: if cpu_only { Some(0) } else { self.gpu_layers.and_then(|layers| layers.0) },
            devices: if cpu_only { Vec::new() } else { self.device.clone() },
            mmap: !self.no_mmap,
        }
    }

    fn is_cpu_only(&self) -> bool {
        matches!(self.device.as_slice(), [name] if name == "none")
    }

    fn name(&self) -> &str {
        self.model.as_deref().unwrap_or_else(|| default_model())
    }

    /// Whether the default model is used because none was named.
    pub fn uses_default(&self) -> bool {
        self.model.is_none()
    }

    /// How to open a session with this model; what is no matter of the model is as it is by default. Reads the files that hold texts.
    pub fn session_params(&self, cancel: CancelToken) -> anyhow::Result<SessionParams> {
        if self.flash_attn == FlashAttention::Off && !is_float(self.cache_type_v) {
            return Err(sharpv::Error::InvalidParameter {
                name: "--cache-type-v",
                value: self.cache_type_v.name().into(),
                expected: "f32, f16 or bf16 without flash attention (-fa off)".into(),
            }
            .into());
        }
        let cpu_only = self.is_cpu_only();
        let n_threads = self.threads.map(usize::from);
        let params = SessionParams {
            model: self.model_params(),
            vision: VisionParams {
                use_gpu: !self.no_mmproj_offload && !cpu_only,
                n_threads,
                flash_attention: self.flash_attn,
            },
            compute: ComputeParams {
                n_ubatch: self.ubatch_size as usize,
                n_threads,
                flash_attention: self.flash_attn,
                type_k: self.cache_type_k,
                type_v: self.cache_type_v,
                offload_kv: !self.no_kv_offload && !cpu_only,
            },
            n_ctx: Some(self.ctx_size as usize).filter(|&n| n > 0),
            max_memory: self.max_memory,
            layout: self.layout.clone(),
            tile: self.tile,
            system: self.system_prompt.clone(),
            chat_template: read_text("chat template", self.chat_template_file.as_deref())?,
            cancel,
            ..SessionParams::default()
        };
        Ok(params)
    }
}

impl SessionArgs {
    /// The files of the model, which are fetched where they are not here yet.
    pub fn model_files(&self, progress: &mut dyn models::Progress) -> sharpv::Result<ModelFiles> {
        self.model.files(progress)
    }

    /// Whether the default model is used because none was named.
    pub fn uses_default_model(&self) -> bool {
        self.model.uses_default()
    }

    /// How to open the session. Reads the files that hold texts, and checks every value.
    pub fn session_params(&self, cancel: CancelToken) -> anyhow::Result<SessionParams> {
        let params = SessionParams {
            fit: self.video.fit || !self.video.no_fit,
            prune: self.prune_params()?,
            evict: self.evict_params()?,
            sampler: self.sampler_params()?,
            n_predict: self.sampler.predict as usize,
            ..self.model.session_params(cancel)?
        };
        Ok(params)
    }

    fn prune_params(&self) -> sharpv::Result<PruneParams> {
        let options = &self.prune;
        let budgets = [
            options.keep.map(Budget::Keep),
            options.max_visual_tokens.map(Budget::MaxTokens),
            options.threshold.map(Budget::Threshold),
        ];
        let budget = budgets.into_iter().flatten().next();
        if options.prune == Method::Off && budget.is_some() {
            return Err(sharpv::Error::InvalidParameter {
                name: "--prune",
                value: "off".into(),
                expected: "another method where --keep, --max-visual-tokens or --threshold is given".into(),
            });
        }
        let params = PruneParams {
            method: options.prune,
            budget: budget.unwrap_or_default(),
            cap: None,
            spatial_weight: options.spatial_weight,
            min_keep: options.min_keep,
            seed: self.seed().map_or(PruneParams::default().seed, u64::from),
        };
        params.validate()?;
        Ok(params)
    }

    fn evict_params(&self) -> sharpv::Result<EvictParams> {
        let options = &self.evict;
        let params = EvictParams { mode: options.evict, threshold: options.evict_threshold };
        params.validate()?;
        if params.threshold.is_some() && params.mode(self.prune.prune != Method::Off) == EvictMode::Off {
            return Err(sharpv::Error::InvalidParameter {
                name: "--evict",
                value: "off".into(),
                expected: "layers or tokens where --evict-threshold is given".into(),
            });
        }
        Ok(params)
    }

    fn sampler_params(&self) -> anyhow::Result<SamplerParams> {
        let options = &self.sampler;
        let grammar = match &options.grammar {
            Some(grammar) => Some(grammar.clone()),
            None => read_text("grammar", options.grammar_file.as_deref())?,
        };
        let params = SamplerParams {
            temperature: options.temp,
            top_k: options.top_k,
            top_p: options.top_p,
            min_p: options.min_p,
            repeat_penalty: options.repeat_penalty,
            frequency_penalty: options.frequency_penalty,
            presence_penalty: options.presence_penalty,
            repeat_last_n: options.repeat_last_n,
            grammar,
            seed: self.seed(),
        };
        params.validate()?;
        Ok(params)
    }

    fn seed(&self) -> Option<u32> {
        self.sampler.seed.and_then(|seed| seed.0)
    }

    /// Which frames of a video to take.
    pub fn video_options(&self) -> chat::VideoOptions {
        let VideoOptions { fps, max_frames, start, end, folder_fps, .. } = self.video;
        let max_frames = max_frames.map(|n| n as usize);
        chat::VideoOptions { fps, max_frames, start_s: start, end_s: end, folder_fps }
    }
}

/// The name of the model that is used when none is named.
pub fn default_model() -> &'static str {
    models::known().first().map_or("", |model| model.name)
}

fn is_float(kv_type: KvType) -> bool {
    matches!(kv_type, KvType::F32 | KvType::F16 | KvType::Bf16)
}

fn read_text(what: &str, path: Option<&Path>) -> anyhow::Result<Option<String>> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).with_context(|| format!("{}: reading the {what} failed", path.display()))
    };
    path.map(read).transpose()
}
