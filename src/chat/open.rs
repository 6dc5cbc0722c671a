//! Opening a session: loading its files, and checking that they belong together.

use super::encode::EncodeTimings;
use super::evict::Evicted;
use super::observer::{Observer, Stage};
use super::plan::Marks;
use super::{Session, SessionParams, template};
use crate::error::{Error, Result};
use crate::layout::{self, EncoderFacts};
use crate::models::{ModelFiles, gguf};
use crate::runtime::{Model, Sampler, Vision};
use std::cell::OnceCell;
use std::path::Path;
use std::time::Instant;

impl Session {
    /// Loads the model, its vision encoder and its adapters.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Load`] for a file that cannot be used, [`Error::ChatTemplate`], and
    /// [`Error::InvalidParameter`] for a parameter out of range.
    pub fn open(files: &ModelFiles, params: SessionParams, observer: &mut dyn Observer) -> Result<Self> {
        // What can be told of these is told before a large file is loaded.
        validate(&params)?;
        mmproj(files)?;
        let start = Instant::now();
        let model = Model::load(&files.model, &params.model, |p| {
            observer.progress(Stage::LoadModel, thousandths(p), 1000);
        })?;
        let mut session = Self::with_model(model, files, params, observer)?;
        session.load = start.elapsed();
        Ok(session)
    }

    /// Opens a session with a model that is loaded already, so that several sessions share its weights. Vision encoder and adapters are
    /// loaded; `files.model` is not looked at.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn with_model(
        model: Model,
        files: &ModelFiles,
        params: SessionParams,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        let start = Instant::now();
        validate(&params)?;
        let mmproj = mmproj(files)?;
        if model.has_encoder() {
            return Err(Error::Load {
                what: "a VideoLLM's language model",
                path: model.path().to_owned(),
                reason: "models with a text encoder are not supported".into(),
            });
        }
        let newline = read_newline(mmproj)?;
        let encoder = encoder_facts(mmproj, &model, newline.is_some())?;
        if encoder.projector.starts_with("qwen") && !model.uses_mrope() {
            return Err(Error::Load {
                what: "the mmproj of this model",
                path: mmproj.to_owned(),
                reason: format!(
                    "it is of a Qwen-VL model, and {} has no positions in time and space (M-RoPE); give the mmproj that came with it",
                    model.path().display()
                ),
            });
        }
        let name = params.layout.as_deref().unwrap_or_else(|| layout::name_for(&encoder));
        let mut layout = layout::by_name(name, &encoder)?;
        if params.tile {
            layout = layout.tiled().unwrap_or(layout);
        }
        // A grammar that does not parse is told before anything is encoded.
        Sampler::new(&model, &params.sampler)?;
        let template = template::ChatTemplate::new(&model, params.chat_template.as_deref())?;
        let vision = Vision::load(mmproj, &model, &params.vision, |p| {
            observer.progress(Stage::LoadVision, thousandths(p), 1000);
        })?;
        observer.progress(Stage::LoadVision, 1000, 1000);
        let model_width = model.n_embd_inp();
        let adapters = files.lora.iter().map(|path| model.load_lora(path, 1.0)).collect::<Result<_>>()?;
        Ok(Self {
            context: None,
            vision,
            adapters,
            model,
            params,
            template,
            layout,
            newline: newline.filter(|row| row.len() == model_width),
            marks: Marks::new(),
            answer_start: String::new(),
            messages: Vec::new(),
            videos: Vec::new(),
            videos_sent: 0,
            spent: EncodeTimings::default(),
            cached: Vec::new(),
            evicted: Evicted::default(),
            dense_rows: 0,
            bytes_per_cell: 0,
            cell_cost: OnceCell::new(),
            fingerprints: OnceCell::new(),
            load: start.elapsed(),
        })
    }
}

/// What can be told before anything is loaded.
fn validate(params: &SessionParams) -> Result<()> {
    params.prune.validate()?;
    params.sampler.validate()?;
    params.evict.validate()?;
    if params.n_predict == 0 {
        return Err(Error::InvalidParameter { name: "n-predict", value: "0".into(), expected: "at least 1".into() });
    }
    Ok(())
}

fn mmproj(files: &ModelFiles) -> Result<&Path> {
    files.mmproj.as_deref().ok_or_else(|| Error::InvalidParameter {
        name: "mmproj",
        value: "missing".into(),
        expected: "the model's vision encoder, a GGUF file (--mmproj FILE)".into(),
    })
}

fn thousandths(progress: f32) -> u64 {
    (progress.clamp(0.0, 1.0) * 1000.0) as u64
}

/// What a layout may know of the encoder in the file `mmproj`.
fn encoder_facts(mmproj: &Path, model: &Model, has_newline: bool) -> Result<EncoderFacts> {
    let metadata = gguf::read_metadata(mmproj)?;
    // Files with more than one encoder name each.
    let projector = ["clip.vision.projector_type", "clip.projector_type"].iter().find_map(|key| metadata.string(key));
    let number = |key| metadata.u64(key).and_then(|value| u32::try_from(value).ok());
    Ok(EncoderFacts {
        projector: projector.unwrap_or_default().to_owned(),
        architecture: model.metadata("general.architecture").unwrap_or_default(),
        image_size: number("clip.vision.image_size"),
        patch_size: number("clip.vision.patch_size"),
        has_newline,
    })
}

/// The embedding of a line end in the file `mmproj`, if it has one.
fn read_newline(mmproj: &Path) -> Result<Option<Vec<f32>>> {
    for name in ["v.image_newline", "model.image_newline"] {
        if let Some(row) = gguf::read_floats(mmproj, name)? {
            return Ok(Some(row));
        }
    }
    Ok(None)
}
