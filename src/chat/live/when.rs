//! Detects when a condition becomes true of live video.

use super::session::LiveSession;
use super::state::Pushed;
use crate::chat::engine::Thinking;
use crate::chat::turn::StopReason;
use crate::error::{Error, Result};
use crate::observer::Observer;
use crate::runtime::SamplerParams;
use serde::Serialize;

/// The grammar of the answer.
const YES_OR_NO: &str = r#"root ::= "Yes" | "No""#;

/// The maximum number of tokens of the answer.
const N_PREDICT: usize = 8;

/// A condition that may become true of live video.
#[derive(Debug, Clone)]
pub struct Condition {
    text: String,
    question: String,
    is_so: bool,
}

impl Condition {
    /// Makes a condition of a text. A question is asked as it is; any other text is made a yes-or-no question.
    pub fn new(text: &str) -> Self {
        let text = text.trim();
        let question = if text.ends_with('?') {
            text.to_owned()
        } else {
            format!("Is this true of the video: {}? Answer yes or no.", text.trim_end_matches('.'))
        };
        Self { text: text.to_owned(), question, is_so: false }
    }

    /// The text that it was made of.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The question to ask the model.
    pub fn question(&self) -> &str {
        &self.question
    }

    /// Records whether the condition holds now. Returns whether it just became true.
    pub fn now(&mut self, is_so: bool) -> bool {
        let was_so = std::mem::replace(&mut self.is_so, is_so);
        is_so && !was_so
    }
}

/// When to ask about a condition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum AskAt {
    /// At every frame that changes the image.
    #[default]
    EachChange,
    /// When a change is over: the novelty of frames has risen and then fallen below half of its peak. Also when the
    /// change has lasted `patience_s`. (TimeChat-Online, arXiv 2504.17343, observed that the share of kept tokens rises
    /// at events.)
    ChangeEnds {
        /// Seconds of video after which to ask although the change goes on.
        patience_s: f64,
    },
}

/// Decides at which frames to ask, from what [`LiveSession::push`] returns.
#[derive(Debug, Clone)]
pub struct Trigger {
    at: AskAt,
    share: f32,
    /// The change that goes on.
    change: Option<Change>,
}

#[derive(Debug, Clone, Copy)]
struct Change {
    since_s: f64,
    /// The peak of the novelty.
    most: f32,
}

impl Trigger {
    /// Makes a trigger. A frame changes the image if its [`Pushed::novelty`] is at least `share` (0 to 1), or if a
    /// scene begins with it.
    pub fn new(at: AskAt, share: f32) -> Self {
        Self { at, share, change: None }
    }

    /// Takes the next frame, and returns whether to ask now.
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

    /// Takes the end of the video, and returns whether to ask once more, because a change was not over.
    pub fn end(&mut self) -> bool {
        self.change.take().is_some()
    }
}

impl LiveSession {
    /// Asks `question`, and returns whether the model answers yes: the likelier of yes and no. It answers without a
    /// thought, whatever is set.
    ///
    /// # Errors
    /// As [`ask`](Self::ask); [`Error::Cancelled`] also during the answer.
    pub fn is_so(&mut self, question: &str, observer: &mut dyn Observer) -> Result<bool> {
        let (sampler, n_predict) = (self.params.sampler.clone(), self.params.n_predict);
        let thinking = std::mem::replace(&mut self.params.thinking, Thinking::Off);
        let grammar = Some(YES_OR_NO.to_owned());
        let yes_or_no = SamplerParams { temperature: 0.0, grammar, ..SamplerParams::default() };
        (self.params.sampler, self.params.n_predict) = (yes_or_no, N_PREDICT);
        let answer = self.ask(question, observer);
        (self.params.sampler, self.params.n_predict, self.params.thinking) = (sampler, n_predict, thinking);
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

    /// Pushes a frame per second with these novelties. Returns the seconds at which to ask, and whether to ask at the
    /// end.
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
        // A scene, a change of three frames, and no change.
        assert_eq!(asked(ends, &[0.4, 0.0, 0.0, 0.2, 0.5, 0.3, 0.2, 0.0, 0.0]), (vec![1, 6], false));
        // A change that goes on is asked about every few seconds.
        assert_eq!(asked(ends, &[0.4; 11]), (vec![4, 9], true));
        // A change that is not over at the end.
        assert_eq!(asked(ends, &[0.3, 0.1, 0.0, 0.0, 0.2]), (vec![1], true));
        assert_eq!(asked(ends, &[0.0, 0.09, 0.09]), (Vec::new(), true));
    }
}
