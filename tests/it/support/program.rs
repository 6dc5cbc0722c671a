//! The program, as tests run it.

use super::smol;
use assert_cmd::Command;

/// The program, set up as for a user without any settings.
pub fn sharpv(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sharpv"));
    command.env_remove("SHARPV_LOG").args(args);
    command
}

/// The program, where a test needs the model: it must be installed.
pub fn with_smol(args: &[&str]) -> Command {
    smol::files();
    sharpv(args)
}
