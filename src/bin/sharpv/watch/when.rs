//! `--when`: what is waited for.

use sharpv::runtime::SamplerParams;

/// Nothing else can be answered.
const YES_OR_NO: &str = r#"root ::= "Yes" | "No""#;

/// The most tokens of such an answer.
pub const N_PREDICT: usize = 8;

/// Something that may become true.
#[derive(Debug, Clone)]
pub struct Condition {
    /// As it was given.
    pub text: String,
    /// What the model is asked.
    pub question: String,
    /// What it answered last.
    is_so: bool,
}

impl Condition {
    /// A text that is a question is asked as it is.
    pub fn new(text: &str) -> Self {
        let text = text.trim();
        let question = if text.ends_with('?') {
            text.to_owned()
        } else {
            format!("Is this true of the video: {}? Answer yes or no.", text.trim_end_matches('.'))
        };
        Self { text: text.to_owned(), question, is_so: false }
    }

    /// Takes what the model answers now. Returns whether it has become true with it.
    pub fn answered(&mut self, answer: &str) -> bool {
        let was_so = std::mem::replace(&mut self.is_so, is_yes(answer));
        self.is_so && !was_so
    }
}

/// The likeliest of yes and no.
pub fn sampler() -> SamplerParams {
    SamplerParams { temperature: 0.0, grammar: Some(YES_OR_NO.to_owned()), ..SamplerParams::default() }
}

fn is_yes(answer: &str) -> bool {
    answer.trim_start().to_lowercase().starts_with("yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_once_until_it_was_not_so() {
        let mut condition = Condition::new("a person enters");
        let told = ["No", "Yes", "Yes", "No", "No", " Yes."].map(|answer| condition.answered(answer));
        assert_eq!(told, [false, true, false, false, false, true]);
    }

    #[test]
    fn questions_are_asked_as_they_are() {
        assert_eq!(Condition::new(" Is there a dog? ").question, "Is there a dog?");
        assert_eq!(Condition::new("a dog.").question, "Is this true of the video: a dog? Answer yes or no.");
    }
}
