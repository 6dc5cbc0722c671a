//! Why a file is not used.

use crate::error::{Error, FileKind};
use std::path::Path;

/// Why a file is not used.
#[derive(Debug)]
pub struct Refused {
    pub reason: String,
    pub advice: String,
}

impl Refused {
    pub fn because(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), advice: "take another file, or ask about the videos anew".into() }
    }

    pub fn damaged() -> Self {
        Self::because("the saved session is damaged")
    }

    pub fn cut_short() -> Self {
        Self::because("the saved session is cut short")
    }

    pub fn other_file() -> Self {
        Self { reason: "this is no saved session".into(), advice: "give a file that was written by /save".into() }
    }

    pub fn at(self, path: &Path) -> Error {
        Error::Unusable {
            what: FileKind::SavedSession,
            path: path.to_owned(),
            reason: self.reason,
            advice: self.advice,
        }
    }
}
