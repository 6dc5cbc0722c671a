//! Whether `--when` reports that things appear, how often it is wrong, and how many questions that takes.
//!
//! As in `sharpv watch --when`, with the last 8 frames: once asking at each change, and once when a change is over
//! (`--when-at`). The conditions are each needle of a clip, and two things that are not in it. A hit is an event from
//! the first moment of the needle until 10 seconds after its last; every other event is a false alarm. Both ways use
//! the same session, since a question does not change it.

use crate::clips::{Clip, Thing};
use crate::{Result, open, play};
use serde_json::{Value, json};
use sharpv::chat::{AskAt, Condition, LivePolicy, LiveSession, Trigger};
use sharpv::lab::eval::{clustered_mean, wilson};
use std::collections::BTreeMap;

/// Seconds after the end of a thing within which an event is a hit.
const LATE_S: f64 = 10.0;

/// Conditions for each clip that are never met.
const ABSENT: usize = 2;

/// The defaults of the program.
const CHANGE: f32 = 0.1;
const PATIENCE_S: f64 = 10.0;

const WAYS: [(&str, AskAt); 2] = [("change", AskAt::EachChange), ("end", AskAt::ChangeEnds { patience_s: PATIENCE_S })];

/// A way to choose when to ask.
struct Way {
    name: &'static str,
    trigger: Trigger,
    /// For each condition, the times at which it was reported.
    waited: Vec<(Condition, Vec<f64>)>,
    asked: usize,
}

pub fn run(clips: &[Clip]) -> Result<()> {
    let mut lines = Vec::new();
    for clip in clips {
        watch(clip, &mut lines)?;
    }
    summary(&lines);
    Ok(())
}

/// Prints a line for each way and each condition.
fn watch(clip: &Clip, lines: &mut Vec<Value>) -> Result<()> {
    let mut live = open(LivePolicy::default(), 0, true)?;
    let there = clip.things.iter().map(|thing| (thing.question.as_str(), Some(thing)));
    let absent = clip.things.iter().take(ABSENT).map(|thing| (thing.absent.as_str(), None));
    let questions: Vec<(&str, Option<&Thing>)> = there.chain(absent).collect();
    let mut ways = WAYS.map(|(name, at)| Way {
        name,
        trigger: Trigger::new(at, CHANGE),
        waited: questions.iter().map(|(question, _)| (Condition::new(question), Vec::new())).collect(),
        asked: 0,
    });
    let mut last_s = 0.0;
    let seconds = play(&clip.path, |frame| {
        last_s = frame.time_s;
        let Some(pushed) = live.push(frame, &mut ())? else { return Ok(()) };
        let asks = ways.each_mut().map(|way| way.trigger.push(&pushed));
        look(&mut live, &mut ways, asks, frame.time_s)
    })?;
    let asks = ways.each_mut().map(|way| way.trigger.end());
    look(&mut live, &mut ways, asks, last_s)?;
    for way in &ways {
        for ((condition, told), (_, thing)) in way.waited.iter().zip(&questions) {
            let is_hit = |time: &&f64| thing.is_some_and(|thing| (thing.start..=thing.end + LATE_S).contains(*time));
            let hit = told.iter().find(is_hit);
            let line = json!({
                "kind": "when", "video": clip.name(), "at": way.name, "question": condition.question(),
                "there": thing.is_some(), "start": thing.map(|thing| thing.start), "end": thing.map(|thing| thing.end),
                "hit": thing.map(|_| hit.is_some()),
                "delay_s": hit.zip(*thing).map(|(time, thing)| time - thing.start), "told_s": told,
                "false_alarms": told.iter().filter(|time| !is_hit(time)).count(),
                "asked": way.asked, "hours": seconds / 3600.0,
            });
            println!("{line}");
            lines.push(line);
        }
    }
    Ok(())
}

/// Asks once for all ways that ask now.
fn look(live: &mut LiveSession, ways: &mut [Way; 2], asks: [bool; 2], time_s: f64) -> Result<()> {
    if asks == [false; 2] || live.state().held == 0 {
        return Ok(());
    }
    let questions: Vec<String> = ways[0].waited.iter().map(|(condition, _)| condition.question().to_owned()).collect();
    let answers: Vec<bool> = questions.iter().map(|text| live.is_so(text, &mut ())).collect::<sharpv::Result<_>>()?;
    for (way, _) in ways.iter_mut().zip(asks).filter(|(_, asks)| *asks) {
        way.asked += 1;
        for ((condition, told), &is_so) in way.waited.iter_mut().zip(&answers) {
            if condition.now(is_so) {
                told.push(time_s);
            }
        }
    }
    Ok(())
}

/// The result for a condition.
#[derive(Clone, Copy)]
struct Waited {
    hit: Option<bool>,
    delay_s: Option<f64>,
    /// Per hour.
    alarms: f64,
    asked: f64,
}

/// Prints a summary of `lines` to stderr.
pub fn summary(lines: &[Value]) {
    let text = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    // By way, by video and question.
    let mut waited = BTreeMap::<String, BTreeMap<(String, String), Waited>>::new();
    for line in lines.iter().filter(|line| line["kind"] == "when") {
        let an_hour = |key: &str| line[key].as_f64().unwrap_or(0.0) / line["hours"].as_f64().unwrap_or(1.0);
        let one = Waited {
            hit: line["hit"].as_bool(),
            delay_s: line["delay_s"].as_f64(),
            alarms: an_hour("false_alarms"),
            asked: an_hour("asked"),
        };
        waited.entry(text(line, "at")).or_default().insert((text(line, "video"), text(line, "question")), one);
    }
    for (way, of) in &waited {
        let hits: Vec<bool> = of.values().filter_map(|one| one.hit).collect();
        let n = hits.iter().filter(|hit| **hit).count();
        let [low, high] = wilson(n, hits.len()).map(|bound| 100.0 * bound);
        let delays: Vec<f64> = of.values().filter_map(|one| one.delay_s).collect();
        eprintln!("asked at {way}: {n} of {} hits ({low:.1} to {high:.1} %)", hits.len());
        eprintln!("  {:.1} s after the beginning, on average", delays.iter().sum::<f64>() / delays.len().max(1) as f64);
        let there = |is: bool| of.iter().filter(move |(_, one)| one.hit.is_some() == is);
        told(
            "false alarms an hour, of what is there once",
            clustered_mean(there(true).map(|(k, one)| (&k.0, one.alarms))),
        );
        told("false alarms an hour, of what is not", clustered_mean(there(false).map(|(k, one)| (&k.0, one.alarms))));
        told("times asked an hour", clustered_mean(of.iter().map(|(k, one)| (&k.0, one.asked))));
    }
    let [Some(change), Some(end)] = ["change", "end"].map(|way| waited.get(way)) else { return };
    eprintln!("end less change");
    let pairs = || end.iter().filter_map(|(key, one)| Some((&key.0, one, change.get(key)?)));
    let hit = |one: &Waited| one.hit.map(|hit| if hit { 100.0 } else { 0.0 });
    told("hits, points", clustered_mean(pairs().filter_map(|(k, a, b)| Some((k, hit(a)? - hit(b)?)))));
    told("false alarms an hour", clustered_mean(pairs().map(|(k, a, b)| (k, a.alarms - b.alarms))));
    told("times asked an hour", clustered_mean(pairs().map(|(k, a, b)| (k, a.asked - b.asked))));
}

fn told(what: &str, mean: Option<sharpv::lab::eval::Mean>) {
    let mean = mean.map_or_else(|| "too few clips".to_owned(), |mean| format!("{mean} clips"));
    eprintln!("  {what:44} {mean}");
}
