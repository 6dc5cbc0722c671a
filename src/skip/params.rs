//! What can be chosen.

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
    /// As much as the encoder can leave out: both of the following, the first alone, or nothing. Nothing, too, with a
    /// method that [needs exact embeddings](crate::prune::Method::needs_exact_embeddings).
    #[default]
    Auto,
    /// All of it, as llama.cpp does.
    Exact,
    /// [`Reuse`] alone.
    Reuse,
    /// [`Stop`] alone.
    Stop,
    /// Both.
    Fast,
}

fn unknown_mode(name: &str) -> Error {
    Error::unknown_name::<EncodeMode>("how to encode", name)
}

/// How the vision encoder works on a video. The default leaves out what it can: on questions that it was not tuned on,
/// as many answers were right as with all of it (docs/results.md, "The encoder").
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct EncodeParams {
    /// Which of the two are on.
    pub mode: EncodeMode,
    /// What did not change is not computed again.
    pub reuse: Reuse,
    /// What will be dropped is not finished.
    pub stop: Stop,
}

/// What did not change is not computed again.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Reuse {
    /// The mean difference of a patch's blocks, in pixels of 0 to 1, above which it has changed. 0 or more.
    pub threshold: f32,
    /// If more than this share of an image has changed, it is computed whole. 0 to 1.
    pub whole: f32,
    /// The most images that follow each other without one that is computed whole. Images in which nothing changed
    /// do not count. At least 1; 1 computes all that changed at all whole.
    pub refresh: usize,
}

impl Default for Reuse {
    fn default() -> Self {
        Self { threshold: 0.01, whole: 0.7, refresh: 16 }
    }
}

/// What will be dropped is not finished.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Stop {
    /// The share of the layers that all tokens go through. `None` takes it from a table, by the depth of the encoder.
    /// Over 0, below 1.
    pub depth: Option<f32>,
    /// How many tokens go on, for each that will be kept. At least 1.
    pub multiple: f32,
    /// The least share of an image's tokens that goes on, as context for those that are kept. 0 to 1.
    pub least: f32,
}

impl Default for Stop {
    fn default() -> Self {
        Self { depth: None, multiple: 2.0, least: 0.1875 }
    }
}

/// Layers of an encoder that counts as deep.
const DEEP: usize = 24;

impl Stop {
    /// After how many of `n_layers` layers tokens stop; `None` if the encoder has too few.
    pub fn layer(&self, n_layers: usize) -> Option<usize> {
        // Four layers of twelve, and with three of them the answers are as good if what did not change is not computed
        // again either. A deep encoder has more layers in its first quarter than that (docs/results.md, "The encoder").
        let depth = self.depth.unwrap_or(if n_layers >= DEEP { 0.25 } else { 1.0 / 3.0 });
        let layer = ((n_layers as f32 * depth).round() as usize).max(1);
        (layer < n_layers).then_some(layer)
    }
}

impl EncodeParams {
    /// These in another mode.
    #[must_use]
    pub fn in_mode(self, mode: EncodeMode) -> Self {
        Self { mode, ..self }
    }

    /// What these come to with `method`: what the user left open is what the method needs.
    #[must_use]
    pub fn of(self, method: Method) -> Self {
        match self.mode {
            EncodeMode::Auto if method.needs_exact_embeddings() => self.in_mode(EncodeMode::Exact),
            _ => self,
        }
    }

    /// The first of the two, if it is on.
    pub fn reuse(&self) -> Option<&Reuse> {
        matches!(self.mode, EncodeMode::Auto | EncodeMode::Reuse | EncodeMode::Fast).then_some(&self.reuse)
    }

    /// The second of the two, if it is on.
    pub fn stop(&self) -> Option<&Stop> {
        matches!(self.mode, EncodeMode::Auto | EncodeMode::Stop | EncodeMode::Fast).then_some(&self.stop)
    }

    /// Checks that every parameter is in its range.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`], naming the parameter, its value and its range.
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
        check(share.contains(&whole), "the share of changed patches", &whole, "between 0 and 1")?;
        check(refresh > 0, "the most images between whole ones", &refresh, "at least 1")?;
        let Stop { depth, multiple, least } = self.stop;
        if let Some(depth) = depth {
            check(depth > 0.0 && depth < 1.0, "the share of the layers", &depth, "over 0 and below 1")?;
        }
        check((1.0..=1000.0).contains(&multiple), "the multiple of what is kept", &multiple, "1 to 1000")?;
        check(share.contains(&least), "the least share that goes on", &least, "between 0 and 1")
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
