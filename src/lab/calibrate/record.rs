//! The file with the measurements so far, from which a stopped run continues.

use crate::chat::Effect;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Which sets of layers were hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Phase {
    /// Each layer alone.
    Single,
    /// The cheapest layers together.
    Steps,
}

/// The measurement of one answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Measured {
    pub phase: Phase,
    pub clip: usize,
    pub question: usize,
    /// Which layers have cells that can be evicted.
    pub layers: Vec<bool>,
    /// The effect of hiding each set.
    pub effects: Vec<Effect>,
}

/// The measured answers, and their file: one line with the settings, then one line for each answer.
#[derive(Debug)]
pub struct Record {
    path: PathBuf,
    file: Option<File>,
    measured: Vec<Measured>,
}

impl Record {
    /// The record in the file `path` of a calibration that `settings` describes in one line. Answers of other settings,
    /// and unreadable lines, are ignored. The file is created with the first answer.
    pub fn open(path: &Path, settings: &str) -> Result<Self> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(Error::io("reading the record", path)(error)),
        };
        let mut lines = text.lines();
        let mut record = Self { path: path.to_owned(), file: None, measured: Vec::new() };
        let io = |error| Error::io("writing the record", path)(error);
        if lines.next() == Some(settings) {
            // The last line may be incomplete, if the run was killed.
            let whole = lines.map_while(|line| serde_json::from_str(line).ok());
            record.measured = whole.collect();
        }
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(Error::io("making the folder of the record", folder))?;
        }
        let mut file = File::create(path).map_err(io)?;
        writeln!(file, "{settings}").map_err(io)?;
        record.file = Some(file);
        for measured in record.measured.clone() {
            record.write(&measured)?;
        }
        Ok(record)
    }

    /// The number of answers.
    pub fn len(&self) -> usize {
        self.measured.len()
    }

    /// Whether there are no answers.
    pub fn is_empty(&self) -> bool {
        self.measured.is_empty()
    }

    /// Deletes the file, when the profile has been made of it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn delete(mut self) -> Result<()> {
        self.file = None;
        std::fs::remove_file(&self.path).map_err(Error::io("deleting the record", &self.path))
    }

    pub(super) fn has(&self, clip: usize, question: usize) -> bool {
        self.measured.iter().any(|m| (m.clip, m.question) == (clip, question))
    }

    pub(super) fn of(&self, phase: Phase) -> impl Iterator<Item = &Measured> {
        self.measured.iter().filter(move |m| m.phase == phase)
    }

    /// Which layers have cells that can be evicted.
    pub(super) fn layers(&self) -> &[bool] {
        self.measured.first().map_or(&[], |m| &m.layers)
    }

    pub(super) fn add(&mut self, measured: Measured) -> Result<()> {
        self.write(&measured)?;
        self.measured.push(measured);
        Ok(())
    }

    fn write(&mut self, measured: &Measured) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        // Numbers and names only, so this cannot fail.
        let line = serde_json::to_string(measured).unwrap_or_default();
        writeln!(file, "{line}").map_err(Error::io("writing the record", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_run_goes_on_and_another_begins_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("record");
        let measured = |clip| Measured {
            phase: Phase::Single,
            clip,
            question: 0,
            layers: vec![true, false],
            effects: vec![Effect { tokens: 3, changed: 1, divergence: 0.5, lost: 0.1 }],
        };
        let mut record = Record::open(&path, "one").expect("a file");
        record.add(measured(0)).expect("it is written");
        record.add(measured(2)).expect("it is written");
        drop(record);
        // Killed in the middle of a line.
        let mut file = File::options().append(true).open(&path).expect("a file");
        write!(file, "{{\"phase\":\"sing").expect("it is written");
        let mut record = Record::open(&path, "one").expect("a file");
        assert!(record.len() == 2 && record.has(2, 0) && !record.has(1, 0));
        assert_eq!(record.layers(), [true, false]);
        record.add(measured(1)).expect("it is written");
        drop(record);
        assert_eq!(Record::open(&path, "one").expect("a file").len(), 3);
        let other = Record::open(&path, "another").expect("a file");
        assert!(other.is_empty());
        other.delete().expect("it was there");
        assert!(!path.exists());
    }
}
