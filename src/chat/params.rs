//! How a session is opened: everything a user can choose.

use super::kv::evict::{EvictMode, EvictParams};
use super::kv::prefill::PrefillMode;
use super::kv::profile::LayerProfile;
use super::kv::trial::LOOKED_AT;
use super::prompt::plan::Tokenization;
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::prune::PruneParams;
use crate::runtime::{CancelToken, ComputeParams, ContextParams, ModelParams, SamplerParams, VisionParams};
use crate::skip::EncodeParams;
use crate::video::{Rate, Sampling, Spread};
use std::sync::Arc;

/// How to open a [`Session`](super::Session).
///
/// Write it with `..SessionParams::default()` or through [`Session::builder`](super::Session::builder): any version may
/// add fields.
#[derive(Debug, Clone)]
pub struct SessionParams {
    /// The language model.
    pub model: ModelParams,
    /// The vision encoder.
    pub vision: VisionParams,
    /// Look at the headers of the model's files first ([`models::check`](crate::models::check)): llama.cpp ends the
    /// process over what it cannot use. The check refuses what no model is known to have, and could be wrong.
    pub check_files: bool,
    /// How the language model computes: threads, batch size, types of the KV cache.
    pub compute: ComputeParams,
    /// Cells of the KV cache. `None` sizes it to what the prompt needs after pruning, plus room for an answer, and lets
    /// it grow with the conversation.
    pub n_ctx: Option<usize>,
    /// Take fewer frames, smaller images or fewer visual tokens where a video does not fit the model, the context or
    /// memory and nothing else was asked for. Without it, such a video is an error.
    pub fit: bool,
    /// Memory for KV cache and buffers, in bytes, where less than what is free should be taken.
    pub max_memory: Option<u64>,
    /// Which visual tokens to keep.
    pub prune: PruneParams,
    /// How much of each image the vision encoder computes.
    pub encode: EncodeParams,
    /// Keep the embeddings of all visual tokens in memory, so that [`Session::set_prune`](super::Session::set_prune)
    /// can select anew from them.
    pub keep_unpruned: bool,
    /// Keep what [`Session::inspect`](super::Session::inspect) tells: what each token scored, and where it lies.
    pub inspect: bool,
    /// Which of them leave the KV cache again, behind the prefill.
    pub evict: EvictParams,
    /// What is known of the model's layers: it says how far [`EvictMode::Layers`] goes where no threshold is given.
    pub layer_profile: Option<Arc<LayerProfile>>,
    /// Decode the next frames of a video on a thread of its own while one is encoded
    /// ([`FrameSource::decode_ahead`](crate::video::FrameSource::decode_ahead)).
    pub decode_ahead: bool,
    /// How tokens are chosen.
    pub sampler: SamplerParams,
    /// The most tokens an answer may have.
    pub n_predict: usize,
    /// The prompt layout, by name; `None` takes that of the model's family.
    pub layout: Option<String>,
    /// Cut frames into tiles, as the encoder does with single images, where it does: many more visual tokens.
    pub tile: bool,
    /// A system message; `None` leaves it to the chat template.
    pub system: Option<String>,
    /// A chat template (Jinja) to use in place of the model's own.
    pub chat_template: Option<String>,
    /// How the text around frames becomes tokens.
    pub tokenization: Tokenization,
    /// How text and visual tokens are batched.
    pub prefill: PrefillMode,
    /// Stops the session's work.
    pub cancel: CancelToken,
}

impl Default for SessionParams {
    fn default() -> Self {
        Self {
            model: ModelParams::default(),
            vision: VisionParams::default(),
            check_files: true,
            compute: ComputeParams::default(),
            n_ctx: None,
            fit: true,
            max_memory: None,
            prune: PruneParams::default(),
            encode: EncodeParams::default(),
            keep_unpruned: false,
            inspect: false,
            evict: EvictParams::default(),
            layer_profile: None,
            decode_ahead: true,
            sampler: SamplerParams::default(),
            n_predict: 512,
            layout: None,
            tile: false,
            system: None,
            chat_template: None,
            tokenization: Tokenization::Joined,
            prefill: PrefillMode::Auto,
            cancel: CancelToken::new(),
        }
    }
}

impl SessionParams {
    /// What can be told before anything is loaded.
    pub(super) fn validate(&self) -> Result<()> {
        self.prune.validate()?;
        self.encode.validate()?;
        self.sampler.validate()?;
        self.evict.validate()?;
        self.compute.validate()?;
        check_n_predict(self.n_predict)
    }

    pub(super) fn evict_mode(&self) -> EvictMode {
        self.evict.mode(self.prune.method.prunes())
    }

    /// The layers that visual tokens never stay in, if they are known and that is wanted.
    pub(super) fn early_layers(&self) -> Option<&LayerProfile> {
        let wanted = self.evict.early && self.evict_mode() == EvictMode::Layers && self.evict.threshold.is_none();
        self.layer_profile.as_deref().filter(|profile| wanted && !profile.free_layers().is_empty())
    }

    /// A context with `n_ctx` cells for such a session, which computes `n_ubatch` rows at once.
    pub(super) fn context(&self, n_ctx: usize, n_ubatch: usize) -> ContextParams {
        let evicts = self.evict_mode() != EvictMode::Off;
        let looks = evicts && self.evict.threshold.is_none();
        ContextParams {
            n_ctx,
            evictable: evicts,
            // One to try evictions in.
            n_sequences: if looks { 2 } else { 1 },
            n_outputs: if looks { LOOKED_AT } else { 1 },
            compute: ComputeParams { n_ubatch, ..self.compute.clone() },
            window: None,
        }
    }
}

pub(super) fn check_n_predict(n_predict: usize) -> Result<()> {
    // Positions have 31 bits.
    const MOST: usize = i32::MAX as usize;
    if (1..=MOST).contains(&n_predict) {
        return Ok(());
    }
    let expected = format!("from 1 to {MOST}");
    Err(Error::InvalidParameter { name: "n-predict", value: n_predict.to_string(), expected })
}

/// Which frames of a video to take. What is left out is as the model's family wants it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct VideoOptions {
    /// Frames for each second of video.
    pub fps: Option<f64>,
    /// The most frames to take; without `fps`, the number of frames, spread evenly.
    pub max_frames: Option<usize>,
    /// Where to begin, in seconds.
    pub start_s: Option<f64>,
    /// Where to end, in seconds.
    pub end_s: Option<f64>,
    /// Frames for each second of a folder of frames; 1 if not given.
    pub folder_fps: Option<f64>,
    /// Which frames to take where they cannot be as many for each second as are wanted.
    pub choice: FrameChoice,
}

/// Seconds between frames of a long video, where the family's number of frames would put them farther apart and may be
/// more.
const FAR_S: f64 = 30.0;

/// Which frames to take of a video that is too long for the number of frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FrameChoice {
    /// By what changes, where frames at even distances would be two seconds apart or more.
    #[default]
    Auto,
    /// Frames at even distances.
    Even,
    /// By what changes: the video is looked over first, so that what is seen for a short time has its frame.
    Changes,
}

impl FrameChoice {
    /// Whether `n_frames` are chosen by what changes, where a look over the video shows `n_looks` images.
    pub(super) fn looks(self, n_frames: usize, n_looks: u64) -> bool {
        let n_frames = n_frames as u64;
        match self {
            Self::Auto => n_looks >= n_frames.saturating_mul(SPARSE),
            Self::Even => false,
            Self::Changes => n_looks > n_frames,
        }
    }
}

/// Looks for each frame, one a second, from which on frames at even distances miss much.
const SPARSE: u64 = 2;

impl VideoOptions {
    pub(super) fn sampling(&self, layout: &dyn Layout) -> Sampling {
        let frames = layout.frames();
        let rate = match (self.fps, self.max_frames) {
            (Some(fps), max) => Rate::Fps { fps, max_frames: max.unwrap_or(frames.max) },
            (None, None) => frames.rate,
            (None, Some(max)) => match frames.rate {
                Rate::Uniform { .. } => Rate::Uniform { frames: max },
                Rate::Fps { fps, .. } => Rate::Fps { fps, max_frames: max },
            },
        };
        // Who asks for a rate gets it, with an odd frame at the end if it comes so.
        let (spread, min_frames, multiple_of) =
            if self.fps.is_none() { (frames.spread, frames.min, frames.multiple_of) } else { (Spread::Middles, 1, 1) };
        let default = Sampling::default();
        Sampling {
            rate,
            spread,
            start_s: self.start_s,
            end_s: self.end_s,
            folder_fps: self.folder_fps.unwrap_or(default.folder_fps),
            min_frames,
            multiple_of,
        }
    }

    /// Families that take a fixed number of frames take more of a video of `duration_s` that is long for it, as many as
    /// they are used to at most, where nothing else was asked for. `None` if `sampling` stays.
    pub(super) fn of_long(
        &self,
        sampling: &Sampling,
        layout: &dyn Layout,
        duration_s: Option<f64>,
    ) -> Option<Sampling> {
        let Rate::Uniform { frames } = sampling.rate else { return None };
        if self.max_frames.is_some() || self.choice == FrameChoice::Even {
            return None;
        }
        let end = self.end_s.into_iter().chain(duration_s).fold(f64::INFINITY, f64::min);
        let seconds = Some(end - self.start_s.unwrap_or(0.0)).filter(|seconds| seconds.is_finite())?;
        let more = ((seconds / FAR_S).ceil() as usize).min(layout.frames().max);
        (more > frames).then_some(Sampling { rate: Rate::Uniform { frames: more }, ..*sampling })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{self, EncoderFacts};

    #[test]
    fn frames_asked_for_override_the_family() {
        let internvl = layout::InternVl::new(&EncoderFacts::default());
        let rate =
            |fps, max_frames| VideoOptions { fps, max_frames, ..VideoOptions::default() }.sampling(&internvl).rate;
        assert_eq!(rate(None, None), Rate::Uniform { frames: 8 });
        assert_eq!(rate(None, Some(4)), Rate::Uniform { frames: 4 });
        assert_eq!(rate(Some(2.0), None), Rate::Fps { fps: 2.0, max_frames: 32 });
        assert_eq!(rate(Some(2.0), Some(5)), Rate::Fps { fps: 2.0, max_frames: 5 });
        let of_long = |options: VideoOptions, seconds| {
            options.of_long(&options.sampling(&internvl), &internvl, seconds).map(|sampling| sampling.rate)
        };
        let default = VideoOptions::default();
        assert_eq!([None, Some(240.0)].map(|seconds| of_long(default, seconds)), [None, None]);
        assert_eq!(of_long(default, Some(600.0)), Some(Rate::Uniform { frames: 20 }));
        assert_eq!(of_long(default, Some(10_800.0)), Some(Rate::Uniform { frames: 32 }));
        let part = VideoOptions { start_s: Some(100.0), end_s: Some(200.0), ..default };
        assert_eq!(of_long(part, Some(10_800.0)), None);
        for options in [
            VideoOptions { max_frames: Some(8), ..default },
            VideoOptions { choice: FrameChoice::Even, ..default },
            VideoOptions { fps: Some(0.1), ..default },
        ] {
            assert_eq!(of_long(options, Some(10_800.0)), None);
        }
        let general = VideoOptions { max_frames: Some(5), ..VideoOptions::default() }.sampling(&layout::General).rate;
        assert_eq!(general, Rate::Fps { fps: 1.0, max_frames: 5 });
    }
}
