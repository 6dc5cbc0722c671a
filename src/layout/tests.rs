use super::*;

fn text(text: &str) -> Part {
    Part::text(text)
}

fn slices(frame_times: &[f64], per_slice: usize) -> Slices {
    Slices::new(frame_times, per_slice, Some(frame_times.len() as f64), None)
}

fn encoder(projector: &str, architecture: &str, has_newline: bool) -> EncoderFacts {
    EncoderFacts { projector: projector.into(), architecture: architecture.into(), has_newline, ..Default::default() }
}

#[test]
fn internvl_numbers_its_frames_and_ends_each_line() {
    let internvl = InternVl::new(&EncoderFacts::default());
    assert_eq!(
        internvl.video(&slices(&[0.5, 1.5], 1)),
        [text("Frame1: "), Part::Slice(0), text("\nFrame2: "), Part::Slice(1)]
    );
}

#[test]
fn general_names_the_time_of_each_frame() {
    assert_eq!(
        General.video(&slices(&[7.9, 65.0, 3600.0], 1)),
        [
            text("Frame from 00:07: "),
            Part::Slice(0),
            text("\nFrame from 01:05: "),
            Part::Slice(1),
            text("\nFrame from 1:00:00: "),
            Part::Slice(2),
        ]
    );
}

#[test]
fn every_name_has_a_layout_of_that_name() {
    let facts = EncoderFacts { image_size: Some(64), patch_size: Some(14), ..Default::default() };
    for name in NAMES {
        assert_eq!(by_name(name, &facts).unwrap().name(), *name);
    }
    assert!(by_name("nonsense", &facts).unwrap_err().to_string().contains("qwen2.5-vl"));
}

#[test]
fn every_slice_of_a_video_stands_in_its_prompt_once() {
    let facts = EncoderFacts { image_size: Some(64), patch_size: Some(14), ..Default::default() };
    for name in NAMES {
        let layout = by_name(name, &facts).unwrap();
        let slices = slices(&[0.0, 0.5, 1.0, 1.5, 2.0], layout.frames().per_slice);
        let used: Vec<usize> = layout
            .video(&slices)
            .into_iter()
            .filter_map(|part| if let Part::Slice(i) = part { Some(i) } else { None })
            .collect();
        assert_eq!(used, (0..slices.times.len()).collect::<Vec<_>>(), "{name}");
        assert_eq!(layout.image().iter().filter(|part| **part == Part::Slice(0)).count(), 1, "{name}");
    }
}

#[test]
fn the_family_follows_from_projector_and_architecture() {
    for (projector, architecture, newline, name) in [
        ("internvl", "qwen2", false, "internvl"),
        ("idefics3", "llama", false, "smolvlm"),
        ("mlp", "llama", false, "llava"),
        ("mlp", "llama", true, "llava"),
        ("mlp", "qwen2", true, "llava-onevision"),
        ("qwen2vl_merger", "qwen2vl", false, "qwen2-vl"),
        ("qwen2.5vl_merger", "qwen2vl", false, "qwen2.5-vl"),
        ("qwen3vl_merger", "qwen3vl", false, "qwen3-vl"),
        ("resampler", "qwen2", false, "minicpm-v"),
        ("gemma3", "gemma3", false, "gemma3"),
        ("pixtral", "llama", false, "general"),
    ] {
        assert_eq!(name_for(&encoder(projector, architecture, newline)), name);
    }
}

#[test]
fn pairs_have_two_times_and_the_last_may_be_alone() {
    let slices = slices(&[0.0, 0.5, 1.0], 2);
    assert_eq!(slices.n_frames, FrameCount(3));
    assert_eq!(slices.times, [SliceTime { first_s: 0.0, last_s: 0.5 }, SliceTime { first_s: 1.0, last_s: 1.0 }]);
}

#[test]
fn time_runs_in_seconds_in_qwen2_5_vl_and_in_slices_in_qwen2_vl() {
    let facts = EncoderFacts::default();
    let times = |fps: f64| (0..8).map(|i| f64::from(i) / fps).collect::<Vec<_>>();
    // Two positions per second; a slice is two frames.
    for (fps, steps) in [(2.0, [0, 2, 4, 6]), (1.0, [0, 4, 8, 12]), (4.0, [0, 1, 2, 3]), (3.0, [0, 1, 2, 4])] {
        let slices = slices(&times(fps), 2);
        assert_eq!(Qwen2Vl::with_real_time(&facts).time_steps(&slices).unwrap(), steps, "{fps}");
        assert_eq!(Qwen2Vl::new(&facts).time_steps(&slices).unwrap(), [0, 1, 2, 3]);
    }
}

#[test]
fn time_in_qwen2_5_vl_runs_as_the_frames_were_sampled() {
    // Four frames of 2.9 s, from the first to the last of 87: `second_per_grid_ts` is 2 · 2.9 / 4.
    let times = [0.0, 29.0, 57.0, 86.0].map(|number| number / 30.0);
    let slices = Slices::new(&times, 2, Some(2.9), Some(4.0 / 2.9));
    let qwen = Qwen2Vl::with_real_time(&EncoderFacts::default());
    assert_eq!(qwen.time_steps(&slices).unwrap(), [0, 2]);
    // By the distance between the frames, the second slice would be later.
    assert_eq!(qwen.time_steps(&Slices { sampled_fps: None, ..slices }).unwrap(), [0, 3]);
}

#[test]
fn qwen_images_have_a_budget_of_tokens() {
    let facts = EncoderFacts { patch_size: Some(14), ..Default::default() };
    let tokens = |layout: &dyn Layout, size: Size, n_frames: usize, side: u32| match layout
        .image_size(size, FrameCount(n_frames))
    {
        ImageSize::Exactly((width, height)) => {
            assert!(width.is_multiple_of(side) && height.is_multiple_of(side));
            (width / side * (height / side)) as usize
        }
        ImageSize::AsItIs => panic!("a size"),
    };
    let qwen2 = Qwen2Vl::new(&facts);
    for size in [(1920, 1080), (1080, 1920), (640, 480), (64, 64), (4000, 100)] {
        for n_frames in [1, 8, 300, 768] {
            let n = tokens(&qwen2, size, n_frames, 28);
            assert!((128..=768).contains(&n), "{size:?} {n_frames} {n}");
            assert!(n * n_frames <= 115_200 * 2, "{size:?} {n_frames} {n}");
        }
    }
    let small = qwen2.with_slice_tokens(80).unwrap();
    assert!(tokens(small.as_ref(), (1920, 1080), 8, 28) <= 80);

    let qwen3 = Qwen3Vl::new(&EncoderFacts { patch_size: Some(16), ..Default::default() });
    for n_frames in [2, 8, 100, 768] {
        let n = tokens(&qwen3, (1920, 1080), n_frames, 32);
        assert!(n * n_frames <= 24_576 && n <= 768, "{n_frames} {n}");
    }
}
