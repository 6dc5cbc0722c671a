//! `sharpv ask`: one question, one answer.

use crate::args::{AskArgs, SessionArgs};
use crate::interrupt::Interrupts;
use crate::output::{self, AnswerWriter};
use crate::screen::{Screen, Watch};
use crate::stats;
use anyhow::Context;
use sharpv::chat::{Session, StopReason, VideoReport};
use sharpv::models::ModelFiles;
use sharpv::video;
use std::io::Read;
use std::path::Path;

/// The second Ctrl-C ends the program at once.
const PATIENCE: u32 = 2;

pub fn run(args: &AskArgs, mut screen: Screen) -> anyhow::Result<()> {
    let interrupts = Interrupts::install(PATIENCE)?;
    let cancel = interrupts.cancel_token();
    let question = question(&args.question)?;
    let videos: Vec<&Path> = std::iter::once(&args.video).chain(&args.more_videos).map(AsRef::as_ref).collect();

    let mut session = open(&args.session, &videos, &interrupts, &mut screen, args.json)?;
    let work = interrupts.work();
    for video in videos {
        add_video(&mut session, video, &args.session, &question, &mut screen)?;
    }
    screen.busy("reading the question");
    let writer = (!args.json).then(AnswerWriter::new);
    let mut watch = Watch::new(&mut screen, writer, &cancel);
    let result = session.ask(&question, &mut watch);
    watch.finish(result.is_ok())?;
    let answer = result?;
    drop(work);
    if args.json {
        output::print_json(&answer)?;
    } else {
        stats::end_note(&answer).into_iter().for_each(|note| screen.note(&note));
        screen.aside(&stats::line(&answer));
    }
    if answer.stop == StopReason::Cancelled {
        return Err(sharpv::Error::Cancelled.into());
    }
    Ok(())
}

fn question(argument: &str) -> anyhow::Result<String> {
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

/// Opens a session, after a look at all that is given: a wrong file is told before a large model is fetched or loaded.
pub fn open(
    args: &SessionArgs,
    videos: &[&Path],
    interrupts: &Interrupts,
    screen: &mut Screen,
    silent: bool,
) -> anyhow::Result<Session> {
    let params = args.session_params(interrupts.cancel_token())?;
    for video in videos {
        video::probe(video)?;
    }
    let files = args.model_files(screen)?;
    if args.uses_default_model() && !silent {
        screen.note(&about_default_model(&files));
    }
    let cancel = interrupts.cancel_token();
    let session = Session::open(&files, params, &mut Watch::new(screen, None, &cancel));
    screen.clear();
    Ok(session?)
}

/// Which model is used if none was named.
pub fn about_default_model(files: &ModelFiles) -> String {
    format!("Model: {}, the small default. A larger one sees more: -m ORG/REPO (`sharpv models --known`)", files.name)
}

/// Adds a video to the session, for the next question, which is empty where it is not known yet.
pub fn add_video(
    session: &mut Session,
    path: &Path,
    args: &SessionArgs,
    question: &str,
    screen: &mut Screen,
) -> sharpv::Result<VideoReport> {
    let cancel = session.cancel_token().clone();
    screen.busy(&format!("opening {}", path.display()));
    let added = session.add_video_for(path, &args.video_options(), question, &mut Watch::new(screen, None, &cancel));
    screen.clear();
    added
}
