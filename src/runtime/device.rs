//! The devices that this build can use.

use super::backend;
use super::call::guarded;
use crate::error::{Error, Result};
use crate::ffi;
use std::collections::BTreeMap;
use std::ffi::{CStr, c_char};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// What kind of processor a [`Device`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DeviceKind {
    /// The main processor, with system memory.
    Cpu,
    /// A GPU with its own memory, or a device of another machine.
    Gpu,
    /// A GPU that shares the system's memory.
    IntegratedGpu,
    /// An accelerator that assists the CPU, such as AMX or BLAS.
    Accelerator,
}

/// One device of ggml's registry.
#[derive(Debug, Clone, serde::Serialize)]
#[non_exhaustive]
pub struct Device {
    /// ggml's name, for example `CUDA0`. [`ModelParams::devices`](super::ModelParams::devices) uses it.
    pub name: String,
    /// The product's name; for a device of another machine, the address of its server.
    pub description: String,
    /// What kind of processor it is.
    pub kind: DeviceKind,
    /// Free memory in bytes; 0 if the device does not report it.
    pub memory_free: usize,
    /// Total memory in bytes; 0 if the device does not report it.
    pub memory_total: usize,
}

/// A device of ggml's registry, which lives as long as the program.
#[derive(Debug, Clone, Copy)]
pub(super) struct Handle(pub ffi::ggml_backend_dev_t);

// SAFETY: devices are tied to no thread.
unsafe impl Send for Handle {}
// SAFETY: ggml locks what changes in a device.
unsafe impl Sync for Handle {}

/// The devices of the RPC servers that were added, by address. The lock also guards ggml's registry, which has none.
type Added = BTreeMap<String, Vec<Handle>>;
static ADDED: RwLock<Added> = RwLock::new(BTreeMap::new());

/// Keeps ggml's registry from changing while llama.cpp reads it.
pub(super) fn hold_registry() -> RwLockReadGuard<'static, Added> {
    ADDED.read().unwrap_or_else(PoisonError::into_inner)
}

/// Locks ggml's registry in order to change it.
pub(super) fn change_registry() -> RwLockWriteGuard<'static, Added> {
    ADDED.write().unwrap_or_else(PoisonError::into_inner)
}

/// Returns every device of this build, in ggml's order, and then those of the RPC servers that were added. Empty on a
/// processor that cannot run this build ([`check_processor`](super::check_processor)).
pub fn devices() -> Vec<Device> {
    if backend::init().is_err() {
        return Vec::new();
    }
    handles().into_iter().map(|Handle(device)| describe(device)).collect()
}

fn handles() -> Vec<Handle> {
    let _registry = hold_registry();
    // SAFETY: the registry was filled by `backend::init` and does not change while it is held; indices are below its
    // count.
    (0..unsafe { ffi::ggml_backend_dev_count() }).map(|i| Handle(unsafe { ffi::ggml_backend_dev_get(i) })).collect()
}

/// Opens Vulkan's devices. ggml would open them when they are first used, without a lock: if two models were loaded at
/// once, the second could find a device half initialized and call null function pointers.
pub(super) fn open_vulkan() {
    let vulkan = |handle: &Handle| name(handle.0).starts_with("Vulkan");
    for Handle(device) in handles().into_iter().filter(vulkan) {
        // A device that cannot be opened throws, and reports why when it is used.
        // SAFETY: `device` comes from the registry.
        let _ = guarded(std::ptr::null_mut(), |buffers, err, err_len| unsafe {
            ffi::sharpv_try_dev_buffer_type(device, buffers, err, err_len)
        });
    }
}

fn name(device: ffi::ggml_backend_dev_t) -> String {
    // SAFETY: `device` comes from the registry; the string is owned by the device.
    unsafe { text(ffi::ggml_backend_dev_name(device)) }
}

pub(super) fn describe(device: ffi::ggml_backend_dev_t) -> Device {
    let (mut memory_free, mut memory_total) = (0, 0);
    // A server that was lost has no memory to offer. Using it reports why.
    // SAFETY: `device` comes from the registry, whose entries live as long as the program.
    let _ = guarded((), |(), err, err_len| unsafe {
        ffi::sharpv_try_dev_memory(device, &mut memory_free, &mut memory_total, err, err_len)
    });
    // SAFETY: as above.
    let kind = unsafe { ffi::ggml_backend_dev_type(device) };
    let kind = match kind {
        ffi::GGML_BACKEND_DEVICE_TYPE_GPU | ffi::GGML_BACKEND_DEVICE_TYPE_META => DeviceKind::Gpu,
        ffi::GGML_BACKEND_DEVICE_TYPE_IGPU => DeviceKind::IntegratedGpu,
        ffi::GGML_BACKEND_DEVICE_TYPE_ACCEL => DeviceKind::Accelerator,
        _ => DeviceKind::Cpu,
    };
    // SAFETY: as above; the string is owned by the device.
    let description = unsafe { text(ffi::ggml_backend_dev_description(device)) };
    Device { name: name(device), description, kind, memory_free, memory_total }
}

/// Returns the handles of the devices with these names. A null pointer ends the list, as llama.cpp requires.
pub(super) fn by_names(names: &[String]) -> Result<Vec<ffi::ggml_backend_dev_t>> {
    backend::init()?;
    let all = handles();
    let mut found = Vec::with_capacity(names.len() + 1);
    for wanted in names {
        let handle = all.iter().find(|handle| name(handle.0).eq_ignore_ascii_case(wanted));
        let handle = handle.ok_or_else(|| Error::InvalidParameter {
            name: "device",
            value: wanted.clone(),
            expected: format!("one of {}", all.iter().map(|handle| name(handle.0)).collect::<Vec<_>>().join(", ")),
        })?;
        found.push(handle.0);
    }
    found.push(std::ptr::null_mut());
    Ok(found)
}

/// Copies a C string; empty if it is null.
fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: ggml's strings are NUL-terminated and live as long as their device.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}
