//! Files of llama.cpp's own converter (`tests/fixtures/converted`), compared with what `transformers` computes with the
//! original checkpoint. The files of `families` come from our own script, which could make the same mistake as the
//! code.

use crate::support::families::{self, distance};
use crate::support::gpu;

use base64::Engine;
use serde_json::Value;
use sharpv::Session;
use sharpv::chat::VideoOptions;
use sharpv::models::{self, ModelFiles};
use sharpv::runtime::{
    Bitmap, CancelToken, CellState, ComputeParams, Context, ContextParams, FlashAttention, KvType, Model, ModelParams,
    Part, Row, RowInput, Vision, VisionParams, VisionStream,
};
use std::path::{Path, PathBuf};

/// Models with their own language model.
const PAIRS: [&str; 8] = ["internvl", "llava", "qwen35", "qwen35moe", "minicpmv46", "lfm2vl", "gemma4", "gemma4e"];
/// Those in F32; the others are in F16, and made so that every row of a prompt matters.
const IN_F32: [&str; 2] = ["internvl", "llava"];
/// Those whose images can be encoded in parts.
const IN_PARTS: [&str; 4] = ["internvl", "llava", "qwen35", "qwen35moe"];
/// Encoders without one, as wide as InternVL's language model.
const ENCODERS: [&str; 1] = ["cogvlm"];

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/converted").join(file)
}

fn files(name: &str) -> ModelFiles {
    let model = if PAIRS.contains(&name) { name } else { PAIRS[0] };
    ModelFiles {
        name: name.into(),
        model: path(&format!("{model}.gguf")),
        mmproj: Some(path(&format!("{name}-mmproj.gguf"))),
        lora: Vec::new(),
    }
}

fn floats(json: &Value) -> Vec<f32> {
    let bytes = base64::prelude::BASE64_STANDARD.decode(json.as_str().expect("a string")).expect("Base64");
    bytes.as_chunks::<4>().0.iter().map(|&value| f32::from_le_bytes(value)).collect()
}

/// A model, and what `transformers` computed with it.
struct Converted {
    model: Model,
    vision: Vision,
    /// `size` of the image and `embeddings`; for pairs also `prompt` and `logits`, and for M-RoPE `positions`.
    expected: Value,
}

impl Converted {
    fn load(name: &str) -> Self {
        let files = files(name);
        let mmproj = files.mmproj.expect("an mmproj");
        models::check(&files.model).and_then(|()| models::check(&mmproj)).unwrap_or_else(|error| panic!("{error}"));
        let model = Model::load(&files.model, &ModelParams::default(), |_| ()).expect("the model");
        let params = VisionParams { n_threads: Some(2), ..VisionParams::default() };
        let vision = Vision::load(&mmproj, &model, &params, |_| ()).expect("the mmproj");
        let json = std::fs::read(path(&format!("{name}.json"))).expect("a file");
        Self { model, vision, expected: serde_json::from_slice(&json).expect("JSON") }
    }

    /// The image that `make.py` draws.
    fn image(&self) -> Bitmap {
        let side = |i: usize| self.expected["size"][i].as_u64().expect("a number") as u32;
        let channel = |phase: u32| (phase % 510).abs_diff(255) as u8;
        let pixel = |x, y| image::Rgb([2 * x + 3 * y, 4 * x + y, x + 5 * y].map(channel));
        let image = image::RgbImage::from_fn(side(0), side(1), pixel);
        Bitmap::rgb(side(0), side(1), &image, false).expect("a bitmap")
    }

    fn embed(&mut self) -> Vec<f32> {
        let image = self.image();
        let chunks = self.vision.tokenize_whole(&[Part::Image(&image)]).expect("chunks");
        self.vision.encode(&chunks.images().last().expect("an image")).expect("embeddings").to_vec()
    }
}

#[test]
fn embeddings_are_those_of_transformers() {
    for name in PAIRS.into_iter().chain(ENCODERS) {
        let mut converted = Converted::load(name);
        let embeddings = converted.embed();
        let expected = floats(&converted.expected["embeddings"]);
        let far = distance(&embeddings, &expected);
        eprintln!("{name}: embeddings {far:.5} from those of transformers");
        assert!(far < gpu::near(0.002), "{name}: {far}");
        // Each row is close by itself, so none is another's.
        let width = converted.model.n_embd_inp();
        for (i, (row, expected)) in embeddings.chunks(width).zip(expected.chunks(width)).enumerate() {
            let far = distance(row, expected);
            assert!(far < gpu::near(0.01), "{name}, row {i}: {far}");
        }
    }
}

#[test]
fn text_becomes_the_tokens_of_transformers() {
    for name in PAIRS {
        let Converted { model, expected, .. } = Converted::load(name);
        let Some(text) = expected["text"].as_str() else { continue };
        let tokens = model.tokenize(text, false, true).expect("tokens");
        assert_eq!(serde_json::json!(tokens), expected["tokens"], "{name}");
    }
}

/// The rows of the prompt, with what the encoder made of the image.
fn rows<'a>(expected: &Value, embeddings: &'a [f32], width: usize) -> Vec<Row<'a>> {
    let mut visual = embeddings.chunks(width);
    let prompt = expected["prompt"].as_array().expect("a prompt");
    let position = |i: usize| {
        let Some(axes) = expected["positions"][i].as_array() else { return [i as i32; 4] };
        let axis = |axis: usize| axes[axis].as_i64().expect("a number") as i32;
        [axis(0), axis(1), axis(2), 0]
    };
    let row = |(i, token): (usize, &Value)| Row {
        input: match token.as_i64() {
            Some(token) => RowInput::Token(token as i32),
            None => RowInput::Embedding(visual.next().expect("a row of the image")),
        },
        position: position(i),
        logits: i + 1 == prompt.len(),
    };
    let rows = prompt.iter().enumerate().map(row).collect();
    assert!(visual.next().is_none(), "more rows than the prompt has");
    rows
}

/// The logits after some rows, as exact as possible: keys and values are not rounded.
fn logits(pair: &Converted, rows: &[Row<'_>]) -> Vec<f32> {
    let compute = ComputeParams {
        type_k: KvType::F32,
        type_v: KvType::F32,
        flash_attention: FlashAttention::Off,
        n_threads: Some(2),
        ..ComputeParams::default()
    };
    let params = ContextParams { n_ctx: rows.len() + 8, compute, ..ContextParams::default() };
    let mut context = Context::new(&pair.model, &params, &[], &CancelToken::new()).expect("a context");
    let is_visual = |row: &Row<'_>| matches!(row.input, RowInput::Embedding(_));
    let batches: Vec<_> = if pair.vision.uses_non_causal() {
        rows.chunk_by(|a, b| is_visual(a) == is_visual(b)).collect()
    } else {
        vec![rows]
    };
    for batch in &batches {
        context.set_causal(batches.len() == 1 || !is_visual(&batch[0]));
        context.process(batch).expect("the rows are computed");
    }
    context.logits().expect("logits").to_vec()
}

#[test]
fn logits_after_an_image_are_those_of_transformers() {
    for name in PAIRS {
        let mut pair = Converted::load(name);
        let embeddings = pair.embed();
        let rows = rows(&pair.expected, &embeddings, pair.model.n_embd_inp());
        let far = distance(&logits(&pair, &rows), &floats(&pair.expected["logits"]));
        eprintln!("{name}: logits {far:.5} from those of transformers");
        // What enters a matrix in F16 is rounded, too.
        let limit = if IN_F32.contains(&name) { 0.005 } else { 0.01 };
        assert!(far < gpu::near(limit), "{name}: {far}");
    }
}

#[test]
fn every_row_of_a_prompt_matters() {
    for name in PAIRS.into_iter().filter(|name| !IN_F32.contains(name)) {
        let mut pair = Converted::load(name);
        let embeddings = pair.embed();
        let rows = rows(&pair.expected, &embeddings, pair.model.n_embd_inp());
        let all = logits(&pair, &rows);
        for from in (0..rows.len() - 8).step_by(8) {
            let mut others = rows[..from].to_vec();
            others.extend_from_slice(&rows[from + 8..]);
            let far = distance(&logits(&pair, &others), &all);
            assert!(far > 0.04, "{name} without the rows from {from}: {far}");
        }
    }
}

#[test]
fn an_image_in_parts_is_the_same() {
    for name in IN_PARTS {
        let mut pair = Converted::load(name);
        let exact = pair.embed();
        let image = pair.image();
        let chunks = pair.vision.tokenize_whole(&[Part::Image(&image)]).expect("chunks");
        let chunk = chunks.images().last().expect("an image");
        let mut stream = VisionStream::new().expect("a stream");
        let image = stream.look(&mut pair.vision, &chunk).expect("a look").unwrap_or_else(|| panic!("{name}"));
        let all: Vec<u32> = (0..image.n_cells() as u32).collect();
        for cells in [all.clone(), vec![], vec![0], vec![1, 2, all.len() as u32 - 1]] {
            let rows = stream.encode(&mut pair.vision, &chunk, &cells).expect("it is encoded");
            let far = distance(rows, &exact);
            assert!(far < gpu::near(1e-3), "{name}, {} cells: {far}", cells.len());
        }
        for layer in 1..image.n_layers() {
            stream.begin(&mut pair.vision, &chunk, &all, layer).expect("it is begun");
            let states = vec![CellState::Computed; all.len()];
            let rows = stream.finish(&mut pair.vision, &chunk, &states).expect("it is finished");
            assert!(distance(rows, &exact) < gpu::near(1e-3), "{name}, layer {layer}: {}", distance(rows, &exact));
        }
    }
}

#[test]
fn a_pair_of_the_converter_answers_about_a_video() {
    let folder = tempfile::tempdir().expect("a folder");
    families::write_frames(folder.path(), (112, 112), 3);
    for name in PAIRS {
        let mut session = Session::builder(&files(name)).n_predict(4).open().unwrap_or_else(|error| panic!("{error}"));
        let options = VideoOptions { folder_fps: Some(1.0), ..VideoOptions::default() };
        session.add_video(folder.path(), &options, &mut ()).expect("the frames are read");
        let answer = session.ask("What is it?", &mut ()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(answer.frames, 3, "{name}");
    }
}
