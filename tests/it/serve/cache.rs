//! Repeated questions about one video.

use super::client::{Server, about, clip, data_uri, with};
use serde_json::json;
use std::path::Path;
use std::thread;

#[test]
fn a_video_is_encoded_once() {
    let root = clip().parent().expect("a folder").to_str().expect("UTF-8").to_owned();
    let server = Server::tiny(&["--media-root", &root]);
    let first = server.post(&about("clip.mp4", "What?")).json();
    let frames = server.metric("sharpv_frames_encoded_total");
    assert_eq!(first["sharpv"]["frames"].as_f64(), Some(frames));
    let tokens = |reply: &serde_json::Value| {
        let usage = &reply["usage"];
        (
            usage["prompt_tokens"].as_u64().expect("tokens"),
            usage["prompt_tokens_details"]["cached_tokens"].as_u64().expect("tokens"),
        )
    };
    // The same file, the same bytes, another question: nothing is encoded or prefilled again.
    for (url, question) in [("file://clip.mp4".to_owned(), "What?"), (data_uri(&clip(), "video/mp4"), "Why?")] {
        let again = server.post(&about(&url, question)).json();
        let (prompt, cached) = tokens(&again);
        let text = prompt - again["usage"]["visual_tokens"]["kept"].as_u64().expect("tokens");
        assert!(prompt - cached < text, "{prompt} rows, {cached} of them cached, {text} of them text");
        assert_eq!(again["sharpv"]["videos"]["cached"], 1);
    }
    assert_eq!(server.metric("sharpv_frames_encoded_total"), frames);
    assert_eq!(server.metric("sharpv_videos_total"), 3.0);
    // With other frames, it is another video.
    let fewer = with(about("clip.mp4", "What?"), json!({ "sharpv": { "num_frames": 2 } }));
    assert_eq!(server.post(&fewer).json()["sharpv"]["videos"]["cached"], 0);
    assert_eq!(server.metric("sharpv_frames_encoded_total"), frames + 2.0);
}

/// The promise holds for models that cannot remove the last rows of their cache.
#[test]
fn a_question_about_a_known_video_computes_its_own_rows_on_a_model_with_a_state() {
    let pairs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/converted");
    for name in ["qwen35", "lfm2vl"] {
        let [model, mmproj] = [format!("{name}.gguf"), format!("{name}-mmproj.gguf")].map(|file| pairs.join(file));
        let [model, mmproj] = [&model, &mmproj].map(|file| file.to_str().expect("UTF-8"));
        let server = Server::start(&["-m", model, "--mmproj", mmproj, "--weights", "exact", "-n", "4"], &[]);
        let uri = data_uri(&clip(), "video/mp4");
        let computed = |question: &str| {
            let usage = server.post(&about(&uri, question)).json()["usage"].clone();
            let tokens = |value: &serde_json::Value| value.as_u64().expect("tokens");
            let prompt = tokens(&usage["prompt_tokens"]);
            let text = prompt - tokens(&usage["visual_tokens"]["kept"]);
            (prompt - tokens(&usage["prompt_tokens_details"]["cached_tokens"]), prompt, text)
        };
        let (all, prompt, _) = computed("What is it?");
        assert_eq!(all, prompt, "{name}");
        for question in ["Who is it?", "Where is it?"] {
            let (own, prompt, text) = computed(question);
            assert!(own < text && own < prompt / 2, "{name}: {own} of {prompt} rows, {text} of them text");
        }
    }
}

#[test]
fn a_conversation_goes_on_without_encoding() {
    let server = Server::tiny(&[]);
    let mut body = about(&data_uri(&clip(), "video/mp4"), "What?");
    let first = server.post(&body);
    let frames = server.metric("sharpv_frames_encoded_total");
    let messages = body["messages"].as_array_mut().expect("messages");
    messages.push(json!({ "role": "assistant", "content": first.answer() }));
    messages.push(json!({ "role": "user", "content": "And why?" }));
    let second = server.post(&body).json();
    let usage = &second["usage"];
    let cached = usage["prompt_tokens_details"]["cached_tokens"].as_u64().expect("tokens");
    assert!(cached >= first.json()["usage"]["prompt_tokens"].as_u64().expect("tokens"), "{usage}");
    assert_eq!(server.metric("sharpv_frames_encoded_total"), frames);
}

#[test]
fn the_cache_has_a_budget() {
    let uri = data_uri(&clip(), "video/mp4");
    let ask = |server: &Server, frames: u32| {
        let body = with(about(&uri, "What?"), json!({ "max_tokens": 1, "sharpv": { "num_frames": frames } }));
        server.post(&body).json()["sharpv"]["videos"]["cached"].as_u64().expect("a number")
    };
    let none = Server::tiny(&["--video-cache", "0"]);
    assert_eq!((ask(&none, 2), ask(&none, 2)), (0, 0));
    assert_eq!(none.metric("sharpv_video_cache_bytes"), 0.0);

    let measure = Server::tiny(&[]);
    ask(&measure, 2);
    let bytes = measure.metric("sharpv_video_cache_bytes") as u64;
    assert!(bytes > 0);
    // Holds two or three videos of this size.
    let small = Server::tiny(&["--video-cache", &(bytes * 3).to_string()]);
    for frames in [2, 3, 4, 5] {
        assert_eq!(ask(&small, frames), 0);
        assert!(small.metric("sharpv_video_cache_bytes") <= (bytes * 3) as f64);
    }
    assert_eq!(ask(&small, 2), 0, "it was dropped");
}

#[test]
fn requests_about_one_video_at_once_encode_it_once() {
    let server = Server::tiny(&["--parallel", "2"]);
    let body = with(about(&data_uri(&clip(), "video/mp4"), "What?"), json!({ "max_tokens": 2 }));
    thread::scope(|scope| {
        let asked: Vec<_> = (0..4).map(|_| scope.spawn(|| server.post(&body).answer())).collect();
        let answers: Vec<String> = asked.into_iter().map(|answer| answer.join().expect("an answer")).collect();
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    });
    let one = server.post(&body).json()["sharpv"]["frames"].as_f64();
    assert_eq!(Some(server.metric("sharpv_frames_encoded_total")), one);
}
