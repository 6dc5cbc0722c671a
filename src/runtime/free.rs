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

    /// For the KV cache and the buffers of `model`; `offload_kv`: they go where the layers are. `None` where the
    /// machine does not say.
    pub fn for_kv(model: &Model, offload_kv: bool) -> Option<Self> {
        let params = model.params();
        let gpus = used_gpus(&devices(), params);
        // A layer's cache is where the layer is.
        let n_layer = model.n_layer().max(1);
        let on_gpu = params.n_gpu_layers.map_or(n_layer, |n| (n as usize).min(n_layer)) as f64 / n_layer as f64;
        match gpus {
            Some(gpus) if offload_kv => Some(gpus.share(KV_SHARE / on_gpu)),
            _ => Some(Self::system(free_system_bytes()?).share(KV_SHARE)),
        }
    }

    fn system(bytes: u64) -> Self {
        Self { bytes, place: "RAM".into(), is_system: true }
    }

    fn share(self, share: f64) -> Self {
        Self { bytes: (self.bytes as f64 * share) as u64, ..self }
    }
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
    fn this_system_tells_its_memory() {
        assert!(free_system_bytes().expect("a number") > 1 << 20);
    }
}
