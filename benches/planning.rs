//! Planning before the first frame is encoded: the times of the frames, and the parts of the prompt. `cargo bench
//! --bench planning`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sharpv::layout::{EncoderFacts, FrameCount, NAMES, Slices, by_name};

// Planning is not public: opening a file does it. This is the code without the file.
#[path = "../src/video/sampling.rs"]
#[allow(dead_code)]
mod sampling;

#[path = "../src/video/spread.rs"]
#[allow(dead_code)]
mod spread;

/// What `sampling` imports from its crate.
mod error {
    pub type Result<T> = std::result::Result<T, Error>;
    pub use sharpv::Error;
}

use sampling::{Rate, Sampling};
use spread::{Known, Rounding, Spread};

/// The maximum number of frames of any family.
const N_FRAMES: usize = 768;

/// Two hours of video at 25 frames a second.
const VIDEO_S: f64 = 7200.0;
const VIDEO_FPS: f64 = 25.0;

fn layouts(c: &mut Criterion) {
    let times: Vec<f64> = (0..N_FRAMES).map(|i| i as f64 / 2.0).collect();
    let facts = EncoderFacts { image_size: Some(448), patch_size: Some(14), has_newline: true, ..Default::default() };
    let mut group = c.benchmark_group("layout of 768 frames");
    group.sample_size(20).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(500));
    group.throughput(Throughput::Elements(N_FRAMES as u64));
    for &name in NAMES {
        let layout = by_name(name, &facts).expect("the name is in the list");
        group.bench_with_input(BenchmarkId::from_parameter(name), &layout, |b, layout| {
            b.iter(|| {
                let slices = Slices::new(black_box(&times), layout.frames().per_slice, Some(384.0), Some(2.0));
                (
                    layout.video(&slices),
                    layout.time_steps(&slices),
                    layout.image_size((1920, 1080), FrameCount(N_FRAMES)),
                )
            });
        });
    }
    group.finish();
}

fn moments(c: &mut Criterion) {
    let times: Vec<f64> = (0..(VIDEO_S * VIDEO_FPS) as usize).map(|i| i as f64 / VIDEO_FPS).collect();
    let mut group = c.benchmark_group("moments of two hours");
    group.sample_size(20).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_millis(500));
    let ends = Spread::Ends { count: Rounding::Down, number: Rounding::Nearest, margin_s: 0.0 };
    let samplings = [
        ("768 spread", Sampling::uniform(N_FRAMES)),
        ("2 a second", Sampling::fps(2.0, usize::MAX)),
        ("768 from the first to the last", Sampling { spread: ends, ..Sampling::uniform(N_FRAMES) }),
    ];
    for (name, sampling) in samplings {
        for (known, frame_times) in [("frames known", Some(&times[..])), ("frames unknown", None)] {
            group.bench_function(format!("{name}, {known}"), |b| {
                let known = Known { fps: Some(VIDEO_FPS), frame_times };
                b.iter(|| sampling.plan(black_box(&(0.0..VIDEO_S)), black_box(known)));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, layouts, moments);
criterion_main!(benches);
