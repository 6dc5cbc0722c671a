//! What goes to stderr: progress bars, notes, warnings.

use crate::output::AnswerWriter;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sharpv::runtime::CancelToken;
use sharpv::{Observer, Stage};
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

const COUNTED: &str = "{prefix:>10} {bar:30} {pos}/{len} {msg}";
const PERCENT: &str = "{prefix:>10} {bar:30} {percent} %";
const BYTES: &str = "{prefix:>12} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}";
const SPINNER: &str = "{spinner} {msg}";

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
        if self.colors {
            self.note(&format!("\x1b[2m{line}\x1b[0m"));
        } else {
            self.note(line);
        }
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
            bar.enable_steady_tick(Duration::from_millis(120));
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

/// Shows the progress of a session, and streams its answer.
pub struct Watch<'a> {
    screen: &'a mut Screen,
    answer: Option<AnswerWriter>,
    /// The first failure to write the answer.
    failure: Option<io::Error>,
    cancel: &'a CancelToken,
}

impl<'a> Watch<'a> {
    /// Shows progress on `screen`; the text of the answer goes to `answer`.
    pub fn new(screen: &'a mut Screen, answer: Option<AnswerWriter>, cancel: &'a CancelToken) -> Self {
        Self { screen, answer, failure: None, cancel }
    }

    /// Removes the bar and ends the line of the answer, if there is one.
    ///
    /// # Errors
    /// If the answer could not be written.
    pub fn finish(mut self, answered: bool) -> io::Result<()> {
        self.screen.clear();
        match (self.failure.take(), self.answer.take()) {
            (Some(error), _) => Err(error),
            (None, Some(answer)) if answered || answer.has_started() => answer.finish(),
            _ => Ok(()),
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

    fn text(&mut self, piece: &str) {
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
