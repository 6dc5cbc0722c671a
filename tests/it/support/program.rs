//! Running the program.

use super::smol;
use assert_cmd::Command;

/// The program, as a user without settings runs it.
pub fn sharpv(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sharpv"));
    command.env_remove("SHARPV_LOG").args(args);
    command
}

/// The program, for a test that requires the model `smol` to be installed.
pub fn with_smol(args: &[&str]) -> Command {
    smol::files();
    sharpv(args)
}
