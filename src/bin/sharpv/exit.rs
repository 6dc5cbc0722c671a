//! How the program ends: exit codes and the final message.

use crate::args::Cli;
use crate::{advice, screen};
use clap::CommandFactory;
use sharpv::runtime::Abort;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;

/// The job failed.
const FAILED: u8 = 1;
/// The command line is wrong.
const WRONG_USE: u8 = 2;
/// Interrupted with Ctrl-C: 128 plus the number of SIGINT, as in shells.
pub const STOPPED: u8 = 130;

/// Shows the error of a result, and returns the exit code.
pub fn code(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    // The reader of the output, such as `head`, has seen enough.
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

/// Prints a message of clap: help and version to stdout, errors to stderr.
pub fn usage(error: &clap::Error) -> ExitCode {
    // A closed stdout is not a failure.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(WRONG_USE) } else { ExitCode::SUCCESS }
}

/// Prints why llama.cpp aborts the program.
pub fn on_abort(abort: &Abort<'_>) {
    // Clear what is left of a progress bar.
    let start = if io::stderr().is_terminal() { "\r\x1b[2K" } else { "" };
    screen::to_stderr(&format!("{start}{}", about_abort(abort.file, abort.reason)));
}

fn about_abort(file: Option<&Path>, reason: &str) -> String {
    // The folder of the source file is that of the machine that built the program, so the file name is enough.
    let (place, what) = reason.split_once(": ").unwrap_or(("", reason));
    let place = place.rsplit(['/', '\\']).next().unwrap_or_default();
    // ggml's GPU backends abort when a call fails, after logging the reason.
    if let Some((_, logged)) = what.split_once("CUDA error (") {
        return format!(
            "error: the GPU failed: {}. With fewer layers on it, it needs less memory (-ngl N, or --gpu-margin 2G); `--device none` does not use it. \
             If memory is not the problem, set GGML_CUDA_DISABLE_GRAPHS=1 in the environment, and please report this",
            logged.trim_end_matches(')')
        );
    }
    match file {
        Some(file) => format!(
            "error: {}: llama.cpp aborted over this file ({what}, {place}); it is damaged, or of a kind that this llama.cpp does not support: \
             download it again, or use another one",
            file.display()
        ),
        None => format!(
            "error: llama.cpp aborted ({what}, {place}); unless a file of the model is damaged, this is a bug: please report it with this line"
        ),
    }
}

/// The error with its causes, of which most messages of the library quote some already.
pub fn describe(error: &anyhow::Error) -> String {
    let option = match error.downcast_ref::<sharpv::Error>() {
        // The library does not know options, but uses the same names for what they set.
        Some(sharpv::Error::InvalidParameter { name: "template-kwargs", .. }) => "--chat-",
        Some(sharpv::Error::InvalidParameter { name, .. }) if is_option(name) => "--",
        _ => "",
    };
    let mut text = format!("error: {option}{error}");
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(&format!(": {cause}"));
        }
    }
    if let Some(advice) = error.downcast_ref::<sharpv::Error>().and_then(advice::about) {
        text.push_str(&format!("\n       {advice}"));
    }
    text
}

/// Whether any command has an option of this name.
fn is_option(name: &str) -> bool {
    let program = Cli::command();
    program.get_subcommands().flat_map(clap::Command::get_arguments).any(|argument| argument.get_long() == Some(name))
}

/// Whether the error is a closed stdout.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    // Errors of the library wrap theirs, so an unwrapped one is from writing to stdout.
    let direct = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error.downcast_ref::<io::Error>().is_some_and(direct)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_abort_is_reported_with_its_file_and_what_to_do() {
        let reason = "/build/llama.cpp/ggml/src/ggml.c:12: GGML_ASSERT(a > 0) failed";
        let text = about_abort(Some(Path::new("m.gguf")), reason);
        assert!(text.starts_with("error: m.gguf: "), "{text}");
        assert!(
            text.contains("(GGML_ASSERT(a > 0) failed, ggml.c:12)") && text.contains("download it again"),
            "{text}"
        );
        assert!(about_abort(None, reason).contains("report it"));
        let text = about_abort(None, "/x/ggml-cuda.cu:109: CUDA error (CUDA error: out of memory; current device: 0)");
        assert!(text.starts_with("error: the GPU failed: CUDA error: out of memory; current device: 0. "), "{text}");
    }
}
