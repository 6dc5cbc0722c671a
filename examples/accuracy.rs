//! Exact-match accuracy on a JSONL of questions, for several ways to prune and evict:
//! `cargo run --release --example accuracy -- questions.jsonl [METHOD[+EVICT[:M]]…]`.
//!
//! A row is `{"video": "clip.mp4", "category": "move", "question": "…", "answer": "…"}`, the video's path relative to
//! the file. Methods are those of `--prune`, and what follows the plus those of `--evict` and `--evict-threshold`:
//! `off`, `sharpv+layers`, `sharpv+layers:0.1`.
//! Two scores: every question with a prompt of its own ("alone"), and behind an eviction that the clip's first question
//! led to ("later"; the first questions do not count there).

use sharpv::chat::{EvictMode, EvictParams, Session, SessionParams, VideoOptions};
use sharpv::models;
use sharpv::prune::{Method, PruneParams};
use sharpv::skip::{EncodeMode, EncodeParams};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

#[derive(serde::Deserialize)]
struct Row {
    video: String,
    category: String,
    question: String,
    answer: String,
}

#[derive(Default, Clone, Copy)]
struct Score {
    right: usize,
    asked: usize,
}

impl Score {
    fn add(&mut self, right: bool) {
        self.right += usize::from(right);
        self.asked += 1;
    }
}

impl std::fmt::Display for Score {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let percent = 100.0 * self.right as f64 / self.asked.max(1) as f64;
        write!(f, "{}/{} = {percent:.1} %", self.right, self.asked)
    }
}

/// One way to prune and evict, and how it does.
struct Variant {
    name: String,
    method: Method,
    evict: EvictParams,
    alone: Score,
    later: Score,
    categories: BTreeMap<String, Score>,
    layers_evicted: usize,
    kv_bytes: u64,
}

fn parse(name: String) -> Result<Variant, Box<dyn Error>> {
    let (method, evict) = match name.split_once('+') {
        None => (name.parse()?, EvictParams::off()),
        Some((method, evict)) => {
            let (mode, threshold) = match evict.split_once(':') {
                Some((mode, threshold)) => (mode, Some(threshold.parse()?)),
                None => (evict, None),
            };
            (method.parse()?, EvictParams { mode: Some(mode.parse::<EvictMode>()?), threshold })
        }
    };
    Ok(Variant {
        name,
        method,
        evict,
        alone: Score::default(),
        later: Score::default(),
        categories: BTreeMap::new(),
        layers_evicted: 0,
        kv_bytes: 0,
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let file = args.next().ok_or("accuracy FILE.jsonl [METHOD[+EVICT[:M]]…]")?;
    let mut names: Vec<String> = args.collect();
    if names.is_empty() {
        names = ["off", "sharpv", "sharpv+layers"].map(str::to_owned).into();
    }
    let mut variants: Vec<Variant> = names.into_iter().map(parse).collect::<Result<_, _>>()?;
    let rows: Vec<Row> = std::fs::read_to_string(&file)?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let folder = Path::new(&file).parent().unwrap_or(Path::new("."));

    let mut methods: Vec<Method> = variants.iter().map(|v| v.method).collect();
    methods.dedup();
    for method in methods {
        let prune = PruneParams { method, ..PruneParams::default() };
        // What is compared is pruning and eviction: all of each frame is encoded.
        let encode = EncodeParams::default().in_mode(EncodeMode::Exact);
        let params = SessionParams { prune, encode, n_predict: 32, ..SessionParams::default() };
        let files = models::resolve("smol", None, &[])?;
        let mut session = Session::open(&files, params, &mut ())?;
        let (mut kept, mut total) = (0, 0);
        // A clip is decoded and encoded once for all its questions and all variants.
        for questions in rows.chunk_by(|a, b| a.video == b.video) {
            session.clear();
            let clip = folder.join(&questions[0].video);
            let report = session.add_video(&clip, &VideoOptions::default(), &mut ())?;
            kept += report.visual_tokens.kept;
            total += report.visual_tokens.total;
            for variant in variants.iter_mut().filter(|v| v.method == method) {
                ask_all(&mut session, variant, questions)?;
            }
            eprint!(".");
        }
        eprintln!();
        println!("{method}: {:.1} % of the visual tokens kept", 100.0 * kept as f64 / total as f64);
        for v in variants.iter().filter(|v| v.method == method) {
            let n = v.later.asked.max(1);
            print!("{:20} alone {}  later {}", v.name, v.alone, v.later);
            print!("  layers evicted {:.1}", v.layers_evicted as f64 / n as f64);
            print!("  KV {:.2} MB", v.kv_bytes as f64 / n as f64 / 1e6);
            for (category, score) in &v.categories {
                print!("  {category} {}/{}", score.right, score.asked);
            }
            println!();
        }
    }
    Ok(())
}

fn ask_all(session: &mut Session, variant: &mut Variant, questions: &[Row]) -> sharpv::Result<()> {
    session.set_evict(variant.evict)?;
    for row in questions {
        session.restart();
        session.free_cache();
        let answer = session.ask(&row.question, &mut ())?;
        let right = answer.answer == row.answer;
        variant.alone.add(right);
        variant.categories.entry(row.category.clone()).or_default().add(right);
    }
    // The first question again: its answer leaves an evicted cache, in which the others find the video.
    session.restart();
    session.free_cache();
    for (i, row) in questions.iter().enumerate() {
        session.restart();
        let answer = session.ask(&row.question, &mut ())?;
        if i > 0 {
            variant.later.add(answer.answer == row.answer);
            variant.layers_evicted += answer.kv.layers_evicted;
            variant.kv_bytes += answer.kv.bytes;
        }
    }
    Ok(())
}
