//! ActivityNet-QA: questions in one JSON file, their answers in another.

use super::{categories, files_ending, find_video, inside, json_rows, roots, text, unusable, with_extensions};
use crate::error::Result;
use crate::lab::eval::question::{Clip, Dataset, Question, RightAnswer};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

const EXTENSIONS: [&str; 3] = ["mp4", "webm", "mkv"];
const FOLDERS: [&str; 4] = ["all_test", "videos", "video", ""];
/// The names of the question types, in the order of their numbers in the dataset.
const TYPES: [&str; 9] =
    ["motion", "spatial relation", "temporal relation", "yes/no", "color", "object", "location", "number", "other"];

pub fn load(data: &Path, videos: Option<&Path>) -> Result<Dataset> {
    let path = find(data)?;
    let answers_path = answers_of(&path)?;
    let answer_rows = json_rows(&answers_path)?;
    let answers: HashMap<String, &Value> =
        answer_rows.iter().filter_map(|row| Some((text(row, "question_id").ok()?, row))).collect();
    let roots = roots(data, videos);
    let mut dataset = Dataset::default();
    for (index, row) in json_rows(&path)?.iter().enumerate() {
        dataset.add(format!("{}, row {}", path.display(), index + 1), question(row, &answers, &roots));
    }
    Ok(dataset)
}

fn find(data: &Path) -> Result<PathBuf> {
    if data.is_file() {
        return Ok(data.to_owned());
    }
    let files = files_ending(data, "_q.json");
    let test = files.iter().find(|path| path.file_name().is_some_and(|name| name == "test_q.json"));
    match (files.as_slice(), test) {
        ([one], _) => Ok(one.clone()),
        (_, Some(test)) => Ok(test.clone()),
        ([], _) => Err(unusable(data, "there is no file *_q.json in this folder")),
        _ => Err(unusable(data, format!("there are {} files *_q.json: name one of them", files.len()))),
    }
}

fn answers_of(questions: &Path) -> Result<PathBuf> {
    let name = questions.file_name().unwrap_or_default().to_string_lossy();
    match name.strip_suffix("_q.json") {
        Some(stem) => Ok(questions.with_file_name(format!("{stem}_a.json"))),
        None => Err(unusable(
            questions,
            "the questions must be in a file *_q.json, and their answers beside it in *_a.json",
        )),
    }
}

fn question(row: &Value, answers: &HashMap<String, &Value>, roots: &[PathBuf]) -> Result<Question, String> {
    let id = text(row, "question_id")?;
    let answer = answers.get(&id).ok_or_else(|| format!("there is no answer to question {id}"))?;
    let kind = text(answer, "type").ok();
    let kind = kind.map(|kind| match kind.parse::<usize>().ok().and_then(|kind| TYPES.get(kind)) {
        Some(name) => (*name).to_owned(),
        None => kind,
    });
    let video = text(row, "video_name")?;
    inside(&video)?;
    let names = with_extensions(&format!("v_{video}"), &EXTENSIONS)?;
    Ok(Question {
        id,
        clip: Clip::whole(find_video(roots, &FOLDERS, &names)),
        question: text(row, "question")?,
        choices: Vec::new(),
        answer: RightAnswer::Text(vec![text(answer, "answer")?]),
        categories: categories([("type", kind)]),
    })
}
