//! How many layers of a model go to the GPUs: as many as fit next to the vision encoder.
//!
//! The encoder comes first, because encoding is most of the time that a user waits for. The memory that the encoder and
//! the model need is not estimated: llama.cpp plans both without allocating.

use super::EngineParams;
use crate::error::Result;
use crate::models::ModelFiles;
use crate::observer::Observer;
use crate::runtime::{ContextParams, Device, DeviceKind, DeviceMemory, ModelNeed, ModelParams, devices, vision_need};
use std::collections::BTreeMap;
use std::path::Path;

/// Cells of the context that has to fit next to the model: a pruned video has some hundreds to some thousands of rows.
const CELLS: usize = 8192;

/// Files smaller than this share of the free memory of one GPU fit without a check.
const SURELY_FITS: f64 = 0.25;

/// Bytes of a GPU that stay free by default, as in llama.cpp.
const MARGIN: u64 = 1 << 30;

/// On a small GPU, at most one part in this many of its memory stays free.
const MARGIN_SHARE: u64 = 8;

/// Bytes by device name.
type Bytes = BTreeMap<String, u64>;

/// `params.model`, with the number of layers that go to GPUs if the user did not set it and not all of them fit. Then
/// `observer` gets a warning. If planning fails, all layers go to the GPUs: if a file is at fault, loading reports it.
pub(super) fn place(files: &ModelFiles, params: &EngineParams<'_>, observer: &mut dyn Observer) -> ModelParams {
    plan(files, params, observer).unwrap_or_else(|error| {
        observer.message(&format!("cannot plan how many layers fit on the GPU, so all of them go there: {error}"));
        params.model.clone()
    })
}

fn plan(files: &ModelFiles, params: &EngineParams<'_>, observer: &mut dyn Observer) -> Result<ModelParams> {
    let all = params.model.clone();
    let Some(context) = params.context.as_ref().filter(|_| all.n_gpu_layers.is_none()) else { return Ok(all) };
    let gpus = gpus(&devices(), &all);
    let files_bytes = files.lora.iter().chain(&files.mmproj).chain([&files.model]).map(|path| size(path)).sum::<u64>();
    let least = gpus.values().min().copied().unwrap_or(u64::MAX);
    if gpus.is_empty() || (files_bytes as f64) < SURELY_FITS * least as f64 {
        return Ok(all);
    }
    let mut left = gpus.clone();
    if let Some(mmproj) = files.mmproj.as_deref().filter(|_| params.vision.use_gpu) {
        for need in vision_need(mmproj, params.vision)? {
            left.entry(need.device).and_modify(|free| *free = free.saturating_sub(need.usage.total()));
        }
    }
    let context = ContextParams { n_ctx: if context.n_ctx == 0 { CELLS } else { context.n_ctx }, ..context.clone() };
    let need = |n: u32| ModelNeed::of(&files.model, &ModelParams { n_gpu_layers: Some(n), ..all.clone() }, &context);
    let everything = need(u32::MAX >> 1)?;
    if fits(&everything.devices, &left) {
        return Ok(all);
    }
    let n = most(everything.n_layers, |n| Ok(fits(&need(n)?.devices, &left)))?;
    let names = gpus.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let free = gpus.values().sum::<u64>() >> 20;
    observer.warning(&format!(
        "{n} of {} layers go to {names} ({free} MB available); the CPU computes the others, which is slower",
        everything.n_layers
    ));
    Ok(ModelParams { n_gpu_layers: Some(n), ..all })
}

/// The available bytes of each GPU that a model with `params` uses.
fn gpus(devices: &[Device], params: &ModelParams) -> Bytes {
    let is_used = |d: &&Device| d.kind == DeviceKind::Gpu && d.memory_total > 0 && params.uses_gpu(&d.name);
    let available = |device: &Device| {
        let (free, total) = (device.memory_free as u64, device.memory_total as u64);
        free.saturating_sub(params.gpu_margin.unwrap_or(MARGIN.min(total / MARGIN_SHARE)))
    };
    devices.iter().filter(is_used).map(|device| (device.name.clone(), available(device))).collect()
}

/// Whether `needs` fits on each GPU in `free`. Other devices are ignored.
fn fits(needs: &[DeviceMemory], free: &Bytes) -> bool {
    needs.iter().all(|need| free.get(&need.device).is_none_or(|&free| need.usage.total() <= free))
}

/// The maximum number of layers below `n_layers` that fits, by binary search; 0 if none fits.
fn most(n_layers: u32, mut fits: impl FnMut(u32) -> Result<bool>) -> Result<u32> {
    let (mut least, mut beyond) = (0, n_layers);
    while beyond - least > 1 {
        let middle = least + (beyond - least) / 2;
        if fits(middle)? {
            least = middle;
        } else {
            beyond = middle;
        }
    }
    Ok(least)
}

/// The size of a file in bytes; 0 if it is unknown. Opening the file then reports the error.
fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::MemoryUsage;

    fn need(device: &str, model: u64) -> DeviceMemory {
        DeviceMemory::new(device, MemoryUsage { model, context: 20, compute: 10 })
    }

    #[test]
    fn the_most_that_fits_is_found_with_few_looks() {
        for n_layers in [1, 2, 31, 33, 81] {
            for limit in 0..n_layers {
                let mut looks = 0;
                let found = most(n_layers, |n| {
                    looks += 1;
                    Ok(n <= limit)
                });
                assert_eq!(found.unwrap(), limit);
                assert!(looks <= 7, "{looks} looks at {n_layers} layers");
            }
        }
    }

    #[test]
    fn each_gpu_has_to_hold_its_part() {
        let free = Bytes::from([("CUDA0".into(), 130), ("CUDA1".into(), 60)]);
        assert!(fits(&[need("CUDA0", 100), need("CUDA1", 30), need("CPU", 1000)], &free));
        assert!(!fits(&[need("CUDA0", 101), need("CUDA1", 30)], &free));
        assert!(!fits(&[need("CUDA0", 100), need("CUDA1", 31)], &free));
        assert!(fits(&[need("CPU", 1000)], &free));
    }

    #[test]
    fn a_margin_is_left() {
        let gpu = |free: usize, total: usize| Device {
            name: "CUDA0".into(),
            description: String::new(),
            kind: DeviceKind::Gpu,
            memory_free: free,
            memory_total: total,
        };
        let (small, large) = (gpu(3 << 30, 4 << 30), gpu(20 << 30, 24 << 30));
        let taken = |device: &Device, margin| {
            gpus(std::slice::from_ref(device), &ModelParams { gpu_margin: margin, ..ModelParams::default() })["CUDA0"]
        };
        assert_eq!(taken(&small, None), 5 << 29);
        assert_eq!(taken(&large, None), 19 << 30);
        assert_eq!(taken(&large, Some(0)), 20 << 30);
        assert_eq!(taken(&large, Some(u64::MAX)), 0);
        let none = ModelParams { n_gpu_layers: Some(0), ..ModelParams::default() };
        assert_eq!(gpus(&[large], &none), Bytes::new());
    }
}
