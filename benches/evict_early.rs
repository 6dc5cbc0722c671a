//! What a layer profile saves if it is known before prefill: peak memory, prefill and decode time, with visual tokens
//! in all layers, evicted after prefill, and kept out of these layers from the beginning: `cargo bench --bench
//! evict_early [-- MODEL.gguf VISUAL_TOKENS [--masked]]`.
//!
//! Each run is a process of its own, because of its peak memory. The three ways take turns, and ratios are within a
//! turn. Embeddings are random, which costs as much as those of a video. `smol` frees the layers of its profile, other
//! models every second layer. With `--masked`, visual tokens are hidden from later batches during prefill, once, so
//! that the time of a very long prompt is linear in its rows: that changes its prefill time, but neither memory nor
//! decode time.

use sharpv::chat::LayerProfile;
use sharpv::models;
use sharpv::runtime::{
    CancelToken, Context, ContextParams, KvWindow, Model, ModelParams, Row, RowInput, peak_rss_bytes,
};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Rows of text before and after the visual tokens.
const N_TEXT: usize = 16;
/// Cells beyond the prompt's rows, as in a session.
const N_FREE: usize = 512;
const N_DECODED: usize = 32;
const TURNS: usize = 3;
const WAYS: [&str; 3] = ["all", "after", "early"];

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The measurements of a run.
#[derive(serde::Serialize, serde::Deserialize)]
struct Run {
    prefill_ms: f64,
    tokens_per_s: f64,
    peak_bytes: u64,
    /// Bytes of the KV cache and the buffers when the answer begins.
    context_bytes: u64,
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, way, model, n_visual, free, masked] = &args[..]
        && flag == "--run"
    {
        let free: Vec<usize> = serde_json::from_str(free)?;
        let run = run(way, Path::new(model), n_visual.parse()?, &free, masked.parse()?)?;
        println!("{}", serde_json::to_string(&run)?);
        return Ok(());
    }
    // `cargo test --all-targets` runs benchmarks without `--bench`; there is nothing to check.
    let has = |name: &str| args.iter().any(|arg| arg == name);
    if has("--test") || !has("--bench") {
        return Ok(());
    }
    let given: Vec<&String> = args.iter().filter(|arg| !arg.starts_with("--")).collect();
    if let [model, n_visual] = given[..] {
        if model == "smol" {
            return smol(n_visual.parse()?, has("--masked"));
        }
        let free = every_second(Path::new(model))?;
        return compare(Path::new(model), n_visual.parse()?, free, has("--masked"));
    }
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/llama.gguf");
    compare(&fixture, 16384, every_second(&fixture)?, false)?;
    smol(4096, false)?;
    smol(16384, false)
}

fn smol(n_visual: usize, masked: bool) -> Result<()> {
    let smol = models::resolve("smol", None, &[])?;
    let profile = LayerProfile::shipped(&models::digest(&smol)?).ok_or("smol has no layer profile")?;
    compare(&smol.model, n_visual, profile.free_layers().to_vec(), masked)
}

fn every_second(model: &Path) -> Result<Vec<usize>> {
    let model = Model::load(model, &ModelParams::default(), |_| {})?;
    Ok((1..model.n_layer()).step_by(2).collect())
}

fn compare(model: &Path, n_visual: usize, free: Vec<usize>, masked: bool) -> Result<()> {
    let mut runs: [Vec<Run>; 3] = Default::default();
    for turn in 0..if masked { 1 } else { TURNS } {
        for i in 0..WAYS.len() {
            let i = (i + turn) % WAYS.len();
            let mut child = Command::new(std::env::current_exe()?);
            child.args(["--run", WAYS[i]]).arg(model).arg(n_visual.to_string());
            child.args([serde_json::to_string(&free)?, masked.to_string()]).stderr(Stdio::inherit());
            let output = child.output()?;
            runs[i].push(serde_json::from_slice(&output.stdout).map_err(|e| format!("{}: {e}", WAYS[i]))?);
            eprint!(".");
        }
    }
    eprintln!();
    let name = model.file_name().map_or_else(PathBuf::new, PathBuf::from);
    println!("{}, {n_visual} visual tokens, {} layers freed", name.display(), free.len());
    for (way, these) in WAYS.iter().zip(&runs) {
        let of = |what: fn(&Run) -> f64| median(these.iter().map(what));
        let against = |what: fn(&Run) -> f64| median(these.iter().zip(&runs[0]).map(|(a, b)| what(a) / what(b)));
        println!(
            "  {way:7} prefill {:8.0} ms (× {:.2})  {:6.1} tokens/s (× {:.2})  peak {:7.1} MB (× {:.3})  context {:6.1} MB (× {:.3})",
            of(|r| r.prefill_ms),
            against(|r| r.prefill_ms),
            of(|r| r.tokens_per_s),
            against(|r| r.tokens_per_s),
            of(|r| r.peak_bytes as f64) / 1e6,
            against(|r| r.peak_bytes as f64),
            of(|r| r.context_bytes as f64) / 1e6,
            against(|r| r.context_bytes as f64),
        );
    }
    println!();
    Ok(())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Runs in a process of its own.
fn run(way: &str, path: &Path, n_visual: usize, free: &[usize], masked: bool) -> Result<Run> {
    let model = Model::load(path, &ModelParams::default(), |_| {})?;
    let layers: Vec<bool> = (0..model.n_layer()).map(|il| free.contains(&il)).collect();

    let n_rows = 2 * N_TEXT + n_visual;
    let mut params = ContextParams { n_ctx: n_rows + N_FREE, evictable: true, ..ContextParams::default() };
    let n_ubatch = params.compute.n_ubatch;
    if way == "early" {
        params.window = Some(KvWindow { layers: layers.clone(), rows: 2 * N_TEXT + N_FREE + n_visual.min(n_ubatch) });
    }
    let mut context = Context::new(&model, &params, &[], &CancelToken::new())?;
    let embeddings = embeddings(n_ubatch * model.n_embd_inp());
    let start = Instant::now();
    let mut next = 0;
    while next < n_rows {
        let batch: Vec<Row<'_>> = (next..n_rows.min(next + n_ubatch))
            .map(|p| Row {
                input: if (N_TEXT..N_TEXT + n_visual).contains(&p) {
                    let from = (p % n_ubatch) * model.n_embd_inp();
                    RowInput::Embedding(&embeddings[from..from + model.n_embd_inp()])
                } else {
                    RowInput::Token(20 + (p % 100) as i32)
                },
                position: [p as i32, 0, 0, 0],
                logits: p + 1 == n_rows,
            })
            .collect();
        next += batch.len();
        if masked {
            context.hide_layers(&vec![true; model.n_layer()])?;
        }
        context.process(&batch)?;
    }
    context.hide_layers(&[])?;
    std::hint::black_box(context.logits()?);
    let prefill_ms = start.elapsed().as_secs_f64() * 1000.0;
    if way != "all" {
        context.evict_layers(&layers)?;
    }
    let context_bytes = context.memory_usage().context;
    let start = Instant::now();
    for i in 0..N_DECODED {
        let position = [(n_rows + i) as i32, 0, 0, 0];
        context.process(&[Row { input: RowInput::Token(20 + i as i32), position, logits: true }])?;
        std::hint::black_box(context.logits()?);
    }
    let tokens_per_s = N_DECODED as f64 / start.elapsed().as_secs_f64();
    let peak_bytes = peak_rss_bytes().ok_or("no peak memory on this system")?;
    Ok(Run { prefill_ms, tokens_per_s, peak_bytes, context_bytes })
}

/// Random embeddings, the same in every run.
fn embeddings(n: usize) -> Vec<f32> {
    let mut state = 1_u32;
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}
