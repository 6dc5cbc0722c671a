//! How much of a video's frames the encoder computes, and how far the embeddings are from exact ones, on the small
//! model: `cargo bench --bench encoder_reuse`. Requires the program `ffmpeg`.
//!
//! Footage of 128 frames, 4 per second. First, drift: different distances between frames that are computed whole. Then
//! kinds of footage: how much is new, what that costs, and how similar the embeddings are to exact ones, in the first,
//! the middle and the last frames. Exact and partial encodings take turns, frame by frame.

#[allow(dead_code)]
mod footage;

use footage::{Footage, MOVING, STATIC};
use sharpv::models;
use sharpv::runtime::{Bitmap, Chunks, Model, ModelParams, Part, Vision, VisionParams, VisionStream};
use sharpv::skip::{Blocks, Changes, ImageView, Reuse};
use sharpv::video::{FrameSource, Rate, Sampling};
use std::path::Path;
use std::time::{Duration, Instant};

const SIDE: u32 = 224;
const FRAMES: usize = 128;
const FPS: f32 = 4.0;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    // `cargo test --all-targets` runs benchmarks with this argument; there is nothing to check.
    if std::env::args().any(|arg| arg == "--test") {
        return Ok(());
    }
    let files = models::resolve("smol", None, &[])?;
    let model = Model::load(&files.model, &ModelParams::default(), |_| {})?;
    let mmproj = files.mmproj.ok_or("smol has an mmproj")?;
    let mut vision = Vision::load(&mmproj, &model, &VisionParams::default(), |_| {})?;
    let folder = tempfile::tempdir()?;

    println!(
        "| static, CRF 28; whole every | computed | time of exact | cosine, frames 2 to 16 | 17 to 64 | 65 to 128 |"
    );
    println!("|---|--:|--:|--:|--:|--:|");
    for refresh in [usize::MAX, 32, 16, 8] {
        let reuse = Reuse { refresh, ..Reuse::default() };
        let run = Run::of(&mut vision, &model, &filmed(folder.path(), &STATIC, Some(28))?, reuse)?;
        let name = if refresh == usize::MAX { "never".to_owned() } else { format!("{refresh} frames") };
        println!("| {name} | {}", run.row());
    }
    println!();
    let grainy = Footage { grain: 8.0, ..STATIC };
    let kinds = [
        ("static camera", STATIC, None),
        ("static, x264 CRF 18", STATIC, Some(18)),
        ("static, CRF 28", STATIC, Some(28)),
        ("static, CRF 35", STATIC, Some(35)),
        ("static, grain 8/255, CRF 18", grainy, Some(18)),
        ("static, grain 8/255, CRF 28", grainy, Some(28)),
        ("nothing moves, grain 8/255", Footage { movers: 0, ..grainy }, None),
        ("static, gets brighter by 1/255 a second", Footage { light: 1.0, ..STATIC }, Some(23)),
        ("shakes by 2 pixels", Footage { shake: 2.0, ..STATIC }, Some(23)),
        ("camera moves, 40 pixels a second", MOVING, Some(23)),
    ];
    println!("| footage | computed | time of exact | cosine, frames 2 to 16 | 17 to 64 | 65 to 128 |");
    println!("|---|--:|--:|--:|--:|--:|");
    for (name, footage, crf) in kinds {
        let run = Run::of(&mut vision, &model, &filmed(folder.path(), &footage, crf)?, Reuse::default())?;
        println!("| {name} | {}", run.row());
    }
    Ok(())
}

/// The frames of the footage, after a codec if there is one.
fn filmed(folder: &Path, footage: &Footage, crf: Option<u32>) -> Result<Vec<Vec<u8>>> {
    let Some(crf) = crf else {
        return Ok((0..FRAMES).map(|i| footage.frame(SIDE, i as f32 / FPS, i as i32).into_raw()).collect());
    };
    let path = folder.join("clip.mp4");
    footage.write_film(&path, SIDE, FRAMES, FPS, crf)?;
    let rate = Rate::Uniform { frames: FRAMES };
    let source = FrameSource::open(&path, &Sampling { rate, ..Sampling::default() })?;
    Ok(source.map(|frame| frame.map(|frame| frame.rgb)).collect::<sharpv::Result<_>>()?)
}

#[derive(Default)]
struct Run {
    computed: f64,
    exact: Duration,
    partial: Duration,
    cosines: Vec<f64>,
}

impl Run {
    fn of(vision: &mut Vision, model: &Model, frames: &[Vec<u8>], reuse: Reuse) -> Result<Self> {
        let mut run = Self::default();
        let mut stream = VisionStream::new()?;
        let mut changes = Changes::new(reuse);
        let mut last: Vec<f32> = Vec::new();
        for rgb in frames {
            let chunks = chunks(vision, rgb)?;
            let chunk = chunks.images().last().ok_or("an image")?;
            let start = Instant::now();
            let exact = vision.encode(&chunk)?.to_vec();
            run.exact += start.elapsed();

            let start = Instant::now();
            let image = stream.look(vision, &chunk)?.ok_or("an encoder that can")?;
            let cells = changes.next(Blocks::of(&ImageView {
                images: image.images(),
                width: image.width(),
                scale: image.scale(),
                patch: image.patch(),
                merge: image.merge(),
                cells_x: image.cells_x(),
                cells_y: image.cells_y(),
            }));
            if !cells.is_empty() {
                last = stream.encode(vision, &chunk, &cells)?.to_vec();
            }
            run.partial += start.elapsed();
            run.computed += cells.len() as f64 / image.n_cells() as f64 / frames.len() as f64;
            run.cosines.push(cosine(&exact, &last, model.n_embd_inp()));
        }
        Ok(run)
    }

    fn row(&self) -> String {
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len().max(1) as f64;
        let parts = [1..16, 16..64, 64..FRAMES].map(|part| format!("{:.4}", mean(&self.cosines[part])));
        let time = self.partial.as_secs_f64() / self.exact.as_secs_f64();
        format!("{:.1} % | {time:.2} | {} |", self.computed * 100.0, parts.join(" | "))
    }
}

fn chunks(vision: &Vision, rgb: &[u8]) -> Result<Chunks> {
    let bitmap = Bitmap::rgb(SIDE, SIDE, rgb, false)?;
    Ok(vision.tokenize_whole(&[Part::Image(&bitmap)])?)
}

/// The mean cosine over the rows.
fn cosine(a: &[f32], b: &[f32], n_embd: usize) -> f64 {
    let rows = a.chunks(n_embd).zip(b.chunks(n_embd));
    let cosines = rows.map(|(a, b)| {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    });
    cosines.sum::<f64>() / (a.len() / n_embd) as f64
}
