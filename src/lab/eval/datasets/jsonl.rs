//! Your own questions: a JSON object on each line.

use super::{by_letter, categories, find_video, inside, outside, read, seconds, text, texts};
use crate::error::Result;
use crate::lab::eval::question::{Clip, Dataset, Question, RightAnswer};
use crate::names::InnerPath;
use serde_json::Value;
use std::path::{Path, PathBuf};

const KEYS: [&str; 9] = ["id", "video", "question", "choices", "answer", "start", "end", "category", "folder_fps"];

pub fn load(data: &Path, videos: Option<&Path>) -> Result<Dataset> {
    let roots: Vec<PathBuf> =
        videos.into_iter().chain([data.parent().unwrap_or(Path::new(""))]).map(Path::to_owned).collect();
    let mut dataset = Dataset::default();
    for (index, line) in read(data)?.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let row = serde_json::from_str(line).map_err(|error| format!("this is not JSON: {error}"));
        let question = row.and_then(|row| question(&row, index + 1, &roots));
        dataset.add(format!("{}:{}", data.display(), index + 1), question);
    }
    Ok(dataset)
}

fn question(row: &Value, line: usize, roots: &[PathBuf]) -> Result<Question, String> {
    let Value::Object(keys) = row else { return Err("this is not a JSON object".into()) };
    if let Some(unknown) = keys.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(format!("\"{unknown}\" is not a known key; the keys are {}", KEYS.join(", ")));
    }
    let choices = texts(row, "choices")?;
    let answer = if choices.is_empty() {
        match row.get("answer") {
            Some(Value::Array(_)) => RightAnswer::Text(texts(row, "answer")?),
            _ => RightAnswer::Text(vec![text(row, "answer")?]),
        }
    } else {
        let answer = text(row, "answer")?;
        // Words first: choices may be letters themselves.
        let index = choices.iter().position(|choice| *choice == answer).or_else(|| by_letter(&answer, choices.len()));
        RightAnswer::Choice(
            index.ok_or_else(|| {
                format!("the answer \"{answer}\" is neither one of the choices nor the letter of one")
            })?,
        )
    };
    Ok(Question {
        id: text(row, "id").unwrap_or_else(|_| line.to_string()),
        clip: Clip {
            path: video(&text(row, "video")?, roots)?,
            start_s: seconds(row, "start")?,
            end_s: seconds(row, "end")?,
            folder_fps: seconds(row, "folder_fps")?,
        },
        question: text(row, "question")?,
        choices,
        answer,
        categories: categories([("category", text(row, "category").ok())]),
    })
}

/// The path of a video: relative to one of `roots`, or absolute and inside one of them.
fn video(path: &str, roots: &[PathBuf]) -> Result<PathBuf, String> {
    if !Path::new(path).is_absolute() {
        return Ok(find_video(roots, &[""], &[inside(path)?]));
    }
    let places = || roots.iter().flat_map(|root| full(root).into_iter().map(move |full| (root, full)));
    let below = places().find_map(|(root, full)| Some((root, Path::new(path).strip_prefix(full).ok()?.to_str()?)));
    match below {
        Some((root, rest)) => match InnerPath::of_this_system(rest) {
            Ok(rest) => Ok(rest.below(root)),
            Err(reason) => Err(outside(path, reason)),
        },
        None => {
            let mut folders: Vec<String> = places().map(|(_, full)| full.display().to_string()).collect();
            folders.dedup();
            Err(format!("the video \"{path}\" is not within {}", folders.join(" or ")))
        }
    }
}

/// The absolute paths of a folder: as given, and with links followed.
fn full(root: &Path) -> Vec<PathBuf> {
    let root = if root.as_os_str().is_empty() { Path::new(".") } else { root };
    let mut full: Vec<PathBuf> = [std::path::absolute(root), root.canonicalize()].into_iter().flatten().collect();
    full.dedup();
    full
}
