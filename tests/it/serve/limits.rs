//! Limits: bodies, waiting requests, time, frames. And clients that disconnect.

use super::client::{Server, about, clip, data_uri, say, with};
use crate::support::video_clips::{Clips, colors};
use serde_json::json;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

/// A video of many different frames, each of which takes `smol` a while.
fn long_video(clips: &Clips) -> String {
    let file = clips.draw("testsrc2=s=224x224:r=10:d=10", "-pix_fmt yuv420p", "long.mp4");
    data_uri(&file, "video/mp4")
}

/// Options with which all of it is encoded.
const EVERYTHING: [&str; 6] = ["--encode", "exact", "--prune", "off", "--max-frames", "32"];

#[test]
fn large_bodies_are_rejected() {
    let server = Server::tiny(&["--max-body", "100K"]);
    let uri = format!("data:video/mp4;base64,{}", "A".repeat(200 << 10));
    let body = about(&uri, "What?").to_string();
    let reply = server.raw(&format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    ));
    assert_eq!((reply.status, reply.error().as_str()), (413, "too_large"), "rejected before the body is sent");

    // Without a Content-Length, the server counts bytes.
    let mut stream = server.connect(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
    );
    for chunk in body.as_bytes().chunks(10_000) {
        // The server may have rejected it already.
        let _ = write!(stream, "{:x}\r\n", chunk.len())
            .and_then(|()| stream.write_all(chunk))
            .and_then(|()| stream.write_all(b"\r\n"));
    }
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.contains("413") && answer.contains("too_large"), "{answer}");

    let small = with(say("hi"), json!({ "max_tokens": 1 }));
    assert_eq!(server.post(&small).status, 200);
    let much = Server::tiny(&[]);
    let text = much.post(&say(&"word ".repeat(300_000)));
    assert_eq!((text.status, text.error().as_str()), (413, "too_large"));
    let long = much.post(&say(&"word ".repeat(100_000)));
    assert_eq!((long.status, long.error().as_str()), (400, "context_length_exceeded"));
    assert!(long.json()["error"]["n_prompt_tokens"].as_u64() > long.json()["error"]["n_ctx"].as_u64());
}

#[test]
fn a_body_that_breaks_off_is_no_request() {
    let server = Server::tiny(&[]);
    let stream = server.connect(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{\"messages\":",
    );
    drop(stream);
    assert_eq!(server.post(&with(say("hi"), json!({ "max_tokens": 1 }))).status, 200);
    assert_eq!(server.metric("sharpv_requests_processing"), 0.0);
}

#[test]
fn a_prompt_that_does_not_fit_is_rejected_before_a_frame_is_encoded() {
    let server = Server::tiny(&["-c", "256", "--prune", "off"]);
    let clips = Clips::new();
    let file = clips.draw(&colors(&["red", "lime", "blue", "white"], 2.0, "64x48", 10), "-pix_fmt yuv420p", "long.mp4");
    let asked =
        with(about(&data_uri(&file, "video/mp4"), "What?"), json!({ "sharpv": { "num_frames": 48 }, "stream": true }));
    let reply = server.post(&asked);
    assert_eq!((reply.status, reply.error().as_str()), (400, "context_length_exceeded"), "{}", reply.text);
    assert!(reply.text.contains("num_frames"), "the message says what to do: {}", reply.text);
    assert_eq!(server.metric("sharpv_frames_encoded_total"), 0.0);
}

#[test]
fn a_request_cannot_raise_the_limit_of_frames() {
    let server = Server::tiny(&["--max-frames", "3", "--prune", "off"]);
    let clips = Clips::new();
    let file = clips.draw(&colors(&["red", "lime", "blue"], 2.0, "64x48", 10), "-pix_fmt yuv420p", "six.mp4");
    let uri = data_uri(&file, "video/mp4");
    for knobs in [
        json!({ "sharpv": { "num_frames": -1 } }),
        json!({ "sharpv": { "num_frames": 1_000_000_000 } }),
        json!({ "sharpv": { "fps": 1000 } }),
        json!({ "media_io_kwargs": { "video": { "num_frames": -1, "fps": 100 } } }),
        json!({ "mm_processor_kwargs": { "max_frames": 99 } }),
        json!({}),
    ] {
        let reply = server.post(&with(with(about(&uri, "What?"), json!({ "max_tokens": 1 })), knobs.clone()));
        assert!(reply.json()["sharpv"]["frames"].as_u64().is_some_and(|frames| frames <= 3), "{knobs}: {}", reply.text);
    }
    for knobs in [
        json!({ "num_frames": 0 }),
        json!({ "num_frames": -5 }),
        json!({ "fps": 0 }),
        json!({ "fps": -1 }),
        json!({ "start": -1 }),
        json!({ "start": 100 }),
    ] {
        let reply = server.post(&with(about(&uri, "What?"), json!({ "sharpv": knobs })));
        assert_eq!(reply.status, 400, "{knobs}: {}", reply.text);
    }
}

#[test]
fn a_full_queue_says_when_to_retry() {
    let clips = Clips::new();
    let uri = long_video(&clips);
    let server = Server::smol(&[&EVERYTHING[..], &["--queue", "1"]].concat());
    let busy = server.begin(&about(&uri, "What is it?"));
    server.wait_for("sharpv_frames_encoded_total", |frames| frames > 0.0);
    let waiting = server.begin(&say("Who waits?"));
    server.wait_for("sharpv_requests_deferred", |n| n == 1.0);
    let reply = server.post(&say("And I?"));
    assert_eq!((reply.status, reply.error().as_str()), (429, "queue_full"));
    let after: u64 = reply.header("retry-after").expect("when to retry").parse().expect("seconds");
    assert!((1..=60).contains(&after));
    // A client that disconnects while it waits leaves the queue.
    drop(waiting);
    server.wait_for("sharpv_requests_deferred", |n| n == 0.0);
    drop(busy);
    server.wait_for("sharpv_requests_processing", |n| n == 0.0);
    assert_eq!(server.post(&with(say("Now?"), json!({ "max_tokens": 1 }))).status, 200);
}

#[test]
fn encoding_stops_when_the_client_disconnects() {
    let clips = Clips::new();
    let uri = long_video(&clips);
    let server = Server::smol(&EVERYTHING);
    for stream in [false, true] {
        let before = server.metric("sharpv_frames_encoded_total");
        let gone = server.metric("sharpv_requests_given_up_total");
        // Each uses another part of the video, so that nothing is cached.
        let body =
            with(about(&uri, "What is it?"), json!({ "stream": stream, "sharpv": { "start": u8::from(stream) } }));
        let client = server.begin(&body);
        server.wait_for("sharpv_frames_encoded_total", |frames| frames > before);
        drop(client);
        server.wait_for("sharpv_requests_processing", |n| n == 0.0);
        let encoded = server.metric("sharpv_frames_encoded_total") - before;
        assert!(encoded < 32.0, "stream {stream}: all {encoded} frames were encoded");
        assert_eq!(server.metric("sharpv_requests_given_up_total"), gone + 1.0);
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(server.metric("sharpv_frames_encoded_total") - before, encoded, "encoding went on");
    }
    // The slot can be used again.
    assert_eq!(server.post(&with(say("Are you there?"), json!({ "max_tokens": 2 }))).status, 200);
}

#[test]
fn decoding_stops_when_the_client_disconnects() {
    let server = Server::smol(&["-n", "4000", "--temp", "3", "--top-k", "0", "--top-p", "1", "--min-p", "0"]);
    let mut client = server.begin(&with(say("Tell me a long story."), json!({ "stream": true })));
    let mut piece = [0; 512];
    assert!(client.read(&mut piece).expect("a piece") > 0);
    drop(client);
    server.wait_for("sharpv_requests_processing", |n| n == 0.0);
    assert_eq!(server.metric("sharpv_tokens_predicted_total"), 0.0, "a cancelled answer is not counted");
}

#[test]
fn an_answer_has_a_time_limit() {
    let clips = Clips::new();
    let uri = long_video(&clips);
    let server = Server::smol(&[&EVERYTHING[..], &["--timeout", "2"]].concat());
    let start = Instant::now();
    let reply = server.post(&about(&uri, "What is it?"));
    assert_eq!((reply.status, reply.error().as_str()), (504, "timeout"), "{}", reply.text);
    // A retry would take as long.
    assert_eq!(reply.header("x-should-retry"), Some("false"));
    assert!(start.elapsed() < Duration::from_secs(20));
    server.wait_for("sharpv_requests_processing", |n| n == 0.0);
    assert!(server.metric("sharpv_frames_encoded_total") < 32.0);

    // After the head of a stream was sent, an error is an event.
    let stream = server.post(&with(about(&uri, "What is it?"), json!({ "stream": true, "sharpv": { "start": 1 } })));
    let events = stream.events();
    let is_timeout = events.last().is_some_and(|last| last["error"]["code"] == "timeout") || stream.status == 504;
    assert!(is_timeout && !stream.text.contains("[DONE]"), "{}", stream.text);
}

#[cfg(unix)]
#[test]
fn a_stopped_server_completes_its_answers() {
    let server = Server::smol(&["-n", "24"]);
    let mut client =
        server.begin(&with(about(&data_uri(&clip(), "video/mp4"), "What is it?"), json!({ "stream": true })));
    server.wait_for("sharpv_requests_processing", |n| n == 1.0);
    assert_eq!(server.end("TERM"), Some(0));
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("the whole answer");
    assert!(answer.contains("data: [DONE]") || answer.contains("shutting_down"), "{answer}");
}

#[cfg(unix)]
#[test]
fn a_stopped_server_does_not_wait_forever() {
    let clips = Clips::new();
    let uri = long_video(&clips);
    let server = Server::smol(&EVERYTHING);
    let mut client = server.begin(&with(about(&uri, "What is it?"), json!({ "stream": true })));
    server.wait_for("sharpv_frames_encoded_total", |frames| frames > 0.0);
    // A client that connects and sends nothing more.
    let _idle = server.connect("GET /v1/mo");
    let start = Instant::now();
    assert_eq!(server.end("INT"), Some(0));
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    let mut answer = String::new();
    let _ = client.read_to_string(&mut answer);
    assert!(answer.contains("shutting_down") || answer.contains("[DONE]"), "{answer}");
}
