//! The memory of a context: the types of a KV cache, and the allocated bytes.

use super::call::guarded;
use crate::error::Error;
use crate::ffi;
use std::ffi::{CStr, c_char};

macro_rules! kv_types {
    ($($variant:ident $name:literal $raw:ident $doc:literal),+ $(,)?) => {
        /// How keys or values are stored in the KV cache.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
        #[derive(strum::EnumString, strum::IntoStaticStr, strum::VariantNames)]
        #[strum(parse_err_ty = Error, parse_err_fn = unknown_type)]
        #[non_exhaustive]
        pub enum KvType {
            $(#[doc = $doc] #[serde(rename = $name)] #[strum(serialize = $name)] $variant),+
        }

        impl KvType {
            /// Every type, in the order of llama.cpp's help.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// llama.cpp's name of the type.
            pub fn name(self) -> &'static str {
                self.into()
            }

            pub(super) fn as_raw(self) -> ffi::ggml_type {
                match self { $(Self::$variant => ffi::$raw),+ }
            }
        }
    };
}

kv_types! {
    F32 "f32" GGML_TYPE_F32 "32-bit floats.",
    F16 "f16" GGML_TYPE_F16 "16-bit floats.",
    Bf16 "bf16" GGML_TYPE_BF16 "bfloat16.",
    Q8_0 "q8_0" GGML_TYPE_Q8_0 "8 bits per value, in blocks of 32 with a scale.",
    Q4_0 "q4_0" GGML_TYPE_Q4_0 "4 bits per value, in blocks of 32 with a scale.",
    Q4_1 "q4_1" GGML_TYPE_Q4_1 "4 bits per value, in blocks of 32 with a scale and an offset.",
    Iq4Nl "iq4_nl" GGML_TYPE_IQ4_NL "4 bits per value, not linear, in blocks of 32 with a scale.",
    Q5_0 "q5_0" GGML_TYPE_Q5_0 "5 bits per value, in blocks of 32 with a scale.",
    Q5_1 "q5_1" GGML_TYPE_Q5_1 "5 bits per value, in blocks of 32 with a scale and an offset.",
}

fn unknown_type(name: &str) -> Error {
    Error::unknown_name::<KvType>("the type of the cache", name)
}

/// Bytes allocated by a context, over all devices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct MemoryUsage {
    /// The model's weights.
    pub model: u64,
    /// The KV cache, recurrent states and outputs.
    pub context: u64,
    /// Buffers for intermediate results.
    pub compute: u64,
}

impl MemoryUsage {
    pub(super) fn of(context: *const ffi::llama_context) -> Self {
        let mut raw = ffi::sharpv_memory::default();
        // SAFETY: the caller's context lives; the struct is filled by the call. A failure (out of memory) leaves zeros.
        unsafe { ffi::sharpv_memory_breakdown(context, &mut raw, std::ptr::null_mut(), 0) };
        raw.into()
    }

    /// The sum.
    pub fn total(&self) -> u64 {
        self.model + self.context + self.compute
    }
}

/// Bytes on one device.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct DeviceMemory {
    /// The device, by [`Device::name`](super::Device::name); `CPU` is the system's memory.
    pub device: String,
    /// The bytes on it.
    pub usage: MemoryUsage,
}

#[cfg(test)]
impl DeviceMemory {
    pub(crate) fn new(device: &str, usage: MemoryUsage) -> Self {
        Self { device: device.to_owned(), usage }
    }
}

/// More devices than llama.cpp uses at once.
const MAX_DEVICES: usize = 32;

/// Calls one of the functions of `shim.h` that write an array of devices. The arguments of `call` are the array and its
/// length, where the number of devices goes, and a buffer for an exception's message with its length.
pub(super) fn by_device(
    call: impl FnOnce(*mut ffi::sharpv_device_memory, usize, *mut usize, *mut c_char, usize) -> i32,
) -> Result<Vec<DeviceMemory>, String> {
    let empty = ([ffi::sharpv_device_memory::default(); MAX_DEVICES], 0);
    let (found, n) = guarded(empty, |(out, n): &mut ([_; MAX_DEVICES], usize), err, err_len| {
        call(out.as_mut_ptr(), out.len(), n, err, err_len)
    })
    .into_result()?;
    let describe = |entry: &ffi::sharpv_device_memory| {
        // SAFETY: our C++ ends the name with a zero, within the array.
        let device = unsafe { CStr::from_ptr(entry.device.as_ptr()) }.to_string_lossy().into_owned();
        DeviceMemory { device, usage: MemoryUsage::from(entry.bytes) }
    };
    Ok(found.iter().take(n).map(describe).collect())
}

impl From<ffi::sharpv_memory> for MemoryUsage {
    fn from(raw: ffi::sharpv_memory) -> Self {
        Self { model: raw.model as u64, context: raw.context as u64, compute: raw.compute as u64 }
    }
}
