//! How much memory there is: for the weights of a model that is to be loaded, and for the KV cache of one that is.

use super::{Device, DeviceKind, Model, ModelParams, devices};

/// Memory that can be taken.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct FreeMemory {
    /// Bytes that can be taken.
    pub bytes: u64,
    /// Where they are: `RAM`, or the names of the GPUs.
    pub place: String,
    /// The system's memory, which holds everything else of a program, too.
    pub is_system: bool,
}

/// The share of the system's memory that a model may take: the rest is for the system and what else runs. Of the whole
/// of it, not of what is free: which file is fetched should not hang on what runs at the moment.
const WEIGHTS_SHARE: f64 = 0.8;

/// What a KV cache may take of the memory that is free: other programs grow as well.
const KV_SHARE: f64 = 0.95;

impl FreeMemory {
    /// For the weights of a model that is to be loaded with `params`: what is free on the GPUs that it uses, or most of
    /// the system's memory where there is none. `None` where the machine does not say.
    pub fn for_weights(params: &ModelParams) -> Option<Self> {
        weights(&devices(), params)
    }

    /// For the KV cache and the buffers of `model`; `offload_kv`: they go where the layers are. Where that is in two
    /// places, each holds its part, and [`place`](Self::place) is the one that is full first. `beside` is what else
    /// will be taken of the GPUs, and of the system's memory. `None` where the machine does not say.
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

/// The share of a model's KV cache that is on GPUs: a layer's cache is where the layer is. The output behind the last
/// layer counts as one, is the first to go there, and has no cache.
fn share_on_gpus(n_layer: usize, n_gpu_layers: Option<u32>) -> f64 {
    let n = n_gpu_layers.map_or(n_layer, |n| (n as usize).saturating_sub(1).min(n_layer));
    n as f64 / n_layer.max(1) as f64
}

/// What something can take in all, of which the share `on_gpus` goes to `gpus` and the rest to `system`; `None` if the
/// place of all of it is not known.
fn parted(gpus: FreeMemory, system: Option<FreeMemory>, on_gpus: f64) -> Option<FreeMemory> {
    let there = (on_gpus > 0.0).then(|| gpus.share(1.0 / on_gpus));
    let here = system.filter(|_| on_gpus < 1.0).map(|system| system.share(1.0 / (1.0 - on_gpus)));
    there.into_iter().chain(here).min_by_key(|free| free.bytes)
}

/// Memory that the system could still give this process, in bytes, within the limit of its container if it has one;
/// `None` where the system does not tell.
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

/// What is free on the GPUs that a model with `params` uses; `None` if there are none.
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
        // Free there and here, the layers there of 32 (the output is one), what fits in all and where it ends.
        for (there, here, n_gpu_layers, fits, place) in [
            // The output alone is there: nothing of the cache.
            (GB, 8 * GB, Some(1), 8 * GB, "RAM"),
            (0, 8 * GB, Some(0), 8 * GB, "RAM"),
            // One layer of 32: 31 parts of 32 are here.
            (GB, 31 * GB, Some(2), 32 * GB, "CUDA0"),
            (GB, 3 * GB, Some(2), 3 * GB * 32 / 31, "RAM"),
            (GB, 100 * GB, Some(2), 32 * GB, "CUDA0"),
            // Half and half: the smaller of the two, twice.
            (2 * GB, 3 * GB, Some(17), 4 * GB, "CUDA0"),
            (3 * GB, 2 * GB, Some(17), 4 * GB, "RAM"),
            (0, 8 * GB, Some(17), 0, "CUDA0"),
            // All of them: what is here does not count.
            (2 * GB, 0, Some(33), 2 * GB, "CUDA0"),
            (2 * GB, 0, Some(99), 2 * GB, "CUDA0"),
            (2 * GB, 0, None, 2 * GB, "CUDA0"),
        ] {
            let found = parted(gpus(there), Some(FreeMemory::system(here)), share_on_gpus(32, n_gpu_layers));
            let found = found.expect("both are known");
            let what = format!("{there} there, {here} here, {n_gpu_layers:?}: {found:?}");
            assert!(found.bytes.abs_diff(fits) < 1 << 10, "{what} in place of {fits}");
            // Where both are full at once, either is named.
            assert!(found.place == place || (there, here) == (GB, 31 * GB), "{what}");
        }
        // The system may not say what is free.
        assert_eq!(parted(gpus(GB), None, 0.5).map(|free| free.bytes), Some(2 * GB));
        assert_eq!(parted(gpus(GB), None, 0.0), None);
    }

    #[test]
    fn this_system_tells_its_memory() {
        assert!(free_system_bytes().expect("a number") > 1 << 20);
    }
}
