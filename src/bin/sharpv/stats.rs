//! Statistics of an answer, as text.

use indicatif::DecimalBytes;
use sharpv::chat::{Answer, StopReason, VisualTokens};
use sharpv::skip::EncodeMode;

/// The statistics in one line.
pub fn line(answer: &Answer) -> String {
    let mut parts = Vec::new();
    if answer.frames > 0 {
        parts.push(video(answer.frames, &answer.visual_tokens));
    }
    parts.push(format!("first token after {}", first_token(answer)));
    parts.extend(thought(answer).map(|(tokens, begun)| format!("{tokens} thought, {begun}")));
    parts.push(speed(answer));
    parts.push(format!("KV {}{}", kv(answer), evicted(answer)));
    parts.join(" · ")
}

/// The statistics as a table.
pub fn table(answer: &Answer) -> String {
    let t = &answer.timings_ms;
    let memory = answer.peak_rss_bytes.map_or_else(|| "unknown".to_owned(), |bytes| DecimalBytes(bytes).to_string());
    let tokens = &answer.tokens;
    let mut rows = vec![
        ("model", answer.model.clone()),
        ("load", seconds(t.load)),
        ("video", video(answer.frames, &answer.visual_tokens)),
        ("prompt", format!("{} tokens, {} of them computed in this turn", tokens.prompt, tokens.prompt_computed)),
        ("first token", first_token(answer)),
        ("vision", vision(answer)),
        ("answer", speed(answer)),
        ("KV cache", format!("{}; {} cells used{}", kv(answer), answer.kv.cells_used, evicted(answer))),
        ("peak memory", memory),
    ];
    if answer.kv.bytes_state > 0 {
        rows.insert(rows.len() - 1, ("state", state(answer)));
    }
    if let Some((tokens, begun)) = thought(answer) {
        let before_answer = rows.iter().position(|(name, _)| *name == "answer").unwrap_or(rows.len());
        rows.insert(before_answer, ("thought", format!("{tokens}; {begun}")));
    }
    if !answer.similarity.is_empty() {
        rows.push(("similarity", curve(&answer.similarity)));
    }
    rows.iter().map(|(name, value)| format!("{name:<14} {value}")).collect::<Vec<_>>().join("\n")
}

/// Why an answer was cut off, if it was. `think` is what limits a thought.
pub fn end_note(answer: &Answer, think: &str) -> Option<String> {
    let began = answer.tokens.reasoning < answer.tokens.generated;
    match answer.stop {
        StopReason::Length if !began => {
            Some(format!("the answer did not begin: raise -n, or limit the thought with {think}"))
        }
        StopReason::ContextFull if !began => Some(format!(
            "the answer did not begin: the context of {} cells is full; enlarge it with -c N, or limit the thought with \
             {think}",
            answer.kv.cells
        )),
        StopReason::Length => {
            Some(format!("the answer was cut off after {} tokens; -n N allows more", answer.tokens.generated))
        }
        StopReason::ContextFull => {
            Some(format!("the answer was cut off: the context of {} cells is full; -c N enlarges it", answer.kv.cells))
        }
        _ => None,
    }
}

/// `8 frames, 127 of 512 visual tokens kept (25 %)`
pub fn video(frames: usize, tokens: &VisualTokens) -> String {
    let frames = if frames == 1 { "1 frame".to_owned() } else { format!("{frames} frames") };
    let percent = tokens.keep_ratio * 100.0;
    format!("{frames}, {} of {} visual tokens kept ({percent:.0} %)", tokens.kept, tokens.total)
}

/// The time to the first token, by stages of this turn.
fn first_token(answer: &Answer) -> String {
    let t = &answer.timings_ms;
    let stages = [("decode", t.decode_video), ("encode", t.encode), ("prune", t.prune), ("prefill", t.prefill)];
    let stages = stages.into_iter().filter(|&(_, ms)| ms > 0.0).map(|(name, ms)| format!("{name} {}", seconds(ms)));
    format!("{} ({})", seconds(t.ttft), stages.collect::<Vec<_>>().join(", "))
}

/// How much of the frames the encoder computed.
fn vision(answer: &Answer) -> String {
    let work = &answer.encoder;
    let percent = work.computed * 100.0;
    match answer.settings.encode.mode {
        EncodeMode::Exact if percent >= 99.5 => "exact".to_owned(),
        mode => format!("{mode}: {percent:.0} % of the work computed, about {} saved", seconds(work.saved_ms)),
    }
}

/// `118 tokens` and `the answer began after 4.3 s`, if there was a thought.
fn thought(answer: &Answer) -> Option<(String, String)> {
    let begun = match answer.timings_ms.first_answer {
        after if after > 0.0 => format!("the answer began after {}", seconds(after)),
        _ => "the answer did not begin".to_owned(),
    };
    (answer.tokens.reasoning > 0).then(|| (count(answer.tokens.reasoning), begun))
}

fn count(tokens: usize) -> String {
    if tokens == 1 { "1 token".to_owned() } else { format!("{tokens} tokens") }
}

fn speed(answer: &Answer) -> String {
    let tokens = count(answer.tokens.generated);
    match answer.tokens.decoded {
        0 => tokens,
        _ => format!("{tokens}, {:.1} tokens/s", answer.tokens_per_second()),
    }
}

fn kv(answer: &Answer) -> String {
    let kv = &answer.kv;
    let saved = kv.bytes_dense.saturating_sub(kv.bytes);
    let saved = if saved > 0 { format!(" ({} saved)", DecimalBytes(saved)) } else { String::new() };
    format!("{} cells, {}{saved}", kv.cells, DecimalBytes(kv.bytes))
}

/// The part of the KV cache that holds states of recurrent layers, and the copies of it.
fn state(answer: &Answer) -> String {
    let kv = &answer.kv;
    let copies = match kv.checkpoints {
        1 => "1 copy".to_owned(),
        n => format!("{n} copies"),
    };
    format!("{} of the KV cache; {copies}, {}", DecimalBytes(kv.bytes_state), DecimalBytes(kv.bytes_checkpoints))
}

/// What was evicted from the KV cache, if anything.
fn evicted(answer: &Answer) -> String {
    let kv = &answer.kv;
    let (of, fixed) = match kv.layers_fixed {
        0 => (format!("{} layers", kv.layers), String::new()),
        n => (
            format!("{} attention layers", kv.layers - n),
            format!(" (the other {n} are recurrent, or have a sliding window)"),
        ),
    };
    match (kv.layers_evicted, kv.tokens_evicted) {
        (0, 0) => String::new(),
        (layers, 0) => format!(", visual tokens evicted from {layers} of {of}{fixed}"),
        (_, tokens) => format!(", {tokens} visual tokens evicted"),
    }
}

/// A similarity curve in one line, from the first layer to the last: `█▄▃▂▃ 1.00 … 0.09`.
fn curve(layers: &[f32]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let bar = |&s: &f32| match s {
        s if s.is_nan() => ' ',
        // The square root spreads small values.
        s => BARS[((s.clamp(0.0, 1.0).sqrt() * BARS.len() as f32) as usize).min(BARS.len() - 1)],
    };
    let ends = layers.first().zip(layers.last());
    let ends = ends.map_or_else(String::new, |(first, last)| format!(" {first:.2} … {last:.2}"));
    layers.iter().map(bar).collect::<String>() + &ends
}

/// A time in milliseconds, with its unit.
pub fn seconds(ms: f64) -> String {
    if ms < 10.0 {
        format!("{ms:.1} ms")
    } else if ms < 1000.0 {
        format!("{ms:.0} ms")
    } else {
        format!("{:.2} s", ms / 1000.0)
    }
}
