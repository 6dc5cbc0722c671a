//! Which visual tokens are kept, and which leave the KV cache again.

use crate::values;
use clap::Args;
use sharpv::Observer;
use sharpv::chat::{EvictMode, EvictParams, LayerProfile, SessionParams};
use sharpv::models::{self, ModelFiles, Store};
use sharpv::prune::{Budget, Method, PruneParams};
use std::path::PathBuf;
use std::sync::Arc;

/// What all commands that prune with SharpV have in common.
#[derive(Debug, Args)]
#[command(next_help_heading = "Visual tokens")]
pub struct WeightOptions {
    /// SharpV's weight of spatial against temporal importance
    #[arg(long, value_name = "W", default_value_t = PruneParams::default().spatial_weight)]
    spatial_weight: f32,

    /// Keep at least this many tokens of a video's first frame (sharpv, sharpv-paper, random, uniform)
    #[arg(long, value_name = "N", default_value_t = PruneParams::default().min_keep)]
    min_keep: usize,
}

impl WeightOptions {
    /// How to prune with them; the rest is as it is by default.
    pub fn params(&self) -> PruneParams {
        PruneParams { spatial_weight: self.spatial_weight, min_keep: self.min_keep, ..PruneParams::default() }
    }
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Visual tokens")]
pub struct PruneOptions {
    /// Which visual tokens to keep; off keeps all
    ///
    /// sharpv keeps the tokens that SharpV finds important, and one token per scene for the rest; sharpv-paper keeps
    /// only the important ones, as in the paper; off keeps all.
    #[arg(long, value_name = "METHOD", default_value = "sharpv", value_parser = values::method())]
    prune: Method,

    /// Keep this share of the visual tokens, 0 to 1 [default: what the video needs]
    ///
    /// As SharpV sees it; with other methods what their papers keep.
    #[arg(long, value_name = "SHARE", group = "budget", value_parser = values::share)]
    keep: Option<f32>,

    /// Keep at most this many visual tokens in all
    #[arg(long, value_name = "N", group = "budget")]
    max_visual_tokens: Option<usize>,

    /// Keep the tokens whose importance is over this: the manual mode of the paper, which has 1.6. Not with --prune
    /// divprune
    #[arg(long, value_name = "K", group = "budget")]
    threshold: Option<f32>,

    #[command(flatten)]
    weights: WeightOptions,
}

impl PruneOptions {
    /// The options of SharpV as it is without any.
    pub fn default_method() -> Self {
        let PruneParams { method, spatial_weight, min_keep, .. } = PruneParams::default();
        let weights = WeightOptions { spatial_weight, min_keep };
        Self { prune: method, keep: None, max_visual_tokens: None, threshold: None, weights }
    }

    /// Whether visual tokens are pruned.
    pub fn prunes(&self) -> bool {
        self.prune.prunes()
    }

    /// How to prune; `seed` is that of the method random.
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
        let weights = self.weights.params();
        let seed = seed.map_or(weights.seed, u64::from);
        let params = PruneParams { method: self.prune, budget: budget.unwrap_or_default(), seed, ..weights };
        params.validate()?;
        Ok(params)
    }
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "KV cache")]
pub struct EvictOptions {
    /// What leaves the KV cache behind the prompt: all visual tokens in the layers where little is left of them
    /// (layers), the visual tokens of which little is left (tokens), or nothing (off). In `eval`, eviction gives each
    /// question a prompt of its own [default: layers; off in `eval`, and with --prune off]
    #[arg(long, value_name = "WHAT", value_parser = values::one_of::<EvictMode>())]
    evict: Option<EvictMode>,

    /// Evict below this similarity, -1 to 1; the paper has 0.2 [default: as much as leaves answers as they are]
    #[arg(long, value_name = "M", allow_negative_numbers = true)]
    evict_threshold: Option<f32>,

    /// In which layers the model can do without visual tokens: a file that `sharpv calibrate` wrote, or `off`
    /// [default: what it found out about this model, if it did]
    #[arg(long, value_name = "FILE|off")]
    layer_profile: Option<PathBuf>,

    /// Keep visual tokens out of the layers that the layer profile frees from the beginning, rather than behind a look
    /// at the first answer: the cache is never as large as with all of them
    #[arg(long)]
    evict_early: bool,
}

impl EvictOptions {
    /// The same, but that nothing is evicted unless asked for.
    pub fn or_off(&self) -> Self {
        Self { evict: self.evict.or(Some(EvictMode::Off)), ..self.clone() }
    }

    /// What is known of the layers of the model in `files`, as far as sessions with `params` want to know it.
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

    /// How to evict, where visual tokens are pruned or not.
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

/// What `sharpv calibrate` found out about this model here, or else what comes with sharpv.
pub fn known_profile(files: &ModelFiles, observer: &mut dyn Observer) -> Option<LayerProfile> {
    // A model file that cannot be read is told when it is loaded.
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
