//! The output of `sharpv watch`: text, or lines of JSON.

use crate::output;
use crate::screen::Screen;
use indicatif::DecimalBytes;
use serde::Serialize;
use sharpv::chat::{LiveState, Search};
use sharpv::runtime::peak_rss_bytes;

/// The state of the watch, apart from the session's.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Pulse {
    /// Frames that newer ones replaced while another was encoded.
    pub dropped: u64,
    /// Seconds from decoding the last frame until it was in the cache.
    pub lag_s: f64,
    /// The largest such lag.
    pub max_lag_s: f64,
}

/// The state that every line of JSON has.
#[derive(Debug, Serialize)]
struct Whole {
    #[serde(flatten)]
    live: LiveState,
    #[serde(flatten)]
    pulse: Pulse,
    peak_rss_bytes: Option<u64>,
}

/// A line of JSON.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line<'a> {
    Answer {
        time_s: f64,
        #[serde(flatten)]
        reply: Reply<'a>,
        state: Whole,
    },
    Event {
        time_s: f64,
        when: &'a str,
        novelty: f32,
        state: Whole,
    },
    Warning {
        message: &'a str,
    },
    End {
        reason: End,
        time_s: f64,
        state: Whole,
    },
}

/// An answer.
#[derive(Debug, Serialize)]
pub struct Reply<'a> {
    pub question: &'a str,
    pub answer: &'a str,
    /// The thought before it, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<&'a str>,
    pub asked: Asked,
    /// The result of the search, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search: Option<Search>,
    pub latency_ms: f64,
}

/// Why a question was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Asked {
    /// The user typed it.
    Typed,
    /// Its interval has passed.
    Every,
    /// The video ended.
    End,
}

/// Why the watch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// The source ended.
    Source,
    /// The requested time is over.
    Time,
    /// The user stopped it.
    Stopped,
    /// The source failed. The error follows on stderr.
    Failed,
}

/// Writes the output.
#[derive(Debug)]
pub struct Report {
    json: bool,
}

impl Report {
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints an answer. As text, it is not printed again if it was `written` already.
    pub fn answer(&self, reply: Reply<'_>, written: bool, (live, pulse): (LiveState, Pulse)) -> anyhow::Result<()> {
        let time_s = live.now_s.unwrap_or(0.0);
        if self.json {
            let state = whole(live, pulse);
            return output::print_json(&Line::Answer { time_s, reply, state });
        }
        if !written {
            output::print(&format!("[{}] {}\n", clock(time_s), reply.answer))?;
        }
        Ok(())
    }

    /// Prints that a condition became true.
    pub fn event(&self, when: &str, novelty: f32, (live, pulse): (LiveState, Pulse)) -> anyhow::Result<()> {
        let time_s = live.now_s.unwrap_or(0.0);
        if self.json {
            return output::print_json(&Line::Event { time_s, when, novelty, state: whole(live, pulse) });
        }
        Ok(output::print(&format!("[{}] {when}\n", clock(time_s)))?)
    }

    /// Prints a warning.
    pub fn warning(&self, message: &str, screen: &Screen) -> anyhow::Result<()> {
        if self.json {
            return output::print_json(&Line::Warning { message });
        }
        screen.warning(message);
        Ok(())
    }

    /// Prints the summary.
    pub fn end(&self, reason: End, screen: &Screen, (live, pulse): (LiveState, Pulse)) -> anyhow::Result<()> {
        if self.json {
            let time_s = live.now_s.unwrap_or(0.0);
            return output::print_json(&Line::End { reason, time_s, state: whole(live, pulse) });
        }
        let why = match reason {
            End::Source => "the video ended",
            End::Time => "the time is over",
            End::Stopped => "stopped",
            End::Failed => "the video failed",
        };
        screen.faint(&format!("{why} at {}", status(&live, &pulse)));
        let peak = peak_rss_bytes().map_or_else(String::new, |bytes| format!(" · peak memory {}", DecimalBytes(bytes)));
        screen.faint(&format!(
            "{} frames, {} of them repeats, {} left · {:.0} % of the encoder's work done · longest lag {:.1} s{peak}",
            live.frames,
            live.repeats,
            live.evicted,
            100.0 * live.computed,
            pulse.max_lag_s
        ));
        Ok(())
    }
}

/// `0:31 · 8 frames and 310 tokens held · 64 frames remembered in 1.9 MB · KV 12.3 MB · lag 0.2 s · 3 frames dropped`
pub fn status(live: &LiveState, pulse: &Pulse) -> String {
    let mut parts =
        vec![clock(live.now_s.unwrap_or(0.0)), format!("{} frames and {} tokens held", live.held, live.tokens)];
    if live.recalled > 0 {
        let bytes = DecimalBytes(live.recalled_bytes as u64);
        parts.push(format!("{} frames remembered in {bytes}", live.recalled));
    }
    parts.push(format!("KV {}", DecimalBytes(live.kv_bytes)));
    parts.push(format!("lag {:.1} s", pulse.lag_s));
    if pulse.dropped > 0 {
        parts.push(format!("{} frames dropped", pulse.dropped));
    }
    parts.join(" · ")
}

fn whole(live: LiveState, pulse: Pulse) -> Whole {
    Whole { live, pulse, peak_rss_bytes: peak_rss_bytes() }
}

/// `M:SS`, or `H:MM:SS`.
fn clock(time_s: f64) -> String {
    let s = time_s.max(0.0) as u64;
    let (hours, minutes, seconds) = (s / 3600, s / 60 % 60, s % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}
