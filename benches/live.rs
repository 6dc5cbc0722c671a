//! Video that does not end, with the model `smol`.
//!
//! `cargo bench --bench live` measures what a frame and a question cost, with frames prefilled as they come and with
//! the question, in turns, and how memory goes over an hour.
//!
//! `cargo bench --bench live -- --needles FOLDER [CLIPS]` asks about things that appear once in long clips. FOLDER has
//! videos, `needles.jsonl` (`video`, `thing`, `start`, `end`) and `questions.jsonl` (`video`, `question`, `answer`: for
//! each thing a question with "Yes.", and behind it one for another thing with "No."). Both are asked right behind the
//! end of the thing that is there (recent), and two minutes later (early).

#[path = "footage/mod.rs"]
#[allow(dead_code)]
mod footage;

use serde_json::Value;
use sharpv::chat::{LiveParams, LivePolicy, LiveSession, SessionParams};
use sharpv::models;
use sharpv::runtime::{CancelToken, SamplerParams};
use sharpv::video::{Frame, LiveInput, LiveSource};
use std::path::Path;
use std::time::Instant;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const SIDE: u32 = 224;

/// Seconds behind the end of a thing at which it is asked for.
const RECENT_S: f64 = 1.0;
const EARLY_S: f64 = 120.0;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --all-targets` runs benches with this argument; there is nothing to check here.
    if args.iter().any(|arg| arg == "--test") {
        return Ok(());
    }
    match args.iter().position(|arg| arg == "--needles") {
        Some(at) => {
            let folder = args.get(at + 1).ok_or("--needles wants a folder")?;
            let clips = args.get(at + 2).map_or(Ok(usize::MAX), |n| n.parse())?;
            needles(Path::new(folder), clips)
        }
        None => {
            cost(LivePolicy::Window { frames: 8 })?;
            cost(LivePolicy::memory(400))?;
            hour()
        }
    }
}

fn open(policy: LivePolicy, prefill: bool) -> Result<LiveSession> {
    let sampler = SamplerParams { temperature: 0.0, ..SamplerParams::default() };
    let params = SessionParams { n_predict: 16, sampler, cancel: CancelToken::new(), ..SessionParams::default() };
    let live = LiveParams { policy, prefill, ..LiveParams::default() };
    Ok(LiveSession::open(&models::resolve("smol", None, &[])?, params, live, &mut ())?)
}

fn filmed(footage: footage::Footage, second: u32) -> Frame {
    let picture = footage.frame(SIDE, second as f32, second as i32);
    Frame { width: SIDE, height: SIDE, rgb: picture.into_raw(), time_s: f64::from(second) }
}

/// A frame a second of a camera that moves, a question every ten.
fn cost(policy: LivePolicy) -> Result<()> {
    const FRAMES: u32 = 120;
    let mut sessions = [open(policy, true)?, open(policy, false)?];
    let (mut pushes, mut asks) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    let (mut computed, mut prompts) = ([0, 0], [0, 0]);
    for second in 0..FRAMES {
        let frame = filmed(footage::MOVING, second);
        for (i, live) in sessions.iter_mut().enumerate() {
            let start = Instant::now();
            live.push(&frame, &mut ())?;
            pushes[i].push(start.elapsed().as_secs_f64() * 1000.0);
            if second % 10 == 9 {
                let answer = live.ask("What is in the video?", &mut ())?;
                asks[i].push(answer.timings_ms.ttft);
                computed[i] += answer.tokens.prompt_computed;
                prompts[i] += answer.tokens.prompt;
            }
        }
    }
    println!("{policy:?}, {FRAMES} frames of a camera that moves, {} questions", FRAMES / 10);
    for (i, name) in ["prefilled as they come", "prefilled with the question"].into_iter().enumerate() {
        println!(" {name}: {} of {} rows of prompts computed for questions", computed[i], prompts[i]);
        show("push", &mut pushes[i]);
        show("first token", &mut asks[i]);
    }
    println!("  {:?}\n", sessions[0].state());
    Ok(())
}

/// An hour of a camera that stands still, with a window and with a memory.
fn hour() -> Result<()> {
    for policy in [LivePolicy::Window { frames: 8 }, LivePolicy::memory(400)] {
        let mut live = open(policy, true)?;
        println!("{policy:?}, an hour of a camera that stands still, a frame a second");
        let (start, mut times) = (Instant::now(), Vec::new());
        for second in 0..=3600 {
            let frame = filmed(footage::STATIC, second);
            let begun = Instant::now();
            live.push(&frame, &mut ())?;
            times.push(begun.elapsed().as_secs_f64() * 1000.0);
            if second % 600 == 0 && second > 0 {
                let state = live.state();
                println!(
                    "  {:2} min: {:3} MB resident, {} frames, {} tokens, {} cells, {} positions, {} rebases, \
                     {:.0} % encoded",
                    second / 60,
                    resident() >> 20,
                    state.held,
                    state.tokens,
                    state.cells,
                    state.positions,
                    state.rebases,
                    100.0 * state.computed
                );
            }
        }
        show("push", &mut times);
        println!("  {:.0} s in all\n", start.elapsed().as_secs_f64());
    }
    Ok(())
}

/// Bytes of this process in memory; 0 where the system does not tell.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Something to ask at a moment of a video.
struct Probe {
    at_s: f64,
    early: bool,
    question: String,
    answer: String,
}

fn needles(folder: &Path, clips: usize) -> Result<()> {
    let read = |name: &str| -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(folder.join(name))?;
        Ok(text.lines().map(serde_json::from_str).collect::<std::result::Result<_, _>>()?)
    };
    let (things, questions) = (read("needles.jsonl")?, read("questions.jsonl")?);
    let mut videos: Vec<&str> = things.iter().filter_map(|thing| thing["video"].as_str()).collect();
    videos.dedup();
    let policies =
        [LivePolicy::Window { frames: 8 }, LivePolicy::memory(200), LivePolicy::memory(400), LivePolicy::memory(800)];
    for video in videos.into_iter().take(clips) {
        let mut probes = Vec::new();
        for thing in things.iter().filter(|thing| thing["video"] == video) {
            let (name, end) = (thing["thing"].as_str().unwrap_or_default(), thing["end"].as_f64().unwrap_or(0.0));
            let is_it =
                |line: &&Value| line["video"] == video && line["question"].as_str().is_some_and(|q| q.contains(name));
            let Some(at) = questions.iter().position(|line| is_it(&line) && line["answer"] == "Yes.") else { continue };
            // The question behind it is for one that is not there.
            for line in questions.iter().skip(at).take(2) {
                let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
                for (early, behind) in [(false, RECENT_S), (true, EARLY_S)] {
                    probes.push(Probe {
                        at_s: end + behind,
                        early,
                        question: text("question"),
                        answer: text("answer"),
                    });
                }
            }
        }
        probes.sort_by(|a, b| a.at_s.total_cmp(&b.at_s));
        for policy in policies {
            stream(&folder.join(video), policy, &probes)?;
        }
    }
    Ok(())
}

/// Prints a line of JSON for each probe.
fn stream(video: &Path, policy: LivePolicy, probes: &[Probe]) -> Result<()> {
    let mut live = open(policy, true)?;
    let mut source = LiveSource::open(LiveInput::File(video.to_owned()), || false)?;
    let (mut next_s, mut waiting) = (0.0, probes.iter().peekable());
    while let Some(frame) = source.next_from(next_s - 0.001)? {
        next_s = frame.time_s + 1.0;
        live.push(&frame, &mut ())?;
        while let Some(probe) = waiting.next_if(|probe| probe.at_s <= frame.time_s) {
            let answer = live.ask(&probe.question, &mut ())?.answer;
            let state = live.state();
            let right = answer.trim().trim_end_matches('.') == probe.answer.trim_end_matches('.');
            println!(
                "{}",
                serde_json::json!({
                    "video": video.file_name().map(|name| name.to_string_lossy()),
                    "policy": policy, "early": probe.early, "question": probe.question, "expected": probe.answer,
                    "answer": answer, "right": right,
                    "held": state.held, "tokens": state.tokens, "rebases": state.rebases
                })
            );
        }
    }
    Ok(())
}

/// Prints median, minimum and maximum in milliseconds.
fn show(name: &str, times: &mut [f64]) {
    times.sort_by(f64::total_cmp);
    if let (Some(first), Some(last)) = (times.first(), times.last()) {
        println!("  {name:12} {:9.1} ms  ({first:.1} to {last:.1})", times[times.len() / 2]);
    }
}
