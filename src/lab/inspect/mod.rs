//! Inspection of one video: which visual tokens are kept, as an HTML page, images and a video.
//!
//! [`Inspection::new`] adds a video to a session that was opened with [`inspect`](crate::chat::SessionParams::inspect),
//! and asks a question about it, if there is one. [`measure_dense`](Inspection::measure_dense) does the same with all
//! tokens, for comparison. [`Images`] decodes the frames again for files, and [`strips`] for a terminal.

mod charts;
mod data;
mod files;
mod images;
mod overlay;
mod page;
mod panels;

pub use images::{Images, Shown, strips};

use crate::chat::{
    Answer, Kv, LayerProfile, Session, Settings, StopReason, VideoInspection, VideoOptions, VideoReport,
};
use crate::error::{Error, Result};
use crate::observer::Observer;
use crate::runtime::KvLayer;
use std::path::Path;

/// The inspection of a video, and of the answer about it.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// The frames and tokens of the video.
    pub video: VideoInspection,
    /// The cost of encoding it.
    pub report: VideoReport,
    /// The model's description.
    pub model: String,
    /// The settings of the session.
    pub settings: Settings,
    /// The question and its answer; `None` without a question.
    pub asked: Option<Asked>,
    /// The layer profile of the model, if there is one.
    pub profile: Option<LayerProfile>,
    /// The same video with all tokens.
    pub dense: Dense,
    /// The command line, for display.
    pub command: String,
}

/// A question, its answer, and the KV cache after it.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The question.
    pub question: String,
    /// The answer.
    pub answer: Answer,
    /// The KV cache, after eviction.
    pub kv: Kv,
    /// The KV cache by layer; empty if it cannot be read.
    pub layers: Vec<KvLayer>,
}

/// The same video with all of its tokens.
#[derive(Debug, Clone)]
pub enum Dense {
    /// It was not run.
    NotMeasured,
    /// It could not be run, for this reason.
    Impossible(String),
    /// It was run.
    Measured(Box<DenseRun>),
}

/// The cost with all tokens.
#[derive(Debug, Clone)]
pub struct DenseRun {
    /// The tokens, and the time to encode them.
    pub report: VideoReport,
    /// The answer, if there is a question.
    pub answer: Option<Answer>,
}

impl Inspection {
    /// Adds the video at `path` to `session`, and asks `question`, if there is one.
    ///
    /// # Errors
    /// As [`Session::add_video`] and [`Session::ask`]; [`Error::InvalidParameter`] if the session was not opened with
    /// [`inspect`](crate::chat::SessionParams::inspect); [`Error::Cancelled`], also if the answer was cancelled.
    pub fn new(
        session: &mut Session,
        path: &Path,
        options: &VideoOptions,
        question: Option<&str>,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        let report = session.add_video(path, &options.for_question(question.unwrap_or_default()), observer)?;
        let video = session.inspect().pop().ok_or_else(|| Error::InvalidParameter {
            name: "SessionParams::inspect",
            value: "false".into(),
            expected: "true for an inspection".into(),
        })?;
        let asked = match question {
            None => None,
            Some(question) => {
                let answer = ask(session, question, observer)?;
                session.settle(observer)?;
                let (kv, layers) = (session.kv(), session.kv_layers());
                Some(Asked { question: question.to_owned(), answer, kv, layers })
            }
        };
        Ok(Self {
            video,
            report,
            model: session.model().description(),
            settings: session.settings(),
            asked,
            profile: session.layer_profile().cloned(),
            dense: Dense::NotMeasured,
            command: String::new(),
        })
    }

    /// Does the same with all tokens. `session` should encode everything, and prune and evict nothing. If the video
    /// does not fit with all tokens, it is not run, and [`dense`](Self::dense) has the reason.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn measure_dense(
        &mut self,
        session: &mut Session,
        path: &Path,
        options: &VideoOptions,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let question = self.asked.as_ref().map(|asked| asked.question.clone());
        let options = options.for_question(question.as_deref().unwrap_or_default());
        let plan = session.plan_video(path, &options)?;
        if !plan.fits || !plan.changes.is_empty() {
            let reason = plan.shortage.unwrap_or_else(|| plan.changes.join("; "));
            self.dense = Dense::Impossible(format!("with all tokens, the video does not fit: {reason}"));
            return Ok(());
        }
        let report = session.add_video(path, &options, observer)?;
        let times = |report: &VideoReport| report.slices.iter().map(|slice| slice.time_s).collect::<Vec<_>>();
        if times(&report) != times(&self.report) || report.visual_tokens.total != self.report.visual_tokens.total {
            self.dense = Dense::Impossible("with all tokens, other frames are chosen".to_owned());
            return Ok(());
        }
        let answer = question.map(|question| ask(session, &question, observer)).transpose()?;
        self.dense = Dense::Measured(Box::new(DenseRun { report, answer }));
        Ok(())
    }

    /// The content of the page as data; docs/inspect.md describes it.
    pub fn data(&self) -> serde_json::Value {
        data::value(self)
    }

    /// Draws the page, and writes it to `path`, completely or not at all.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Unusable`] if an image cannot be drawn.
    pub fn write_page(&self, images: &Shown, path: &Path) -> Result<()> {
        files::write(path, self.html(images)?.as_bytes())
    }

    /// The page, as one self-contained file.
    ///
    /// # Errors
    /// [`Error::Unusable`] if an image cannot be drawn.
    pub fn html(&self, images: &Shown) -> Result<String> {
        page::html(self, images)
    }
}

fn ask(session: &mut Session, question: &str, observer: &mut dyn Observer) -> Result<Answer> {
    let answer = session.ask(question, observer)?;
    if answer.stop == StopReason::Cancelled {
        return Err(Error::Cancelled);
    }
    Ok(answer)
}
