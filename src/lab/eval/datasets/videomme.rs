//! Video-MME: the parquet file of its authors, or the TSV that other tools make of it.

use super::table::{self, Columns};
use super::{by_letter, categories, files_ending, find_video, inside, python, roots, unusable, with_extensions};
use crate::error::Result;
use crate::lab::eval::question::{Clip, Dataset, Question, RightAnswer, letter};
use crate::names::InnerPath;
use std::path::{Path, PathBuf};

const EXTENSIONS: [&str; 5] = ["mp4", "MP4", "mkv", "webm", "avi"];
const FOLDERS: [&str; 4] = ["data", "video", "videos", ""];

pub fn load(data: &Path, videos: Option<&Path>) -> Result<Dataset> {
    let path = find(data)?;
    let roots = roots(data, videos);
    let mut dataset = Dataset::default();
    for row in table::read(&path, &["question", "answer"])? {
        let question = row.cells.and_then(|cells| question(&Columns(&cells), &roots));
        dataset.add(row.place, question);
    }
    Ok(dataset)
}

fn find(data: &Path) -> Result<PathBuf> {
    if data.is_file() {
        return Ok(data.to_owned());
    }
    let folders = [data.join("videomme"), data.to_owned()];
    let places = folders.iter().flat_map(|folder| [".parquet", ".tsv"].map(|end| files_ending(folder, end)));
    let found: Vec<PathBuf> = places.into_iter().find(|files| !files.is_empty()).unwrap_or_default();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(unusable(data, "there is no .parquet and no .tsv file in this folder, nor in videomme/ in it")),
        several => Err(unusable(data, format!("there are {} tables here: name one of them", several.len()))),
    }
}

fn question(row: &Columns<'_>, roots: &[PathBuf]) -> Result<Question, String> {
    let choices = match (row.list("options"), row.optional("candidates")) {
        (Some(list), _) => list,
        (None, Some(text)) => python::list(&text).ok_or_else(|| format!("the candidates are not a list: {text}"))?,
        (None, None) => return Err("there are no options".into()),
    };
    let choices: Vec<String> =
        choices.iter().enumerate().map(|(index, choice)| without_letter(index, choice)).collect();
    let answer = row.text("answer")?;
    let right = by_letter(&answer, choices.len())
        .ok_or_else(|| format!("the answer \"{answer}\" is not the letter of an option"))?;
    let video = row.optional("videoID").map_or_else(|| row.text("video"), Ok)?;
    // Some TSV files have the paths of the videos.
    let path = row.optional("video_path").and_then(|path| inside(&path).ok());
    let mut names: Vec<InnerPath> = path.into_iter().collect();
    names.extend(with_extensions(&video, &EXTENSIONS)?);
    let path = find_video(roots, &FOLDERS, &names);
    let id = row.optional("question_id").map_or_else(|| row.text("index"), Ok)?;
    let kinds = ["duration", "domain", "sub_category", "task_type"];
    Ok(Question {
        id,
        clip: Clip::whole(path),
        question: row.text("question")?,
        choices,
        answer: RightAnswer::Choice(right),
        categories: categories(kinds.map(|kind| (kind, row.optional(kind)))),
    })
}

/// `A. Apples` → `Apples`.
fn without_letter(index: usize, choice: &str) -> String {
    let rest = choice.trim().strip_prefix(letter(index)).and_then(|rest| rest.strip_prefix(['.', ')', ':']));
    rest.unwrap_or(choice).trim().to_owned()
}
