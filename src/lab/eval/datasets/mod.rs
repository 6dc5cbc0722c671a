//! The datasets, one file for each format. A row that cannot be used is reported, and stops nothing.

mod activitynetqa;
mod jsonl;
mod mvbench;
mod nextqa;
mod python;
mod table;
mod videomme;

use super::question::Dataset;
use super::task::Task;
use crate::error::{Error, FileKind, Result};
use crate::names::InnerPath;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

impl Task {
    /// Reads the questions at `data`, a file or folder in the dataset's published form. Videos are also searched for in
    /// `videos`.
    ///
    /// Datasets are downloaded, so a row may name only videos in the folder of the questions, in its parent, or in
    /// `videos`; other rows are bad rows. Links in these folders are followed. Rows of [`Jsonl`](Self::Jsonl) may have
    /// absolute paths inside these folders, so that `videos` can be a common parent of all your videos.
    ///
    /// # Errors
    /// [`Error::Unusable`] if the dataset is missing, or has no usable row; [`Error::Io`].
    pub fn load(self, data: &Path, videos: Option<&Path>) -> Result<Dataset> {
        // A missing folder is reported before its content is read.
        std::fs::metadata(data).map_err(Error::io("opening the dataset", data))?;
        let mut dataset = match self {
            Self::VideoMme => videomme::load(data, videos),
            Self::MvBench => mvbench::load(data, videos),
            Self::NextQa => nextqa::load(data, videos),
            Self::ActivityNetQa => activitynetqa::load(data, videos),
            Self::Jsonl => jsonl::load(data, videos),
        }?;
        dataset.drop_doubles();
        match dataset.bad_rows.first() {
            _ if !dataset.questions.is_empty() => Ok(dataset),
            Some(bad) => Err(unusable(data, format!("no row can be asked; {}: {}", bad.place, bad.reason))),
            None => Err(unusable(data, "there are no questions in it")),
        }
    }
}

fn unusable(path: &Path, reason: impl Into<String>) -> Error {
    let advice = "docs/eval.md shows the files of each task".to_owned();
    Error::Unusable { what: FileKind::Evaluation, path: path.to_owned(), reason: reason.into(), advice }
}

fn read(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path).map_err(Error::io("reading the dataset", path))?;
    // Spreadsheets write a byte order mark.
    Ok(text.strip_prefix('\u{feff}').map_or(text.clone(), str::to_owned))
}

/// The rows of a JSON array.
fn json_rows(path: &Path) -> Result<Vec<Value>> {
    match serde_json::from_str(&read(path)?) {
        Ok(Value::Array(rows)) => Ok(rows),
        Ok(_) => Err(unusable(path, "this is JSON, but not an array of rows")),
        Err(error) => Err(unusable(path, format!("this is not JSON: {error}"))),
    }
}

/// The folder of `path`, which may be a file, its parent, and `videos`: the folders in which videos are searched for.
fn roots(path: &Path, videos: Option<&Path>) -> Vec<PathBuf> {
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
    let above = folder.parent().filter(|_| folder != Path::new(""));
    videos.into_iter().chain([folder]).chain(above).map(Path::to_owned).collect()
}

/// The first existing file with one of `names` in one of `folders` in `roots`. If there is none, the first path that
/// was tried: the run reports it as missing.
fn find_video(roots: &[PathBuf], folders: &[&str], names: &[InnerPath]) -> PathBuf {
    let places = || roots.iter().flat_map(|root| folders.iter().map(move |folder| root.join(folder)));
    let paths = || places().flat_map(|place| names.iter().map(move |name| name.below(&place)));
    paths().find(|path| path.exists()).or_else(|| paths().next()).unwrap_or_default()
}

/// `stem` with each of the extensions.
fn with_extensions(stem: &str, extensions: &[&str]) -> Result<Vec<InnerPath>, String> {
    inside(stem)?;
    extensions.iter().map(|extension| inside(&format!("{stem}.{extension}"))).collect()
}

/// The files in `folder` whose names end with `end`, sorted.
fn files_ending(folder: &Path, end: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> = entries
        .filter(|path| path.is_file() && path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(end)))
        .collect();
    found.sort();
    found
}

/// A path that stays inside the folder of the dataset: datasets are downloaded.
fn inside(path: &str) -> Result<InnerPath, String> {
    InnerPath::of_this_system(path).map_err(|reason| outside(path, reason))
}

fn outside(path: &str, reason: &str) -> String {
    format!("the video \"{path}\" is not within the dataset's folder: the name {reason}")
}

/// A text or number of a JSON row, as text.
fn text(row: &Value, key: &str) -> Result<String, String> {
    match row.get(key) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        Some(Value::Bool(value)) => Ok(if *value { "yes" } else { "no" }.to_owned()),
        Some(Value::Null) | None => Err(format!("there is no \"{key}\"")),
        Some(_) => Err(format!("\"{key}\" is not a text")),
    }
}

/// A number of seconds in a JSON row; it may be missing.
fn seconds(row: &Value, key: &str) -> Result<Option<f64>, String> {
    match row.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => Ok(number.as_f64()),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
        Some(Value::String(text)) => {
            text.trim().parse().map(Some).map_err(|_| format!("\"{key}\" is not a number of seconds"))
        }
        Some(_) => Err(format!("\"{key}\" is not a number of seconds")),
    }
}

/// A list of texts or numbers in a JSON row, as texts. Empty if it is missing.
fn texts(row: &Value, key: &str) -> Result<Vec<String>, String> {
    let items = match row.get(key) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        Some(_) => return Err(format!("\"{key}\" is not a list")),
    };
    let item = |item: &Value| match item {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(format!("\"{key}\" has an entry that is not a text")),
    };
    items.iter().map(item).collect()
}

/// The index of the choice with this letter, in either case.
fn by_letter(answer: &str, n: usize) -> Option<usize> {
    let answer = answer.trim().trim_start_matches('(').trim_end_matches(['.', ')']);
    let mut chars = answer.chars();
    let letter = chars.next().filter(|_| chars.as_str().is_empty())?.to_ascii_uppercase();
    (0..n).find(|&index| super::question::letter(index) == letter)
}

fn categories<const N: usize>(pairs: [(&str, Option<String>); N]) -> BTreeMap<String, String> {
    let named = pairs.into_iter().filter_map(|(kind, value)| Some((kind.to_owned(), value.filter(|v| !v.is_empty())?)));
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_read_as_datasets_write_them() {
        for (answer, index) in
            [("B", Some(1)), ("b", Some(1)), ("(B)", Some(1)), ("B.", Some(1)), ("E", None), ("", None)]
        {
            assert_eq!(by_letter(answer, 4), index, "{answer}");
        }
    }

    #[test]
    fn paths_stay_inside_the_dataset() {
        for path in ["../x.mp4", "/etc/passwd", "", "a/../../b"] {
            assert!(inside(path).is_err(), "{path}");
            assert!(with_extensions(path, &["mp4"]).is_err(), "{path}");
        }
        assert_eq!(inside("./video/x.mp4").as_deref(), Ok("./video/x.mp4"));
    }
}
