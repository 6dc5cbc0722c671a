//! The machine that a bench ran on.

use crate::lab::results::{GpuFacts, Machine};
use crate::runtime::{self, DeviceKind};

/// How busy the processor may be with other things before times become noise: a share of its cores.
const BUSY: f64 = 0.3;

impl Machine {
    /// This one, now.
    pub fn here() -> Self {
        let cpu = sysinfo::System::new().ok().and_then(|mut system| {
            system.refresh_cpu_all();
            system.cpus().first().map(|cpu| cpu.brand().trim().to_owned())
        });
        // Windows has no such number, and gets zeros.
        let load = sysinfo::System::load_average().ok().map(|load| load.one);
        let gpus = runtime::devices().into_iter().filter(|device| device.kind == DeviceKind::Gpu);
        Self {
            os: std::env::consts::OS.to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            cpu: cpu.unwrap_or_default(),
            cores: runtime::default_threads(),
            load_before: load.filter(|_| cfg!(unix)),
            gpus: gpus
                .map(|gpu| GpuFacts {
                    name: gpu.name,
                    description: gpu.description,
                    memory_bytes: gpu.memory_total as u64,
                })
                .collect(),
        }
    }

    /// A warning, if it is busy with something else.
    pub fn busy(&self) -> Option<String> {
        let load = self.load_before.filter(|load| *load > BUSY * self.cores as f64)?;
        Some(format!(
            "the machine is busy (load {load:.1} on {} cores): times will be noise; ratios suffer less, as methods take turns",
            self.cores
        ))
    }
}

/// Free memory of all GPUs; `None` without a GPU that tells.
pub fn gpu_bytes_free() -> Option<u64> {
    let devices = runtime::devices();
    let gpus = devices.iter().filter(|device| device.kind == DeviceKind::Gpu && device.memory_total > 0);
    gpus.map(|gpu| gpu.memory_free as u64).reduce(|a, b| a + b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_machine_is_told() {
        let machine = |load| Machine { load_before: load, cores: 4, ..Machine::here() };
        assert_eq!(machine(None).busy(), None);
        assert_eq!(machine(Some(1.0)).busy(), None);
        assert!(machine(Some(2.0)).busy().unwrap().contains("load 2.0 on 4 cores"));
    }
}
