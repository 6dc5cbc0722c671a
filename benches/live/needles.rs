//! Whether things that appeared once are remembered, by each policy with the same number of visual tokens.
//!
//! Each needle is asked about right after its end (*recent*: perception), two minutes later (*early*: recall) and at
//! the end of the clip (*end*), and so is another thing that is not in the clip. No answer is generated: what counts is
//! how much likelier yes is than no. A model may prefer one of the two, and a policy may change that preference.
//! *Which* does not depend on it: whether yes is likelier for the needle than for the other thing, by chance in half of
//! the cases.
//!
//! The policies: `window`, the last 8 frames, however few tokens they have; `last`, as many of the last frames as the
//! number of tokens allows; `memory`, by novelty and age; `recall`, the window plus 64 frames of the whole past, which
//! are searched part by part.

use crate::clips::{Clip, Thing};
use crate::{Result, open, play};
use serde_json::{Value, json};
use sharpv::chat::{LivePolicy, LiveSession, Question};
use sharpv::lab::eval::{clustered_mean, wilson};
use std::collections::BTreeMap;
use std::time::Instant;

/// Seconds after the end of a thing at which it is asked about.
const AFTER_S: [(&str, f64); 2] = [("recent", 1.0), ("early", 120.0)];
const END: &str = "end";

/// Frames for recall.
const RECALL: usize = 64;

const POLICIES: &str = "window,last,memory,recall";
const TOKENS: &str = "400";

/// A policy, its name, and its number of tokens, if it has one.
struct Named {
    name: String,
    tokens: Option<usize>,
    policy: LivePolicy,
    recall: usize,
}

pub fn run(clips: &[Clip], policies: Option<&str>, tokens: Option<&str>) -> Result<()> {
    let tokens: Vec<usize> =
        tokens.unwrap_or(TOKENS).split(',').map(str::parse).collect::<std::result::Result<_, _>>()?;
    let mut all = Vec::new();
    for name in policies.unwrap_or(POLICIES).split(',') {
        if ["window", "recall"].contains(&name) {
            let recall = if name == "recall" { RECALL } else { 0 };
            all.push(Named { name: name.into(), tokens: None, policy: LivePolicy::Window { frames: 8 }, recall });
            continue;
        }
        for &tokens in &tokens {
            let policy = match name {
                // With such a half-life no frame is worth anything, and on a tie the oldest leaves.
                "last" => LivePolicy::Memory { tokens, recent: 4, half_life_s: 1e-6 },
                "memory" => LivePolicy::memory(tokens),
                _ => return Err(format!("{name}: not one of {POLICIES}").into()),
            };
            all.push(Named { name: name.into(), tokens: Some(tokens), policy, recall: 0 });
        }
    }
    let mut lines = Vec::new();
    for clip in clips {
        for policy in &all {
            watch(clip, policy, &mut lines)?;
        }
    }
    summary(&lines);
    Ok(())
}

/// Prints a line for each question, and one for the cost of the clip.
fn watch(clip: &Clip, named: &Named, lines: &mut Vec<Value>) -> Result<()> {
    let mut live = open(named.policy, named.recall, true)?;
    let mut probes: Vec<(f64, &Thing, &str)> =
        clip.things.iter().flat_map(|thing| AFTER_S.map(|(moment, s)| (thing.end + s, thing, moment))).collect();
    probes.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut probes = probes.into_iter().peekable();
    let (mut push_s, mut tokens, mut cells, mut tell) = (0.0, 0, 0, |line: Value| {
        println!("{line}");
        lines.push(line);
    });
    play(&clip.path, |frame| {
        let start = Instant::now();
        live.push(frame, &mut ())?;
        push_s += start.elapsed().as_secs_f64();
        tokens += live.state().tokens;
        cells += live.state().cells_used;
        while let Some((_, thing, moment)) = probes.next_if(|probe| probe.0 <= frame.time_s) {
            ask(&mut live, (clip, thing, moment), named)?.into_iter().for_each(&mut tell);
        }
        Ok(())
    })?;
    for thing in &clip.things {
        ask(&mut live, (clip, thing, END), named)?.into_iter().for_each(&mut tell);
    }
    let frames = live.state().frames.max(1) as f64;
    tell(json!({
        "kind": "needle-cost", "video": clip.name(), "policy": named.name, "budget": named.tokens,
        "push_ms": 1000.0 * push_s / frames, "mean_tokens": tokens as f64 / frames,
        "mean_cells": cells as f64 / frames,
    }));
    Ok(())
}

/// Asks about a thing, and about one that is not in the clip.
fn ask(live: &mut LiveSession, (clip, thing, moment): (&Clip, &Thing, &str), named: &Named) -> Result<[Value; 2]> {
    let shows = |(start, end): (f64, f64)| start < thing.end && end > thing.start;
    let remembered = live.recalled_times().any(shows);
    let mut line = |question: &str, there: bool| -> Result<Value> {
        let start = Instant::now();
        let search = if named.recall == 0 { None } else { live.search(question, &mut ())? };
        let asked = search.as_ref().map_or_else(|| question.into(), |search| search.question(question));
        let found = search.as_ref().and_then(|search| search.part().cloned());
        let yes = yes_over_no(live, asked)?;
        let state = live.state();
        Ok(json!({
            "kind": "needle", "video": clip.name(), "policy": named.name, "budget": named.tokens,
            "needle": thing.name, "question": question, "moment": moment, "there": there,
            "yes": yes, "right": (yes > 0.0) == there, "time_s": state.now_s, "held": state.held,
            "tokens": state.tokens, "oldest_s": state.oldest_s, "rebases": state.rebases,
            "remembered": remembered, "found": found.map(|part| shows((part.start_s, part.end_s))),
            "took_s": start.elapsed().as_secs_f64(), "recalled_bytes": state.recalled_bytes,
        }))
    };
    Ok([line(&thing.question, true)?, line(&thing.absent, false)?])
}

/// How much likelier yes is than no, as the difference of their logits.
fn yes_over_no(live: &mut LiveSession, question: Question<'_>) -> Result<f32> {
    let logits = live.first_logits(question, &mut ())?;
    let logit = |word: &str| -> Result<f32> {
        let tokens = live.model().tokenize(word, false, false)?;
        let token = tokens.first().copied().ok_or("a word without tokens")?;
        Ok(logits.get(usize::try_from(token)?).copied().ok_or("a token without a logit")?)
    };
    Ok(logit("Yes")? - logit("No")?)
}

/// The result for a needle: how much likelier yes is than no for it and for the other thing, and whether both answers
/// are correct.
#[derive(Default, Clone, Copy)]
struct Asked {
    there: f64,
    absent: f64,
    right: [bool; 2],
}

impl Asked {
    /// 1 if yes is likelier for the needle, 0 if for the other thing.
    fn which(&self) -> f64 {
        match self.there.total_cmp(&self.absent) {
            std::cmp::Ordering::Greater => 1.0,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Less => 0.0,
        }
    }
}

/// Prints a summary of `lines` to stderr.
pub fn summary(lines: &[Value]) {
    let text = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let named = |line: &Value| match line["budget"].as_u64() {
        Some(tokens) => format!("{} {tokens}", text(line, "policy")),
        None => text(line, "policy"),
    };
    // By policy and moment, by video and needle.
    let mut asked = BTreeMap::<(String, String), BTreeMap<(String, String), Asked>>::new();
    for line in lines.iter().filter(|line| line["kind"] == "needle") {
        let of = asked.entry((named(line), text(line, "moment"))).or_default();
        let one = of.entry((text(line, "video"), text(line, "needle"))).or_default();
        let yes = line["yes"].as_f64().unwrap_or(0.0);
        match line["there"] == true {
            true => (one.there, one.right[0]) = (yes, line["right"] == true),
            false => (one.absent, one.right[1]) = (yes, line["right"] == true),
        }
    }
    for ((policy, moment), of) in &asked {
        eprintln!("{policy}, {moment}");
        for (i, what) in ["there", "absent"].into_iter().enumerate() {
            let right = of.values().filter(|asked| asked.right[i]).count();
            let [low, high] = wilson(right, of.len()).map(|bound| 100.0 * bound);
            eprintln!("  right, {what:7} {right} of {} ({low:.1} to {high:.1} %)", of.len());
        }
        let which = of.iter().map(|((video, _), asked)| (video, 100.0 * asked.which()));
        told("which", clustered_mean(which));
        let lines = lines.iter().filter(|line| named(line) == *policy && text(line, "moment") == *moment);
        let there = lines.filter(|line| line["there"] == true && line["remembered"] == true);
        let (remembered, found) =
            there.fold((0, 0), |(n, found), line| (n + 1, found + i32::from(line["found"] == true)));
        if remembered > 0 {
            eprintln!("  remembered {remembered}, found {found}");
        }
        // Compared with each of the other policies, needle by needle.
        let before = asked.range(..(policy.clone(), String::new()));
        for ((other, _), others) in before.filter(|((_, at), _)| at == moment) {
            let pairs = of.iter().filter_map(|(key, asked)| Some((&key.0, asked, others.get(key)?)));
            let both = |asked: &Asked| 50.0 * f64::from(u8::from(asked.right[0]) + u8::from(asked.right[1]));
            let which = pairs.clone().map(|(video, a, b)| (video, 100.0 * (a.which() - b.which())));
            told(&format!("which, less {other}"), clustered_mean(which));
            told(
                &format!("right, less {other}"),
                clustered_mean(pairs.map(|(video, a, b)| (video, both(a) - both(b)))),
            );
        }
    }
    let mut costs = BTreeMap::<String, Vec<[f64; 3]>>::new();
    for line in lines.iter().filter(|line| line["kind"] == "needle-cost") {
        let cost = ["mean_tokens", "mean_cells", "push_ms"].map(|key| line[key].as_f64().unwrap_or(0.0));
        costs.entry(named(line)).or_default().push(cost);
    }
    for (policy, costs) in costs {
        let mean = |i: usize| costs.iter().map(|cost| cost[i]).sum::<f64>() / costs.len() as f64;
        eprintln!("{policy}: {:.0} tokens held, {:.0} cells, {:.1} ms a push", mean(0), mean(1), mean(2));
    }
}

fn told(what: &str, mean: Option<sharpv::lab::eval::Mean>) {
    let mean = mean.map_or_else(|| "too few clips".to_owned(), |mean| format!("{mean} clips, points"));
    eprintln!("  {what:32} {mean}");
}
