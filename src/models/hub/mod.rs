//! Models from Hugging Face or a compatible hub.
//!
//! `ORG/REPO[:QUANT]` ([`HubSpec`]) names a language model in GGUF. [`Hub::pull`] finds it and its multimodal
//! projector, chooses a quantization that fits the memory, downloads what is missing and verifies it. Files are in the
//! cache that other tools of the hub share: `$HF_HOME/hub`.
//!
//! ```no_run
//! use sharpv::models::hub::{Hub, HubSpec, Wish};
//!
//! let hub = Hub::from_env()?;
//! let spec = HubSpec::parse("ggml-org/SmolVLM2-500M-Video-Instruct-GGUF").expect("a name");
//! let wish = Wish { memory: Some(4_000_000_000), ..Wish::default() };
//! let files = hub.resolve(&spec, wish, &mut ())?; // downloads what is missing
//! println!("{} {}", files.name, files.model.display());
//! # Ok::<(), sharpv::Error>(())
//! ```

mod cache;
mod choice;
mod client;
mod files;
mod spec;

use std::fs;
use std::path::{Path, PathBuf};

use hf_hub::Cache;

pub use choice::Wish;
pub use spec::HubSpec;

use super::ModelFiles;
use super::files::{Expected, Found, Home};
use crate::error::{Error, Result};
use crate::names::ObjectId;
use crate::observer::Observer;
use cache::LocalRepo;
use choice::Choice;
use client::Client;
use files::RepoFile;

/// A hub and its cache.
#[derive(Clone)]
pub struct Hub {
    cache: Cache,
    /// `None` is the default of hf-hub.
    endpoint: Option<String>,
    token: Option<String>,
    offline: bool,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the token, which is a secret.
        f.debug_struct("Hub")
            .field("cache", self.cache.path())
            .field("endpoint", &self.endpoint)
            .field("offline", &self.offline)
            .finish_non_exhaustive()
    }
}

impl Hub {
    /// The hub and the cache that the environment names, with the variables of the hub's own tools:
    ///
    /// - `HF_ENDPOINT`: the hub's address.
    /// - `HF_HOME`: the folder with the cache (`hub`) and the user's token (`token`), by default
    ///   `~/.cache/huggingface`. `HF_HUB_CACHE` and `HF_TOKEN_PATH` set them individually.
    /// - `HF_TOKEN`: the token.
    /// - `HF_HUB_OFFLINE`: 1 forbids the network.
    ///
    /// # Errors
    /// [`Error::NoCacheDir`] if no folder is set and the user has no home.
    pub fn from_env() -> Result<Self> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let folder = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = folder("HF_HOME")
            .or_else(|| folder("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
            .or_else(|| dirs::home_dir().map(|home| home.join(".cache").join("huggingface")));
        let below_home = |name: &str| home.as_ref().map(|home| home.join(name));
        let cache = folder("HF_HUB_CACHE").or_else(|| below_home("hub")).ok_or(Error::NoCacheDir)?;
        let token_file = folder("HF_TOKEN_PATH").or_else(|| below_home("token"));
        let is_on = |value: String| matches!(value.trim().to_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE");
        let token = variable("HF_TOKEN").or_else(|| fs::read_to_string(token_file?).ok());
        let hub =
            Self::at(cache).with_token(token.as_deref()).with_offline(variable("HF_HUB_OFFLINE").is_some_and(is_on));
        Ok(match variable("HF_ENDPOINT") {
            Some(endpoint) => hub.with_endpoint(&endpoint),
            None => hub,
        })
    }

    /// Hugging Face, with its cache at `cache`.
    pub fn at(cache: impl Into<PathBuf>) -> Self {
        Self { cache: Cache::new(cache.into()), endpoint: None, token: None, offline: false }
    }

    /// Uses the hub at `endpoint`, such as `https://hub.example`.
    #[must_use]
    pub fn with_endpoint(self, endpoint: &str) -> Self {
        Self { endpoint: Some(endpoint.trim().trim_end_matches('/').to_owned()), ..self }
    }

    /// Sends `token` to the hub, for repositories with restricted access.
    #[must_use]
    pub fn with_token(self, token: Option<&str>) -> Self {
        // A header cannot contain the line break at the end of a file.
        Self { token: token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()), ..self }
    }

    /// Never uses the network.
    #[must_use]
    pub fn with_offline(self, offline: bool) -> Self {
        Self { offline, ..self }
    }

    /// The cache folder.
    pub fn cache_dir(&self) -> &Path {
        self.cache.path()
    }

    /// The files of a model from the cache. Downloads them if they are missing.
    ///
    /// # Errors
    /// As [`pull`](Self::pull).
    pub fn resolve(&self, spec: &HubSpec, wish: Wish, observer: &mut dyn Observer) -> Result<ModelFiles> {
        if let Some(files) = self.find(spec, wish) {
            return Ok(files);
        }
        if !self.offline {
            observer.message(&format!("{spec} is not on this machine yet and will be downloaded"));
        }
        self.pull(spec, wish, observer)
    }

    /// The files of a model, if all of them are in the cache.
    pub fn find(&self, spec: &HubSpec, wish: Wish) -> Option<ModelFiles> {
        LocalRepo::new(&self.cache, &spec.repo).snapshots().find_map(|(folder, files)| {
            let choose = |wish| choice::choose(spec, &files, wish).ok();
            // The user chose what they downloaded, even if it is too large.
            let choice = choose(wish).or_else(|| choose(Wish { memory: None, ..wish }))?;
            Some(model_files(&spec.repo, &choice, |file| file.path.below(&folder)))
        })
    }

    /// Updates a model: asks the hub for the repository's files, chooses among them, verifies what is in the cache, and
    /// downloads what is missing. An interrupted download resumes; a second call for the same repository waits for the
    /// first.
    ///
    /// # Errors
    /// - [`Error::Remote`]: the hub cannot be reached or rejects the request, or the repository has no such model or
    ///   none that fits.
    /// - [`Error::HubOffline`]: the network is forbidden, and the model is not in the cache.
    /// - [`Error::Checksum`]: a file is not the expected one. It is deleted.
    /// - [`Error::CacheDir`]: the cache cannot be written, or the disk is full.
    pub fn pull(&self, spec: &HubSpec, wish: Wish, observer: &mut dyn Observer) -> Result<ModelFiles> {
        if self.offline {
            let files = self.find(spec, wish).ok_or_else(|| self.missing(spec, wish))?;
            observer.message(&format!(
                "{} is in the cache; HF_HUB_OFFLINE forbids checking for a newer version",
                files.name
            ));
            return Ok(files);
        }
        let client = Client::new(&self.cache, self.endpoint.as_deref(), self.token.as_deref())?;
        let listing = client.list(&spec.repo)?;
        let choice = choice::choose(spec, &files::Files::new(listing.files), wish)?;
        observer.message(&choice.because);

        let local = LocalRepo::new(&self.cache, &spec.repo);
        local.prepare()?;
        let _lock = local.lock(observer)?;
        let wanted = choice.weights.parts.iter().chain(choice.mmproj.as_ref().map(|mmproj| &mmproj.file));
        for file in wanted {
            bring(&client, &local, &listing.commit, file, observer)?;
        }
        local.set_main(&listing.commit)?;
        Ok(model_files(&spec.repo, &choice, |file| local.pointer(&listing.commit, &file.path)))
    }

    /// The models in the cache that are complete and have a projector, in all quantizations.
    pub fn cached(&self) -> Vec<ModelFiles> {
        let mut cached: Vec<ModelFiles> = Vec::new();
        for local in LocalRepo::all(&self.cache) {
            for (folder, files) in local.snapshots() {
                let choose = |weights: &files::Weights| {
                    let name = weights.parts.first()?.file_name().to_owned();
                    // Several files may have the same quantization, so choose by name.
                    let by_file = HubSpec { repo: local.name().to_owned(), file: Some(name) };
                    let choice = choice::choose(&by_file, &files, Wish::default()).ok()?;
                    Some(model_files(local.name(), &choice, |file| file.path.below(&folder)))
                };
                // If several commits have a model, `find` takes the first.
                let known = |files: &ModelFiles| cached.iter().any(|known| known.name == files.name);
                let new: Vec<_> = files.weights.iter().filter_map(choose).filter(|files| !known(files)).collect();
                cached.extend(new);
            }
        }
        cached
    }

    fn missing(&self, spec: &HubSpec, wish: Wish) -> Error {
        let what = match self.find(spec, Wish { mmproj: false, ..wish }) {
            Some(files) if wish.mmproj => format!("the multimodal projector of {}", files.name),
            _ => spec.to_string(),
        };
        Error::HubOffline { what, cache: self.cache.path().clone() }
    }
}

/// Puts a file of a repository into the cache, under its name at `commit`.
fn bring(
    client: &Client,
    local: &LocalRepo,
    commit: &ObjectId,
    file: &RepoFile,
    observer: &mut dyn Observer,
) -> Result<()> {
    let content = file.content.as_ref().ok_or_else(|| client.garbled(local.name(), "it names no content"))?;
    let expected = Expected { home: Home::Hub, bytes: file.size, sha256: content.sha256.as_deref() };
    let (pointer, blob, part) = (local.pointer(commit, &file.path), local.blob(&content.id), local.part(&content.id));
    for place in [&pointer, &blob] {
        match expected.find(place, observer)? {
            Found::Missing => {}
            Found::Intact if place == &blob => return local.link(&blob, &pointer),
            Found::Intact => return Ok(()),
            Found::Other => {
                Home::Hub.remove(place)?;
                Home::Hub.remove(&blob)?;
            }
        }
    }
    let begun = part.metadata().map_or(0, |meta| meta.len());
    let rest = if (1..file.size).contains(&begun) { format!(", {} already here", size(begun)) } else { String::new() };
    observer.message(&format!("downloading {} ({}{rest})", file.file_name(), size(file.size)));
    let what = format!("{} of {}", file.path, local.name());
    expected
        .bring(&what, &part, &blob, observer, |observer| client.fetch(local.name(), commit, file, &part, observer))?;
    local.link(&blob, &pointer)
}

fn model_files(repo: &str, choice: &Choice, path: impl Fn(&RepoFile) -> PathBuf) -> ModelFiles {
    ModelFiles {
        name: format!("{repo}:{}", choice.weights.label()),
        model: choice.weights.parts.first().map(&path).unwrap_or_default(),
        mmproj: choice.mmproj.as_ref().map(|mmproj| path(&mmproj.file)),
        lora: Vec::new(),
    }
}

/// A size in bytes, with a decimal unit.
fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{:.2} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} bytes"),
    }
}
