//! Makes a set of short clips with known answers, the same each time:
//! `cargo run --release --example make_clips -- FOLDER [COUNT [SEED]]`.
//!
//! It writes `COUNT` MP4 clips (320) of 8 seconds and `questions.jsonl`, five or six questions a clip, which
//! `sharpv eval jsonl` and the example `accuracy` read. A row is
//! `{"video": "move-000.mp4", "category": "move", "question": "…", "answer": "…"}`. Answers are in the sentences that
//! the small model `smol` was trained to give, about things that it knows. `choices.jsonl` has those that can be asked
//! as multiple choice, each with its `"choices": ["…"]`, for models that can answer with a letter.
//!
//! The clips are encoded by the program `ffmpeg` with libx264. The things are drawn from Twemoji (CC BY 4.0, by Twitter
//! and other contributors), which Cargo fetches.

mod clips;

use std::error::Error;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "make_clips FOLDER [COUNT [SEED]]";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("make_clips: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (folder, numbers) = args.split_first().ok_or(USAGE)?;
    let number = |i: usize, default: u64| match numbers.get(i) {
        Some(text) => text.parse().map_err(|_| format!("{text}: not a whole number; {USAGE}")),
        None => Ok(default),
    };
    let (count, seed) = (number(0, 320)?, number(1, 0)?);
    if numbers.len() > 2 {
        return Err(USAGE.into());
    }
    let folder = Path::new(folder);
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let is_watched = std::io::stderr().is_terminal();
    let (mut questions, mut choices) = (String::new(), String::new());
    for index in 0..count {
        let clip = clips::clip(seed, index);
        clips::film::write(&folder.join(&clip.video), &clip.scene)?;
        questions += &clip.rows();
        choices += &clip.rows_with_choices();
        if is_watched {
            eprint!("\r{} of {count} clips", index + 1);
        }
    }
    if is_watched {
        eprintln!();
    }
    for (name, rows) in [("questions.jsonl", &questions), ("choices.jsonl", &choices)] {
        let file = folder.join(name);
        std::fs::write(&file, rows).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    println!("{}: {count} clips, {} questions", folder.display(), questions.lines().count());
    Ok(())
}
