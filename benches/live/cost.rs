//! The cost of a frame and of a question, and memory over time.

use crate::{Result, open};
use sharpv::chat::LivePolicy;
use sharpv::video::Frame;
use std::time::Instant;

#[path = "../footage/mod.rs"]
#[allow(dead_code)]
mod footage;

const SIDE: u32 = 224;

pub fn run() -> Result<()> {
    for policy in [LivePolicy::Window { frames: 8 }, LivePolicy::memory(400)] {
        cost(policy)?;
    }
    hour()
}

fn filmed(footage: footage::Footage, second: u32) -> Frame {
    let image = footage.frame(SIDE, second as f32, second as i32);
    Frame { width: SIDE, height: SIDE, rgb: image.into_raw(), time_s: f64::from(second) }
}

/// One frame per second of a moving camera, a question every ten seconds.
fn cost(policy: LivePolicy) -> Result<()> {
    const FRAMES: u32 = 120;
    let mut sessions = [open(policy, 0, true)?, open(policy, 0, false)?];
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
    println!("{policy:?}, {FRAMES} frames of a moving camera, {} questions", FRAMES / 10);
    for (i, name) in ["prefilled as they come", "prefilled with the question"].into_iter().enumerate() {
        println!(" {name}: {} of {} rows of prompts computed for questions", computed[i], prompts[i]);
        show("push", &mut pushes[i]);
        show("first token", &mut asks[i]);
    }
    println!("  {:?}\n", sessions[0].state());
    Ok(())
}

/// An hour of a still camera, with each policy, and with recall.
pub fn hour() -> Result<()> {
    let window = LivePolicy::Window { frames: 8 };
    for (policy, recall) in [(window, 0), (LivePolicy::memory(400), 0), (window, 64)] {
        let mut live = open(policy, recall, true)?;
        println!("{policy:?}, {recall} frames for recall, an hour of a still camera, one frame per second");
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
                     {:.0} % encoded, {} remembered in {} kB",
                    second / 60,
                    resident() >> 20,
                    state.held,
                    state.tokens,
                    state.cells,
                    state.positions,
                    state.rebases,
                    100.0 * state.computed,
                    state.recalled,
                    state.recalled_bytes / 1000
                );
            }
        }
        show("push", &mut times);
        println!("  {:.0} s in all\n", start.elapsed().as_secs_f64());
    }
    Ok(())
}

/// Resident memory of this process, in bytes; 0 if the system does not report it.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Prints median, minimum and maximum in milliseconds.
fn show(name: &str, times: &mut [f64]) {
    times.sort_by(f64::total_cmp);
    if let (Some(first), Some(last)) = (times.first(), times.last()) {
        println!("  {name:12} {:9.1} ms  ({first:.1} to {last:.1})", times[times.len() / 2]);
    }
}
