//! llama.cpp's short options of several letters, such as `-ngl`. clap does not support them, so they are replaced by
//! their long forms.

use std::ffi::OsString;

/// Short and long forms. The help of an option names its short form.
const SHORT_FORMS: &[(&str, &str)] = &[
    ("-ctk", "--cache-type-k"),
    ("-ctv", "--cache-type-v"),
    ("-dev", "--device"),
    ("-fa", "--flash-attn"),
    ("-ngl", "--gpu-layers"),
    ("-nkvo", "--no-kv-offload"),
    ("-sys", "--system-prompt"),
    ("-ub", "--ubatch-size"),
];

/// Replaces the short forms in `args`, except values of options and whatever follows `--`.
pub fn spell_out(args: impl IntoIterator<Item = OsString>, command: &clap::Command) -> Vec<OsString> {
    let mut is_value = true; // The name of the program.
    let mut only_positional = false;
    // Until the command is known, options of all commands count.
    let mut of: Option<&clap::Command> = None;
    args.into_iter()
        .map(|arg| {
            if is_value || only_positional {
                is_value = false;
                return arg;
            }
            only_positional = arg == "--";
            let short = SHORT_FORMS.iter().find(|(short, _)| arg == *short);
            let arg = short.map_or(arg, |(_, long)| OsString::from(long));
            let commands = command.get_subcommands().filter(|c| of.is_none_or(|of| of.get_name() == c.get_name()));
            is_value = arg.to_str().is_some_and(|arg| takes_value(arg, commands));
            of = of.or_else(|| command.find_subcommand(&arg));
            arg
        })
        .collect()
}

/// Whether the argument after the option `arg` of one of these commands is its value.
fn takes_value<'a>(arg: &str, mut commands: impl Iterator<Item = &'a clap::Command>) -> bool {
    let is_named = |option: &clap::Arg| match arg.strip_prefix("--") {
        Some(name) => option.get_long_and_visible_aliases().is_some_and(|names| names.contains(&name)),
        None => {
            arg.strip_prefix('-').is_some_and(|name| option.get_short().is_some_and(|short| name.chars().eq([short])))
        }
    };
    commands.any(|command| command.get_arguments().any(|option| option.get_action().takes_values() && is_named(option)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::CommandFactory;

    fn spelled(line: &str) -> String {
        let args = spell_out(line.split(' ').map(OsString::from), &Cli::command());
        args.iter().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn short_forms_are_spelled_out() {
        assert_eq!(
            spelled("sharpv ask v.mp4 q -ngl 20 -fa on -nkvo"),
            "sharpv ask v.mp4 q --gpu-layers 20 --flash-attn on --no-kv-offload"
        );
    }

    #[test]
    fn values_stay_as_they_are() {
        assert_eq!(
            spelled("sharpv ask -sys -fa -m -ngl --grammar -ub"),
            "sharpv ask --system-prompt -fa -m -ngl --grammar -ub"
        );
        assert_eq!(spelled("sharpv ask --n-predict -fa"), "sharpv ask --n-predict -fa");
        assert_eq!(spelled("sharpv ask -- -fa"), "sharpv ask -- -fa");
        assert_eq!(spelled("sharpv inspect v.mp4 -q -fa"), "sharpv inspect v.mp4 -q -fa");
        assert_eq!(spelled("sharpv ask -q -fa on"), "sharpv ask -q --flash-attn on");
        assert_eq!(spelled("sharpv ask --temp=1 -fa on"), "sharpv ask --temp=1 --flash-attn on");
    }

    #[test]
    fn every_long_form_exists() {
        let command = Cli::command();
        let ask = command.find_subcommand("ask").unwrap();
        for (_, long) in SHORT_FORMS {
            assert!(ask.get_arguments().any(|arg| arg.get_long() == long.strip_prefix("--")), "{long}");
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
