//! Layer profiles: which layers of a model can do without visual tokens, measured on its answers.
//!
//! Similarity to the embeddings does not show in which layers a model reads its visual tokens. On `smol`, similarity
//! frees 2 of 30 layers, and a profile frees 20 or more at the same accuracy (docs/results.md, "Memory SharpV:
//! accuracy").

use crate::error::{Error, FileKind, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The format of the file.
const FORMAT: u32 = 1;

/// The profiles that come with this library, made by `lab::calibrate` with its default settings.
const SHIPPED: [&str; 1] = [include_str!("profiles/smol.json")];

/// How much hiding visual tokens changes answers: means over the tokens of many answers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Loss {
    /// The Kullback–Leibler divergence of a token's distribution from that with nothing hidden, in nats.
    pub divergence: f64,
    /// The share of positions at which another token becomes the likeliest, 0 to 1.
    pub changed: f64,
    /// The probability that the likeliest token loses, 0 to 1. If the model is well calibrated, accuracy falls by as
    /// much.
    pub lost: f64,
}

/// The loss when visual tokens are hidden from several layers at once.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ProfileStep {
    /// How many layers, from the start of [`LayerProfile::order`].
    pub layers: usize,
    /// The loss with visual tokens hidden from these layers.
    pub loss: Loss,
}

/// Which layers of a model can do without visual tokens. Made by `lab::calibrate`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerProfile {
    format: u32,
    /// A description of the model.
    pub model: String,
    /// The digest of its weights and adapters: see [`models::digest`](crate::models::digest).
    pub digest: String,
    /// The version of llama.cpp that it was measured with.
    pub llama_cpp: String,
    /// The loss when visual tokens are hidden from one layer alone, `[n_layer]`; `None` for a layer whose cells cannot
    /// be evicted.
    pub single: Vec<Option<Loss>>,
    /// The layers, ascending by the loss of each alone.
    pub order: Vec<usize>,
    /// The losses for growing numbers of layers of `order`, measured on other clips than the order.
    pub steps: Vec<ProfileStep>,
    /// The largest [`Loss::lost`] that was allowed.
    pub max_loss: f64,
    /// How many layers of `order` are free: as many as stay within `max_loss`.
    pub free: usize,
    /// The number of clips that it was measured on.
    pub clips: usize,
    /// The number of answers that it was measured on.
    pub answers: usize,
}

impl LayerProfile {
    /// Makes a profile of measured losses. `single` has an entry for each layer of the model; `steps` are measured in
    /// the order of [`order_of`]`(single)`.
    pub fn new(single: Vec<Option<Loss>>, steps: Vec<ProfileStep>, max_loss: f64) -> Self {
        let order = order_of(&single);
        // Stop at the first step that loses too much: a later one that loses less does so by chance.
        let good = steps.iter().take_while(|step| step.loss.lost <= max_loss).map(|step| step.layers);
        let free = good.max().unwrap_or(0);
        Self {
            format: FORMAT,
            model: String::new(),
            digest: String::new(),
            llama_cpp: String::new(),
            single,
            order,
            steps,
            max_loss,
            free,
            clips: 0,
            answers: 0,
        }
    }

    /// The layers from which visual tokens may be evicted, those with the least loss first.
    pub fn free_layers(&self) -> &[usize] {
        &self.order[..self.free.min(self.order.len())]
    }

    /// The profile that this library ships for the model with this [`digest`](crate::models::digest), if there is one.
    pub fn shipped(digest: &str) -> Option<Self> {
        SHIPPED.iter().filter_map(|text| Self::parse(text).ok()).find(|profile| profile.digest == digest)
    }

    /// Reads a profile.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; [`Error::Unusable`] if it is not a layer profile.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io("reading the layer profile", path))?;
        Self::parse(&text).map_err(|reason| Error::Unusable {
            what: FileKind::LayerProfile,
            path: path.to_owned(),
            reason: format!("it is not a layer profile: {reason}"),
            advice: "measure the layers again, or go on without a profile".into(),
        })
    }

    /// Parses the text of a profile.
    pub(in crate::chat) fn parse(text: &str) -> Result<Self, String> {
        let profile: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if profile.format != FORMAT {
            return Err(format!("it has format {}, and this version reads format {FORMAT}", profile.format));
        }
        let mut seen = vec![false; profile.single.len()];
        for &layer in &profile.order {
            match seen.get_mut(layer) {
                Some(seen) if !*seen => *seen = true,
                _ => {
                    return Err(format!(
                        "its order names layer {layer} twice, or beyond its {} layers",
                        profile.single.len()
                    ));
                }
            }
        }
        if profile.free > profile.order.len().saturating_sub(1) {
            return Err(format!("it frees {} of {} layers", profile.free, profile.order.len()));
        }
        Ok(profile)
    }

    /// Writes it to `path`, atomically.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let unfinished = path.with_extension("new");
        let written = std::fs::write(&unfinished, self.to_json()).and_then(|()| std::fs::rename(&unfinished, path));
        written.map_err(Error::io("writing the layer profile", path))
    }

    /// The text of its file.
    fn to_json(&self) -> String {
        // It holds numbers and strings only, so this cannot fail.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// Checks that it is for a model with `n_layer` layers.
    pub(in crate::chat) fn check(&self, n_layer: usize) -> Result<()> {
        if self.single.len() == n_layer {
            return Ok(());
        }
        Err(Error::InvalidParameter {
            name: "layer profile",
            value: format!("of a model with {} layers", self.single.len()),
            expected: format!("of this model, which has {n_layer}"),
        })
    }
}

/// The layers with a loss, ascending by its divergence.
pub fn order_of(single: &[Option<Loss>]) -> Vec<usize> {
    let mut order: Vec<(usize, f64)> =
        single.iter().enumerate().filter_map(|(il, loss)| Some((il, loss.as_ref()?.divergence))).collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    order.into_iter().map(|(il, _)| il).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(divergence: f64, lost: f64) -> Loss {
        Loss { divergence, changed: 0.5, lost }
    }

    fn step(layers: usize, lost: f64) -> ProfileStep {
        ProfileStep { layers, loss: loss(lost, lost) }
    }

    #[test]
    fn the_layers_that_cost_least_are_free() {
        let single = vec![Some(loss(0.3, 0.0)), None, Some(loss(0.1, 0.0)), Some(loss(0.2, 0.0)), Some(loss(2.0, 0.5))];
        // Three layers cost less than two by chance, which does not count.
        let steps = vec![step(1, 0.0), step(2, 0.03), step(3, 0.01)];
        let profile = LayerProfile::new(single.clone(), steps.clone(), 0.02);
        assert_eq!(profile.order, [2, 3, 0, 4]);
        assert_eq!(profile.free_layers(), [2]);
        assert_eq!(LayerProfile::new(single.clone(), steps, 0.03).free_layers(), [2, 3, 0]);
        assert!(LayerProfile::new(single, vec![step(1, 0.5)], 0.02).free_layers().is_empty());
    }

    #[test]
    fn a_file_is_read_back_and_a_wrong_one_refused() {
        let single = vec![Some(loss(0.3, 0.0)), Some(loss(0.1, 0.0))];
        let profile = LayerProfile::new(single, vec![step(1, 0.0)], 0.02);
        assert_eq!(LayerProfile::parse(&profile.to_json()), Ok(profile.clone()));
        for (wrong, reason) in [
            (LayerProfile { format: 9, ..profile.clone() }, "format 9"),
            (LayerProfile { order: vec![1, 1], ..profile.clone() }, "layer 1"),
            (LayerProfile { order: vec![1, 7], ..profile.clone() }, "layer 7"),
            (LayerProfile { free: 2, ..profile.clone() }, "frees 2 of 2"),
        ] {
            let error = LayerProfile::parse(&wrong.to_json()).expect_err("it is wrong");
            assert!(error.contains(reason), "{error}");
        }
        assert!(LayerProfile::parse("{").is_err());
        assert!(profile.check(2).is_ok() && profile.check(3).is_err());
    }
}
