//! Several clients at the same time.

use super::client::{Server, about, clip, data_uri, say, with};
use serde_json::json;
use std::thread;

#[test]
fn everybody_gets_their_own_answer() {
    let server = Server::tiny(&["--parallel", "2", "--queue", "64"]);
    let question =
        |i: usize| with(say(&format!("What about number {i}?")), json!({ "max_tokens": 12, "stream": i % 2 == 1 }));
    let alone: Vec<String> = (0..6).map(|i| text(&server.post(&question(i)))).collect();
    thread::scope(|scope| {
        let server = &server;
        let clients: Vec<_> = (0..6)
            .map(|i| scope.spawn(move || (0..4).map(|_| text(&server.post(&question(i)))).collect::<Vec<_>>()))
            .collect();
        for (client, expected) in clients.into_iter().zip(&alone) {
            for answer in client.join().expect("answers") {
                assert_eq!(answer, *expected);
            }
        }
    });
    assert_eq!(server.metric("sharpv_requests_processing") + server.metric("sharpv_requests_deferred"), 0.0);
}

/// The text of an answer, streamed or not.
fn text(reply: &super::client::Reply) -> String {
    assert_eq!(reply.status, 200, "{}", reply.text);
    if !reply.text.starts_with("data:") {
        return reply.answer();
    }
    let events = reply.events();
    assert_eq!(events.last().expect("events"), "[DONE]");
    events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect()
}

#[test]
fn a_conversation_goes_back_to_the_slot_that_knows_it() {
    let server = Server::tiny(&["--parallel", "2"]);
    let video = about(&data_uri(&clip(), "video/mp4"), "What?");
    let cached = |body: &serde_json::Value| {
        server.post(body).json()["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().expect("tokens")
    };
    assert_eq!(cached(&video), 0);
    // Requests of other programs go to the other slot.
    for i in 0..3 {
        cached(&say(&format!("Give this chat number {i} a title.")));
    }
    let prompt = server.post(&video).json()["usage"].clone();
    let (all, there) = (prompt["prompt_tokens"].as_u64(), prompt["prompt_tokens_details"]["cached_tokens"].as_u64());
    assert!(there.is_some_and(|there| Some(there + 1) == all), "{prompt}");
}

#[test]
fn settings_of_a_request_do_not_affect_the_next() {
    let server = Server::tiny(&[]);
    let body = about(&data_uri(&clip(), "video/mp4"), "What?");
    let before = server.post(&body);
    let other = json!({ "temperature": 2.0, "max_tokens": 2, "stop": "e", "sharpv": { "prune": "off", "evict": "tokens", "num_frames": 2 } });
    assert_eq!(server.post(&with(body.clone(), other)).status, 200);
    let system =
        json!({ "messages": [{ "role": "system", "content": "Say no." }, { "role": "user", "content": "Yes?" }] });
    assert_eq!(server.post(&system).status, 200);
    let after = server.post(&body);
    assert_eq!(before.answer(), after.answer());
    assert_eq!(before.json()["usage"]["visual_tokens"], after.json()["usage"]["visual_tokens"]);
    assert_eq!(before.json()["usage"]["prompt_tokens"], after.json()["usage"]["prompt_tokens"]);
}

#[test]
fn eviction_that_a_short_answer_left_goes_on_while_the_slot_is_idle() {
    let server = Server::smol(&[]);
    let asked = about(&data_uri(&clip(), "video/mp4"), "What is in the video?");
    let kv = server.post(&asked).json()["sharpv"]["kv"].clone();
    assert_eq!(kv["layers_evicted"], 0, "the answer is too short to evict after it: {kv}");
    let bytes = kv["bytes"].as_f64().expect("bytes");
    server.wait_for("sharpv_kv_bytes", |now| now < bytes);
    let again = server.post(&asked).json();
    assert!(again["sharpv"]["kv"]["layers_evicted"].as_u64() > Some(0), "{again}");
}
