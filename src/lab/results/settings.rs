//! What answers depend on: a run continues results only if all of it is the same.

use super::answers::RunSettings;
use crate::chat::{SessionParams, VideoOptions};
use crate::models::ModelFiles;
use serde_json::{Value, json};
use std::path::Path;

/// The conditions of an evaluation.
#[derive(Debug, Clone, Copy)]
pub struct Conditions<'a> {
    /// The benchmark's name.
    pub task: &'a str,
    /// A fingerprint of the dataset's questions.
    pub questions: &'a str,
    /// How choices are determined.
    pub score: &'a str,
    /// The model.
    pub files: &'a ModelFiles,
    /// The parameters of the sessions.
    pub params: &'a SessionParams,
    /// Which frames are used.
    pub video: &'a VideoOptions,
}

impl Conditions<'_> {
    /// Everything that an answer depends on, except the question, the method and the budget.
    pub fn settings(&self) -> RunSettings {
        let file = |path: &Path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let bytes = std::fs::metadata(path).map_or(0, |meta| meta.len());
            format!("{name} ({bytes} bytes)")
        };
        let Self { task, questions, score, files, params, video } = self;
        let compute = &params.compute;
        let Value::Object(settings) = json!({
            "task": task,
            "questions": questions,
            "model": file(&files.model),
            "mmproj": files.mmproj.as_deref().map(file),
            "lora": files.lora.iter().map(|path| file(path)).collect::<Vec<_>>(),
            "score": score,
            "n_predict": params.n_predict,
            "thinking": params.thinking.to_string(),
            "fps": video.fps,
            "max_frames": video.max_frames,
            "folder_fps": video.folder_fps,
            "spatial_weight": params.prune.spatial_weight,
            "min_keep": params.prune.min_keep,
            "seed": params.prune.seed,
            "evict": params.evict,
            "layers_free": params.layer_profile.as_ref().map(|profile| profile.free_layers()),
            "encode": json!({ "reuse": params.encode.reuse, "stop": params.encode.stop }),
            "layout": params.layout,
            "tile": params.tile,
            "system": params.system,
            "chat_template": params.chat_template,
            "template_kwargs": params.template_kwargs,
            "cache_type": [compute.type_k.name(), compute.type_v.name()],
            "flash_attention": format!("{:?}", compute.flash_attention).to_lowercase(),
        }) else {
            return RunSettings::new();
        };
        settings
    }
}
