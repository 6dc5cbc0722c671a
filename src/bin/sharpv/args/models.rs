use clap::Args;

/// See [`Command::Models`](super::Command::Models).
#[derive(Debug, Args)]
pub struct ModelsArgs {
    /// List VideoLLMs on Hugging Face that llama.cpp can run, and the memory that each needs
    #[arg(long)]
    pub known: bool,

    /// Print a JSON array
    #[arg(long)]
    pub json: bool,
}
