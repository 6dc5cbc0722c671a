//! The cache that tools of the hub share.
//!
//! ```text
//! <root>/models--ORG--REPO/blobs/<content id>                contents; `.part` during a download
//! <root>/models--ORG--REPO/snapshots/<commit>/<path>         links to them, by the files' names
//! <root>/models--ORG--REPO/refs/main                         the commit of the last download
//! <root>/.locks/models--ORG--REPO/sharpv.lock                held while files of the repository are downloaded
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hf_hub::{Cache, Repo, RepoType};

use super::files::{Files, RepoFile};
use crate::error::Result;
use crate::models::files::{Home, Lock, lock};
use crate::names::{InnerPath, ObjectId};
use crate::observer::Observer;

/// How deep a repository's folders are searched.
const MAX_DEPTH: usize = 4;

/// A repository in the cache.
#[derive(Debug)]
pub(super) struct LocalRepo {
    cache: Cache,
    repo: String,
}

impl LocalRepo {
    pub fn new(cache: &Cache, repo: &str) -> Self {
        Self { cache: cache.clone(), repo: repo.to_owned() }
    }

    /// All repositories of models in the cache.
    pub fn all(cache: &Cache) -> Vec<Self> {
        let mut names: Vec<String> = cache
            .path()
            .read_dir()
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("models--")?.split_once("--").map(join))
            .collect();
        names.sort();
        names.iter().map(|name| Self::new(cache, name)).collect()
    }

    pub fn name(&self) -> &str {
        &self.repo
    }

    /// The folder and the files of each commit with downloads: first the commit of the last download, then the others,
    /// the newest first. A file stays at its commit when another file is downloaded at a later commit.
    pub fn snapshots(&self) -> impl Iterator<Item = (PathBuf, Files)> {
        let main = fs::read_to_string(self.folder().join("refs").join("main")).ok();
        // Anything but a commit must not become part of a path.
        let main = main.and_then(|commit| ObjectId::parse(commit.trim()));
        let main = main.map(|commit| self.entry().pointer_path(commit.as_str()));
        let entries = self.folder().join("snapshots").read_dir().into_iter().flatten().flatten();
        let mut others: Vec<_> = entries
            .map(|entry| (entry.metadata().and_then(|meta| meta.modified()).ok(), entry.path()))
            .filter(|(_, folder)| Some(folder) != main.as_ref())
            .collect();
        others.sort();
        main.into_iter().chain(others.into_iter().rev().map(|(_, folder)| folder)).map(|folder| {
            let mut files = Vec::new();
            collect(&folder, "", MAX_DEPTH, &mut files);
            (folder, Files::new(files))
        })
    }

    pub fn pointer(&self, commit: &ObjectId, path: &InnerPath) -> PathBuf {
        path.below(&self.entry().pointer_path(commit.as_str()))
    }

    pub fn blob(&self, content: &ObjectId) -> PathBuf {
        self.entry().blob_path(content.as_str())
    }

    /// The path of an unfinished download.
    pub fn part(&self, content: &ObjectId) -> PathBuf {
        self.entry().blob_path(&format!("{}.part", content.as_str()))
    }

    /// Makes `commit` the first of [`snapshots`](Self::snapshots).
    pub fn set_main(&self, commit: &ObjectId) -> Result<()> {
        self.entry().create_ref(commit.as_str()).map_err(Home::Hub.error(&self.folder().join("refs")))
    }

    /// Creates the folders for files.
    pub fn prepare(&self) -> Result<()> {
        Home::Hub.create_dir(&self.folder().join("blobs"))
    }

    /// Keeps other processes from downloading files of this repository until the result is dropped.
    pub fn lock(&self, observer: &mut dyn Observer) -> Result<Lock> {
        let folder = self.cache.path().join(".locks").join(self.repo_type().folder_name());
        Home::Hub.create_dir(&folder)?;
        let path = folder.join("sharpv.lock");
        lock(&path, &self.repo, observer).map_err(Home::Hub.error(&path))
    }

    /// Links the file at `pointer` to the content at `blob`.
    pub fn link(&self, blob: &Path, pointer: &Path) -> Result<()> {
        let folder = pointer.parent().unwrap_or(pointer);
        Home::Hub.create_dir(folder)?;
        // An earlier link may be broken.
        Home::Hub.remove(pointer)?;
        let depth = folder.strip_prefix(self.folder()).map_or(0, |inside| inside.components().count());
        let mut target: PathBuf = std::iter::repeat_n("..", depth).collect();
        target.push("blobs");
        target.push(blob.file_name().unwrap_or_default());
        symlink(&target, blob, pointer).map_err(Home::Hub.error(pointer))
    }

    fn folder(&self) -> PathBuf {
        self.cache.path().join(self.repo_type().folder_name())
    }

    fn repo_type(&self) -> Repo {
        Repo::new(self.repo.clone(), RepoType::Model)
    }

    fn entry(&self) -> hf_hub::CacheRepo {
        self.cache.repo(self.repo_type())
    }
}

#[cfg(unix)]
fn symlink(target: &Path, _blob: &Path, pointer: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, pointer)
}

#[cfg(not(unix))]
fn symlink(_target: &Path, blob: &Path, pointer: &Path) -> io::Result<()> {
    // Symbolic links require privileges on Windows.
    fs::hard_link(blob, pointer)
}

fn join((org, name): (&str, &str)) -> String {
    format!("{org}/{name}")
}

/// Collects the files below `folder`, by their paths in the repository.
fn collect(folder: &Path, prefix: &str, depth: usize, files: &mut Vec<RepoFile>) {
    for entry in folder.read_dir().into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = format!("{prefix}{name}");
        // Follows links; a broken one is not a file.
        match fs::metadata(entry.path()) {
            Ok(meta) if meta.is_dir() && depth > 0 => collect(&entry.path(), &format!("{path}/"), depth - 1, files),
            Ok(meta) if meta.is_file() => {
                let Ok(path) = InnerPath::parse(&path) else { continue };
                files.push(RepoFile { path, size: meta.len(), content: None });
            }
            _ => (),
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
}
