use clap::Args;

/// See [`Command::Pull`](super::Command::Pull).
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct PullArgs {
    /// A name from `sharpv models`, or a repository; `sharpv models --known` lists some
    #[arg(value_name = "NAME|ORG/REPO[:QUANT]")]
    pub name: String,
}

const EXAMPLES: &str = "\
Examples:
  sharpv pull smol
  sharpv pull ggml-org/SmolVLM2-500M-Video-Instruct-GGUF
  sharpv pull ggml-org/Qwen2.5-VL-3B-Instruct-GGUF:Q8_0
  HF_TOKEN=… sharpv pull ORG/GATED-REPO";
