//! What is loaded: the models of a session and how they want to be talked to. No question changes it.

pub(in crate::chat) mod cost;
mod guard;
mod placement;
mod template;
mod texts;

#[cfg(all(any(test, fuzzing), feature = "lab"))]
pub(crate) use template::fuzz_template;

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

/// What an engine is loaded by, as [`SessionParams`](super::SessionParams) have it.
#[derive(Debug)]
pub(in crate::chat) struct EngineParams<'a> {
    pub model: &'a ModelParams,
    pub vision: &'a VisionParams,
    /// Look at the headers of the files first.
    pub check_files: bool,
    /// The prompt layout, by name; `None` takes that of the model's family.
    pub layout: Option<&'a str>,
    /// Cut frames into tiles, where the encoder does that with images.
    pub tile: bool,
    /// A chat template in place of the model's own.
    pub chat_template: Option<&'a str>,
    /// A context that the GPUs should hold beside the layers of the model; with 0 cells, one of a usual size. `None`
    /// puts all layers where `model` says.
    pub beside: Option<ContextParams>,
}

/// A language model with its vision encoder and adapters, its chat template and its prompt layout.
#[derive(Debug)]
pub(in crate::chat) struct Engine {
    // Dropped before what it was made from.
    pub vision: Vision,
    pub adapters: Vec<LoraAdapter>,
    pub model: Model,
    pub template: ChatTemplate,
    pub layout: Box<dyn Layout>,
    /// What may be left out of its work.
    pub shape: EncoderShape,
    /// The encoder's embedding of a line end, `[n_embd_inp]`, if it has one.
    pub newline: Option<Vec<f32>>,
    /// How long loading took.
    pub load: Duration,
    vision_params: VisionParams,
    /// What cells cost, as far as that was measured: by the rows that are computed at once.
    cell_costs: RefCell<BTreeMap<usize, CellCost>>,
    /// What the vision encoder takes, once that was asked.
    encoder_need: OnceCell<Vec<DeviceMemory>>,
    /// Once a session is saved or loaded.
    fingerprints: OnceCell<Fingerprints>,
    /// What prompts said before.
    pub texts: Texts,
}

/// Digests of the files that were loaded: fine-tunes of one model differ in nothing else.
#[derive(Debug)]
pub(in crate::chat) struct Fingerprints {
    pub model: ModelDigest,
    pub mmproj: ModelDigest,
    pub adapters: Vec<ModelDigest>,
}

impl Engine {
    /// Loads `files`; the language model only if it is not given.
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
                    "it is of a Qwen-VL model, and {} has no positions in time and space (M-RoPE); give the mmproj that came with it",
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

    /// What a cell of a context costs that is made as `context`, of any size. Measured once for each number of rows that
    /// are computed at once.
    pub fn cell_cost(&self, context: &ContextParams, cancel: &CancelToken) -> Result<CellCost> {
        let n_ubatch = context.compute.n_ubatch;
        if let Some(&cost) = self.cell_costs.borrow().get(&n_ubatch) {
            return Ok(cost);
        }
        let cost = CellCost::measure(&self.model, context, &self.adapters, cancel)?;
        self.cell_costs.borrow_mut().insert(n_ubatch, cost);
        Ok(cost)
    }

    /// Bytes of the vision encoder's file.
    pub fn encoder_file_bytes(&self) -> u64 {
        std::fs::metadata(self.vision.path()).map_or(0, |meta| meta.len())
    }

    /// What the vision encoder takes of each device: weights, and buffers for an image. Planned once; nothing where
    /// that cannot be planned, which is no reason to refuse a video.
    pub fn encoder_need(&self) -> &[DeviceMemory] {
        self.encoder_need.get_or_init(|| {
            vision_need(self.vision.path(), &self.vision_params).unwrap_or_else(|error| {
                tracing::debug!("{error}");
                Vec::new()
            })
        })
    }

    /// Digests of the files that were loaded. Read once.
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

/// What a layout may know of an encoder whose file has this `metadata`.
fn encoder_facts(metadata: &Metadata, model: &Model, has_newline: bool) -> EncoderFacts {
    // Files with more than one encoder name each.
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

/// What may be left out of its work.
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

/// The embedding of a line end in the file `mmproj`, if it has one.
fn read_newline(mmproj: &Path) -> Result<Option<Vec<f32>>> {
    for name in ["v.image_newline", "model.image_newline"] {
        if let Some(row) = gguf::read_floats(mmproj, name)? {
            return Ok(Some(row));
        }
    }
    Ok(None)
}
