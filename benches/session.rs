//! What pruning and one-pass prefill gain, with the model `smol`: `cargo bench --bench session`.
//!
//! Variants take turns within one run, so that other programs on the machine affect the ratios less. Medians are shown,
//! with minimum and maximum.

use sharpv::chat::{PrefillMode, Session, SessionParams, Timings, VideoOptions};
use sharpv::models;
use sharpv::prune::{Budget, PruneParams};
use sharpv::skip::{EncodeMode, EncodeParams};
use std::path::Path;
use std::time::Instant;

const QUESTION: &str = "What is in the video?";

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    // `cargo test --all-targets` runs benchmarks with this argument; there is nothing to check.
    if std::env::args().any(|arg| arg == "--test") {
        return Ok(());
    }
    let clip = tempfile::tempdir()?;
    one_pass_prefill(clip.path())?;
    time_to_first_token(clip.path())
}

/// 32 frames with 24 visual tokens kept of each: in full ubatches, against a batch for each frame and each piece of
/// text.
fn one_pass_prefill(clip: &Path) -> Result<()> {
    const FRAMES: usize = 32;
    const KEPT: usize = 24;
    const REPEATS: usize = 7;
    draw_moving_square(clip, FRAMES)?;
    let mut sessions = [PrefillMode::OnePass, PrefillMode::PerChunk]
        .map(|prefill| -> Result<Session> {
            let prune = PruneParams { budget: Budget::Keep(KEPT as f32 / 64.0), ..PruneParams::default() };
            let params = SessionParams { prune, prefill, n_predict: 16, ..SessionParams::default() };
            let mut session = open(params)?;
            session.add_video(clip, &frames(FRAMES), &mut ())?;
            Ok(session)
        })
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    let rows = sessions[0].prompt_rows(QUESTION)?.len();
    let mut times = vec![Vec::new(); sessions.len()];
    for _ in 0..REPEATS {
        for (session, times) in sessions.iter_mut().zip(&mut times) {
            session.free_cache();
            let start = Instant::now();
            session.first_logits(QUESTION, &mut ())?;
            times.push(start.elapsed().as_secs_f64() * 1000.0);
        }
    }
    println!("prefill, {FRAMES} frames, {} visual tokens, {rows} rows, {REPEATS} repeats", FRAMES * KEPT);
    let one_pass = show("one pass", &mut times[0]);
    let per_frame = show("per frame", &mut times[1]);
    println!("  per frame / one pass = {:.2}\n", per_frame / one_pass);
    Ok(())
}

/// A clip of 16 frames, from opening the file to the first token; the model is loaded before.
fn time_to_first_token(clip: &Path) -> Result<()> {
    const FRAMES: usize = 16;
    const REPEATS: usize = 5;
    draw_moving_square(clip, FRAMES)?;
    let open = |prune| open(SessionParams { prune, n_predict: 16, ..SessionParams::default() });
    let mut sessions = [open(PruneParams::off())?, open(PruneParams::default())?];
    let mut timings: [Vec<Timings>; 2] = Default::default();
    let mut kept = [0.0; 2];
    for _ in 0..REPEATS {
        for (i, session) in sessions.iter_mut().enumerate() {
            session.clear();
            session.add_video(clip, &frames(FRAMES), &mut ())?;
            let answer = session.ask(QUESTION, &mut ())?;
            timings[i].push(answer.timings_ms);
            kept[i] = answer.visual_tokens.keep_ratio;
        }
    }
    println!("time to first token, {FRAMES} frames, {REPEATS} repeats");
    let mut ttft = Vec::new();
    for (name, (timings, kept)) in ["dense", "sharpv"].into_iter().zip(timings.iter().zip(kept)) {
        println!(" {name}, {:.1} % of the visual tokens kept", 100.0 * kept);
        let stage = |f: fn(&Timings) -> f64| timings.iter().map(f).collect::<Vec<_>>();
        show("decode", &mut stage(|t| t.decode_video));
        show("encode", &mut stage(|t| t.encode));
        show("prune", &mut stage(|t| t.prune));
        show("prefill", &mut stage(|t| t.prefill));
        ttft.push(show("ttft", &mut stage(|t| t.ttft)));
    }
    println!("  dense / sharpv = {:.2}", ttft[0] / ttft[1]);
    Ok(())
}

fn open(params: SessionParams) -> Result<Session> {
    // Only the prefill is compared: all of each frame is encoded.
    let params = SessionParams { encode: EncodeParams::default().in_mode(EncodeMode::Exact), ..params };
    Ok(Session::open(&models::resolve("smol", None, &[])?, params, &mut ())?)
}

fn frames(n: usize) -> VideoOptions {
    VideoOptions { max_frames: Some(n), ..VideoOptions::default() }
}

/// Prints median, minimum and maximum in milliseconds; returns the median.
fn show(name: &str, times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    println!("  {name:10} {median:9.1} ms  ({:.1} to {:.1})", times[0], times[times.len() - 1]);
    median
}

/// Fills `folder` with the frames of a square that crosses a plain background.
fn draw_moving_square(folder: &Path, frames: usize) -> Result<()> {
    const SIDE: u32 = 224;
    const SQUARE: u32 = 64;
    for i in 0..frames {
        let left = i as u32 * (SIDE - SQUARE) / (frames as u32 - 1).max(1);
        let image = image::RgbImage::from_fn(SIDE, SIDE, |x, y| {
            let inside = (left..left + SQUARE).contains(&x) && (80..80 + SQUARE).contains(&y);
            image::Rgb(if inside { [200, 40, 40] } else { [80, 140, 200] })
        });
        image.save(folder.join(format!("frame_{i:03}.png")))?;
    }
    // Frames of a longer clip that was drawn before.
    for entry in std::fs::read_dir(folder)?.flatten() {
        let number: Option<usize> =
            entry.file_name().to_str().and_then(|n| n.strip_prefix("frame_")?.strip_suffix(".png")?.parse().ok());
        if number.is_some_and(|n| n >= frames) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
