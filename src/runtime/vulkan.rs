//! The Vulkan devices of this machine, and why ggml uses none of them.

use super::call::guarded;
use crate::ffi;
use std::ffi::{CStr, c_char};
use std::fmt;

/// More devices than any machine has.
const MOST: usize = 16;

/// The oldest version of Vulkan that ggml supports.
const OLDEST: [u32; 3] = [1, 2, 0];

/// A device of a Vulkan driver, whether this build can use it or not.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct VulkanDevice {
    /// The product's name.
    pub name: String,
    /// The driver's name and version as the driver reports them; empty before Vulkan 1.2, which added that query.
    pub driver: String,
    /// The version of Vulkan that it supports: major, minor, patch.
    pub api: [u32; 3],
    /// Whether it is a software driver, which computes on the CPU.
    pub software: bool,
    /// Whether buffers may hold 16-bit values, which ggml requires.
    pub storage_16bit: bool,
}

/// Why this build cannot use Vulkan.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum VulkanObstacle {
    /// No driver offers a device.
    NoDriver,
    /// This device lacks something that ggml requires.
    TooOld(VulkanDevice),
    /// All devices compute on the CPU. ggml uses such a device only if `GGML_VK_VISIBLE_DEVICES` names its number,
    /// which is the first field.
    OnlySoftware(usize, VulkanDevice),
    /// `GGML_VK_VISIBLE_DEVICES` names this number, which no device has.
    NoSuchDevice(usize),
}

impl VulkanObstacle {
    /// Returns why ggml uses none of `devices`, which are in the loader's order; `None` if it uses one.
    pub fn of(devices: &[VulkanDevice]) -> Option<Self> {
        if devices.iter().any(|device| !device.software && device.is_new_enough()) {
            return None;
        }
        if let Some(old) = devices.iter().find(|device| !device.software) {
            return Some(Self::TooOld(old.clone()));
        }
        let software = devices.iter().enumerate().find(|(_, device)| device.is_new_enough());
        Some(match (software, devices.first()) {
            (Some((index, device)), _) => Self::OnlySoftware(index, device.clone()),
            (None, Some(old)) => Self::TooOld(old.clone()),
            (None, None) => Self::NoDriver,
        })
    }

    /// Returns why ggml cannot use all devices that `named` names. `named` is a value of `GGML_VK_VISIBLE_DEVICES`:
    /// numbers separated by commas. `None` if ggml can use all of them.
    pub fn of_named(devices: &[VulkanDevice], named: &str) -> Option<Self> {
        // Anything but a number ends the list, as in ggml.
        let mut numbers = named.split([',', ' ']).filter(|part| !part.is_empty()).map_while(|part| part.parse().ok());
        numbers.find_map(|number: usize| match devices.get(number) {
            None => Some(Self::NoSuchDevice(number)),
            Some(device) => (!device.is_new_enough()).then(|| Self::TooOld(device.clone())),
        })
    }
}

impl fmt::Display for VulkanObstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDriver => f.write_str("no Vulkan driver was found"),
            Self::TooOld(device) if device.api < OLDEST => {
                write!(f, "{device} is too old: Vulkan 1.2 or newer is required")
            }
            Self::TooOld(device) => write!(f, "{device} does not support 16-bit values in buffers, which are required"),
            Self::OnlySoftware(_, device) => write!(f, "the only Vulkan device, {device}, computes on the CPU"),
            Self::NoSuchDevice(number) => {
                write!(f, "GGML_VK_VISIBLE_DEVICES names Vulkan device {number}, which does not exist")
            }
        }
    }
}

impl VulkanDevice {
    fn is_new_enough(&self) -> bool {
        self.api >= OLDEST && self.storage_16bit
    }
}

impl fmt::Display for VulkanDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.api;
        let driver = if self.driver.is_empty() { String::new() } else { format!("driver {}, ", self.driver) };
        write!(f, "{} ({driver}Vulkan {major}.{minor}.{patch})", self.name)
    }
}

/// Returns the devices of all Vulkan drivers of this machine, in the loader's order. Empty in builds without the Cargo
/// feature `vulkan`, and if the loader fails.
pub fn vulkan_devices() -> Vec<VulkanDevice> {
    let mut devices = [ffi::sharpv_vulkan_device::default(); MOST];
    // SAFETY: the array has `MOST` elements.
    let n = guarded(0, |n, err, err_len| unsafe {
        ffi::sharpv_try_vulkan_devices(devices.as_mut_ptr(), MOST, n, err, err_len)
    });
    let n = n.value.unwrap_or(0);
    devices.iter().take(n).map(describe).collect()
}

fn describe(device: &ffi::sharpv_vulkan_device) -> VulkanDevice {
    VulkanDevice {
        name: text(&device.name),
        driver: text(&device.driver).trim().to_owned(),
        api: [device.api_major, device.api_minor, device.api_patch],
        software: device.software,
        storage_16bit: device.storage_16bit,
    }
}

/// Reads the NUL-terminated string in a buffer.
fn text(buffer: &[c_char]) -> String {
    let bytes: Vec<u8> = buffer.iter().map(|&c| c as u8).collect();
    CStr::from_bytes_until_nul(&bytes).map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
}
