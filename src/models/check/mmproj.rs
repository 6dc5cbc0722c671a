//! Checks of multimodal projectors. llama.cpp checks only whether most of their tensors exist, not their shapes.

use super::{Finding, Header, INT, in_words, must_be};
use crate::models::gguf::Value;
use std::collections::BTreeSet;

/// Far more layers than any encoder has.
const MAX_LAYERS: u64 = 1024;
/// Far more tiles than any model cuts an image into. llama.cpp lists all grids of up to this many tiles.
const MAX_TILES: u64 = 1024;
/// Far more pixels than any encoder has on a side.
const MAX_SIDE: u64 = 1 << 16;
/// MiniCPM-V has positions for a grid of this many patches on a side, whatever the size of the image.
const RESAMPLER_GRID: u64 = 70;

/// GGUF's numbers for the types of values.
const UINT32: u32 = 4;
const INT32: u32 = 5;
const FLOAT32: u32 = 6;
const BOOL: u32 = 7;
const STRING: u32 = 8;

/// The types of values on which llama.cpp asserts.
const TYPES: [(&str, u32); 37] = [
    ("general.name", STRING),
    ("general.description", STRING),
    ("clip.has_vision_encoder", BOOL),
    ("clip.has_audio_encoder", BOOL),
    ("clip.has_gen_audio_encoder", BOOL),
    ("clip.use_gelu", BOOL),
    ("clip.use_silu", BOOL),
    ("clip.projector_type", STRING),
    ("clip.vision.projector_type", STRING),
    ("clip.audio.projector_type", STRING),
    ("clip.minicpmv_version", INT32),
    ("clip.minicpmv_query_num", UINT32),
    ("clip.vision.embedding_length", UINT32),
    ("clip.vision.feed_forward_length", UINT32),
    ("clip.vision.block_count", UINT32),
    ("clip.vision.projection_dim", UINT32),
    ("clip.vision.attention.head_count", UINT32),
    ("clip.vision.attention.head_count_kv", UINT32),
    ("clip.vision.attention.head_dim", UINT32),
    ("clip.vision.attention.layer_norm_epsilon", FLOAT32),
    ("clip.vision.image_size", UINT32),
    ("clip.vision.patch_size", UINT32),
    ("clip.vision.mm_patch_merge_type", STRING),
    ("clip.audio.embedding_length", UINT32),
    ("clip.audio.feed_forward_length", UINT32),
    ("clip.audio.block_count", UINT32),
    ("clip.audio.projection_dim", UINT32),
    ("clip.audio.attention.head_count", UINT32),
    ("clip.audio.attention.layer_norm_epsilon", FLOAT32),
    ("clip.vision.preproc_min_tiles", UINT32),
    ("clip.vision.preproc_max_tiles", UINT32),
    ("clip.vision.preproc_image_size", UINT32),
    ("clip.vision.projector.scale_factor", UINT32),
    ("clip.vision.spatial_merge_size", UINT32),
    ("clip.vision.n_wa_pattern", UINT32),
    ("clip.vision.image_min_pixels", UINT32),
    ("clip.vision.image_max_pixels", UINT32),
];

/// The projectors whose encoders are checked in depth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Projector {
    Mlp,
    Resampler,
    Qwen2Vl,
    Qwen25Vl,
    Qwen3Vl,
    Gemma3,
    Idefics3,
    InternVl,
}

impl Projector {
    fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "mlp" => Self::Mlp,
            "resampler" => Self::Resampler,
            "qwen2vl_merger" => Self::Qwen2Vl,
            "qwen2.5vl_merger" => Self::Qwen25Vl,
            "qwen3vl_merger" => Self::Qwen3Vl,
            "gemma3" => Self::Gemma3,
            "idefics3" => Self::Idefics3,
            "internvl" => Self::InternVl,
            _ => return None,
        })
    }

    fn is_qwen(self) -> bool {
        matches!(self, Self::Qwen2Vl | Self::Qwen25Vl | Self::Qwen3Vl)
    }

    /// Tensors that llama.cpp uses without checking that they exist, or that every such encoder has.
    fn needs(self) -> &'static [&'static str] {
        match self {
            Self::Mlp => &["v.position_embd.weight", "mm.0.weight", "mm.0.bias"],
            Self::Resampler | Self::Gemma3 | Self::Idefics3 => &["v.position_embd.weight", "v.patch_embd.bias"],
            Self::Qwen2Vl | Self::Qwen25Vl => &["v.patch_embd.weight.1", "v.post_ln.weight"],
            Self::Qwen3Vl => {
                &["v.patch_embd.weight.1", "v.patch_embd.bias", "v.position_embd.weight", "v.post_ln.weight"]
            }
            Self::InternVl => &["v.position_embd.weight", "v.patch_embd.bias", "v.class_embd"],
        }
    }
}

pub(super) fn check(header: &Header) -> Finding {
    let metadata = &header.metadata;
    for (key, kind) in TYPES {
        if let Some(value) = metadata.get(key).filter(|_| metadata.type_of(key) != Some(kind)) {
            return Err(must_be(key, in_words(value), type_in_words(kind)));
        }
    }
    header.epsilons()?;
    for key in ["clip.vision.block_count", "clip.audio.block_count"] {
        header.in_range(key, 0..=MAX_LAYERS)?;
    }
    if metadata.get("clip.has_vision_encoder") != Some(&Value::Bool(true)) {
        return Ok(());
    }
    if let Some(values) = metadata.numbers("clip.vision.image_std")
        && values.iter().any(|value| !value.is_finite() || *value == 0.0)
    {
        return Err(must_be("clip.vision.image_std", format!("{values:?}"), "numbers other than 0"));
    }
    // The first version of `smol` had the position of the class token last, while the converter puts it first.
    if metadata.string("general.name") == Some("sharpv-smol") && metadata.string("general.version") != Some("2") {
        return Err("it is from an earlier version, with positions in another order: pull the model smol again".into());
    }
    let name = ["clip.projector_type", "clip.vision.projector_type"].iter().find_map(|key| metadata.string(key));
    let Some(projector) = name.and_then(Projector::by_name) else { return Ok(()) };
    // llama.cpp itself reports a missing value that every encoder has.
    let Some(encoder) = Encoder::read(header, projector)? else { return Ok(()) };
    encoder.patches()?;
    encoder.heads()?;
    encoder.layers()?;
    encoder.biases()?;
    encoder.positions()?;
    encoder.tiles()?;
    encoder.merging()
}

fn type_in_words(kind: u32) -> &'static str {
    match kind {
        UINT32 => "an unsigned number of 32 bits",
        INT32 => "a number of 32 bits",
        FLOAT32 => "a float of 32 bits",
        BOOL => "true or false",
        _ => "a string",
    }
}

struct Encoder<'a> {
    header: &'a Header,
    projector: Projector,
    width: u64,
    heads: u64,
    layers: u64,
    image_size: u64,
    patch_size: u64,
}

/// Tensors of every layer.
const IN_LAYERS: [&str; 5] = ["ln1.weight", "ln2.weight", "attn_out.weight", "ffn_up.weight", "ffn_down.weight"];
/// Tensors of every layer whose features go to layers of the language model (DeepStack).
const IN_DEEPSTACK: [&str; 6] = ["norm.weight", "norm.bias", "fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"];

const WIDTH: &str = "clip.vision.embedding_length";
const HEADS: &str = "clip.vision.attention.head_count";
const HEADS_KV: &str = "clip.vision.attention.head_count_kv";
const HEAD_SIZE: &str = "clip.vision.attention.head_dim";
const LAYERS: &str = "clip.vision.block_count";
const IMAGE_SIZE: &str = "clip.vision.image_size";
const PATCH_SIZE: &str = "clip.vision.patch_size";
const SCALE_FACTOR: &str = "clip.vision.projector.scale_factor";
const MERGE_SIZE: &str = "clip.vision.spatial_merge_size";

impl<'a> Encoder<'a> {
    fn read(header: &'a Header, projector: Projector) -> Finding<Option<Self>> {
        let width = header.in_range(WIDTH, 1..=INT)?;
        let heads = header.in_range(HEADS, 1..=INT)?;
        let layers = header.in_range(LAYERS, 1..=MAX_LAYERS)?;
        // Encoders for images of any size do not use it.
        let image_size = header.in_range(IMAGE_SIZE, u64::from(!projector.is_qwen())..=MAX_SIDE)?;
        let patch_size = header.in_range(PATCH_SIZE, 1..=MAX_SIDE)?;
        let all = || Some((width?, heads?, layers?, image_size?, patch_size?));
        Ok(all().map(|(width, heads, layers, image_size, patch_size)| Self {
            header,
            projector,
            width,
            heads,
            layers,
            image_size,
            patch_size,
        }))
    }

    fn shape(&self, tensor: &str) -> Option<&[u64]> {
        self.header.tensors.get(tensor).map(Vec::as_slice)
    }

    fn has(&self, tensor: &str) -> bool {
        self.header.tensors.contains_key(tensor)
    }

    /// Checks that `key`, which is `value`, fits `tensor`: its dimension `i` must be `expected`.
    fn fits(&self, (key, value): (&str, u64), tensor: &str, i: usize, expected: u64) -> Finding {
        match self.shape(tensor) {
            Some(shape) if shape.get(i).copied().unwrap_or(1) != expected => {
                Err(format!("{key} is {value}, and does not fit the tensor {tensor}, which has the shape {shape:?}"))
            }
            _ => Ok(()),
        }
    }

    /// Checks how an image is split into patches.
    fn patches(&self) -> Finding {
        let tensor = "v.patch_embd.weight";
        for name in [tensor].iter().chain(self.projector.needs()) {
            if !self.has(name) {
                return Err(missing(name));
            }
        }
        let known = ["weight", "weight.1", "bias"];
        let unknown = |name: &&String| name.strip_prefix("v.patch_embd.").is_some_and(|kind| !known.contains(&kind));
        if let Some(name) = self.header.tensors.keys().find(unknown) {
            return Err(format!(
                "no encoder has a tensor {name}; the tensors of v.patch_embd are {}",
                known.join(", ")
            ));
        }
        self.fits((WIDTH, self.width), tensor, 3, self.width)?;
        self.fits((PATCH_SIZE, self.patch_size), tensor, 0, self.patch_size)?;
        self.fits((PATCH_SIZE, self.patch_size), tensor, 1, self.patch_size)
    }

    fn heads(&self) -> Finding {
        let heads_kv = self.header.in_range(HEADS_KV, 1..=INT)?.unwrap_or(self.heads);
        let size = match self.header.in_range(HEAD_SIZE, 0..=INT)? {
            Some(size @ 1..) => size,
            _ if !self.width.is_multiple_of(self.heads) => {
                return Err(must_be(
                    HEADS,
                    self.heads,
                    format!("a divisor of the embedding_length, which is {}", self.width),
                ));
            }
            _ => self.width / self.heads,
        };
        // M-RoPE rotates quarters of a head.
        if self.projector.is_qwen() && !size.is_multiple_of(4) {
            return Err(must_be(HEADS, self.heads, format!("such that a head has a multiple of 4 values, not {size}")));
        }
        for layer in 0..self.layers {
            let name = |kind: &str| format!("v.blk.{layer}.{kind}.weight");
            let (query, kv) = (self.heads.saturating_mul(size), heads_kv.saturating_mul(size));
            self.fits((HEADS, self.heads), &name("attn_q"), 1, query)?;
            self.fits((HEADS, self.heads), &name("attn_out"), 0, query)?;
            self.fits((HEADS_KV, heads_kv), &name("attn_k"), 1, kv)?;
            self.fits((HEADS_KV, heads_kv), &name("attn_v"), 1, kv)?;
            self.fits((HEADS, self.heads), &name("attn_qkv"), 1, query.saturating_add(kv.saturating_mul(2)))?;
            for kind in ["ln1", "ln2", "attn_q", "attn_k", "attn_v", "attn_qkv"] {
                self.fits((WIDTH, self.width), &name(kind), 0, self.width)?;
            }
        }
        Ok(())
    }

    /// Checks that every layer has the tensors that it needs, and that all layers have the same.
    fn layers(&self) -> Finding {
        let layers = self.kinds("v.blk.");
        let there = layers.iter().map(|(layer, _)| layer.saturating_add(1)).max().unwrap_or(0);
        // These encoders use the output of an earlier layer. Converters do not count the layers after it, but some keep
        // their tensors.
        let may_have_more = matches!(self.projector, Projector::Mlp | Projector::Resampler) && there <= 2 * self.layers;
        if there != self.layers && !(may_have_more && there > self.layers) {
            return Err(must_be(LAYERS, self.layers, format!("the number of layers in the file, which is {there}")));
        }
        let attention: &[&str] = match layers.contains(&(0, "attn_qkv.weight")) {
            true => &["attn_qkv.weight"],
            false => &["attn_q.weight", "attn_k.weight", "attn_v.weight"],
        };
        let biases: &[&str] = match self.projector {
            Projector::Qwen2Vl | Projector::Qwen25Vl => &["attn_q.bias", "attn_k.bias", "attn_v.bias"],
            _ => &[],
        };
        let mut needed: BTreeSet<&str> = attention.iter().chain(biases).chain(&IN_LAYERS).copied().collect();
        let used = || layers.iter().filter(|(layer, _)| *layer < self.layers);
        let in_most = |kind: &&str| 2 * used().filter(|(_, other)| other == kind).count() as u64 > self.layers;
        needed.extend(used().map(|(_, kind)| *kind).filter(in_most));
        for layer in 0..self.layers {
            if let Some(kind) = needed.iter().find(|kind| !layers.contains(&(layer, kind))) {
                return Err(missing(&format!("v.blk.{layer}.{kind}")));
            }
        }
        let deepstack = self.kinds("v.deepstack.");
        for layer in deepstack.iter().map(|(layer, _)| *layer).collect::<BTreeSet<_>>() {
            if let Some(kind) = IN_DEEPSTACK.iter().find(|kind| !deepstack.contains(&(layer, kind))) {
                return Err(missing(&format!("v.deepstack.{layer}.{kind}")));
            }
        }
        Ok(())
    }

    /// The tensors whose names start with `prefix`, with their layers.
    fn kinds(&self, prefix: &str) -> BTreeSet<(u64, &str)> {
        let layer = |name: &'a String| {
            let (layer, kind) = name.strip_prefix(prefix)?.split_once('.')?;
            Some((layer.parse().ok()?, kind))
        };
        self.header.tensors.keys().filter_map(layer).collect()
    }

    /// Checks that every bias has a weight and its length, and that no bias of a norm is missing.
    fn biases(&self) -> Finding {
        for (name, shape) in &self.header.tensors {
            let Some(stem) =
                name.strip_suffix(".bias").filter(|stem| stem.starts_with("v.") || stem.starts_with("mm."))
            else {
                continue;
            };
            let weight = format!("{stem}.weight");
            match self.shape(&weight) {
                None => return Err(missing(&weight)),
                Some([.., rows]) if shape[..] != [*rows] && stem.starts_with("v.blk.") => {
                    return Err(format!("the tensor {name} has the shape {shape:?}, which does not fit {weight}"));
                }
                Some(_) => (),
            }
        }
        if self.has("v.post_ln.weight") && self.has("v.blk.0.ln1.bias") && !self.has("v.post_ln.bias") {
            return Err(missing("v.post_ln.bias"));
        }
        Ok(())
    }

    /// Patches on a side of an image of the encoder's native size.
    fn grid(&self) -> u64 {
        self.image_size / self.patch_size
    }

    /// Checks that there are as many positions as patches.
    fn positions(&self) -> Finding {
        let tensor = "v.position_embd.weight";
        let Some(&[width, rows]) = self.shape(tensor) else { return Ok(()) };
        if width != self.width {
            return self.fits((WIDTH, self.width), tensor, 0, self.width);
        }
        let grid = self.grid();
        let wanted = grid * grid + u64::from(self.has("v.class_embd"));
        let fits = match self.projector {
            Projector::InternVl | Projector::Idefics3 | Projector::Gemma3 => rows == wanted,
            Projector::Mlp => grid > 0 && rows >= wanted,
            Projector::Resampler => (1..=RESAMPLER_GRID).contains(&grid) && rows >= RESAMPLER_GRID.pow(2),
            Projector::Qwen2Vl | Projector::Qwen25Vl | Projector::Qwen3Vl => true,
        };
        if fits {
            return Ok(());
        }
        let expected = format!("a size whose patches fit the {rows} positions of the tensor {tensor}");
        Err(must_be(IMAGE_SIZE, self.image_size, expected))
    }

    /// Checks how images are cut into tiles.
    fn tiles(&self) -> Finding {
        if self.projector == Projector::InternVl {
            let max = self.header.in_range("clip.vision.preproc_max_tiles", 1..=MAX_TILES)?.unwrap_or(12);
            // There must be a grid with this many tiles on each side.
            self.header.in_range("clip.vision.preproc_min_tiles", 1..=max.isqrt())?;
        }
        if self.projector == Projector::Idefics3 {
            self.header.in_range("clip.vision.preproc_image_size", 0..=MAX_SIDE)?;
        }
        let key = "clip.vision.image_grid_pinpoints";
        if let Some(values) = self.header.metadata.numbers(key)
            && values.iter().any(|value| !(1.0..=MAX_SIDE as f64).contains(value))
        {
            return Err(must_be(key, format!("{values:?}"), "widths and heights in pixels"));
        }
        Ok(())
    }

    /// Checks how patches become rows of the language model.
    fn merging(&self) -> Finding {
        let grid = self.grid();
        match self.projector {
            Projector::InternVl | Projector::Idefics3 => {
                let factor = self.header.in_range(SCALE_FACTOR, 1..=MAX_SIDE)?.unwrap_or(1);
                let internvl = self.projector == Projector::InternVl;
                let tensor = if internvl { "mm.model.mlp.0.weight" } else { "mm.model.fc.weight" };
                self.fits((SCALE_FACTOR, factor), tensor, 0, self.width * factor * factor)?;
                if internvl && !grid.is_multiple_of(factor) {
                    return Err(must_be(SCALE_FACTOR, factor, format!("a divisor of the {grid} patches on a side")));
                }
            }
            Projector::Gemma3 => {
                let factor = self.header.in_range(SCALE_FACTOR, 1..=grid)?.unwrap_or(4);
                // Otherwise, pooling yields another number of tokens than llama.cpp counts.
                if (grid / factor).pow(2) != grid * grid / (factor * factor) {
                    return Err(must_be(SCALE_FACTOR, factor, format!("a divisor of the {grid} patches on a side")));
                }
            }
            Projector::Qwen2Vl | Projector::Qwen25Vl | Projector::Qwen3Vl => {
                let size = self.header.in_range(MERGE_SIZE, 2..=2)?.unwrap_or(2);
                self.fits((MERGE_SIZE, size), "mm.0.weight", 0, self.width * size * size)?;
                if self.projector == Projector::Qwen25Vl {
                    let key = "clip.vision.projection_dim";
                    let width = self.header.in_range(key, 1..=INT)?;
                    width.map_or(Ok(()), |width| self.fits((key, width), "mm.2.weight", 1, width))?;
                }
            }
            Projector::Resampler => {
                let key = "clip.minicpmv_query_num";
                if let Some(count @ 1..) = self.header.in_range(key, 0..=INT)? {
                    self.fits((key, count), "resampler.query", 1, count)?;
                }
            }
            Projector::Mlp => {
                // It may take the output of several layers (Granite Vision).
                if let Some([columns, ..]) = self.shape("mm.0.weight")
                    && !columns.is_multiple_of(self.width)
                {
                    return self.fits((WIDTH, self.width), "mm.0.weight", 0, self.width);
                }
                if !self.has("mm.2.weight") && !self.has("mm.3.weight") {
                    return Err(missing("mm.2.weight"));
                }
                if self.has("mm.2.weight") && !self.has("mm.2.bias") {
                    return Err(missing("mm.2.bias"));
                }
            }
        }
        Ok(())
    }
}

fn missing(tensor: &str) -> String {
    format!("the tensor {tensor} is missing")
}
