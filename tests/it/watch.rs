//! `sharpv watch`, as its users run it: pipes, files that grow, sources that end or fail.
#![cfg(feature = "cli")]

use crate::support::broken_videos;
use crate::support::families;
use crate::support::program::{sharpv, with_smol};
use crate::support::video_clips::{Clips, within};

use assert_cmd::assert::Assert;
use predicates::prelude::*;
use predicates::str::contains;
use serde_json::Value;
use sharpv::video::{LiveInput, LiveSource};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Six seconds of video in which every frame differs.
const MOVING: &str = "testsrc2=s=96x72:r=10:d=6";
const H264: &str = "-c:v libx264 -pix_fmt yuv420p -g 10";

/// Arguments of a watch with a tiny model of random weights. Spaces separate `options`.
fn arguments<'a>(source: &'a str, options: &'a str, model: &'a [String; 2]) -> Vec<&'a str> {
    let model = ["-m", &model[0], "--mmproj", &model[1], "-n", "4", "--temp", "0"];
    ["watch", source].into_iter().chain(options.split_whitespace()).chain(model).collect()
}

fn model() -> [String; 2] {
    ["internvl.gguf", "internvl-mmproj.gguf"].map(|name| families::folder().join(name).display().to_string())
}

fn watch(source: &Path, options: &str) -> Assert {
    let source = source.display().to_string();
    sharpv(&arguments(&source, options, &model())).timeout(Duration::from_secs(120)).assert()
}

/// Watches a pipe.
fn piped(bytes: Vec<u8>, options: &str) -> Assert {
    let mut command = sharpv(&arguments("-", options, &model()));
    command.timeout(Duration::from_secs(120)).write_stdin(bytes).assert()
}

/// The printed lines of JSON.
fn lines(assert: &Assert) -> Vec<Value> {
    let text = String::from_utf8(assert.get_output().stdout.clone()).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn of_type<'a>(lines: &'a [Value], kind: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["type"] == kind).collect()
}

/// The last line, which has the type `end`.
fn end(lines: &[Value]) -> &Value {
    let end = lines.last().expect("an end");
    assert_eq!(end["type"], "end", "{end}");
    end
}

#[test]
fn containers_come_through_a_pipe() {
    let clips = Clips::new();
    for (format, how) in [
        ("mpegts", format!("-i {{}}/whole.mp4 {H264} -f mpegts")),
        ("matroska", format!("-i {{}}/whole.mp4 {H264} -f matroska")),
        ("yuv4mpeg", "-i {}/whole.mp4 -pix_fmt yuv420p -f yuv4mpegpipe".to_owned()),
        ("fragments", format!("-i {{}}/whole.mp4 {H264} -movflags frag_keyframe+empty_moov -f mp4")),
    ] {
        clips.draw(MOVING, H264, "whole.mp4");
        let bytes = std::fs::read(clips.ffmpeg_piped(&how, format)).expect("a file");
        let assert = piped(bytes, "What? --json --no-drop --window 4").success();
        let lines = lines(&assert);
        let (end, answers) = (end(&lines), of_type(&lines, "answer"));
        assert_eq!(end["reason"], "source", "{format}");
        let state = &end["state"];
        assert_eq!(
            (&state["frames"], &state["held"], &state["dropped"]),
            (&6.into(), &4.into(), &0.into()),
            "{format}"
        );
        assert_eq!(state["now_s"].as_f64().map(f64::round), Some(5.0), "{format}");
        assert!(state["kv_bytes"].as_u64() > Some(0) && state["lag_s"].as_f64().is_some(), "{state}");
        assert_eq!(answers.len(), 1, "{format}");
        assert_eq!((&answers[0]["asked"], &answers[0]["question"]), (&"end".into(), &"What?".into()));
        assert!(answers[0]["answer"].is_string() && answers[0]["latency_ms"].as_f64() > Some(0.0));
    }
}

#[test]
fn every_field_is_documented() {
    let clips = Clips::new();
    let clip = clips.draw(MOVING, H264, "clip.mp4");
    let doc = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/watch.md")).expect("a page");
    let all = lines(&watch(&clip, "What? --every 3s --json").success());
    let keys = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    for line in &all {
        for key in keys(line).into_iter().chain(keys(&line["state"])) {
            assert!(doc.contains(&format!("`{key}`")), "{key} is missing in docs/watch.md");
        }
    }
    assert_eq!(all.len(), 3);
}

#[test]
fn damaged_streams_end() {
    let clips = Clips::new();
    let kinds = [("a.ts", "-f mpegts"), ("a.mkv", "-f matroska"), ("a.flv", "-f flv"), ("a.h264", "-f h264")];
    for (name, how) in kinds {
        let whole = std::fs::read(clips.draw("testsrc2=s=64x48:r=10:d=1.6", &format!("{H264} {how}"), name));
        let whole = whole.expect("a file");
        let cuts = broken_videos::cut(&whole, [1, 5, 20, 60, 95].into_iter());
        for (what, bytes) in cuts.chain(broken_videos::damaged(&whole, 12, 5)) {
            let read = move || {
                let input = LiveInput::Reader(name.into(), Box::new(std::io::Cursor::new(bytes)));
                let Ok(mut source) = LiveSource::open(input, || false) else { return 0 };
                let (mut n, mut before) = (0, -1.0);
                while let Ok(Some(frame)) = source.next_from(0.0) {
                    assert_eq!(frame.rgb.len(), 3 * frame.width as usize * frame.height as usize);
                    assert!(frame.time_s > before, "times ascend");
                    (n, before) = (n + 1, frame.time_s);
                }
                source.warnings();
                n
            };
            assert!(within(60, read) < 1000, "{name}, {what}");
        }
    }
}

#[test]
fn a_source_stops_when_it_is_told_to() {
    let clips = Clips::new();
    let clip = clips.draw(MOVING, H264, "clip.ts");
    // At the end of a growing file, the source waits for more.
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stop);
    let input = LiveInput::Growing(clip);
    let mut source = LiveSource::open(input, move || asked.load(Ordering::Relaxed)).expect("it opens");
    assert_eq!(source.fps().map(f64::round), Some(10.0));
    let stopper = thread::spawn(move || {
        thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::Relaxed);
    });
    let end = within(60, move || {
        loop {
            match source.next_from(0.0) {
                Ok(Some(_)) => {}
                end => break end,
            }
        }
    });
    stopper.join().expect("it stops");
    assert!(matches!(end, Err(sharpv::Error::Cancelled)), "{end:?}");
}

#[test]
fn a_question_is_asked_again_and_again() {
    let clips = Clips::new();
    let clip = clips.draw(MOVING, H264, "clip.ts");
    let assert = watch(&clip, "What? --every 2s --fps 2 --json").success();
    let all = lines(&assert);
    let times: Vec<f64> = of_type(&all, "answer").iter().filter_map(|line| line["time_s"].as_f64()).collect();
    assert_eq!(times.iter().map(|time| time.round() as u32).collect::<Vec<_>>(), [0, 2, 4]);
    assert!(of_type(&all, "answer").iter().all(|line| line["asked"] == "every"));
    assert_eq!(end(&all)["state"]["frames"], 12);

    // Prints text for people, and stops after the time in `--for`.
    let told = watch(&clip, "What? --every 2s --for 3s").success().stderr(contains("the time is over at 0:02"));
    let text = String::from_utf8(told.get_output().stdout.clone()).expect("UTF-8");
    let starts: Vec<&str> = text.lines().map(|line| &line[..6]).collect();
    assert_eq!(starts, ["[0:00]", "[0:02]"], "{text}");
}

#[test]
fn events_are_told_when_something_changes() {
    let clips = Clips::new();
    let still = "color=gray:s=96x72:r=10:d=4[a];color=red:s=96x72:r=10:d=4[b];[a][b]concat";
    let clip = clips.draw(still, H264, "cut.mp4");
    let assert = watch(&clip, "--when=dog? --when=cat? --json --window 3").success();
    let all = lines(&assert);
    // At the first frame and at the cut. A condition that stays true is reported once.
    let events = of_type(&all, "event");
    assert!(events.len() <= 4, "{events:?}");
    for event in &events {
        assert!(["dog?", "cat?"].contains(&event["when"].as_str().expect("a text")));
        assert!([0.0, 4.0].contains(&event["time_s"].as_f64().expect("a time").round()), "{event}");
        assert!(event["novelty"].as_f64() > Some(0.0));
    }
    let state = &end(&all)["state"];
    assert!(state["repeats"].as_u64() >= Some(5) && state["held"].as_u64() <= Some(3), "{state}");
    // Conditions produce events, and no answers.
    assert!(of_type(&all, "answer").is_empty());

    // When a change is over: at the frame after the first, and at the one after the cut.
    let all = lines(&watch(&clip, "--when=dog? --when=cat? --when-at end --json --window 3").success());
    assert!(of_type(&all, "event").iter().all(|event| {
        let time_s = event["time_s"].as_f64().expect("a time").round();
        [1.0, 5.0].contains(&time_s)
    }));
    // The two frames differ. Their content is reported at the first, or at the end, since the change is not over.
    for (at, time_s) in [("change", 0.0), ("end", 1.0)] {
        let there = ["--when", "Is there a tractor in the video?", "--when", "Is there a guitar in the video?"];
        let args = [&["watch", "demo/clip.mp4", "--json", "--no-drop", "--when-at", at], &there[..]].concat();
        let all = lines(&with_smol(&args).assert().success());
        let events = of_type(&all, "event");
        assert_eq!(events.len(), 1, "{events:?}");
        assert_eq!((&events[0]["when"], &events[0]["time_s"]), (&there[1].into(), &time_s.into()), "{at}");
    }
}

#[test]
fn typed_questions_are_answered_from_what_there_is() {
    let clips = Clips::new();
    let clip = clips.draw(MOVING, H264, "clip.ts").display().to_string();
    let model = model();
    let args = arguments(&clip, "--json --follow --for 4s", &model);
    let mut child = spawn(&args);
    let mut stdin = child.stdin.take().expect("stdin");
    stdin.write_all(b"What is it?\n\n  Why?  \n").expect("questions");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success());
    drop(stdin);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let all: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let questions: Vec<&Value> = of_type(&all, "answer").iter().map(|line| &line["question"]).collect();
    assert_eq!(questions, ["What is it?", "Why?"]);
    assert!(of_type(&all, "answer").iter().all(|line| line["asked"] == "typed"));
}

#[test]
fn what_is_remembered_is_searched() {
    let clips = Clips::new();
    let clip = clips.draw(MOVING, H264, "clip.mp4");
    let all = lines(&watch(&clip, "What? --json --fps 4 --window 2 --recall 16").success());
    let answers = of_type(&all, "answer");
    let (search, state) = (&answers[0]["search"], &end(&all)["state"]);
    // A part has two frames, and at most sixteen frames are remembered.
    assert_eq!((answers.len(), state["recalled"].as_u64()), (1, Some(16)), "{state}");
    assert!(state["recalled_bytes"].as_u64() > Some(0));
    let parts = search["parts"].as_array().expect("parts");
    assert_eq!(parts.len(), 8, "{search}");
    assert!(parts.iter().all(|part| part["start_s"].as_f64() < part["end_s"].as_f64()), "{search}");
    // Text for people says so, too.
    let told = watch(&clip, "What? --fps 4 --window 2 --recall 16").success();
    told.stderr(contains("searched 8 parts: ").and(contains("16 frames remembered in ")));

    let clip = clips.draw(MOVING, H264, "clip.ts").display().to_string();
    for (recall, n_answers, warning) in [("--recall 16", 2, "requires a question"), ("", 1, "--recall 64")] {
        let (model, options) = (model(), format!("--json --follow --fps 4 --for 5.5s {recall}"));
        let mut child = spawn(&arguments(&clip, &options, &model));
        let mut stdin = child.stdin.take().expect("stdin");
        stdin.write_all(b"/searching?\n/search\n/search Was it?\n").expect("questions");
        let output = child.wait_with_output().expect("it ends");
        drop(stdin);
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let all: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let questions: Vec<&str> =
            of_type(&all, "answer").iter().filter_map(|line| line["question"].as_str()).collect();
        assert_eq!(questions, ["/searching?", "Was it?"][..n_answers]);
        let warnings = of_type(&all, "warning");
        let warns = |text: &str| warnings.iter().any(|line| line["message"].as_str().is_some_and(|m| m.contains(text)));
        assert!(warns("requires a question") && warns(warning), "{warnings:?}");
    }
}

#[test]
fn a_file_that_grows_is_read_as_it_does() {
    let clips = Clips::new();
    let bytes = std::fs::read(clips.draw(MOVING, H264, "whole.ts")).expect("a file");
    let growing = clips.write("growing.ts", &bytes[..bytes.len() / 3]);
    let writer = {
        let (growing, bytes) = (growing.clone(), bytes.clone());
        thread::spawn(move || {
            let mut file = std::fs::File::options().append(true).open(growing).expect("a file");
            for part in bytes[bytes.len() / 3..].chunks(bytes.len() / 20) {
                file.write_all(part).expect("written");
                thread::sleep(Duration::from_millis(50));
            }
        })
    };
    let all = lines(&watch(&growing, "--json --follow --for 4.5s --no-drop").success());
    writer.join().expect("it is written");
    assert_eq!(end(&all)["reason"], "time");
    assert_eq!(end(&all)["state"]["frames"], 5);
}

#[test]
fn times_that_begin_anew_go_on_and_are_told() {
    let clips = Clips::new();
    let bytes = std::fs::read(clips.draw(MOVING, &format!("{H264} -f mpegts"), "a.ts")).expect("a file");
    let all = lines(&piped([bytes.clone(), bytes].concat(), "--json --no-drop").success());
    let state = &end(&all)["state"];
    assert!((11..=13).contains(&state["frames"].as_u64().expect("a number")), "{state}");
    let warnings = of_type(&all, "warning");
    assert!(warnings.iter().any(|line| line["message"].as_str().is_some_and(|text| text.contains("went back"))));
}

#[test]
fn a_size_that_changes_is_fitted() {
    let clips = Clips::new();
    let parts = [("96x72", "1.h264"), ("64x96", "2.h264")];
    let parts = parts.map(|(size, name)| clips.draw(&format!("testsrc2=s={size}:r=10:d=3"), H264, name));
    let bytes: Vec<u8> = parts.iter().flat_map(|path| std::fs::read(path).expect("a file")).collect();
    let all = lines(&piped(bytes, "What? --json --no-drop --fps 2").success());
    assert!(end(&all)["state"]["frames"].as_u64() >= Some(4), "{:?}", end(&all));
    assert_eq!(of_type(&all, "answer").len(), 1);
}

#[test]
fn a_source_that_breaks_off_ends_with_what_came() {
    let clips = Clips::new();
    let bytes = std::fs::read(clips.draw(MOVING, H264, "whole.ts")).expect("a file");
    let all = lines(&piped(bytes[..bytes.len() / 2].to_vec(), "What? --json --no-drop").success());
    let frames = end(&all)["state"]["frames"].as_u64().expect("a number");
    assert!((1..6).contains(&frames), "{frames}");
    assert_eq!(of_type(&all, "answer").len(), 1);
}

#[test]
fn what_is_no_video_is_told() {
    piped(Vec::new(), "").failure().code(1).stderr(contains("stdin: nothing came from it"));
    let no_files = || contains("a folder of numbered images").not();
    let text = piped(b"Lorem ipsum dolor sit amet. ".repeat(1000), "").failure().code(1);
    text.stderr(contains("stdin: ").and(contains("give a file by its path, or send MPEG-TS")).and(no_files()));
    let list = piped(b"#EXTM3U\n#EXTINF:1.0,\na.ts\n".to_vec(), "").failure().code(1);
    list.stderr(contains("stdin: this is an HLS playlist"));
    let heic = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/heif/quarters.heic");
    let expected = || contains("this is a HEIC image").and(contains("convert it to JPEG or PNG"));
    piped(std::fs::read(heic).expect("a file"), "").failure().code(1).stderr(expected());
    watch(Path::new(heic), "").failure().code(1).stderr(expected());
    watch(Path::new(env!("CARGO_MANIFEST_DIR")), "")
        .failure()
        .code(1)
        .stderr(contains("a folder").and(contains("sharpv ask")));
    watch(Path::new("/nowhere/a.mp4"), "").failure().code(1).stderr(contains("/nowhere/a.mp4"));
    watch(Path::new("/dev/video9"), "").failure().code(1).stderr(contains("ffmpeg -loglevel error -f v4l2"));
    // Nothing listens on this port. The password must not be printed.
    let told = watch(Path::new("http://me:secret@127.0.0.1:9/a.ts"), "").failure().code(1);
    let text = String::from_utf8_lossy(&told.get_output().stderr).into_owned();
    assert!(text.contains("http://127.0.0.1:9/a.ts") && !text.contains("secret"), "{text}");
}

/// FFmpeg would read such a file to its end first, and could not seek back.
#[test]
fn an_index_at_the_end_is_told_where_there_is_no_way_back() {
    let clips = Clips::new();
    let read = |path: &Path| std::fs::read(path).expect("a file");
    let faststart = read(&clips.draw(MOVING, &format!("{H264} -movflags +faststart"), "first.mp4"));
    let told = || contains("its index (moov) is at its end").and(contains("by its path")).and(contains("+faststart"));
    for name in ["clip.mp4", "clip.mov", "clip.3gp"] {
        let clip = clips.draw(MOVING, H264, name);
        let piped = piped(read(&clip), "What?").failure().code(1);
        piped.stderr(contains("stdin: ").and(told()).and(contains("damaged").not()));
        // With a path, it is a video like any other.
        watch(&clip, "What? --json").success();
    }
    // A server without range requests is like a pipe. Of a small file, FFmpeg buffers everything.
    let large = clips.draw("testsrc2=s=640x360:r=10:d=6", H264, "large.mp4");
    assert!(read(&large).len() > 200_000);
    let served = serve(read(&large), false);
    let from_there = watch(Path::new(&served), "What?").failure().code(1);
    from_there.stderr(contains(&*served).and(told()).and(contains("damaged").not()));
    for (bytes, in_parts) in [(faststart.clone(), false), (read(&large), true)] {
        let all = lines(&watch(Path::new(&serve(bytes, in_parts)), "--json --no-drop").success());
        assert_eq!(end(&all)["state"]["frames"], 6);
    }
    let all = lines(&piped(faststart, "--json --no-drop").success());
    assert_eq!(end(&all)["state"]["frames"], 6);
}

#[test]
fn an_index_at_the_end_is_told_before_the_end() {
    let clips = Clips::new();
    let bytes = std::fs::read(clips.draw(MOVING, H264, "clip.mp4")).expect("a file");
    let model = model();
    let mut child = Command::new(env!("CARGO_BIN_EXE_sharpv"));
    let child = child.args(arguments("-", "What?", &model)).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().expect("the program starts");
    // The pipe stays open, like that of a long recording.
    let mut stdin = child.stdin.take().expect("stdin");
    stdin.write_all(&bytes[..100]).expect("the beginning");
    let output = within(120, move || child.wait_with_output()).expect("it ends");
    drop(stdin);
    assert!(String::from_utf8_lossy(&output.stderr).contains("its index (moov) is at its end"));
    assert_eq!(output.status.code(), Some(1));
}

#[cfg(unix)]
#[test]
fn a_named_pipe_is_a_pipe() {
    let clips = Clips::new();
    let bytes = std::fs::read(clips.draw(MOVING, H264, "clip.ts")).expect("a file");
    let pipe = clips.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    let writer = {
        let pipe = pipe.clone();
        thread::spawn(move || std::fs::write(pipe, bytes))
    };
    let all = lines(&watch(&pipe, "--json --no-drop").success());
    assert_eq!(end(&all)["state"]["frames"], 6);
    writer.join().expect("it writes").expect("all of it");
}

/// Serves a file over HTTP, with range requests if `in_parts`. Returns its address.
fn serve(file: Vec<u8>, in_parts: bool) -> String {
    let whole = file.len();
    answering("http", "/clip.mp4", move |request| {
        let range =
            request.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
        let start = range.and_then(|range| range.split('-').next()?.parse::<usize>().ok()).unwrap_or(0);
        let start = if in_parts { start.min(whole) } else { 0 };
        let head = if in_parts {
            let last = whole.max(1) - 1;
            format!(
                "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {start}-{last}/{whole}\r\nAccept-Ranges: bytes\r\n"
            )
        } else {
            "HTTP/1.1 200 OK\r\n".to_owned()
        };
        let length = whole - start;
        let head = format!("{head}Content-Length: {length}\r\nConnection: close\r\n\r\n");
        [head.as_bytes(), &file[start..]].concat()
    })
}

/// Starts a server that answers every request with `answer`. Returns its address, followed by `path`.
fn answering(scheme: &str, path: &str, answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut request = [0; 4096];
            let Ok(n) = std::io::Read::read(&mut stream, &mut request) else { continue };
            // The client may be gone.
            let _ = stream.write_all(&answer(&String::from_utf8_lossy(&request[..n])));
        }
    });
    format!("{scheme}://{address}{path}")
}

#[test]
fn an_address_without_video_is_told_with_what_to_check() {
    // Nothing listens on this port any more.
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let http = |status: &'static str| {
        answering("http", "/stream", move |_| {
            format!("HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: 20\r\nConnection: close\r\n\r\n<html>Hello.</html>\n").into()
        })
    };
    let rtsp = |status: &'static str| {
        answering("rtsp", "/stream", move |request| {
            let number = request.lines().find(|line| line.starts_with("CSeq")).unwrap_or("CSeq: 1").to_owned();
            format!("RTSP/1.0 {status}\r\n{number}\r\n\r\n").into()
        })
    };
    for (address, reason, advice) in [
        (format!("rtsp://{free}/stream"), "the connection was refused", "check the host and the port"),
        (format!("http://{free}/stream"), "the connection was refused", "check the host and the port"),
        (format!("tcp://{free}"), "the connection was refused", "check the host and the port"),
        (http("404 Not Found"), "nothing at this path", "check the part of the address after the host"),
        (http("401 Unauthorized"), "a user name and a password are required", "http://NAME:PASSWORD@HOST"),
        (http("403 Forbidden"), "access is forbidden", "what this account"),
        (http("500 Internal Server Error"), "the server failed", "try again later"),
        (http("200 OK"), "does not send a video in a supported format", "the stream itself"),
        (rtsp("404 Not Found"), "nothing at this path", "check the part of the address after the host"),
        (rtsp("401 Unauthorized"), "a user name and a password are required", "rtsp://NAME:PASSWORD@HOST"),
    ] {
        let told = watch(Path::new(&address), "What?").failure().code(1);
        let expected = contains(format!("error: {address}: ")).and(contains(reason)).and(contains(advice));
        told.stderr(expected.and(contains("a folder of numbered images").not()));
    }
}

#[test]
fn what_cannot_be_asked_for_is_wrong_use() {
    let clips = Clips::new();
    let clip = clips.draw(MOVING, H264, "clip.mp4");
    for (options, told) in [
        ("--every 2s", "QUESTION"),
        ("--window 3 --memory 100", "cannot be used with"),
        ("--window 0", "0"),
        ("--prune vidcom2", "sharpv-paper or off"),
        ("--max-visual-tokens 9", "left out for live video"),
        ("--for 0", "above 0"),
        ("--recall 7", "8"),
    ] {
        watch(&clip, options).failure().code(2).stderr(contains(told));
    }
}

#[test]
fn what_does_not_fit_is_refused_with_what_does() {
    let clips = Clips::new();
    let clip = clips.draw(MOVING, H264, "clip.mp4");
    for (option, unit) in [("--window", "frames"), ("--memory", "visual tokens")] {
        let refused = watch(&clip, &format!("{option} 1000000")).failure().code(2);
        let text = String::from_utf8_lossy(&refused.get_output().stderr).into_owned();
        let (_, rest) = text.split_once("at most ").unwrap_or_else(|| panic!("{text}"));
        let (n, rest) = rest.split_once(' ').expect("a number");
        assert!(rest.starts_with(unit) && rest.contains("positions"), "{text}");
        // The number in the message does fit.
        watch(&clip, &format!("{option} {n}")).success();
        let more = n.parse::<u32>().expect("a number") + 20;
        watch(&clip, &format!("{option} {more}")).failure().code(2).stderr(contains(format!("at most {n} ")));
    }
    // Less memory than any machine has.
    for option in ["--window 40", "--memory 200", "--recall 1000 --prune off"] {
        let refused = watch(&clip, &format!("{option} --max-memory 1K")).failure().code(2);
        refused.stderr(contains("0 MB of memory are free"));
    }
}

#[test]
fn an_address_is_read_where_the_user_names_it() {
    let clips = Clips::new();
    let bytes = std::fs::read(clips.draw(MOVING, H264, "whole.ts")).expect("a file");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}/stream.ts", listener.local_addr().expect("an address"));
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            use std::io::Read;
            let mut request = [0; 2048];
            let _ = stream.read(&mut request);
            let head = b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n";
            let _ = stream.write_all(head).and_then(|()| stream.write_all(&bytes));
        }
    });
    let all = lines(&watch(Path::new(&address), "--json --no-drop").success());
    assert_eq!(end(&all)["state"]["frames"], 6);
    // Other commands still reject it.
    let ask = ["ask", &address, "What?", "-m", &model()[0], "--mmproj", &model()[1]];
    sharpv(&ask).assert().failure().stderr(contains("http"));
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_with_a_summary() {
    let clips = Clips::new();
    let clip = clips.draw(MOVING, H264, "clip.ts").display().to_string();
    let model = model();
    // At the end of the file, it waits for more.
    let args = arguments(&clip, "--json --follow --every 1s What?", &model);
    let mut child = spawn(&args);
    let mut stdout = std::io::BufReader::new(child.stdout.take().expect("stdout"));
    let mut text = String::new();
    std::io::BufRead::read_line(&mut stdout, &mut text).expect("an answer");
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(status.expect("kill runs").success());
    std::io::Read::read_to_string(&mut stdout, &mut text).expect("the rest");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    let all: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(end(&all)["reason"], "stopped");
}

/// Starts the program with pipes for stdin and stdout.
fn spawn(args: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sharpv"));
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().expect("the program starts")
}
