//! Exact-match accuracy on questions in JSONL, for several ways to prune and evict:
//! `cargo run --release --example accuracy -- questions.jsonl [METHOD[/K/V][+EVICT[:M|@PROFILE]]…]`.
//!
//! A row is `{"video": "clip.mp4", "category": "move", "question": "…", "answer": "…"}`, with the path of the video
//! relative to the file.
//!
//! METHOD is a value of `--prune`. After the plus come values of `--evict` and `--evict-threshold`: `off`,
//! `sharpv+layers`, `sharpv+layers:0.1`. `sharpv+layers@PROFILE.json` uses a profile of `sharpv calibrate`, and
//! `sharpv+layers@PROFILE.json@N` its first N layers; `layers-early` evicts during prefill. `sharpv/q8_0/q4_0` stores
//! keys and values in these types; list variants with the same types next to each other.
//!
//! Environment variables: `UBATCH` is the number of rows computed at once (512), `LATER` skips the score "alone", and
//! `FAST` uses the copies of the weights that this processor computes faster, if they exist.
//!
//! There are two scores: with a prompt for each question ("alone"), and after the eviction that the clip's first
//! question caused ("later", without the first questions). Each variant is compared with the first one, question by
//! question: the difference in points, with a 95 % interval.

use sharpv::chat::{EvictMode, EvictParams, LayerProfile, Session, SessionParams, VideoOptions};
use sharpv::models;
use sharpv::prune::{Method, PruneParams};
use sharpv::runtime::{KvType, ModelParams, VisionParams};
use sharpv::skip::{EncodeMode, EncodeParams};
use sharpv::weights::{self, Copies};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

#[derive(serde::Deserialize)]
struct Row {
    video: String,
    category: String,
    question: String,
    answer: String,
}

/// Whether each answer was right.
#[derive(Default, Clone)]
struct Score(Vec<bool>);

impl Score {
    fn right(&self) -> usize {
        self.0.iter().filter(|&&right| right).count()
    }

    /// The difference to `other` in points, and its 95 % interval.
    fn minus(&self, other: &Self) -> String {
        let differences: Vec<f64> = self
            .0
            .iter()
            .zip(&other.0)
            .map(|(&a, &b)| 100.0 * (f64::from(u8::from(a)) - f64::from(u8::from(b))))
            .collect();
        let n = differences.len().max(1) as f64;
        let mean = differences.iter().sum::<f64>() / n;
        let variance = differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / n;
        let half = 1.96 * (variance / n).sqrt();
        format!("{mean:+.1} ({:+.1} to {:+.1})", mean - half, mean + half)
    }
}

impl std::fmt::Display for Score {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (right, asked) = (self.right(), self.0.len());
        write!(f, "{right}/{asked} = {:.1} %", 100.0 * right as f64 / asked.max(1) as f64)
    }
}

/// A way to prune and evict, and its results.
struct Variant {
    name: String,
    method: Method,
    /// The types of keys and values in the KV cache.
    cache: [KvType; 2],
    evict: EvictParams,
    profile: Option<Arc<LayerProfile>>,
    alone: Score,
    later: Score,
    categories: BTreeMap<String, Score>,
    layers_evicted: usize,
    kv_bytes: u64,
}

fn parse(name: String) -> Result<Variant, Box<dyn Error>> {
    let (short, profile) = match name.split_once('@') {
        Some((short, rest)) => {
            let (file, free) = rest.split_once('@').map_or((rest, None), |(file, free)| (file, Some(free)));
            let mut profile = LayerProfile::read(Path::new(file))?;
            profile.free = free.map_or(Ok(profile.free), str::parse)?;
            (short, Some(Arc::new(profile)))
        }
        None => (name.as_str(), None),
    };
    let (method, evict) = match short.split_once('+') {
        None => (short, EvictParams::off()),
        Some((method, evict)) => {
            let early = evict.contains("early");
            let evict = evict.strip_suffix("-early").unwrap_or(evict);
            let (mode, threshold) = match evict.split_once(':') {
                Some((mode, threshold)) => (mode, Some(threshold.parse()?)),
                None => (evict, None),
            };
            (method, EvictParams { mode: Some(mode.parse::<EvictMode>()?), threshold, early })
        }
    };
    let mut parts = method.split('/');
    let method = parts.next().unwrap_or_default().parse()?;
    let mut cache = [KvType::F16; 2];
    for (kind, name) in cache.iter_mut().zip(parts) {
        *kind = name.parse()?;
    }
    Ok(Variant {
        name,
        method,
        cache,
        evict,
        profile,
        alone: Score::default(),
        later: Score::default(),
        categories: BTreeMap::new(),
        layers_evicted: 0,
        kv_bytes: 0,
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let file = args.next().ok_or("accuracy FILE.jsonl [METHOD[+EVICT[:M|@PROFILE]]…]")?;
    let mut names: Vec<String> = args.collect();
    if names.is_empty() {
        names = ["off", "sharpv", "sharpv+layers"].map(str::to_owned).into();
    }
    let mut variants: Vec<Variant> = names.into_iter().map(parse).collect::<Result<_, _>>()?;
    let rows: Vec<Row> = std::fs::read_to_string(&file)?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let folder = Path::new(&file).parent().unwrap_or(Path::new("."));

    let mut sessions: Vec<(Method, [KvType; 2])> = variants.iter().map(|v| (v.method, v.cache)).collect();
    sessions.dedup();
    for (method, cache) in sessions {
        let belongs = |v: &Variant| (v.method, v.cache) == (method, cache);
        let prune = PruneParams { method, ..PruneParams::default() };
        // Frames are encoded completely, as only pruning and eviction are compared.
        let encode = EncodeParams::default().in_mode(EncodeMode::Exact);
        let mut params = SessionParams { prune, encode, n_predict: 32, ..SessionParams::default() };
        [params.compute.type_k, params.compute.type_v] = cache;
        if let Ok(n_ubatch) = std::env::var("UBATCH") {
            params.compute.n_ubatch = n_ubatch.parse()?;
        }
        let mut files = models::resolve("smol", None, &[])?;
        if std::env::var_os("FAST").is_some() {
            let store = models::Store::from_env()?;
            let copies = Copies::new(&store).of(&files, &ModelParams::default(), &VisionParams::default())?;
            files = weights::in_place(files, &copies);
        }
        let mut session = Session::open(&files, params, &mut ())?;
        let (mut kept, mut total) = (0, 0);
        // Each clip is decoded and encoded once for all questions and variants.
        for questions in rows.chunk_by(|a, b| a.video == b.video) {
            session.clear();
            let clip = folder.join(&questions[0].video);
            let report = session.add_video(&clip, &VideoOptions::default(), &mut ())?;
            kept += report.visual_tokens.kept;
            total += report.visual_tokens.total;
            for variant in variants.iter_mut().filter(|v| belongs(v)) {
                ask_all(&mut session, variant, questions)?;
            }
            eprint!(".");
        }
        eprintln!();
        println!("{method}: {:.1} % of the visual tokens kept", 100.0 * kept as f64 / total as f64);
        for v in variants.iter().filter(|v| belongs(v)) {
            let n = v.later.0.len().max(1);
            print!("{:20} alone {}  later {}", v.name, v.alone, v.later);
            print!("  layers evicted {:.1}", v.layers_evicted as f64 / n as f64);
            print!("  KV {:.2} MB", v.kv_bytes as f64 / n as f64 / 1e6);
            for (category, score) in &v.categories {
                print!("  {category} {}/{}", score.right(), score.0.len());
            }
            let first = &variants[0];
            println!("\n{:20} alone {}  later {}", "", v.alone.minus(&first.alone), v.later.minus(&first.later));
        }
    }
    Ok(())
}

fn ask_all(session: &mut Session, variant: &mut Variant, questions: &[Row]) -> sharpv::Result<()> {
    session.set_evict(variant.evict)?;
    session.set_layer_profile(variant.profile.clone())?;
    let alone = if std::env::var_os("LATER").is_some() { &[] } else { questions };
    for row in alone {
        session.restart();
        session.free_cache();
        let answer = session.ask(&row.question, &mut ())?;
        let right = answer.answer == row.answer;
        variant.alone.0.push(right);
        variant.categories.entry(row.category.clone()).or_default().0.push(right);
    }
    // The first question again: it evicts from the cache, which the other questions reuse.
    session.restart();
    session.free_cache();
    for (i, row) in questions.iter().enumerate() {
        session.restart();
        let answer = session.ask(&row.question, &mut ())?;
        if i > 0 {
            variant.later.0.push(answer.answer == row.answer);
            variant.layers_evicted += answer.kv.layers_evicted;
            variant.kv_bytes += answer.kv.bytes;
        }
    }
    Ok(())
}
