//! The settings of the build: Cargo's features and target, and environment variables.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::Result;

/// Everything besides files that the build depends on. Nothing else reads the environment.
pub struct Config {
    /// The folder of this package's `Cargo.toml`.
    pub manifest_dir: PathBuf,
    /// The folder for all output.
    pub out_dir: PathBuf,
    /// The `cargo` that runs this build. It finds the pinned source.
    pub cargo: PathBuf,
    /// `linux`, `macos`, …
    pub target_os: String,
    pub cuda: bool,
    pub metal: bool,
    pub vulkan: bool,
    pub rpc: bool,
    /// Compile for this machine's processor. Otherwise, for any with AVX2, FMA, F16C and BMI2, or with ARMv8.
    pub native: bool,
    /// The user's own tree of llama.cpp, instead of the pinned one.
    pub source_dir: Option<PathBuf>,
    /// The folder of FFmpeg, from `FFMPEG_DIR`. ffmpeg-sys-next reads it, too, and does not run pkg-config then.
    pub ffmpeg_dir: Option<PathBuf>,
    /// The CUDA toolkit, from `CUDA_PATH` or `CUDA_HOME`.
    pub cuda_dir: Option<PathBuf>,
    /// CUDA's compiler, from `CUDACXX`.
    pub cudacxx: Option<PathBuf>,
    /// The folder of the Vulkan SDK, from `VULKAN_SDK`, if it replaces the system's packages.
    pub vulkan_sdk: Option<PathBuf>,
    /// The cmake to run, from `CMAKE`, or the one in `PATH`.
    pub cmake: PathBuf,
    /// `CMAKE_*` and `GGML_*`, which are passed on to cmake.
    pub cmake_vars: Vec<(String, String)>,
    /// False if nothing will be linked (documentation on docs.rs, clippy). Then the bindings suffice.
    pub links: bool,
    /// Whether docs.rs builds the documentation, without a network to fetch the source.
    pub documents: bool,
}

impl Config {
    pub fn from_env() -> Result<Self> {
        let feature = |name: &str| std::env::var_os(format!("CARGO_FEATURE_{name}")).is_some();
        // Clippy has its own output folder, and would build llama.cpp a second time.
        let clippy = std::env::var("RUSTC_WORKSPACE_WRAPPER").is_ok_and(|wrapper| wrapper.contains("clippy"));
        let documents = user_var("DOCS_RS").is_some();
        Ok(Self {
            manifest_dir: cargo_var("CARGO_MANIFEST_DIR")?.into(),
            out_dir: cargo_var("OUT_DIR")?.into(),
            cargo: cargo_var("CARGO")?.into(),
            target_os: cargo_var("CARGO_CFG_TARGET_OS")?.to_string_lossy().into_owned(),
            cuda: feature("CUDA"),
            metal: feature("METAL"),
            vulkan: feature("VULKAN"),
            rpc: feature("RPC"),
            native: feature("NATIVE"),
            source_dir: user_var("SHARPV_LLAMA_SOURCE_DIR").map(PathBuf::from),
            ffmpeg_dir: user_var("FFMPEG_DIR").map(PathBuf::from),
            cuda_dir: user_var("CUDA_PATH").or_else(|| user_var("CUDA_HOME")).map(PathBuf::from),
            cudacxx: user_var("CUDACXX").map(PathBuf::from),
            vulkan_sdk: user_var("VULKAN_SDK").map(PathBuf::from),
            cmake: user_var("CMAKE").unwrap_or_else(|| "cmake".into()).into(),
            cmake_vars: cmake_vars()?,
            links: !documents && !clippy,
            documents,
        })
    }

    /// The enabled backends besides the CPU's.
    pub fn backends(&self) -> impl Iterator<Item = &'static str> {
        let all = [(self.cuda, "cuda"), (self.metal, "metal"), (self.vulkan, "vulkan"), (self.rpc, "rpc")];
        all.into_iter().filter_map(|(on, name)| on.then_some(name))
    }

    /// The value of a `CMAKE_*` or `GGML_*` variable that the user set.
    pub fn cmake_var(&self, name: &str) -> Option<&str> {
        self.cmake_vars.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// A variable that Cargo sets for every build script.
fn cargo_var(name: &str) -> Result<OsString> {
    std::env::var_os(name).ok_or_else(|| format!("{name} is not set; this build script must be run by Cargo"))
}

/// A variable that a user may set. Cargo rebuilds when it changes. Empty counts as not set.
fn user_var(name: &str) -> Option<OsString> {
    println!("cargo::rerun-if-env-changed={name}");
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Every `CMAKE_*` and `GGML_*` variable that is set.
fn cmake_vars() -> Result<Vec<(String, String)>> {
    // Cargo watches variables by name, also those that are not set yet. `source` adds ggml's options.
    for name in ["CMAKE_C_FLAGS", "CMAKE_CXX_FLAGS", "CMAKE_C_COMPILER", "CMAKE_CXX_COMPILER", "CMAKE_TOOLCHAIN_FILE"] {
        user_var(name);
    }
    for name in ["CMAKE_GENERATOR", "CMAKE_CUDA_ARCHITECTURES", "CMAKE_CUDA_COMPILER", "CMAKE_OSX_DEPLOYMENT_TARGET"] {
        user_var(name);
    }
    let mut vars = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with("CMAKE_") || name.starts_with("GGML_")) else {
            continue;
        };
        let value = value.into_string().map_err(|value| format!("{name} is not UTF-8: {}", value.display()))?;
        user_var(name);
        vars.push((name.to_owned(), value));
    }
    vars.sort();
    Ok(vars)
}
