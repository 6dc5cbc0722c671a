//! When a needle is visible: questions that name a time.
//!
//! A model may prefer yes, no, or *before*. So every question is compared with others that differ only in the time, by
//! how much likelier yes is than no:
//!
//! - `quarter`: the needle's question for each quarter of the video. The score is the share of the three other quarters
//!   for which yes is less likely than for the quarter with the needle's middle. Chance is half.
//! - `order`: the question with *before* and with *after* a moment, for two moments at the same distance before and
//!   after the needle. The score is the share of moments for which the true question is likelier. A model that always
//!   prefers *after* has half.

use crate::{Needle, yes_over_no};
use serde_json::{Value, json};
use sharpv::chat::Session;
use sharpv::lab::eval::clustered_mean;
use std::collections::BTreeMap;
use std::error::Error;

/// Asks about a needle in a video of `duration_s` seconds; `question` asks whether it is there. Returns lines with the
/// `category`, the `score` from 0 to 1, and how much likelier yes is than no for each question.
pub fn ask(
    session: &mut Session,
    needle: &Needle,
    question: &str,
    duration_s: f64,
) -> Result<[Value; 2], Box<dyn Error>> {
    let mut yes = |time: String| {
        session.restart();
        yes_over_no(session, format!("{} {time}?", question.trim_end_matches('?')).into())
    };
    let middle = (needle.start + needle.end) / 2.0;
    let right = ((4.0 * middle / duration_s) as usize).min(3);
    let bound = |quarter: usize| clock(duration_s * quarter as f64 / 4.0);
    let quarters = (0..4)
        .map(|quarter| yes(format!("between {} and {}", bound(quarter), bound(quarter + 1))))
        .collect::<Result<Vec<f32>, _>>()?;
    let others = (0..4).filter(|quarter| *quarter != right);
    let score = others.map(|other| wins(quarters[right], quarters[other])).sum::<f64>() / 3.0;
    let quarter = json!({ "category": "quarter", "score": score, "yes": quarters });

    let far_s = needle.start.min(duration_s - needle.end).max(0.0) / 2.0;
    let (mut order, mut score) = (Vec::new(), 0.0);
    for (moment, is_after) in [(needle.start - far_s, true), (needle.end + far_s, false)] {
        let [before, after] = ["before", "after"].map(|word| yes(format!("{word} {}", clock(moment))));
        let (before, after) = (before?, after?);
        score += if is_after { wins(after, before) } else { wins(before, after) } / 2.0;
        order.push([before, after]);
    }
    Ok([quarter, json!({ "category": "order", "score": score, "yes": order })])
}

/// 1 if `a` is greater than `b`, 0.5 if they are equal, else 0.
fn wins(a: f32, b: f32) -> f64 {
    match a.total_cmp(&b) {
        std::cmp::Ordering::Greater => 1.0,
        std::cmp::Ordering::Equal => 0.5,
        std::cmp::Ordering::Less => 0.0,
    }
}

/// `M:SS`, or `H:MM:SS`.
fn clock(time_s: f64) -> String {
    let s = time_s.max(0.0).round() as u64;
    let (hours, minutes, seconds) = (s / 3600, s / 60 % 60, s % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// Prints the mean scores of lines from [`ask`] by category, number of frames and choice, and the difference between
/// each choice and even frames, needle by needle, with 95 % intervals over videos.
pub fn summary(lines: &[Value]) {
    let text = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    // By category, frames and choice, by video and needle.
    let mut scores = BTreeMap::<(String, u64), BTreeMap<String, BTreeMap<(String, String), f64>>>::new();
    for line in lines {
        let Some(score) = line["score"].as_f64() else { continue };
        let of = scores.entry((text(line, "category"), line["frames"].as_u64().unwrap_or(0))).or_default();
        let key = (text(line, "video"), text(line, "thing"));
        of.entry(text(line, "choice")).or_default().insert(key, 100.0 * score);
    }
    for ((category, frames), choices) in &scores {
        println!("when, by {category}, {frames} frames");
        for (choice, of) in choices {
            print_mean(choice, of.iter().map(|((video, _), score)| (video, *score)));
            if let Some(even) = choices.get("even").filter(|_| choice != "even") {
                let less = of.iter().filter_map(|(key, score)| Some((&key.0, score - even.get(key)?)));
                print_mean(&format!("{choice}, less even"), less);
            }
        }
    }
}

fn print_mean<'a>(what: &str, values: impl Iterator<Item = (&'a String, f64)>) {
    let mean = clustered_mean(values);
    println!("    {what:24} {}", mean.map_or_else(|| "too few videos".to_owned(), |mean| format!("{mean} videos, %")));
}
