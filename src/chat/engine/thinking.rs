//! Thinking: whether a model thinks before it answers, and what its chat template is told of that.

use crate::error::{Error, Result};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use std::fmt;
use std::str::FromStr;

/// Whether a model thinks before it answers.
///
/// A text of it is `auto`, `on`, `off`, or a number of tokens. Models that cannot think answer as ever, whatever is
/// set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Thinking {
    /// As the model does by default: its chat template is told nothing.
    #[default]
    Auto,
    /// The chat template is told that the model shall think.
    On,
    /// No thought: the chat template is told so. A thought that the template or the model begins all the same is closed
    /// at once.
    Off,
    /// As [`On`](Self::On), but after this many tokens the thought is closed with the template's own end, and the
    /// answer begins. `Budget(0)` is [`Off`](Self::Off).
    Budget(usize),
}

impl Thinking {
    /// Whether there shall be no thought.
    pub(in crate::chat) fn is_off(self) -> bool {
        matches!(self, Self::Off | Self::Budget(0))
    }

    /// The most tokens of a thought; `None` if there is no limit.
    pub(in crate::chat) fn budget(self) -> Option<usize> {
        match self {
            Self::Auto | Self::On => None,
            Self::Off => Some(0),
            Self::Budget(n) => Some(n),
        }
    }

    /// Checks that an answer can follow the longest thought.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if the budget is not below `n_predict`.
    pub(in crate::chat) fn check(self, n_predict: usize) -> Result<()> {
        match self {
            Self::Budget(n) if n >= n_predict => Err(Error::InvalidParameter {
                name: "thinking",
                value: n.to_string(),
                expected: format!("fewer than n-predict tokens ({n_predict})"),
            }),
            _ => Ok(()),
        }
    }

    /// What the chat template is told, by name: about thinking, and what the `user` adds. What the user says counts.
    pub(in crate::chat) fn kwargs(self, user: &Map<String, Value>) -> Map<String, Value> {
        let mut kwargs = Map::new();
        if self != Self::Auto {
            // The names that the families' templates read.
            for name in ["enable_thinking", "thinking"] {
                kwargs.insert(name.to_owned(), Value::Bool(!self.is_off()));
            }
        }
        if let Some(n) = self.budget() {
            kwargs.insert("thinking_budget".to_owned(), n.into());
        }
        kwargs.extend(user.iter().map(|(name, value)| (name.clone(), value.clone())));
        kwargs
    }
}

impl fmt::Display for Thinking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::On => f.write_str("on"),
            Self::Off => f.write_str("off"),
            Self::Budget(n) => n.fmt(f),
        }
    }
}

impl FromStr for Thinking {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "on" => Ok(Self::On),
            "off" => Ok(Self::Off),
            _ => match text.parse() {
                Ok(0) => Ok(Self::Off),
                Ok(n) => Ok(Self::Budget(n)),
                Err(_) => Err(Error::InvalidParameter {
                    name: "thinking",
                    value: format!("\"{text}\""),
                    expected: "auto, on, off or a number of tokens".into(),
                }),
            },
        }
    }
}

/// As its text.
impl Serialize for Thinking {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What a chat template is always given, so that nothing else may have these names.
const GIVEN: [&str; 5] = ["messages", "add_generation_prompt", "bos_token", "eos_token", "tools"];

/// Checks the names of what a user tells the chat template.
///
/// # Errors
/// [`Error::InvalidParameter`] for a name of something else.
pub(in crate::chat) fn check_kwargs(kwargs: &Map<String, Value>) -> Result<()> {
    match kwargs.keys().find(|name| GIVEN.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => Err(Error::InvalidParameter {
            name: "template-kwargs",
            value: format!("an object with \"{name}\""),
            expected: format!("an object without {}, which the template is given anyway", GIVEN.join(", ")),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn its_text_is_read_and_written() {
        for (text, thinking) in
            [("auto", Thinking::Auto), ("on", Thinking::On), ("off", Thinking::Off), ("128", Thinking::Budget(128))]
        {
            assert_eq!(text.parse::<Thinking>().unwrap(), thinking);
            assert_eq!(thinking.to_string(), text);
            assert_eq!(serde_json::to_value(thinking).unwrap(), json!(text));
        }
        assert_eq!("0".parse::<Thinking>().unwrap(), Thinking::Off);
        for bad in ["", "-1", "1.5", "On", "many", "99999999999999999999999"] {
            let error = bad.parse::<Thinking>().unwrap_err().to_string();
            assert!(error.contains("auto, on, off or a number"), "{error}");
        }
    }

    #[test]
    fn a_template_is_told_what_is_set_and_what_the_user_says() {
        let user = json!({ "reasoning_effort": "high", "thinking": null }).as_object().unwrap().clone();
        let told = |thinking: Thinking, user: &Map<String, Value>| Value::Object(thinking.kwargs(user));
        assert_eq!(told(Thinking::Auto, &Map::new()), json!({}));
        assert_eq!(told(Thinking::Auto, &user), json!({ "reasoning_effort": "high", "thinking": null }));
        assert_eq!(
            told(Thinking::Off, &Map::new()),
            json!({ "enable_thinking": false, "thinking": false, "thinking_budget": 0 })
        );
        assert_eq!(told(Thinking::Budget(0), &Map::new()), told(Thinking::Off, &Map::new()));
        assert_eq!(
            told(Thinking::Budget(9), &user),
            json!({ "enable_thinking": true, "thinking": null, "thinking_budget": 9, "reasoning_effort": "high" })
        );
    }

    #[test]
    fn what_the_template_is_given_anyway_is_refused() {
        for name in GIVEN {
            let kwargs = Map::from_iter([(name.to_owned(), json!(1))]);
            let error = check_kwargs(&kwargs).unwrap_err().to_string();
            assert!(error.contains(&format!("\"{name}\"")), "{error}");
        }
        check_kwargs(&Map::from_iter([("enable_thinking".to_owned(), json!({ "a": [1] }))])).unwrap();
    }

    #[test]
    fn a_budget_leaves_tokens_for_the_answer() {
        Thinking::Budget(7).check(8).unwrap();
        Thinking::On.check(1).unwrap();
        let error = Thinking::Budget(8).check(8).unwrap_err().to_string();
        assert!(error.starts_with("thinking is 8") && error.contains("fewer than n-predict"), "{error}");
    }
}
