//! What the help of each command shows: `-h` the common options, on one screen; `--help` all options but those that
//! have no use with the command.

use clap::{Arg, Command};

/// The long names of the options that `-h` shows. It shows all options of the commands that are not listed.
const COMMON: &[(&str, &str)] = &[
    ("ask", "json model mmproj gpu-layers fps max-frames start end search keep prune predict think temp"),
    ("chat", "model mmproj gpu-layers fps max-frames start end search keep prune predict think temp"),
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

/// The long names of options that a command accepts but no help shows. `plan` takes a command line of `ask` unchanged;
/// requests to `serve` name the part of their video themselves.
const HIDDEN: &[(&str, &str)] = &[
    (
        "plan",
        "think temp top-k top-p min-p repeat-penalty repeat-last-n presence-penalty frequency-penalty grammar grammar-file seed",
    ),
    ("serve", "start end"),
];

/// The long names that `table` has for `command`.
fn names(table: &'static [(&str, &str)], command: &Command) -> Option<Vec<&'static str>> {
    let (_, names) = table.iter().find(|(name, _)| *name == command.get_name())?;
    Some(names.split_whitespace().collect())
}

/// Gives the commands of `program` their two lengths of help.
pub fn shortened(program: Command) -> Command {
    program.mut_subcommands(|command| {
        let hidden = names(HIDDEN, &command).unwrap_or_default();
        let is_hidden = |arg: &Arg| arg.get_long().is_some_and(|name| hidden.contains(&name));
        let command = command.mut_args(|arg| if is_hidden(&arg) { arg.hide(true) } else { arg });
        let Some(common) = names(COMMON, &command) else { return command };
        let long = command.get_after_help().cloned().unwrap_or_default();
        // The heading and two examples.
        let examples: String = long.to_string().lines().take(3).map(|line| format!("{line}\n")).collect();
        let more = format!("{examples}\n`sharpv {} --help` shows all options, and more examples.", command.get_name());
        let is_common = |arg: &Arg| arg.get_long().is_none_or(|name| common.contains(&name));
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
        for (name, options) in COMMON.iter().chain(HIDDEN) {
            let command = program.find_subcommand(name).unwrap_or_else(|| panic!("{name}"));
            for option in options.split_whitespace() {
                let is_named = |arg: &Arg| arg.get_long() == Some(option);
                assert!(command.get_arguments().any(is_named), "{name} --{option}");
            }
        }
    }
}
