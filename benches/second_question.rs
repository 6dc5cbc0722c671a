//! What questions after the first one cost, by whether checkpoints are kept: `cargo bench --bench second_question [--
//! [--repeats N] [--side PIXELS] MODEL.gguf MMPROJ.gguf …]`.
//!
//! A conversation about 32 frames has three questions: the first one, a next turn, and, after a restart, another one
//! about the same video. It takes turns with one that keeps no checkpoints, so that other programs on the machine
//! affect the ratios less: those are within one repeat. Nothing is pruned or evicted, and the video is encoded before.
//! Without arguments, the models are two tiny ones of the tests.

use sharpv::chat::{Answer, EvictParams, Kv, Session, SessionParams, Thinking, VideoOptions};
use sharpv::models::ModelFiles;
use sharpv::prune::PruneParams;
use sharpv::runtime::{Model, ModelParams, SamplerParams};
use sharpv::skip::{EncodeMode, EncodeParams};
use sharpv::video::Frames;
use std::path::{Path, PathBuf};

const FRAMES: usize = 32;
const SQUARE: u32 = 96;
const ASKED: [(&str, &str); 3] = [
    ("first question", "What is in the video?"),
    ("next turn", "And what color does it have?"),
    ("another question", "Where does the square go, and how fast?"),
];
/// The bytes of checkpoints that each conversation may keep.
const WAYS: [(&str, Option<u64>); 2] = [("kept", None), ("none", Some(0))];

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let (mut repeats, mut side, mut files) = (3, 384, Vec::new());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number =
            || args.next().and_then(|text| text.parse::<u32>().ok()).ok_or(format!("{arg} takes a number"));
        match arg.as_str() {
            // `cargo test --all-targets` runs benchmarks with this argument; there is nothing to check.
            "--test" => return Ok(()),
            "--bench" => {}
            "--repeats" => repeats = number()?.max(1),
            "--side" => side = number()?.max(SQUARE),
            _ => files.push(PathBuf::from(arg)),
        }
    }
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let tiny = ["converted/qwen35", "families/qwen3vl"];
    let tiny = tiny.iter().flat_map(|name| [format!("{name}.gguf"), format!("{name}-mmproj.gguf")]);
    if files.is_empty() {
        files.extend(tiny.map(|name| fixtures.join(name)));
    }
    let pairs = files.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return Err("a model without an mmproj: give MODEL.gguf MMPROJ.gguf, one or more times".into());
    }
    let video = moving_square(side)?;
    pairs.into_iter().try_for_each(|pair| compare(&pair[0], &pair[1], &video, repeats))
}

/// A conversation, and what its questions cost.
struct Conversation {
    session: Session,
    /// For each of [`ASKED`].
    rows: [(usize, usize); 3],
    ttft: [Vec<f64>; 3],
    kv: Option<Kv>,
}

impl Conversation {
    fn open(files: &ModelFiles, model: &Model, video: &Frames, checkpoint_memory: Option<u64>) -> Result<Self> {
        let params = SessionParams {
            checkpoint_memory,
            prune: PruneParams::off(),
            evict: EvictParams::off(),
            encode: EncodeParams::default().in_mode(EncodeMode::Exact),
            // Weights are random: with an answer of its own, each conversation would have another history.
            sampler: SamplerParams { grammar: Some(r#"root ::= "No.""#.into()), ..SamplerParams::default() },
            thinking: Thinking::Off,
            n_predict: 8,
            ..SessionParams::default()
        };
        let mut session = Session::builder(files).model(model.clone()).params(params).open()?;
        session.add_video(("moving square", video), &VideoOptions::default(), &mut ())?;
        Ok(Self { session, rows: Default::default(), ttft: Default::default(), kv: None })
    }

    fn repeat(&mut self) -> Result<()> {
        self.session.restart();
        self.session.free_cache();
        self.ask(0)?;
        self.ask(1)?;
        self.kv = Some(self.session.kv());
        self.session.restart();
        self.ask(2)
    }

    fn ask(&mut self, which: usize) -> Result<()> {
        let Answer { tokens, timings_ms, .. } = self.session.ask(ASKED[which].1, &mut ())?;
        self.rows[which] = (tokens.prompt_computed, tokens.prompt);
        // The first turn of a session has the video's encoding in it.
        self.ttft[which].push(timings_ms.ttft - timings_ms.decode_video - timings_ms.encode - timings_ms.prune);
        Ok(())
    }
}

fn compare(model: &Path, mmproj: &Path, video: &Frames, repeats: u32) -> Result<()> {
    let name = model.file_stem().unwrap_or_default().to_string_lossy();
    let files =
        ModelFiles { name: name.to_string(), model: model.into(), mmproj: Some(mmproj.into()), lora: Vec::new() };
    let model = Model::load(model, &ModelParams::default(), |_| {})?;
    let mut ways = WAYS
        .iter()
        .map(|(_, memory)| Conversation::open(&files, &model, video, *memory))
        .collect::<Result<Vec<_>>>()?;
    for repeat in 0..repeats as usize {
        for i in 0..ways.len() {
            let i = (i + repeat) % ways.len();
            ways[i].repeat()?;
            eprint!(".");
        }
    }
    eprintln!();
    println!("## {name}, {FRAMES} frames of {} pixels, {repeats} repeats\n", video.size().0);
    println!("| checkpoints | | rows computed | first token, ms | of that without checkpoints |");
    println!("|---|---|--:|--:|--:|");
    for ((way, _), conversation) in WAYS.iter().zip(&ways) {
        for (which, (asked, _)) in ASKED.iter().enumerate() {
            let (computed, prompt) = conversation.rows[which];
            let ttft = &conversation.ttft[which];
            let without = &ways[ways.len() - 1].ttft[which];
            let ratio = spread(ttft.iter().zip(without).map(|(with, without)| with / without));
            println!(
                "| {way} | {asked} | {computed} of {prompt} | {} | {} |",
                show(spread(ttft.iter().copied()), 1),
                show(ratio, 3)
            );
        }
    }
    println!("\n| checkpoints | KV cache, MB | states, MB | checkpoints, MB |\n|---|--:|--:|--:|");
    for ((way, _), kv) in WAYS.iter().zip(&ways).filter_map(|(way, c)| Some((way, c.kv?))) {
        let mb = |bytes: u64| bytes as f64 / 1e6;
        println!(
            "| {way} | {:.1} | {:.1} | {:.1} ({}) |",
            mb(kv.bytes - kv.bytes_state),
            mb(kv.bytes_state),
            mb(kv.bytes_checkpoints),
            kv.checkpoints
        );
    }
    println!();
    Ok(())
}

/// Median, minimum and maximum.
fn spread(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    [values[values.len() / 2], values[0], values[values.len() - 1]]
}

fn show([median, least, most]: [f64; 3], digits: usize) -> String {
    format!("{median:.digits$} ({least:.digits$} to {most:.digits$})")
}

/// A square that crosses a plain background, a frame each half second.
fn moving_square(side: u32) -> Result<Frames> {
    let mut frames = Frames::new(side, side);
    let top = (side - SQUARE) / 2;
    for i in 0..FRAMES {
        let left = i as u32 * (side - SQUARE) / (FRAMES as u32 - 1);
        let image = image::RgbImage::from_fn(side, side, |x, y| {
            let inside = (left..left + SQUARE).contains(&x) && (top..top + SQUARE).contains(&y);
            image::Rgb(if inside { [200, 40, 40] } else { [80, 140, 200] })
        });
        frames.push(image.into_raw(), i as f64 / 2.0)?;
    }
    Ok(frames)
}
