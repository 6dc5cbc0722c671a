//! `sharpv ask`: one question, one answer.

use crate::args::AskArgs;
use crate::interrupt::Interrupts;
use crate::options::thinking_or_off;
use crate::output::{self, AnswerWriter};
use crate::screen::{Screen, Watch};
use crate::{session, stats};
use anyhow::Context;
use sharpv::chat::{SessionParams, StopReason};
use std::io::Read;
use std::path::Path;

/// The second Ctrl-C ends the program at once.
const PATIENCE: u32 = 2;

pub fn run(args: &AskArgs, mut screen: Screen) -> anyhow::Result<()> {
    let interrupts = Interrupts::install(PATIENCE)?;
    let cancel = interrupts.cancel_token();
    let question = question(&args.question)?;
    let videos: Vec<&Path> = std::iter::once(&args.video).chain(&args.more_videos).map(AsRef::as_ref).collect();

    let (files, params) = session::prepare(&args.session, &videos, &interrupts, &mut screen, args.json)?;
    let thinking = thinking_or_off(&params);
    let params = SessionParams { keep_unpruned: args.zoom.search, thinking, ..params };
    let mut session = session::load(&files, params, None, &mut screen)?;
    let work = interrupts.work();
    for video in videos {
        session::add_video(&mut session, video, &args.session, &question, &mut screen)?;
    }
    session::zoom(&mut session, &question, &args.zoom, &mut screen)?;
    let (question, _) = session::search(&mut session, &question, &args.zoom, &mut screen)?;
    screen.busy("reading the question");
    let writer = (!args.json).then(AnswerWriter::new);
    let mut watch = Watch::new(&mut screen, writer, &cancel);
    let result = session.ask(question, &mut watch);
    watch.finish(result.is_ok())?;
    let answer = result?;
    drop(work);
    if args.json {
        output::print_json(&answer)?;
    } else {
        stats::end_note(&answer, "--think N").into_iter().for_each(|note| screen.note(&note));
        screen.faint(&stats::line(&answer));
    }
    if answer.stop == StopReason::Cancelled {
        return Err(sharpv::Error::Cancelled.into());
    }
    Ok(())
}

/// The question: the argument, or stdin for `-`.
pub fn question(argument: &str) -> anyhow::Result<String> {
    let question = if argument == "-" {
        let mut text = String::new();
        std::io::stdin().lock().read_to_string(&mut text).context("reading the question from stdin failed")?;
        text
    } else {
        argument.to_owned()
    };
    let question = question.trim();
    if question.is_empty() {
        let expected = "some text".into();
        return Err(sharpv::Error::InvalidParameter { name: "the question", value: "empty".into(), expected }.into());
    }
    Ok(question.to_owned())
}
