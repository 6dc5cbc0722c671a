//! Time of models by the type of their weights: `cargo bench --bench weight_types -- …`, with
//!
//! - `prefill MODEL.gguf…`: 512 rows of text in one batch;
//! - `encode SIDE MODEL.gguf MMPROJ.gguf…`: an image of SIDE × SIDE pixels, encoded as a frame.
//!
//! Files take turns, on one thread and by its CPU time (on Linux; elsewhere by wall time), so that other programs on
//! the machine matter little. Medians are shown, and the median of the ratios to the first file within each turn.
//! `benches/requantize.py` makes files of one model that differ only in the type.

use sharpv::runtime::{
    Bitmap, CancelToken, ComputeParams, Context, ContextParams, Model, ModelParams, Part, Row, RowInput, Vision,
    VisionParams,
};
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const ROWS: usize = 512;
const TURNS: usize = 5;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    // `cargo test --all-targets` runs benchmarks with `--test`; there is nothing to check.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match &args[..] {
        ["prefill", files @ ..] if !files.is_empty() => prefill(files),
        ["encode", side, model, files @ ..] if !files.is_empty() => encode(side.parse()?, Path::new(model), files),
        _ => {
            println!("cargo bench --bench weight_types -- prefill MODEL.gguf…");
            println!("cargo bench --bench weight_types -- encode SIDE MODEL.gguf MMPROJ.gguf…");
            Ok(())
        }
    }
}

fn prefill(files: &[&str]) -> Result<()> {
    let mut runs = Vec::new();
    for file in files {
        let model = Model::load(Path::new(file), &ModelParams::default(), |_| {})?;
        let compute = ComputeParams { n_threads: Some(1), ..ComputeParams::default() };
        let params = ContextParams { n_ctx: ROWS, compute, ..ContextParams::default() };
        let mut context = Context::new(&model, &params, &[], &CancelToken::new())?;
        runs.push(move || -> Result<()> {
            context.clear();
            let rows: Vec<Row<'_>> = (0..ROWS as i32)
                .map(|i| Row {
                    input: RowInput::Token(100 + i),
                    position: [i, i, i, i],
                    logits: i as usize + 1 == ROWS,
                })
                .collect();
            Ok(context.process(&rows)?)
        });
    }
    println!("| {ROWS} rows | size, MB | ms | rows/s | time / the first's |\n|---|--:|--:|--:|--:|");
    in_turns(files, &mut runs, |ms| format!("{ms:.0} | {:.0}", ROWS as f64 / ms * 1000.0))
}

fn encode(side: u32, model: &Path, files: &[&str]) -> Result<()> {
    let model = Model::load(model, &ModelParams::default(), |_| {})?;
    let pixels: Vec<u8> = (0..side * side * 3).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let image = Bitmap::rgb(side, side, &pixels, false)?;
    let params = VisionParams { n_threads: Some(1), ..VisionParams::default() };
    let mut runs = Vec::new();
    for file in files {
        let mut vision = Vision::load(Path::new(file), &model, &params, |_| {})?;
        let image = &image;
        runs.push(move || -> Result<()> {
            let chunks = vision.tokenize_whole(&[Part::Image(image)])?;
            for chunk in chunks.images() {
                vision.encode(&chunk)?;
            }
            Ok(())
        });
    }
    println!("| {side} × {side} pixels | size, MB | ms a frame | time / the first's |\n|---|--:|--:|--:|");
    in_turns(files, &mut runs, |ms| format!("{ms:.0}"))
}

/// Runs everything once, and then measures it [`TURNS`] times. `show` formats a median in milliseconds.
fn in_turns(files: &[&str], runs: &mut [impl FnMut() -> Result<()>], show: impl Fn(f64) -> String) -> Result<()> {
    let mut times = vec![Vec::new(); runs.len()];
    for turn in 0..=TURNS {
        for (run, times) in runs.iter_mut().zip(&mut times) {
            let start = worked();
            run()?;
            if turn > 0 {
                times.push((worked() - start).as_secs_f64() * 1000.0);
            }
        }
    }
    for (file, own) in files.iter().zip(&times) {
        let path = Path::new(file);
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let megabytes = std::fs::metadata(path)?.len() as f64 / 1e6;
        let ratio = median(own.iter().zip(&times[0]).map(|(own, first)| own / first));
        println!("| {name} | {megabytes:.0} | {} | {ratio:.2} |", show(median(own.iter().copied())));
    }
    Ok(())
}

/// The CPU time of this thread; wall time if the system does not report it.
fn worked() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    let wall = START.get_or_init(Instant::now).elapsed();
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanoseconds = told.and_then(|text| text.split(' ').next()?.parse().ok());
    nanoseconds.map_or(wall, Duration::from_nanos)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
