//! What became of the visual tokens of one video: a page to look at, images, a video.
//!
//! [`Inspection::new`] adds a video to a session that was opened with
//! [`inspect`](crate::chat::SessionParams::inspect), and asks a question about it if there is one;
//! [`measure_dense`](Inspection::measure_dense) does the same with all tokens, to compare; and
//! [`Images`] decodes the frames again, for what is written, and [`strips`] for what is shown in a terminal.

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

/// What is known of a video, and of the answer about it.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// Its frames and tokens.
    pub video: VideoInspection,
    /// What it took to encode.
    pub report: VideoReport,
    /// The model's description.
    pub model: String,
    /// What produced it.
    pub settings: Settings,
    /// What was asked; `None` if nothing was.
    pub asked: Option<Asked>,
    /// What is known of the model's layers.
    pub profile: Option<LayerProfile>,
    /// The same with all tokens.
    pub dense: Dense,
    /// The command that made it, to be shown.
    pub command: String,
}

/// A question, its answer, and what the KV cache looks like behind it.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The question.
    pub question: String,
    /// The answer.
    pub answer: Answer,
    /// The KV cache, once what could be evicted was.
    pub kv: Kv,
    /// The same, layer by layer; empty where it cannot be looked into.
    pub layers: Vec<KvLayer>,
}

/// The same video with all of its tokens.
#[derive(Debug, Clone)]
pub enum Dense {
    /// It was not tried.
    NotMeasured,
    /// It could not be.
    Impossible(String),
    /// It was.
    Measured(Box<DenseRun>),
}

/// What it takes with all tokens.
#[derive(Debug, Clone)]
pub struct DenseRun {
    /// Tokens, and the time to encode them.
    pub report: VideoReport,
    /// The answer, if something was asked.
    pub answer: Option<Answer>,
}

impl Inspection {
    /// Adds the video at `path` to `session`, and asks `question`, if there is one.
    ///
    /// # Errors
    /// As [`Session::add_video`] and [`Session::ask`]; [`Error::InvalidParameter`] if the session was not opened with
    /// [`inspect`](crate::chat::SessionParams::inspect); [`Error::Cancelled`] also where an answer was stopped.
    pub fn new(
        session: &mut Session,
        path: &Path,
        options: &VideoOptions,
        question: Option<&str>,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        let report = session.add_video_for(path, options, question.unwrap_or_default(), observer)?;
        let video = session.inspect().pop().ok_or_else(|| Error::InvalidParameter {
            name: "SessionParams::inspect",
            value: "false".into(),
            expected: "true for looking at what became of a video".into(),
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

    /// Does the same with all tokens: `session` should be one that encodes all, prunes nothing and evicts nothing.
    /// Where the video does not fit without being made smaller, it is not measured, and that is told.
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
        let plan = session.plan_video(path, options, question.as_deref().unwrap_or_default())?;
        if !plan.fits || !plan.changes.is_empty() {
            let reason = plan.shortage.unwrap_or_else(|| plan.changes.join("; "));
            self.dense = Dense::Impossible(format!("with all tokens, the video does not fit: {reason}"));
            return Ok(());
        }
        let report = session.add_video_for(path, options, question.as_deref().unwrap_or_default(), observer)?;
        let times = |report: &VideoReport| report.slices.iter().map(|slice| slice.time_s).collect::<Vec<_>>();
        if times(&report) != times(&self.report) || report.visual_tokens.total != self.report.visual_tokens.total {
            self.dense = Dense::Impossible("with all tokens, other frames are taken".to_owned());
            return Ok(());
        }
        let answer = question.map(|question| ask(session, &question, observer)).transpose()?;
        self.dense = Dense::Measured(Box::new(DenseRun { report, answer }));
        Ok(())
    }

    /// What the page is made of, as data: docs/inspect.md describes it.
    pub fn data(&self) -> serde_json::Value {
        data::value(self)
    }

    /// Draws the page, and writes it to `path`, whole or not at all.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Unusable`] if an image cannot be drawn.
    pub fn write_page(&self, images: &Shown, path: &Path) -> Result<()> {
        files::write(path, self.html(images)?.as_bytes())
    }

    /// The page: one file that needs no other.
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
