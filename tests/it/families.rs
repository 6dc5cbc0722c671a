//! Every model family from end to end, with a tiny model of random weights: load, lay out, encode, prune, prefill,
//! evict, decode.
//!
//! The results are compared with Hugging Face's `transformers` (`tests/data/logits`), with stock llama.cpp, and with
//! the same rows prefilled one chunk after the other.

use crate::support::families::{self, distance};
use crate::support::gpu;

use base64::Engine;
use serde_json::Value;
use sharpv::chat::{
    EvictMode, EvictParams, PlannedRow, PrefillMode, RowKey, Session, SessionParams, Tokenization, VideoOptions,
};
use sharpv::layout::{self, FrameCount, ImageSize, Layout, Tiles};
use sharpv::models::{ModelFiles, gguf};
use sharpv::prune::{Budget, PruneParams};
use sharpv::runtime::{
    Bitmap, CancelToken, ComputeParams, Context, ContextParams, FlashAttention, KvType, Model, ModelParams, Part, Row,
    RowInput, Vision, VisionParams,
};
use sharpv::skip::{EncodeMode, EncodeParams};
use std::path::Path;

const FAMILIES: [&str; 8] =
    ["smolvlm", "qwen2vl", "qwen2.5vl", "qwen3vl", "llava-onevision", "internvl", "minicpmv", "gemma3"];

/// The families with references from `transformers`.
const REFERENCES: [&str; 3] = ["smolvlm", "qwen2.5vl", "llava-onevision"];

/// As exact as possible: keys and values are not rounded.
fn exact() -> ComputeParams {
    ComputeParams {
        type_k: KvType::F32,
        type_v: KvType::F32,
        flash_attention: FlashAttention::Off,
        n_threads: Some(2),
        ..ComputeParams::default()
    }
}

fn dense() -> SessionParams {
    let encode = EncodeParams::default().in_mode(EncodeMode::Exact);
    SessionParams { prune: PruneParams::off(), encode, compute: exact(), n_predict: 8, ..SessionParams::default() }
}

fn open(family: &str, params: SessionParams) -> Session {
    Session::open(&families::files(family), params, &mut ()).unwrap_or_else(|error| panic!("{family}: {error}"))
}

/// Adds a folder of frames, one per second.
fn add_frames(session: &mut Session, folder: &Path) {
    let options = VideoOptions { fps: Some(1.0), folder_fps: Some(1.0), ..VideoOptions::default() };
    session.add_video(folder, &options, &mut ()).expect("the frames are read");
}

/// Frames that every encoder has to resize. The second and third are equal.
fn clip() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (i, frame) in [0, 3, 3, 7, 8].into_iter().enumerate() {
        families::image((160, 120), frame).save(folder.path().join(format!("{i}.png"))).expect("a frame");
    }
    folder
}

#[test]
fn every_family_answers_dense_pruned_and_evicted() {
    let clip = clip();
    for family in FAMILIES {
        let mut session = open(family, SessionParams { n_predict: 8, ..SessionParams::default() });
        add_frames(&mut session, clip.path());
        let answer = session.ask("What is it?", &mut ()).unwrap_or_else(|error| panic!("{family}: {error}"));
        let visual = answer.visual_tokens;
        assert!(answer.tokens.generated > 0 && visual.kept > 0 && visual.kept < visual.total, "{family}: {visual:?}");
        assert_eq!(answer.frames, 5, "{family}");

        // Gemma 3's layers with a sliding window keep their cells, and one layer always keeps its cells. That leaves
        // too few layers here, so only tokens can be evicted.
        let mode = if family == "gemma3" { EvictMode::Tokens } else { EvictMode::Layers };
        let all = EvictParams { mode: Some(mode), threshold: Some(1.0), ..EvictParams::default() };
        let mut evicting = open(family, SessionParams { evict: all, n_predict: 8, ..SessionParams::default() });
        add_frames(&mut evicting, clip.path());
        let answer = evicting.ask("What is it?", &mut ()).unwrap_or_else(|error| panic!("{family}: {error}"));
        let kv = answer.kv;
        match mode {
            EvictMode::Tokens => assert!(kv.tokens_evicted > 0, "{family}: {kv:?}"),
            _ => assert_eq!(kv.layers_evicted, kv.layers - 1, "{family}: {kv:?}"),
        }
        let again = evicting.ask("And what else?", &mut ()).unwrap_or_else(|error| panic!("{family}: {error}"));
        assert!(again.tokens.prompt_computed < again.tokens.prompt, "{family}: {:?}", again.tokens);
    }
}

/// Decodes Base64.
fn bytes(json: &Value) -> Vec<u8> {
    base64::prelude::BASE64_STANDARD.decode(json.as_str().expect("a string")).expect("Base64")
}

fn singles(json: &Value) -> Vec<f32> {
    bytes(json).as_chunks::<4>().0.iter().map(|&value| f32::from_le_bytes(value)).collect()
}

fn halves(json: &Value) -> Vec<f32> {
    let value = |bits: u16| {
        let magnitude = match bits >> 10 & 31 {
            0 => f32::from(bits & 1023) * 2_f32.powi(-24),
            exponent => (1.0 + f32::from(bits & 1023) / 1024.0) * 2_f32.powi(i32::from(exponent) - 15),
        };
        if bits >> 15 == 1 { -magnitude } else { magnitude }
    };
    bytes(json).as_chunks::<2>().0.iter().map(|&bits| value(u16::from_le_bytes(bits))).collect()
}

/// What `transformers` computed for one prompt.
struct Reference {
    name: String,
    case: Value,
    folder: tempfile::TempDir,
}

impl Reference {
    fn of(family: &str) -> Vec<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/logits").join(format!("{family}.json"));
        let json: Value = serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON");
        let cases = json["cases"].as_object().expect("cases");
        cases.iter().map(|(name, case)| Self::new(format!("{family}, {name}"), case.clone())).collect()
    }

    fn new(name: String, case: Value) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let number = |key: &str| case["video"][key].as_u64().expect("a number") as u32;
        for frame in 0..number("frames") {
            // The README next to the data describes the frames.
            let channel = |phase: u32| (phase % 510).abs_diff(255) as u8;
            let pixel =
                |x, y| [2 * x + 3 * y + 80 * frame, 4 * x + y + 180 * frame, x + 5 * y + 340 * frame].map(channel);
            image::RgbImage::from_fn(number("width"), number("height"), |x, y| image::Rgb(pixel(x, y)))
                .save(folder.path().join(format!("{frame}.png")))
                .expect("a frame");
        }
        Self { name, case, folder }
    }

    fn question(&self) -> &str {
        self.case["question"].as_str().expect("a question")
    }

    /// The embeddings of the visual tokens, rows of `n_embd` values; `None` if the file has only some of them.
    fn embeddings(&self, n_embd: usize) -> Option<Vec<f32>> {
        let counts = self.case["rows_of_slices"].as_array().expect("counts");
        let total: u64 = counts.iter().filter_map(Value::as_u64).sum();
        Some(halves(&self.case["embeddings"])).filter(|rows| rows.len() == total as usize * n_embd)
    }
}

/// Computes rows in a context of their own, text and images apart. Returns the last logits.
fn logits_of(model: &Model, rows: &[PlannedRow], embeddings: &[f32], newline: &[f32], non_causal: bool) -> Vec<f32> {
    let n_embd = model.n_embd_inp();
    let mut visual = embeddings.chunks(n_embd);
    let rows: Vec<Row<'_>> = rows
        .iter()
        .enumerate()
        .map(|(i, row)| Row {
            input: match row.key {
                RowKey::Token(token) => RowInput::Token(token),
                RowKey::Visual { .. } => RowInput::Embedding(visual.next().expect("an embedding for each visual row")),
                RowKey::Newline => RowInput::Embedding(newline),
            },
            position: row.position,
            logits: i + 1 == rows.len(),
        })
        .collect();
    assert!(visual.next().is_none(), "more embeddings than visual rows");
    let params = ContextParams { n_ctx: rows.len() + 8, compute: exact(), ..ContextParams::default() };
    let mut context = Context::new(model, &params, &[], &CancelToken::new()).expect("a context");
    for chunk in rows.chunk_by(|a, b| matches!(a.input, RowInput::Token(_)) == matches!(b.input, RowInput::Token(_))) {
        let is_image = !matches!(chunk[0].input, RowInput::Token(_));
        context.set_causal(!(is_image && non_causal));
        chunk.chunks(context.n_ubatch()).for_each(|rows| context.process(rows).expect("the rows are computed"));
    }
    context.logits().expect("logits").to_vec()
}

fn newline(family: &str) -> Vec<f32> {
    let mmproj = families::folder().join(format!("{family}-mmproj.gguf"));
    gguf::read_floats(&mmproj, "model.image_newline").expect("a GGUF file").unwrap_or_default()
}

#[test]
fn logits_equal_those_of_transformers_dense() {
    for family in REFERENCES {
        let mut session = open(family, dense());
        for reference in Reference::of(family) {
            session.clear();
            add_frames(&mut session, reference.folder.path());
            let logits = session.first_logits(reference.question(), &mut ()).expect("logits");
            let distance = distance(&logits, &singles(&reference.case["logits"]));
            // llama.cpp's embeddings differ by 0.0005, because the encoder's weights are F16.
            assert!(distance < 0.005, "{}: {distance}", reference.name);
        }
    }
}

#[test]
fn logits_equal_those_of_transformers_with_a_fixed_set_of_kept_tokens() {
    let mut compared = 0;
    for family in REFERENCES {
        let mut session = open(family, dense());
        for reference in Reference::of(family) {
            let Some(embeddings) = reference.embeddings(session.model().n_embd_inp()) else { continue };
            session.clear();
            add_frames(&mut session, reference.folder.path());
            let mut visual = 0..;
            let mut rows = session.prompt_rows(reference.question()).expect("a prompt");
            rows.retain(|row| match row.key {
                RowKey::Visual { .. } => visual.next().is_some_and(|i: usize| i.is_multiple_of(3)),
                _ => true,
            });
            let n_embd = session.model().n_embd_inp();
            let kept: Vec<f32> = embeddings.chunks(n_embd).step_by(3).flatten().copied().collect();
            let logits = logits_of(session.model(), &rows, &kept, &newline(family), false);
            let expected = singles(&reference.case["kept_logits"]);
            assert!(distance(&logits, &expected) < 0.005, "{}: {}", reference.name, distance(&logits, &expected));
            let dense = singles(&reference.case["logits"]);
            assert!(distance(&dense, &expected) > 0.1, "{}: the dropped rows do not matter", reference.name);
            compared += 1;
        }
    }
    assert!(compared >= 3, "{compared} cases");
}

/// Encodes frames that need no resizing, in the order of the layout. Returns the embeddings of all visual tokens.
fn encode(vision: &mut Vision, layout: &dyn Layout, frames: &[image::RgbImage], n_embd: usize) -> Vec<f32> {
    let mut rows = Vec::new();
    let per_slice = layout.frames().per_slice;
    for slice in frames.chunks(per_slice) {
        let bitmap = |frame: &image::RgbImage| Bitmap::rgb(frame.width(), frame.height(), frame, per_slice > 1);
        let bitmaps: Vec<Bitmap> = slice.iter().map(|frame| bitmap(frame).expect("a bitmap")).collect();
        let parts: Vec<Part<'_>> = bitmaps.iter().map(Part::Image).collect();
        let chunks = match layout.tiles() {
            Tiles::All => vision.tokenize(&parts, false),
            Tiles::First | Tiles::Last => vision.tokenize_whole(&parts),
        };
        let chunks = chunks.expect("chunks");
        let mut images: Vec<_> = chunks.images().collect();
        match layout.tiles() {
            Tiles::All => {}
            Tiles::First => images.truncate(1),
            Tiles::Last => drop(images.drain(..images.len() - 1)),
        }
        for image in images {
            let image = vision.encode(&image).expect("embeddings");
            rows.extend(if layout.pools() { layout::pool(image, n_embd) } else { image.to_vec() });
        }
    }
    rows
}

#[test]
fn pruned_logits_equal_those_of_the_same_rows_fed_chunk_by_chunk() {
    const QUESTION: &str = "What is it?";
    for family in FAMILIES {
        let mut dense = open(family, dense());
        let size = match dense.layout().image_size((160, 120), FrameCount(4)) {
            ImageSize::Exactly(size) => size,
            ImageSize::AsItIs => (160, 120),
        };
        let folder = tempfile::tempdir().expect("a folder");
        families::write_frames(folder.path(), size, 4);
        let frames: Vec<_> = (0..4).map(|i| families::image(size, i)).collect();
        let mmproj = families::files(family).mmproj.expect("an mmproj");
        let mut vision =
            Vision::load(&mmproj, dense.model(), &VisionParams::default(), |_| {}).expect("the mmproj loads");
        let n_embd = dense.model().n_embd_inp();
        let embeddings = encode(&mut vision, dense.layout(), &frames, n_embd);

        add_frames(&mut dense, folder.path());
        let all = visual_rows(&dense.prompt_rows(QUESTION).expect("a prompt"));
        assert_eq!(all.len() * n_embd, embeddings.len(), "{family}");
        for budget in [Budget::Adaptive, Budget::Keep(0.3)] {
            let prune = PruneParams { budget, ..PruneParams::default() };
            let encode = EncodeParams::default().in_mode(EncodeMode::Exact);
            let params = SessionParams { prune, encode, compute: exact(), ..SessionParams::default() };
            let mut pruned = open(family, params);
            add_frames(&mut pruned, folder.path());
            let rows = pruned.prompt_rows(QUESTION).expect("a prompt");
            let kept = visual_rows(&rows);
            assert!(!kept.is_empty() && kept.len() < all.len(), "{family}: {} of {}", kept.len(), all.len());
            // Positions identify rows here.
            let embedding = |row: &PlannedRow| {
                let i =
                    all.iter().position(|other| other.position == row.position).expect("a place in the dense prompt");
                &embeddings[i * n_embd..][..n_embd]
            };
            let kept: Vec<f32> = kept.iter().flat_map(embedding).copied().collect();
            let non_causal = vision.uses_non_causal();
            let expected = logits_of(pruned.model(), &rows, &kept, &newline(family), non_causal);
            let logits = pruned.first_logits(QUESTION, &mut ()).expect("logits");
            assert!(distance(&logits, &expected) < gpu::near(0.001), "{family}: {}", distance(&logits, &expected));
        }
    }
}

fn visual_rows(rows: &[PlannedRow]) -> Vec<PlannedRow> {
    rows.iter().filter(|row| matches!(row.key, RowKey::Visual { .. })).copied().collect()
}

/// Stock llama.cpp here has the patches that fix its encoders (patches/README.md), because one library computes both.
#[test]
fn an_image_without_pruning_is_what_stock_llama_cpp_makes_of_it() {
    const N_CTX: usize = 2048;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image.png");
    let image = families::image((200, 150), 1);
    image.save(&path).expect("an image");
    for family in FAMILIES {
        let compute = ComputeParams { n_threads: Some(2), ..ComputeParams::default() };
        let context = ContextParams { n_ctx: N_CTX, compute: compute.clone(), ..ContextParams::default() };
        let params = SessionParams {
            n_ctx: Some(N_CTX),
            prefill: PrefillMode::PerChunk,
            tokenization: Tokenization::Mtmd,
            compute,
            ..dense()
        };
        let mut session = open(family, params);
        session.add_video(&path, &VideoOptions::default(), &mut ()).expect("the image is read");
        let prompt = session.prompt_text("What is it?").expect("a prompt");
        let logits = session.first_logits("What is it?", &mut ()).expect("logits");

        let files = families::files(family);
        let model = Model::load(&files.model, &ModelParams::default(), |_| {}).expect("the model");
        let mmproj = files.mmproj.expect("an mmproj");
        let mut vision = Vision::load(&mmproj, &model, &VisionParams::default(), |_| {}).expect("the mmproj");
        let mut stock = Context::new(&model, &context, &[], &CancelToken::new()).expect("a context");
        let bitmap = Bitmap::rgb(image.width(), image.height(), &image, false).expect("a bitmap");
        let (before, after) = prompt.split_once("[sharpv-frame-").expect("a mark");
        // llama.cpp's tools add the BOS token themselves, so the template's must be removed.
        let bos = model.bos_eos().0.map(|token| model.token_bytes(token, true)).filter(|_| model.adds_bos());
        let bos = bos.map(|bytes| String::from_utf8(bytes).expect("UTF-8")).unwrap_or_default();
        let before = before.strip_prefix(&bos).unwrap_or(before);
        let after = after.split_once(']').expect("the end of a mark").1;
        let parts = [Part::Text(before), Part::Image(&bitmap), Part::Text(after)];
        let chunks = vision.tokenize(&parts, true).expect("chunks");
        vision.eval_stock(&mut stock, &chunks, 0, context.compute.n_ubatch).expect("stock computes it");
        assert!(logits == stock.logits().expect("logits"), "{family}");
    }
}

/// Returns the error of opening `model` with `mmproj`, which are files of the fixtures.
fn refused(model: &str, mmproj: &str) -> String {
    let files = ModelFiles {
        name: model.into(),
        model: families::folder().join(model),
        mmproj: Some(families::folder().join(mmproj)),
        lora: Vec::new(),
    };
    Session::open(&files, SessionParams::default(), &mut ()).expect_err("it does not open").to_string()
}

#[test]
fn files_that_do_not_go_together_are_named_with_the_reason() {
    let error = refused("smolvlm.gguf", "internvl-mmproj.gguf");
    assert!(error.contains("internvl-mmproj.gguf") && error.contains("made for another model"), "{error}");
    assert!(error.contains("smolvlm.gguf") && error.contains("32 values"), "{error}");
    // An encoder with the model's width, but for a model with M-RoPE.
    let error = refused("internvl.gguf", "qwen2vl-mmproj.gguf");
    assert!(error.contains("qwen2vl-mmproj.gguf") && error.contains("M-RoPE"), "{error}");
    let error = refused("smolvlm.gguf", "audio-mmproj.gguf");
    assert!(error.contains("audio-mmproj.gguf") && error.contains("only an audio encoder"), "{error}");
    let error = refused("no-template.gguf", "smolvlm-mmproj.gguf");
    assert!(error.contains("no-template.gguf") && error.contains("pass a template"), "{error}");
    // A language model instead of an encoder.
    let error = refused("smolvlm.gguf", "smolvlm.gguf");
    assert!(error.contains("smolvlm.gguf") && error.contains("mmproj"), "{error}");
}

#[test]
fn a_frame_that_is_used_whole_is_not_cut_into_sixteen_tiles() {
    let model = Model::load(&families::files("smolvlm").model, &ModelParams::default(), |_| {}).expect("the model");
    let mmproj = families::files("smolvlm").mmproj.expect("an mmproj");
    let mut vision = Vision::load(&mmproj, &model, &VisionParams::default(), |_| {}).expect("the mmproj");
    // The frame is smooth and has the size of a tile, so scaling it up and down changes it little.
    let channel = |phase: u32| (phase % 510).abs_diff(255) as u8;
    let frame = image::RgbImage::from_fn(128, 128, |x, y| image::Rgb([2 * x + y, x + 3 * y, 4 * x].map(channel)));
    let bitmap = Bitmap::rgb(128, 128, &frame, false).expect("a bitmap");
    let parts = [Part::Image(&bitmap)];
    let (cut, whole) =
        (vision.tokenize(&parts, false).expect("chunks"), vision.tokenize_whole(&parts).expect("chunks"));
    assert_eq!((cut.images().count(), whole.images().count()), (17, 2));
    let mut last = |chunks: &sharpv::runtime::Chunks| {
        vision.encode(&chunks.images().last().expect("the whole")).expect("embeddings").to_vec()
    };
    let (cut, whole) = (last(&cut), last(&whole));
    assert!(distance(&cut, &whole) < 0.02, "{}", distance(&cut, &whole));
}
