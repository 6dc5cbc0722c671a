//! Sessions whose encoder skips computations.

use crate::support::families::distance;
use crate::support::{families, program};

use image::{Rgb, RgbImage};
use sharpv::chat::{Answer, EvictParams, Session, SessionParams, VideoOptions};
use sharpv::lab::methods;
use sharpv::models::gguf;
use sharpv::prune::{Budget, Method, PruneParams};
use sharpv::runtime::CancelToken;
use sharpv::skip::{EncodeMode, EncodeParams, Reuse, Stop};
use sharpv::{Error, Observer, Stage};
use std::path::Path;

const FAMILIES: [&str; 8] =
    ["smolvlm", "qwen2vl", "qwen2.5vl", "qwen3vl", "llava-onevision", "internvl", "minicpmv", "gemma3"];

fn params(encode: EncodeParams) -> SessionParams {
    SessionParams { encode, evict: EvictParams::off(), n_predict: 4, ..SessionParams::default() }
}

fn in_mode(mode: EncodeMode) -> EncodeParams {
    EncodeParams::default().in_mode(mode)
}

fn open(family: &str, params: SessionParams) -> Session {
    Session::open(&families::files(family), params, &mut ()).unwrap_or_else(|error| panic!("{family}: {error}"))
}

fn options() -> VideoOptions {
    VideoOptions { fps: Some(1.0), folder_fps: Some(1.0), ..VideoOptions::default() }
}

/// The logits after a question about the frames in `folder`, and the answer.
fn ask(session: &mut Session, folder: &Path) -> (Vec<f32>, Answer) {
    session.clear();
    session.add_video(folder, &options(), &mut ()).expect("the frames are read");
    let logits = session.first_logits("What is it?", &mut ()).expect("logits");
    (logits, session.ask("What is it?", &mut ()).expect("an answer"))
}

/// A folder of frames.
fn clip(frames: impl Iterator<Item = RgbImage>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (i, frame) in frames.enumerate() {
        frame.save(folder.path().join(format!("{i}.png"))).expect("a frame");
    }
    folder
}

/// A still scene with a square that moves from frame to frame. `noise` is added to every second pixel and subtracted
/// from the others.
fn still_camera(n: u32, noise: u8) -> tempfile::TempDir {
    clip((0..n).map(|i| {
        RgbImage::from_fn(224, 224, |x, y| {
            let inside = (20 * i..20 * i + 40).contains(&x) && (60..100).contains(&y);
            let base =
                if inside { [220, 40, 60] } else { [60 + (x / 8 * 7 % 90) as u8, 80 + (y / 8 * 5 % 90) as u8, 120] };
            // The first frame has no noise.
            let noise = if i == 0 { 0 } else { noise };
            Rgb(base.map(|c| if (x + y) % 2 == 0 { c + noise } else { c - noise }))
        })
    }))
}

/// Frames that share nothing.
fn moving_camera(n: u32) -> tempfile::TempDir {
    clip((0..n).map(|i| families::image((224, 224), 5 * i)))
}

/// The paper's method scores exact embeddings.
#[test]
fn the_papers_own_is_encoded_exactly_unless_told_otherwise() {
    let clip = still_camera(5, 0);
    let prune = |method| PruneParams { method, ..PruneParams::default() };
    let with = |method, mode| SessionParams { prune: prune(method), keep_unpruned: true, ..params(in_mode(mode)) };
    let mut session = open("smolvlm", with(Method::SHARPV_PAPER, EncodeMode::Auto));
    let plan = session.plan_video(clip.path(), &options().for_question("What is it?")).expect("a plan");
    assert_eq!(plan.encode, EncodeMode::Exact);
    let (auto, answer) = ask(&mut session, clip.path());
    assert_eq!((answer.encoder.computed, answer.settings.encode.mode), (1.0, EncodeMode::Exact));
    let (exact, _) = ask(&mut open("smolvlm", with(Method::SHARPV_PAPER, EncodeMode::Exact)), clip.path());
    assert_eq!(auto, exact);
    // A mode that is set explicitly is used.
    let (_, named) = ask(&mut open("smolvlm", with(Method::SHARPV_PAPER, EncodeMode::Reuse)), clip.path());
    assert!(named.encoder.computed < 1.0, "{:?}", named.encoder);

    // With another method, embeddings may be estimates.
    let mut session = open("smolvlm", with(Method::SHARPV, EncodeMode::Auto));
    let (_, other) = ask(&mut session, clip.path());
    assert!(other.encoder.computed < 1.0, "{:?}", other.encoder);
    let error = session.set_prune(prune(Method::SHARPV_PAPER)).expect_err("estimates").to_string();
    assert!(error.contains("encoded exactly"), "{error}");
    session.clear();
    session.set_prune(prune(Method::SHARPV_PAPER)).expect("nothing is there");
    assert_eq!(ask(&mut session, clip.path()).0, exact);
}

#[test]
fn with_nothing_left_out_answers_are_the_exact_ones() {
    let clip = moving_camera(4);
    for family in FAMILIES {
        let (exact, answer) = ask(&mut open(family, params(in_mode(EncodeMode::Exact))), clip.path());
        assert_eq!(answer.encoder.computed, 1.0, "{family}");
        // All cells count as changed, and all tokens go on.
        let reuse = Reuse { threshold: 0.0, ..Reuse::default() };
        let stop = Stop { multiple: 1000.0, least: 1.0, ..Stop::default() };
        for mode in [EncodeMode::Reuse, EncodeMode::Stop, EncodeMode::Fast, EncodeMode::Auto] {
            if family == "minicpmv" && matches!(mode, EncodeMode::Stop | EncodeMode::Fast) {
                continue;
            }
            let (logits, answer) = ask(&mut open(family, params(EncodeParams { mode, reuse, stop })), clip.path());
            assert_eq!(answer.encoder.computed, 1.0, "{family}, {mode}");
            assert!(distance(&logits, &exact) < 1e-2, "{family}, {mode}: {}", distance(&logits, &exact));
        }
    }
}

#[test]
fn a_still_camera_is_little_work_and_noise_is_none() {
    for family in FAMILIES {
        let mut session = open(family, params(in_mode(EncodeMode::Reuse)));
        let clip = still_camera(6, 0);
        let (logits, answer) = ask(&mut session, clip.path());
        assert!(answer.encoder.computed < 0.8 && answer.encoder.saved_ms > 0.0, "{family}: {:?}", answer.encoder);
        assert_eq!(answer.slices[0].computed, 1.0, "{family}");
        assert!(answer.slices[1..].iter().all(|slice| slice.computed < 1.0), "{family}: {:?}", answer.slices);
        let noisy = still_camera(6, 20);
        let (_, with_noise) = ask(&mut session, noisy.path());
        assert!(with_noise.encoder.computed <= answer.encoder.computed + 0.1, "{family}: {:?}", with_noise.encoder);
        let (exact, _) = ask(&mut open(family, params(in_mode(EncodeMode::Exact))), clip.path());
        assert!(distance(&logits, &exact) < 0.5, "{family}: {}", distance(&logits, &exact));
    }
}

#[test]
fn a_frame_with_nothing_new_costs_nothing_and_keeps_nothing() {
    let frames = || {
        (0..4).map(|i| {
            let mut frame = families::image((224, 224), 1);
            // The pixels differ, but not visibly.
            frame.put_pixel(i, 0, Rgb([0, 0, 0]));
            frame
        })
    };
    for family in FAMILIES {
        let clip = clip(frames());
        let (_, answer) = ask(&mut open(family, params(in_mode(EncodeMode::Auto))), clip.path());
        let rest = &answer.slices[1..];
        assert!(rest.iter().all(|slice| slice.computed == 0.0 && slice.kept == 0), "{family}: {:?}", answer.slices);
    }
}

#[test]
fn tokens_that_stopped_are_not_kept() {
    let clip = moving_camera(4);
    for family in FAMILIES.into_iter().filter(|&family| family != "minicpmv") {
        let prune = PruneParams { budget: Budget::Keep(0.2), ..PruneParams::default() };
        let stop = Stop { multiple: 1.0, least: 0.0, ..Stop::default() };
        let encode = EncodeParams { stop, ..in_mode(EncodeMode::Stop) };
        let (_, answer) = ask(&mut open(family, SessionParams { prune, ..params(encode) }), clip.path());
        assert!(answer.encoder.computed < 0.95, "{family}: {:?}", answer.encoder);
        let tokens = answer.visual_tokens;
        assert!(tokens.kept > 0 && tokens.keep_ratio < 0.25, "{family}: {tokens:?}");
        // Other methods than SharpV stop no tokens.
        for method in [Method::OFF, methods::EVS] {
            let prune = PruneParams { method, ..PruneParams::default() };
            let (_, answer) = ask(&mut open(family, SessionParams { prune, ..params(encode) }), clip.path());
            assert_eq!(answer.encoder.computed, 1.0, "{family}, {method}");
        }
    }
}

#[test]
fn a_second_video_does_not_see_the_first() {
    let (first, second) = (still_camera(3, 0), moving_camera(3));
    let small = clip((0..3).map(|i| families::image((112, 84), i)));
    for family in FAMILIES {
        let fresh = |clip: &tempfile::TempDir| ask(&mut open(family, params(in_mode(EncodeMode::Auto))), clip.path()).0;
        let mut session = open(family, params(in_mode(EncodeMode::Auto)));
        for clip in [&first, &small, &second, &first] {
            let (logits, _) = ask(&mut session, clip.path());
            assert!(distance(&logits, &fresh(clip)) < 1e-4, "{family}");
        }
    }
}

/// Cancels the session once the second frame is encoded.
struct Impatient(CancelToken);

impl Observer for Impatient {
    fn progress(&mut self, stage: Stage, done: u64, _: u64) {
        if stage == Stage::Encode && done >= 2 {
            self.0.cancel();
        }
    }
}

#[test]
fn a_stop_in_the_middle_leaves_nothing_behind() {
    let clip = still_camera(6, 0);
    let token = CancelToken::new();
    let mut session = open("internvl", SessionParams { cancel: token.clone(), ..params(in_mode(EncodeMode::Fast)) });
    let (expected, _) = ask(&mut session, clip.path());
    session.clear();
    let stopped = session.add_video(clip.path(), &options(), &mut Impatient(token.clone()));
    assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
    token.reset();
    let (logits, _) = ask(&mut session, clip.path());
    assert!(distance(&logits, &expected) < 1e-4);
}

#[test]
fn sessions_side_by_side_do_not_meet() {
    let clips = [still_camera(5, 0), moving_camera(4)];
    let work = |clip: &tempfile::TempDir| {
        let mut session = open("smolvlm", params(in_mode(EncodeMode::Fast)));
        (0..3).map(|_| ask(&mut session, clip.path()).0).collect::<Vec<_>>()
    };
    let alone: Vec<_> = clips.iter().map(work).collect();
    let together = std::thread::scope(|scope| {
        let threads: Vec<_> = clips.iter().map(|clip| scope.spawn(move || work(clip))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect::<Vec<_>>()
    });
    for (alone, together) in alone.iter().flatten().zip(together.iter().flatten()) {
        assert!(distance(alone, together) < 1e-4);
    }
}

#[test]
fn selections_anew_need_what_was_finished() {
    let clip = moving_camera(4);
    let stop = Stop { multiple: 1.0, least: 0.0, ..Stop::default() };
    let encode = EncodeParams { stop, ..in_mode(EncodeMode::Stop) };
    let mut session = open("smolvlm", SessionParams { keep_unpruned: true, ..params(encode) });
    ask(&mut session, clip.path());
    session.set_prune(PruneParams::default()).expect("the same selection");
    let refused = session.set_prune(PruneParams::off()).expect_err("it was not finished").to_string();
    assert!(refused.contains("exactly"), "{refused}");
    // In automatic mode, a session that keeps unpruned tokens encodes all of them.
    session.set_encode(in_mode(EncodeMode::Auto)).expect("a mode");
    ask(&mut session, clip.path());
    session.set_prune(PruneParams::off()).expect("all tokens are there");
}

#[test]
fn what_an_encoder_cannot_do_is_refused_by_name() {
    let files = families::files("minicpmv");
    for mode in [EncodeMode::Stop, EncodeMode::Fast] {
        let error = Session::open(&files, params(in_mode(mode)), &mut ()).expect_err("a resampler").to_string();
        assert!(error.contains(&mode.to_string()) && error.contains("reuse"), "{error}");
    }
    let mut session = open("minicpmv", params(in_mode(EncodeMode::Auto)));
    assert!(session.set_encode(in_mode(EncodeMode::Fast)).is_err());
    let clip = still_camera(3, 0);
    let plan = session.plan_video(clip.path(), &options().for_question("What?")).expect("a plan");
    assert_eq!(plan.encode, EncodeMode::Reuse);
    assert!(plan.memory.encoder_cache > 0);
}

#[test]
fn a_plan_counts_what_is_kept_between_frames() {
    let clip = still_camera(2, 0);
    for family in FAMILIES {
        let plan = |mode| {
            let session = open(family, params(in_mode(mode)));
            session.plan_video(clip.path(), &options().for_question("What?")).expect("a plan")
        };
        let exact = plan(EncodeMode::Exact);
        assert_eq!((exact.encode, exact.memory.encoder_cache), (EncodeMode::Exact, 0), "{family}");
        let auto = plan(EncodeMode::Auto);
        let expected = if family == "minicpmv" { EncodeMode::Reuse } else { EncodeMode::Fast };
        assert_eq!(auto.encode, expected, "{family}");
        assert!(auto.memory.encoder_cache > 0, "{family}");
    }
    // The mmproj's metadata determines the size.
    let mmproj = families::files("smolvlm").mmproj.expect("an mmproj");
    let metadata = gguf::read_metadata(&mmproj).expect("metadata");
    let number = |key| metadata.u64(key).expect("a number");
    let (side, patch) = (number("clip.vision.image_size"), number("clip.vision.patch_size"));
    let (layers, n_embd) = (number("clip.vision.block_count"), number("clip.vision.embedding_length"));
    let session = open("smolvlm", params(in_mode(EncodeMode::Reuse)));
    let plan = session.plan_video(clip.path(), &options().for_question("What?")).expect("a plan");
    assert_eq!(plan.memory.encoder_cache, (side / patch).pow(2) * n_embd * (4 * layers + 8));
}

#[test]
fn the_program_refuses_values_that_make_no_sense() {
    let clip = concat!(env!("CARGO_MANIFEST_DIR"), "/demo/clip.mp4");
    for (command, option, value, reason) in [
        ("ask", "--encode", "quick", "auto, exact"),
        ("ask", "--encode-change", "-1", "between 0 and 1"),
        ("bench", "--encode", "quick", "reuse, stop, fast"),
        ("bench", "--encode-change", "nan", "between 0 and 1"),
        ("bench", "--encode-whole", "2", "between 0 and 1"),
        ("bench", "--encode-refresh", "0", "at least 1"),
        ("bench", "--encode-depth", "1", "below 1"),
        ("bench", "--encode-multiple", "0.5", "1 to 1000"),
        ("bench", "--encode-least", "inf", "between 0 and 1"),
    ] {
        let output = program::sharpv(&[command, clip, "What?", option, value]).output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(reason), "{command} {option} {value}: {text}");
        assert!(!text.contains("panicked"), "{text}");
    }
}

#[test]
fn the_program_tells_what_was_computed() {
    let clip = concat!(env!("CARGO_MANIFEST_DIR"), "/demo/clip.mp4");
    let output = program::with_smol(&["ask", clip, "What?", "-m", "smol", "--encode", "reuse", "--json", "-n", "2"])
        .output()
        .expect("it runs");
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let computed = answer["encoder"]["computed"].as_f64().expect("a share");
    assert!(computed > 0.0 && computed < 1.0, "{computed}");
    assert_eq!(answer["settings"]["encode"]["mode"], "reuse");
    let slices = answer["slices"].as_array().expect("slices");
    assert!(slices.iter().any(|slice| slice["computed"].as_f64().is_some_and(|share| share < 1.0)));
    let output = program::with_smol(&["plan", clip, "-m", "smol", "--encode", "fast"]).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("encoding") && text.contains("fast; keeps"), "{text}");
}
