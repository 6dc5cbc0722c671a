//! The parameters.

use crate::error::{Error, Result};
use crate::prune::Method;
use serde::Serialize;

/// How much of each image the vision encoder computes.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Default,
    Serialize,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
    strum::VariantNames,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase", parse_err_ty = Error, parse_err_fn = unknown_mode)]
#[non_exhaustive]
pub enum EncodeMode {
    /// The fastest mode that the encoder supports: [`Fast`](Self::Fast), [`Reuse`](Self::Reuse) or
    /// [`Exact`](Self::Exact). Always `Exact` with a method that
    /// [needs exact embeddings](crate::prune::Method::needs_exact_embeddings).
    #[default]
    Auto,
    /// The whole image, as llama.cpp computes it.
    Exact,
    /// Skip unchanged patches ([`Reuse`]).
    Reuse,
    /// Stop tokens early that will be dropped ([`Stop`]).
    Stop,
    /// Both `Reuse` and `Stop`.
    Fast,
}

fn unknown_mode(name: &str) -> Error {
    Error::unknown_name::<EncodeMode>("the encode mode", name)
}

/// What the vision encoder skips in a video. The default skips all it can: on questions that it was not tuned on, as
/// many answers were right as without skipping (docs/results.md, "The encoder").
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct EncodeParams {
    /// Which of the two methods are on.
    pub mode: EncodeMode,
    /// How unchanged patches are reused.
    pub reuse: Reuse,
    /// How tokens stop early.
    pub stop: Stop,
}

/// Reuses patches that did not change.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Reuse {
    /// A patch has changed if the mean difference of its blocks exceeds this, in pixel values of 0 to 1. 0 to 1.
    pub threshold: f32,
    /// An image is computed whole if more than this share of its cells has changed. 0 to 1.
    pub whole: f32,
    /// At least one of so many changed images in a row is computed whole. Unchanged images do not count. At least 1,
    /// which computes every changed image whole.
    pub refresh: usize,
}

impl Default for Reuse {
    fn default() -> Self {
        Self { threshold: 0.01, whole: 0.7, refresh: 16 }
    }
}

/// Stops tokens early that will be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Stop {
    /// The share of the layers that all tokens go through. `None` chooses it by the number of the encoder's layers.
    /// Above 0 and below 1.
    pub depth: Option<f32>,
    /// The tokens that go on, for each token that will be kept. 1 to 1000.
    pub multiple: f32,
    /// The smallest share of an image's tokens that goes on, as context for those that are kept. 0 to 1.
    pub least: f32,
}

impl Default for Stop {
    fn default() -> Self {
        Self { depth: None, multiple: 2.0, least: 0.1875 }
    }
}

/// An encoder with this many layers or more counts as deep.
const DEEP: usize = 24;

impl Stop {
    /// The number of layers, of `n_layers`, after which tokens stop; `None` if the encoder has too few.
    pub fn layer(&self, n_layers: usize) -> Option<usize> {
        // Four of twelve layers. Three are as accurate if patches are reused, too, and the first quarter of a deep
        // encoder has more than that (docs/results.md, "The encoder").
        let depth = self.depth.unwrap_or(if n_layers >= DEEP { 0.25 } else { 1.0 / 3.0 });
        let layer = ((n_layers as f32 * depth).round() as usize).max(1);
        (layer < n_layers).then_some(layer)
    }
}

impl EncodeParams {
    /// The same parameters in another mode.
    #[must_use]
    pub fn in_mode(self, mode: EncodeMode) -> Self {
        Self { mode, ..self }
    }

    /// The parameters to use with `method`: [`EncodeMode::Auto`] becomes [`EncodeMode::Exact`] if the method needs
    /// exact embeddings.
    #[must_use]
    pub fn of(self, method: Method) -> Self {
        match self.mode {
            EncodeMode::Auto if method.needs_exact_embeddings() => self.in_mode(EncodeMode::Exact),
            _ => self,
        }
    }

    /// How unchanged patches are reused; `None` if they are not.
    pub fn reuse(&self) -> Option<&Reuse> {
        matches!(self.mode, EncodeMode::Auto | EncodeMode::Reuse | EncodeMode::Fast).then_some(&self.reuse)
    }

    /// How tokens stop early; `None` if they do not.
    pub fn stop(&self) -> Option<&Stop> {
        matches!(self.mode, EncodeMode::Auto | EncodeMode::Stop | EncodeMode::Fast).then_some(&self.stop)
    }

    /// Checks that each parameter is in its range.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`], which names the parameter, its value and its range.
    pub fn validate(&self) -> Result<()> {
        let check = |valid: bool, name: &'static str, value: &dyn std::fmt::Display, expected: &str| {
            if valid {
                return Ok(());
            }
            Err(Error::InvalidParameter { name, value: value.to_string(), expected: expected.into() })
        };
        let share = 0.0..=1.0;
        let Reuse { threshold, whole, refresh } = self.reuse;
        check((0.0..=1.0).contains(&threshold), "the threshold of change", &threshold, "between 0 and 1")?;
        check(share.contains(&whole), "the share of changed cells", &whole, "between 0 and 1")?;
        check(refresh > 0, "the number of images until a whole one", &refresh, "at least 1")?;
        let Stop { depth, multiple, least } = self.stop;
        if let Some(depth) = depth {
            check(depth > 0.0 && depth < 1.0, "the share of the layers", &depth, "above 0 and below 1")?;
        }
        check((1.0..=1000.0).contains(&multiple), "the multiple of the kept tokens", &multiple, "1 to 1000")?;
        check(share.contains(&least), "the smallest share of tokens that goes on", &least, "between 0 and 1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_of_the_layers_and_a_quarter_of_many() {
        let layers = [12, 26, 24, 32, 2, 1].map(|n| Stop::default().layer(n));
        assert_eq!(layers, [Some(4), Some(7), Some(6), Some(8), Some(1), None]);
        assert_eq!(Stop { depth: Some(0.99), ..Stop::default() }.layer(12), None);
    }

    #[test]
    fn what_is_out_of_range_is_refused() {
        assert!(EncodeParams::default().validate().is_ok());
        let with = |change: fn(&mut EncodeParams)| {
            let mut params = EncodeParams::default();
            change(&mut params);
            params.validate().unwrap_err().to_string()
        };
        assert!(with(|p| p.reuse.threshold = -0.1).contains("-0.1"));
        assert!(with(|p| p.reuse.threshold = f32::NAN).contains("NaN"));
        assert!(with(|p| p.reuse.whole = 1.5).contains("1.5"));
        assert!(with(|p| p.reuse.refresh = 0).contains("at least 1"));
        assert!(with(|p| p.stop.depth = Some(1.0)).contains("below 1"));
        assert!(with(|p| p.stop.multiple = 0.5).contains("1 to 1000"));
        assert!(with(|p| p.stop.least = f32::INFINITY).contains("inf"));
    }
}
