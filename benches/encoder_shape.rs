//! Time to first token with models of real shapes and random weights, by how much the encoder computes: `cargo bench
//! --bench encoder_shape -- FOLDER [FRAMES [still|moving]]`.
//!
//! One frame per second, of a still camera and of a moving one. "As stock" encodes everything, prunes nothing, and
//! prefills each image and each piece of text as a batch of its own, as llama.cpp's own tools do. The others keep 12 %
//! of the visual tokens and prefill them in one pass. The last also has the encoder's weights in the type that this
//! processor computes fastest.

#[allow(dead_code)]
mod footage;

use footage::{Footage, MOVING, STATIC};
use sharpv::chat::{EvictParams, PrefillMode, Session, SessionParams, VideoOptions};
use sharpv::models::{ModelFiles, Store};
use sharpv::prune::{Budget, PruneParams};
use sharpv::runtime::{Model, ModelParams, VisionParams};
use sharpv::skip::{EncodeMode, EncodeParams};
use sharpv::weights::{self, Copies};
use std::path::{Path, PathBuf};

const MODELS: [(&str, u32); 2] = [("llava-onevision-0.5b", 384), ("smolvlm2-500m", 512)];
const KEEP: f32 = 0.12;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    // `cargo test --all-targets` runs benchmarks with this argument; there is nothing to check.
    if args.iter().any(|arg| arg == "--test") {
        return Ok(());
    }
    let folder = args.first().map(PathBuf::from).unwrap_or_default();
    let n_frames: usize = args.get(1).map_or(Ok(32), |text| text.parse())?;
    let there: Vec<(ModelFiles, u32)> =
        MODELS.map(|(name, side)| (files(&folder, name), side)).into_iter().filter(|(f, _)| f.model.exists()).collect();
    if there.is_empty() {
        println!("This bench needs models with random weights. To make them and run it:");
        for (name, _) in MODELS {
            println!("    python3 tests/fixtures/families/make.py --big {name} FOLDER");
        }
        println!("    cargo bench --bench encoder_shape -- FOLDER");
    }
    for (files, side) in &there {
        println!("## {}, {n_frames} frames\n", files.name);
        let cache = tempfile::tempdir()?;
        let suited = suited(files, &Store::at(cache.path()))?;
        let model = Model::load(&files.model, &Default::default(), |_| {})?;
        let clips = [("still", STATIC), ("moving", MOVING)];
        for (name, footage) in clips.into_iter().filter(|(name, _)| args.get(2).is_none_or(|only| only == name)) {
            measure([files, &suited], &model, name, &footage, *side, n_frames)?;
        }
    }
    Ok(())
}

fn files(folder: &Path, name: &str) -> ModelFiles {
    ModelFiles {
        name: name.into(),
        model: folder.join(format!("{name}.gguf")),
        mmproj: Some(folder.join(format!("{name}-mmproj.gguf"))),
        lora: Vec::new(),
    }
}

/// The encoder in the type that this processor computes fastest, as `sharpv pull` writes it.
fn suited(files: &ModelFiles, store: &Store) -> Result<ModelFiles> {
    let known = Copies::new(store);
    let copies = known.of(files, &ModelParams::default(), &VisionParams::default())?;
    for copy in &copies {
        known.make(copy, &mut ())?;
        println!("{} in {}\n", copy.source.file_name().unwrap_or_default().to_string_lossy(), copy.weights);
    }
    Ok(weights::in_place(files.clone(), &copies))
}

fn measure(
    [files, suited]: [&ModelFiles; 2],
    model: &Model,
    name: &str,
    footage: &Footage,
    side: u32,
    n_frames: usize,
) -> Result<()> {
    let clip = tempfile::tempdir()?;
    footage.write_folder(clip.path(), side, n_frames, 1.0)?;
    let keep = PruneParams { budget: Budget::Keep(KEEP), ..PruneParams::default() };
    let variants = [
        ("as stock", EncodeMode::Exact, PruneParams::off(), PrefillMode::PerChunk, files),
        ("reuse", EncodeMode::Reuse, keep.clone(), PrefillMode::OnePass, files),
        ("stop", EncodeMode::Stop, keep.clone(), PrefillMode::OnePass, files),
        ("fast", EncodeMode::Fast, keep.clone(), PrefillMode::OnePass, files),
        ("fast, faster weights", EncodeMode::Fast, keep, PrefillMode::OnePass, suited),
    ];
    println!(
        "| {name} camera, ms | computed | kept | encode | prefill | first token | encode, stock / own | first token, stock / own |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|");
    let mut stock = None;
    for (name, mode, prune, prefill, files) in variants {
        let params = SessionParams {
            prune,
            prefill,
            evict: EvictParams::off(),
            n_predict: 1,
            encode: EncodeParams::default().in_mode(mode),
            ..SessionParams::default()
        };
        let mut session = Session::builder(files).model(model.clone()).params(params).open()?;
        let frames = VideoOptions { max_frames: Some(n_frames), ..VideoOptions::default() };
        session.add_video(clip.path(), &frames, &mut ())?;
        let answer = session.ask("What is in the video?", &mut ())?;
        let (t, tokens) = (answer.timings_ms, answer.visual_tokens);
        let (encode, first) = *stock.get_or_insert((t.encode, t.ttft));
        println!(
            "| {name} | {:.0} % | {:.1} % | {:.0} | {:.0} | {:.0} | {:.2} | {:.2} |",
            answer.encoder.computed * 100.0,
            tokens.keep_ratio * 100.0,
            t.encode,
            t.prefill,
            t.ttft,
            encode / t.encode,
            first / t.ttft
        );
    }
    println!();
    Ok(())
}
