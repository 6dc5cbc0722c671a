//! How the program ends: exit codes, and the last message.

use crate::args::Cli;
use crate::{advice, screen};
use clap::CommandFactory;
use sharpv::runtime::Abort;
use std::io::{self, IsTerminal};
use std::path::Path;
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

/// Says why llama.cpp aborts the program.
pub fn on_abort(abort: &Abort<'_>) {
    // What is left of a bar stands where the message begins.
    let start = if io::stderr().is_terminal() { "\r\x1b[2K" } else { "" };
    screen::to_stderr(&format!("{start}{}", about_abort(abort.file, abort.reason)));
}

fn about_abort(file: Option<&Path>, reason: &str) -> String {
    // The name of the source file is enough to find the place: its folder is that of whoever built the program.
    let (place, what) = reason.split_once(": ").unwrap_or(("", reason));
    let place = place.rsplit(['/', '\\']).next().unwrap_or_default();
    // ggml's GPU backends end the program where a call fails. What it was is what they logged before.
    if let Some((_, logged)) = what.split_once("CUDA error (") {
        return format!(
            "error: the GPU failed: {}. Fewer layers there take less of its memory (-ngl N, or --gpu-margin 2G), and `--device none` takes nothing. \
             If it is not the memory, try GGML_CUDA_DISABLE_GRAPHS=1 in the environment, and please report it",
            logged.trim_end_matches(')')
        );
    }
    match file {
        Some(file) => format!(
            "error: {}: llama.cpp broke down over this file ({what}, {place}); it is damaged, or of a kind that this llama.cpp does not know: \
             download it again, or take another one",
            file.display()
        ),
        None => format!(
            "error: llama.cpp broke down ({what}, {place}); if the model's files are not damaged, this is a bug: please report it with this line"
        ),
    }
}

/// The error and its causes. Most messages of the library quote their cause already.
pub fn describe(error: &anyhow::Error) -> String {
    let option = match error.downcast_ref::<sharpv::Error>() {
        // The library knows no options, but calls what they set by their names.
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

/// Whether an option of any command has this name.
fn is_option(name: &str) -> bool {
    let program = Cli::command();
    program.get_subcommands().flat_map(clap::Command::get_arguments).any(|argument| argument.get_long() == Some(name))
}

/// Whether stdout was closed.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    // The library's own errors wrap theirs: only the program writes to stdout.
    let direct = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error.downcast_ref::<io::Error>().is_some_and(direct)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_abort_is_told_with_its_file_and_what_to_do() {
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
