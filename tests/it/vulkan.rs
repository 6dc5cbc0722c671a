//! Vulkan's headers and drivers that are too old, or not there, are named with the next step.

use sharpv::runtime::{VulkanDevice, VulkanObstacle};
use std::fs;

#[path = "../../build/vulkan.rs"]
mod headers;

/// An SDK whose header defines this.
fn sdk(core: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let include = headers::of_sdk(folder.path()).join("vulkan");
    fs::create_dir_all(&include).expect("a folder");
    fs::write(include.join("vulkan_core.h"), core).expect("a header");
    folder
}

/// The lines of `vulkan_core.h` that name a version, with those around them that look like it.
fn core(complete: &str, header: u32) -> String {
    format!(
        "#define VK_MAKE_API_VERSION(variant, major, minor, patch) \\\n    ((((uint32_t)(variant)) << 29U))\n\
         // Version of this file\n#define VK_HEADER_VERSION {header}\n\n\
         // Complete version of this file\n#define VK_HEADER_VERSION_COMPLETE {complete}\n"
    )
}

#[test]
fn the_version_of_vulkans_headers_is_read() {
    for (complete, header, expected) in [
        ("VK_MAKE_API_VERSION(0, 1, 4, VK_HEADER_VERSION)", 309, [1, 4, 309]),
        ("VK_MAKE_API_VERSION(0, 1, 3, VK_HEADER_VERSION)", 239, [1, 3, 239]),
        ("VK_MAKE_VERSION(1, 2, VK_HEADER_VERSION)", 162, [1, 2, 162]),
    ] {
        assert_eq!(headers::version(&core(complete, header)), Some(expected));
    }
    assert_eq!(headers::version("#define VK_HEADER_VERSION 309\n"), None);
}

#[test]
fn vulkans_headers_that_are_too_old_are_named() {
    let check = |minor, header| {
        let folder = sdk(&core(&format!("VK_MAKE_API_VERSION(0, 1, {minor}, VK_HEADER_VERSION)"), header));
        headers::check(&headers::of_sdk(folder.path()))
    };
    for (minor, header) in [(3, 272), (3, 275), (4, 303), (4, 1)] {
        assert_eq!(check(minor, header), Ok(()), "1.{minor}.{header}");
    }
    for (minor, header) in [(3, 271), (3, 239), (2, 300)] {
        let message = check(minor, header).expect_err("too old");
        for part in ["vulkan_core.h", &format!("1.{minor}.{header} are too old"), "1.3.272 or newer", "VULKAN_SDK"] {
            assert!(message.contains(part), "{part}: {message}");
        }
    }
    let empty = tempfile::tempdir().expect("a temporary folder");
    let message = headers::check(empty.path()).expect_err("missing");
    assert!(message.contains("vulkan_core.h") && message.contains("VULKAN_SDK"), "{message}");
}

fn device(name: &str, api: [u32; 3], software: bool, storage_16bit: bool) -> VulkanDevice {
    VulkanDevice { name: name.into(), driver: "Mesa 25".into(), api, software, storage_16bit }
}

#[test]
fn what_keeps_from_a_vulkan_device_is_named() {
    let gpu = device("gpu", [1, 3, 0], false, true);
    let old = device("old", [1, 1, 9], false, false);
    let narrow = device("narrow", [1, 2, 0], false, false);
    let lavapipe = device("lavapipe", [1, 4, 305], true, true);
    let of = |devices: &[&VulkanDevice]| VulkanObstacle::of(&devices.iter().copied().cloned().collect::<Vec<_>>());

    assert_eq!(of(&[]), Some(VulkanObstacle::NoDriver));
    assert_eq!(of(&[&gpu]), None);
    assert_eq!(of(&[&lavapipe, &old, &gpu]), None);
    assert_eq!(of(&[&lavapipe]), Some(VulkanObstacle::OnlySoftware(0, lavapipe.clone())));
    // A GPU is what somebody wants to use, so its driver is what is named.
    for bad in [&old, &narrow] {
        assert_eq!(of(&[&lavapipe, bad]), Some(VulkanObstacle::TooOld(bad.clone())));
    }
    let old_software = device("swrast", [1, 0, 5], true, false);
    assert_eq!(of(&[&old_software, &lavapipe]), Some(VulkanObstacle::OnlySoftware(1, lavapipe.clone())));
    assert_eq!(of(&[&old_software]), Some(VulkanObstacle::TooOld(old_software)));

    let named = |devices: &[&VulkanDevice], named: &str| {
        VulkanObstacle::of_named(&devices.iter().copied().cloned().collect::<Vec<_>>(), named)
    };
    let all = [&lavapipe, &narrow, &gpu];
    for good in ["0", "2,0", "0 2", "", "x", "2,x,1"] {
        assert_eq!(named(&all, good), None, "{good}");
    }
    assert_eq!(named(&all, "2,1"), Some(VulkanObstacle::TooOld(narrow.clone())));
    assert_eq!(named(&all, "0,3"), Some(VulkanObstacle::NoSuchDevice(3)));
    assert_eq!(named(&[], "0"), Some(VulkanObstacle::NoSuchDevice(0)));

    let said = |obstacle: VulkanObstacle, parts: &[&str]| {
        let text = obstacle.to_string();
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    };
    said(VulkanObstacle::TooOld(old), &["old", "Mesa 25", "1.1.9", "1.2 or newer"]);
    said(VulkanObstacle::TooOld(narrow), &["narrow", "16-bit"]);
    said(VulkanObstacle::OnlySoftware(0, lavapipe), &["lavapipe", "1.4.305", "CPU"]);
    said(VulkanObstacle::NoSuchDevice(7), &["GGML_VK_VISIBLE_DEVICES", "7"]);
}

#[cfg(all(feature = "cli", feature = "vulkan"))]
mod doctor {
    use crate::support::program::sharpv;
    use serde_json::Value;
    use sharpv::runtime::vulkan_devices;

    /// The problems that it finds, and what mends each.
    fn problems(set: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut command = sharpv(&["doctor", "--json"]);
        command.env_remove("GGML_VK_VISIBLE_DEVICES").envs(set.iter().copied());
        let output = command.assert().success().get_output().stdout.clone();
        let report: Value = serde_json::from_slice(&output).expect("JSON");
        let text = |problem: &Value, key: &str| problem[key].as_str().expect("text").to_owned();
        let problems = report["problems"].as_array().expect("a list");
        problems.iter().map(|problem| (text(problem, "what"), text(problem, "fix"))).collect()
    }

    #[test]
    fn doctor_misses_a_vulkan_driver() {
        let found = problems(&[("VK_DRIVER_FILES", "/nowhere/icd.json"), ("VK_ICD_FILENAMES", "/nowhere/icd.json")]);
        assert!(found.iter().any(|(what, _)| what.contains("no Vulkan driver")), "{found:?}");
    }

    #[test]
    fn doctor_says_how_to_use_a_software_driver() {
        let devices = vulkan_devices();
        let Some(first) = devices.first().filter(|_| devices.iter().all(|device| device.software)) else {
            eprintln!("SKIPPED: doctor_says_how_to_use_a_software_driver: no software driver alone");
            return;
        };
        let found = problems(&[]);
        let named = |(what, fix): &(String, String)| what.contains(&first.name) && fix.contains("VISIBLE_DEVICES=0");
        assert!(found.iter().any(named), "{found:?}");
        let used = problems(&[("GGML_VK_VISIBLE_DEVICES", "0")]);
        assert!(!used.iter().any(|(what, _)| what.contains("Vulkan")), "{used:?}");
    }

    #[test]
    fn doctor_misses_a_vulkan_device_that_is_named() {
        let found = problems(&[("GGML_VK_VISIBLE_DEVICES", "99")]);
        assert!(found.iter().any(|(what, _)| what.contains("device 99")), "{found:?}");
    }
}
