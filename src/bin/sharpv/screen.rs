//! What goes to stderr: progress bars, notes, warnings.

use crate::output::AnswerWriter;
use crate::stats;
use crate::thought::Tail;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sharpv::runtime::CancelToken;
use sharpv::{Observer, Stage};
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

const COUNTED: &str = "{prefix:>10} {bar:30} {pos}/{len} {msg}";
const PERCENT: &str = "{prefix:>10} {bar:30} {percent} %";
const BYTES: &str = "{prefix:>12} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}";
const SPINNER: &str = "{spinner} {msg}";
const THOUGHT: &str = "{spinner} thinking\n{msg}";

/// How often something that is running is drawn.
const TICK: Duration = Duration::from_millis(120);

/// Writes a line to stderr. Ignores errors.
pub fn to_stderr(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// The terminal or file behind stderr.
#[derive(Debug)]
pub struct Screen {
    quiet: bool,
    /// No bars in a file, nor with a log, which would tear them.
    bars: bool,
    colors: bool,
    bar: Option<(Step, ProgressBar)>,
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Stage(Stage),
    Runs(&'static str),
    Status,
    Thought,
    Other,
}

impl Screen {
    pub fn new(quiet: bool, verbose: u8) -> Self {
        let is_terminal = io::stderr().is_terminal();
        let colors = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { quiet, bars: is_terminal && !quiet && verbose == 0, colors, bar: None }
    }

    /// Prints a line that is not essential.
    pub fn note(&self, line: &str) {
        if !self.quiet {
            self.above_bar(line);
        }
    }

    /// Prints a line that is less important than the answer, in faint color.
    pub fn faint(&self, line: &str) {
        self.note(&self.dimmed(line));
    }

    fn dimmed(&self, line: &str) -> String {
        if self.colors { format!("\x1b[2m{line}\x1b[0m") } else { line.to_owned() }
    }

    /// Prints a warning.
    pub fn warning(&self, message: &str) {
        self.note(&format!("warning: {message}"));
    }

    /// Shows that something is running, until its first progress or [`clear`](Self::clear).
    pub fn busy(&mut self, what: &str) {
        self.begin(Step::Other, SPINNER, None);
        if let Some((_, bar)) = &self.bar {
            bar.set_message(what.to_owned());
            bar.enable_steady_tick(TICK);
        }
    }

    /// Shows the state of something without an end, if there are bars.
    pub fn status(&mut self, text: &str) {
        if !matches!(self.bar, Some((Step::Status, _))) {
            self.begin(Step::Status, SPINNER, None);
        }
        if let Some((_, bar)) = &self.bar {
            bar.set_message(text.to_owned());
            bar.tick();
        }
    }

    /// Shows the end of a thought, if there are bars, until [`clear`](Self::clear).
    fn thought(&mut self, thought: &Tail) {
        let lines: Vec<String> = thought.lines().map(|line| self.dimmed(line)).collect();
        let goes_on = matches!(self.bar, Some((Step::Thought, _)));
        if !goes_on {
            self.begin(Step::Thought, THOUGHT, None);
        }
        if let Some((_, bar)) = &self.bar {
            bar.set_message(lines.join("\n"));
            if !goes_on {
                bar.enable_steady_tick(TICK);
            }
        }
    }

    /// Whether progress is shown as a bar.
    pub fn has_bars(&self) -> bool {
        self.bars
    }

    /// Shows that `done` of `total` runs are done: as a bar, or else as a line.
    pub fn runs(&mut self, name: &'static str, done: u64, total: u64, message: &str) {
        if !self.bars {
            self.note(&format!("{name} {done}/{total} {message}"));
            return;
        }
        let step = Step::Runs(name);
        if self.bar.as_ref().is_none_or(|(current, _)| *current != step) {
            self.begin(step, COUNTED, Some(total));
        }
        if let Some((_, bar)) = &self.bar {
            bar.set_prefix(name);
            bar.set_message(message.to_owned());
            bar.set_position(done);
        }
    }

    /// Removes the bar.
    pub fn clear(&mut self) {
        if let Some((_, bar)) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn above_bar(&self, line: &str) {
        match &self.bar {
            Some((_, bar)) => bar.suspend(|| to_stderr(line)),
            None => to_stderr(line),
        }
    }

    fn begin(&mut self, step: Step, template: &str, total: Option<u64>) {
        self.clear();
        if !self.bars {
            return;
        }
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━╸ "));
        }
        self.bar = Some((step, bar));
    }

    fn show(&mut self, stage: Stage, done: u64, total: u64) {
        let step = Step::Stage(stage);
        let goes_on = |(current, bar): &(Step, ProgressBar)| *current == step && bar.position() <= done;
        if !self.bar.as_ref().is_some_and(goes_on) {
            let (name, template, unit) = match stage {
                Stage::Download => ("downloading", BYTES, ""),
                Stage::Verify => ("verifying", BYTES, ""),
                Stage::Unpack => ("unpacking", BYTES, ""),
                Stage::Assemble => ("assembling", BYTES, ""),
                Stage::LoadModel => ("model", PERCENT, ""),
                Stage::LoadVision => ("mmproj", PERCENT, ""),
                Stage::Survey => ("survey", COUNTED, "images"),
                Stage::Search => ("search", COUNTED, "parts"),
                Stage::Encode => ("encode", COUNTED, "frames"),
                Stage::Draw => ("draw", COUNTED, "frames"),
                Stage::Prefill => ("prefill", COUNTED, "tokens"),
                _ => ("", COUNTED, ""),
            };
            self.begin(step, template, Some(total));
            if let Some((_, bar)) = &self.bar {
                bar.set_prefix(name);
                bar.set_message(unit);
            }
        }
        if let Some((_, bar)) = &self.bar {
            bar.set_position(done);
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A thought that goes on.
#[derive(Debug)]
struct Thought {
    since: Instant,
    /// What a terminal shows of it; `None` without one.
    shown: Option<Tail>,
}

/// Shows the progress of a session, and streams its answer. A thought is shown dim while it goes on, and folded to a
/// line when it is over.
pub struct Watch<'a> {
    screen: &'a mut Screen,
    answer: Option<AnswerWriter>,
    /// The thought before the answer, until it is over.
    thought: Option<Thought>,
    /// The first failure to write the answer.
    failure: Option<io::Error>,
    cancel: &'a CancelToken,
}

impl<'a> Watch<'a> {
    /// Shows progress on `screen`; the text of the answer goes to `answer`. Without `answer`, no thought is shown.
    pub fn new(screen: &'a mut Screen, answer: Option<AnswerWriter>, cancel: &'a CancelToken) -> Self {
        Self { screen, answer, thought: None, failure: None, cancel }
    }

    /// Removes the bar and ends the line of the answer, if there is one.
    ///
    /// # Errors
    /// If the answer could not be written.
    pub fn finish(mut self, answered: bool) -> io::Result<()> {
        self.screen.clear();
        self.fold();
        match (self.failure.take(), self.answer.take()) {
            (Some(error), _) => Err(error),
            (None, Some(answer)) if answered || answer.has_started() => answer.finish(),
            _ => Ok(()),
        }
    }

    /// Replaces the thought, if there is one, by a line.
    fn fold(&mut self) {
        if let Some(thought) = self.thought.take() {
            self.screen.clear();
            self.screen
                .faint(&format!("thought for {}", stats::seconds(thought.since.elapsed().as_secs_f64() * 1000.0)));
        }
    }
}

impl Observer for Watch<'_> {
    fn progress(&mut self, stage: Stage, done: u64, total: u64) {
        self.screen.show(stage, done, total);
    }

    fn message(&mut self, message: &str) {
        self.screen.note(message);
    }

    fn warning(&mut self, message: &str) {
        self.screen.warning(message);
    }

    fn thought(&mut self, piece: &str) {
        let Some(answer) = &self.answer else { return };
        if self.thought.is_none() {
            // Some models mark a thought and leave it empty.
            if piece.trim().is_empty() {
                return;
            }
            self.screen.busy("thinking");
            // Where the answer goes to a file, the terminal shows no more than that.
            let shows = self.screen.bars && answer.is_to_terminal();
            self.thought = Some(Thought { since: Instant::now(), shown: shows.then(Tail::of_terminal) });
        }
        if let Some(tail) = self.thought.as_mut().and_then(|thought| thought.shown.as_mut()) {
            tail.push(piece);
            self.screen.thought(tail);
        }
    }

    fn text(&mut self, piece: &str) {
        self.fold();
        let Some(answer) = &mut self.answer else { return };
        self.screen.clear();
        if let Err(error) = answer.write(piece) {
            // Nobody reads the rest, so stop computing it.
            self.failure.get_or_insert(error);
            self.cancel.cancel();
        }
    }
}

/// Shows the progress of downloads, and prints messages.
impl Observer for Screen {
    fn progress(&mut self, stage: Stage, done: u64, total: u64) {
        self.show(stage, done, total);
        if done >= total {
            self.clear();
        }
    }

    fn message(&mut self, message: &str) {
        self.note(message);
    }

    fn warning(&mut self, message: &str) {
        Screen::warning(self, message);
    }
}
