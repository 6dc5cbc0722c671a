//! Paths that cannot leave their folder.

use std::fmt;
use std::ops::Deref;
#[cfg(feature = "lab")]
use std::path::Component;
use std::path::{Path, PathBuf};

/// A path relative to a folder that cannot lead out of it.
///
/// Only the names are checked. Links in the folder are followed: whoever can create a link there can create any file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct InnerPath(String);

impl InnerPath {
    /// Parses names separated by `/`. Each must be the same name on every system, because several systems may share a
    /// cache.
    ///
    /// # Errors
    /// What is wrong with `text`, as the rest of a sentence that begins with it.
    #[cfg(feature = "hub")]
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        text.split('/').try_for_each(plain_name)?;
        Ok(Self(text.to_owned()))
    }

    /// Parses a path as this system does: on Linux, `a:b` is a valid name.
    ///
    /// # Errors
    /// Those of [`parse`](Self::parse).
    #[cfg(feature = "lab")]
    pub fn of_this_system(text: &str) -> Result<Self, &'static str> {
        if text.contains('\0') {
            return Err("contains NUL");
        }
        let mut has_name = false;
        for part in Path::new(text).components() {
            match part {
                Component::Normal(name) => {
                    has_name = true;
                    if cfg!(windows) {
                        plain_name(&name.to_string_lossy())?;
                    }
                }
                Component::CurDir => (),
                Component::ParentDir => return Err(LEAVES),
                Component::Prefix(_) | Component::RootDir => return Err("is an absolute path"),
            }
        }
        if has_name { Ok(Self(text.to_owned())) } else { Err("names no file") }
    }

    /// The path in `folder`.
    pub fn below(&self, folder: &Path) -> PathBuf {
        folder.join(&self.0)
    }
}

impl Deref for InnerPath {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InnerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const LEAVES: &str = "leads out of its folder";

/// Fails unless `name` is a file name that is the same on Linux, macOS and Windows.
fn plain_name(name: &str) -> Result<(), &'static str> {
    // Windows removes these from the end of a name, so `.. ` is `..`.
    let stripped = name.trim_end_matches(['.', ' ']);
    match name {
        "" => Err("has an empty part, or begins or ends with a separator"),
        "." | ".." => Err(LEAVES),
        _ if name.chars().any(char::is_control) => Err("contains a control character"),
        _ if name.contains(['\\', ':', '/']) => Err("contains a separator of another system"),
        _ if stripped.len() < name.len() => Err("has a part that ends with a dot or a space"),
        _ if is_device(name) => Err("names a device of Windows"),
        _ => Ok(()),
    }
}

/// Whether `name` is a device on Windows, in any folder and with any extension.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_uppercase();
    let numbered = |prefix: &str| {
        let number = stem.strip_prefix(prefix)?;
        Some(matches!(number, "0" | "1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9" | "¹" | "²" | "³"))
    };
    matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$")
        || numbered("COM").or_else(|| numbered("LPT")).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paths that leave their folder on at least one system.
    const OUTSIDE: [&str; 7] = ["../a", "a/../b", "a/..", "..", "/a", "//server/share/a", ""];

    #[cfg(feature = "hub")]
    #[test]
    fn a_path_of_a_hub_is_plain_on_every_system() {
        for good in ["a.gguf", "a/b c.gguf", "..a/b..gguf", ".hidden", "Grüße/模型.gguf", "console.gguf", "com10.gguf"]
        {
            assert_eq!(InnerPath::parse(good).as_deref(), Ok(good));
            assert_eq!(InnerPath::parse(good).unwrap().below(Path::new("/cache")), Path::new("/cache").join(good));
        }
        let elsewhere = [
            "a/",
            "a//b",
            "./a",
            "a/.",
            "a\\b",
            "..\\a",
            "C:a",
            "C:\\a",
            "C:/a",
            "a:stream",
            "a\0b",
            "a\nb",
            "a\u{7f}",
            ".. /a",
            "... /a",
            "a./b",
            "a ",
            "nul",
            "NUL.gguf",
            "a/con.txt",
            "Com1.gguf",
            "lpt¹",
            "aux .gguf",
        ];
        for bad in OUTSIDE.into_iter().chain(elsewhere) {
            assert!(InnerPath::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[cfg(all(feature = "lab", unix))]
    #[test]
    fn a_path_of_this_system_stays_in_its_folder() {
        for good in ["./video/x.mp4", "a//b/", "12:30.mp4", "a\\b", "nul"] {
            assert_eq!(InnerPath::of_this_system(good).as_deref(), Ok(good));
        }
        for bad in OUTSIDE.into_iter().chain([".", "./", "a\0b"]) {
            assert!(InnerPath::of_this_system(bad).is_err(), "{bad:?}");
        }
    }
}
