//! The devices that this build can compute on.

use super::backend;
use crate::error::{Error, Result};
use crate::ffi;
use std::ffi::{CStr, c_char};

/// What kind of processor a [`Device`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DeviceKind {
    /// The main processor, with system memory.
    Cpu,
    /// A GPU with memory of its own.
    Gpu,
    /// A GPU that shares the system's memory.
    IntegratedGpu,
    /// An accelerator that works together with the CPU, such as AMX or BLAS.
    Accelerator,
}

/// One device of ggml's registry.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Device {
    /// ggml's name, as `--device` takes it, for example `CUDA0`.
    pub name: String,
    /// The product's name.
    pub description: String,
    /// What it is.
    pub kind: DeviceKind,
    /// Free memory in bytes; 0 if the device does not say.
    pub memory_free: usize,
    /// All its memory in bytes; 0 if the device does not say.
    pub memory_total: usize,
}

/// Every device of this build, in ggml's order.
pub fn devices() -> Vec<Device> {
    backend::init();
    // SAFETY: the registry is filled by `backend::init` and constant from then on; indices are below its count.
    (0..unsafe { ffi::ggml_backend_dev_count() }).map(|i| describe(unsafe { ffi::ggml_backend_dev_get(i) })).collect()
}

fn describe(device: ffi::ggml_backend_dev_t) -> Device {
    let (mut memory_free, mut memory_total) = (0, 0);
    // SAFETY: `device` comes from the registry, whose entries live as long as the program.
    let kind = unsafe {
        ffi::ggml_backend_dev_memory(device, &mut memory_free, &mut memory_total);
        ffi::ggml_backend_dev_type(device)
    };
    let kind = match kind {
        ffi::GGML_BACKEND_DEVICE_TYPE_GPU | ffi::GGML_BACKEND_DEVICE_TYPE_META => DeviceKind::Gpu,
        ffi::GGML_BACKEND_DEVICE_TYPE_IGPU => DeviceKind::IntegratedGpu,
        ffi::GGML_BACKEND_DEVICE_TYPE_ACCEL => DeviceKind::Accelerator,
        _ => DeviceKind::Cpu,
    };
    // SAFETY: as above; the strings are owned by the device.
    let (name, description) =
        unsafe { (text(ffi::ggml_backend_dev_name(device)), text(ffi::ggml_backend_dev_description(device))) };
    Device { name, description, kind, memory_free, memory_total }
}

/// The handles of the devices with these names, ended by a null pointer, as llama.cpp wants its list.
pub(super) fn by_names(names: &[String]) -> Result<Vec<ffi::ggml_backend_dev_t>> {
    let mut handles = Vec::with_capacity(names.len() + 1);
    for name in names {
        // SAFETY: see `devices`.
        let found = (0..unsafe { ffi::ggml_backend_dev_count() })
            .map(|i| unsafe { ffi::ggml_backend_dev_get(i) })
            .find(|&device| describe(device).name.eq_ignore_ascii_case(name));
        handles.push(found.ok_or_else(|| Error::InvalidParameter {
            name: "device",
            value: name.clone(),
            expected: format!("one of {}", devices().iter().map(|d| d.name.as_str()).collect::<Vec<_>>().join(", ")),
        })?);
    }
    handles.push(std::ptr::null_mut());
    Ok(handles)
}

/// Copies a C string that may be null.
fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: ggml's strings are NUL-terminated and live as long as their device.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}
