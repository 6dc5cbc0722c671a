//! A handler that runs before llama.cpp aborts the process.
//!
//! If an assertion of ggml fails, the process must end. ggml's own handler writes the assertion to stderr and starts a
//! debugger for a backtrace. A program can replace it.

use super::log;
use crate::ffi;
use std::cell::RefCell;
use std::ffi::{CStr, c_char};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

thread_local! {
    /// The file that this thread is loading, or whose network it is running.
    static AT_WORK_ON: RefCell<Option<PathBuf>> = const { RefCell::new(None) };
}

static HANDLER: OnceLock<fn(&Abort<'_>)> = OnceLock::new();

/// Why llama.cpp is about to abort the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Abort<'a> {
    /// What failed, and where in llama.cpp's code: `/path/ggml.c:123: GGML_ASSERT(…) failed`. What llama.cpp logged
    /// just before follows in parentheses; if a GPU failed, only this says why.
    pub reason: &'a str,
    /// The file that llama.cpp was loading, or whose network it was running, if known.
    pub file: Option<&'a Path>,
}

/// Replaces ggml's handler: `handler` runs before llama.cpp aborts the process, which happens when it returns.
///
/// Call this before anything else of this library. Only the first call has an effect.
pub fn on_abort(handler: fn(&Abort<'_>)) {
    if HANDLER.set(handler).is_ok() {
        // SAFETY: `forward` matches the callback type and never unwinds. ggml keeps the pointer in a variable that is
        // read when it aborts.
        unsafe { ffi::ggml_set_abort_callback(Some(forward)) };
    }
}

/// Runs `work` with the file at `path`. If it aborts, the handler gets the path.
pub(super) fn at_work_on<T>(path: &Path, work: impl FnOnce() -> T) -> T {
    let outer = AT_WORK_ON.replace(Some(path.to_owned()));
    let result = work();
    AT_WORK_ON.set(outer);
    result
}

unsafe extern "C" fn forward(reason: *const c_char) {
    let Some(handler) = HANDLER.get().filter(|_| !reason.is_null()) else { return };
    // SAFETY: ggml passes a NUL-terminated string that lives during the call.
    let mut reason = unsafe { CStr::from_ptr(reason) }.to_string_lossy();
    // A panic must not unwind into C++. A thread that is ending has no thread-locals, hence `try_with`.
    let _ = std::panic::catch_unwind(move || {
        if let Some(logged) = log::captured() {
            reason = format!("{reason} ({logged})").into();
        }
        let file = AT_WORK_ON.try_with(|file| file.try_borrow().ok()?.clone()).ok().flatten();
        handler(&Abort { reason: &reason, file: file.as_deref() });
    });
}
