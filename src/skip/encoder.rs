//! Which encoders can compute parts of an image, and how much memory that needs.

use super::{EncodeMode, EncodeParams};
use crate::error::{Error, Result};

/// The shape of a vision encoder, from its file. Fields that the file lacks are `None`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EncoderShape {
    /// The file's name for the projector (`clip.projector_type`).
    pub projector: String,
    /// The number of layers (`clip.vision.block_count`).
    pub n_layers: Option<usize>,
    /// Values of a patch's hidden state (`clip.vision.embedding_length`).
    pub n_embd: Option<usize>,
    /// The side of a patch in pixels (`clip.vision.patch_size`).
    pub patch: Option<usize>,
    /// The side of the encoder's square image in pixels (`clip.vision.image_size`).
    pub side: Option<usize>,
    /// The number of layers that features are taken from; 0 if the file lacks it (`clip.vision.feature_layer`).
    pub n_feature_layers: usize,
}

/// The computations that an encoder can skip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ability {
    /// None.
    None,
    /// Patches that did not change.
    Reuse,
    /// Patches that did not change, and tokens that will be dropped.
    Fast,
}

impl EncoderShape {
    /// The computations that this encoder can skip.
    pub fn ability(&self) -> Ability {
        match self.projector.as_str() {
            // Granite takes features from several layers.
            "mlp" if self.n_feature_layers > 1 => Ability::None,
            "mlp" | "idefics3" | "gemma3" | "internvl" => Ability::Fast,
            "qwen2vl_merger" | "qwen2.5vl_merger" | "qwen2.5o" | "qwen3vl_merger" => Ability::Fast,
            // A resampler computes each visual token from all patches, so none of the patches can be dropped.
            "resampler" => Ability::Reuse,
            _ => Ability::None,
        }
    }

    /// The mode in which this encoder runs with `params`: [`EncodeMode::Auto`] becomes the fastest mode that it
    /// supports.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if `params` name a mode that the encoder does not support.
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
            Ability::Reuse => "exact or reuse: this model's encoder computes each visual token from all patches",
            _ => "exact: this model's encoder cannot compute parts of an image",
        };
        Err(Error::InvalidParameter {
            name: "the encode mode",
            value: params.mode.to_string(),
            expected: format!("{can} (projector \"{}\")", self.projector),
        })
    }

    /// About how many bytes the encoder keeps between frames of `width × height` pixels: the keys and values of all
    /// patches in all layers as 16-bit numbers, and two hidden states of each patch as 32-bit numbers. `None` if the
    /// file lacks a field that this needs.
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
        // SigLIP-so400m has 27 × 27 patches and 26 layers.
        let bytes = shape("mlp").cache_bytes((640, 360)).unwrap();
        assert_eq!(bytes, 729 * 1152 * (26 * 4 + 8));
        assert!(shape("qwen2vl_merger").cache_bytes((476, 280)).unwrap() == 34 * 20 * 1152 * (26 * 4 + 8));
        assert_eq!(EncoderShape { n_layers: None, ..shape("mlp") }.cache_bytes((640, 360)), None);
    }
}
