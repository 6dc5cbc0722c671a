//! Free memory: for the weights of a model before it is loaded, and for the KV cache of one that is loaded.

use super::{Device, DeviceKind, Model, ModelParams, devices};

/// Memory that can be allocated.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct FreeMemory {
    /// Bytes that can be allocated.
    pub bytes: u64,
    /// Where they are: `RAM`, or the names of the GPUs.
    pub place: String,
    /// Whether it is the system's memory, which also holds everything else of a program.
    pub is_system: bool,
}

/// The share of the system's memory that a model's weights may occupy; the rest is for the system and other programs.
/// A share of all memory, not of what is free: which file is fetched must not depend on what is running.
const WEIGHTS_SHARE: f64 = 0.8;

/// The share of the free memory that a KV cache may occupy; the rest is for other programs, which may grow.
const KV_SHARE: f64 = 0.95;

impl FreeMemory {
    /// Returns the memory for the weights of a model that will be loaded with `params`: what is free on the GPUs that
    /// it uses, or else most of the system's memory. `None` if the machine does not report it.
    pub fn for_weights(params: &ModelParams) -> Option<Self> {
        weights(&devices(), params)
    }

    /// Returns the memory for the KV cache and the buffers of `model`. With `offload_kv`, they are on the devices of
    /// their layers. If GPUs and the system share the layers, each holds its part of the cache, and
    /// [`place`](Self::place) is the one that fills up first. `beside` returns the bytes that something else will
    /// occupy, on the GPUs and in the system's memory. `None` if the machine does not report its memory.
    pub fn for_kv(model: &Model, offload_kv: bool, beside: impl Fn(&Self) -> u64) -> Option<Self> {
        let params = model.params();
        let usable = |free: Self| {
            let free = free.share(KV_SHARE);
            Self { bytes: free.bytes.saturating_sub(beside(&free)), ..free }
        };
        let system = free_system_bytes().map(|bytes| usable(Self::system(bytes)));
        match used_gpus(&devices(), params).filter(|_| offload_kv) {
            Some(gpus) => parted(usable(gpus), system, share_on_gpus(model.n_layer(), params.n_gpu_layers)),
            None => system,
        }
    }

    fn system(bytes: u64) -> Self {
        Self { bytes, place: "RAM".into(), is_system: true }
    }

    fn share(self, share: f64) -> Self {
        Self { bytes: (self.bytes as f64 * share) as u64, ..self }
    }
}

/// The share of a model's KV cache that is on GPUs: a layer's cache is where the layer is. The output layer counts as
/// one of `n_gpu_layers`, is offloaded first, and has no cache.
fn share_on_gpus(n_layer: usize, n_gpu_layers: Option<u32>) -> f64 {
    let n = n_gpu_layers.map_or(n_layer, |n| (n as usize).saturating_sub(1).min(n_layer));
    n as f64 / n_layer.max(1) as f64
}

/// The most that can be allocated in all, if the share `on_gpus` of it goes to `gpus` and the rest to `system`. `None`
/// if all of it goes to memory of unknown size.
fn parted(gpus: FreeMemory, system: Option<FreeMemory>, on_gpus: f64) -> Option<FreeMemory> {
    let there = (on_gpus > 0.0).then(|| gpus.share(1.0 / on_gpus));
    let here = system.filter(|_| on_gpus < 1.0).map(|system| system.share(1.0 / (1.0 - on_gpus)));
    there.into_iter().chain(here).min_by_key(|free| free.bytes)
}

/// Returns the bytes that this process can still allocate, within the limit of its container if it has one; `None` if
/// the system does not report them.
pub fn free_system_bytes() -> Option<u64> {
    let mut system = sysinfo::System::new().ok()?;
    system.refresh_memory();
    let available = Some(system.available_memory()).filter(|&bytes| bytes > 0)?;
    Some(system.cgroup_limits().map_or(available, |limits| available.min(limits.free_memory)))
}

fn weights(devices: &[Device], params: &ModelParams) -> Option<FreeMemory> {
    if let Some(gpus) = used_gpus(devices, params).filter(|gpus| gpus.bytes > 0) {
        return Some(gpus);
    }
    let cpus = devices.iter().filter(|device| device.kind == DeviceKind::Cpu);
    let total = cpus.map(|device| device.memory_total as u64).max().filter(|&bytes| bytes > 0)?;
    Some(FreeMemory::system(total).share(WEIGHTS_SHARE))
}

/// The free memory of the GPUs that a model with `params` uses; `None` if it uses none.
fn used_gpus(devices: &[Device], params: &ModelParams) -> Option<FreeMemory> {
    let is_used = |d: &&Device| d.kind == DeviceKind::Gpu && d.memory_total > 0 && params.uses_gpu(&d.name);
    let gpus: Vec<&Device> = devices.iter().filter(is_used).collect();
    (!gpus.is_empty()).then(|| FreeMemory {
        bytes: gpus.iter().map(|gpu| gpu.memory_free as u64).sum(),
        place: gpus.iter().map(|gpu| gpu.name.as_str()).collect::<Vec<_>>().join(", "),
        is_system: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_that_are_not_used_do_not_count() {
        let device = |name: &str, kind, memory_free| Device {
            name: name.into(),
            description: String::new(),
            kind,
            memory_free,
            memory_total: 1000,
        };
        let devices = [
            device("CPU", DeviceKind::Cpu, 500),
            device("CUDA0", DeviceKind::Gpu, 300),
            device("CUDA1", DeviceKind::Gpu, 200),
        ];
        let of = |devices: &[Device], params: &ModelParams| weights(devices, params).map(|free| free.bytes);
        let all = ModelParams::default();
        let second = ModelParams { devices: vec!["cuda1".into()], ..all.clone() };
        let none = ModelParams { n_gpu_layers: Some(0), ..all.clone() };
        assert_eq!(of(&devices, &all), Some(500));
        assert_eq!(of(&devices, &second), Some(200));
        assert_eq!(of(&devices, &none), Some(800));
        assert_eq!(of(&devices[1..], &none), None);
        assert_eq!(weights(&devices, &all).map(|free| free.place), Some("CUDA0, CUDA1".into()));
    }

    #[test]
    fn each_place_holds_its_part() {
        const GB: u64 = 1 << 30;
        let gpus = |bytes| FreeMemory { bytes, place: "CUDA0".into(), is_system: false };
        // Free on the GPU, free in RAM, layers on the GPU of 32 and the output, what fits in all, what fills up first.
        for (there, here, n_gpu_layers, fits, place) in [
            // Only the output is on the GPU, and nothing of the cache.
            (GB, 8 * GB, Some(1), 8 * GB, "RAM"),
            (0, 8 * GB, Some(0), 8 * GB, "RAM"),
            // One layer of 32 is on the GPU, 31 are in RAM.
            (GB, 31 * GB, Some(2), 32 * GB, "CUDA0"),
            (GB, 3 * GB, Some(2), 3 * GB * 32 / 31, "RAM"),
            (GB, 100 * GB, Some(2), 32 * GB, "CUDA0"),
            // Half and half: twice the smaller one.
            (2 * GB, 3 * GB, Some(17), 4 * GB, "CUDA0"),
            (3 * GB, 2 * GB, Some(17), 4 * GB, "RAM"),
            (0, 8 * GB, Some(17), 0, "CUDA0"),
            // All layers are on the GPU: RAM does not count.
            (2 * GB, 0, Some(33), 2 * GB, "CUDA0"),
            (2 * GB, 0, Some(99), 2 * GB, "CUDA0"),
            (2 * GB, 0, None, 2 * GB, "CUDA0"),
        ] {
            let found = parted(gpus(there), Some(FreeMemory::system(here)), share_on_gpus(32, n_gpu_layers));
            let found = found.expect("both are known");
            let what = format!("{there} there, {here} here, {n_gpu_layers:?}: {found:?}");
            assert!(found.bytes.abs_diff(fits) < 1 << 10, "{what} in place of {fits}");
            // If both fill up at once, either may be named.
            assert!(found.place == place || (there, here) == (GB, 31 * GB), "{what}");
        }
        // The system may not report what is free.
        assert_eq!(parted(gpus(GB), None, 0.5).map(|free| free.bytes), Some(2 * GB));
        assert_eq!(parted(gpus(GB), None, 0.0), None);
    }

    #[test]
    fn this_system_tells_its_memory() {
        assert!(free_system_bytes().expect("a number") > 1 << 20);
    }
}
