//! How much memory a model may take on this machine.

use sharpv::runtime::{self, DeviceKind};

/// The share of the system's memory that a model may take: the rest is for the system and what else runs.
const SYSTEM_SHARE: f64 = 0.8;

/// Bytes that a model may take: what is free on the GPUs, or most of the system's memory where there is no GPU to use. None where the machine
/// does not say.
pub fn for_model(use_gpu: bool) -> Option<u64> {
    let devices = runtime::devices();
    let of_kind = |kind: DeviceKind| devices.iter().filter(move |device| device.kind == kind);
    let free: u64 = of_kind(DeviceKind::Gpu).map(|device| device.memory_free as u64).sum();
    if use_gpu && free > 0 {
        return Some(free);
    }
    let total = of_kind(DeviceKind::Cpu).map(|device| device.memory_total as u64).max().filter(|&bytes| bytes > 0)?;
    Some((total as f64 * SYSTEM_SHARE) as u64)
}
