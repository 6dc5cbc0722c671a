//! Questions of one's own: a JSON object on each line.

use super::{by_letter, categories, read, seconds, text, texts};
use crate::error::Result;
use crate::lab::eval::question::{Clip, Dataset, Question, RightAnswer};
use serde_json::Value;
use std::path::Path;

const KEYS: [&str; 9] = ["id", "video", "question", "choices", "answer", "start", "end", "category", "folder_fps"];

pub fn load(data: &Path, videos: Option<&Path>) -> Result<Dataset> {
    let folder = videos.or(data.parent()).unwrap_or(Path::new(""));
    let mut dataset = Dataset::default();
    for (index, line) in read(data)?.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let row = serde_json::from_str(line).map_err(|error| format!("this is no JSON: {error}"));
        let question = row.and_then(|row| question(&row, index + 1, folder));
        dataset.add(format!("{}:{}", data.display(), index + 1), question);
    }
    Ok(dataset)
}

fn question(row: &Value, line: usize, folder: &Path) -> Result<Question, String> {
    let Value::Object(keys) = row else { return Err("this is no JSON object".into()) };
    if let Some(unknown) = keys.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(format!("\"{unknown}\" is no key of a row; the keys are {}", KEYS.join(", ")));
    }
    let choices = texts(row, "choices")?;
    let answer = if choices.is_empty() {
        match row.get("answer") {
            Some(Value::Array(_)) => RightAnswer::Text(texts(row, "answer")?),
            _ => RightAnswer::Text(vec![text(row, "answer")?]),
        }
    } else {
        let answer = text(row, "answer")?;
        // The words first: choices may be letters themselves.
        let index = choices.iter().position(|choice| *choice == answer).or_else(|| by_letter(&answer, choices.len()));
        RightAnswer::Choice(
            index.ok_or_else(|| format!("the answer \"{answer}\" is none of the choices, nor the letter of one"))?,
        )
    };
    Ok(Question {
        id: text(row, "id").unwrap_or_else(|_| line.to_string()),
        clip: Clip {
            path: folder.join(text(row, "video")?),
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
