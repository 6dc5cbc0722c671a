//! llama.cpp's backends, which are started once for the program.

use super::call::guarded;
use super::log;
use super::processor::check_processor;
use crate::error::Result;
use crate::ffi;
use std::sync::Once;

/// Starts llama.cpp's backends and forwards its log. Cheap after the first call.
///
/// # Errors
/// [`Error::Processor`](crate::Error::Processor) if llama.cpp cannot run on this processor.
pub(super) fn init() -> Result<()> {
    static STARTED: Once = Once::new();
    check_processor()?;
    STARTED.call_once(|| {
        log::install();
        // SAFETY: called once, before anything else of llama.cpp. It is never undone: contexts may outlive any owner
        // that we could name, and the process's end frees the same things.
        let started = guarded((), |(), err, err_len| unsafe { ffi::sharpv_try_backend_init(err, err_len) });
        if let Err(reason) = started.into_result() {
            // Loading a model fails for the same reason.
            tracing::warn!("llama.cpp's backends could not be started: {reason}");
        }
        if cfg!(feature = "vulkan") {
            super::device::open_vulkan();
        }
    });
    Ok(())
}

/// Returns the instruction sets that this build uses, as llama.cpp prints them (`AVX2 = 1 | FMA = 1 | …`). Empty on a
/// processor that cannot run the build ([`check_processor`]).
pub fn system_info() -> String {
    if init().is_err() {
        return String::new();
    }
    // SAFETY: returns a pointer to a static string.
    unsafe { std::ffi::CStr::from_ptr(ffi::llama_print_system_info()) }.to_string_lossy().trim().to_owned()
}

/// Returns the peak resident set size of this process, in bytes; `None` if the system does not report it.
#[cfg(unix)]
pub fn peak_rss_bytes() -> Option<u64> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: getrusage fills the struct that it is given; all-zero is a valid `rusage`.
    let usage = unsafe {
        if libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) != 0 {
            return None;
        }
        usage.assume_init()
    };
    // macOS reports bytes, Linux and the BSDs report kilobytes.
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    u64::try_from(usage.ru_maxrss).ok().map(|v| v * unit)
}

/// Returns the peak resident set size of this process, in bytes; `None` if the system does not report it.
#[cfg(not(unix))]
pub fn peak_rss_bytes() -> Option<u64> {
    None
}

/// Ends the process at once with `_exit`. C++ destructors do not run: other threads may still compute with what they
/// would destroy.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: never returns, and touches no memory of ours.
    unsafe { libc::_exit(code) }
}
