//! Digests that identify the weights in GGUF files without reading large files completely.

use super::ModelFiles;
use super::gguf::{self, Layout, Metadata, Value};
use crate::error::{Error, Result};
use crate::names::ModelDigest;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Files up to this size are read completely.
const SMALL: u64 = 16 << 20;
/// From a larger file, the header and blocks of this size from every tensor are read.
const BLOCK: u64 = 4096;
/// The distance between blocks of a large tensor.
const STRIDE: u64 = 8 << 20;
/// The metadata key under which a copy of a file in another type has the digest of that file.
pub(crate) const COPY_OF: &str = "sharpv.copy_of";

/// The most parts of a split model: the number of a part has five digits.
const MAX_PARTS: u64 = 99_999;

/// The digest of a model: of its language model and the adapters. A faster copy ([`weights`](crate::weights)) has the
/// digest of its original.
///
/// # Errors
/// [`Error::Io`] if a file cannot be read, [`Error::NotGguf`] if it is not a GGUF file or damaged.
pub fn digest(files: &ModelFiles) -> Result<ModelDigest> {
    let mut digest = fingerprint(&files.model)?;
    for adapter in &files.lora {
        let both = Sha256::digest(format!("{digest} {}", fingerprint(adapter)?));
        digest = ModelDigest::of_hash(&both.into());
    }
    Ok(digest)
}

/// The digest of the GGUF file at `path`, or of the original that it claims to be a copy of.
///
/// The claim is not verified: a file can take over the layer profile and the saved sessions of another model. Copies
/// are therefore stored under the digest of [`contents`].
///
/// # Errors
/// [`Error::Io`] if it cannot be read, [`Error::NotGguf`] if it is not a GGUF file or damaged.
pub(crate) fn fingerprint(path: &Path) -> Result<ModelDigest> {
    let layout = gguf::read_layout(path)?;
    match copied(&layout.metadata).map_err(|reason| Error::NotGguf { path: path.to_owned(), reason })? {
        Some(source) => Ok(source),
        None => digest_of(path, &layout),
    }
}

/// The digest of the GGUF file at `path` and the other parts of its model. Training changes nearly all of every tensor
/// that it updates, so blocks are enough to distinguish a fine-tuned model from its base.
///
/// # Errors
/// As [`fingerprint`].
pub(super) fn contents(path: &Path) -> Result<ModelDigest> {
    digest_of(path, &gguf::read_layout(path)?)
}

/// The digest of the original that a file claims to be a copy of.
pub(super) fn copied(metadata: &Metadata) -> Result<Option<ModelDigest>, String> {
    let wrong = |value: &Value| {
        let value = match value {
            Value::String(text) => format!("{:?}", text.chars().take(100).collect::<String>()),
            _ => "not a string".to_owned(),
        };
        format!("{COPY_OF} is {value}, but must be 32 hexadecimal digits")
    };
    let Some(value) = metadata.get(COPY_OF) else { return Ok(None) };
    let digest = metadata.string(COPY_OF).and_then(ModelDigest::parse);
    digest.map(Some).ok_or_else(|| wrong(value))
}

fn digest_of(path: &Path, layout: &Layout) -> Result<ModelDigest> {
    let mut hasher = Sha256::new();
    for part in parts(path, layout) {
        let layout = gguf::read_layout(&part)?;
        read(&part, &layout, &mut hasher).map_err(Error::io("reading the model file", &part))?;
    }
    Ok(ModelDigest::of_hash(&hasher.finalize().into()))
}

/// The files of the model whose first file is `first`: a split model has numbered parts.
fn parts(first: &Path, layout: &Layout) -> impl Iterator<Item = PathBuf> {
    let count = layout.metadata.u64("split.count").unwrap_or(1);
    let name = first.file_name().unwrap_or_default().to_string_lossy();
    let base = name.strip_suffix(&format!("-00001-of-{count:05}.gguf")).filter(|_| count <= MAX_PARTS);
    let others = base.map(|base| {
        let (first, base) = (first.to_owned(), base.to_owned());
        (2..=count).map(move |i| first.with_file_name(format!("{base}-{i:05}-of-{count:05}.gguf")))
    });
    // An iterator, as a header may claim more files than memory can hold names.
    std::iter::once(first.to_owned()).chain(others.into_iter().flatten())
}

fn read(path: &Path, layout: &Layout, hasher: &mut Sha256) -> io::Result<()> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    hasher.update(length.to_le_bytes());
    let mut buffer = Vec::new();
    let mut block = |start: u64, length: u64| {
        buffer.clear();
        file.seek(SeekFrom::Start(start))?;
        file.by_ref().take(length).read_to_end(&mut buffer)?;
        hasher.update(&buffer);
        io::Result::Ok(())
    };
    if length <= SMALL {
        return block(0, length);
    }
    block(0, layout.data.min(length))?;
    let ends = layout.tensors.iter().skip(1).copied().chain([length]);
    for (&start, end) in layout.tensors.iter().zip(ends) {
        let size = end.saturating_sub(start);
        let n = size.div_ceil(STRIDE);
        // From the middle of each stride.
        (0..n).try_for_each(|i| block(start + (size - BLOCK.min(size)) / (2 * n) * (2 * i + 1), BLOCK.min(size)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A GGUF file with two tensors of 12 MB and one of 32 bytes.
    fn file(path: &Path) -> Vec<u8> {
        const LARGE: u64 = 3 << 20;
        let mut bytes = [&b"GGUF"[..], &3_u32.to_le_bytes(), &3_u64.to_le_bytes(), &0_u64.to_le_bytes()].concat();
        for (name, len, offset) in [("a", LARGE, 0), ("b", LARGE, 4 * LARGE), ("c", 8, 8 * LARGE)] {
            bytes.extend_from_slice(&1_u64.to_le_bytes());
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(&1_u32.to_le_bytes());
            bytes.extend_from_slice(&u64::to_le_bytes(len));
            bytes.extend_from_slice(&0_u32.to_le_bytes());
            bytes.extend_from_slice(&u64::to_le_bytes(offset));
        }
        bytes.resize(bytes.len().next_multiple_of(32) + (8 * LARGE) as usize + 32, 1);
        std::fs::write(path, &bytes).expect("a file");
        bytes
    }

    #[test]
    fn a_large_file_is_known_by_blocks_of_every_tensor() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("large.gguf");
        let mut bytes = file(&path);
        let (base, large) = (fingerprint(&path).expect("a digest"), 12 << 20);
        assert_eq!(fingerprint(&path).expect("a digest"), base);
        let data = bytes.len() - 32 - 2 * large;
        // A name, each of the tensors, half of one.
        for range in [
            30..34,
            data..data + large,
            data + large..data + 2 * large,
            data + 2 * large..data + 2 * large + 32,
            data..data + large / 2,
        ] {
            let before = bytes[range.clone()].to_vec();
            if range.start < data {
                bytes[32] ^= 1;
            } else {
                bytes[range.clone()].fill(2);
            }
            std::fs::write(&path, &bytes).expect("a file");
            assert_ne!(fingerprint(&path).expect("a digest"), base, "{range:?}");
            bytes[range].copy_from_slice(&before);
        }
        std::fs::write(&path, &bytes[..bytes.len() - 1]).expect("a file");
        assert_ne!(fingerprint(&path).expect("a digest"), base, "its size");
    }

    #[test]
    fn all_files_of_a_split_model_count() {
        let layout = |count| Layout {
            metadata: gguf::Metadata::parse(split(count).as_slice()).expect("metadata"),
            data: 0,
            tensors: Vec::new(),
        };
        let names = |name: &str, count| parts(Path::new(name), &layout(count)).collect::<Vec<_>>();
        assert_eq!(
            names("m/a-00001-of-00002.gguf", 2),
            ["m/a-00001-of-00002.gguf", "m/a-00002-of-00002.gguf"].map(PathBuf::from)
        );
        assert_eq!(names("m/a-00001-of-00003.gguf", 2), [PathBuf::from("m/a-00001-of-00003.gguf")]);
        assert_eq!(names("m/a.gguf", 1), [PathBuf::from("m/a.gguf")]);
    }

    /// The beginning of a GGUF file that says that it is one of `count`.
    fn split(count: u16) -> Vec<u8> {
        let key = b"split.count";
        let start = [&b"GGUF"[..], &3_u32.to_le_bytes(), &0_u64.to_le_bytes(), &1_u64.to_le_bytes()].concat();
        [&start[..], &(key.len() as u64).to_le_bytes(), key, &2_u32.to_le_bytes(), &count.to_le_bytes()].concat()
    }
}
