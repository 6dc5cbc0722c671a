//! llama.cpp's log: forwarded to `tracing`, and captured for error messages.
//!
//! llama.cpp reports most failures as a null pointer and a line in its log. [`capture`] collects the warnings and
//! errors of one call, so that our errors can state the reason.

use crate::error::NO_REASON;
use crate::ffi;
use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_char, c_void};

thread_local! {
    /// The unfinished line of this thread: llama.cpp logs a line in several calls.
    static LINE: RefCell<(i64, String)> = const { RefCell::new((0, String::new())) };
    /// Warnings and errors since the innermost `capture` on this thread began.
    static CAPTURED: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
    /// Whether lines are only captured, and not forwarded to `tracing`.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Sends the log of llama, ggml and mtmd to [`forward`]. Called once, when the backend starts.
pub(super) fn install() {
    // SAFETY: `forward` matches the callback type, needs no user data and never unwinds.
    unsafe {
        ffi::llama_log_set(Some(forward), std::ptr::null_mut());
        ffi::mtmd_helper_log_set(Some(forward), std::ptr::null_mut());
    }
}

/// Runs `call` and returns its result, and the reason that llama.cpp logged on this thread during the call.
pub(super) fn capture<T>(call: impl FnOnce() -> T) -> (T, String) {
    let outer = CAPTURED.with_borrow_mut(|lines| lines.replace(Vec::new()));
    let result = call();
    let lines = CAPTURED.with_borrow_mut(|lines| std::mem::replace(lines, outer)).unwrap_or_default();
    (result, reason_of(&lines))
}

/// Runs `call`, which only tries something, without forwarding its log. Reasons are still captured.
pub(super) fn quietly<T>(call: impl FnOnce() -> T) -> T {
    let outer = QUIET.replace(true);
    let result = call();
    QUIET.set(outer);
    result
}

/// Returns what was logged since the innermost `capture` on this thread began; `None` if nothing was, or none began.
pub(super) fn captured() -> Option<String> {
    CAPTURED
        .try_with(|lines| lines.try_borrow().ok()?.as_deref().filter(|lines| !lines.is_empty()).map(reason_of))
        .ok()?
}

/// Joins the last lines. The first failure is logged first, its consequences follow.
fn reason_of(lines: &[String]) -> String {
    const SHOWN: usize = 3;
    if lines.is_empty() {
        return NO_REASON.into();
    }
    lines[lines.len().saturating_sub(SHOWN)..].join("; ")
}

unsafe extern "C" fn forward(level: ffi::ggml_log_level, text: *const c_char, _user_data: *mut c_void) {
    if text.is_null() {
        return;
    }
    // SAFETY: ggml passes a NUL-terminated string that lives during the call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    // A panic must not unwind into C++. A thread that is ending has no thread-locals, hence `try_with`.
    let _ = std::panic::catch_unwind(|| {
        let _ = LINE.try_with(|line| {
            let Ok(mut line) = line.try_borrow_mut() else { return };
            if level != ffi::GGML_LOG_LEVEL_CONT {
                line.0 = i64::from(level);
            }
            line.1.push_str(&text);
            if line.1.ends_with('\n') {
                let (level, text) = (line.0, std::mem::take(&mut line.1));
                drop(line);
                emit(level, text.trim_end());
            }
        });
    });
}

/// Forwards one complete line. llama.cpp's `info` is detail to our users, so every level is lowered by one.
fn emit(level: i64, text: &str) {
    if text.is_empty() {
        return;
    }
    let is = |l: ffi::ggml_log_level| level == i64::from(l);
    if QUIET.try_with(Cell::get).unwrap_or(false) {
        // Only captured.
    } else if is(ffi::GGML_LOG_LEVEL_ERROR) {
        tracing::warn!(target: "llama.cpp", "{text}");
    } else if is(ffi::GGML_LOG_LEVEL_WARN) {
        tracing::info!(target: "llama.cpp", "{text}");
    } else if is(ffi::GGML_LOG_LEVEL_INFO) {
        tracing::debug!(target: "llama.cpp", "{text}");
    } else {
        tracing::trace!(target: "llama.cpp", "{text}");
    }
    if is(ffi::GGML_LOG_LEVEL_ERROR) || is(ffi::GGML_LOG_LEVEL_WARN) {
        let _ = CAPTURED.try_with(|lines| {
            if let Ok(mut lines) = lines.try_borrow_mut()
                && let Some(lines) = lines.as_mut()
            {
                lines.push(text.to_owned());
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_logged_before_is_known_in_time() {
        let (within, reason) = capture(|| {
            emit(ffi::GGML_LOG_LEVEL_ERROR.into(), "CUDA error: out of memory");
            captured()
        });
        assert_eq!(
            (within.as_deref(), reason.as_str()),
            (Some("CUDA error: out of memory"), "CUDA error: out of memory")
        );
        assert_eq!(capture(captured).0, None);
        assert_eq!(captured(), None);
    }
}
