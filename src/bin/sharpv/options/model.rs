//! Which model is used, and how it is loaded and run.

use crate::rpc;
use crate::values::{self, GpuLayers, TemplateKwargs};
use clap::Args;
use sharpv::Observer;
use sharpv::chat::SessionParams;
use sharpv::models::{self, ModelFiles, Store};
use sharpv::runtime::{CancelToken, ComputeParams, FlashAttention, FreeMemory, KvType, ModelParams, VisionParams};
use sharpv::weights::{self, Copies, Weights};
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub struct ModelOptions {
    /// A name from `sharpv models`, a GGUF file, or ORG/REPO [default: smol]
    ///
    /// The file is the language model. A repository on Hugging Face is downloaded if necessary; ORG/REPO:QUANT chooses
    /// the quantization.
    #[arg(short, long, value_name = "MODEL")]
    pub model: Option<String>,

    /// The model's multimodal projector in GGUF [default: the one next to it]
    ///
    /// The default is the *mmproj*.gguf in the model's folder or repository.
    #[arg(long, value_name = "FILE")]
    mmproj: Option<PathBuf>,

    /// A LoRA adapter in GGUF; repeatable
    #[arg(long, value_name = "FILE")]
    lora: Vec<PathBuf>,

    /// Layers to keep on the GPU [short: -ngl] [default: auto]
    ///
    /// A number, `all`, or `auto` for as many as fit.
    #[arg(long, visible_alias = "n-gpu-layers", value_name = "N", allow_hyphen_values = true)]
    gpu_layers: Option<GpuLayers>,

    /// Memory that `--gpu-layers auto` leaves free on each GPU: bytes, or a number with K, M or G [default: 1G, or an
    /// eighth of a GPU with less than 8G]
    #[arg(long, value_name = "SIZE", value_parser = values::bytes_or_none)]
    gpu_margin: Option<u64>,

    /// Devices to use, comma-separated (`sharpv doctor` lists them); `none` is only the CPU [short: -dev] [default: all
    /// GPUs]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    device: Vec<String>,

    /// RPC servers on other machines, whose devices take layers like GPUs; requires the feature rpc (docs/rpc.md)
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',')]
    rpc: Vec<String>,

    /// Run the vision encoder on the CPU
    #[arg(long)]
    no_mmproj_offload: bool,

    /// Keep the KV cache in main memory [short: -nkvo]
    #[arg(long)]
    no_kv_offload: bool,

    /// Weights to compute with on the CPU: the model's own files (exact); copies in the type that this processor
    /// computes fastest, made if they are missing (fast); such copies if `sharpv pull` made them (auto)
    #[arg(long, value_name = "WHICH", default_value = "auto", value_parser = values::one_of::<Weights>())]
    weights: Weights,

    /// Read the model into memory instead of mapping its file
    #[arg(long)]
    no_mmap: bool,

    /// Threads to compute with [default: one per core]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    threads: Option<u16>,

    /// Cells of the KV cache; 0 is as many as the conversation needs
    #[arg(short, long, value_name = "N", default_value_t = 0)]
    ctx_size: u32,

    /// Take at most this much memory: 500M, 4G [default: what is free]
    ///
    /// For the KV cache and buffers; bytes, or a number with K, M or G.
    #[arg(long, value_name = "SIZE", value_parser = values::bytes)]
    max_memory: Option<u64>,

    /// Memory for copies of the state of models that cannot remove the last rows of their cache (Qwen3.5, LFM2): 0,
    /// 200M [default: 8 copies, within 512M if that holds two]
    ///
    /// The next question goes on from such a copy. Without one, it computes the whole prompt again.
    #[arg(long, value_name = "SIZE", value_parser = values::bytes_or_none)]
    checkpoint_memory: Option<u64>,

    /// Rows (text and visual tokens) computed at once; more if a model must see a larger image at once (Gemma) [short:
    /// -ub]
    #[arg(long, value_name = "N", default_value_t = ComputeParams::default().n_ubatch as u32)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=65536))]
    ubatch_size: u32,

    /// Flash attention [short: -fa]
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = values::one_of::<FlashAttention>())]
    flash_attn: FlashAttention,

    /// Type of the keys in the KV cache [short: -ctk]
    #[arg(long, value_name = "TYPE", default_value = "f16", value_parser = values::one_of::<KvType>())]
    cache_type_k: KvType,

    /// Type of the values in the KV cache; a quantized type requires flash attention [short: -ctv]
    #[arg(long, value_name = "TYPE", default_value = "f16", value_parser = values::one_of::<KvType>())]
    cache_type_v: KvType,

    /// A chat template (Jinja) to use instead of the model's own
    #[arg(long, value_name = "FILE")]
    chat_template_file: Option<PathBuf>,

    /// Values for the chat template: a JSON object, such as '{"reasoning_effort": "low"}'
    #[arg(long, value_name = "JSON", value_parser = values::template_kwargs)]
    chat_template_kwargs: Option<TemplateKwargs>,

    /// The layout: the text around the frames [default: the model family's]
    #[arg(long, value_name = "NAME", value_parser = values::layout_name())]
    layout: Option<String>,

    /// Load model files without checking their headers; llama.cpp aborts the program over a file that it cannot use
    #[arg(long)]
    no_check: bool,

    /// Cut frames into tiles if the encoder does so with single images; takes many more visual tokens
    #[arg(long)]
    tile: bool,

    /// A system message [short: -sys] [default: the chat template's, if any]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    system_prompt: Option<String>,
}

impl ModelOptions {
    /// The files of the model. Downloads them if they are missing.
    pub fn files(&self, observer: &mut dyn Observer) -> sharpv::Result<ModelFiles> {
        rpc::connect(&self.rpc)?;
        let memory = FreeMemory::for_weights(&self.model_params()).map(|free| free.bytes);
        let files = models::obtain(self.name(), self.mmproj.as_deref(), &self.lora, memory, observer)?;
        self.with_faster_copies(files, observer)
    }

    /// Replaces files by faster copies, as `--weights` says.
    fn with_faster_copies(&self, files: ModelFiles, observer: &mut dyn Observer) -> sharpv::Result<ModelFiles> {
        if self.weights == Weights::Exact {
            return Ok(files);
        }
        let store = match Store::from_env() {
            // Without a home there is no cache, so there are no copies.
            Err(_) if self.weights == Weights::Auto => return Ok(files),
            store => store?,
        };
        let known = Copies::new(&store);
        let copies = known.of(&files, &self.model_params(), &self.vision_params())?;
        if self.weights == Weights::Fast {
            copies.iter().try_for_each(|copy| known.make(copy, observer))?;
        }
        Ok(weights::in_place(files, &copies))
    }

    fn vision_params(&self) -> VisionParams {
        VisionParams {
            use_gpu: !self.no_mmproj_offload && !self.is_cpu_only(),
            n_threads: self.threads.map(usize::from),
            flash_attention: self.flash_attn,
        }
    }

    fn model_params(&self) -> ModelParams {
        let cpu_only = self.is_cpu_only();
        ModelParams {
            n_gpu_layers: if cpu_only { Some(0) } else { self.gpu_layers.and_then(|layers| layers.0) },
            devices: if cpu_only { Vec::new() } else { self.device.clone() },
            mmap: !self.no_mmap,
            gpu_margin: self.gpu_margin,
        }
    }

    fn is_cpu_only(&self) -> bool {
        matches!(self.device.as_slice(), [name] if name == "none")
    }

    fn name(&self) -> &str {
        self.model.as_deref().unwrap_or_else(|| default_model())
    }

    /// Whether the model is the small default one, named or not.
    pub fn uses_default(&self) -> bool {
        self.name() == default_model()
    }

    /// A session's parameters with this model; parameters of other option groups have their defaults. Reads the files
    /// that options name.
    pub fn session_params(&self, cancel: CancelToken) -> anyhow::Result<SessionParams> {
        if self.flash_attn == FlashAttention::Off && !is_float(self.cache_type_v) {
            return Err(sharpv::Error::InvalidParameter {
                name: "--cache-type-v",
                value: self.cache_type_v.name().into(),
                expected: "f32, f16 or bf16 without flash attention (-fa off)".into(),
            }
            .into());
        }
        rpc::connect(&self.rpc)?;
        let cpu_only = self.is_cpu_only();
        let n_threads = self.threads.map(usize::from);
        let params = SessionParams {
            model: self.model_params(),
            vision: self.vision_params(),
            compute: ComputeParams {
                n_ubatch: self.ubatch_size as usize,
                n_threads,
                flash_attention: self.flash_attn,
                type_k: self.cache_type_k,
                type_v: self.cache_type_v,
                offload_kv: !self.no_kv_offload && !cpu_only,
            },
            check_files: !self.no_check,
            n_ctx: Some(self.ctx_size as usize).filter(|&n| n > 0),
            max_memory: self.max_memory,
            checkpoint_memory: self.checkpoint_memory,
            layout: self.layout.clone(),
            tile: self.tile,
            system: self.system_prompt.clone(),
            chat_template: values::text_of("chat template", self.chat_template_file.as_deref())?,
            template_kwargs: self.chat_template_kwargs.clone().unwrap_or_default(),
            cancel,
            ..SessionParams::default()
        };
        Ok(params)
    }
}

/// The name of the default model.
pub fn default_model() -> &'static str {
    models::known().first().map_or("", |model| model.name)
}

fn is_float(kv_type: KvType) -> bool {
    matches!(kv_type, KvType::F32 | KvType::F16 | KvType::Bf16)
}
