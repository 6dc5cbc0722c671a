//! The source of llama.cpp: finding the pinned one, verifying it, and copying it with the patches applied.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::Result;
use crate::config::Config;
use crate::patch::{self, Patch};

/// The package that contains the source, and the folder of the source in it.
const PACKAGE: &str = "llama-cpp-sys-2";
const FOLDER: &str = "llama.cpp";
/// The parts of llama.cpp that are used: the libraries llama, ggml and mtmd, and what cmake needs to configure them.
const PARTS: [&str; 8] = ["CMakeLists.txt", "LICENSE", "cmake", "include", "src", "ggml", "tools/mtmd", "vendor"];

/// The folder in the copy with the declarations of the hooks that the patches call, and the cmake file that includes
/// them.
pub const HOOKS: &str = "sharpv-hooks";

/// A llama.cpp to build.
pub struct Pin {
    /// The unpatched source.
    pub dir: PathBuf,
    /// Its name in messages, for example `llama-cpp-sys-2 0.1.161`.
    pub label: String,
    /// llama.cpp's own version, for example `0.6.0`; empty if its CMakeLists.txt does not state it.
    pub version: String,
    /// The SHA-256 that [`digest`] must return; `None` for the user's own tree.
    digest: Option<String>,
}

/// Finds the pinned source (downloads it if necessary), or the user's own tree.
pub fn locate(config: &Config) -> Result<Pin> {
    let pin = match &config.source_dir {
        Some(dir) => {
            for part in PARTS {
                println!("cargo::rerun-if-changed={}", dir.join(part).display());
            }
            Pin { dir: dir.clone(), label: dir.display().to_string(), version: String::new(), digest: None }
        }
        None => pinned(config)?,
    };
    let cmake_lists = pin.dir.join("CMakeLists.txt");
    let text = fs::read_to_string(&cmake_lists)
        .map_err(|error| format!("{}: {error}; this should be llama.cpp's source", cmake_lists.display()))?;
    Ok(Pin { version: version(&text).unwrap_or_default(), ..pin })
}

/// Finds the package that `vendor/llama.cpp` pins with `cargo metadata`. Cargo downloads it if necessary, verifies the
/// archive with the lock file, and respects mirrors, vendored sources and offline mode.
fn pinned(config: &Config) -> Result<Pin> {
    let vendor = config.manifest_dir.join("vendor/llama.cpp");
    // They have other names in `vendor`, because Cargo excludes folders with a manifest from a published package.
    let folder = config.out_dir.join("pin");
    for (from, to) in [("pin.toml", "Cargo.toml"), ("pin.lock", "Cargo.lock")] {
        let from = vendor.join(from);
        let text = fs::read(&from).map_err(|error| format!("{}: {error}", from.display()))?;
        write_if_changed(&folder.join(to), &text)?;
    }
    write_if_changed(&folder.join("empty.rs"), b"")?;
    let manifest = folder.join("Cargo.toml");
    let output = Command::new(&config.cargo)
        .args(["metadata", "--locked", "--format-version", "1", "--manifest-path"])
        .arg(&manifest)
        .output()
        .map_err(|error| format!("{}: cannot be run: {error}", config.cargo.display()))?;
    if !output.status.success() {
        return Err(format!(
            "the pinned source of llama.cpp cannot be fetched; `cargo metadata` said:\n{}\n\
             Check the network (`cargo fetch --locked --manifest-path {}`), or set SHARPV_LLAMA_SOURCE_DIR to a folder \
             with llama.cpp's source.",
            String::from_utf8_lossy(&output.stderr).trim_end(),
            manifest.display()
        ));
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("`cargo metadata` for {} printed no JSON: {error}", manifest.display()))?;
    let package = metadata["packages"]
        .as_array()
        .and_then(|packages| packages.iter().find(|package| package["name"] == PACKAGE))
        .ok_or_else(|| format!("{} does not depend on {PACKAGE}", manifest.display()))?;
    let member = |key: &str| package[key].as_str().ok_or_else(|| format!("`cargo metadata` has no {key} of {PACKAGE}"));
    let (package_manifest, version) = (member("manifest_path")?, member("version")?);
    let digest_file = vendor.join("tree.sha256");
    let digest = fs::read_to_string(&digest_file).map_err(|error| format!("{}: {error}", digest_file.display()))?;
    Ok(Pin {
        dir: Path::new(package_manifest).with_file_name(FOLDER),
        label: format!("{PACKAGE} {version}"),
        version: String::new(),
        digest: Some(digest.trim().to_owned()),
    })
}

/// `MAJOR.MINOR.PATCH` from llama.cpp's top CMakeLists.txt.
fn version(cmake_lists: &str) -> Option<String> {
    let number = |part: &str| {
        let (_, rest) = cmake_lists.split_once(&format!("set(LLAMA_VERSION_{part} "))?;
        rest.split_once(')').map(|(number, _)| number.trim())
    };
    Some(format!("{}.{}.{}", number("MAJOR")?, number("MINOR")?, number("PATCH")?))
}

/// Writes the source to `OUT_DIR/llama.cpp` with the patches applied, and returns that folder.
///
/// Unchanged files keep their modification time, so that only what changed is rebuilt.
pub fn copy_patched(config: &Config, pin: &Pin, patches: &[Patch]) -> Result<PathBuf> {
    let files = list(&pin.dir)?;
    let mut tree = BTreeMap::new();
    for path in files {
        let file = pin.dir.join(&path);
        let bytes = fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        tree.insert(path, bytes);
    }
    if let Some(expected) = &pin.digest {
        let found = digest(&tree);
        if found != *expected {
            return Err(format!(
                "{}: this is not the pinned source (the SHA-256 of its files is {found}, not {expected}).\n\
                 If its files were edited, delete the folder: Cargo unpacks it again. If the pin was moved on purpose, write \
                 the new SHA-256 to vendor/llama.cpp/tree.sha256.",
                pin.dir.display()
            ));
        }
    }
    patch::apply_series(patches, &pin.label, &mut tree)?;
    watch_ggml_options(&tree);
    add_hooks(config, &mut tree)?;

    let copy = config.out_dir.join("llama.cpp");
    for (path, bytes) in &tree {
        write_if_changed(&copy.join(path), bytes)?;
    }
    // Removes what other pins or patches left: llama.cpp compiles every file that matches `src/models/*.cpp`.
    let keep: BTreeSet<&String> = tree.keys().collect();
    for path in list(&copy)?.iter().filter(|path| !keep.contains(path)) {
        let file = copy.join(path);
        fs::remove_file(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(copy)
}

/// Adds the declarations of the hooks to the copy ([`HOOKS`]). There, their relative path is the same in every clone,
/// so that ccache finds what it compiled.
fn add_hooks(config: &Config, tree: &mut BTreeMap<String, Vec<u8>>) -> Result<()> {
    let folder = config.manifest_dir.join("src/ffi/hooks");
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    for entry in fs::read_dir(&folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let bytes = fs::read(entry.path()).map_err(failed)?;
        tree.insert(format!("{HOOKS}/{}", entry.file_name().to_string_lossy()), bytes);
    }
    Ok(())
}

/// Makes Cargo rebuild when an environment variable with the name of a ggml option changes.
fn watch_ggml_options(tree: &BTreeMap<String, Vec<u8>>) {
    let Some(text) = tree.get("ggml/CMakeLists.txt").and_then(|bytes| std::str::from_utf8(bytes).ok()) else { return };
    let starts = ["option(GGML_", "set(GGML_"];
    for line in text.lines().filter(|line| starts.iter().any(|start| line.starts_with(start))) {
        let name = line.split(['(', ' ', ')']).nth(1).unwrap_or_default();
        if line.starts_with("option") || line.contains(" CACHE ") {
            println!("cargo::rerun-if-env-changed={name}");
        }
    }
}

/// Writes a file, unless it already has this content.
pub fn write_if_changed(file: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(file).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(file, bytes))
        .map_err(|error| format!("{}: cannot be written: {error}", file.display()))
}

/// One SHA-256 of all files, in the order of their paths: of each, the path, a zero byte, the length (u64, little
/// endian) and the content.
fn digest(tree: &BTreeMap<String, Vec<u8>>) -> String {
    let mut sha = Sha256::new();
    for (path, bytes) in tree {
        sha.update(path.as_bytes());
        sha.update([0]);
        sha.update((bytes.len() as u64).to_le_bytes());
        sha.update(bytes);
    }
    sha.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The files of [`PARTS`] under `root`, with `/` between folders. Excludes dot files, as `cargo vendor` does.
fn list(root: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    let mut todo: Vec<String> = PARTS.iter().map(|part| part.to_string()).collect();
    while let Some(path) = todo.pop() {
        let full = root.join(&path);
        if full.is_dir() {
            let entries = fs::read_dir(&full).map_err(|error| format!("{}: {error}", full.display()))?;
            for entry in entries {
                let name = entry.map_err(|error| format!("{}: {error}", full.display()))?.file_name();
                match name.to_str() {
                    Some(name) if name.starts_with('.') => {}
                    Some(name) => todo.push(format!("{path}/{name}")),
                    None => return Err(format!("{}: this file name is not UTF-8", full.join(name).display())),
                }
            }
        } else if full.is_file() {
            files.push(path);
        }
    }
    Ok(files)
}
