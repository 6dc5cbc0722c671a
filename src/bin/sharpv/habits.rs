//! Command lines of other programs (`sharpv clip.mp4 "What?"`, `sharpv run smol`, `sharpv list`, `--max-tokens 64`).
//! They are errors, and the message suggests sharpv's own command or option.

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use std::ffi::OsString;
use std::path::Path;

/// Names of other programs for our commands.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("list", "models"),
    ("ls", "models"),
    ("download", "pull"),
    ("fetch", "pull"),
    ("get", "pull"),
    ("install", "pull"),
];

/// Names of other programs for our options, and likely guesses. clap itself suggests options that are spelled alike.
const OTHER_OPTIONS: &[(&str, &str)] = &[
    ("--frames", "--max-frames"),
    ("--num-frames", "--max-frames"),
    ("--n-frames", "--max-frames"),
    ("--nframes", "--max-frames"),
    ("--max-tokens", "--predict"),
    ("--max-new-tokens", "--predict"),
    ("--num-predict", "--predict"),
    ("--temperature", "--temp"),
    ("--num-ctx", "--ctx-size"),
    ("--context", "--ctx-size"),
    ("--ngl", "--gpu-layers"),
    ("--projector", "--mmproj"),
    ("--system", "--system-prompt"),
    ("--thinking", "--think"),
    ("--enable-thinking", "--think"),
    ("--no-think", "--think"),
    ("--no-thinking", "--think"),
    ("--reasoning", "--think"),
    ("--reasoning-budget", "--think"),
    ("--reasoning-effort", "--think"),
];

/// Returns `error`, or one that suggests what `args` probably mean.
pub fn explain(error: clap::Error, args: &[OsString], command: &Command) -> clap::Error {
    match error.kind() {
        ErrorKind::UnknownArgument => explain_option(error, args, command),
        _ => explain_command(error, args, command),
    }
}

/// Adds the option that is probably meant to `error`.
fn explain_option(mut error: clap::Error, args: &[OsString], command: &Command) -> clap::Error {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidArg) else { return error };
    let Some((_, ours)) = OTHER_OPTIONS.iter().find(|(other, _)| other == word) else { return error };
    let is_taken = |of: &Command| of.get_arguments().any(|arg| arg.get_long() == ours.strip_prefix("--"));
    // The command is the first word that names one.
    let mut command = command.clone();
    command.build();
    let Some(name) = args.iter().skip(1).find(|arg| command.find_subcommand(arg).is_some_and(is_taken)) else {
        return error;
    };
    // Without this, the usage line is about clap's own suggestion.
    if let Some(of) = command.find_subcommand_mut(name) {
        error.insert(ContextKind::Usage, ContextValue::StyledStr(of.render_usage()));
    }
    error.insert(ContextKind::SuggestedArg, ContextValue::String((*ours).to_owned()));
    error
}

/// Returns `error`, or one that suggests the command that is probably meant.
fn explain_command(error: clap::Error, args: &[OsString], command: &Command) -> clap::Error {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand) else { return error };
    let Some(at) = args.iter().skip(1).position(|arg| arg == word.as_str()) else { return error };
    let (before, after) = (&args[..=at], &args[at + 2..]);
    let is_right = |line: &Vec<OsString>| command.clone().try_get_matches_from(line).is_ok();
    let whole = |meant: Vec<OsString>| before.iter().cloned().chain(meant).collect();
    let Some(line) = meanings(word, after).into_iter().map(whole).find(is_right) else { return error };
    let line: Vec<String> = line.iter().skip(1).map(|arg| quoted(&arg.to_string_lossy())).collect();
    let message =
        format!("'{word}' is not a command; did you mean this?\n\n  {} {}", command.get_name(), line.join(" "));
    command.clone().error(ErrorKind::InvalidSubcommand, message)
}

/// What `word` in place of a command, with the arguments after it, may mean; the likeliest first.
fn meanings(word: &str, after: &[OsString]) -> Vec<Vec<OsString>> {
    let line = |start: &[&str]| start.iter().map(OsString::from).chain(after.iter().cloned()).collect();
    if is_path(word) {
        return vec![line(&["ask", word]), line(&["chat", word])];
    }
    if word == "run" {
        return match after.first() {
            Some(first) if is_path(&first.to_string_lossy()) => vec![line(&["ask"]), line(&["chat"])],
            Some(_) => vec![line(&["ask", "-m"]), line(&["chat", "-m"])],
            None => Vec::new(),
        };
    }
    OTHER_NAMES.iter().filter(|(name, _)| *name == word).map(|(_, ours)| line(&[ours])).collect()
}

/// Whether `word` looks like the path of a video.
fn is_path(word: &str) -> bool {
    let path = Path::new(word);
    path.exists() || path.extension().is_some() || path.components().count() > 1
}

/// Quotes `word` for a shell.
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./,:=+@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}
