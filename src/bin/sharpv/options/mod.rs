//! The options that commands share, grouped as in the help, and what they mean to the library.

mod answer;
mod encoder;
mod frames;
mod model;
mod tokens;

pub use answer::{SamplerOptions, check_budget};
pub use encoder::{AllEncodeOptions, EncodeOptions, EncoderOptions};
pub use frames::{FrameOptions, VideoOptions, ZoomOptions};
pub use model::{ModelOptions, default_model};
pub use tokens::{EvictOptions, PruneOptions, WeightOptions, known_profile};

use clap::Args;
use sharpv::chat::{SessionParams, Thinking};
use sharpv::runtime::CancelToken;

/// The options of commands that open a session.
#[derive(Debug, Args)]
pub struct SessionArgs {
    #[command(flatten)]
    pub model: ModelOptions,
    #[command(flatten)]
    pub video: VideoOptions,
    #[command(flatten)]
    pub prune: PruneOptions,
    #[command(flatten)]
    pub evict: EvictOptions,
    #[command(flatten)]
    pub encode: EncodeOptions,
    #[command(flatten)]
    pub sampler: SamplerOptions,
}

impl SessionArgs {
    /// The session's parameters. Reads the files that options name, and checks every value.
    pub fn session_params(&self, cancel: CancelToken) -> anyhow::Result<SessionParams> {
        Ok(SessionParams {
            fit: self.video.fits(),
            prune: self.prune.params(self.sampler.seed())?,
            evict: self.evict.params(self.prune.prunes())?,
            encode: self.encode.params()?,
            sampler: self.sampler.params()?,
            n_predict: self.sampler.n_predict(),
            thinking: self.sampler.thinking()?,
            ..self.model.session_params(cancel)?
        })
    }
}

/// The names under which chat templates are told whether to think, and for how long.
const ABOUT_THINKING: &[&str] = &["enable_thinking", "thinking", "thinking_budget", "reasoning_effort"];

/// Whether the model thinks where one short answer is wanted: `auto` is off, unless the template is told otherwise.
pub fn thinking_or_off(params: &SessionParams) -> Thinking {
    let is_told = ABOUT_THINKING.iter().any(|&name| params.template_kwargs.contains_key(name));
    match params.thinking {
        Thinking::Auto if !is_told => Thinking::Off,
        thinking => thinking,
    }
}
