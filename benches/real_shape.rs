//! Time to first token with models of real shapes and random weights: `cargo bench --bench real_shape -- FOLDER`.
//!
//! Three ways to prefill the same video: as stock llama.cpp, with a batch for each image and each piece of text; in one
//! pass; in one pass with 12 % of the visual tokens. The prefills take turns, so that other programs on the machine
//! affect the ratios less; the last column is the median of the ratios within each turn.
//!
//! The encoder would take most of the time, and pruning does not change that. So a clip has only two different images,
//! each for half of the frames. sharpv encodes each once; "encode" is what all frames would take if they were
//! different.

use sharpv::chat::{EvictParams, PrefillMode, Session, SessionParams, Timings, VideoOptions};
use sharpv::models::ModelFiles;
use sharpv::prune::{Budget, PruneParams};
use sharpv::runtime::{Bitmap, Model, ModelParams, Part, Vision, VisionParams};
use sharpv::skip::{EncodeMode, EncodeParams};
use std::path::{Path, PathBuf};

const MODELS: [(&str, u32); 2] = [("smolvlm2-500m", 512), ("llava-onevision-0.5b", 384)];
const FRAMES: [usize; 2] = [16, 32];
const IMAGES: usize = 2;
const KEEP: f32 = 0.12;
const REPEATS: usize = 3;
const QUESTION: &str = "What is in the video?";

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let mut folder = None;
    for arg in std::env::args().skip(1) {
        match arg.as_str() {
            // `cargo test --all-targets` runs benchmarks with this argument; there is nothing to check.
            "--test" => return Ok(()),
            "--bench" => {}
            _ => folder = Some(PathBuf::from(arg)),
        }
    }
    let models: Vec<(ModelFiles, u32)> =
        folder.iter().flat_map(|folder| MODELS.map(|(name, side)| (files(folder, name), side))).collect();
    let there = |files: &ModelFiles| files.model.exists() && files.mmproj.as_deref().is_some_and(Path::exists);
    if models.is_empty() || !models.iter().all(|(files, _)| there(files)) {
        println!("This bench needs two models with random weights, 1.6 GB. To make them and run it:");
        for (name, _) in MODELS {
            println!("    python3 tests/fixtures/families/make.py --big {name} FOLDER");
        }
        println!("    cargo bench --bench real_shape -- FOLDER");
        return Ok(());
    }
    for (files, side) in &models {
        stock_rows(files, *side)?;
        for n_frames in FRAMES {
            measure(files, *side, n_frames)?;
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

/// Prints how many rows llama.cpp alone would make of a frame: it cuts images into tiles, and does not pool.
fn stock_rows(files: &ModelFiles, side: u32) -> Result<()> {
    let model = Model::load(&files.model, &ModelParams::default(), |_| {})?;
    let mmproj = files.mmproj.as_deref().expect("all have one");
    let vision = Vision::load(mmproj, &model, &VisionParams::default(), |_| {})?;
    let image = Bitmap::placeholder(side, side, false)?;
    let chunks = vision.tokenize(&[Part::Image(&image)], false)?;
    let rows: usize = chunks.images().map(|image| image.n_tokens()).sum();
    println!("## {}\n", files.name);
    println!("mtmd's own preprocessing, for single images, makes {rows} rows of a frame. It is not used here.\n");
    Ok(())
}

/// A way to prefill the video, and its times.
struct Variant {
    name: &'static str,
    session: Session,
    /// Decoding, encoding and pruning.
    before: Timings,
    rows: usize,
    prefill: Vec<f64>,
}

impl Variant {
    fn open(
        name: &'static str,
        files: &ModelFiles,
        prune: PruneParams,
        prefill: PrefillMode,
        clip: &Path,
    ) -> Result<Self> {
        let encode = EncodeParams::default().in_mode(EncodeMode::Exact);
        let params = SessionParams {
            prune,
            prefill,
            encode,
            evict: EvictParams::off(),
            n_predict: 1,
            ..SessionParams::default()
        };
        let mut session = Session::open(files, params, &mut ())?;
        session.add_video(clip, &VideoOptions::default(), &mut ())?;
        let first = session.ask(QUESTION, &mut ())?;
        let prefill = vec![first.timings_ms.prefill];
        Ok(Self { name, session, before: first.timings_ms, rows: first.tokens.prompt, prefill })
    }

    fn prefill(&mut self) -> Result<()> {
        self.session.restart();
        self.session.free_cache();
        self.prefill.push(self.session.ask(QUESTION, &mut ())?.timings_ms.prefill);
        Ok(())
    }
}

fn measure(files: &ModelFiles, side: u32, n_frames: usize) -> Result<()> {
    let clip = tempfile::tempdir()?;
    draw(clip.path(), side, n_frames)?;
    let keep = PruneParams { budget: Budget::Keep(KEEP), ..PruneParams::default() };
    let mut variants = [
        ("as stock", PruneParams::off(), PrefillMode::PerChunk),
        ("one pass", PruneParams::off(), PrefillMode::OnePass),
        ("one pass, 12 % kept", keep, PrefillMode::OnePass),
    ]
    .into_iter()
    .map(|(name, prune, prefill)| Variant::open(name, files, prune, prefill, clip.path()))
    .collect::<Result<Vec<_>>>()?;
    for _ in 1..REPEATS {
        variants.iter_mut().try_for_each(Variant::prefill)?;
    }
    // Encoding is the same in all variants.
    let encode = median(variants.iter().map(|v| v.before.encode)) / IMAGES as f64 * n_frames as f64;
    println!(
        "| {n_frames} frames, ms | rows | decode | encode | prune | prefill | first token | stock's prefill / its own |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|");
    let stock = &variants[0].prefill;
    for Variant { name, before, rows, prefill, .. } in &variants {
        let ratio = median(stock.iter().zip(prefill).map(|(stock, own)| stock / own));
        let middle = median(prefill.iter().copied());
        let least = prefill.iter().copied().fold(f64::INFINITY, f64::min);
        let most = prefill.iter().copied().fold(0.0, f64::max);
        let first_token = before.decode_video + encode + before.prune + middle;
        println!(
            "| {name} | {rows} | {:.0} | {encode:.0} | {:.1} | {middle:.0} ({least:.0} to {most:.0}) | {first_token:.0} | {ratio:.2} |",
            before.decode_video, before.prune
        );
    }
    println!();
    Ok(())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Fills `folder` with frames: runs of [`IMAGES`] different images, each with a square elsewhere on a gradient.
fn draw(folder: &Path, side: u32, n_frames: usize) -> Result<()> {
    for i in 0..n_frames {
        let left = (i * IMAGES / n_frames) as u32 * side / IMAGES as u32;
        let image = image::RgbImage::from_fn(side, side, |x, y| {
            let inside = (left..left + side / 4).contains(&x) && (side / 3..side / 2).contains(&y);
            image::Rgb(if inside { [200, 40, 40] } else { [(x * 200 / side) as u8, (y * 200 / side) as u8, 120] })
        });
        image.save(folder.join(format!("frame_{i:03}.png")))?;
    }
    Ok(())
}
