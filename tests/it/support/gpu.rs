//! Tests that need a GPU, and tolerances that depend on one.

use sharpv::runtime::{DeviceKind, devices};

/// The first GPU that this build can use. Without one, says on stderr that `test` is skipped.
pub fn or_skip(test: &str) -> Option<String> {
    let gpu = devices().into_iter().find(|device| device.kind == DeviceKind::Gpu && device.memory_total > 0);
    if gpu.is_none() {
        eprintln!("SKIPPED: {test}: no GPU that this build can compute on");
    }
    gpu.map(|gpu| gpu.name)
}

/// How much the results of two ways to compute the same may differ: `on_processor`, or more on a GPU, which adds up in
/// other orders and uses other kernels for caches of other lengths. The largest difference seen is 0.022, with a cache
/// of 4-bit values on Mesa's software driver.
pub fn near(on_processor: f64) -> f64 {
    let is_there = devices().iter().any(|device| device.kind == DeviceKind::Gpu && device.memory_total > 0);
    if is_there { on_processor.max(0.03) } else { on_processor }
}
