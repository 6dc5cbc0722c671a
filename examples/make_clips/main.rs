//! Makes a reproducible set of clips with known answers:
//! `cargo run --release --example make_clips -- FOLDER [COUNT [SEED]]`.
//!
//! It writes `COUNT` MP4 clips (320) of 8 seconds, and `questions.jsonl` with five or six questions per clip, for
//! `sharpv eval jsonl` and the example `accuracy`. A row is `{"video": "move-000.mp4", "category": "move", "question":
//! "…", "answer": "…"}`. The answers are sentences that the small model `smol` was trained to give, about things that
//! it knows. `choices.jsonl` has the questions that can be multiple choice, with `"choices": ["…"]`, for models that
//! can answer with a letter.
//!
//! `make_clips FOLDER --long MINUTES [COUNT [SEED]]` makes `COUNT` long clips (4), with a moving background and five to
//! eight needles: things that are visible once, for four to eight seconds. `questions.jsonl` asks whether each is
//! there, equally often about absent things, and which is the last. `cuts.jsonl` asks the same about 8 seconds
//! (`start`, `end`) around a needle: errors there are not due to the choice of frames. `needles.jsonl` lists when
//! things are visible, in seconds: `{"video": "long-010min-000.mp4", "thing": "bell", "start": 71.2, "end": 77.0}`. The
//! example `long_videos` reads all three.
//!
//! The program `ffmpeg` encodes the clips with libx264. The things are from Twemoji (CC BY 4.0, by Twitter and other
//! contributors), which Cargo downloads.

mod clips;

use std::error::Error;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "make_clips FOLDER [--long MINUTES] [COUNT [SEED]]";

/// Shorter clips have no space for needles and scenes; longer ones take too long to make.
const MINUTES: std::ops::RangeInclusive<u32> = 5..=600;

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
    let (folder, rest) = args.split_first().ok_or(USAGE)?;
    let (minutes, numbers) = match rest {
        [option, rest @ ..] if option == "--long" => {
            let (minutes, rest) = rest.split_first().ok_or(USAGE)?;
            let known = minutes.parse().ok().filter(|minutes| MINUTES.contains(minutes));
            let expected =
                || format!("{minutes}: not a number of minutes from {} to {}", MINUTES.start(), MINUTES.end());
            (Some(known.ok_or_else(expected)?), rest)
        }
        rest => (None, rest),
    };
    let number = |i: usize, default: u64| match numbers.get(i) {
        Some(text) => text.parse().map_err(|_| format!("{text}: not a whole number; {USAGE}")),
        None => Ok(default),
    };
    let (count, seed) = (number(0, if minutes.is_some() { 4 } else { 320 })?, number(1, 0)?);
    if numbers.len() > 2 {
        return Err(USAGE.into());
    }
    let folder = Path::new(folder);
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let files = match minutes {
        Some(minutes) => make_long(folder, minutes, count, seed)?,
        None => make_short(folder, count, seed)?,
    };
    for (name, rows) in &files {
        let file = folder.join(name);
        std::fs::write(&file, rows).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    let questions = files.first().map_or(0, |(_, rows)| rows.lines().count());
    println!("{}: {count} clips, {questions} questions", folder.display());
    Ok(())
}

/// Names and contents of the files next to the clips, the questions first.
type Rows = Vec<(&'static str, String)>;

fn make_short(folder: &Path, count: u64, seed: u64) -> std::io::Result<Rows> {
    let (mut questions, mut choices) = (String::new(), String::new());
    each(count, |index| {
        let clip = clips::clip(seed, index);
        questions += &clip.rows();
        choices += &clip.rows_with_choices();
        clips::film::write(&folder.join(&clip.video), &clips::FILM, clip.scene.frames())
    })?;
    Ok(vec![("questions.jsonl", questions), ("choices.jsonl", choices)])
}

fn make_long(folder: &Path, minutes: u32, count: u64, seed: u64) -> std::io::Result<Rows> {
    let (mut questions, mut cuts, mut needles) = (String::new(), String::new(), String::new());
    each(count, |index| {
        let clip = clips::long::long_clip(minutes, seed, index);
        questions += &clip.rows();
        cuts += &clip.rows_of_cuts();
        needles += &clip.rows_of_needles();
        clips::film::write(&folder.join(&clip.video), &clips::long::FILM, clip.frames())
    })?;
    Ok(vec![("questions.jsonl", questions), ("cuts.jsonl", cuts), ("needles.jsonl", needles)])
}

/// Makes one clip after another, with progress on a terminal.
fn each(count: u64, mut make: impl FnMut(u64) -> std::io::Result<()>) -> std::io::Result<()> {
    let is_watched = std::io::stderr().is_terminal();
    for index in 0..count {
        make(index)?;
        if is_watched {
            eprint!("\r{} of {count} clips", index + 1);
        }
    }
    if is_watched {
        eprintln!();
    }
    Ok(())
}
