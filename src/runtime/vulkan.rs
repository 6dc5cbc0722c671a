//! What the Vulkan drivers of this machine offer, and why ggml takes none of it.

use super::call::guarded;
use crate::ffi;
use std::ffi::{CStr, c_char};
use std::fmt;

/// More devices than a machine has.
const MOST: usize = 16;

/// The oldest Vulkan that ggml computes with.
const OLDEST: [u32; 3] = [1, 2, 0];

/// A device of a Vulkan driver, whether this build computes on it or not.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct VulkanDevice {
    /// The product's name.
    pub name: String,
    /// The driver's name and version as it tells them; empty if it is older than Vulkan 1.2, which has the question.
    pub driver: String,
    /// The version of Vulkan that it can do: major, minor, patch.
    pub api: [u32; 3],
    /// Whether it computes on the CPU.
    pub software: bool,
    /// Whether buffers may hold 16-bit values, which ggml needs.
    pub storage_16bit: bool,
}

/// Why this build does not compute with Vulkan.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum VulkanObstacle {
    /// No driver offers a device.
    NoDriver,
    /// The driver of this GPU is older than what ggml needs.
    TooOld(VulkanDevice),
    /// All devices compute on the CPU; ggml takes such a one only if it is named in `GGML_VK_VISIBLE_DEVICES`, by the
    /// number here.
    OnlySoftware(usize, VulkanDevice),
    /// `GGML_VK_VISIBLE_DEVICES` names this number, and no driver offers a device with it.
    NoSuchDevice(usize),
}

impl VulkanObstacle {
    /// What keeps ggml from these devices, the loader's; `None` if there is one that it takes.
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

    /// What keeps ggml from those of the devices that `named` names, a value of `GGML_VK_VISIBLE_DEVICES`: numbers with
    /// commas between them, of which it takes all.
    pub fn of_named(devices: &[VulkanDevice], named: &str) -> Option<Self> {
        // What is no number ends the list, as in ggml.
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
                write!(f, "{device} is too old: Vulkan 1.2 or newer is needed")
            }
            Self::TooOld(device) => write!(f, "{device} has no 16-bit values in buffers, which are needed"),
            Self::OnlySoftware(_, device) => write!(f, "the only Vulkan device, {device}, computes on the CPU"),
            Self::NoSuchDevice(number) => {
                write!(f, "GGML_VK_VISIBLE_DEVICES names Vulkan device {number}, which is not there")
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

/// The devices of all Vulkan drivers of this machine, in the loader's order. None in builds without the Cargo feature
/// `vulkan`, and where the loader cannot be asked.
pub fn vulkan_devices() -> Vec<VulkanDevice> {
    let mut devices = [ffi::sharpv_vulkan_device::default(); MOST];
    // SAFETY: there is room for `MOST` devices.
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

/// A C string in a buffer, up to its end or the buffer's.
fn text(buffer: &[c_char]) -> String {
    let bytes: Vec<u8> = buffer.iter().map(|&c| c as u8).collect();
    CStr::from_bytes_until_nul(&bytes).map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
}
