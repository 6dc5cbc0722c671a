//! SharpV's scoring against what the memory can deliver: throughput in bytes of embeddings read.
//!
//! `sum` adds the same floats up, `copy` copies them; both on one thread. `prune` uses rayon's pool, `scorer` takes
//! one slice after the other on one thread, as a session does while frames stream.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sharpv::prune::{Budget, Method, PruneParams, Scorer, SliceView, prune};

/// Slices, tokens a slice, width: LLaVA-OneVision 0.5B with 32 frames, and `smol` with 8.
const SHAPES: [(usize, usize, usize); 2] = [(32, 196, 896), (8, 64, 576)];

/// Floats in `[-1, 1)` without a pattern that pruning could profit from.
fn noise(len: usize) -> Vec<f32> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
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

fn benchmark(c: &mut Criterion) {
    for (n_slices, n_tokens, n_embd) in SHAPES {
        let data = noise(n_slices * n_tokens * n_embd);
        let slices: Vec<SliceView> = data
            .chunks_exact(n_tokens * n_embd)
            .map(|slice| SliceView::new(slice, n_tokens, n_embd).expect("the shape fits"))
            .collect();
        let mut group = c.benchmark_group(format!("{n_slices}x{n_tokens}x{n_embd}"));
        group.throughput(Throughput::Bytes(size_of_val(data.as_slice()) as u64));

        group.bench_function("baseline/sum", |b| b.iter(|| sum(black_box(&data))));
        let mut copy = vec![0.0; data.len()];
        group.bench_function("baseline/copy", |b| b.iter(|| copy.copy_from_slice(black_box(&data))));

        let budgets = [("adaptive", Budget::Adaptive), ("keep", Budget::Keep(0.12))];
        for (name, budget) in budgets {
            let params = PruneParams { budget, ..PruneParams::default() };
            group.bench_with_input(BenchmarkId::new("prune", name), &params, |b, params| {
                b.iter(|| prune(params, black_box(&slices)));
            });
        }
        for method in [Method::SharpV, Method::Random] {
            let params = PruneParams { method, ..PruneParams::default() };
            group.bench_with_input(BenchmarkId::new("scorer", method), &params, |b, params| {
                b.iter(|| {
                    let mut scorer = Scorer::new(params).expect("default parameters are valid");
                    for &slice in black_box(&slices) {
                        scorer.push(slice).expect("all slices have one width");
                    }
                    scorer.finish()
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
