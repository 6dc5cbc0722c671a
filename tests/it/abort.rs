//! What a program can say when llama.cpp aborts the process. The test runs itself as that process.

use sharpv::ffi;
use sharpv::runtime::{Abort, on_abort};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Output};

/// In its environment: which handler the process is to set.
const ROLE: &str = "SHARPV_TEST_ABORT";

const SIGABRT: i32 = 6;

fn told(abort: &Abort<'_>) {
    eprintln!("told: {} {:?}", abort.reason, abort.file);
}

fn not_told(_: &Abort<'_>) {
    eprintln!("the second handler");
}

/// Not a test of its own: it ends the process that the others start.
#[test]
fn child() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    on_abort(told);
    on_abort(not_told);
    // SAFETY: the arguments are what the format wants; the call does not return.
    unsafe { ffi::ggml_abort(c"place.c".as_ptr(), 7, c"%s failed".as_ptr(), c"GGML_ASSERT(x)".as_ptr()) };
}

#[test]
fn a_handler_has_the_last_word() {
    let program = std::env::current_exe().expect("this program");
    let mut command = Command::new(program);
    command.args(["--exact", "abort::child", "--nocapture"]).env(ROLE, "yes").env_remove("GGML_NO_BACKTRACE");
    let Output { status, stderr, .. } = command.output().expect("it runs");
    assert_eq!(status.signal(), Some(SIGABRT));
    let stderr = String::from_utf8_lossy(&stderr);
    assert_eq!(stderr.trim_end().lines().last(), Some("told: place.c:7: GGML_ASSERT(x) failed None"), "{stderr}");
    // Neither ggml's own line nor frames of a backtrace.
    assert_eq!(stderr.matches("GGML_ASSERT").count(), 1, "{stderr}");
    assert!(!stderr.contains("ggml_abort"), "{stderr}");
}
