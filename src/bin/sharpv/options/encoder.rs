//! How much of each frame the vision encoder computes.

use crate::values;
use clap::Args;
use sharpv::skip::{EncodeMode, EncodeParams, Reuse, Stop};

/// The options of commands that answer: stock encoding, or as little as is safe.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Vision encoder")]
pub struct EncodeOptions {
    /// How much of each frame is encoded: everything, as in llama.cpp (exact), or as little as the model's encoder
    /// supports: what changed since the previous frame, and to the last layer only what may be kept (auto; exact with
    /// --prune sharpv-paper)
    #[arg(long, value_name = "HOW", default_value_t, value_parser = values::one_of_shown::<EncodeMode>(&["auto", "exact"]))]
    encode: EncodeMode,

    #[command(flatten)]
    change: ChangeOption,
}

/// When a patch is encoded again.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Vision encoder")]
struct ChangeOption {
    /// A patch counts as changed if its brightness, averaged to suppress noise, changes by more than this, 0 to 1
    #[arg(long, value_name = "T", allow_negative_numbers = true,
        default_value_t = Reuse::default().threshold)]
    encode_change: f32,
}

/// Every parameter of the encoder, for commands that measure.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Vision encoder")]
pub struct EncoderOptions {
    #[command(flatten)]
    change: ChangeOption,

    /// Encode a frame completely if more than this share of it changed, 0 to 1
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true,
        default_value_t = Reuse::default().whole)]
    encode_whole: f32,

    /// Encode at least every Nth frame with any change completely
    #[arg(long, value_name = "N", default_value_t = Reuse::default().refresh)]
    encode_refresh: usize,

    /// Tokens that will be dropped stop after this share of the layers, above 0 and below 1 [default: depends on the
    /// encoder's depth]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    encode_depth: Option<f32>,

    /// For each token that will be kept, N continue, at least 1
    #[arg(long, value_name = "N", allow_negative_numbers = true,
        default_value_t = Stop::default().multiple)]
    encode_multiple: f32,

    /// At least this share of a frame's tokens continues, 0 to 1
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true,
        default_value_t = Stop::default().least)]
    encode_least: f32,
}

/// The same, with one mode out of all.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Vision encoder")]
pub struct AllEncodeOptions {
    /// How much of each frame is encoded: everything, as in llama.cpp (exact); only what changed since the previous
    /// frame (reuse); to the last layer only what may be kept (stop); both (fast); what the model's encoder supports
    /// (auto; exact with --prune sharpv-paper)
    #[arg(long, value_name = "HOW", default_value_t, value_parser = values::one_of::<EncodeMode>())]
    encode: EncodeMode,

    #[command(flatten)]
    encoder: EncoderOptions,
}

impl EncodeOptions {
    /// The encoder's parameters.
    pub fn params(&self) -> sharpv::Result<EncodeParams> {
        let reuse = Reuse { threshold: self.change.encode_change, ..Reuse::default() };
        let params = EncodeParams { mode: self.encode, reuse, ..EncodeParams::default() };
        params.validate()?;
        Ok(params)
    }
}

impl EncoderOptions {
    /// The encoder's parameters in `mode`.
    pub fn params(&self, mode: EncodeMode) -> sharpv::Result<EncodeParams> {
        let threshold = self.change.encode_change;
        let params = EncodeParams {
            mode,
            reuse: Reuse { threshold, whole: self.encode_whole, refresh: self.encode_refresh },
            stop: Stop { depth: self.encode_depth, multiple: self.encode_multiple, least: self.encode_least },
        };
        params.validate()?;
        Ok(params)
    }
}

impl AllEncodeOptions {
    /// The encoder's parameters.
    pub fn params(&self) -> sharpv::Result<EncodeParams> {
        self.encoder.params(self.encode)
    }
}
