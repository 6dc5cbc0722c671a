//! Builds the pinned llama.cpp with our patches, compiles our own C++, generates the bindings to both, and links them.
//!
//! In order: [`config`] reads the settings, [`tools`] checks for missing tools, [`source`] finds and verifies the
//! pinned source and copies it to `OUT_DIR` with the patches applied ([`patch`]), [`bindings`] runs bindgen, [`llama`]
//! runs cmake, compiles our C++ and prints what to link. `vendor/llama.cpp/README.md` lists the settings.

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

/// The error is a message for whoever runs the build, of one or more lines: what is wrong and what to do.
type Result<T> = std::result::Result<T, String>;

fn main() {
    // Cargo fails a build that prints an error. A nonzero exit status would bury the message in the script's output.
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

/// Passes facts about this build to the crate, which reads them with `env!` and shows them (`sharpv doctor`).
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
