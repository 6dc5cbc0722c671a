//! Guarded calls of llama.cpp: exceptions become errors, and what it logs becomes their reason.

use super::log;
use crate::ffi;
use std::ffi::{CStr, c_char};

/// The result of a guarded call.
pub(super) struct Outcome<T> {
    /// What the function returned; `None` if it threw.
    pub value: Option<T>,
    /// Why the call failed, if it did: the exception's message, or else what llama.cpp logged during the call.
    pub reason: String,
}

impl<T> Outcome<T> {
    /// Returns the value, or the reason why there is none.
    pub fn into_result(self) -> Result<T, String> {
        self.value.ok_or(self.reason)
    }
}

/// Runs one of the `sharpv_try_…` functions. `call` passes its arguments on to it: where the result goes, and a buffer
/// for the exception's message, with its length.
pub(super) fn guarded<T>(initial: T, call: impl FnOnce(&mut T, *mut c_char, usize) -> i32) -> Outcome<T> {
    let mut value = initial;
    let mut message = [0_u8; 512];
    let (status, logged) = log::capture(|| call(&mut value, message.as_mut_ptr().cast(), message.len()));
    if status == ffi::SHARPV_OK as i32 {
        return Outcome { value: Some(value), reason: logged };
    }
    let message = CStr::from_bytes_until_nul(&message).map(|m| m.to_string_lossy().into_owned()).unwrap_or_default();
    Outcome { value: None, reason: if message.is_empty() { logged } else { message } }
}
