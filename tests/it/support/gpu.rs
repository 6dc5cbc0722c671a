//! Tests that need a GPU, and what changes where there is one.

use sharpv::runtime::{DeviceKind, devices};

/// The first GPU that this build can compute on. Says on stderr that `test` is skipped if there is none.
pub fn or_skip(test: &str) -> Option<String> {
    let gpu = devices().into_iter().find(|device| device.kind == DeviceKind::Gpu && device.memory_total > 0);
    if gpu.is_none() {
        eprintln!("SKIPPED: {test}: no GPU that this build can compute on");
    }
    gpu.map(|gpu| gpu.name)
}

/// How far apart two ways to compute the same may come out: as far as `on_processor`, or more where a GPU computes. It
/// adds up in other orders, and takes other kernels for caches of other lengths. The most that was seen is 0.022, of a
/// cache of 4-bit values on Mesa's software driver.
pub fn near(on_processor: f64) -> f64 {
    let is_there = devices().iter().any(|device| device.kind == DeviceKind::Gpu && device.memory_total > 0);
    if is_there { on_processor.max(0.03) } else { on_processor }
}
