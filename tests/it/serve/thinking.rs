//! Thoughts: what requests say about them, and how answers have them.

use super::client::{Reply, Server, about, clip, data_uri, say, with};
use serde_json::{Value, json};
use std::ops::Deref;
use tempfile::TempDir;

/// A template that opens the thought itself, keeps thoughts of the past, prints a kwarg, and does not know all efforts.
const TEMPLATE: &str = "{% if reasoning_effort is defined and reasoning_effort == 'huge' %}{{ raise_exception('no such effort: ' ~ note) }}\
    {% endif %}{% if note is defined %}{{ note }}\n{% endif %}{% for message in messages %}{{ message.role }}: \
    {% if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>{% endif %}{{ message.content }}<end_of_utterance>\n\
    {% endfor %}{% if add_generation_prompt %}assistant: {% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n\
    {% else %}<think>\n{% endif %}{% endif %}";

/// A server whose model thinks before it answers. Its weights are random, so a thought ends by its budget alone.
pub struct ThinkingServer {
    server: Server,
    _folder: TempDir,
}

impl ThinkingServer {
    pub fn start(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("template.jinja");
        std::fs::write(&file, TEMPLATE).expect("a template");
        let mut all = vec!["--chat-template-file", file.to_str().expect("UTF-8"), "-n", "32"];
        all.extend(options);
        Self { server: Server::tiny(&all), _folder: folder }
    }
}

impl Deref for ThinkingServer {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

/// A field of usage.
fn usage(reply: &Reply, pointer: &str) -> u64 {
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply
        .json()
        .pointer(&format!("/usage/{pointer}"))
        .and_then(Value::as_u64)
        .unwrap_or_else(|| panic!("{}", reply.text))
}

fn reasoning_tokens(reply: &Reply) -> u64 {
    usage(reply, "completion_tokens_details/reasoning_tokens")
}

fn prompt_tokens(reply: &Reply) -> u64 {
    usage(reply, "prompt_tokens")
}

/// The thought in an answer that was not streamed.
fn thought(reply: &Reply) -> Option<String> {
    let message = &reply.json()["choices"][0]["message"];
    assert_eq!(message.get("reasoning_content"), message.get("reasoning"), "{message}");
    message.get("reasoning_content").map(|thought| thought.as_str().expect("text").to_owned())
}

#[test]
fn a_thought_has_fields_of_its_own() {
    let server = ThinkingServer::start(&[]);
    let body = with(say("Why?"), json!({ "thinking_budget_tokens": 6, "max_tokens": 20 }));
    let reply = server.post(&body);
    let (text, thought) = (reply.answer(), thought(&reply).expect("a thought"));
    assert!(!text.is_empty() && !thought.is_empty() && thought == thought.trim(), "{}", reply.text);
    assert!(![&text, &thought].iter().any(|text| text.contains("think>")), "{}", reply.text);
    let (all, of_thought) = (usage(&reply, "completion_tokens"), reasoning_tokens(&reply));
    assert!(all == 20 && (6..16).contains(&of_thought), "{}", reply.text);
    let times = reply.json()["sharpv"]["timings_ms"].clone();
    assert!(times["first_answer"].as_f64() > times["ttft"].as_f64(), "{times}");
    assert_eq!(server.metric("sharpv_tokens_predicted_reasoning_total") as u64, of_thought);

    // The same in pieces: the thought comes before the answer, never in one event with it.
    let streamed = server.post(&with(body, json!({ "stream": true, "stream_options": { "include_usage": true } })));
    let events = streamed.events();
    let deltas: Vec<&Value> = events.iter().map(|event| &event["choices"][0]["delta"]).collect();
    let pieces = |name: &str| -> Vec<&str> { deltas.iter().filter_map(|delta| delta[name].as_str()).collect() };
    assert_eq!(pieces("reasoning_content").concat(), thought);
    assert_eq!(pieces("reasoning"), pieces("reasoning_content"));
    assert!(pieces("reasoning").len() > 1, "it comes as it is thought: {}", streamed.text);
    assert_eq!(pieces("content").concat(), text);
    let last_thought = deltas.iter().rposition(|delta| delta["reasoning"].is_string()).expect("a thought");
    let first_text = deltas.iter().position(|delta| delta["content"].as_str().is_some_and(|text| !text.is_empty()));
    assert!(first_text.is_some_and(|first| last_thought < first), "{}", streamed.text);
    let tokens =
        events.iter().find_map(|event| event["usage"]["completion_tokens_details"]["reasoning_tokens"].as_u64());
    assert_eq!(tokens, Some(of_thought));
}

#[test]
fn without_a_thought_an_answer_has_the_fields_of_openai() {
    let server = ThinkingServer::start(&[]);
    let mut answers = Vec::new();
    for off in [
        json!({ "reasoning_effort": "none" }),
        json!({ "enable_thinking": false }),
        json!({ "thinking": { "type": "disabled" } }),
        json!({ "thinking_budget_tokens": 0 }),
        json!({ "chat_template_kwargs": { "enable_thinking": false } }),
    ] {
        let reply = server.post(&with(say("Why?"), with(off.clone(), json!({ "max_tokens": 8 }))));
        let message = reply.json()["choices"][0]["message"].clone();
        assert_eq!(message, json!({ "role": "assistant", "content": reply.answer(), "refusal": null }), "{off}");
        assert_eq!(reasoning_tokens(&reply), 0, "{off}");
        answers.push((reply.answer(), prompt_tokens(&reply)));
    }
    assert!(!answers[0].0.is_empty() && answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    let times =
        server.post(&with(say("Why?"), json!({ "enable_thinking": false }))).json()["sharpv"]["timings_ms"].clone();
    assert_eq!(times["first_answer"], times["ttft"], "{times}");

    // A beginning of the answer leaves no place for a thought, whatever the request says.
    let begun = json!({ "max_tokens": 8, "reasoning_effort": "high", "messages": [
        { "role": "user", "content": "Why?" }, { "role": "assistant", "content": "Because", "reasoning_content": "Hm." },
    ] });
    let reply = server.post(&begun);
    assert!(thought(&reply).is_none() && !reply.answer().is_empty(), "{}", reply.text);
    assert_eq!(reasoning_tokens(&reply), 0);
}

#[test]
fn a_thought_that_is_cut_off_leaves_an_empty_answer() {
    let server = ThinkingServer::start(&[]);
    for (fields, n) in [
        (json!({ "max_tokens": 5 }), 5),
        (json!({ "max_tokens": 5, "reasoning_effort": "low" }), 5),
        (json!({ "thinking": { "type": "enabled" } }), 32),
    ] {
        let reply = server.post(&with(say("Why?"), fields));
        let choice = reply.json()["choices"][0].clone();
        assert_eq!((&choice["finish_reason"], &choice["message"]["content"]), (&json!("length"), &json!("")));
        assert!(thought(&reply).is_some_and(|thought| !thought.is_empty()), "{choice}");
        assert_eq!((usage(&reply, "completion_tokens"), reasoning_tokens(&reply)), (n, n));
    }
}

#[test]
fn a_request_can_shorten_a_thought_and_not_lengthen_it() {
    let server = ThinkingServer::start(&["--think", "6"]);
    let tokens = |fields: Value| reasoning_tokens(&server.post(&with(say("Why?"), fields)));
    let most = tokens(json!({}));
    assert!((6..16).contains(&most), "{most}");
    for more in [
        json!({ "thinking_budget_tokens": 20 }),
        json!({ "thinking_budget_tokens": -1 }),
        json!({ "reasoning_effort": "high" }),
        json!({ "thinking": { "type": "enabled", "budget_tokens": 1_000_000 } }),
    ] {
        assert_eq!(tokens(more.clone()), most, "{more}");
    }
    assert_eq!(tokens(json!({ "thinking_budget_tokens": 3 })), most - 3);
    assert_eq!(tokens(json!({ "enable_thinking": false })), 0);

    let none = ThinkingServer::start(&["--think", "off"]);
    for more in [
        json!({}),
        json!({ "thinking_budget_tokens": 20 }),
        json!({ "chat_template_kwargs": { "enable_thinking": true } }),
    ] {
        let reply = none.post(&with(say("Why?"), more.clone()));
        assert!(thought(&reply).is_none() && reasoning_tokens(&reply) == 0, "{more}: {}", reply.text);
    }
}

#[test]
fn a_stop_text_ends_the_answer_and_not_the_thought() {
    let server = ThinkingServer::start(&[]);
    let body = with(say("Why?"), json!({ "thinking_budget_tokens": 12 }));
    let whole = server.post(&body);
    let (text, first) = (whole.answer(), thought(&whole).expect("a thought"));
    let stop: String = first.chars().take(2).collect();
    let stopped = server.post(&with(body, json!({ "stop": stop })));
    assert_eq!(thought(&stopped), Some(first));
    assert_eq!(stopped.answer(), text.split(&stop).next().expect("a start").trim());
}

#[test]
fn a_client_can_do_without_thoughts() {
    let server = ThinkingServer::start(&[]);
    let body = with(say("Why?"), json!({ "thinking_budget_tokens": 6 }));
    let whole = server.post(&body);
    for fields in [json!({ "include_reasoning": false }), json!({ "reasoning_format": "hidden" })] {
        let reply = server.post(&with(body.clone(), fields.clone()));
        assert_eq!((reply.answer(), thought(&reply)), (whole.answer(), None), "{fields}");
        assert_eq!(reasoning_tokens(&reply), reasoning_tokens(&whole), "it was thought all the same");
        let streamed = server.post(&with(with(body.clone(), fields), json!({ "stream": true })));
        assert!(!streamed.text.contains("reasoning"), "{}", streamed.text);
    }
}

#[test]
fn a_template_reads_what_the_request_tells_it() {
    let note = |server: &Server, fields: Value| {
        prompt_tokens(&server.post(&with(say("Why?"), with(fields, json!({ "max_tokens": 1 })))))
    };
    let server = ThinkingServer::start(&[]);
    let none = note(&server, json!({}));
    let long = note(&server, json!({ "chat_template_kwargs": { "note": "a b c d e f" } }));
    assert!(long > none + 6, "{long}, {none}");
    // It does not affect the next request.
    assert_eq!(note(&server, json!({ "chat_template_kwargs": {} })), none);
    // It is text, as messages are.
    let [forged, harmless] = ["<end_of_utterance>", "<end!of!utterance>"]
        .map(|text| note(&server, json!({ "chat_template_kwargs": { "note": text } })));
    assert!(forged + 2 >= harmless, "{forged}, {harmless}");

    let told = ThinkingServer::start(&["--chat-template-kwargs", r#"{"note": "a b c d e f"}"#]);
    assert_eq!(note(&told, json!({})), long);
    assert_eq!(note(&told, json!({ "chat_template_kwargs": { "other": 1 } })), long);
    assert!(note(&told, json!({ "chat_template_kwargs": { "note": "a" } })) < long);
}

#[test]
fn wrong_fields_are_refused_by_name_and_not_quoted() {
    let server = ThinkingServer::start(&[]);
    for (field, value) in [
        ("chat_template_kwargs", json!(["s3cret"])),
        ("chat_template_kwargs", json!("s3cret")),
        ("chat_template_kwargs", json!({ "messages": ["s3cret"] })),
        ("chat_template_kwargs", json!({ "bos_token": "s3cret" })),
        ("reasoning_effort", json!(["s3cret"])),
        ("thinking_budget_tokens", json!(-2)),
        ("thinking_budget_tokens", json!("s3cret")),
        ("thinking", json!({ "type": "s3cret" })),
        ("enable_thinking", json!("s3cret")),
        ("include_reasoning", json!("s3cret")),
        ("reasoning_format", json!("none")),
    ] {
        let reply = server.post(&with(say("Why?"), json!({ field: value })));
        assert_eq!(reply.status, 400, "{field}: {}", reply.text);
        reply.error();
        assert_eq!(reply.json()["error"]["param"], field);
        assert!(!reply.text.contains("s3cret"), "{}", reply.text);
    }
    let effort = json!({ "reasoning_effort": "huge", "chat_template_kwargs": { "note": "<end_of_utterance>" } });
    let effort = server.post(&with(say("Why?"), effort));
    assert_eq!((effort.status, effort.error().as_str()), (400, "invalid_value"), "{}", effort.text);
    assert_eq!(effort.json()["error"]["param"], "chat_template_kwargs");
    assert!(
        effort.text.contains("no such effort: <end_of_utterance>"),
        "it says what the template says: {}",
        effort.text
    );
    let history = json!({ "messages": [
        { "role": "assistant", "content": "So.", "reasoning_content": ["s3cret"] }, { "role": "user", "content": "Why?" },
    ] });
    let reply = server.post(&history);
    assert_eq!((reply.status, reply.error().as_str()), (400, "invalid_value"));
    assert!(reply.text.contains("reasoning_content") && !reply.text.contains("s3cret"), "{}", reply.text);
}

#[test]
fn a_template_gets_the_thoughts_of_the_past() {
    let server = ThinkingServer::start(&[]);
    let tokens = |fields: Value| {
        let answer = with(json!({ "role": "assistant", "content": "So." }), fields);
        prompt_tokens(&server.post(&json!({ "max_tokens": 1, "messages": [
            { "role": "user", "content": "Why?" }, answer, { "role": "user", "content": "And?" },
        ] })))
    };
    let without = tokens(json!({}));
    let with_thought = tokens(json!({ "reasoning_content": "a b c d e f" }));
    assert!(with_thought > without + 6, "{with_thought}, {without}");
    assert_eq!(tokens(json!({ "reasoning": "a b c d e f" })), with_thought);
    assert_eq!(tokens(json!({ "reasoning": "a b c d e f", "reasoning_content": "a b c d e f" })), with_thought);
    for nothing in [json!({ "reasoning": null, "reasoning_content": "" }), json!({ "reasoning": " " })] {
        assert_eq!(tokens(nothing.clone()), without, "{nothing}");
    }
    // It is text, as the answer is.
    let [forged, harmless] =
        ["<end_of_utterance>", "<end!of!utterance>"].map(|text| tokens(json!({ "reasoning_content": text })));
    assert!(forged + 2 >= harmless, "{forged}, {harmless}");
}

#[test]
fn a_conversation_goes_back_to_the_slot_that_thought_about_it() {
    let server = ThinkingServer::start(&["--parallel", "2", "--think", "6"]);
    let video = about(&data_uri(&clip(), "video/mp4"), "What?");
    let first = server.post(&video);
    assert!(thought(&first).is_some(), "{}", first.text);
    for i in 0..3 {
        server.post(&say(&format!("Give this chat number {i} a title.")));
    }
    // Clients send the answer back without its thought.
    let mut next = video;
    let messages = next["messages"].as_array_mut().expect("messages");
    messages.push(json!({ "role": "assistant", "content": first.answer() }));
    messages.push(json!({ "role": "user", "content": "And why?" }));
    let next = server.post(&next);
    let kept = usage(&first, "visual_tokens/kept");
    assert!(usage(&next, "prompt_tokens_details/cached_tokens") > kept, "{}", next.text);
    assert_eq!(next.json()["sharpv"]["videos"]["cached"], 1);
}
