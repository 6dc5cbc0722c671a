//! Asks one question about a video: `cargo run --release --example ask -- VIDEO QUESTION`.

use sharpv::chat::{Session, SessionParams, VideoOptions};
use sharpv::models;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(video), Some(question)) = (args.next(), args.next()) else { return Err("ask VIDEO QUESTION".into()) };

    let files = models::resolve("smol", None, &[])?;
    let mut session = Session::open(&files, SessionParams::default(), &mut ())?;
    session.add_video(video, &VideoOptions::default(), &mut ())?;
    let answer = session.ask(&question, &mut |piece: &str| print!("{piece}"))?;
    println!("\n{} of {} visual tokens kept", answer.visual_tokens.kept, answer.visual_tokens.total);
    Ok(())
}
