//! `sharpv models`: named models, models in the hub's cache, and known models of the hub.

use crate::args::ModelsArgs;
use crate::{options, output};
use indicatif::DecimalBytes;
use serde::Serialize;
use sharpv::models::hub::Hub;
use sharpv::models::{self, KnownModel, ModelFiles, Store, VideoLlm};
use sharpv::runtime::{FreeMemory, ModelParams, VisionParams};
use sharpv::weights::{Copies, Copy};
use std::path::{Path, PathBuf};

/// The number of frames for which the memory of a VideoLLM is computed.
const FRAMES: u32 = 32;

/// The share of visual tokens kept in the column of pruned prompts.
const KEEP: f64 = 0.25;

/// A model that is installed or can be pulled by name, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Listed {
    name: String,
    description: &'static str,
    default: bool,
    /// Bytes of all its files.
    bytes: u64,
    /// Bytes to download.
    download_bytes: u64,
    installed: bool,
    /// The files, if it is installed.
    files: Vec<PathBuf>,
    /// Copies of the files that this processor computes faster.
    copies: Vec<PathBuf>,
    /// How many layers can do without visual tokens, and how many there are, if that is known.
    layers_free: Option<[usize; 2]>,
}

impl Listed {
    fn known(model: &KnownModel, files: Option<ModelFiles>, known: &Copies<'_>) -> Self {
        let copies = files.iter().flat_map(|files| copies(files, known)).collect();
        Self {
            layers_free: files.as_ref().and_then(layers_free),
            copies,
            name: model.name.to_owned(),
            description: model.description,
            default: model.name == options::default_model(),
            bytes: model.bytes(),
            download_bytes: model.download_bytes(),
            installed: files.is_some(),
            files: files.into_iter().flat_map(paths).collect(),
        }
    }

    fn cached(files: ModelFiles, known: &Copies<'_>) -> Self {
        let copies = copies(&files, known);
        let layers_free = layers_free(&files);
        let name = files.name.clone();
        let files: Vec<PathBuf> = paths(files).collect();
        Self {
            name,
            description: "from Hugging Face",
            default: false,
            bytes: files.iter().map(|file| all_parts(file)).sum(),
            download_bytes: 0,
            installed: true,
            files,
            copies,
            layers_free,
        }
    }
}

fn paths(files: ModelFiles) -> impl Iterator<Item = PathBuf> {
    std::iter::once(files.model).chain(files.mmproj).chain(files.lora)
}

/// The faster copies of a model's files that exist. A file that cannot be read has none.
fn copies(files: &ModelFiles, known: &Copies<'_>) -> Vec<PathBuf> {
    let copies = known.of(files, &ModelParams::default(), &VisionParams::default()).unwrap_or_default();
    copies.into_iter().filter(Copy::exists).map(|copy| copy.path).collect()
}

/// How many layers of a model can do without visual tokens, and how many there are, according to its layer profile.
pub fn layers_free(files: &ModelFiles) -> Option<[usize; 2]> {
    let profile = options::known_profile(files, &mut ())?;
    Some([profile.free_layers().len(), profile.single.len()])
}

/// The size of a file in bytes, with all other parts if it is the first part of a split model.
fn all_parts(file: &Path) -> u64 {
    let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |meta| meta.len());
    let count = || {
        let stem = file.file_stem()?.to_str()?;
        let (base, count) = stem.rsplit_once("-00001-of-")?;
        // Limits how many parts a file name can claim.
        let number = count.parse::<u32>().ok().filter(|_| count.len() == 5)?;
        Some((base.to_owned(), count.to_owned(), number))
    };
    match count() {
        Some((base, digits, count)) => {
            (1..=count).map(|number| bytes(&file.with_file_name(format!("{base}-{number:05}-of-{digits}.gguf")))).sum()
        }
        None => bytes(file),
    }
}

/// A VideoLLM on the hub, as `--known --json` prints it. All numbers are computed, not measured.
#[derive(Debug, Serialize)]
struct Known {
    repo: &'static str,
    quant: &'static str,
    /// Approximate size of the language model and the projector, in bytes.
    bytes: u64,
    frames: u32,
    /// Visual tokens of the frames. A pruned prompt keeps the share `keep` of them.
    visual_tokens: u64,
    keep: f64,
    /// Approximate size of weights and KV cache, in bytes.
    memory_bytes_dense: u64,
    memory_bytes_pruned: u64,
    /// With how many visual tokens it fits this machine; `None` if the memory of the machine is unknown.
    fits: Option<Fits>,
    cached: bool,
}

/// Whether a VideoLLM fits this machine.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
enum Fits {
    /// With all visual tokens.
    Yes,
    /// With the visual tokens of a pruned prompt.
    Pruned,
    No,
}

impl Known {
    fn new(model: &VideoLlm, cached: &[ModelFiles], memory: Option<&FreeMemory>) -> Self {
        let is_of_repo = |files: &ModelFiles| files.name.split(':').next() == Some(model.repo);
        let fits = |memory: &FreeMemory| match memory.bytes {
            bytes if model.memory_bytes(FRAMES, 1.0) <= bytes => Fits::Yes,
            bytes if model.memory_bytes(FRAMES, KEEP) <= bytes => Fits::Pruned,
            _ => Fits::No,
        };
        Self {
            repo: model.repo,
            quant: model.quant,
            bytes: model.file_bytes(),
            frames: FRAMES,
            visual_tokens: model.visual_tokens(FRAMES),
            keep: KEEP,
            memory_bytes_dense: model.memory_bytes(FRAMES, 1.0),
            memory_bytes_pruned: model.memory_bytes(FRAMES, KEEP),
            fits: memory.map(fits),
            cached: cached.iter().any(is_of_repo),
        }
    }
}

pub fn run(args: &ModelsArgs, verbose: bool) -> anyhow::Result<()> {
    // Without a home there is no cache.
    let cached = Hub::from_env().map(|hub| hub.cached()).unwrap_or_default();
    if args.known {
        let memory = FreeMemory::for_weights(&ModelParams::default());
        let known = |model: &VideoLlm| Known::new(model, &cached, memory.as_ref());
        let known: Vec<Known> = models::video_llms().iter().map(known).collect();
        let table = known_table(&known, memory.as_ref());
        return if args.json { output::print_json(&known) } else { Ok(output::print(&table)?) };
    }
    let store = Store::from_env()?;
    let copies = Copies::new(&store);
    let mut listed: Vec<Listed> =
        models::known().iter().map(|model| Listed::known(model, store.files(model), &copies)).collect();
    listed.extend(cached.into_iter().map(|files| Listed::cached(files, &copies)));
    if args.json { output::print_json(&listed) } else { Ok(output::print(&table(&listed, verbose))?) }
}

fn table(listed: &[Listed], verbose: bool) -> String {
    let width = listed.iter().map(|model| model.name.len()).max().unwrap_or_default().max("NAME".len());
    let mut text = format!("{:<width$}  {:>9}  {:<9}  DESCRIPTION\n", "NAME", "SIZE", "INSTALLED");
    for model in listed {
        let (size, installed) = (DecimalBytes(model.bytes).to_string(), if model.installed { "yes" } else { "no" });
        let default = if model.default { " (default)" } else { "" };
        text += &format!("{:<width$}  {size:>9}  {installed:<9}  {}{default}\n", model.name, model.description);
        if verbose {
            text.extend(model.files.iter().map(|file| format!("{:<width$}  {}\n", "", file.display())));
            if let Some([free, all]) = model.layers_free {
                text += &format!("{:<width$}  {free} of {all} layers can do without visual tokens\n", "");
            }
            text.extend(model.copies.iter().map(|copy| format!("{:<width$}  faster: {}\n", "", copy.display())));
        }
    }
    if let Some(missing) = listed.iter().find(|model| !model.installed) {
        let download = DecimalBytes(missing.download_bytes);
        text += &format!("\nDownload it with: sharpv pull {} ({download})\n", missing.name);
    }
    text + "\nAny other vision model that llama.cpp supports: -m MODEL.gguf --mmproj MMPROJ.gguf, or -m ORG/REPO from Hugging Face\n\
            (`sharpv models --known` lists some)\n"
}

fn known_table(known: &[Known], memory: Option<&FreeMemory>) -> String {
    let width = known.iter().map(|model| model.repo.len()).max().unwrap_or_default();
    let pruned = format!("{} % KEPT", KEEP * 100.0);
    let mut text = format!(
        "{:<width$}  {:<6}  {:>8}  {:>6}  {:>8}  {pruned:>9}  {:<6}  IN CACHE\n",
        "REPOSITORY", "QUANT", "SIZE", "TOKENS", "DENSE", "FITS"
    );
    let gb = |bytes: u64| format!("{:.2} GB", bytes as f64 / 1e9);
    for model in known {
        text += &format!(
            "{:<width$}  {:<6}  {:>8}  {:>6}  {:>8}  {:>9}  {:<6}  {}\n",
            model.repo,
            model.quant,
            gb(model.bytes),
            model.visual_tokens,
            gb(model.memory_bytes_dense),
            gb(model.memory_bytes_pruned),
            match model.fits {
                Some(Fits::Yes) => "yes",
                Some(Fits::Pruned) => "pruned",
                Some(Fits::No) => "no",
                None => "?",
            },
            if model.cached { "yes" } else { "no" }
        );
    }
    text + "\n" + &known_legend(&pruned, memory)
}

/// Explains the columns.
fn known_legend(pruned: &str, memory: Option<&FreeMemory>) -> String {
    let (width, height) = VideoLlm::FRAME;
    let fits = match memory {
        Some(memory) => format!(
            "in the {} that this machine has for a model ({}): yes, only if pruned ({pruned}), or no",
            DecimalBytes(memory.bytes),
            memory.place
        ),
        None => "unknown, because the memory of this machine is unknown".to_owned(),
    };
    let rows = [
        ("QUANT", "the quantization that is downloaded by default, unless memory is too small for it".to_owned()),
        ("SIZE", "size of the language model and its projector".to_owned()),
        ("TOKENS", format!("visual tokens of {FRAMES} frames (of {width}x{height} if that matters)")),
        (
            "DENSE",
            "memory of the weights and an f16 KV cache with all of these tokens, without compute buffers".to_owned(),
        ),
        (pruned, "the same if only this share of the visual tokens is kept (--keep)".to_owned()),
        ("FITS", fits),
        ("IN CACHE", "whether it has been downloaded".to_owned()),
    ];
    let rows: String = rows.iter().map(|(name, meaning)| format!("{name:<9}  {meaning}\n")).collect();
    rows + "\nThese numbers are computed from the numbers of parameters and layers, not measured. llama.cpp supports these models.\n\
            `sharpv pull REPOSITORY` downloads one, `-m REPOSITORY` uses it.\n"
}
