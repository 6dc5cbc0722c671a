//! Describes every video in a folder, one JSON object per line:
//! `cargo run --release --example describe_folder -- FOLDER [QUESTION]`.
//!
//! A file that cannot be used gets a line with an `error`, and the session continues with the next one: what fails
//! leaves a session unchanged.

use sharpv::{Session, VideoOptions, models};
use std::path::{Path, PathBuf};

#[derive(serde::Serialize)]
struct Line<'a> {
    video: &'a Path,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(serde::Serialize)]
#[serde(untagged)]
enum Outcome {
    Described { answer: String, frames: usize, kept: usize, total: usize, first_token_ms: f64 },
    Failed { error: String },
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args_os().skip(1);
    let folder = PathBuf::from(args.next().ok_or("describe_folder FOLDER [QUESTION]")?);
    let question = args.next().map_or_else(|| "What is in the video?".into(), |it| it.to_string_lossy().into_owned());

    let mut videos: Vec<PathBuf> = folder.read_dir()?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    videos.retain(|path| path.is_file());
    videos.sort();
    let files = models::resolve("smol", None, &[])?;
    let mut session = Session::builder(&files).n_predict(64).open()?;
    for video in &videos {
        let outcome = match describe(&mut session, video, &question) {
            Ok(described) => described,
            Err(error) => Outcome::Failed { error: error.to_string() },
        };
        println!("{}", serde_json::to_string(&Line { video, outcome })?);
    }
    Ok(())
}

fn describe(session: &mut Session, video: &Path, question: &str) -> sharpv::Result<Outcome> {
    // Drop the conversation about the previous video. The model stays loaded.
    session.clear();
    session.add_video(video, &VideoOptions::default().for_question(question), &mut ())?;
    let answer = session.ask(question, &mut ())?;
    Ok(Outcome::Described {
        frames: answer.frames,
        kept: answer.visual_tokens.kept,
        total: answer.visual_tokens.total,
        first_token_ms: answer.timings_ms.ttft.round(),
        answer: answer.answer,
    })
}
