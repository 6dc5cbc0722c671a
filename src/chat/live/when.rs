//! Telling when something has become true of video that goes on.

use super::session::LiveSession;
use super::state::Pushed;
use crate::chat::turn::StopReason;
use crate::error::{Error, Result};
use crate::observer::Observer;
use crate::runtime::SamplerParams;
use serde::Serialize;

/// Nothing else can be answered.
const YES_OR_NO: &str = r#"root ::= "Yes" | "No""#;

/// The most tokens of such an answer.
const N_PREDICT: usize = 8;

/// Something that may become true.
#[derive(Debug, Clone)]
pub struct Condition {
    text: String,
    question: String,
    is_so: bool,
}

impl Condition {
    /// A text that is a question is asked as it is; others become one.
    pub fn new(text: &str) -> Self {
        let text = text.trim();
        let question = if text.ends_with('?') {
            text.to_owned()
        } else {
            format!("Is this true of the video: {}? Answer yes or no.", text.trim_end_matches('.'))
        };
        Self { text: text.to_owned(), question, is_so: false }
    }

    /// As it was given.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the model is asked.
    pub fn question(&self) -> &str {
        &self.question
    }

    /// Takes whether it is so now. Returns whether it has become true with it.
    pub fn now(&mut self, is_so: bool) -> bool {
        let was_so = std::mem::replace(&mut self.is_so, is_so);
        is_so && !was_so
    }
}

/// When to ask whether something has become true.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum AskAt {
    /// With every frame that changes the image.
    #[default]
    EachChange,
    /// When a change is over: the share of frames that is new has risen and then fallen to less than half of the most
    /// that it was. Or when so much time has gone by since it rose. (That the share which is kept of frames rises where
    /// events are is an observation of TimeChat-Online, arXiv 2504.17343.)
    ChangeEnds {
        /// Seconds of video, after which is asked although the change goes on.
        patience_s: f64,
    },
}

/// Says with which frames to ask. Knows nothing but what [`LiveSession::push`] tells of them.
#[derive(Debug, Clone)]
pub struct Trigger {
    at: AskAt,
    share: f32,
    /// The change that was not asked about yet.
    change: Option<Change>,
}

#[derive(Debug, Clone, Copy)]
struct Change {
    since_s: f64,
    /// The most of a frame that was new.
    most: f32,
}

impl Trigger {
    /// A frame changes the image if at least `share` of it is new (0 to 1, [`Pushed::novelty`]), or if a scene begins
    /// with it.
    pub fn new(at: AskAt, share: f32) -> Self {
        Self { at, share, change: None }
    }

    /// Takes the next frame. Returns whether to ask now.
    pub fn push(&mut self, pushed: &Pushed) -> bool {
        let is_change = pushed.opens_scene || pushed.novelty >= self.share;
        let AskAt::ChangeEnds { patience_s } = self.at else { return is_change };
        if is_change {
            let change = self.change.get_or_insert(Change { since_s: pushed.time_s, most: 0.0 });
            change.most = change.most.max(pushed.novelty);
        }
        let is_over = self.change.is_some_and(|Change { since_s, most }| {
            pushed.novelty < most / 2.0 || pushed.time_s - since_s >= patience_s
        });
        if is_over {
            self.change = None;
        }
        is_over
    }

    /// No more frames will come. Returns whether to ask once more, for the sake of a change that was not over.
    pub fn end(&mut self) -> bool {
        self.change.take().is_some()
    }
}

impl LiveSession {
    /// Whether the model says yes to `question` now: the likelier of yes and no.
    ///
    /// # Errors
    /// As [`ask`](Self::ask); [`Error::Cancelled`] if it is stopped.
    pub fn is_so(&mut self, question: &str, observer: &mut dyn Observer) -> Result<bool> {
        let (sampler, n_predict) = (self.params.sampler.clone(), self.params.n_predict);
        let grammar = Some(YES_OR_NO.to_owned());
        self.set_sampler(SamplerParams { temperature: 0.0, grammar, ..SamplerParams::default() })?;
        let answer = self.set_n_predict(N_PREDICT).and_then(|()| self.ask(question, observer));
        self.set_n_predict(n_predict)?;
        self.set_sampler(sampler)?;
        let answer = answer?;
        match answer.stop {
            StopReason::Cancelled => Err(Error::Cancelled),
            _ => Ok(answer.answer.trim_start().to_lowercase().starts_with("yes")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_once_until_it_was_not_so() {
        let mut condition = Condition::new("a person enters");
        let told = [false, true, true, false, false, true].map(|is_so| condition.now(is_so));
        assert_eq!(told, [false, true, false, false, false, true]);
    }

    #[test]
    fn questions_are_asked_as_they_are() {
        assert_eq!(Condition::new(" Is there a dog? ").question(), "Is there a dog?");
        assert_eq!(Condition::new("a dog.").question(), "Is this true of the video: a dog? Answer yes or no.");
    }

    /// The seconds at which is asked, of a frame a second of which so much is new; and whether once more at the end.
    fn asked(at: AskAt, novelties: &[f32]) -> (Vec<usize>, bool) {
        let mut trigger = Trigger::new(at, 0.1);
        let asks = |&(second, &novelty): &(usize, &f32)| {
            trigger.push(&Pushed {
                time_s: second as f64,
                novelty,
                opens_scene: second == 0,
                total: 10,
                kept: 1,
                computed: 1.0,
                evicted: 0,
            })
        };
        (novelties.iter().enumerate().filter(asks).map(|(second, _)| second).collect(), trigger.end())
    }

    #[test]
    fn each_change_is_asked_about() {
        let novelties = [0.05, 0.0, 0.2, 0.3, 0.09, 0.1];
        assert_eq!(asked(AskAt::EachChange, &novelties), (vec![0, 2, 3, 5], false));
    }

    #[test]
    fn a_change_is_asked_about_when_it_is_over() {
        let ends = AskAt::ChangeEnds { patience_s: 4.0 };
        // A scene, a change of three frames, and nothing.
        assert_eq!(asked(ends, &[0.4, 0.0, 0.0, 0.2, 0.5, 0.3, 0.2, 0.0, 0.0]), (vec![1, 6], false));
        // One that goes on is asked about every four seconds.
        assert_eq!(asked(ends, &[0.4; 11]), (vec![4, 9], true));
        // What is not yet over at the end.
        assert_eq!(asked(ends, &[0.3, 0.1, 0.0, 0.0, 0.2]), (vec![1], true));
        assert_eq!(asked(ends, &[0.0, 0.09, 0.09]), (Vec::new(), true));
    }
}
