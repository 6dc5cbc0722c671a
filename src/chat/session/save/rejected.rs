//! Why a file is rejected.

use crate::error::{Error, FileKind};
use std::path::Path;

/// Why a file is rejected.
#[derive(Debug)]
pub struct Rejected {
    pub reason: String,
    pub advice: String,
}

impl Rejected {
    pub fn because(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), advice: "use another file, or ask about the videos again".into() }
    }

    pub fn damaged() -> Self {
        Self::because("the saved session is damaged")
    }

    pub fn truncated() -> Self {
        Self::because("the saved session is truncated")
    }

    pub fn other_file() -> Self {
        Self { reason: "it is not a saved session".into(), advice: "use a file that holds one".into() }
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
