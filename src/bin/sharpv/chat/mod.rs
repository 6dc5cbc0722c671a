//! `sharpv chat`: a conversation about videos.

mod command;
mod frames;
mod input;

use crate::args::ChatArgs;
use crate::interrupt::Interrupts;
use crate::options::{SessionArgs, ZoomOptions, check_budget};
use crate::output::{self, AnswerWriter};
use crate::screen::{self, Screen, Watch};
use crate::{exit, session, stats, values};
use anyhow::{anyhow, bail};
use command::{Command, Line};
use indicatif::DecimalBytes;
use input::{Event, Input};
use sharpv::chat::{Answer, Role, Session, SessionParams, StopReason, VideoReport};
use std::path::Path;

/// Ctrl-C stops the answer. It takes this many presses to end a program that does not react.
const PATIENCE: u32 = 4;

pub fn run(args: &ChatArgs, mut screen: Screen) -> anyhow::Result<()> {
    let interrupts = Interrupts::install(PATIENCE)?;
    let videos: Vec<&Path> = args.videos.iter().map(AsRef::as_ref).collect();
    let (files, params) = session::prepare(&args.session, &videos, &interrupts, &mut screen, false)?;
    let params = SessionParams { inspect: true, keep_unpruned: args.zoom.search, ..params };
    let session = session::load(&files, params, None, &mut screen)?;
    let mut chat = Chat {
        session,
        args: &args.session,
        zoom: &args.zoom,
        zooms: Vec::new(),
        screen,
        interrupts,
        last_answer: None,
    };
    for video in videos {
        chat.add_video(video)?;
    }
    let mut input = Input::open()?;
    if input.is_terminal() {
        let start = if args.videos.is_empty() { "/video FILE adds a video." } else { "Ask about the video." };
        chat.screen.note(&format!("{start} /help lists the commands, Ctrl-D ends the chat."));
    }
    loop {
        let line = match input.next()? {
            Event::Line(line) => line,
            Event::Interrupted => {
                chat.screen.note("Ctrl-D or /exit ends the chat.");
                continue;
            }
            Event::End => return Ok(()),
        };
        match chat.handle(&line) {
            Ok(Next::Go) => {}
            Ok(Next::Exit) => return Ok(()),
            Err(error) if exit::is_broken_pipe(&error) => return Err(error),
            // Later lines may depend on the one that failed: a question would be answered without its video.
            Err(error) if !input.is_terminal() => return Err(error),
            // The session is unchanged by a line that failed.
            Err(error) => match error.downcast_ref::<sharpv::Error>() {
                Some(sharpv::Error::Cancelled) => chat.screen.note("stopped"),
                _ => screen::to_stderr(&exit::describe(&error)),
            },
        }
    }
}

/// What to do after a line.
enum Next {
    Go,
    Exit,
}

struct Chat<'a> {
    session: Session,
    args: &'a SessionArgs,
    zoom: &'a ZoomOptions,
    /// Zooms and searches so far, one line each.
    zooms: Vec<String>,
    screen: Screen,
    interrupts: Interrupts,
    last_answer: Option<Answer>,
}

impl Chat<'_> {
    fn handle(&mut self, line: &str) -> anyhow::Result<Next> {
        match command::parse(line) {
            Line::Empty => {}
            Line::Question(question) => self.ask(question)?,
            Line::Unknown(name) => bail!("{name} is not a command; /help lists them"),
            Line::Command(Command::Video(None)) => self.list_videos(),
            Line::Command(Command::Video(Some(path))) => self.add_video(&path)?,
            Line::Command(Command::Clear) => {
                self.session.clear();
                self.zooms.clear();
                self.last_answer = None;
                self.screen.note("The conversation and its videos are forgotten.");
            }
            Line::Command(Command::Save(Some(path))) => self.save(&path)?,
            Line::Command(Command::Load(Some(path))) => self.load(&path)?,
            Line::Command(Command::Save(None)) => bail!("/save requires the name of a FILE"),
            Line::Command(Command::Load(None)) => bail!("/load requires the name of a FILE"),
            Line::Command(Command::System(text)) => {
                self.screen.note(if text.is_some() { "It applies from the next question on." } else { "Removed." });
                self.session.set_system(text);
            }
            Line::Command(Command::Think(None)) => {
                self.screen.note(&format!("Thinking is {}.", self.session.turn_params().thinking));
            }
            Line::Command(Command::Think(Some(how))) => self.set_thinking(&how)?,
            Line::Command(Command::Thought) => self.show_thought(),
            Line::Command(Command::Frames) => self.show_frames()?,
            Line::Command(Command::Stats) => match &self.last_answer {
                Some(answer) => {
                    self.screen.note(&stats::table(answer));
                    self.zooms.iter().for_each(|zoom| self.screen.note(zoom));
                }
                None => self.screen.note("There is no answer yet."),
            },
            Line::Command(Command::Help) => self.screen.note(command::HELP),
            Line::Command(Command::Exit) => return Ok(Next::Exit),
        }
        Ok(Next::Go)
    }

    fn ask(&mut self, question: &str) -> anyhow::Result<()> {
        let _work = self.interrupts.work();
        let cancel = self.interrupts.cancel_token();
        let zoom = session::zoom(&mut self.session, question, self.zoom, &mut self.screen)?;
        self.zooms.extend(zoom.as_ref().map(session::about_zoom));
        let (question, searched) = session::search(&mut self.session, question, self.zoom, &mut self.screen)?;
        self.zooms.extend(searched);
        self.screen.busy("reading the question");
        let mut watch = Watch::new(&mut self.screen, Some(AnswerWriter::new()), &cancel);
        let result = self.session.ask(question, &mut watch);
        watch.finish(result.is_ok())?;
        let answer = result?;
        if answer.stop == StopReason::Cancelled {
            self.screen.note("stopped");
        }
        stats::end_note(&answer, "/think N").into_iter().for_each(|note| self.screen.note(&note));
        self.screen.faint(&stats::line(&answer));
        self.last_answer = Some(answer);
        // Done while the user reads the answer; otherwise the next question would have to.
        match self.session.settle(&mut Watch::new(&mut self.screen, None, &cancel)) {
            Ok(()) | Err(sharpv::Error::Cancelled) => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(answer) = &mut self.last_answer {
            answer.kv = self.session.kv();
        }
        Ok(())
    }

    fn set_thinking(&mut self, how: &str) -> anyhow::Result<()> {
        let thinking = values::thinking(how).map_err(|expected| anyhow!("/think {how}: {expected}"))?;
        check_budget("/think", thinking, self.session.turn_params().n_predict)?;
        self.session.set_thinking(thinking)?;
        self.screen.note("It applies from the next question on.");
        Ok(())
    }

    fn show_thought(&self) {
        match self.last_answer.as_ref().map(|answer| answer.reasoning.as_deref()) {
            None => self.screen.note("There is no answer yet."),
            Some(None) => self.screen.note("The model did not think before the last answer."),
            Some(Some(thought)) => {
                let harmless: String = thought.chars().filter(|&c| output::is_harmless(c)).collect();
                self.screen.faint(&harmless);
            }
        }
    }

    fn add_video(&mut self, path: &Path) -> sharpv::Result<()> {
        let _work = self.interrupts.work();
        let report = session::add_video(&mut self.session, path, self.args, "", &mut self.screen)?;
        self.screen.note(&about_video(&report));
        Ok(())
    }

    fn save(&mut self, path: &Path) -> sharpv::Result<()> {
        let _work = self.interrupts.work();
        self.screen.busy(&format!("saving to {}", path.display()));
        let saved = self.session.save(path);
        self.screen.clear();
        saved?;
        self.screen.note(&format!("Saved to {}: {}", path.display(), self.about_session(path)));
        Ok(())
    }

    fn load(&mut self, path: &Path) -> sharpv::Result<()> {
        let _work = self.interrupts.work();
        self.screen.busy(&format!("loading {}", path.display()));
        let loaded = self.session.load(path);
        self.screen.clear();
        loaded?;
        self.zooms.clear();
        self.last_answer = None;
        self.screen.note(&format!("Restored from {}: {}", path.display(), self.about_session(path)));
        Ok(())
    }

    /// The number of answers and videos, and the size of the file at `path`.
    fn about_session(&self, path: &Path) -> String {
        let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let answers = self.session.messages().iter().filter(|message| message.role == Role::Assistant).count();
        let videos = self.session.videos().len();
        let size = std::fs::metadata(path).map_or(0, |meta| meta.len());
        format!("{}, {}, {}", count(answers, "answer"), count(videos, "video"), DecimalBytes(size))
    }

    /// Draws the frames of the videos that this session encoded.
    fn show_frames(&mut self) -> anyhow::Result<()> {
        let _work = self.interrupts.work();
        let videos = self.session.inspect();
        match (videos.len(), self.session.videos().len()) {
            (0, 0) => self.screen.note("There is no video yet; /video FILE adds one."),
            (shown, all) if shown < all => {
                self.screen.note("A loaded conversation has no frames; /video FILE reads them again.");
            }
            _ => {}
        }
        let cancel = self.interrupts.cancel_token();
        for video in &videos {
            frames::show(video, &mut self.screen, &cancel)?;
        }
        Ok(())
    }

    fn list_videos(&self) {
        if self.session.videos().len() == 0 {
            self.screen.note("There is no video yet; /video FILE adds one.");
        }
        self.session.videos().for_each(|video| self.screen.note(&video.path.display().to_string()));
    }
}

fn about_video(report: &VideoReport) -> String {
    let info = &report.info;
    let duration = info.duration_s.map_or_else(String::new, |s| format!("{s:.1} s, "));
    let (path, size) = (info.path.display(), format!("{}×{}", info.width, info.height));
    format!("{path}: {duration}{size}; {}", stats::video(report.frames(), &report.visual_tokens))
}
