//! Checks for the tools that the build needs, and names all missing ones at once, with the command that installs each.

use std::ffi::OsStr;
use std::panic::{catch_unwind, set_hook, take_hook};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Result;
use crate::config::Config;
use crate::vulkan;

/// Something to install: what it is, and its packages for Debian and Ubuntu (apt) and for macOS (brew).
struct Tool {
    what: &'static str,
    apt: &'static str,
    brew: &'static str,
}

const CMAKE: Tool = Tool { what: "cmake", apt: "cmake", brew: "cmake" };
const NINJA: Tool = Tool { what: "ninja (or make)", apt: "ninja-build", brew: "ninja" };
const COMPILER: Tool = Tool { what: "a C++ compiler", apt: "g++", brew: "llvm" };
const LIBCLANG: Tool = Tool { what: "libclang (reads the C headers)", apt: "libclang-dev", brew: "llvm" };
const PKG_CONFIG: Tool = Tool { what: "pkg-config", apt: "pkg-config", brew: "pkgconf" };
const FFMPEG: Tool = Tool {
    what: "FFmpeg's headers and libraries",
    apt: "libavcodec-dev libavformat-dev libavutil-dev libavfilter-dev libswscale-dev",
    brew: "ffmpeg",
};
const NVCC: Tool = Tool { what: "nvcc, CUDA's compiler (feature `cuda`)", apt: "nvidia-cuda-toolkit", brew: "" };
const GLSLC: Tool = Tool { what: "glslc, a shader compiler (feature `vulkan`)", apt: "glslc", brew: "shaderc" };
const VULKAN: Tool =
    Tool { what: "Vulkan's headers and loader (feature `vulkan`)", apt: "libvulkan-dev", brew: "vulkan-loader" };
const SPIRV: Tool = Tool { what: "SPIR-V's headers (feature `vulkan`)", apt: "spirv-headers", brew: "spirv-headers" };

/// Fails with a list of the tools that this build needs and that are missing.
pub fn check(config: &Config) -> Result<()> {
    if config.metal && config.target_os != "macos" {
        return Err(format!("the feature `metal` is for macOS; on {} there are `cuda` and `vulkan`", config.target_os));
    }
    let mut missing = Vec::new();
    let mut need = |found: bool, tool: Tool| {
        if !found {
            missing.push(tool);
        }
    };
    if config.links {
        need(works(&config.cmake), CMAKE);
        need(config.cmake_var("CMAKE_GENERATOR").is_some() || works("ninja") || works("make"), NINJA);
        need(cpp_compiler_works(), COMPILER);
    }
    need(libclang_loads(), LIBCLANG);
    if config.ffmpeg_dir.is_none() {
        let pkg_config = works("pkg-config");
        need(pkg_config, PKG_CONFIG);
        let libraries = ["libavcodec", "libavformat", "libavutil", "libavfilter", "libswscale"];
        need(!pkg_config || libraries.iter().all(|library| in_pkg_config(library)), FFMPEG);
    }
    if config.cuda && config.links {
        need(nvcc(config).is_some(), NVCC);
    }
    if config.vulkan && config.links && config.vulkan_sdk.is_none() {
        need(works("glslc"), GLSLC);
        need(in_pkg_config("vulkan"), VULKAN);
        need(in_pkg_config("SPIRV-Headers"), SPIRV);
    }
    if !missing.is_empty() {
        return Err(message(&missing, cfg!(target_os = "macos"), is_debian()));
    }
    if config.vulkan && config.links { vulkan::check(&vulkan_headers(config)) } else { Ok(()) }
}

/// Lists the missing tools, each with the command that installs it.
fn message(missing: &[Tool], macos: bool, debian: bool) -> String {
    let packages = |tool: &Tool| if macos { tool.brew } else { tool.apt };
    let mut text = "the build needs tools that are not installed:\n".to_owned();
    for tool in missing {
        text.push_str(&format!("  {}: ", tool.what));
        text.push_str(&match packages(tool) {
            "" => "see the vendor's website\n".to_owned(),
            names if macos => format!("brew install {names}\n"),
            names if debian => format!("sudo apt-get install {names}\n"),
            names => format!("your system's package for Debian's {names}\n"),
        });
    }
    text + "`./x setup` installs what a build for the CPU needs."
}

/// CUDA's compiler: the one in the settings, or the toolkit's, or the one in `PATH`.
pub fn nvcc(config: &Config) -> Option<PathBuf> {
    let toolkit = |folder: &Path| folder.join("bin/nvcc");
    let named = config.cmake_var("CMAKE_CUDA_COMPILER").map(PathBuf::from);
    let candidates = [
        named.or_else(|| config.cudacxx.clone()).or_else(|| config.cuda_dir.as_deref().map(toolkit)),
        Some("nvcc".into()),
        Some(toolkit(Path::new("/usr/local/cuda"))),
    ];
    candidates.into_iter().flatten().find(|nvcc| works(nvcc))
}

/// The folder of Vulkan's headers: the SDK's if the settings name one, or the system's.
pub fn vulkan_headers(config: &Config) -> PathBuf {
    if let Some(sdk) = &config.vulkan_sdk {
        return vulkan::of_sdk(sdk);
    }
    let output = Command::new("pkg-config").args(["--variable=includedir", "vulkan"]).output();
    let folder = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    if folder.is_empty() { "/usr/include".into() } else { folder.into() }
}

/// Whether the program can be started.
pub fn works(program: impl AsRef<OsStr>) -> bool {
    let mut command = Command::new(program);
    let status = command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    status.status().is_ok_and(|status| status.success())
}

fn in_pkg_config(library: &str) -> bool {
    Command::new("pkg-config").args(["--exists", library]).status().is_ok_and(|status| status.success())
}

fn cpp_compiler_works() -> bool {
    let mut build = cc::Build::new();
    let compiler = build.cpp(true).cargo_metadata(false).cargo_warnings(false).opt_level(0).try_get_compiler();
    compiler.is_ok_and(|compiler| works(compiler.path()))
}

/// Whether bindgen finds libclang. It panics if not.
fn libclang_loads() -> bool {
    let hook = take_hook();
    set_hook(Box::new(|_| {}));
    let loaded = catch_unwind(bindgen::clang_version).is_ok();
    set_hook(hook);
    loaded
}

fn is_debian() -> bool {
    Path::new("/etc/debian_version").exists()
}
