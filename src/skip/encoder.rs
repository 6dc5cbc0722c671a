//! Which encoders can work on parts of an image, and what that takes.

use super::{EncodeMode, EncodeParams};
use crate::error::{Error, Result};

/// What a vision encoder's file says of it, as far as it matters here. `None` where it does not say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EncoderShape {
    /// The projector, by the name that the file gives it (`clip.projector_type`).
    pub projector: String,
    /// Layers (`clip.vision.block_count`).
    pub n_layers: Option<usize>,
    /// Values of a patch's hidden state (`clip.vision.embedding_length`).
    pub n_embd: Option<usize>,
    /// The side of a patch in pixels (`clip.vision.patch_size`).
    pub patch: Option<usize>,
    /// The side of the encoder's square image in pixels (`clip.vision.image_size`).
    pub side: Option<usize>,
    /// From how many layers features are taken, where that is said (`clip.vision.feature_layer`).
    pub n_feature_layers: usize,
}

/// What an encoder can leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ability {
    /// Nothing.
    None,
    /// What did not change.
    Reuse,
    /// That, and what will be dropped.
    Fast,
}

impl EncoderShape {
    /// What it can leave out.
    pub fn ability(&self) -> Ability {
        match self.projector.as_str() {
            // Granite's features come from several layers.
            "mlp" if self.n_feature_layers > 1 => Ability::None,
            "mlp" | "idefics3" | "gemma3" | "internvl" => Ability::Fast,
            "qwen2vl_merger" | "qwen2.5vl_merger" | "qwen2.5o" | "qwen3vl_merger" => Ability::Fast,
            // Its resampler makes each visual token of all patches: none of them can be dropped by itself.
            "resampler" => Ability::Reuse,
            _ => Ability::None,
        }
    }

    /// What it does in the mode of `params`: `auto` is what it can.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if it cannot do what is asked for by name.
    pub fn mode(&self, params: &EncodeParams) -> Result<EncodeMode> {
        let needed = match params.mode {
            EncodeMode::Exact => Ability::None,
            EncodeMode::Reuse => Ability::Reuse,
            EncodeMode::Stop | EncodeMode::Fast => Ability::Fast,
            EncodeMode::Auto => {
                return Ok(match self.ability() {
                    Ability::None => EncodeMode::Exact,
                    Ability::Reuse => EncodeMode::Reuse,
                    Ability::Fast => EncodeMode::Fast,
                });
            }
        };
        if self.ability() >= needed {
            return Ok(params.mode);
        }
        let can = match self.ability() {
            Ability::Reuse => "exact or reuse: in this model's encoder, each visual token comes of all patches",
            _ => "exact: this model's encoder cannot work on parts of an image",
        };
        Err(Error::InvalidParameter {
            name: "how to encode",
            value: params.mode.to_string(),
            expected: format!("{can} (projector \"{}\")", self.projector),
        })
    }

    /// About how many bytes are kept of an image of `width × height` pixels between frames: keys and values of all its
    /// patches in all layers as 16-bit numbers, and two hidden states as 32-bit ones. `None` if the file does not say.
    pub fn cache_bytes(&self, (width, height): (u32, u32)) -> Option<u64> {
        let (patch, n_embd, n_layers) = (self.patch?.max(1), self.n_embd?, self.n_layers?);
        let patches = if self.projector.starts_with("qwen") {
            (width as usize / patch) * (height as usize / patch)
        } else {
            (self.side? / patch).pow(2)
        };
        Some((patches * n_embd * (4 * n_layers + 8)) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(projector: &str) -> EncoderShape {
        EncoderShape {
            projector: projector.into(),
            n_layers: Some(26),
            n_embd: Some(1152),
            patch: Some(14),
            side: Some(384),
            n_feature_layers: 0,
        }
    }

    #[test]
    fn what_an_encoder_cannot_do_is_an_error_only_if_asked_for_by_name() {
        let mode = |projector: &str, mode| shape(projector).mode(&EncodeParams::default().in_mode(mode));
        assert_eq!(mode("mlp", EncodeMode::Auto).unwrap(), EncodeMode::Fast);
        assert_eq!(mode("resampler", EncodeMode::Auto).unwrap(), EncodeMode::Reuse);
        assert_eq!(mode("pixtral", EncodeMode::Auto).unwrap(), EncodeMode::Exact);
        assert_eq!(mode("pixtral", EncodeMode::Exact).unwrap(), EncodeMode::Exact);
        assert_eq!(mode("resampler", EncodeMode::Reuse).unwrap(), EncodeMode::Reuse);
        assert!(mode("resampler", EncodeMode::Fast).unwrap_err().to_string().contains("resampler"));
        assert!(mode("pixtral", EncodeMode::Reuse).unwrap_err().to_string().contains("exact"));
        let granite = EncoderShape { n_feature_layers: 4, ..shape("mlp") };
        assert_eq!(granite.ability(), Ability::None);
    }

    #[test]
    fn the_cache_is_that_of_all_patches_and_layers() {
        // 27 × 27 patches of SigLIP-so400m, 26 layers.
        let bytes = shape("mlp").cache_bytes((640, 360)).unwrap();
        assert_eq!(bytes, 729 * 1152 * (26 * 4 + 8));
        assert!(shape("qwen2vl_merger").cache_bytes((476, 280)).unwrap() == 34 * 20 * 1152 * (26 * 4 + 8));
        assert_eq!(EncoderShape { n_layers: None, ..shape("mlp") }.cache_bytes((640, 360)), None);
    }
}
