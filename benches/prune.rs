//! Pruning compared with memory bandwidth: throughput in bytes of embeddings, `cargo bench --bench prune`.
//!
//! `read` sums the same floats, on one thread and on rayon's pool: no method can be faster. `prune` has all slices at
//! once and uses the pool. `scorer` is passed one slice after the other, as in a session while frames stream, on a pool
//! of one thread.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rayon::prelude::*;
use sharpv::lab::methods;
use sharpv::prune::{Budget, Decision, PruneParams, Scorer, SliceView, prune};

/// Slices, tokens per slice, width: LLaVA-OneVision 0.5B with 32 frames, SmolVLM2 500M with 64, and `smol` with 8.
const SHAPES: [(usize, usize, usize); 3] = [(32, 196, 896), (64, 64, 960), (8, 64, 576)];

/// Floats in `[-1, 1)` without a pattern that pruning could exploit.
fn noise(len: usize) -> Vec<f32> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Slices of `len` floats that keep most of the previous one, as those of a video do; a new scene every eight slices.
fn scenes(n_slices: usize, len: usize) -> Vec<f32> {
    let mut data = noise(n_slices * len);
    for slice in (1..n_slices).filter(|slice| slice % 8 > 0) {
        let (before, here) = data.split_at_mut(slice * len);
        let before = &before[(slice - 1) * len..];
        here[..len].iter_mut().zip(before).for_each(|(x, before)| *x = before + 0.2 * *x);
    }
    data
}

fn sum(data: &[f32]) -> f32 {
    let mut lanes = [0.0; 32];
    for chunk in data.as_chunks::<32>().0 {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += x;
        }
    }
    lanes.iter().sum()
}

fn stream(params: &PruneParams, slices: &[SliceView<'_>]) -> Decision {
    let mut scorer = Scorer::new(params).expect("the parameters are valid");
    for &slice in slices {
        scorer.push(slice).expect("all slices have one width");
    }
    scorer.finish()
}

fn views(data: &[f32], n_tokens: usize, n_embd: usize) -> Vec<SliceView<'_>> {
    let slices = data.chunks_exact(n_tokens * n_embd);
    slices.map(|slice| SliceView::new(slice, n_tokens, n_embd).expect("the shape fits")).collect()
}

fn benchmark(c: &mut Criterion) {
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread starts");
    for (n_slices, n_tokens, n_embd) in SHAPES {
        let data = noise(n_slices * n_tokens * n_embd);
        let slices = views(&data, n_tokens, n_embd);
        let mut group = c.benchmark_group(format!("{n_slices}x{n_tokens}x{n_embd}"));
        group.throughput(Throughput::Bytes(size_of_val(data.as_slice()) as u64));
        group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));

        group.bench_function("read/one thread", |b| b.iter(|| sum(black_box(&data))));
        let read = || black_box(&slices).par_iter().map(|slice| sum(slice.data())).sum::<f32>();
        group.bench_function("read/pool", |b| b.iter(read));
        let mut copy = vec![0.0; data.len()];
        group.bench_function("copy/one thread", |b| b.iter(|| copy.copy_from_slice(black_box(&data))));

        let adaptive = PruneParams::default();
        group.bench_function("prune/sharpv, no budget", |b| b.iter(|| prune(&adaptive, black_box(&slices))));
        // Off reads no embeddings.
        for method in methods::all().filter(|method| method.prunes()) {
            let params = PruneParams { method, budget: Budget::Keep(0.12), ..PruneParams::default() };
            group.bench_with_input(BenchmarkId::new("prune", method), &params, |b, params| {
                b.iter(|| prune(params, black_box(&slices)));
            });
            group.bench_with_input(BenchmarkId::new("scorer", method), &params, |b, params| {
                one_thread.install(|| b.iter(|| stream(params, black_box(&slices))));
            });
        }

        // The only method whose time depends on the values.
        let data = scenes(n_slices, n_tokens * n_embd);
        let slices = views(&data, n_tokens, n_embd);
        let params = PruneParams { method: methods::DIVPRUNE, budget: Budget::Keep(0.12), ..PruneParams::default() };
        group.bench_function("prune/divprune, scenes", |b| b.iter(|| prune(&params, black_box(&slices))));
        group.finish();
    }
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
