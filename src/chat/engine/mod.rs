//! The loaded models of a session, with their chat template and prompt layout. No question changes them.

pub(in crate::chat) mod checkpoints;
#[cfg(test)]
mod compared;
pub(in crate::chat) mod cost;
mod guard;
mod jinja;
mod placement;
mod template;
mod texts;
mod thinking;
mod thoughts;

#[cfg(all(any(test, fuzzing), feature = "lab"))]
pub(crate) use template::fuzz_template;
pub use thinking::Thinking;
pub(in crate::chat) use thinking::check_kwargs;
pub(in crate::chat) use thoughts::Delimiters;

use crate::error::{Error, Result};
use crate::layout::{self, EncoderFacts, Layout};
use crate::models::gguf::{self, Metadata};
use crate::models::{self, ModelDigest, ModelFiles};
use crate::observer::{Observer, Stage};
use crate::runtime::{
    CancelToken, ContextParams, DeviceMemory, LoraAdapter, Model, ModelParams, Vision, VisionParams, vision_need,
};
use crate::skip::EncoderShape;
use cost::CellCost;
use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};
use template::ChatTemplate;
use texts::Texts;

/// The parameters of an engine: a part of [`SessionParams`](super::SessionParams).
#[derive(Debug)]
pub(in crate::chat) struct EngineParams<'a> {
    pub model: &'a ModelParams,
    pub vision: &'a VisionParams,
    /// Check the headers of the files before loading them.
    pub check_files: bool,
    /// The name of the prompt layout; `None` chooses the layout of the model's family.
    pub layout: Option<&'a str>,
    /// Cut frames into tiles, if the encoder does that with single images.
    pub tile: bool,
    /// A chat template that replaces the model's own.
    pub chat_template: Option<&'a str>,
    /// The context that has to fit on the GPUs next to the model's layers; 0 cells mean a default size. With `None`,
    /// the layers go where `model` puts them, whether they fit or not.
    pub context: Option<ContextParams>,
}

/// A language model with its vision encoder and adapters, its chat template and its prompt layout.
#[derive(Debug)]
pub(in crate::chat) struct Engine {
    // Fields drop in this order: the encoder and the adapters before the model that they use.
    pub vision: Vision,
    pub adapters: Vec<LoraAdapter>,
    pub model: Model,
    pub template: ChatTemplate,
    pub layout: Box<dyn Layout>,
    /// The shape of the vision encoder, which decides what it can skip.
    pub shape: EncoderShape,
    /// The encoder's embedding for the end of a line, `[n_embd_inp]`, if it has one.
    pub newline: Option<Vec<f32>>,
    /// The time that loading took.
    pub load: Duration,
    vision_params: VisionParams,
    /// The measured costs of a cell, by ubatch size.
    cell_costs: RefCell<BTreeMap<usize, CellCost>>,
    /// The memory that the vision encoder needs; empty until it is first requested.
    encoder_need: OnceCell<Vec<DeviceMemory>>,
    /// Empty until a session is saved or loaded.
    fingerprints: OnceCell<Fingerprints>,
    /// The tokens of texts of earlier prompts.
    pub texts: Texts,
}

/// Digests of the loaded files. Nothing else distinguishes two fine-tunes of one model.
#[derive(Debug)]
pub(in crate::chat) struct Fingerprints {
    pub model: ModelDigest,
    pub mmproj: ModelDigest,
    pub adapters: Vec<ModelDigest>,
}

impl Engine {
    /// Loads `files`. If `model` is passed, the language model is not loaded again.
    pub fn load(
        model: Option<Model>,
        files: &ModelFiles,
        params: &EngineParams<'_>,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        let mmproj = mmproj(files)?;
        if params.check_files {
            models::check(mmproj)?;
            if model.is_none() {
                models::check(&files.model)?;
            }
        }
        let start = Instant::now();
        let model = match model {
            Some(model) => model,
            None => Model::load(&files.model, &placement::place(files, params, observer), |p| {
                observer.progress(Stage::LoadModel, thousandths(p), 1000);
            })?,
        };
        if model.has_encoder() {
            return Err(Error::Load {
                what: "a VideoLLM's language model",
                path: model.path().to_owned(),
                reason: "models with a text encoder are not supported".into(),
            });
        }
        let newline = read_newline(mmproj)?;
        let metadata = gguf::read_metadata(mmproj)?;
        let encoder = encoder_facts(&metadata, &model, newline.is_some());
        let shape = encoder_shape(&metadata, &encoder);
        if encoder.projector.starts_with("qwen") && !model.uses_mrope() {
            return Err(Error::Load {
                what: "the mmproj of this model",
                path: mmproj.to_owned(),
                reason: format!(
                    "it belongs to a Qwen-VL model, but {} does not use M-RoPE; pass the mmproj that came with the model",
                    model.path().display()
                ),
            });
        }
        let name = params.layout.unwrap_or_else(|| layout::name_for(&encoder));
        let mut layout = layout::by_name(name, &encoder)?;
        if params.tile {
            layout = layout.tiled().unwrap_or(layout);
        }
        let template = ChatTemplate::new(&model, params.chat_template)?;
        let vision = Vision::load(mmproj, &model, params.vision, |p| {
            observer.progress(Stage::LoadVision, thousandths(p), 1000);
        })?;
        observer.progress(Stage::LoadVision, 1000, 1000);
        let model_width = model.n_embd_inp();
        let adapters = files.lora.iter().map(|path| model.load_lora(path, 1.0)).collect::<Result<_>>()?;
        Ok(Self {
            vision,
            adapters,
            model,
            template,
            layout,
            shape,
            newline: newline.filter(|row| row.len() == model_width),
            load: start.elapsed(),
            vision_params: params.vision.clone(),
            cell_costs: RefCell::default(),
            encoder_need: OnceCell::new(),
            fingerprints: OnceCell::new(),
            texts: Texts::default(),
        })
    }

    /// The memory cost of contexts with the parameters `context`; its `n_ctx` does not matter. It is measured once per
    /// ubatch size.
    pub fn cell_cost(&self, context: &ContextParams, cancel: &CancelToken) -> Result<CellCost> {
        let n_ubatch = context.compute.n_ubatch;
        if let Some(&cost) = self.cell_costs.borrow().get(&n_ubatch) {
            return Ok(cost);
        }
        let cost = CellCost::measure(&self.model, context, &self.adapters, cancel)?;
        self.cell_costs.borrow_mut().insert(n_ubatch, cost);
        Ok(cost)
    }

    /// The size of the vision encoder's file in bytes; 0 if it is unknown.
    pub fn encoder_file_bytes(&self) -> u64 {
        std::fs::metadata(self.vision.path()).map_or(0, |meta| meta.len())
    }

    /// The memory that the vision encoder needs on each device, for weights and for the buffers of an image. It is
    /// planned once. If planning fails, the result is empty, because a video may still fit.
    pub fn encoder_need(&self) -> &[DeviceMemory] {
        self.encoder_need.get_or_init(|| {
            vision_need(self.vision.path(), &self.vision_params).unwrap_or_else(|error| {
                tracing::debug!("{error}");
                Vec::new()
            })
        })
    }

    /// The digests of the loaded files, which are read once.
    pub fn fingerprints(&self) -> Result<&Fingerprints> {
        if let Some(known) = self.fingerprints.get() {
            return Ok(known);
        }
        let adapters = self.adapters.iter().map(|adapter| models::fingerprint(adapter.path()));
        let found = Fingerprints {
            model: models::fingerprint(self.model.path())?,
            mmproj: models::fingerprint(self.vision.path())?,
            adapters: adapters.collect::<Result<_>>()?,
        };
        Ok(self.fingerprints.get_or_init(|| found))
    }
}

fn mmproj(files: &ModelFiles) -> Result<&Path> {
    files.mmproj.as_deref().ok_or_else(|| Error::InvalidParameter {
        name: "mmproj",
        value: "missing".into(),
        expected: "the model's vision encoder, a GGUF file".into(),
    })
}

fn thousandths(progress: f32) -> u64 {
    (progress.clamp(0.0, 1.0) * 1000.0) as u64
}

/// What a layout can read from the `metadata` of the encoder's file.
fn encoder_facts(metadata: &Metadata, model: &Model, has_newline: bool) -> EncoderFacts {
    // Files with more than one encoder have a key for each.
    let projector = ["clip.vision.projector_type", "clip.projector_type"].iter().find_map(|key| metadata.string(key));
    let number = |key| metadata.u64(key).and_then(|value| u32::try_from(value).ok());
    EncoderFacts {
        projector: projector.unwrap_or_default().to_owned(),
        architecture: model.metadata("general.architecture").unwrap_or_default(),
        image_size: number("clip.vision.image_size"),
        patch_size: number("clip.vision.patch_size"),
        has_newline,
    }
}

/// The shape of the encoder whose file has this `metadata`.
fn encoder_shape(metadata: &Metadata, facts: &EncoderFacts) -> EncoderShape {
    let number = |key| metadata.u64(key).and_then(|value| usize::try_from(value).ok());
    EncoderShape {
        projector: facts.projector.clone(),
        n_layers: number("clip.vision.block_count"),
        n_embd: number("clip.vision.embedding_length"),
        patch: number("clip.vision.patch_size"),
        side: number("clip.vision.image_size"),
        n_feature_layers: metadata.numbers("clip.vision.feature_layer").map_or(0, <[f64]>::len),
    }
}

/// The embedding for the end of a line in the file `mmproj`, if it has one.
fn read_newline(mmproj: &Path) -> Result<Option<Vec<f32>>> {
    for name in ["v.image_newline", "model.image_newline"] {
        if let Some(row) = gguf::read_floats(mmproj, name)? {
            return Ok(Some(row));
        }
    }
    Ok(None)
}
