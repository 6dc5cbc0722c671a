//! Whether and how long the model thinks before it answers, and what else its chat template is told, within what the
//! server was started with.
//!
//! There is no one field for it: each server and each API has its own, and clients send those that they know.

use crate::chat::{Thinking, TurnParams};
use crate::serve::api::error::ApiError;
use crate::serve::api::request::{ChatRequest, Whole};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// What a chat template is told by this server alone.
const RESERVED: [&str; 5] = ["messages", "add_generation_prompt", "tools", "bos_token", "eos_token"];

/// The names by which chat templates are told whether the model is to think.
const SWITCHES: [&str; 2] = ["enable_thinking", "thinking"];

/// The name by which they are told how long.
const EFFORT: &str = "reasoning_effort";

/// The most bytes of `chat_template_kwargs`, and of an effort.
const MAX_KWARGS: usize = 1 << 16;
const MAX_EFFORT: usize = 64;

/// The field `thinking`, as Anthropic, GLM and DeepSeek have it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Field {
    Switch(bool),
    Object {
        #[serde(rename = "type")]
        kind: Option<Kind>,
        budget_tokens: Option<Whole>,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Enabled,
    Disabled,
    Auto,
    Adaptive,
}

/// How long the model may think, and what its template is told. An answer has at most `n_predict` tokens.
pub(super) fn params(
    request: &ChatRequest<'_>,
    base: &TurnParams,
    n_predict: usize,
) -> Result<(Thinking, Map<String, Value>), ApiError> {
    let sent = kwargs(request.chat_template_kwargs)?;
    let effort = effort(request)?;
    let asked = asked(request, &sent, effort.as_deref())?;
    let thinking = match limited(asked.unwrap_or(base.thinking), base.thinking) {
        // The answer's own limit comes first.
        Thinking::Budget(n) if n >= n_predict => Thinking::On,
        thinking => thinking,
    };
    let mut kwargs = base.template_kwargs.clone();
    if let Some(effort) = effort.filter(|_| thinking != Thinking::Off) {
        kwargs.insert(EFFORT.into(), effort.into());
    }
    kwargs.extend(sent);
    if asked.is_some() {
        // The template must not be told otherwise than what was decided.
        for name in SWITCHES {
            if let Some(value) = kwargs.get_mut(name) {
                *value = Value::Bool(thinking != Thinking::Off);
            }
        }
    }
    Ok((thinking, kwargs))
}

/// Whether the client gets the thought.
pub(super) fn is_sent(request: &ChatRequest<'_>) -> Result<bool, ApiError> {
    let name = "reasoning_format";
    let format: Option<String> = field(name, request.reasoning_format, "a text")?;
    let by_format = match format.as_deref() {
        None | Some("auto" | "deepseek" | "parsed") => true,
        Some("hidden") => false,
        Some("none" | "raw" | "deepseek-legacy") => {
            let message = "this server tells thoughts from answers: leave out reasoning_format";
            return Err(ApiError::unsupported(name, message));
        }
        Some(_) => return Err(ApiError::invalid(name, "reasoning_format must be auto, deepseek, parsed or hidden")),
    };
    let included = field("include_reasoning", request.include_reasoning, "true or false")?;
    Ok(included.unwrap_or(true) && by_format)
}

/// What the request asks for. The first of its fields that says something counts.
fn asked(
    request: &ChatRequest<'_>,
    kwargs: &Map<String, Value>,
    effort: Option<&str>,
) -> Result<Option<Thinking>, ApiError> {
    let budget = budget("thinking_budget_tokens", request.thinking_budget_tokens)?;
    let own = own(request.thinking)?;
    let switch = field("enable_thinking", request.enable_thinking, "true or false")?;
    // DashScope's budget counts unless its switch is off.
    let with_switch = match (switch, self::budget("thinking_budget", request.thinking_budget)?) {
        (Some(false), _) => Some(Thinking::Off),
        (_, Some(budget)) => Some(budget),
        (Some(true), None) => Some(Thinking::On),
        (None, None) => None,
    };
    let told = told(kwargs)?;
    let by_effort = effort.map(|effort| if effort == "none" { Thinking::Off } else { Thinking::On });
    Ok(budget.or(own).or(with_switch).or(told).or(by_effort))
}

/// What the field `thinking` asks for.
fn own(value: Option<&RawValue>) -> Result<Option<Thinking>, ApiError> {
    let expected = "an object with a type (enabled, disabled or auto), and with budget_tokens or not";
    Ok(match field("thinking", value, expected)? {
        None => None,
        Some(Field::Switch(on)) => Some(of_switch(on)),
        Some(Field::Object { kind: Some(Kind::Disabled), .. }) => Some(Thinking::Off),
        Some(Field::Object { kind, budget_tokens }) => {
            let budget = budget_tokens.map(|n| of_budget("thinking", n)).transpose()?.flatten();
            budget.or_else(|| (kind == Some(Kind::Enabled)).then_some(Thinking::On))
        }
    })
}

/// What `chat_template_kwargs` ask for.
fn told(kwargs: &Map<String, Value>) -> Result<Option<Thinking>, ApiError> {
    let mut told = None;
    for name in SWITCHES {
        match kwargs.get(name) {
            Some(Value::Bool(on)) => told = told.or(Some(of_switch(*on))),
            Some(Value::Null) | None => {}
            Some(_) => {
                let message = format!("{name} in chat_template_kwargs must be true or false");
                return Err(ApiError::invalid("chat_template_kwargs", message));
            }
        }
    }
    Ok(told)
}

/// No more than the server allows: one that was started without thoughts has none, and one with a budget no longer
/// ones.
fn limited(asked: Thinking, most: Thinking) -> Thinking {
    match (most, asked) {
        (Thinking::Off, _) | (_, Thinking::Off) => Thinking::Off,
        (Thinking::Budget(most), Thinking::Budget(n)) => Thinking::Budget(n.min(most)),
        (Thinking::Budget(most), _) => Thinking::Budget(most),
        (_, asked) => asked,
    }
}

fn kwargs(value: Option<&RawValue>) -> Result<Map<String, Value>, ApiError> {
    let name = "chat_template_kwargs";
    if value.is_some_and(|value| value.get().len() > MAX_KWARGS) {
        return Err(ApiError::too_large(name, MAX_KWARGS as u64));
    }
    let kwargs: Map<String, Value> = field(name, value, "an object")?.unwrap_or_default();
    match RESERVED.iter().find(|&&reserved| kwargs.contains_key(reserved)) {
        None => Ok(kwargs),
        Some(reserved) => {
            let message = format!("chat_template_kwargs cannot have {reserved}, which the server sets: leave it out");
            Err(ApiError::invalid(name, message))
        }
    }
}

fn effort(request: &ChatRequest<'_>) -> Result<Option<String>, ApiError> {
    let expected = "a text, such as none, low, medium or high";
    let effort: Option<String> = field(EFFORT, request.reasoning_effort, expected)?;
    if effort.as_ref().is_some_and(|effort| effort.is_empty() || effort.len() > MAX_EFFORT) {
        return Err(ApiError::invalid(EFFORT, format!("{EFFORT} must have 1 to {MAX_EFFORT} bytes")));
    }
    Ok(effort)
}

fn budget(name: &'static str, value: Option<&RawValue>) -> Result<Option<Thinking>, ApiError> {
    match field(name, value, "a whole number")? {
        Some(n) => of_budget(name, n),
        None => Ok(None),
    }
}

/// A number of tokens. −1 is no budget.
fn of_budget(name: &'static str, Whole(n): Whole) -> Result<Option<Thinking>, ApiError> {
    match n {
        -1 => Ok(None),
        0 => Ok(Some(Thinking::Off)),
        1.. => Ok(Some(Thinking::Budget(usize::try_from(n).unwrap_or(usize::MAX)))),
        _ => {
            let message = "the budget of a thought must be 0 tokens or more, or -1 for as many as the server allows";
            Err(ApiError::invalid(name, message))
        }
    }
}

fn of_switch(on: bool) -> Thinking {
    if on { Thinking::On } else { Thinking::Off }
}

/// Reads a field. The error names it, and does not quote it.
fn field<'a, T: Deserialize<'a>>(
    name: &'static str,
    value: Option<&'a RawValue>,
    expected: &str,
) -> Result<Option<T>, ApiError> {
    let read = |value: &'a RawValue| serde_json::from_str(value.get());
    value.map(read).transpose().map_err(|_| ApiError::invalid(name, format!("{name} must be {expected}")))
}

#[cfg(test)]
mod tests {
    use super::super::tests::base;
    use super::*;

    fn read(most: Thinking, fields: &str) -> Result<(Thinking, Map<String, Value>), ApiError> {
        let body = format!(r#"{{"messages":[],{fields}}}"#);
        let request = ChatRequest::read(body.as_bytes())?;
        params(&request, &TurnParams { thinking: most, ..base().turn }, 100)
    }

    fn asked(most: Thinking, fields: &str) -> Thinking {
        read(most, fields).unwrap_or_else(|error| panic!("{fields}: {}", error.body())).0
    }

    #[test]
    fn every_name_of_a_thought_is_read() {
        use Thinking::{Auto, Budget, Off, On};
        for (fields, expected) in [
            (r#""seed":1"#, Auto),
            (r#""thinking_budget_tokens":7"#, Budget(7)),
            (r#""thinking_budget_tokens":7.0"#, Budget(7)),
            (r#""thinking_budget_tokens":0"#, Off),
            (r#""thinking_budget_tokens":-1"#, Auto),
            (r#""thinking_budget_tokens":null"#, Auto),
            (r#""thinking_budget_tokens":99"#, Budget(99)),
            (r#""thinking_budget_tokens":100"#, On),
            (r#""thinking":{"type":"enabled"}"#, On),
            (r#""thinking":{"type":"enabled","budget_tokens":7}"#, Budget(7)),
            (r#""thinking":{"type":"enabled","budget_tokens":-1,"clear_thinking":true}"#, On),
            (r#""thinking":{"type":"disabled","budget_tokens":7}"#, Off),
            (r#""thinking":{"type":"auto"}"#, Auto),
            (r#""thinking":{"type":"adaptive"}"#, Auto),
            (r#""thinking":true"#, On),
            (r#""enable_thinking":true"#, On),
            (r#""enable_thinking":false"#, Off),
            (r#""enable_thinking":true,"thinking_budget":7"#, Budget(7)),
            (r#""enable_thinking":false,"thinking_budget":7"#, Off),
            (r#""thinking_budget":7"#, Budget(7)),
            (r#""chat_template_kwargs":{"enable_thinking":false}"#, Off),
            (r#""chat_template_kwargs":{"thinking":true}"#, On),
            (r#""chat_template_kwargs":{"enable_thinking":null}"#, Auto),
            (r#""chat_template_kwargs":null"#, Auto),
            (r#""reasoning_effort":"none""#, Off),
            (r#""reasoning_effort":"minimal""#, On),
            (r#""reasoning_effort":"high""#, On),
        ] {
            assert_eq!(asked(Auto, fields), expected, "{fields}");
        }
    }

    #[test]
    fn a_budget_counts_more_than_a_switch_and_a_switch_more_than_an_effort() {
        use Thinking::{Auto, Budget, Off, On};
        for (fields, expected) in [
            (r#""thinking_budget_tokens":7,"thinking":{"type":"enabled","budget_tokens":9}"#, Budget(7)),
            (r#""thinking_budget_tokens":7,"enable_thinking":false,"reasoning_effort":"none""#, Budget(7)),
            (r#""thinking":{"type":"disabled"},"enable_thinking":true"#, Off),
            (r#""thinking":{"type":"auto"},"enable_thinking":false"#, Off),
            (r#""enable_thinking":true,"reasoning_effort":"none""#, On),
            (r#""enable_thinking":false,"chat_template_kwargs":{"enable_thinking":true}"#, Off),
            (r#""chat_template_kwargs":{"enable_thinking":false},"reasoning_effort":"high""#, Off),
        ] {
            assert_eq!(asked(Auto, fields), expected, "{fields}");
        }
    }

    #[test]
    fn a_thought_is_never_longer_than_the_server_allows() {
        use Thinking::{Auto, Budget, Off, On};
        let none = r#""seed":1"#;
        let (on, off) = (r#""enable_thinking":true"#, r#""enable_thinking":false"#);
        let (short, long) = (r#""thinking_budget_tokens":5"#, r#""thinking_budget_tokens":50"#);
        for (most, expected) in [
            (Auto, [Auto, On, Off, Budget(5), Budget(50)]),
            (On, [On, On, Off, Budget(5), Budget(50)]),
            (Off, [Off, Off, Off, Off, Off]),
            (Budget(10), [Budget(10), Budget(10), Off, Budget(5), Budget(10)]),
            // An answer has 100 tokens, with its thought.
            (Budget(1000), [On, On, Off, Budget(5), Budget(50)]),
        ] {
            for (fields, expected) in [none, on, off, short, long].into_iter().zip(expected) {
                assert_eq!(asked(most, fields), expected, "{most:?}: {fields}");
            }
        }
        for huge in ["1e15", "18446744073709551615"] {
            assert_eq!(asked(Budget(10), &format!(r#""thinking_budget_tokens":{huge}"#)), Budget(10));
        }
    }

    #[test]
    fn a_template_is_told_what_was_decided() {
        let told = |most, fields: &str| {
            Value::from(read(most, fields).unwrap_or_else(|error| panic!("{fields}: {}", error.body())).1).to_string()
        };
        for (most, fields, expected) in [
            (Thinking::Auto, r#""chat_template_kwargs":{"a":1,"b":[true]}"#, r#"{"a":1,"b":[true]}"#),
            (Thinking::Auto, r#""chat_template_kwargs":{"enable_thinking":true}"#, r#"{"enable_thinking":true}"#),
            (Thinking::Off, r#""chat_template_kwargs":{"enable_thinking":true}"#, r#"{"enable_thinking":false}"#),
            (
                Thinking::Auto,
                r#""chat_template_kwargs":{"thinking":false},"thinking_budget_tokens":5"#,
                r#"{"thinking":true}"#,
            ),
            (Thinking::Auto, r#""reasoning_effort":"low""#, r#"{"reasoning_effort":"low"}"#),
            (Thinking::Auto, r#""reasoning_effort":"none""#, "{}"),
            (Thinking::Off, r#""reasoning_effort":"low""#, "{}"),
            (
                Thinking::Auto,
                r#""reasoning_effort":"low","chat_template_kwargs":{"reasoning_effort":"high"}"#,
                r#"{"reasoning_effort":"high"}"#,
            ),
        ] {
            assert_eq!(told(most, fields), expected, "{fields}");
        }
    }

    #[test]
    fn the_servers_own_kwargs_are_for_what_a_request_leaves_out() {
        let mut turn = base().turn;
        turn.template_kwargs = Map::from_iter([("a".into(), 1.into()), ("enable_thinking".into(), false.into())]);
        let told = |fields: &str| {
            let body = format!(r#"{{"messages":[]{fields}}}"#);
            let request = ChatRequest::read(body.as_bytes()).unwrap_or_else(|error| panic!("{}", error.body()));
            let (_, kwargs) = params(&request, &turn, 100).unwrap_or_else(|error| panic!("{}", error.body()));
            Value::from(kwargs)
        };
        assert_eq!(told(""), serde_json::json!({ "a": 1, "enable_thinking": false }));
        let both = told(r#","chat_template_kwargs":{"a":2,"b":3}"#);
        assert_eq!(both, serde_json::json!({ "a": 2, "b": 3, "enable_thinking": false }));
        let thinks = told(r#","thinking":{"type":"enabled"}"#);
        assert_eq!(thinks, serde_json::json!({ "a": 1, "enable_thinking": true }));
    }

    #[test]
    fn what_is_no_thought_is_refused_by_name() {
        for (name, value) in [
            ("chat_template_kwargs", r#"[["a",1]]"#),
            ("chat_template_kwargs", r#""s3cret""#),
            ("chat_template_kwargs", r#"{"messages":[]}"#),
            ("chat_template_kwargs", r#"{"add_generation_prompt":false}"#),
            ("chat_template_kwargs", r#"{"tools":[]}"#),
            ("chat_template_kwargs", r#"{"bos_token":"s3cret"}"#),
            ("chat_template_kwargs", r#"{"eos_token":""}"#),
            ("chat_template_kwargs", r#"{"enable_thinking":"s3cret"}"#),
            ("reasoning_effort", "3"),
            ("reasoning_effort", r#""""#),
            ("thinking_budget_tokens", r#""s3cret""#),
            ("thinking_budget_tokens", "-2"),
            ("thinking_budget_tokens", "1.5"),
            ("thinking_budget", "-7"),
            ("thinking", r#""s3cret""#),
            ("thinking", r#"{"type":"s3cret"}"#),
            ("thinking", r#"{"type":"enabled","budget_tokens":-7}"#),
            ("thinking", r#"{"type":"enabled","budget_tokens":"many"}"#),
            ("enable_thinking", r#""yes""#),
        ] {
            let error = read(Thinking::Auto, &format!(r#""{name}":{value}"#)).expect_err(value);
            let body = error.body();
            assert_eq!((error.status().as_u16(), &body["error"]["param"]), (400, &name.into()), "{value}: {body}");
            assert!(!body.to_string().contains("s3cret"), "{body}");
        }
        let long = format!(r#""chat_template_kwargs":{{"a":"{}"}}"#, "x".repeat(MAX_KWARGS));
        assert_eq!(read(Thinking::Auto, &long).expect_err("too long").status().as_u16(), 413);
    }

    #[test]
    fn a_client_may_do_without_the_thought() {
        let sent = |fields: &str| {
            let body = format!(r#"{{"messages":[]{fields}}}"#);
            let request = ChatRequest::read(body.as_bytes()).unwrap_or_else(|error| panic!("{}", error.body()));
            is_sent(&request).map_err(|error| error.body()["error"]["param"].clone())
        };
        for (fields, expected) in [
            ("", true),
            (r#","include_reasoning":true"#, true),
            (r#","include_reasoning":false"#, false),
            (r#","reasoning_format":"deepseek""#, true),
            (r#","reasoning_format":"hidden""#, false),
        ] {
            assert_eq!(sent(fields), Ok(expected), "{fields}");
        }
        for fields in [r#","reasoning_format":"none""#, r#","reasoning_format":"other""#, r#","reasoning_format":1"#] {
            assert_eq!(sent(fields), Err("reasoning_format".into()), "{fields}");
        }
        assert_eq!(sent(r#","include_reasoning":1"#), Err("include_reasoning".into()));
    }
}
