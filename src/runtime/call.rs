//! Calling llama.cpp: exceptions become errors, and what it logs becomes their reason.

use super::log;
use crate::ffi;
use std::ffi::{CStr, c_char};

/// What a guarded call came to.
pub(super) struct Outcome<T> {
    /// What the function returned, or nothing if it threw.
    pub value: Option<T>,
    /// Why it failed, if it did: the exception's message, or else what llama.cpp logged meanwhile.
    pub reason: String,
}

impl<T> Outcome<T> {
    /// The value, or the reason why there is none.
    pub fn into_result(self) -> Result<T, String> {
        self.value.ok_or(self.reason)
    }
}

/// Runs one of the `sharpv_try_…` functions. `call` passes on what it is given: where the result goes, and the buffer
/// for an exception's message with its length.
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
