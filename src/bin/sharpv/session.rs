//! Opens a session and adds videos, with progress on screen.

use crate::interrupt::Interrupts;
use crate::options::{SessionArgs, ZoomOptions, thinking_or_off};
use crate::screen::{Screen, Watch};
use sharpv::chat::{Question, Search, Session, SessionParams, VideoReport, Zoom};
use sharpv::models::ModelFiles;
use sharpv::runtime::Model;
use sharpv::video;
use std::path::Path;

/// Opens a session, in which the model does not think unless that is asked for. Checks the videos first, so that a
/// wrong file is reported before a large model is downloaded or loaded.
pub fn open(
    args: &SessionArgs,
    videos: &[&Path],
    interrupts: &Interrupts,
    screen: &mut Screen,
    silent: bool,
) -> anyhow::Result<Session> {
    let (files, params) = prepare(args, videos, interrupts, screen, silent)?;
    let params = SessionParams { thinking: thinking_or_off(&params), ..params };
    load(&files, params, None, screen)
}

/// The same without loading: returns the model's files and the parameters of the session.
pub fn prepare(
    args: &SessionArgs,
    videos: &[&Path],
    interrupts: &Interrupts,
    screen: &mut Screen,
    silent: bool,
) -> anyhow::Result<(ModelFiles, SessionParams)> {
    let mut params = args.session_params(interrupts.cancel_token())?;
    for video in videos {
        video::probe(video)?;
    }
    let files = args.model.files(screen)?;
    params.layer_profile = args.evict.layer_profile(&files, &params, screen)?;
    if args.model.uses_default() && !silent {
        screen.note(&about_default_model(&files));
    }
    Ok((files, params))
}

/// Opens a session, with `model` if that is loaded already.
pub fn load(
    files: &ModelFiles,
    params: SessionParams,
    model: Option<Model>,
    screen: &mut Screen,
) -> anyhow::Result<Session> {
    let cancel = params.cancel.clone();
    let mut watch = Watch::new(screen, None, &cancel);
    let builder = Session::builder(files).params(params).observer(&mut watch);
    let session = match model {
        Some(model) => builder.model(model).open(),
        None => builder.open(),
    };
    screen.clear();
    Ok(session?)
}

/// A line about the limits of the default model.
pub fn about_default_model(files: &ModelFiles) -> String {
    format!(
        "Model: {}, a small model that answers something to anything; larger models see more: -m ORG/REPO (`sharpv models --known`)",
        files.name
    )
}

/// Adds frames of the part of the last video that `question` names, if that part has few.
pub fn zoom(
    session: &mut Session,
    question: &str,
    zoom: &ZoomOptions,
    screen: &mut Screen,
) -> sharpv::Result<Option<Zoom>> {
    if zoom.no_zoom {
        return Ok(None);
    }
    let cancel = session.cancel_token().clone();
    let zoomed = session.zoom(question, &mut Watch::new(screen, None, &cancel));
    screen.clear();
    let zoomed = zoomed?;
    if let Some(zoom) = &zoomed {
        screen.note(&format!("{} (--no-zoom does not add them)", about_zoom(zoom)));
    }
    Ok(zoomed)
}

/// Searches the last video for the part that holds the answer, if requested. Returns the question about that part, and
/// the result as a line.
pub fn search<'q>(
    session: &mut Session,
    question: &'q str,
    zoom: &ZoomOptions,
    screen: &mut Screen,
) -> sharpv::Result<(Question<'q>, Option<String>)> {
    if !zoom.search {
        return Ok((question.into(), None));
    }
    let cancel = session.cancel_token().clone();
    let searched = session.search(question, &mut Watch::new(screen, None, &cancel));
    screen.clear();
    let (question, line) = match searched? {
        None => (question.into(), "too few frames to search: answered from all of them".to_owned()),
        Some(search) => (search.question(question), about_search(&search, "the whole video")),
    };
    screen.note(&line);
    Ok((question, Some(line)))
}

/// The result of a search as a line; `otherwise` is what the answer comes from if nothing was found.
pub fn about_search(search: &Search, otherwise: &str) -> String {
    let n = search.parts.len();
    match search.part() {
        Some(part) => format!("searched {n} parts: answered from {part} ({} frames)", part.frames),
        None => format!("searched {n} parts: all gave the same answer, answered from {otherwise}"),
    }
}

/// The added frames, as a line.
pub fn about_zoom(zoom: &Zoom) -> String {
    let tokens = zoom.report.visual_tokens;
    format!(
        "{} frames of {zoom} added to the {} there: {} of {} visual tokens kept",
        zoom.frames, zoom.frames_before, tokens.kept, tokens.total
    )
}

/// Adds a video to the session for the next question, which is empty if it is not known yet.
pub fn add_video(
    session: &mut Session,
    path: &Path,
    args: &SessionArgs,
    question: &str,
    screen: &mut Screen,
) -> sharpv::Result<VideoReport> {
    let cancel = session.cancel_token().clone();
    screen.busy(&format!("opening {}", path.display()));
    let added =
        session.add_video(path, &args.video.options().for_question(question), &mut Watch::new(screen, None, &cancel));
    screen.clear();
    added
}
