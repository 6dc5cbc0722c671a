//! Opening a session and giving it videos, with what the user sees meanwhile.

use crate::interrupt::Interrupts;
use crate::options::SessionArgs;
use crate::screen::{Screen, Watch};
use sharpv::chat::{Session, VideoReport};
use sharpv::models::ModelFiles;
use sharpv::video;
use std::path::Path;

/// Opens a session, after a look at all that is given: a wrong file is told before a large model is fetched or loaded.
pub fn open(
    args: &SessionArgs,
    videos: &[&Path],
    interrupts: &Interrupts,
    screen: &mut Screen,
    silent: bool,
) -> anyhow::Result<Session> {
    let mut params = args.session_params(interrupts.cancel_token())?;
    for video in videos {
        video::probe(video)?;
    }
    let files = args.model.files(screen)?;
    params.layer_profile = args.evict.layer_profile(&files, &params, screen)?;
    if args.model.uses_default() && !silent {
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
    let added = session.add_video_for(path, &args.video.options(), question, &mut Watch::new(screen, None, &cancel));
    screen.clear();
    added
}
