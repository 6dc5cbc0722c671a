//! Applies the patch series to the source in memory.
//!
//! This is stricter than `patch`: the lines that a hunk replaces, and its context, must occur exactly once in the file.
//! Line numbers then do not matter, and a hunk cannot be applied in the wrong place.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path};

use diffy::patch_set::{FileOperation, ParseOptions, PatchSet};
use diffy::{Line, apply};

/// One patch of the series.
pub struct Patch {
    /// The file name, for example `amx-tile-config.patch`.
    pub name: String,
    /// The whole file, as `git format-patch` wrote it.
    pub text: String,
}

/// The names in a `series` file, in order, without empty lines and comments (`#`).
pub fn series_names(series: &str) -> impl Iterator<Item = &str> {
    series.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Reads `folder/series` and the patches that it names.
pub fn read_series(folder: &Path) -> Result<Vec<Patch>, String> {
    let read = |file: &Path| fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()));
    let series_file = folder.join("series");
    let series = read(&series_file)?;
    series_names(&series)
        .map(|name| {
            let named_in = series_file.display();
            let text = read(&folder.join(name)).map_err(|error| format!("{error} (named in {named_in})"))?;
            Ok(Patch { name: name.to_owned(), text })
        })
        .collect()
}

/// Applies `patches` in order to `tree` (path with `/` → bytes). Messages call the tree `pin`.
///
/// After an error, the tree is partly patched and unusable.
pub fn apply_series(patches: &[Patch], pin: &str, tree: &mut BTreeMap<String, Vec<u8>>) -> Result<(), String> {
    for patch in patches {
        apply_one(patch, tree).map_err(|reason| {
            format!(
                "patches/{} does not apply to {pin}: {reason}.\n\
                 If the pin was moved, update the patch (patches/README.md says how), or remove it from patches/series \
                 if the new source no longer needs it.",
                patch.name
            )
        })?;
    }
    Ok(())
}

fn apply_one(patch: &Patch, tree: &mut BTreeMap<String, Vec<u8>>) -> Result<(), String> {
    let mut changed_files = 0;
    for file_patch in PatchSet::parse(&patch.text, ParseOptions::gitdiff()) {
        let file_patch = file_patch.map_err(|error| format!("it is not a patch made by git: {error}"))?;
        let operation = file_patch.operation().strip_prefix(1);
        let text = file_patch.patch().as_text().ok_or("it changes a binary file")?;
        match operation {
            FileOperation::Modify { original, modified } if original == modified => {
                let path = checked(&original)?;
                let old = tree.get(path).ok_or_else(|| format!("{path} is not in the source"))?;
                let old = std::str::from_utf8(old).map_err(|_| format!("{path} is not UTF-8"))?;
                let new = apply_text(old, text).map_err(|reason| format!("{path}: {reason}"))?;
                tree.insert(path.to_owned(), new.into_bytes());
            }
            FileOperation::Create(path) => {
                let path = checked(&path)?;
                if tree.contains_key(path) {
                    return Err(format!("it creates {path}, which is already in the source"));
                }
                let new = apply("", text).map_err(|error| format!("{path}: {error}"))?;
                tree.insert(path.to_owned(), new.into_bytes());
            }
            _ => return Err("it removes, renames or copies a file; it may only change and add files".to_owned()),
        }
        changed_files += 1;
    }
    match changed_files {
        0 => Err("it changes no file".to_owned()),
        _ => Ok(()),
    }
}

/// Applies all hunks of one file.
fn apply_text(old: &str, patch: &diffy::Patch<'_, str>) -> Result<String, String> {
    check_hunks(old, patch).and_then(|()| apply(old, patch).map_err(|error| error.to_string())).map_err(|reason| {
        match apply(old, &patch.reverse()) {
            Ok(_) => format!("{reason}; the source already has the change"),
            Err(_) => reason,
        }
    })
}

/// Checks that each hunk matches exactly one place.
fn check_hunks(old: &str, patch: &diffy::Patch<'_, str>) -> Result<(), String> {
    for (number, hunk) in patch.hunks().iter().enumerate() {
        let context = hunk.lines().iter().filter_map(|line| match line {
            Line::Context(text) | Line::Delete(text) => Some(*text),
            Line::Insert(_) => None,
        });
        let name = format!("hunk {} (line {} of the source)", number + 1, hunk.old_range().start());
        match count_runs(old, &context.collect::<Vec<_>>()) {
            1 => {}
            0 => return Err(format!("{name} does not match: its context is not in the file")),
            n => return Err(format!("{name} matches {n} places: give it more lines of context")),
        }
    }
    Ok(())
}

/// How often `needle` occurs in the lines of `text` as consecutive whole lines.
fn count_runs(text: &str, needle: &[&str]) -> usize {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    if needle.is_empty() {
        return usize::from(lines.is_empty());
    }
    lines.windows(needle.len()).filter(|window| *window == needle).count()
}

/// Rejects a path that is absolute or leaves the tree.
fn checked(path: &str) -> Result<&str, String> {
    let inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if inside && !path.is_empty() && !path.contains('\\') {
        Ok(path)
    } else {
        Err(format!("it touches `{path}`, which is outside of the source"))
    }
}
