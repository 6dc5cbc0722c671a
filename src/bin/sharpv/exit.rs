//! How the program ends: exit codes, and the last message.

use crate::screen;
use std::io;
use std::process::ExitCode;

/// The job failed.
const FAILED: u8 = 1;
/// The command line asks for what cannot be.
const WRONG_USE: u8 = 2;
/// Stopped with Ctrl-C: 128 and the number of SIGINT, as shells have it.
pub const STOPPED: u8 = 130;

/// The exit code for a result, after its error was shown.
pub fn code(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    // Whoever reads the output has seen enough, as `head` does.
    if is_broken_pipe(&error) {
        return ExitCode::SUCCESS;
    }
    match error.downcast_ref::<sharpv::Error>() {
        Some(sharpv::Error::Cancelled) => {
            screen::to_stderr("stopped");
            ExitCode::from(STOPPED)
        }
        Some(sharpv::Error::InvalidParameter { .. }) => {
            screen::to_stderr(&describe(&error));
            ExitCode::from(WRONG_USE)
        }
        _ => {
            screen::to_stderr(&describe(&error));
            ExitCode::from(FAILED)
        }
    }
}

/// Shows what clap has to say: help and version on stdout, wrong use on stderr.
pub fn usage(error: &clap::Error) -> ExitCode {
    // A closed stdout is no failure of `--help`.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(WRONG_USE) } else { ExitCode::SUCCESS }
}

/// The error and its causes. Most messages of the library quote their cause already.
pub fn describe(error: &anyhow::Error) -> String {
    let mut text = format!("error: {error}");
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(&format!(": {cause}"));
        }
    }
    text
}

/// Whether stdout was closed.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    // The library's own errors wrap theirs: only the program writes to stdout.
    let direct = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error.downcast_ref::<io::Error>().is_some_and(direct)
}
