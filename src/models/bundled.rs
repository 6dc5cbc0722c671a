//! The small model files that travel inside this library, so that an installed program has them too.

use super::known::BundledFile;

/// Vision encoder and connector of `smol`.
pub(super) const SMOL_MMPROJ: BundledFile = BundledFile {
    file_name: "smol-mmproj-q8_0.gguf",
    content: include_bytes!("../../models/smol/smol-mmproj-q8_0.gguf"),
};

/// What `smol`'s language model learned about pictures.
pub(super) const SMOL_LORA: BundledFile =
    BundledFile { file_name: "smol-lora-f16.gguf", content: include_bytes!("../../models/smol/smol-lora-f16.gguf") };
