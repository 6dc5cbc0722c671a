//! `sharpv`: chat about video files. A command-line program on top of the library of the same name.
//!
//! Answers and JSON go to stdout, everything else to stderr. Exit codes: 0 success, 1 failure, 2 wrong usage, 130
//! interrupted with Ctrl-C.

#![forbid(unsafe_code)]

mod advice;
mod args;
mod argv;
mod ask;
mod bench;
mod brief;
mod calibrate;
mod chat;
mod doctor;
mod eval;
mod exit;
mod habits;
mod inspect;
mod interrupt;
mod logging;
mod models;
mod options;
mod output;
mod plan;
mod pull;
mod report;
mod rpc;
mod screen;
mod serve;
mod session;
mod stats;
mod thought;
mod values;
mod watch;

use args::{Cli, Command};
use clap::{CommandFactory, FromArgMatches};
use screen::Screen;
use sharpv::runtime;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Even before `--version`: a program that cannot run on this processor always says so.
    if let Err(error) = runtime::check_processor() {
        return exit::code(Err(error.into()));
    }
    runtime::on_abort(exit::on_abort);
    let program = brief::shortened(Cli::command());
    let args = argv::spell_out(std::env::args_os(), &program);
    let cli = program.clone().try_get_matches_from(&args).and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match cli {
        Ok(cli) => cli,
        Err(error) => return exit::usage(&habits::explain(error, &args, &program)),
    };
    logging::start(cli.verbose, cli.quiet);
    let screen = Screen::new(cli.quiet, cli.verbose);
    let result = match cli.command {
        Command::Ask(args) => ask::run(&args, screen),
        Command::Chat(args) => chat::run(&args, screen),
        Command::Watch(args) => watch::run(&args, screen),
        Command::Plan(args) => plan::run(&args, screen),
        Command::Inspect(args) => inspect::run(&args, screen),
        Command::Eval(args) => eval::run(&args, screen),
        Command::Calibrate(args) => calibrate::run(&args, screen),
        Command::Bench(args) => bench::run(args, screen),
        Command::Report(args) => report::run(&args, &screen),
        Command::Pull(args) => pull::run(&args, screen),
        Command::Models(args) => models::run(&args, cli.verbose > 0),
        Command::Doctor(args) => doctor::run(&args),
        Command::Serve(args) => serve::run(&args, screen),
        Command::RpcServer(args) => rpc::run(&args, &screen),
    };
    exit::code(result)
}
