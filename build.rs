//! Builds the pinned llama.cpp with our patches and links it, together with our own C++ and the bindings to both.
//!
//! In order: [`config`] reads the settings, [`tools`] names what is missing, [`source`] finds the pinned source, checks
//! it and copies it to `OUT_DIR` with the patches applied ([`patch`]), [`bindings`] runs bindgen, [`llama`] runs cmake,
//! compiles our C++ and prints what to link. The settings are listed in `vendor/llama.cpp/README.md`.

#[path = "build/bindings.rs"]
mod bindings;
#[path = "build/config.rs"]
mod config;
#[path = "build/llama.rs"]
mod llama;
#[path = "build/patch.rs"]
mod patch;
#[path = "build/source.rs"]
mod source;
#[path = "build/tools.rs"]
mod tools;
#[path = "build/vulkan.rs"]
mod vulkan;

use config::Config;

/// A message for whoever runs the build: what is wrong and what to do, possibly several lines.
type Result<T> = std::result::Result<T, String>;

fn main() {
    // Cargo fails a build that prints an error; a failing exit status would bury the message under the script's output.
    if let Err(message) = run() {
        for line in message.lines() {
            println!("cargo::error={line}");
        }
    }
}

fn run() -> Result<()> {
    for input in ["build.rs", "build", "patches", "vendor/llama.cpp", "src/ffi"] {
        println!("cargo::rerun-if-changed={input}");
    }
    let config = Config::from_env()?;
    tools::check(&config)?;

    let patches = patch::read_series(&config.manifest_dir.join("patches"))?;
    if config.documents && bindings::copy_prepared(&config)? {
        emit_facts(&config, "", "", &patches);
        return Ok(());
    }
    let pin = source::locate(&config)?;
    let tree = source::copy_patched(&config, &pin, &patches)?;
    bindings::generate(&config, &tree)?;

    if config.links {
        llama::build(&config, &tree)?;
    }
    emit_facts(&config, &pin.label, &pin.version, &patches);
    Ok(())
}

/// Facts about this build that the program shows (`sharpv doctor`), read there with `env!`.
fn emit_facts(config: &Config, pin: &str, version: &str, patches: &[patch::Patch]) {
    let backends: Vec<&str> = config.backends().collect();
    let patches: Vec<&str> = patches.iter().map(|patch| patch.name.as_str()).collect();
    for (name, value) in [
        ("SHARPV_LLAMA_PIN", pin),
        ("SHARPV_LLAMA_VERSION", version),
        ("SHARPV_LLAMA_PATCHES", &patches.join(" ")),
        ("SHARPV_LLAMA_BACKENDS", &backends.join(" ")),
        ("SHARPV_LLAMA_NATIVE", if config.native { "yes" } else { "no" }),
    ] {
        println!("cargo::rustc-env={name}={value}");
    }
}
