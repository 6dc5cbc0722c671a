//! The functions that the fuzzers in `fuzz/` call. Each takes arbitrary bytes and must return. A test runs them over
//! the corpus.

use crate::lab::eval::Task;
use crate::lab::report::Report;
use crate::video::{FrameSource, Sampling};
use crate::{chat, models, runtime};
use std::fs;
use std::path::Path;

/// Reads and checks the header of a model, an mmproj or an adapter.
pub fn gguf(bytes: &[u8]) {
    models::fuzz_header(bytes);
}

/// Reads a saved session, after correcting its checksum.
pub fn saved_session(bytes: &[u8]) {
    chat::fuzz_saved_session(bytes);
}

/// Reads the KV cache's state in a saved session.
pub fn kv_state(bytes: &[u8]) {
    runtime::fuzz_state(bytes);
}

/// Compiles and renders a chat template.
pub fn chat_template(bytes: &[u8]) {
    if let Ok(source) = std::str::from_utf8(bytes) {
        chat::fuzz_template(source);
    }
}

/// Reads a data set; the first byte chooses the kind of file.
pub fn dataset(bytes: &[u8]) {
    const KINDS: [(Task, &str); 6] = [
        (Task::Jsonl, "a.jsonl"),
        (Task::NextQa, "test.csv"),
        (Task::VideoMme, "a.tsv"),
        (Task::VideoMme, "a.parquet"),
        (Task::MvBench, "a.json"),
        (Task::ActivityNetQa, "test_q.json"),
    ];
    let Some((first, bytes)) = bytes.split_first() else { return };
    let (task, name) = KINDS[usize::from(*first) % KINDS.len()];
    in_file(name, bytes, |path| {
        let _ = fs::write(path.with_file_name("test_a.json"), bytes);
        let _ = task.load(path, None);
    });
}

/// Reads results in JSON and draws them.
pub fn results(bytes: &[u8]) {
    in_file("summary.json", bytes, |path| {
        let _ = Report::read(&[path.to_owned()]).and_then(|report| report.html());
    });
}

/// Reads a folder of frames: each line of the bytes names a file, and each file holds all the bytes.
pub fn frame_folder(bytes: &[u8]) {
    in_file("-", &[], |path| {
        let folder = path.with_file_name("frames");
        let _ = fs::create_dir(&folder);
        for name in String::from_utf8_lossy(bytes).lines().take(50).filter(|name| !name.contains(['/', '\0'])) {
            let _ = fs::write(folder.join(name), bytes);
        }
        if let Ok(source) = FrameSource::open(&folder, &Sampling::uniform(4)) {
            source.for_each(drop);
        }
    });
}

/// Calls `work` with a file that holds `bytes`.
fn in_file(name: &str, bytes: &[u8], work: impl FnOnce(&Path)) {
    let Ok(folder) = tempfile::tempdir() else { return };
    let path = folder.path().join(name);
    if fs::write(&path, bytes).is_ok() {
        work(&path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Target = (&'static str, fn(&[u8]));

    /// The fuzzers, by their names in `fuzz/Cargo.toml`.
    const TARGETS: [Target; 7] = [
        ("gguf", gguf),
        ("saved_session", saved_session),
        ("kv_state", kv_state),
        ("chat_template", chat_template),
        ("dataset", dataset),
        ("results", results),
        ("frame_folder", frame_folder),
    ];

    /// The inputs that fuzzers and people found stay harmless. Needs no nightly Rust.
    #[test]
    fn the_corpus_is_harmless() {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
        assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
        for (name, target) in TARGETS {
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
            let files: Vec<_> = fs::read_dir(fuzz.join("corpus").join(name)).unwrap().flatten().collect();
            assert!(files.len() >= 3, "{name}: {}", files.len());
            for file in files {
                target(&fs::read(file.path()).unwrap());
            }
        }
    }

    /// Mutations of the corpus are harmless. `SHARPV_FUZZ` is the number of mutations of each file.
    #[test]
    fn what_is_near_the_corpus_is_harmless() {
        let count = std::env::var("SHARPV_FUZZ").ok().and_then(|count| count.parse().ok()).unwrap_or(20_usize);
        let only = std::env::var("SHARPV_FUZZ_TARGET").ok();
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        let mut state = 7_u64;
        let mut below = |n: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % n.max(1)
        };
        for (name, target) in TARGETS.iter().filter(|(name, _)| only.as_ref().is_none_or(|only| only == name)) {
            for file in fs::read_dir(corpus.join(name)).unwrap().flatten() {
                let whole = fs::read(file.path()).unwrap();
                for _ in 0..count {
                    let mut bytes = whole.clone();
                    for _ in 0..1 + below(4) {
                        let at = below(bytes.len());
                        let to = (at + 1 + below(16)).min(bytes.len());
                        match below(6) {
                            0 if at < to => bytes[at] ^= 1 << below(8),
                            1 => bytes[at..to].fill([0, 1, 0x7f, 0xff][below(4)]),
                            2 => bytes[at..to].fill_with(|| below(256) as u8),
                            3 => drop(bytes.drain(at..to)),
                            4 => bytes.truncate(at),
                            _ => {
                                let part = bytes[at..to].to_vec();
                                bytes.splice(at..at, part);
                            }
                        }
                    }
                    target(&bytes);
                }
            }
        }
    }
}
