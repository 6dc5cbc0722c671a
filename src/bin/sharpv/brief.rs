//! What `-h` shows of each command: the options that most people use, on one screen. `--help` shows all.

use clap::{Arg, Command};

/// The long names of the options that `-h` shows. Commands that are not here have few options, all of which it shows.
const COMMON: &[(&str, &str)] = &[
    ("ask", "json model mmproj gpu-layers fps max-frames start end search keep prune predict temp"),
    ("chat", "model mmproj gpu-layers fps max-frames start end search keep prune predict temp"),
    (
        "serve",
        "host port parallel api-key allow-host cors-origin media-root allow-remote model mmproj gpu-layers ctx-size \
         max-frames keep",
    ),
    ("watch", "every when for json fps window recall follow model mmproj gpu-layers keep predict"),
    ("plan", "json model mmproj gpu-layers ctx-size max-memory fps max-frames start end keep prune"),
    ("inspect", "question out png video no-dense json model mmproj gpu-layers fps max-frames start end keep prune"),
    (
        "eval",
        "data videos out methods budgets score jobs limit category shuffle fps max-frames model mmproj gpu-layers",
    ),
    ("calibrate", "question max-quality-loss out json max-frames model mmproj gpu-layers"),
    ("bench", "methods keep repeats predict synthetic json out model mmproj gpu-layers fps max-frames"),
];

/// `program`, with the help of its commands in two lengths.
pub fn shortened(program: Command) -> Command {
    program.mut_subcommands(|command| {
        let Some((_, common)) = COMMON.iter().find(|(name, _)| *name == command.get_name()) else { return command };
        let long = command.get_after_help().cloned().unwrap_or_default();
        // The heading and two.
        let examples: String = long.to_string().lines().take(3).map(|line| format!("{line}\n")).collect();
        let more = format!("{examples}\n`sharpv {} --help` shows all options, and more examples.", command.get_name());
        let is_common = |arg: &Arg| arg.get_long().is_none_or(|name| common.split(' ').any(|common| common == name));
        command
            .mut_args(|arg| if is_common(&arg) { arg } else { arg.hide_short_help(true) })
            .after_help(more)
            .after_long_help(long)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::CommandFactory;

    #[test]
    fn the_long_help_has_all() {
        let mut program = shortened(Cli::command());
        program.build();
        for command in program.get_subcommands_mut().filter(|command| command.get_name() != "help") {
            let (short, long) = (command.render_help().to_string(), command.render_long_help().to_string());
            let options = command.get_arguments().filter(|arg| !arg.is_hide_set()).filter_map(Arg::get_long);
            for option in options {
                assert!(long.contains(&format!("--{option}")), "{} --{option}", command.get_name());
            }
            assert!(short.lines().count() <= long.lines().count(), "{}", command.get_name());
        }
    }

    #[test]
    fn what_is_shown_exists() {
        let program = Cli::command();
        for (name, common) in COMMON {
            let command = program.find_subcommand(name).unwrap_or_else(|| panic!("{name}"));
            for option in common.split(' ') {
                let is_named = |arg: &Arg| arg.get_long() == Some(option);
                assert!(command.get_arguments().any(is_named), "{name} --{option}");
            }
        }
    }
}
