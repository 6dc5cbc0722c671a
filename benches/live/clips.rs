//! Long clips, and the things that appear in them.

use crate::Result;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A clip.
pub struct Clip {
    pub path: PathBuf,
    /// In the order of their appearance.
    pub things: Vec<Thing>,
}

impl Clip {
    pub fn name(&self) -> String {
        self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

/// Something that appears once, and something else that does not appear.
pub struct Thing {
    pub name: String,
    /// In seconds.
    pub start: f64,
    pub end: f64,
    /// Questions whether it appears, and whether the other thing does.
    pub question: String,
    pub absent: String,
}

#[derive(Deserialize)]
struct Needle {
    video: String,
    thing: String,
    start: f64,
    end: f64,
}

#[derive(Deserialize)]
struct Row {
    video: String,
    question: String,
    answer: String,
}

/// Reads `I/N`.
pub fn shard(text: &str) -> Result<(usize, usize)> {
    let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    let shard = parts.filter(|&(i, n): &(usize, usize)| (1..=n).contains(&i));
    Ok(shard.ok_or_else(|| format!("{text}: --shard requires I/N, with I from 1 to N"))?)
}

/// The first `most` clips of a folder; of these, every `n`th from the `i`th on.
pub fn of(folder: &Path, most: usize, (i, n): (usize, usize)) -> Result<Vec<Clip>> {
    let needles: Vec<Needle> = read(&folder.join("needles.jsonl"))?;
    let rows: Vec<Row> = read(&folder.join("questions.jsonl"))?;
    let clips = needles.chunk_by(|a, b| a.video == b.video).take(most).skip(i - 1).step_by(n);
    let clip = |needles: &[Needle]| {
        let thing = |needle: &Needle| {
            let is_it = |row: &Row| {
                row.video == needle.video
                    && row.answer == "Yes."
                    && row.question.contains(&format!(" {} in", needle.thing))
            };
            let at = rows.iter().position(is_it)?;
            // The next question is about a thing that does not appear.
            let absent = rows.get(at + 1).filter(|row| row.answer == "No.")?;
            Some(Thing {
                name: needle.thing.clone(),
                start: needle.start,
                end: needle.end,
                question: rows[at].question.clone(),
                absent: absent.question.clone(),
            })
        };
        let things: Option<Vec<Thing>> = needles.iter().map(thing).collect();
        let path = folder.join(&needles[0].video);
        let things = things.ok_or_else(|| format!("{}: a needle without two questions", path.display()))?;
        Ok(Clip { path, things })
    };
    clips.map(clip).collect()
}

/// The lines that runs have printed.
pub fn lines(files: &[String]) -> Result<Vec<Value>> {
    let mut lines = Vec::new();
    for file in files {
        lines.extend(read::<Value>(Path::new(file))?);
    }
    Ok(lines)
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(text.lines().map(serde_json::from_str).collect::<std::result::Result<_, _>>()?)
}
