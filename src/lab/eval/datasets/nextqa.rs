//! NExT-QA: CSV, multiple choice (with `a0` to `a4`) or open-ended.

use super::table::{self, Columns};
use super::{categories, files_ending, find_video, read, roots, unusable, with_extensions};
use crate::error::Result;
use crate::lab::eval::question::{Clip, Dataset, Question, RightAnswer};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const EXTENSIONS: [&str; 3] = ["mp4", "mkv", "webm"];
const FOLDERS: [&str; 4] = ["NExTVideo", "videos", "video", ""];
const CHOICES: [&str; 5] = ["a0", "a1", "a2", "a3", "a4"];
/// The file that maps each video to its folder.
const MAP: &str = "map_vid_vidorID.json";

pub fn load(data: &Path, videos: Option<&Path>) -> Result<Dataset> {
    let path = find(data)?;
    let roots = roots(data, videos);
    let map = read_map(&roots)?;
    let mut dataset = Dataset::default();
    for row in table::read(&path, &["video", "question", "answer", "qid"])? {
        let question = row.cells.and_then(|cells| question(&Columns(&cells), &roots, &map));
        dataset.add(row.place, question);
    }
    Ok(dataset)
}

fn find(data: &Path) -> Result<PathBuf> {
    if data.is_file() {
        return Ok(data.to_owned());
    }
    let files = files_ending(data, ".csv");
    let named = |name: &str| files.iter().find(|path| path.file_stem().is_some_and(|stem| stem == name));
    match files.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(unusable(data, "there is no .csv file in this folder")),
        // Published accuracies are those of the validation and test questions.
        _ => ["val", "test"]
            .iter()
            .find_map(|name| named(name))
            .cloned()
            .ok_or_else(|| unusable(data, format!("there are {} .csv files here: name one of them", files.len()))),
    }
}

fn read_map(roots: &[PathBuf]) -> Result<BTreeMap<String, String>> {
    let Some(path) = roots.iter().map(|root| root.join(MAP)).find(|path| path.is_file()) else {
        return Ok(BTreeMap::new());
    };
    serde_json::from_str(&read(&path)?)
        .map_err(|error| unusable(&path, format!("this is not a map of video ids: {error}")))
}

fn question(row: &Columns<'_>, roots: &[PathBuf], map: &BTreeMap<String, String>) -> Result<Question, String> {
    let video = row.text("video")?;
    let stems = map.get(&video).into_iter().chain([&video]);
    let mut names = Vec::new();
    for stem in stems {
        names.extend(with_extensions(stem, &EXTENSIONS)?);
    }
    let choices: Vec<String> = CHOICES.iter().filter_map(|name| row.optional(name)).collect();
    let answer = row.text("answer")?;
    let answer = if choices.is_empty() {
        RightAnswer::Text([Some(answer), row.optional("additional_ref_answer")].into_iter().flatten().collect())
    } else if choices.len() < CHOICES.len() {
        return Err(format!("{} of the choices a0 to a4 are missing", CHOICES.len() - choices.len()));
    } else {
        let index = answer.parse().ok().filter(|&index: &usize| index < choices.len());
        RightAnswer::Choice(index.ok_or_else(|| format!("the answer \"{answer}\" is not a number from 0 to 4"))?)
    };
    Ok(Question {
        id: format!("{video}_{}", row.text("qid")?),
        clip: Clip::whole(find_video(roots, &FOLDERS, &names)),
        question: row.text("question")?,
        choices,
        answer,
        categories: categories([("type", row.optional("type"))]),
    })
}
