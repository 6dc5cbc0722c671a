//! Generates Rust declarations for the C interfaces of llama.cpp, ggml, mtmd and our own C++, with bindgen.

use std::path::Path;

use crate::Result;
use crate::config::Config;
use crate::source::write_if_changed;

/// The folders of the public headers, relative to the source.
pub const PUBLIC_HEADERS: [&str; 3] = ["include", "ggml/include", "tools/mtmd"];

/// The bindings that `./x package` adds to the published package, to document it without a network.
const PREPARED: &str = "vendor/llama.cpp/bindings.rs";

/// Copies the prepared bindings to `OUT_DIR/bindings.rs`. Returns false if there are none.
pub fn copy_prepared(config: &Config) -> Result<bool> {
    let Ok(prepared) = std::fs::read(config.manifest_dir.join(PREPARED)) else { return Ok(false) };
    write_if_changed(&config.out_dir.join("bindings.rs"), &prepared)?;
    Ok(true)
}

/// Writes `OUT_DIR/bindings.rs`.
pub fn generate(config: &Config, tree: &Path) -> Result<()> {
    let wrapper = config.manifest_dir.join("src/ffi/wrapper.h");
    let names = "(llama|ggml|gguf|mtmd|sharpv|LLAMA|GGML|GGUF|MTMD|SHARPV|RPC_PROTO)_.*";
    let bindings = bindgen::Builder::default()
        .header(wrapper.display().to_string())
        .clang_args(PUBLIC_HEADERS.iter().map(|folder| format!("-I{}", tree.join(folder).display())))
        .allowlist_function(names)
        .allowlist_type(names)
        .allowlist_var(names)
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .derive_default(true)
        .layout_tests(false)
        // rustdoc would mistake C examples in the comments for Rust doctests.
        .generate_comments(false)
        .merge_extern_blocks(true)
        .generate()
        .map_err(|error| {
            format!(
                "bindgen cannot read {}: {error}\n\
                 If a standard header such as stddef.h is missing, install clang's own headers (Debian: libclang-dev).",
                wrapper.display()
            )
        })?;
    let file = config.out_dir.join("bindings.rs");
    bindings.write_to_file(&file).map_err(|error| format!("{}: cannot be written: {error}", file.display()))
}
