//! Live video, with the model `smol`.
//!
//! `cargo bench --bench live` measures the cost of a frame and of a question, with frames prefilled as they arrive and
//! with the question, in turns, and memory over an hour; with `-- --hour`, only the hour.
//!
//! What is found in the long clips of `make_clips FOLDER --long MINUTES`, in which things (needles) appear once:
//!
//! - `cargo bench --bench live -- --needles FOLDER [CLIPS] [--policies NAME,…] [--tokens N,…]`: whether they are
//!   remembered ([`needles`]).
//! - `cargo bench --bench live -- --when FOLDER [CLIPS]`: whether their appearance is reported ([`when`]).
//!
//! Each prints a line of JSON for each answer to stdout immediately, and a summary with intervals to stderr. With
//! `--shard I/N` it uses every Nth clip, from the Ith on (I from 1), so that N processes share the work; `cargo bench
//! --bench live -- --summary FILE…` then summarizes their lines.
//!
//! The environment variable `THREADS` is the number of threads, and `MODEL` and `MMPROJ` are the files of another
//! model.

mod clips;
mod cost;
mod needles;
mod when;

use sharpv::chat::{LiveParams, LivePolicy, LiveSession, SessionParams};
use sharpv::models;
use sharpv::runtime::{CancelToken, SamplerParams};
use sharpv::video::{Frame, LiveInput, LiveSource};
use std::path::Path;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    // Cargo adds `--bench`.
    let mut args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    // `cargo test --all-targets` runs benchmarks with this argument; there is nothing to check.
    if args.iter().any(|arg| arg == "--test") {
        return Ok(());
    }
    let mut option = |name: &str| -> Result<Option<String>> {
        let Some(at) = args.iter().position(|arg| arg == name) else { return Ok(None) };
        let value = args.drain(at..(at + 2).min(args.len())).nth(1);
        Ok(Some(value.ok_or_else(|| format!("{name} requires a value"))?))
    };
    let (shard, policies, tokens) = (option("--shard")?, option("--policies")?, option("--tokens")?);
    let shard = shard.map_or(Ok((1, 1)), |shard| clips::shard(&shard))?;
    let Some((mode, rest)) = args.split_first() else { return cost::run() };
    if mode == "--summary" {
        let lines = clips::lines(rest)?;
        needles::summary(&lines);
        when::summary(&lines);
        return Ok(());
    }
    if mode == "--hour" {
        return cost::hour();
    }
    let folder = Path::new(rest.first().ok_or_else(|| format!("{mode} requires a folder"))?);
    let most = rest.get(1).map_or(Ok(usize::MAX), |n| n.parse())?;
    let clips = clips::of(folder, most, shard)?;
    match mode.as_str() {
        "--needles" => needles::run(&clips, policies.as_deref(), tokens.as_deref()),
        "--when" => when::run(&clips),
        _ => Err(format!("{mode}: not --needles, --when or --summary").into()),
    }
}

fn open(policy: LivePolicy, recall: usize, prefill: bool) -> Result<LiveSession> {
    let sampler = SamplerParams { temperature: 0.0, ..SamplerParams::default() };
    let mut params = SessionParams { n_predict: 16, sampler, cancel: CancelToken::new(), ..SessionParams::default() };
    params.compute.n_threads = std::env::var("THREADS").ok().map(|n| n.parse()).transpose()?;
    params.vision.n_threads = params.compute.n_threads;
    let model = std::env::var("MODEL").unwrap_or_else(|_| "smol".into());
    let files = models::resolve(&model, std::env::var_os("MMPROJ").as_deref().map(Path::new), &[])?;
    let live = LiveParams { policy, recall, prefill, ..LiveParams::default() };
    Ok(LiveSession::open(&files, params, live, &mut ())?)
}

/// Passes the frames of a video, one per second, to `each`. Returns its length in seconds.
fn play(video: &Path, mut each: impl FnMut(&Frame) -> Result<()>) -> Result<f64> {
    let mut source = LiveSource::open(LiveInput::File(video.to_owned()), || false)?;
    let mut next_s = 0.0;
    while let Some(frame) = source.next_from(next_s - 0.001)? {
        next_s = frame.time_s + 1.0;
        each(&frame)?;
    }
    Ok(next_s)
}
