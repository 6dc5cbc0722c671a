//! Vulkan's headers: finding them, and checking that they are new enough.

use std::fs;
use std::path::{Path, PathBuf};

/// The oldest headers that ggml compiles with. They added `VK_EXT_layer_settings`, which it uses.
pub const NEEDED: Version = [1, 3, 272];

/// Major, minor, and version of the header.
pub type Version = [u32; 3];

/// The folder of a Vulkan SDK's headers.
pub fn of_sdk(sdk: &Path) -> PathBuf {
    sdk.join(if cfg!(windows) { "Include" } else { "include" })
}

/// Fails if the headers in this folder are missing or too old.
pub fn check(include: &Path) -> Result<(), String> {
    let header = include.join("vulkan/vulkan_core.h");
    let help = "Install newer ones (on Debian 13 or Ubuntu 24.04: libvulkan-dev), or set VULKAN_SDK to the folder of a \
                Vulkan SDK. On Debian 12, `./x vulkan` fetches them into a separate folder.";
    let text = fs::read_to_string(&header)
        .map_err(|error| format!("{}: Vulkan's header cannot be read: {error}\n{help}", header.display()))?;
    match version(&text) {
        Some(found) if found < NEEDED => Err(format!(
            "{}: Vulkan's headers {} are too old; the build requires {} or newer\n{help}",
            header.display(),
            dotted(found),
            dotted(NEEDED)
        )),
        // An unknown version is left to the compiler.
        _ => Ok(()),
    }
}

/// The version that `vulkan_core.h` defines.
pub fn version(header: &str) -> Option<Version> {
    let defined = |name: &str| {
        let mut lines = header.lines().filter_map(|line| line.strip_prefix("#define ")?.strip_prefix(name));
        lines.find(|rest| rest.starts_with(' ')).map(str::trim)
    };
    let patch = defined("VK_HEADER_VERSION")?.parse().ok()?;
    // `VK_MAKE_API_VERSION(0, 1, 3, VK_HEADER_VERSION)`, before 1.2.175 `VK_MAKE_VERSION(1, 2, VK_HEADER_VERSION)`.
    let complete = defined("VK_HEADER_VERSION_COMPLETE")?;
    let mut numbers = complete.split(['(', ',', ')']).rev().filter_map(|part| part.trim().parse().ok());
    let (minor, major) = (numbers.next()?, numbers.next()?);
    Some([major, minor, patch])
}

fn dotted(version: Version) -> String {
    version.map(|number| number.to_string()).join(".")
}
