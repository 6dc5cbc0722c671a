//! Time and memory over the length of a video, without a video: pruning, prefill and decoding of synthetic embeddings.

use super::check;
use super::synthetic::Frames;
use crate::error::{Error, Result};
use crate::lab::methods;
use crate::lab::results::{Scaling, ScalingPoint, Spread};
use crate::observer::{Observer, Stage};
use crate::prune::{self, Budget, PruneParams, SliceView};
use crate::runtime::{
    CancelToken, ComputeParams, Context, ContextParams, LoraAdapter, Model, Position, Row, RowInput, Token,
};
use serde::Serialize;
use std::fmt;
use std::str::FromStr;
use std::time::Instant;

const BEFORE: &str = "You are a helpful assistant that looks at videos. Video: ";
const AFTER: &str = "\nDescribe in detail what happens in the video.";

/// The size of a synthetic video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ScalingSize {
    /// Number of frames.
    pub frames: usize,
    /// Visual tokens of each frame.
    pub tokens: usize,
}

impl fmt::Display for ScalingSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.frames, self.tokens)
    }
}

impl FromStr for ScalingSize {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        /// More than any model can process, and far below an overflow.
        const MOST: usize = 1 << 24;
        let number = |text: &str| text.trim().parse().ok().filter(|n: &usize| *n > 0);
        let size = text
            .split_once(['x', '×'])
            .and_then(|(frames, tokens)| Some(Self { frames: number(frames)?, tokens: number(tokens)? }));
        let small = |size: &Self| size.frames.checked_mul(size.tokens).is_some_and(|n| n <= MOST);
        size.filter(small).ok_or_else(|| Error::InvalidParameter {
            name: "synthetic",
            value: format!("\"{text}\""),
            expected: "FRAMESxTOKENS, as in 32x196".into(),
        })
    }
}

/// Measures each of `sizes` with each of `methods`, `repeats` times, in turns, and decodes `decoded` tokens after each
/// prompt. One more run of each method, of the first size, precedes them and does not count.
///
/// # Errors
/// [`Error::InvalidParameter`] if a method is listed twice, [`Error::Cancelled`], and [`Error::Llama`] if there is not
/// enough memory.
#[allow(clippy::too_many_arguments)] // The model with what it computes with, what to measure, and who watches.
pub fn scale(
    model: &Model,
    compute: &ComputeParams,
    adapters: &[LoraAdapter],
    sizes: &[ScalingSize],
    methods: &[PruneParams],
    (repeats, decoded): (usize, usize),
    cancel: &CancelToken,
    observer: &mut dyn Observer,
) -> Result<Scaling> {
    check(methods, repeats)?;
    let bench = Runner { model, compute, adapters, decoded, cancel };
    let work = |size: &ScalingSize| (size.frames * size.tokens) as f64;
    let all_work = sizes.iter().map(work).sum::<f64>() * (methods.len() * repeats) as f64;
    let all_work = all_work + sizes.first().map_or(0.0, work) * methods.len() as f64;
    let total = ((sizes.len() * repeats + 1) * methods.len()) as u64;
    let (mut done, mut done_work) = (0, 0.0);
    let mut step = |size: &ScalingSize, observer: &mut dyn Observer| {
        done += 1;
        done_work += work(size);
        observer.progress(Stage::Work, (1000.0 * done_work / all_work) as u64, 1000);
        observer.progress(Stage::Runs, done, total);
    };
    let mut points = Vec::new();
    for size in sizes {
        cancel.check()?;
        let mut source = Frames::new(size.tokens, model.n_embd_inp(), 0);
        let frames: Vec<Vec<f32>> = (0..size.frames).map(|_| source.next_frame()).collect();
        let mut runs: Vec<Vec<Run>> = methods.iter().map(|_| Vec::new()).collect();
        for params in methods.iter().filter(|_| points.is_empty()) {
            bench.run(&frames, size.tokens, params)?;
            step(size, observer);
        }
        for _ in 0..repeats {
            for (params, runs) in methods.iter().zip(&mut runs) {
                runs.push(bench.run(&frames, size.tokens, params)?);
                step(size, observer);
            }
        }
        points.extend(methods.iter().zip(&runs).filter_map(|(params, runs)| point(*size, params, runs)));
        let longest = points.iter().map(|point: &ScalingPoint| point.prompt_rows).max().unwrap_or(0) + decoded;
        if longest > model.n_ctx_train() {
            observer.warning(&format!(
                "{size}: {longest} positions are more than the {} that the model was trained for; times are valid, answers would not be",
                model.n_ctx_train()
            ));
        }
    }
    let budget = methods.iter().map(|params| params.budget).find(|budget| *budget != Budget::Adaptive);
    Ok(Scaling {
        model: model.description(),
        trained_for: model.n_ctx_train(),
        repeats,
        decoded,
        budget: budget.unwrap_or_default(),
        points,
    })
}

struct Runner<'a> {
    model: &'a Model,
    compute: &'a ComputeParams,
    adapters: &'a [LoraAdapter],
    decoded: usize,
    cancel: &'a CancelToken,
}

struct Run {
    kept: usize,
    rows: usize,
    prune_ms: f64,
    prefill_ms: f64,
    tokens_per_second: Option<f64>,
    kv_bytes: u64,
}

impl Runner<'_> {
    fn run(&self, frames: &[Vec<f32>], tokens: usize, params: &PruneParams) -> Result<Run> {
        let (model, stride) = (self.model, self.model.n_embd_inp());
        let start = Instant::now();
        let slices: Vec<_> = frames
            .iter()
            .map(|frame| SliceView::with_stride(frame, tokens, model.n_embd(), stride))
            .collect::<Result<_>>()?;
        let decision = prune::prune(params, &slices)?;
        let prune_ms = milliseconds(start);

        let kept = frames.iter().zip(&decision.slices).flat_map(|(frame, slice)| {
            let row = move |&i: &u32| frame.get(i as usize * stride..(i as usize + 1) * stride);
            slice.kept.iter().filter_map(row).map(RowInput::Embedding)
        });
        let (before, after) = (model.tokenize(BEFORE, true, false)?, model.tokenize(AFTER, false, false)?);
        let text = |tokens: &[Token]| tokens.iter().map(|&token| RowInput::Token(token)).collect::<Vec<_>>();
        let inputs: Vec<RowInput<'_>> = text(&before).into_iter().chain(kept).chain(text(&after)).collect();
        let n_rows = inputs.len();

        let start = Instant::now();
        let n_ctx = n_rows + self.decoded;
        let context_params = ContextParams { n_ctx, compute: self.compute.clone(), ..ContextParams::default() };
        let mut context = Context::new(model, &context_params, self.adapters, self.cancel)?;
        let rows: Vec<Row<'_>> = inputs
            .iter()
            .enumerate()
            .map(|(i, &input)| Row { input, position: position(i), logits: i + 1 == n_rows })
            .collect();
        for rows in self.batches(&rows, context.n_ubatch()) {
            context.process(rows)?;
        }
        let mut token = likeliest(context.logits()?);
        let prefill_ms = milliseconds(start);

        // An end-of-text token is decoded like any other, so that all runs have the same length.
        let start = Instant::now();
        for i in 0..self.decoded {
            context.process(&[Row { input: RowInput::Token(token), position: position(n_rows + i), logits: true }])?;
            token = likeliest(context.logits()?);
        }
        let seconds = milliseconds(start) / 1000.0;
        Ok(Run {
            kept: n_rows - before.len() - after.len(),
            rows: n_rows,
            prune_ms,
            prefill_ms,
            tokens_per_second: Some(self.decoded as f64 / seconds).filter(|speed| speed.is_finite() && *speed > 0.0),
            kv_bytes: context.memory_usage().context,
        })
    }

    /// Full ubatches. Text and embeddings are separated for models that do not accept both in one batch.
    fn batches<'r>(&self, rows: &'r [Row<'r>], n_ubatch: usize) -> Vec<&'r [Row<'r>]> {
        let mixed = self.model.supports_mixed_batch();
        let alike = move |a: &Row<'_>, b: &Row<'_>| {
            mixed || matches!(a.input, RowInput::Token(_)) == matches!(b.input, RowInput::Token(_))
        };
        rows.chunk_by(alike).flat_map(|rows| rows.chunks(n_ubatch.max(1))).collect()
    }
}

/// Successive positions, in each dimension that a model may read.
fn position(i: usize) -> Position {
    let i = i32::try_from(i).unwrap_or(i32::MAX);
    [i, i, i, 0]
}

fn likeliest(logits: &[f32]) -> Token {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map_or(0, |(token, _)| token as Token)
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}

fn point(size: ScalingSize, params: &PruneParams, runs: &[Run]) -> Option<ScalingPoint> {
    let last = runs.last()?;
    Some(ScalingPoint {
        method: methods::name(params.method).to_owned(),
        frames: size.frames,
        tokens_per_frame: size.tokens,
        visual_tokens: size.frames * size.tokens,
        kept: last.kept,
        prompt_rows: last.rows,
        prune_ms: Spread::of(runs.iter().map(|run| run.prune_ms))?,
        prefill_ms: Spread::of(runs.iter().map(|run| run.prefill_ms))?,
        decode_tokens_per_second: Spread::of(runs.iter().filter_map(|run| run.tokens_per_second)),
        kv_bytes: last.kv_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        assert_eq!("32x196".parse::<ScalingSize>().unwrap(), ScalingSize { frames: 32, tokens: 196 });
        for text in ["", "32", "x", "0x4", "4x0", "-1x4", "4x4x4", "99999999x99999999", "16777216x2"] {
            let error = text.parse::<ScalingSize>().unwrap_err().to_string();
            assert!(error.contains("FRAMESxTOKENS"), "{error}");
        }
    }
}
