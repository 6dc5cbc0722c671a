//! The log on stderr, as `-v` and `SHARPV_LOG` request.

use std::io::{self, IsTerminal};
use tracing_subscriber::EnvFilter;

/// Holds a filter in the syntax of `tracing-subscriber` (`sharpv=debug,llama.cpp=info`).
const VARIABLE: &str = "SHARPV_LOG";

/// Starts logging. The library lowers llama.cpp's levels by one: its errors are warnings here.
pub fn start(verbose: u8, quiet: bool) {
    let default = match (quiet, verbose) {
        (true, _) => "sharpv=error,llama.cpp=off",
        (_, 0) => "sharpv=warn,llama.cpp=off",
        (_, 1) => "sharpv=debug,llama.cpp=info",
        _ => "sharpv=trace,llama.cpp=trace",
    };
    let own = std::env::var(VARIABLE).ok().filter(|value| !value.is_empty());
    let filter = own.as_deref().and_then(|own| match EnvFilter::try_new(own) {
        Ok(filter) => Some(filter),
        Err(error) => {
            crate::screen::to_stderr(&format!("warning: {VARIABLE}: {error}; the default is used"));
            None
        }
    });
    let result = tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|| EnvFilter::new(default)))
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .without_time()
        .try_init();
    // Fails only if a log was started before; the program works without one.
    let _ = result;
}
