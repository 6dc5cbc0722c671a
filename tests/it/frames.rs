//! Frames in memory: they behave like the same frames in files, and invalid frames are errors.

use crate::support::{families, smol};

use sharpv::chat::{Session, SessionParams, VideoOptions};
use sharpv::error::Error;
use sharpv::runtime::CancelToken;
use sharpv::video::{Frame, FrameSource, Frames, Kind, Sampling};
use std::path::{Path, PathBuf};

const QUESTION: &str = "What appears first?";

fn clip(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(name)
}

/// All frames of a folder with one frame per second.
fn frames_of(path: &Path) -> Vec<Frame> {
    let source = FrameSource::open(path, &Sampling::uniform(10_000)).expect("the folder opens");
    source.map(|frame| frame.expect("a frame")).collect()
}

fn in_memory(frames: &[Frame]) -> Frames {
    let mut memory = Frames::new(frames[0].width, frames[0].height);
    for frame in frames {
        memory.push(frame.rgb.as_slice(), frame.time_s).expect("a frame");
    }
    memory
}

#[test]
fn frames_in_memory_are_sampled_as_those_of_a_folder() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    families::write_frames(folder.path(), (32, 24), 23);
    let memory = in_memory(&frames_of(folder.path()));
    assert_eq!((memory.len(), memory.size()), (23, (32, 24)));
    let cut = |sampling, start_s, end_s| Sampling { start_s, end_s, ..sampling };
    let samplings = [
        Sampling::uniform(8),
        Sampling::uniform(23),
        Sampling::uniform(100),
        Sampling::fps(1.0, 100),
        Sampling::fps(0.3, 100),
        Sampling::fps(5.0, 100),
        Sampling::fps(2.0, 7),
        cut(Sampling::uniform(4), Some(3.5), Some(9.0)),
        cut(Sampling::fps(0.5, 16), Some(20.0), None),
        Sampling { min_frames: 6, ..Sampling::fps(0.1, 16) },
        Sampling { multiple_of: 4, ..Sampling::fps(0.5, 16) },
    ];
    for sampling in samplings {
        let file = FrameSource::open(folder.path(), &sampling).expect("the folder opens");
        let ours = FrameSource::from_frames("camera", &memory, &sampling).expect("the frames open");
        assert_eq!(ours.planned_times(), file.planned_times(), "{sampling:?}");
        let (info, of_file) = (ours.info().clone(), file.info().clone());
        assert_eq!((info.kind, info.path.to_str()), (Kind::Frames, Some("camera")));
        assert_eq!((info.width, info.height, info.n_frames), (of_file.width, of_file.height, of_file.n_frames));
        assert!((info.duration_s.expect("a length") - of_file.duration_s.expect("a length")).abs() < 1e-9);
        let read = |source: FrameSource| source.map(|frame| frame.expect("a frame")).collect::<Vec<_>>();
        assert!(read(ours.decode_ahead()) == read(file), "{sampling:?}");
    }
}

#[test]
fn time_counts_from_the_first_frame() {
    let mut memory = Frames::new(2, 2);
    for (i, time) in [1000.5, 1001.0, 1002.0].into_iter().enumerate() {
        memory.push(vec![i as u8; 12], time).expect("a frame");
    }
    let all = |memory: &Frames| {
        let source = FrameSource::from_frames("camera", memory, &Sampling::fps(1.0, 100)).expect("they open");
        let duration = source.info().duration_s;
        (source.map(|frame| frame.expect("a frame")).map(|f| (f.time_s, f.rgb[0])).collect::<Vec<_>>(), duration)
    };
    // The last frame lasts as long as the others on average, 0.75 s.
    assert_eq!(all(&memory), (vec![(0.0, 0), (1.0, 1), (2.0, 2)], Some(2.25)));
    memory.ends_at(1010.5);
    assert_eq!(all(&memory), (vec![(0.0, 0), (1.0, 1), (2.0, 2)], Some(10.0)));
}

#[test]
fn what_is_wrong_with_a_frame_is_told() {
    let mut memory = Frames::new(4, 2);
    let error = |result: sharpv::Result<()>| match result {
        Err(error @ Error::InvalidParameter { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let told = error(memory.push(vec![0; 32], 0.0));
    assert_eq!(
        told,
        "the number of bytes of a frame is 32, but must be 24: 4×2 pixels of three bytes (red, green, blue)"
    );
    memory.push(vec![0; 24], 1.5).expect("a frame");
    for time in [1.5, 1.0, f64::NAN, f64::INFINITY] {
        let told = error(memory.push(vec![0; 24], time));
        assert!(told.contains("the time of a frame"), "{told}");
    }
    assert_eq!(memory.len(), 1);
    assert!(error(Frames::new(0, 2).push(Vec::new(), 0.0)).contains("0×2"));
    let none = FrameSource::from_frames("camera", &Frames::new(4, 2), &Sampling::default());
    assert!(matches!(none, Err(Error::InvalidParameter { name: "the number of frames", .. })), "{none:?}");
    let beyond = Sampling { start_s: Some(100.0), ..Sampling::default() };
    memory.push(vec![0; 24], 2.5).expect("a frame");
    let beyond = FrameSource::from_frames("camera", &memory, &beyond);
    assert!(matches!(beyond, Err(Error::StartBeyondEnd { .. })), "{beyond:?}");
}

#[test]
fn frames_in_memory_get_the_answer_of_the_same_folder() {
    let memory = in_memory(&frames_of(&clip("order-1")));
    let options = VideoOptions { max_frames: Some(6), ..VideoOptions::default() };
    let open = || {
        let params = SessionParams { n_predict: 16, ..SessionParams::default() };
        Session::open(&smol::files(), params, &mut ()).expect("smol opens")
    };
    let (mut ours, mut file) = (open(), open());
    let planned = ours.plan_video(("camera", &memory), &options.for_question(QUESTION)).expect("a plan");
    let expected = file.plan_video(clip("order-1"), &options.for_question(QUESTION)).expect("a plan");
    assert_eq!((planned.asked, planned.planned, planned.fits), (expected.asked, expected.planned, expected.fits));

    let report = ours.add_video(("camera", &memory), &options, &mut ()).expect("the frames are read");
    let expected = file.add_video(clip("order-1"), &options, &mut ()).expect("the clip is read");
    assert_eq!(report.info.path, Path::new("camera"));
    assert_eq!((report.slices, report.visual_tokens), (expected.slices, expected.visual_tokens));
    assert_eq!(ours.prompt_rows(QUESTION).expect("rows"), file.prompt_rows(QUESTION).expect("rows"));
    let logits = |session: &mut Session| session.first_logits(QUESTION, &mut ()).expect("logits");
    assert!(logits(&mut ours) == logits(&mut file));
    let answer = |session: &mut Session| session.ask(QUESTION, &mut ()).expect("an answer").answer;
    assert_eq!(answer(&mut ours), answer(&mut file));

    // A saved session needs neither the frames nor the folder.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let saved = folder.path().join("session");
    ours.save(&saved).expect("it is saved");
    let mut restored = open();
    restored.load(&saved).expect("it is restored");
    assert_eq!(restored.videos().next().expect("a video").kind, Kind::Frames);
}

#[test]
fn one_frame_is_an_image() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    families::write_frames(folder.path(), (56, 56), 1);
    let file = folder.path().join("0000.png");
    let memory = in_memory(&frames_of(folder.path()));
    let open = || Session::open(&families::files("internvl"), SessionParams::default(), &mut ()).expect("it opens");
    let (mut ours, mut image) = (open(), open());
    let report = ours.add_video(("screen", &memory), &VideoOptions::default(), &mut ()).expect("an image");
    image.add_video(&file, &VideoOptions::default(), &mut ()).expect("an image");
    assert_eq!((report.info.kind, report.info.duration_s), (Kind::Image, None));
    let rows = |session: &Session| session.prompt_rows(QUESTION).expect("rows");
    assert_eq!(rows(&ours), rows(&image));
}

#[test]
fn a_cancel_stops_reading_from_memory() {
    let cancel = CancelToken::new();
    let params = SessionParams { cancel: cancel.clone(), ..SessionParams::default() };
    let mut session = Session::open(&families::files("internvl"), params, &mut ()).expect("it opens");
    let mut memory = Frames::new(8, 8);
    (0..4).try_for_each(|i| memory.push(vec![60 * i as u8; 192], f64::from(i))).expect("frames");
    cancel.cancel();
    let stopped = session.add_video(("camera", &memory), &VideoOptions::default(), &mut ());
    assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
    cancel.reset();
    session.add_video(("camera", &memory), &VideoOptions::default(), &mut ()).expect("the frames are read");
}
