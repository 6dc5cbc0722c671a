//! What evicting visual tokens from half of the layers saves, in bytes of the KV cache and in decode time, with all
//! visual tokens and with the 12 % that Visual SharpV keeps; and the cost of measuring similarities: `cargo bench
//! --bench evict [-- MODEL.gguf VISUAL_TOKENS [--masked]]`.
//!
//! Half of the layers is every second layer; with `smol` as the file, the layers of its profile are evicted.
//!
//! With `--masked`, visual tokens are hidden from later batches during prefill, whose time is then linear in the rows.
//! All keys and values are computed nevertheless, and decoding reads all of them: with random weights the results are
//! meaningless either way, and the time is the same.
//!
//! Embeddings are random, which costs as much as those of a video. Variants take turns within one run, so that other
//! programs on the machine affect the ratios less. Medians are shown, with minimum and maximum.

use sharpv::chat::LayerProfile;
use sharpv::models;
use sharpv::runtime::{CancelToken, Context, ContextParams, Model, ModelParams, Row, RowInput};
use std::path::Path;
use std::time::{Duration, Instant};

/// Rows of text before and after the visual tokens.
const N_TEXT: usize = 16;
/// Cells of a context beyond the prompt's rows, as in a session.
const N_FREE: usize = 512;
/// The share of the visual tokens that the first stage keeps.
const KEPT: f64 = 0.12;
const TURNS: usize = 9;
/// Tokens that are decoded and removed again, repeatedly, until a turn has lasted long enough to be measured.
const TOKENS_PER_TURN: usize = 16;
const MIN_TURN: Duration = Duration::from_millis(300);

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    // `cargo test --all-targets` runs benchmarks without `--bench`; there is nothing to check.
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |name: &str| args.iter().any(|arg| arg == name);
    if has("--test") || !has("--bench") {
        return Ok(());
    }
    let masked = has("--masked");
    let given: Vec<&String> = args.iter().filter(|arg| !arg.starts_with("--")).collect();
    if let [path, n_visual] = given[..] {
        let n_visual = n_visual.parse()?;
        if path == "smol" {
            let files = models::resolve("smol", None, &[])?;
            let profile = LayerProfile::shipped(&models::digest(&files)?).ok_or("smol has no layer profile")?;
            let model = Model::load(&files.model, &ModelParams::default(), |_| {})?;
            let layers = (0..model.n_layer()).map(|il| profile.free_layers().contains(&il)).collect();
            return bytes_and_speed("smol, by its profile", &model, layers, n_visual, masked);
        }
        let path = Path::new(path);
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let model = Model::load(path, &ModelParams::default(), |_| {})?;
        return bytes_and_speed(&name, &model, every_second(&model), n_visual, masked);
    }
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama.gguf");
    let fixture = Model::load(&fixture, &ModelParams::default(), |_| {})?;
    let smol = Model::load(&models::resolve("smol", None, &[])?.model, &ModelParams::default(), |_| {})?;
    probe_cost("smol", &smol)?;
    for n_visual in [4096, 16384, 65536] {
        bytes_and_speed("fixture llama", &fixture, every_second(&fixture), n_visual, masked)?;
    }
    for n_visual in [4096, 16384] {
        bytes_and_speed("smol", &smol, every_second(&smol), n_visual, masked)?;
    }
    println!("smol, 65536 visual tokens: left out, the dense prompt takes too long to prefill on a few cores");
    Ok(())
}

/// Prefill in a context that measures similarities, compared with one that computes as stock llama.cpp does.
fn probe_cost(name: &str, model: &Model) -> Result<()> {
    const REPEATS: usize = 15;
    let prompt = Prompt::new(model, 2048 - 2 * N_TEXT);
    let n_rows = prompt.rows.len();
    let params = ContextParams { n_ctx: n_rows + N_FREE, ..ContextParams::default() };
    let mut contexts = [open(model, &params)?, open(model, &ContextParams { evictable: true, ..params })?];
    let mut times = [Vec::new(), Vec::new()];
    // The first repeat warms up.
    for repeat in 0..=REPEATS {
        contexts.iter_mut().for_each(Context::clear);
        let mut ms = [0.0; 2];
        for (n, rows) in prompt.rows.chunks(contexts[0].n_ubatch()).enumerate() {
            // They take turns after each batch, and in who is first.
            for i in [(repeat + n) % 2, (repeat + n + 1) % 2] {
                let start = Instant::now();
                process(&mut contexts[i], rows)?;
                ms[i] += start.elapsed().as_secs_f64() * 1000.0;
            }
        }
        if repeat > 0 {
            times.iter_mut().zip(ms).for_each(|(times, ms)| times.push(ms));
        }
        eprintln!("probe, {name}: {repeat} of {REPEATS}");
    }
    let start = Instant::now();
    contexts[1].similarity()?;
    let curve = start.elapsed().as_secs_f64() * 1000.0;

    let ratios = ratios(&times[1], &times[0]);
    println!("what the probe costs: prefill, {name}, {n_rows} rows, {REPEATS} repeats");
    println!("  stock      {} ms", Spread::of(&times[0]).show(1));
    println!("  evictable  {} ms", Spread::of(&times[1]).show(1));
    println!("  evictable / stock = {}", Spread::of(&ratios).show(3));
    println!("  reading the curve afterwards: {curve:.1} ms\n");
    Ok(())
}

fn every_second(model: &Model) -> Vec<bool> {
    (0..model.n_layer()).map(|il| il % 2 == 1).collect()
}

/// All visual tokens, and those that the first stage keeps; both with all layers, and with `half` of them evicted.
fn bytes_and_speed(name: &str, model: &Model, half: Vec<bool>, n_visual: usize, masked: bool) -> Result<()> {
    let dense = Prompt::new(model, n_visual);
    let pruned = dense.prune((n_visual as f64 * KEPT).round() as usize);
    let n_half = half.iter().filter(|&&l| l).count();
    let mut variants = Vec::new();
    for (stage, prompt) in [("dense", dense), ("stage 1", pruned)] {
        let start = Instant::now();
        let (whole, evicted) = prepare(model, &prompt, &half, masked)?;
        eprintln!("{name}, {n_visual}, {stage}: {} rows ready in {:.1?}", prompt.rows.len(), start.elapsed());
        variants.extend([(stage, whole), (stage, evicted)]);
    }
    for turn in 0..=TURNS {
        for i in 0..variants.len() {
            let i = (i + turn) % variants.len();
            let speed = variants[i].1.decode()?;
            // The first turn warms up.
            if turn > 0 {
                variants[i].1.speed.push(speed);
            }
        }
    }
    println!("{name}, {n_visual} visual tokens, {} layers, {TURNS} turns", model.n_layer());
    for (stage, variant) in &variants {
        let layers = if variant.freed.is_some() { format!("{n_half} layers evicted") } else { "all layers".into() };
        let Variant { n_rows, context, speed, .. } = variant;
        let kv = mb(context.memory_usage().context);
        println!("  {stage:7}, {layers:17} {n_rows:5} rows  KV {kv:6.1} MB  {} tokens/s", Spread::of(speed).show(1));
    }
    for pair in variants.chunks(2) {
        let [(stage, whole), (_, evicted)] = pair else { continue };
        print!("  {stage:7}, evicted / not: ");
        compare(evicted, whole);
        if let Some(freed) = evicted.freed {
            let (visual, kv) = (whole.visual_bytes()? as f64, freed.kv as f64);
            print!("  {stage:7}, eviction: visual part of the KV cache × {:.3}, ", 1.0 - kv / visual);
            print!("{:.1} MB freed", mb(freed.kv));
            if let Some((before, after)) = freed.rss {
                print!(", process {:.1} → {:.1} MB", mb(before), mb(after));
            }
            println!(", {:.1} ms", freed.ms);
        }
    }
    print!("  both stages / dense:    ");
    compare(&variants[3].1, &variants[0].1);
    println!();
    Ok(())
}

/// Two contexts with `prompt`, the second with the layers of `half` evicted.
fn prepare(model: &Model, prompt: &Prompt, half: &[bool], masked: bool) -> Result<(Variant, Variant)> {
    let params = ContextParams { n_ctx: prompt.rows.len() + N_FREE, evictable: true, ..ContextParams::default() };
    let variant = |context| Variant {
        context,
        n_rows: prompt.rows.len(),
        n_visual: prompt.n_visual(),
        next: prompt.next,
        freed: None,
        speed: Vec::new(),
    };
    let mut whole = variant(open(model, &params)?);
    prompt.prefill(&mut whole.context, masked)?;
    // Cheaper than another prefill.
    let state = whole.context.state()?;
    let mut evicted = variant(open(model, &params)?);
    evicted.context.set_state(&state)?;
    drop(state);

    let before = (evicted.context.memory_usage().context, rss());
    let start = Instant::now();
    evicted.context.evict_layers(half)?;
    let ms = start.elapsed().as_secs_f64() * 1000.0;
    let after = (evicted.context.memory_usage().context, rss());
    evicted.freed = Some(Freed { kv: before.0 - after.0, rss: before.1.zip(after.1), ms });
    Ok((whole, evicted))
}

fn open(model: &Model, params: &ContextParams) -> Result<Context> {
    Ok(Context::new(model, params, &[], &CancelToken::new())?)
}

fn compare(ours: &Variant, other: &Variant) {
    let kv = |v: &Variant| v.context.memory_usage().context as f64;
    let speed = Spread::of(&ratios(&ours.speed, &other.speed));
    println!("KV bytes × {:.3}, speed × {}", kv(ours) / kv(other), speed.show(2));
}

struct Variant {
    context: Context,
    n_rows: usize,
    n_visual: usize,
    next: i32,
    freed: Option<Freed>,
    /// Tokens/s of each turn.
    speed: Vec<f64>,
}

/// What an eviction freed.
#[derive(Clone, Copy)]
struct Freed {
    kv: u64,
    /// Resident memory of the process, before and after.
    rss: Option<(u64, u64)>,
    ms: f64,
}

impl Variant {
    /// Decodes one turn, and removes its tokens. Returns tokens/s.
    fn decode(&mut self) -> Result<f64> {
        let start = Instant::now();
        let mut n_tokens = 0;
        while n_tokens == 0 || start.elapsed() < MIN_TURN {
            for i in 0..TOKENS_PER_TURN as i32 {
                let row = Row { input: RowInput::Token(20 + i), position: [self.next + i, 0, 0, 0], logits: true };
                self.context.process(&[row])?;
                std::hint::black_box(self.context.logits()?);
            }
            n_tokens += TOKENS_PER_TURN;
            if !self.context.truncate(self.next) {
                return Err("this model cannot remove rows".into());
            }
        }
        Ok(n_tokens as f64 / start.elapsed().as_secs_f64())
    }

    /// Bytes of the KV cache that belong to visual tokens, while no layer is evicted.
    fn visual_bytes(&self) -> Result<u64> {
        let layers = self.context.kv_layers()?;
        let of_layers = layers.iter().filter(|l| l.rows > 0).map(|l| l.bytes / l.rows as u64 * self.n_visual as u64);
        Ok(of_layers.sum())
    }
}

/// Text, visual tokens, text.
struct Prompt {
    rows: Vec<(Input, i32)>,
    /// The next position after it.
    next: i32,
}

#[derive(Clone)]
enum Input {
    Token(i32),
    Embedding(Vec<f32>),
}

impl Prompt {
    fn new(model: &Model, n_visual: usize) -> Self {
        let n_embd = model.n_embd_inp();
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        let text = |i: usize| Input::Token(20 + (i % 100) as i32);
        let mut inputs: Vec<Input> = (0..N_TEXT).map(text).collect();
        inputs.extend((0..n_visual).map(|_| Input::Embedding((0..n_embd).map(|_| next()).collect())));
        inputs.extend((0..N_TEXT).map(text));
        let rows: Vec<_> = inputs.into_iter().zip(0..).collect();
        Self { next: rows.len() as i32, rows }
    }

    fn n_visual(&self) -> usize {
        self.rows.iter().filter(|(input, _)| matches!(input, Input::Embedding(_))).count()
    }

    /// With `n_kept` evenly spaced visual tokens, at their original positions.
    fn prune(&self, n_kept: usize) -> Self {
        let n_visual = self.n_visual();
        let mut kept = vec![false; n_visual];
        for i in 0..n_kept {
            kept[i * n_visual / n_kept] = true;
        }
        let stays = |i: usize| !(N_TEXT..N_TEXT + n_visual).contains(&i) || kept[i - N_TEXT];
        let rows = self.rows.iter().enumerate().filter(|(i, _)| stays(*i)).map(|(_, row)| row.clone()).collect();
        Self { rows, next: self.next }
    }

    fn prefill(&self, context: &mut Context, masked: bool) -> Result<()> {
        let n_ubatch = context.n_ubatch();
        let mut reported = Instant::now();
        let all = vec![masked; context.model().n_layer()];
        for (i, rows) in self.rows.chunks(n_ubatch).enumerate() {
            if masked {
                context.hide_layers(&all)?;
            }
            process(context, rows)?;
            if reported.elapsed().as_secs() >= 10 {
                reported = Instant::now();
                eprintln!("  prefill: {} of {} rows", i * n_ubatch + rows.len(), self.rows.len());
            }
        }
        Ok(context.hide_layers(&[])?)
    }
}

/// Computes one batch, without logits.
fn process(context: &mut Context, rows: &[(Input, i32)]) -> Result<()> {
    let batch: Vec<Row<'_>> = rows
        .iter()
        .map(|(input, position)| Row {
            input: match input {
                Input::Token(token) => RowInput::Token(*token),
                Input::Embedding(values) => RowInput::Embedding(values),
            },
            position: [*position, 0, 0, 0],
            logits: false,
        })
        .collect();
    Ok(context.process(&batch)?)
}

/// The ratio of each turn of one to the same turn of another.
fn ratios(ours: &[f64], other: &[f64]) -> Vec<f64> {
    ours.iter().zip(other).map(|(a, b)| a / b).collect()
}

struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(values: &[f64]) -> Self {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        Self { median: values[values.len() / 2], min: values[0], max: values[values.len() - 1] }
    }

    fn show(&self, digits: usize) -> String {
        let Self { median, min, max } = self;
        format!("{median:.digits$}  ({min:.digits$} to {max:.digits$})")
    }
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// The resident memory of this process, in bytes; `None` if the system does not report it.
fn rss() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kb: u64 =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kb * 1024)
}
