//! Parses lines of the chat.

use std::path::{Path, PathBuf};

/// What `/help` prints.
pub const HELP: &str = "\
/video FILE    add a video to the next question; without FILE, list the videos
/system TEXT   set the system message; without TEXT, remove it
/think HOW     auto, on, off, or the most tokens of a thought; without HOW, show it
/thought       show the thought before the last answer
/clear         forget the conversation and its videos
/save FILE     save the conversation and its videos to a file
/load FILE     continue a saved conversation, without reading its videos again
/frames        show the frames, with dropped tokens dimmed
/stats         show the statistics of the last answer
/help          list the commands
/exit          end the chat (Ctrl-D)
Ctrl-C stops an answer. Any other line is a question.";

/// The names of the commands.
pub const NAMES: &[&str] =
    &["/video", "/system", "/think", "/thought", "/clear", "/save", "/load", "/frames", "/stats", "/help", "/exit"];

/// A line of the chat.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    Empty,
    Question(&'a str),
    Command(Command),
    /// An unknown command of this name.
    Unknown(&'a str),
}

#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    Video(Option<PathBuf>),
    System(Option<String>),
    Think(Option<String>),
    Thought,
    Clear,
    Save(Option<PathBuf>),
    Load(Option<PathBuf>),
    Frames,
    Stats,
    Help,
    Exit,
}

/// Parses a line.
pub fn parse(line: &str) -> Line<'_> {
    let line = line.trim();
    if line.is_empty() {
        return Line::Empty;
    }
    if !line.starts_with('/') {
        return Line::Question(line);
    }
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = Some(rest.trim()).filter(|rest| !rest.is_empty());
    Line::Command(match name {
        "/video" => Command::Video(rest.map(path)),
        "/system" => Command::System(rest.map(str::to_owned)),
        "/think" => Command::Think(rest.map(str::to_owned)),
        "/thought" => Command::Thought,
        "/clear" => Command::Clear,
        "/save" => Command::Save(rest.map(path)),
        "/load" => Command::Load(rest.map(path)),
        "/frames" => Command::Frames,
        "/stats" => Command::Stats,
        "/help" | "/?" => Command::Help,
        "/exit" | "/quit" => Command::Exit,
        _ => return Line::Unknown(name),
    })
}

/// A path as people type it: literal, quoted, with escaped spaces, or relative to the home folder (`~/`).
fn path(text: &str) -> PathBuf {
    if Path::new(text).exists() {
        return text.into();
    }
    let quoted = ['"', '\''].iter().find_map(|&quote| text.strip_prefix(quote)?.strip_suffix(quote));
    let text = quoted.map_or_else(|| without_escapes(text), str::to_owned);
    match text.strip_prefix("~/").zip(dirs::home_dir()) {
        Some((rest, home)) => home.join(rest),
        None => text.into(),
    }
}

#[cfg(not(windows))]
fn without_escapes(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        result.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    result
}

/// On Windows, the backslash separates folders.
#[cfg(windows)]
fn without_escapes(text: &str) -> String {
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn video(path: &str) -> Line<'static> {
        Line::Command(Command::Video(Some(path.into())))
    }

    #[test]
    fn questions_and_commands_are_told_apart() {
        assert_eq!(parse("  \t "), Line::Empty);
        assert_eq!(parse(" What is 1/2? "), Line::Question("What is 1/2?"));
        assert_eq!(parse("/clear"), Line::Command(Command::Clear));
        assert_eq!(parse("/system  Be brief. "), Line::Command(Command::System(Some("Be brief.".into()))));
        assert_eq!(parse("/system"), Line::Command(Command::System(None)));
        assert_eq!(parse("/think 64"), Line::Command(Command::Think(Some("64".into()))));
        assert_eq!(parse("/think"), Line::Command(Command::Think(None)));
        assert_eq!(parse("/save a b"), Line::Command(Command::Save(Some("a b".into()))));
        assert_eq!(parse("/load"), Line::Command(Command::Load(None)));
        assert_eq!(parse("/vidoe x.mp4"), Line::Unknown("/vidoe"));
    }

    #[test]
    fn paths_may_hold_spaces() {
        assert_eq!(parse("/video my clip.mp4"), video("my clip.mp4"));
        assert_eq!(parse("/video 'my clip.mp4'"), video("my clip.mp4"));
        assert_eq!(parse("/video \"it's.mp4\""), video("it's.mp4"));
        #[cfg(not(windows))]
        assert_eq!(parse(r"/video my\ clip\\1.mp4"), video(r"my clip\1.mp4"));
    }

    #[test]
    fn every_command_of_the_list_is_one_and_is_explained() {
        for name in NAMES {
            assert!(matches!(parse(name), Line::Command(_)), "{name}");
            assert!(HELP.contains(name), "{name}");
        }
    }
}
