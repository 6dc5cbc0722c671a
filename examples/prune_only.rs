//! Pruning without a model: `cargo run --release --example prune_only -- [VIDEO [KEEP]]`.
//!
//! `sharpv::prune` takes embeddings from any source. Here they are the colors of a grid of 16 × 16 cells with 2 × 2
//! parts each; a program with its own encoder passes that encoder's embeddings. The example prints which cells of each
//! frame are kept. KEEP is their share, 0 to 1; without it, the method decides.

use sharpv::prune::{Budget, PruneParams, SliceView, prune};
use sharpv::video::{Frame, FrameSource, Frames, Sampling};

const GRID: usize = 16;
/// 2 × 2 parts with three colors each.
const WIDTH: usize = 2 * 2 * 3;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (video, keep) = (args.next(), args.next());
    let sampling = Sampling::uniform(6);
    let source = match &video {
        Some(path) => FrameSource::open(path.as_ref(), &sampling)?,
        None => FrameSource::from_frames("a square that moves", &square()?, &sampling)?,
    };
    let frames: Vec<Frame> = source.collect::<sharpv::Result<_>>()?;
    let embeddings: Vec<Vec<f32>> = frames.iter().map(embed).collect();
    let slices = embeddings.iter().map(|rows| SliceView::new(rows, GRID * GRID, WIDTH));

    let mut params = PruneParams::default();
    if let Some(keep) = keep {
        params.budget = Budget::Keep(keep.parse()?);
    }
    let decision = prune(&params, &slices.collect::<sharpv::Result<Vec<_>>>()?)?;
    for (frame, slice) in frames.iter().zip(&decision.slices) {
        println!("{:.1} s: {} of {} tokens", frame.time_s, slice.kept.len(), slice.n_tokens);
        for row in 0..GRID as u32 {
            let cells = (0..GRID as u32).map(|column| slice.kept.contains(&(row * GRID as u32 + column)));
            println!("  {}", cells.map(|is_kept| if is_kept { "# " } else { ". " }).collect::<String>());
        }
    }
    println!("{} of {} tokens kept ({:.1} %)", decision.kept(), decision.total(), 100.0 * decision.keep_ratio());
    Ok(())
}

/// `[GRID × GRID × WIDTH]`: mean colors, 0 to 1.
fn embed(frame: &Frame) -> Vec<f32> {
    let (width, height, parts) = (frame.width as usize, frame.height as usize, 2 * GRID);
    let mean = |column: usize, row: usize, channel: usize| {
        let span = |i: usize, length: usize| i * length / parts..((i + 1) * length / parts).max(i * length / parts + 1);
        let (xs, ys) = (span(column, width), span(row, height));
        let n = (xs.len() * ys.len()) as f32;
        let pixels = ys.flat_map(|y| xs.clone().map(move |x| y * width + x));
        pixels.map(|pixel| f32::from(frame.rgb[3 * pixel + channel])).sum::<f32>() / n / 255.0
    };
    let mut rows = Vec::with_capacity(GRID * GRID * WIDTH);
    for (row, column) in (0..GRID).flat_map(|row| (0..GRID).map(move |column| (row, column))) {
        for (dy, dx) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            rows.extend((0..3).map(|channel| mean(2 * column + dx, 2 * row + dy, channel)));
        }
    }
    rows
}

/// A bright square that moves over a dark background.
fn square() -> sharpv::Result<Frames> {
    const SIDE: u32 = 128;
    let mut frames = Frames::new(SIDE, SIDE);
    for i in 0..6_u32 {
        let left = 16 * i;
        let pixels = (0..SIDE).flat_map(|y| (0..SIDE).map(move |x| (x, y)));
        let is_square = |(x, y): (u32, u32)| (left..left + 32).contains(&x) && (48..80).contains(&y);
        let rgb: Vec<u8> = pixels.flat_map(|at| if is_square(at) { [250, 220, 60] } else { [20, 24, 40] }).collect();
        frames.push(rgb, f64::from(i))?;
    }
    Ok(frames)
}
