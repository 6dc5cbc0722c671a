//! Which visual tokens are kept, and which are evicted from the KV cache.

use crate::values;
use clap::Args;
use sharpv::Observer;
use sharpv::chat::{EvictMode, EvictParams, LayerProfile, SessionParams};
use sharpv::models::{self, ModelFiles, Store};
use sharpv::prune::{Budget, Method, PruneParams};
use std::path::PathBuf;
use std::sync::Arc;

/// SharpV's own parameters, for measuring.
#[derive(Debug, Args)]
#[command(next_help_heading = "Visual tokens")]
pub struct WeightOptions {
    /// SharpV's weight of spatial importance relative to temporal importance
    #[arg(long, value_name = "W", default_value_t = PruneParams::default().spatial_weight)]
    spatial_weight: f32,

    /// Keep at least N tokens of a video's first frame (sharpv, sharpv-paper, random, uniform)
    #[arg(long, value_name = "N", default_value_t = PruneParams::default().min_keep)]
    min_keep: usize,
}

impl WeightOptions {
    /// Pruning parameters with these weights; the others have their defaults.
    pub fn params(&self) -> PruneParams {
        PruneParams { spatial_weight: self.spatial_weight, min_keep: self.min_keep, ..PruneParams::default() }
    }
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Visual tokens")]
pub struct PruneOptions {
    /// Which visual tokens to keep
    ///
    /// sharpv keeps the tokens that SharpV finds important, and one token per scene for the rest; sharpv-paper keeps
    /// only the important ones, as in the paper; off keeps all.
    #[arg(long, value_name = "METHOD", default_value = "sharpv", value_parser = values::method())]
    prune: Method,

    /// Keep this share of the visual tokens, 0 to 1 [default: as SharpV decides]
    #[arg(long, value_name = "SHARE", group = "budget", value_parser = values::share)]
    keep: Option<f32>,

    /// Keep at most N visual tokens in total
    #[arg(long, value_name = "N", group = "budget")]
    max_visual_tokens: Option<usize>,

    /// Keep the tokens whose importance is above K: the manual mode of the paper, which uses 1.6
    #[arg(long, value_name = "K", group = "budget")]
    threshold: Option<f32>,
}

impl PruneOptions {
    /// Whether visual tokens are pruned.
    pub fn prunes(&self) -> bool {
        self.prune.prunes()
    }

    /// Pruning parameters; `seed` is for the method random.
    pub fn params(&self, seed: Option<u32>) -> sharpv::Result<PruneParams> {
        let budgets = [
            self.keep.map(Budget::Keep),
            self.max_visual_tokens.map(Budget::MaxTokens),
            self.threshold.map(Budget::Threshold),
        ];
        let budget = budgets.into_iter().flatten().next();
        if !self.prunes() && budget.is_some() {
            return Err(sharpv::Error::InvalidParameter {
                name: "--prune",
                value: "off".into(),
                expected: "another method where --keep, --max-visual-tokens or --threshold is given".into(),
            });
        }
        let defaults = PruneParams::default();
        let seed = seed.map_or(defaults.seed, u64::from);
        let params = PruneParams { method: self.prune, budget: budget.unwrap_or_default(), seed, ..defaults };
        params.validate()?;
        Ok(params)
    }
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "KV cache")]
pub struct EvictOptions {
    /// What to evict from the KV cache after prefill: all visual tokens in the layers where their embeddings have
    /// changed most (layers), the visual tokens that have changed most (tokens), or nothing (off). In `eval`, eviction
    /// gives each question its own prompt [default: layers; off in `eval`, and with --prune off]
    #[arg(long, value_name = "WHAT", value_parser = values::one_of::<EvictMode>())]
    evict: Option<EvictMode>,

    /// Evict below this similarity to the embeddings, -1 to 1; the paper uses 0.2 [default: as much as leaves answers
    /// unchanged]
    #[arg(long, value_name = "M", allow_negative_numbers = true)]
    evict_threshold: Option<f32>,

    /// The layers that can do without visual tokens: a file written by `sharpv calibrate`, or `off` [default: the
    /// cached profile of this model, if any]
    #[arg(long, value_name = "FILE|off")]
    layer_profile: Option<PathBuf>,

    /// Evict from the layers that the layer profile frees already during prefill, not only after the first answer, so
    /// that the cache is never at its full size
    #[arg(long)]
    evict_early: bool,
}

impl EvictOptions {
    /// The same options, with `off` as the default.
    pub fn or_off(&self) -> Self {
        Self { evict: self.evict.or(Some(EvictMode::Off)), ..self.clone() }
    }

    /// The layer profile of the model in `files`, if sessions with `params` use one.
    pub fn layer_profile(
        &self,
        files: &ModelFiles,
        params: &SessionParams,
        observer: &mut dyn Observer,
    ) -> sharpv::Result<Option<Arc<LayerProfile>>> {
        let mode = params.evict.mode(params.prune.method.prunes());
        let profile = match &self.layer_profile {
            Some(word) if word.as_os_str() == "off" => None,
            Some(file) => Some(LayerProfile::read(file)?),
            None if mode != EvictMode::Layers || params.evict.threshold.is_some() => None,
            None => known_profile(files, observer),
        };
        if params.evict.early && profile.is_none() {
            observer.warning("--evict-early has no effect without a layer profile: sharpv calibrate makes one");
        }
        Ok(profile.map(Arc::new))
    }

    /// Eviction parameters; `prunes`: whether visual tokens are pruned.
    pub fn params(&self, prunes: bool) -> sharpv::Result<EvictParams> {
        let params = EvictParams { mode: self.evict, threshold: self.evict_threshold, early: self.evict_early };
        params.validate()?;
        if params.threshold.is_some() && params.mode(prunes) == EvictMode::Off {
            return Err(sharpv::Error::InvalidParameter {
                name: "--evict",
                value: "off".into(),
                expected: "layers or tokens where --evict-threshold is given".into(),
            });
        }
        Ok(params)
    }
}

/// The layer profile that `sharpv calibrate` stored for this model, or else the one that sharpv includes.
pub fn known_profile(files: &ModelFiles, observer: &mut dyn Observer) -> Option<LayerProfile> {
    // A model file that cannot be read is reported when it is loaded.
    let digest = models::digest(files).ok()?;
    let path = Store::from_env().ok()?.profile_path(&digest);
    if !path.exists() {
        return LayerProfile::shipped(&digest);
    }
    match LayerProfile::read(&path) {
        Ok(profile) => Some(profile),
        Err(error) => {
            observer.warning(&error.to_string());
            None
        }
    }
}
