//! A video in memory: `cargo run --release --example frames_from_memory -- [QUESTION]`.
//!
//! Draws a falling ball in place of the images of a camera or a screen recorder, prints what it will cost, and asks
//! about it. The answer is an iterator.

use sharpv::chat::Piece;
use sharpv::video::Frames;
use sharpv::{Session, VideoOptions, models};
use std::io::Write;

const WIDTH: u32 = 256;
const HEIGHT: u32 = 256;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let question = std::env::args().nth(1).unwrap_or_else(|| "What color is the background?".into());

    let mut frames = Frames::new(WIDTH, HEIGHT);
    for i in 0..40_u32 {
        // With its time in seconds: 10 frames per second.
        frames.push(image(i), f64::from(i) / 10.0)?;
    }

    let files = models::resolve("smol", None, &[])?;
    let mut session = Session::builder(&files).n_predict(48).open()?;
    let options = VideoOptions { fps: Some(2.0), ..VideoOptions::default() };
    let plan = session.plan_video(("ball", &frames), &options.for_question(&question))?;
    println!("{} of {} frames, {} visual tokens", plan.planned.frames, frames.len(), plan.planned.visual_tokens);

    session.add_video(("ball", &frames), &options, &mut ())?;
    let mut answer = session.ask_stream(&question, &mut ())?;
    for piece in &mut answer {
        if let Piece::Text(text) = piece? {
            print!("{text}");
            std::io::stdout().flush()?;
        }
    }
    let answer = answer.finish()?;
    println!("\n{} of {} visual tokens kept", answer.visual_tokens.kept, answer.visual_tokens.total);
    Ok(())
}

/// A red ball on blue, as rows of RGB pixels from the top left.
fn image(i: u32) -> Vec<u8> {
    let (x, y, radius) = (WIDTH / 2, 20 + 5 * i, 24);
    let is_ball = |px: u32, py: u32| px.abs_diff(x).pow(2) + py.abs_diff(y).pow(2) < radius * radius;
    let pixels = (0..HEIGHT).flat_map(|py| (0..WIDTH).map(move |px| (px, py)));
    pixels.flat_map(|(px, py)| if is_ball(px, py) { [220, 40, 30] } else { [30, 60, 200] }).collect()
}
