//! How much memory a model may take on this machine.

use sharpv::runtime::{self, Device, DeviceKind, ModelParams};

/// The share of the system's memory that a model may take: the rest is for the system and what else runs. Of the whole of it, not of what is
/// free: which file is fetched should not hang on what runs at the moment.
const SYSTEM_SHARE: f64 = 0.8;

/// Bytes that a model loaded with `params` may take: what is free on the GPUs that it uses, or most of the system's memory where there is none.
/// `None` where the machine does not say.
pub fn for_model(params: &ModelParams) -> Option<u64> {
    of(&runtime::devices(), params)
}

fn of(devices: &[Device], params: &ModelParams) -> Option<u64> {
    let of_kind = |kind: DeviceKind| devices.iter().filter(move |device| device.kind == kind);
    let gpus = of_kind(DeviceKind::Gpu).filter(|gpu| params.uses_gpu(&gpu.name));
    let free: u64 = gpus.map(|gpu| gpu.memory_free as u64).sum();
    if free > 0 {
        return Some(free);
    }
    let total = of_kind(DeviceKind::Cpu).map(|device| device.memory_total as u64).max().filter(|&bytes| bytes > 0)?;
    Some((total as f64 * SYSTEM_SHARE) as u64)
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
        let all = ModelParams::default();
        let second = ModelParams { devices: vec!["cuda1".into()], ..all.clone() };
        let none = ModelParams { n_gpu_layers: Some(0), ..all.clone() };
        assert_eq!(of(&devices, &all), Some(500));
        assert_eq!(of(&devices, &second), Some(200));
        assert_eq!(of(&devices, &none), Some(800));
        assert_eq!(of(&devices[1..], &none), None);
    }
}
