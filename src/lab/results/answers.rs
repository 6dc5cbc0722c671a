//! The answers of an evaluation on disk: a line of settings, then a line for each answer, written immediately. A
//! stopped run continues from there.

use crate::error::{Error, FileKind, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The format of the file.
const FORMAT: u64 = 1;

/// How an answer was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Judge {
    /// By the letter in the generated text.
    Letter,
    /// By the likeliest letter.
    Likelihood,
    /// By comparing words.
    Match,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The id of the question.
    pub id: String,
    /// The method; `dense` for the one that keeps all tokens.
    pub method: String,
    /// The budget, as in the options; `all` for dense.
    pub budget: String,
    /// Whether the answer is correct.
    pub correct: bool,
    /// The answer that was found in the text: a letter, or normalized words; `null` if none was found.
    pub predicted: Option<String>,
    /// The right answer.
    pub answer: String,
    /// How it was judged.
    pub judge: Judge,
    /// The generated text; `null` for a choice by likelihood.
    pub text: Option<String>,
    /// The log probabilities of the letters, for a choice by likelihood.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log_probabilities: Vec<f64>,
    /// Visual tokens of the video.
    pub visual_tokens: usize,
    /// Kept visual tokens.
    pub kept: usize,
    /// The share of the vision encoder's work that was computed, 0 to 1.
    #[serde(default = "everything")]
    pub computed: f64,
    /// The question's categories.
    pub categories: BTreeMap<String, String>,
}

/// The default for results that are older than this field.
pub(super) fn everything() -> f64 {
    1.0
}

/// Names and values of everything that an answer depends on, except the question, the method and the budget.
pub type RunSettings = Map<String, Value>;

#[derive(Serialize, Deserialize)]
struct Header {
    sharpv_eval: u64,
    settings: RunSettings,
}

/// The key of an answer: question, method and budget.
type Key = (String, String, String);

/// The file of results, open for appending.
#[derive(Debug)]
pub struct Results {
    path: PathBuf,
    file: File,
    rows: Vec<Row>,
    index: HashMap<Key, usize>,
}

impl Drop for Results {
    fn drop(&mut self) {
        // See `models::files::Lock`: closing alone may not release the lock at once.
        let _ = self.file.unlock();
    }
}

impl Results {
    /// Opens the results at `path`, or creates them.
    ///
    /// # Errors
    /// [`Error::Unusable`] if the file holds results of other settings or something else, or if another process is
    /// writing it; [`Error::Io`].
    pub fn open(path: &Path, settings: &RunSettings) -> Result<Self> {
        const ACTION: &str = "opening the results";
        let io = |error| Error::io(ACTION, path)(error);
        if let Some(folder) = path.parent().filter(|folder| *folder != Path::new("")) {
            std::fs::create_dir_all(folder).map_err(Error::io("making the folder of the results", folder))?;
        }
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let advice = "wait for it, or give another folder".to_owned();
                return Err(refused(path, "another run is writing these results".into(), advice));
            }
            // The file system has no locks.
            Err(TryLockError::Error(error)) => tracing::debug!("{}: no lock: {error}", path.display()),
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(io)?;
        // If a run was killed while it wrote a line, the line has no end.
        let whole = text.rfind('\n').map_or(0, |last| last + 1);
        let mut results = Self { path: path.to_owned(), file, rows: Vec::new(), index: HashMap::new() };
        let mut lines = text[..whole].lines().enumerate();
        let Some((_, header)) = lines.next() else {
            if !text.is_empty() && !"{\"sharpv_eval\":".starts_with(text.get(..15).unwrap_or(&text)) {
                return Err(refused(path, "this is not a file of results".into(), "give another folder".into()));
            }
            results.cut(0)?;
            let header = Header { sharpv_eval: FORMAT, settings: settings.clone() };
            results.write(&header)?;
            return Ok(results);
        };
        check_header(path, header, settings)?;
        for (number, line) in lines {
            let row: Row = serde_json::from_str(line).map_err(|error| {
                let advice = "mend or remove the line, or give another folder".to_owned();
                refused(path, format!("line {} is not a result: {error}", number + 1), advice)
            })?;
            results.keep(row);
        }
        results.cut(whole as u64)?;
        Ok(results)
    }

    /// Adds an answer, and writes it to the file.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn add(&mut self, row: Row) -> Result<()> {
        self.write(&row)?;
        self.keep(row);
        Ok(())
    }

    /// The answer to a question with a method and a budget, if there is one.
    pub fn find(&self, id: &str, method: &str, budget: &str) -> Option<&Row> {
        let key = (id.to_owned(), method.to_owned(), budget.to_owned());
        self.index.get(&key).and_then(|&index| self.rows.get(index))
    }

    /// All answers.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn keep(&mut self, row: Row) {
        let key = (row.id.clone(), row.method.clone(), row.budget.clone());
        self.index.insert(key, self.rows.len());
        self.rows.push(row);
    }

    fn cut(&mut self, length: u64) -> Result<()> {
        let cut = self.file.set_len(length).and_then(|()| self.file.seek(SeekFrom::Start(length)).map(drop));
        cut.map_err(Error::io("writing the results", &self.path))
    }

    fn write(&mut self, line: &impl Serialize) -> Result<()> {
        let io = |error| Error::io("writing the results", &self.path)(error);
        let mut text = serde_json::to_string(line).map_err(|error| io(error.into()))?;
        text.push('\n');
        // In one write, so that a line is complete or missing.
        self.file.write_all(text.as_bytes()).map_err(io)
    }
}

fn check_header(path: &Path, line: &str, settings: &RunSettings) -> Result<()> {
    let other_out = || "give another folder".to_owned();
    let Ok(header) = serde_json::from_str::<Header>(line) else {
        return Err(refused(path, "this is not a file of results".into(), other_out()));
    };
    if header.sharpv_eval != FORMAT {
        let reason =
            format!("these results have format {}, and this version reads format {FORMAT}", header.sharpv_eval);
        return Err(refused(path, reason, other_out()));
    }
    let names = settings.keys().chain(header.settings.keys().filter(|name| !settings.contains_key(*name)));
    let differing: Vec<String> = names
        .filter(|name| settings.get(*name) != header.settings.get(*name))
        .map(|name| {
            let show = |settings: &RunSettings| settings.get(name).map_or_else(|| "none".to_owned(), Value::to_string);
            format!("{name} {} there, {} here", show(&header.settings), show(settings))
        })
        .collect();
    if differing.is_empty() {
        return Ok(());
    }
    let advice = "run it with the settings of these results, or give another folder".to_owned();
    Err(refused(path, format!("these results are of other settings: {}", differing.join("; ")), advice))
}

fn refused(path: &Path, reason: String, advice: String) -> Error {
    Error::Unusable { what: FileKind::Evaluation, path: path.to_owned(), reason, advice }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(score: &str) -> RunSettings {
        let mut settings = RunSettings::new();
        settings.insert("score".into(), score.into());
        settings
    }

    fn row(id: &str) -> Row {
        Row {
            id: id.into(),
            method: "sharpv".into(),
            budget: "0.1".into(),
            correct: true,
            predicted: Some("B".into()),
            answer: "B".into(),
            judge: Judge::Letter,
            text: Some("B.\n".into()),
            log_probabilities: Vec::new(),
            visual_tokens: 64,
            kept: 6,
            computed: 1.0,
            categories: BTreeMap::new(),
        }
    }

    #[test]
    fn a_line_cut_off_by_a_kill_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/results.jsonl");
        let mut results = Results::open(&path, &settings("generate")).unwrap();
        results.add(row("1")).unwrap();
        results.add(row("2")).unwrap();
        drop(results);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 9]).unwrap();

        let mut results = Results::open(&path, &settings("generate")).unwrap();
        assert_eq!(results.rows(), [row("1")]);
        assert!(results.find("2", "sharpv", "0.1").is_none());
        results.add(row("2")).unwrap();
        drop(results);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        // Cut off within its first line.
        std::fs::write(&path, &text[..12]).unwrap();
        assert!(Results::open(&path, &settings("generate")).unwrap().rows().is_empty());
    }

    #[test]
    fn other_settings_and_other_files_are_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.jsonl");
        drop(Results::open(&path, &settings("generate")).unwrap());
        let before = std::fs::read_to_string(&path).unwrap();
        let error = Results::open(&path, &settings("likelihood")).unwrap_err().to_string();
        assert!(error.contains("score \"generate\" there, \"likelihood\" here"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), before);

        for content in ["notes", "notes\n", "{\"a\":1}\n", &format!("{before}{{\"id\":1}}\n")] {
            std::fs::write(&path, content).unwrap();
            assert!(Results::open(&path, &settings("generate")).is_err(), "{content}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
    }

    #[test]
    fn two_runs_do_not_write_the_same_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.jsonl");
        let _first = Results::open(&path, &settings("generate")).unwrap();
        let error = Results::open(&path, &settings("generate")).unwrap_err().to_string();
        assert!(error.contains("another run"), "{error}");
    }
}
