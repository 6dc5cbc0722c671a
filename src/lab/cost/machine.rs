//! The machine that a bench ran on.

use crate::lab::results::{GpuFacts, Machine};
use crate::runtime::{self, DeviceKind};

/// The load of other programs, as a share of the cores, from which on times are considered noise.
const BUSY: f64 = 0.3;

impl Machine {
    /// This machine, and its load now.
    pub fn here() -> Self {
        let cpu = sysinfo::System::new().ok().and_then(|mut system| {
            system.refresh_cpu_all();
            system.cpus().first().map(|cpu| cpu.brand().trim().to_owned())
        });
        // Windows has no load average: there it is zero.
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

    /// A warning, if other programs use the machine.
    pub fn busy(&self) -> Option<String> {
        let load = self.load_before.filter(|load| *load > BUSY * self.cores as f64)?;
        Some(format!(
            "the machine is busy (load {load:.1} on {} cores): times are noise; ratios are less affected, because methods take turns",
            self.cores
        ))
    }
}

/// Free memory of all GPUs, in bytes; `None` without a GPU that reports it.
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
