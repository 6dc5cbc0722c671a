//! Reads the lines of the chat: from a terminal with history and completion, or from a file.

use super::command;
use anyhow::Context as _;
use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{Behavior, CompletionType, Config, Context, Editor, Helper};
use sharpv::models;
use std::io::{self, BufRead, IsTerminal};
use std::path::PathBuf;

const PROMPT: &str = "> ";

/// What the user did.
pub enum Event {
    Line(String),
    /// Ctrl-C at the prompt.
    Interrupted,
    End,
}

/// The source of lines.
pub enum Input {
    Terminal(Box<Terminal>),
    Lines(io::StdinLock<'static>),
}

/// A prompt with history.
pub struct Terminal {
    editor: Editor<Completion, DefaultHistory>,
    /// The file of the history, if there is one.
    history: Option<PathBuf>,
}

impl Input {
    /// Opens stdin, with a prompt if it is a terminal.
    pub fn open() -> anyhow::Result<Self> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(Self::Lines(stdin.lock()));
        }
        // Writes the prompt to the terminal even if stdout is a file.
        let config = Config::builder().behavior(Behavior::PreferTerm).completion_type(CompletionType::List).build();
        let mut editor = Editor::with_config(config).context("preparing the terminal failed")?;
        editor.set_helper(Some(Completion { files: FilenameCompleter::new() }));
        let history = history_file();
        if let Some(path) = history.as_ref().filter(|path| path.exists())
            && let Err(error) = editor.load_history(path)
        {
            tracing::debug!("{}: {error}", path.display());
        }
        Ok(Self::Terminal(Box::new(Terminal { editor, history })))
    }

    /// Whether stdin is a terminal.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }

    /// Returns the next line.
    pub fn next(&mut self) -> anyhow::Result<Event> {
        match self {
            Self::Terminal(terminal) => terminal.next(),
            Self::Lines(stdin) => {
                let mut line = Vec::new();
                let n = stdin.read_until(b'\n', &mut line).context("reading stdin failed")?;
                Ok(if n == 0 { Event::End } else { Event::Line(String::from_utf8_lossy(&line).into_owned()) })
            }
        }
    }
}

impl Terminal {
    fn next(&mut self) -> anyhow::Result<Event> {
        loop {
            return match self.editor.readline(PROMPT) {
                Ok(line) => {
                    self.remember(&line);
                    Ok(Event::Line(line))
                }
                Err(ReadlineError::Interrupted) => Ok(Event::Interrupted),
                Err(ReadlineError::Eof) => Ok(Event::End),
                // The window was resized.
                Err(ReadlineError::Signal(_)) => continue,
                Err(error) => Err(error).context("reading the terminal failed"),
            };
        }
    }

    /// Adds a line to the history. An error is only logged.
    fn remember(&mut self, line: &str) {
        if line.trim().is_empty() {
            return;
        }
        let kept = self.editor.add_history_entry(line).and_then(|_| match &self.history {
            Some(path) => self.editor.append_history(path),
            None => Ok(()),
        });
        if let Err(error) = kept {
            tracing::debug!("keeping the history failed: {error}");
        }
    }
}

/// The file in the cache folder, which is created if necessary.
fn history_file() -> Option<PathBuf> {
    let folder = models::cache_dir().ok()?;
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder.join("chat-history.txt"))
}

/// Completes commands, and the file names that they take.
struct Completion {
    files: FilenameCompleter,
}

impl Completer for Completion {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, context: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let typed = &line[..pos];
        if ["/video ", "/save ", "/load "].iter().any(|command| typed.starts_with(command)) {
            return self.files.complete(line, pos, context);
        }
        let pair = |name: &str| Pair { display: name.to_owned(), replacement: format!("{name} ") };
        let commands = command::NAMES.iter().filter(|name| !typed.is_empty() && name.starts_with(typed));
        Ok((0, commands.map(|name| pair(name)).collect()))
    }
}

impl Helper for Completion {}
impl Highlighter for Completion {}
impl Validator for Completion {}
impl Hinter for Completion {
    type Hint = String;
}
