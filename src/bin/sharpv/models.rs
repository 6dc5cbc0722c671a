//! `sharpv models`: the models that go by a name.

use crate::args::ModelsArgs;
use crate::{options, output};
use indicatif::DecimalBytes;
use serde::Serialize;
use sharpv::models::{self, KnownModel, ModelFiles, Store};
use std::path::PathBuf;

/// A known model, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Listed {
    name: &'static str,
    description: &'static str,
    default: bool,
    /// Bytes of all its files.
    bytes: u64,
    /// Bytes to download.
    download_bytes: u64,
    installed: bool,
    /// The files, where it is installed.
    files: Vec<PathBuf>,
}

impl Listed {
    fn new(model: &KnownModel, files: Option<ModelFiles>) -> Self {
        let bundled = std::iter::once(&model.mmproj).chain(model.lora).map(|file| file.content.len() as u64);
        Self {
            name: model.name,
            description: model.description,
            default: model.name == options::default_model(),
            bytes: model.source.member_bytes + bundled.sum::<u64>(),
            download_bytes: model.source.wheel_bytes,
            installed: files.is_some(),
            files: files.into_iter().flat_map(|f| std::iter::once(f.model).chain(f.mmproj).chain(f.lora)).collect(),
        }
    }
}

pub fn run(args: &ModelsArgs, verbose: bool) -> anyhow::Result<()> {
    let store = Store::from_env()?;
    let listed: Vec<Listed> = models::known().iter().map(|model| Listed::new(model, store.files(model))).collect();
    if args.json {
        return output::print_json(&listed);
    }
    let width = listed.iter().map(|model| model.name.len()).max().unwrap_or_default().max("NAME".len());
    let mut text = format!("{:<width$}  {:>9}  {:<9}  DESCRIPTION\n", "NAME", "SIZE", "INSTALLED");
    for model in &listed {
        let (size, installed) = (DecimalBytes(model.bytes).to_string(), if model.installed { "yes" } else { "no" });
        let default = if model.default { " (default)" } else { "" };
        text += &format!("{:<width$}  {size:>9}  {installed:<9}  {}{default}\n", model.name, model.description);
        if verbose {
            text.extend(model.files.iter().map(|file| format!("{:<width$}  {}\n", "", file.display())));
        }
    }
    if let Some(missing) = listed.iter().find(|model| !model.installed) {
        text += &format!("\nFetch one with: sharpv pull {}\n", missing.name);
    }
    text += "\nAny other model that llama.cpp can see pictures with: -m MODEL.gguf --mmproj MMPROJ.gguf\n";
    Ok(output::print(&text)?)
}
