//! Compiles the patched llama.cpp and our C++, and prints what Cargo links.

use std::collections::BTreeMap;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use crate::Result;
use crate::bindings::PUBLIC_HEADERS;
use crate::config::Config;
use crate::source::{HOOKS, write_if_changed};
use crate::tools;

/// Builds everything and prints the lines for the linker.
pub fn build(config: &Config, tree: &Path) -> Result<()> {
    build_shim(config, tree)?;
    let build_dir = run_cmake(config, tree)?;
    link(config, &build_dir)
}

/// Compiles our own C++, `src/ffi/*.cpp`. It includes private headers of llama.cpp, from the patched copy.
fn build_shim(config: &Config, tree: &Path) -> Result<()> {
    let folder = config.manifest_dir.join("src/ffi");
    let entries = fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut sources: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    sources.retain(|path| path.extension().is_some_and(|extension| extension == "cpp"));
    sources.sort();
    let mut shim = cc::Build::new();
    if config.rpc {
        shim.define("SHARPV_RPC", None);
    }
    if config.vulkan {
        shim.define("SHARPV_VULKAN", None).include(tools::vulkan_headers(config));
    }
    shim.cpp(true)
        .std("c++17")
        .opt_level(3)
        // As in llama.cpp's own build: its headers contain inline functions with assertions.
        .define("NDEBUG", None)
        .files(sources)
        .includes(PUBLIC_HEADERS.iter().map(|folder| tree.join(folder)))
        .includes(["src", "ggml/src", "vendor"].map(|folder| tree.join(folder)))
        .flag_if_supported("-Wno-unused-parameter")
        .try_compile("sharpv_shim")
        .map_err(|error| format!("src/ffi: our C++ does not compile: {error}"))
}

/// Runs cmake and returns its build folder.
fn run_cmake(config: &Config, tree: &Path) -> Result<PathBuf> {
    let mut vars = BTreeMap::from([
        ("LLAMA_BUILD_MTMD", true),
        ("LLAMA_BUILD_COMMON", false),
        ("LLAMA_BUILD_TESTS", false),
        ("LLAMA_BUILD_EXAMPLES", false),
        ("LLAMA_BUILD_TOOLS", false),
        ("LLAMA_BUILD_SERVER", false),
        ("LLAMA_BUILD_APP", false),
        ("LLAMA_BUILD_UI", false),
        ("LLAMA_OPENSSL", false),
        // This crate decodes video in the process. mtmd would run the program ffmpeg.
        ("MTMD_VIDEO", false),
        ("BUILD_SHARED_LIBS", false),
        ("CMAKE_POSITION_INDEPENDENT_CODE", true),
        ("GGML_NATIVE", config.native),
        ("GGML_CUDA", config.cuda),
        ("GGML_METAL", config.metal),
        ("GGML_VULKAN", config.vulkan),
        ("GGML_RPC", config.rpc),
        // Would be used, and would have to be linked, if it happened to be installed.
        ("GGML_RPC_RDMA", false),
        // ggml's own threads do not slow down on cores that are shared (patches/barrier-yield.patch).
        ("GGML_OPENMP", false),
        // Would be used if they happened to be installed.
        ("GGML_BLAS", false),
        ("GGML_CUDA_NCCL", false),
    ])
    .into_iter()
    .map(|(name, on)| (name, if on { "ON" } else { "OFF" }.to_owned()))
    .collect::<BTreeMap<&str, String>>();
    if let Some(nvcc) = tools::nvcc(config).filter(|_| config.cuda) {
        vars.insert("CMAKE_CUDA_COMPILER", nvcc.display().to_string());
    }
    let hooks = tree.join(HOOKS).join("hooks.cmake");
    vars.insert("CMAKE_PROJECT_llama.cpp_INCLUDE", hooks.display().to_string());
    for (name, value) in &config.cmake_vars {
        vars.insert(name, value.clone());
    }
    let generator = match vars.remove("CMAKE_GENERATOR") {
        Some(generator) => Some(generator),
        None => tools::works("ninja").then(|| "Ninja".to_owned()),
    };
    let profile = vars.remove("CMAKE_BUILD_TYPE").unwrap_or_else(|| "Release".to_owned());

    // cmake remembers settings that are no longer passed: start over when they change.
    let build_dir = config.out_dir.join("build");
    let settings = format!("{generator:?} {profile} {vars:#?}");
    let settings_file = config.out_dir.join("cmake-settings.txt");
    if fs::read_to_string(&settings_file).is_ok_and(|old| old != settings) {
        let _ = fs::remove_file(build_dir.join("CMakeCache.txt"));
    }
    write_if_changed(&settings_file, settings.as_bytes())?;

    let mut cmake = cmake::Config::new(tree);
    cmake.profile(&profile).out_dir(&config.out_dir).build_target("mtmd");
    if let Some(generator) = generator {
        cmake.generator(generator);
    }
    for (name, value) in vars {
        cmake.define(name, value);
    }
    // llama.cpp uses ccache if it is installed. With relative paths, also in `__FILE__`, other clones and profiles
    // share its objects.
    cmake.env("CCACHE_BASEDIR", &config.out_dir).env("CCACHE_NOHASHDIR", "1");
    let relative = format!("-fmacro-prefix-map={}=.", config.out_dir.display());
    cmake.cflag(&relative).cxxflag(&relative);
    if config.rpc {
        // A lost server is an exception (patches/rpc-errors.patch), which may propagate through C functions.
        cmake.cflag("-fexceptions");
    }
    // llama.cpp writes the commit of the surrounding Git repository to its version header. That repository is ours, and
    // each of its commits would rebuild everything.
    cmake.env("GIT_CEILING_DIRECTORIES", &config.out_dir);
    if catch_unwind(move || cmake.build()).is_err() {
        // Cargo shows the output of the build script, and so of the compiler, only if the script fails.
        println!("cargo::error=llama.cpp does not build; the output of cmake and the compiler is below");
        std::process::exit(1);
    }
    Ok(build_dir)
}

/// Prints what to link. Shared libraries are those in cmake's cache, so that both agree.
fn link(config: &Config, build_dir: &Path) -> Result<()> {
    // GNU ld reads from left to right: a library precedes those that it needs.
    for library in static_libraries(build_dir)? {
        if let (Some(folder), Some(name)) = (library.parent(), library_name(&library)) {
            println!("cargo::rustc-link-search=native={}", folder.display());
            println!("cargo::rustc-link-lib=static={name}");
        }
    }
    let cache_file = build_dir.join("CMakeCache.txt");
    let cache = fs::read_to_string(&cache_file).map_err(|error| format!("{}: {error}", cache_file.display()))?;
    let cached = |name: &str| cache_value(&cache, name);

    let mut shared: Vec<&str> = Vec::new();
    if config.cuda {
        for name in ["cudart", "cublas", "cublasLt", "cuda_driver"] {
            shared.extend(cached(&format!("CUDA_{name}_LIBRARY")));
        }
    }
    if config.vulkan {
        shared.extend(cached("Vulkan_LIBRARY"));
    }
    if cached("GGML_OPENMP_ENABLED") == Some("ON") {
        let names = cached("OpenMP_CXX_LIB_NAMES").unwrap_or_default();
        shared.extend(names.split(';').filter_map(|name| cached(&format!("OpenMP_{name}_LIBRARY"))));
    }
    for library in shared.into_iter().map(Path::new) {
        if let (Some(folder), Some(name)) = (library.parent(), library_name(library)) {
            println!("cargo::rustc-link-search=native={}", folder.display());
            println!("cargo::rustc-link-lib=dylib={name}");
        }
    }
    // `cc` links the C++ runtime, together with our C++.
    if config.target_os == "macos" {
        println!("cargo::rustc-link-lib=framework=Accelerate");
        if config.metal {
            for framework in ["Foundation", "Metal", "MetalKit"] {
                println!("cargo::rustc-link-lib=framework={framework}");
            }
        }
    } else if config.target_os == "windows" {
        // ggml reads the processor's name from the registry.
        println!("cargo::rustc-link-lib=dylib=advapi32");
    } else {
        for name in ["pthread", "dl", "m"] {
            println!("cargo::rustc-link-lib=dylib={name}");
        }
    }
    Ok(())
}

/// The static libraries under cmake's build folder, each before those that it needs.
fn static_libraries(build_dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut todo = vec![build_dir.to_owned()];
    while let Some(folder) = todo.pop() {
        let entries = fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|extension| extension == "a") {
                found.push(path);
            }
        }
    }
    // mtmd → llama → ggml → the backends (ggml-cpu, …) → ggml-base. Vendored helpers, which only mtmd uses, may be
    // anywhere after it.
    found.sort_by_key(|path| {
        let name = library_name(path).unwrap_or_default();
        let rank = ["mtmd", "llama", "ggml"].iter().position(|first| *first == name);
        (rank.unwrap_or(if name == "ggml-base" { usize::MAX } else { 3 }), name.to_owned())
    });
    Ok(found)
}

/// `/usr/lib/libgomp.so` → `gomp`.
fn library_name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()?.strip_prefix("lib")?.split('.').next()
}

/// The value of `NAME:TYPE=value` in a CMakeCache.txt; `None` also if cmake searched for it and did not find it.
fn cache_value<'a>(cache: &'a str, name: &str) -> Option<&'a str> {
    let line = cache.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(':')))?;
    let (_, value) = line.split_once('=')?;
    (!value.is_empty() && !value.ends_with("NOTFOUND")).then_some(value)
}
