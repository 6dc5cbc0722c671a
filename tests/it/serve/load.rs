//! Eight clients for some minutes. Not for every day:
//!
//!     SHARPV_LOAD_SECONDS=240 cargo test --release --test it serve::load -- --ignored --nocapture

use super::client::{Server, about, clip, data_uri, say, with};
use crate::support::video_clips::{Clips, colors};
use serde_json::{Value, json};
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Simultaneous clients.
const CLIENTS: u64 = 8;

/// What the clients received.
#[derive(Debug, Default)]
struct Seen {
    answers: AtomicU64,
    streams: AtomicU64,
    rejected: AtomicU64,
    disconnected: AtomicU64,
    /// Invalid requests that were answered with an error.
    bad: AtomicU64,
}

#[test]
#[ignore = "minutes of load"]
fn memory_stays_flat_and_nothing_is_lost() {
    let seconds = std::env::var("SHARPV_LOAD_SECONDS").map_or(180, |text| text.parse().expect("seconds"));
    let limit = Duration::from_secs(seconds);
    let options = ["--parallel", "2", "--queue", "5", "--video-cache", "2M"];
    let server = match std::env::var("SHARPV_LOAD_MODEL").as_deref() {
        Ok("smol") => Server::smol(&[&options[..], &["-n", "16"]].concat()),
        _ => Server::tiny(&options),
    };
    let clips = Clips::new();
    let names = ["red", "lime", "blue", "white", "black", "yellow", "cyan", "magenta"];
    let made = (0..names.len()).map(|i| {
        let colors = colors(&[names[i], names[(i + 3) % names.len()]], 1.0, "96x64", 5);
        data_uri(&clips.draw(&colors, "-pix_fmt yuv420p", &format!("{i}.mp4")), "video/mp4")
    });
    let videos: Vec<String> = made.chain([data_uri(&clip(), "video/mp4")]).collect();
    let seen = Seen::default();
    let start = Instant::now();
    let rss = thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (server, seen, videos) = (&server, &seen, &videos);
            scope.spawn(move || {
                let mut turn = client;
                while start.elapsed() < limit {
                    turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    one(server, seen, videos, turn >> 33);
                }
            });
        }
        let mut rss = Vec::new();
        while start.elapsed() < limit {
            thread::sleep(Duration::from_secs(5).min(limit));
            rss.push(rss_mib(server.pid()));
        }
        rss
    });
    server.wait_for("sharpv_requests_processing", |n| n == 0.0);
    server.wait_for("sharpv_requests_deferred", |n| n == 0.0);
    println!("{seen:?}");
    println!("RSS in MiB every 5 s: {rss:?}");
    println!(
        "{}",
        server
            .get("/metrics")
            .text
            .lines()
            .filter(|line| line.starts_with("sharpv_requests"))
            .collect::<Vec<_>>()
            .join("\n")
    );
    let finished = server.metric("sharpv_request_duration_seconds_count");
    let answered = seen.answers.load(Ordering::Relaxed) + seen.streams.load(Ordering::Relaxed);
    assert!(answered > 0 && finished >= answered as f64, "{finished} of {answered}");
    // Memory does not grow after the first quarter of the time.
    let early = rss[..rss.len() / 4 + 1].iter().max().expect("a value");
    let late = rss[rss.len() / 2..].iter().max().expect("a value");
    assert!(*late <= early + early / 5 + 16, "{early} MiB, and then {late} MiB");
}

fn one(server: &Server, seen: &Seen, videos: &[String], number: u64) {
    let video = &videos[(number / 16) as usize % videos.len()];
    let question = format!("What about {}?", number % 7);
    let body = match number % 16 {
        0..=3 => say(&question),
        4 => return expect_bad(server, seen, &about("/etc/passwd", &question)),
        5 => return expect_bad(server, seen, &about("data:video/mp4;base64,AAAA", &question)),
        6 => return leave(server, seen, &about(video, &question)),
        7 => with(about(video, &question), json!({ "sharpv": { "prune": "off", "num_frames": 2 + number % 3 } })),
        _ => about(video, &question),
    };
    let stream = number.is_multiple_of(2);
    let reply = server.post(&with(body, json!({ "stream": stream, "max_tokens": 8 })));
    match reply.status {
        200 if stream => {
            assert_eq!(reply.events().last().expect("events"), "[DONE]", "{}", reply.text);
            seen.streams.fetch_add(1, Ordering::Relaxed);
        }
        200 => {
            reply.answer();
            seen.answers.fetch_add(1, Ordering::Relaxed);
        }
        429 => {
            reply.error();
            seen.rejected.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(20));
        }
        status => panic!("{status}: {}", reply.text),
    }
}

fn expect_bad(server: &Server, seen: &Seen, body: &Value) {
    let status = server.post(body).status;
    assert!([400, 429].contains(&status), "{status}");
    seen.bad.fetch_add(1, Ordering::Relaxed);
}

fn leave(server: &Server, seen: &Seen, body: &Value) {
    let mut stream = server.begin(&with(body.clone(), json!({ "stream": true })));
    stream.set_read_timeout(Some(Duration::from_millis(30))).expect("a timeout");
    let _ = stream.read(&mut [0; 64]);
    seen.disconnected.fetch_add(1, Ordering::Relaxed);
}

fn rss_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") >> 10
}
