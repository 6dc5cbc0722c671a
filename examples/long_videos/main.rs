//! Measures how well the frames of long videos are chosen:
//! `cargo run --release --example long_videos -- FRAMES,… FOLDER… [--only CHOICE,…] [--recall | --when]
//! [--search] [--shard I/N]`.
//!
//! FOLDER comes from `make_clips FOLDER --long MINUTES`: clips in which things, the needles, are visible once for some
//! seconds. For each folder and each number of frames, frames are chosen in these ways:
//!
//! - `even`: at equal distances.
//! - `changes`: where the image changes ([`FrameChoice::Changes`]).
//! - `told`: the middle of each needle, and the others at equal distances. Errors here are the model's fault.
//! - `cut`: 8 frames of 8 seconds with the needle, whatever the number of frames. Errors here are the model's fault,
//!   too.
//!
//! The results of each way are the needles in a chosen frame, the questions that were answered correctly, by kind, and
//! the time per clip (finding, decoding and encoding frames). The kinds:
//!
//! - `needle` and `absent`: whether a present, or absent, thing is in the video. The answer is yes if that is likelier.
//! - `which`: the share of absent things for which yes is less likely than for a needle. Chance is half, whatever
//!   answer the model prefers.
//! - `last`: which needle is the last, in the model's words.
//!
//! Each way is compared with `even`, needle by needle: the mean difference of `which` in points, with its 95 %
//! interval.
//!
//! With `--recall`, nothing is asked. With `--when`, the only question is when each needle is visible ([`when`]). With
//! `--search`, [`Session::search`] runs before each question. `--shard I/N` takes every Nth video of each folder,
//! starting with the Ith (I from 1), so that N processes can share the work: let each write its answers to a file, and
//! `long_videos --summary FILE…` prints the summary of `--when` for all.
//!
//! Environment variables: `THREADS` is the number of threads, `PRUNE` a value of `--prune`, `ANSWERS` a file to which a
//! line of JSON is added per answer, and `MODEL` and `MMPROJ` are the files of another model than `smol`. The chosen
//! frames do not depend on the model, so `--recall` is quick with a small one.

mod when;

use serde_json::Value;
use sharpv::chat::{EvictParams, FrameChoice, Question, Session, SessionParams, VideoOptions};
use sharpv::lab::eval::wilson;
use sharpv::models;
use sharpv::video::{FrameSource, Frames, Sampling, probe};
use std::error::Error;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

const USAGE: &str = "long_videos FRAMES,… FOLDER… [--only CHOICE,…] [--recall | --when] [--search] [--shard I/N]";

/// The number of frames in a cut.
const CUT_FRAMES: usize = 8;

#[derive(Clone, serde::Deserialize)]
struct Row {
    video: String,
    category: String,
    question: String,
    answer: String,
    start: Option<f64>,
    end: Option<f64>,
}

#[derive(Clone, serde::Deserialize)]
struct Needle {
    video: String,
    thing: String,
    start: f64,
    end: f64,
}

impl Needle {
    fn is_in(&self, times: &[f64]) -> bool {
        // A player shows the needle at its first moment and not at its last.
        times.iter().any(|time| (self.start..self.end).contains(time))
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Choice {
    Even,
    Changes,
    Told,
    Cut,
}

impl Choice {
    const ALL: [(Self, &str); 4] =
        [(Self::Even, "even"), (Self::Changes, "changes"), (Self::Told, "told"), (Self::Cut, "cut")];

    fn named(name: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(_, known)| *known == name);
        found.map(|(choice, _)| *choice).ok_or_else(|| format!("{name}: not even, changes, told or cut; {USAGE}"))
    }

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(choice, _)| *choice == self).map_or("", |(_, name)| name)
    }
}

/// The results of a choice.
#[derive(Default)]
struct Score {
    /// The number of needles, and of those in a frame.
    needles: usize,
    found: usize,
    /// For each question its category, and whether the answer was right.
    asked: Vec<(String, bool)>,
    /// For each needle: the share of absent things for which yes is less likely, and whether it is in a frame.
    which: Vec<(f64, bool)>,
    /// Lines from [`when`].
    when: Vec<Value>,
    /// The number of videos or cuts.
    clips: usize,
    frames: usize,
    find_s: f64,
    encode_s: f64,
}

fn share(right: usize, n: usize) -> String {
    let [low, high] = wilson(right, n).map(|bound| 100.0 * bound);
    format!("{right} of {n} = {:.1} % ({low:.1} to {high:.1})", 100.0 * right as f64 / n.max(1) as f64)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "--summary") {
        let lines: Vec<Vec<Value>> = args[1..].iter().map(|file| read(Path::new(file))).collect::<Result<_, _>>()?;
        when::summary(&lines.concat());
        return Ok(());
    }
    let asks = match ["--recall", "--when"].map(|flag| args.iter().any(|arg| arg == flag)) {
        [true, true] => return Err(USAGE.into()),
        [true, false] => Asks::Nothing,
        [false, true] => Asks::When,
        [false, false] => Asks::Things,
    };
    let search = args.iter().any(|arg| arg == "--search");
    args.retain(|arg| !["--recall", "--when", "--search"].contains(&arg.as_str()));
    let mut option = |name: &str| match args.iter().position(|arg| arg == name) {
        Some(i) => args.drain(i..(i + 2).min(args.len())).nth(1).ok_or(USAGE).map(Some),
        None => Ok(None),
    };
    let mut choices = Choice::ALL.map(|(choice, _)| choice).to_vec();
    if let Some(only) = option("--only")? {
        choices = only.split(',').map(Choice::named).collect::<Result<_, _>>()?;
    } else if asks == Asks::When {
        // Times are relative to the cut.
        choices.retain(|&choice| choice != Choice::Cut);
    }
    let shard = match option("--shard")? {
        None => (1, 1),
        Some(text) => shard(&text).ok_or(USAGE)?,
    };
    let what = What { asks, search, shard };
    let (counts, folders) = args.split_first().ok_or(USAGE)?;
    let counts: Vec<usize> = counts.split(',').map(str::parse).collect::<Result<_, _>>()?;
    let evict = EvictParams::off();
    let mut params = SessionParams { n_predict: 32, evict, keep_unpruned: search, ..SessionParams::default() };
    params.compute.n_threads = std::env::var("THREADS").ok().map(|n| n.parse()).transpose()?;
    params.vision.n_threads = params.compute.n_threads;
    if let Ok(method) = std::env::var("PRUNE") {
        params.prune.method = method.parse()?;
    }
    let model = std::env::var("MODEL").unwrap_or_else(|_| "smol".into());
    let files = models::resolve(&model, std::env::var_os("MMPROJ").as_deref().map(Path::new), &[])?;
    let mut session = Session::open(&files, params, &mut ())?;
    let mut lines = Vec::new();
    for folder in folders {
        for (i, &n) in counts.iter().enumerate() {
            println!("{folder}, {n} frames");
            let mut even: Option<Score> = None;
            // Cuts do not depend on the number of frames.
            for &choice in choices.iter().filter(|&&choice| choice != Choice::Cut || i == 0) {
                let score = run(&mut session, Path::new(folder), choice, n, what)?;
                print(choice, &score, even.as_ref());
                lines.extend_from_slice(&score.when);
                if choice == Choice::Even {
                    even = Some(score);
                }
            }
        }
    }
    if asks == Asks::When {
        when::summary(&lines);
    }
    Ok(())
}

/// What is asked.
#[derive(Clone, Copy, PartialEq)]
enum Asks {
    Nothing,
    /// What is there.
    Things,
    /// When it is there.
    When,
}

#[derive(Clone, Copy)]
struct What {
    asks: Asks,
    /// Whether the video is searched for the part that holds the answer.
    search: bool,
    /// The shard of the videos, and how many there are.
    shard: (usize, usize),
}

/// Parses `I/N`.
fn shard(text: &str) -> Option<(usize, usize)> {
    let (i, n) = text.split_once('/')?;
    let shard = (i.parse().ok()?, n.parse().ok()?);
    (1..=shard.1).contains(&shard.0).then_some(shard)
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Vec<T>, Box<dyn Error>> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

fn run(session: &mut Session, folder: &Path, choice: Choice, n: usize, what: What) -> Result<Score, Box<dyn Error>> {
    let needles: Vec<Needle> = read(&folder.join("needles.jsonl"))?;
    let file = if choice == Choice::Cut { "cuts.jsonl" } else { "questions.jsonl" };
    let rows: Vec<Row> = read(&folder.join(file))?;
    let mut score = Score::default();
    let mut videos: Vec<&str> = rows.iter().map(|row| row.video.as_str()).collect();
    videos.dedup();
    let (i, of) = what.shard;
    let mine: Vec<&str> = videos.into_iter().skip(i - 1).step_by(of).collect();
    // The questions about one video, or one cut.
    for rows in rows.chunk_by(|a, b| (&a.video, a.start, a.end) == (&b.video, b.start, b.end)) {
        let Row { video, start, end, .. } = &rows[0];
        if !mine.contains(&video.as_str()) {
            continue;
        }
        let here: Vec<&Needle> = needles.iter().filter(|needle| needle.video == *video).collect();
        let begin = Instant::now();
        session.clear();
        let path = folder.join(video);
        let frames = if choice == Choice::Cut { CUT_FRAMES } else { n };
        let mut options = VideoOptions {
            max_frames: Some(frames),
            start_s: *start,
            end_s: *end,
            choice: FrameChoice::Even,
            ..VideoOptions::default()
        };
        if choice == Choice::Changes {
            options.choice = FrameChoice::Changes;
        }
        let told = (choice == Choice::Told).then(|| told(&path, &here, n)).transpose()?;
        let report = match &told {
            Some((frames, _)) => session.add_video((video, frames), &options, &mut ())?,
            None => session.add_video(&path, &options, &mut ())?,
        };
        let encode_s = (report.timings_ms.encode + report.timings_ms.prune) / 1000.0;
        score.find_s += begin.elapsed().as_secs_f64() - encode_s;
        score.encode_s += encode_s;
        score.clips += 1;
        score.frames += report.frames();
        // Times of frames in memory start at the first.
        let times: Vec<f64> = told.map_or_else(|| report.slices.iter().map(|s| s.time_s).collect(), |(_, times)| times);
        if choice != Choice::Cut {
            score.needles += here.len();
            score.found += here.iter().filter(|needle| needle.is_in(&times)).count();
        }
        if what.asks == Asks::When {
            let duration_s = probe(&path)?.duration_s.ok_or("a video without a length")?;
            for needle in &here {
                let is_it =
                    |row: &&Row| row.category == "needle" && row.question.contains(&format!(" {} in", needle.thing));
                let Some(row) = rows.iter().find(is_it) else { continue };
                for mut line in when::ask(session, needle, &row.question, duration_s)? {
                    line["video"] = video.as_str().into();
                    line["choice"] = choice.name().into();
                    line["frames"] = frames.into();
                    line["thing"] = needle.thing.as_str().into();
                    line["found"] = needle.is_in(&times).into();
                    log(&line)?;
                    score.when.push(line);
                }
            }
        }
        // How much likelier yes is than no: for needles, with whether they are in a frame, and for absent things.
        let (mut there, mut absent) = (Vec::new(), Vec::new());
        for Row { category, question, answer, .. } in rows.iter().filter(|_| what.asks == Asks::Things) {
            session.restart();
            let needle = match category.as_str() {
                "needle" => here.iter().find(|needle| question.contains(&format!(" {} in", needle.thing))),
                "last" => here.last(),
                _ => None,
            };
            let found = needle.map(|needle| needle.is_in(&times));
            let mut part = None;
            let (given, right) = if category == "last" {
                let given = session.ask(question, &mut ())?.answer;
                (given.clone(), given == *answer)
            } else {
                let searched = if what.search { session.search(question, &mut ())? } else { None };
                let asked = searched.as_ref().map_or_else(|| question.into(), |search| search.question(question));
                part = searched.map(|search| {
                    let most = search.parts.iter().map(|part| part.surprise).fold(0.0, f64::max);
                    (search.part().map(|part| [part.start_s, part.end_s]), most)
                });
                let yes = yes_over_no(session, asked)?;
                match found {
                    Some(found) => there.push((yes, found)),
                    None => absent.push(yes),
                }
                (format!("{yes:+.2}"), (yes > 0.0) == (answer == "Yes."))
            };
            log(&serde_json::json!({
                "video": video, "choice": choice.name(), "frames": frames, "category": category,
                "question": question, "given": given, "right": right, "found": found, "part": part,
            }))?;
            score.asked.push((category.clone(), right));
        }
        for (yes, found) in there {
            let less = absent.iter().filter(|other| yes > **other).count() as f64;
            score.which.push((less / absent.len().max(1) as f64, found));
        }
    }
    Ok(score)
}

/// How much likelier yes is than no: the difference of their logits.
fn yes_over_no(session: &mut Session, question: Question<'_>) -> Result<f32, Box<dyn Error>> {
    let logits = session.first_logits(question, &mut ())?;
    let logit = |word: &str| -> Result<f32, Box<dyn Error>> {
        let token = session.model().tokenize(word, false, false)?.first().copied().ok_or("a word without tokens")?;
        Ok(logits.get(usize::try_from(token)?).copied().ok_or("a token without a logit")?)
    };
    Ok(logit("Yes")? - logit("No")?)
}

/// Adds a line to the file in `ANSWERS`, if there is one.
fn log(line: &Value) -> std::io::Result<()> {
    let Some(file) = std::env::var_os("ANSWERS") else { return Ok(()) };
    writeln!(std::fs::OpenOptions::new().create(true).append(true).open(file)?, "{line}")
}

/// `n` frames, including the middle of each needle, and their times in seconds.
fn told(path: &Path, needles: &[&Needle], n: usize) -> Result<(Frames, Vec<f64>), Box<dyn Error>> {
    let spread = n.saturating_sub(needles.len());
    let mut times = match spread {
        0 => Vec::new(),
        _ => FrameSource::open(path, &Sampling::uniform(spread))?.planned_times().to_vec(),
    };
    times.extend(needles.iter().take(n).map(|needle| (needle.start + needle.end) / 2.0));
    times.sort_by(f64::total_cmp);
    times.dedup();
    let mut frames: Option<Frames> = None;
    for &time in &times {
        let one = Sampling { start_s: Some(time), end_s: Some(time + 0.01), ..Sampling::uniform(1) };
        let frame = FrameSource::open(path, &one)?.next().ok_or("no frame")??;
        frames.get_or_insert_with(|| Frames::new(frame.width, frame.height)).push(frame.rgb, time)?;
    }
    Ok((frames.ok_or("no frames")?, times))
}

fn print(choice: Choice, score: &Score, even: Option<&Score>) {
    let line = |what: &str, value: String| println!("    {what:24} {value}");
    let per_clip = |sum: f64| sum / score.clips.max(1) as f64;
    println!("  {}, {:.1} frames a clip", choice.name(), per_clip(score.frames as f64));
    if score.needles > 0 {
        line("needles with a frame", share(score.found, score.needles));
    }
    for category in ["needle", "absent", "last"] {
        let of = score.asked.iter().filter(|(its, _)| its == category);
        if of.clone().count() > 0 {
            line(&format!("right, {category}"), share(of.clone().filter(|(_, right)| *right).count(), of.count()));
        }
    }
    if !score.which.is_empty() {
        line("which", mean(score.which.iter().map(|(share, _)| *share)));
        line("which, with a frame", mean(score.which.iter().filter(|(_, found)| *found).map(|(share, _)| *share)));
    }
    line("s to find and decode", format!("{:.2}", per_clip(score.find_s)));
    line("s to encode", format!("{:.2}", per_clip(score.encode_s)));
    if let Some(even) = even.filter(|_| !score.which.is_empty()) {
        line("which, less even", mean(score.which.iter().zip(&even.which).map(|(a, b)| a.0 - b.0)));
    }
}

/// The mean of shares in percent, with its 95 % interval.
fn mean(shares: impl Iterator<Item = f64>) -> String {
    let shares: Vec<f64> = shares.map(|share| 100.0 * share).collect();
    if shares.len() < 2 {
        return format!("{} of them are too few", shares.len());
    }
    let n = shares.len() as f64;
    let mean = shares.iter().sum::<f64>() / n;
    let variance = shares.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let half = 1.96 * (variance / n).sqrt();
    format!("{mean:.1} % of {n} ({:.1} to {:.1})", mean - half, mean + half)
}
