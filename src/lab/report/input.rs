//! The input files of a report.

use super::draw::DrawError;
use crate::chat::LayerProfile;
use crate::error::{Error, FileKind, Result};
use crate::lab::results::{BENCH_FORMAT, Bench, SUMMARY_FORMAT, Summary};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Numbers beyond this are no measurements, and would break an axis.
const LARGEST: f64 = 1e15;

/// The names of results in a folder.
const NAMES: [&str; 2] = ["summary.json", "bench.json"];

/// One file of results.
#[derive(Debug)]
pub struct Input {
    pub path: PathBuf,
    pub results: Results,
}

#[derive(Debug)]
pub enum Results {
    Eval(Box<Summary>),
    Bench(Box<Bench>),
    Profile(Box<LayerProfile>),
}

/// The result files of `path`: itself, or those in a folder.
pub fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let found: Vec<PathBuf> = NAMES.iter().map(|name| path.join(name)).filter(|file| file.is_file()).collect();
    if found.is_empty() {
        return Err(refused(path, format!("there is neither {} nor {} in this folder", NAMES[0], NAMES[1])));
    }
    Ok(found)
}

impl Input {
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io("reading the results", path))?;
        let refused = |reason| refused(path, reason);
        let mut value: Value = serde_json::from_slice(&bytes).map_err(|error| refused(format!("no JSON: {error}")))?;
        make_printable(&mut value);
        if value.get("single").is_some() && value.get("order").is_some() {
            check_numbers(&value).map_err(refused)?;
            let profile = LayerProfile::read(path)?;
            return Ok(Self { path: path.to_owned(), results: Results::Profile(Box::new(profile)) });
        }
        let is_bench = value.get("kind").and_then(Value::as_str) == Some("bench");
        if !is_bench && value.get("variants").is_none() {
            return Err(refused("it is no summary of an evaluation, no benchmark and no layer profile".into()));
        }
        let format = u64::from(if is_bench { BENCH_FORMAT } else { SUMMARY_FORMAT });
        match value.get("format").and_then(Value::as_u64) {
            Some(found) if found == format => {}
            Some(other) => {
                return Err(refused(format!("it has format {other}, and this version reads format {format}")));
            }
            None => return Err(refused("it has no format".into())),
        }
        check_numbers(&value).map_err(refused)?;
        let results = if is_bench {
            serde_json::from_value(value).map(|bench| Results::Bench(Box::new(bench)))
        } else {
            serde_json::from_value(value).map(|eval| Results::Eval(Box::new(eval)))
        };
        let results = results.map_err(|error| refused(error.to_string()))?;
        let empty = match &results {
            Results::Eval(eval) => eval.variants.iter().all(|variant| variant.all.n == 0),
            Results::Bench(bench) => {
                bench.video.as_ref().is_none_or(|video| video.methods.is_empty())
                    && bench.scaling.as_ref().is_none_or(|scaling| scaling.points.is_empty())
            }
            Results::Profile(_) => false,
        };
        if empty {
            return Err(refused("nothing was measured".into()));
        }
        Ok(Self { path: path.to_owned(), results })
    }

    pub fn not_drawn(&self, reason: &DrawError) -> Error {
        refused(&self.path, format!("drawing failed: {reason}"))
    }
}

fn refused(path: &Path, reason: String) -> Error {
    let advice = "give summary.json of an evaluation, bench.json of a benchmark, or a layer profile".to_owned();
    let reason = format!("no results to draw: {reason}");
    Error::Unusable { what: FileKind::Results, path: path.to_owned(), reason, advice }
}

/// Removes characters that XML cannot hold from all texts.
fn make_printable(value: &mut Value) {
    match value {
        Value::String(text) => text.retain(|c| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}')),
        Value::Array(values) => values.iter_mut().for_each(make_printable),
        Value::Object(values) => values.values_mut().for_each(make_printable),
        _ => {}
    }
}

/// Rejects numbers that no axis can hold. Settings are not drawn, and not checked.
fn check_numbers(value: &Value) -> std::result::Result<(), String> {
    match value {
        Value::Number(number) => match number.as_f64() {
            Some(number) if number.abs() <= LARGEST => Ok(()),
            _ => Err(format!("{number} cannot be drawn")),
        },
        Value::Array(values) => values.iter().try_for_each(check_numbers),
        Value::Object(values) => {
            values.iter().filter(|(key, _)| *key != "settings").try_for_each(|(_, value)| check_numbers(value))
        }
        _ => Ok(()),
    }
}
