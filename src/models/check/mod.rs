//! Checks what llama.cpp takes from a model file's header unchecked: values that it asserts on, divides by or allocates
//! for, and tensors that it looks up only when they are used. This happens before llama.cpp reads the file, as a failed
//! assertion ends the process.
//!
//! Only what is certainly wrong is rejected: for architectures and projectors that are not named here, only ranges and
//! types are checked.

mod mmproj;
mod model;

use super::fingerprint;
use super::gguf::{self, Header, Kind, Value};
use crate::error::{Error, Result};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::Path;

/// The largest value that llama.cpp can keep in an `int`.
const INT: u64 = i32::MAX as u64;

/// Checks the header of the GGUF file at `path` for values that no model has and that would end the process or load a
/// wrong model. Reads only the header, which takes milliseconds.
///
/// A [`Session`](crate::Session) does this itself. Call it before [`Model::load`](crate::runtime::Model::load).
///
/// # Errors
/// [`Error::BadModel`], which names the value and what it must be; [`Error::NotGguf`] and [`Error::Io`] if the file
/// cannot be read.
pub fn check(path: &Path) -> Result<()> {
    let header = gguf::read_header(path)?;
    let length = std::fs::metadata(path).map_err(Error::io("opening the model file", path))?.len();
    if let Some((name, end)) = header.last.as_ref().filter(|(_, end)| *end > length) {
        let reason =
            format!("the tensor {name} ends at byte {end}, after the end of the file at {length}; it is cut off");
        return Err(Error::BadModel { path: path.to_owned(), reason });
    }
    look_at(&header).map_err(|reason| Error::BadModel { path: path.to_owned(), reason })
}

fn look_at(header: &Header) -> Finding {
    fingerprint::copied(&header.metadata)?;
    match header.metadata.kind() {
        Kind::Model => model::check(header),
        Kind::Mmproj => mmproj::check(header),
        Kind::Adapter => Ok(()),
    }
}

/// See [`crate::fuzzing`].
#[cfg(all(any(test, fuzzing), feature = "lab"))]
pub(crate) fn fuzz_header(bytes: &[u8]) {
    if let Ok(header) = gguf::from_bytes(bytes) {
        let _ = look_at(&header);
    }
}

/// What is wrong, as text.
type Finding<T = ()> = Result<T, String>;

impl Header {
    /// Checks that `key`, if it is a number, is in `range`.
    fn in_range(&self, key: &str, range: RangeInclusive<u64>) -> Finding<Option<u64>> {
        match self.metadata.get(key) {
            None | Some(Value::Array { .. } | Value::String(_) | Value::Bool(_)) => Ok(None),
            Some(value) => match self.metadata.u64(key).filter(|number| range.contains(number)) {
                Some(number) => Ok(Some(number)),
                None => Err(must_be(key, in_words(value), format!("from {} to {}", range.start(), range.end()))),
            },
        }
    }

    /// Checks that the epsilons of norms are small and not negative.
    fn epsilons(&self) -> Finding {
        for (key, value) in self.metadata.iter().filter(|(key, _)| key.ends_with("epsilon")) {
            if let Value::Float(number) = *value
                && !(0.0..1.0).contains(&number)
            {
                return Err(must_be(key, number, "from 0 to 1, such as 1e-6"));
            }
        }
        Ok(())
    }
}

fn must_be(key: &str, value: impl Display, expected: impl Display) -> String {
    format!("{key} is {value}, but must be {expected}")
}

fn in_words(value: &Value) -> String {
    match value {
        Value::Uint(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Bool(value) => value.to_string(),
        Value::String(value) => format!("{value:?}"),
        Value::Array { len } => format!("an array of {len} elements"),
    }
}
