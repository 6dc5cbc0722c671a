//! How much of each image the vision encoder computes.

use crate::values;
use clap::Args;
use sharpv::skip::{EncodeMode, EncodeParams, Reuse, Stop};

/// What all commands that encode have in common.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Vision encoder")]
pub struct EncoderOptions {
    /// A patch has changed when its brightness has by more than this, 0 to 1, noise averaged out
    #[arg(long, value_name = "T", allow_negative_numbers = true,
        default_value_t = Reuse::default().threshold)]
    encode_change: f32,

    /// Compute a frame whole if more than this share of it has changed, 0 to 1
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true,
        default_value_t = Reuse::default().whole)]
    encode_whole: f32,

    /// Compute at least every Nth frame whole, of those in which anything changed
    #[arg(long, value_name = "N", default_value_t = Reuse::default().refresh)]
    encode_refresh: usize,

    /// Tokens that will be dropped stop after this share of the layers, over 0 and below 1 [default: by the encoder's
    /// depth]
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    encode_depth: Option<f32>,

    /// So many tokens go on for each that will be kept, at least 1
    #[arg(long, value_name = "N", allow_negative_numbers = true,
        default_value_t = Stop::default().multiple)]
    encode_multiple: f32,

    /// At least this share of a frame's tokens goes on, 0 to 1
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true,
        default_value_t = Stop::default().least)]
    encode_least: f32,
}

impl EncoderOptions {
    /// How to encode in `mode`.
    pub fn params(&self, mode: EncodeMode) -> sharpv::Result<EncodeParams> {
        let params = EncodeParams {
            mode,
            reuse: Reuse { threshold: self.encode_change, whole: self.encode_whole, refresh: self.encode_refresh },
            stop: Stop { depth: self.encode_depth, multiple: self.encode_multiple, least: self.encode_least },
        };
        params.validate()?;
        Ok(params)
    }
}

/// The same, with the choice of one mode.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Vision encoder")]
pub struct EncodeOptions {
    /// How much of each frame is encoded: all of it, as llama.cpp does (exact); only what changed since the frame
    /// before (reuse); to the end only what may be kept (stop); both (fast); what the model's encoder can (auto; exact
    /// with --prune sharpv-paper)
    #[arg(long, value_name = "HOW", default_value_t, value_parser = values::one_of::<EncodeMode>())]
    encode: EncodeMode,

    #[command(flatten)]
    encoder: EncoderOptions,
}

impl EncodeOptions {
    /// How to encode.
    pub fn params(&self) -> sharpv::Result<EncodeParams> {
        self.encoder.params(self.encode)
    }
}
