//! Long videos: surveys that choose frames by what changes, and zooms into a part.

use crate::support::families;
use crate::support::program::sharpv;
use crate::support::video_clips::Clips;
use predicates::prelude::*;
use predicates::str::contains;
use sharpv::chat::{FrameChoice, RowKey, Session, SessionParams, VideoOptions, VideoReport};
use sharpv::prune::{Budget, PruneParams};
use sharpv::video::Frames;
use std::path::Path;

/// Ten minutes of a grey that hardly changes, at one image per second, with a white square from 5:01 to 5:03.
fn ten_minutes() -> Frames {
    let mut frames = Frames::new(64, 48);
    for second in 0..600_usize {
        let grey = 100 + (second / 60 % 2) as u8;
        let square = |i: usize| (301..304).contains(&second) && i % 64 < 12 && i / 64 < 12;
        let rgb: Vec<u8> = (0..64 * 48).flat_map(|i| [if square(i) { 255 } else { grey }; 3]).collect();
        frames.push(rgb, second as f64).expect("a frame");
    }
    frames
}

fn open(family: &str) -> Session {
    let params = SessionParams { n_predict: 4, ..SessionParams::default() };
    Session::open(&families::files(family), params, &mut ()).expect("the fixture opens")
}

fn add(session: &mut Session, n: usize, choice: FrameChoice) -> VideoReport {
    let options = VideoOptions { max_frames: Some(n), choice, ..VideoOptions::default() };
    session.add_video(("camera", &ten_minutes()), &options, &mut ()).expect("it is encoded")
}

fn times(report: &VideoReport) -> Vec<f64> {
    report.slices.iter().map(|slice| slice.time_s).collect()
}

fn shows_the_square(times: &[f64]) -> bool {
    times.iter().any(|time| (301.0..304.0).contains(time))
}

#[test]
fn what_is_seen_for_a_short_time_has_its_frame() {
    let mut session = open("smolvlm");
    for choice in [FrameChoice::Auto, FrameChoice::Changes] {
        let report = add(&mut session, 12, choice);
        let survey = report.survey.expect("it was looked over");
        assert_eq!((survey.looks, survey.keyframes_only), (600, false));
        let times = times(&report);
        assert!(times.len() == 12 && times.is_sorted(), "{times:?}");
        assert!(shows_the_square(&times), "{times:?}");
        assert_eq!(session.ask("What is it?", &mut ()).expect("an answer").frames, 12);
        session.clear();
    }
    let even = add(&mut session, 12, FrameChoice::Even);
    assert!(even.survey.is_none() && !shows_the_square(&times(&even)));
}

#[test]
fn short_videos_are_not_looked_over() {
    let mut session = open("smolvlm");
    let options = VideoOptions { max_frames: Some(12), end_s: Some(20.0), ..VideoOptions::default() };
    let added =
        |session: &mut Session, options: &VideoOptions| session.add_video(("camera", &ten_minutes()), options, &mut ());
    // Twelve frames in twenty seconds are less than two seconds apart.
    assert!(added(&mut session, &options).expect("a video").survey.is_none());
    let by_name = VideoOptions { choice: FrameChoice::Changes, ..options.clone() };
    assert!(added(&mut session, &by_name).expect("a video").survey.is_some());
    // There is no survey, either, if the requested rate can be kept.
    let rate = VideoOptions { fps: Some(0.1), max_frames: Some(100), ..by_name.clone() };
    assert!(added(&mut session, &VideoOptions { end_s: None, ..rate }).expect("a video").survey.is_none());
}

/// InternVL takes eight frames of any video, but of ten minutes one every 30 seconds.
#[test]
fn a_fixed_number_of_frames_is_for_short_videos() {
    let mut session = open("internvl");
    for (choice, n) in [(FrameChoice::Auto, 20), (FrameChoice::Even, 8)] {
        let options = VideoOptions { choice, ..VideoOptions::default() };
        let report = session.add_video(("camera", &ten_minutes()), &options, &mut ()).expect("it is encoded");
        assert_eq!(times(&report).len(), n);
        assert_eq!(shows_the_square(&times(&report)), choice == FrameChoice::Auto, "{:?}", times(&report));
    }
}

/// If two frames form a slice, they are close to each other.
#[test]
fn merged_frames_are_neighbors() {
    let mut session = open("qwen2vl");
    let report = add(&mut session, 12, FrameChoice::Changes);
    assert_eq!(report.slices.len(), 6);
    assert!(shows_the_square(&times(&report)), "{:?}", times(&report));
    session.ask("What is it?", &mut ()).expect("an answer");
}

#[test]
fn a_part_is_within_its_range() {
    let mut session = open("smolvlm");
    let options = VideoOptions {
        max_frames: Some(8),
        start_s: Some(200.0),
        end_s: Some(400.0),
        choice: FrameChoice::Changes,
        ..VideoOptions::default()
    };
    let report = session.add_video(("camera", &ten_minutes()), &options, &mut ()).expect("it is encoded");
    assert_eq!(report.survey.expect("looked over").looks, 200);
    let times = times(&report);
    assert!(times.iter().all(|time| (200.0..400.0).contains(time)) && shows_the_square(&times), "{times:?}");
}

/// A frame without kept tokens keeps its text, which tells the model that nothing has changed.
#[test]
fn frames_without_tokens_keep_their_text() {
    let rows = |prune: PruneParams| {
        let params = SessionParams { prune, ..SessionParams::default() };
        let mut session = Session::open(&families::files("smolvlm"), params, &mut ()).expect("the fixture opens");
        // Pruning drops an image that repeats.
        let mut frames = Frames::new(64, 48);
        (0..8).for_each(|i| frames.push(vec![90; 64 * 48 * 3], f64::from(i)).expect("a frame"));
        let options = VideoOptions { fps: Some(1.0), ..VideoOptions::default() };
        let report = session.add_video(("camera", &frames), &options, &mut ()).expect("it is encoded");
        let n_empty = report.slices.iter().filter(|slice| slice.kept == 0).count();
        let mut rows = session.prompt_rows("What is it?").expect("a prompt");
        rows.retain(|row| matches!(row.key, RowKey::Token(_)));
        (rows, n_empty)
    };
    let (dense, _) = rows(PruneParams::off());
    let (pruned, n_empty) = rows(PruneParams { budget: Budget::Keep(0.02), ..PruneParams::default() });
    assert!(n_empty > 0);
    assert_eq!(pruned, dense);
}

/// A minute of colors at 5 frames per second.
fn minute(clips: &Clips) -> std::path::PathBuf {
    clips.draw("testsrc=size=96x64:rate=5:duration=60", "-c:v mpeg4 -g 10", "minute.mp4")
}

#[test]
fn a_question_that_names_a_time_gets_frames_of_it() {
    let clips = Clips::new();
    let path = minute(&clips);
    let mut session = open("smolvlm");
    let options = VideoOptions { max_frames: Some(4), ..VideoOptions::default() };
    session.add_video(&path, &options, &mut ()).expect("a video");
    for question in ["What is it?", "What is at 5:00?", "Is it 16:9?"] {
        assert!(session.zoom(question, &mut ()).expect("it works").is_none(), "{question}");
    }
    assert_eq!(session.videos().len(), 1);
    let zoom = session.zoom("What is at 0:30?", &mut ()).expect("it works").expect("a part");
    assert_eq!((zoom.start_s, zoom.end_s, zoom.frames), (22.0, 38.0, 16));
    assert_eq!(zoom.to_string(), "00:22 to 00:38");
    let times: Vec<f64> = zoom.report.slices.iter().map(|slice| slice.time_s).collect();
    assert_eq!(times, (0..16).map(|i| 22.0 + f64::from(i)).collect::<Vec<_>>());
    let answer = session.ask("What is at 0:30?", &mut ()).expect("an answer");
    assert_eq!(answer.frames, 20);
    // The session has these frames now.
    assert!(session.zoom("And at 0:31?", &mut ()).expect("it works").is_none());
    let span = session.zoom("From 0:50 to 0:58?", &mut ()).expect("it works").expect("a part");
    assert_eq!((span.start_s, span.end_s, span.frames), (50.0, 58.0, 8));
    // There is no zoom into a file that was removed.
    std::fs::remove_file(&path).expect("removed");
    assert!(session.zoom("What is at 0:05?", &mut ()).expect("it works").is_none());
}

/// If the encoder merges frames, a part has half as many slices as frames.
#[test]
fn merged_frames_count_as_frames() {
    let clips = Clips::new();
    let path = minute(&clips);
    let add = |fps| {
        let mut session = open("qwen2vl");
        let options = VideoOptions { fps: Some(fps), ..VideoOptions::default() };
        let report = session.add_video(&path, &options, &mut ()).expect("a video");
        assert_eq!(report.frames(), (60.0 * fps) as usize);
        assert_eq!(report.slices.len(), report.frames().div_ceil(2));
        session
    };
    // Frames at 24, 28, 32 and 36 seconds.
    let mut session = add(0.25);
    let zoom = session.zoom("What is at 0:30?", &mut ()).expect("it works").expect("a part");
    assert_eq!((zoom.frames_before, zoom.frames, zoom.report.slices.len()), (4, 16, 8));
    assert_eq!(session.ask("What is at 0:30?", &mut ()).expect("an answer").frames, 15 + 16);
    // Half of the possible frames suffice: eight of sixteen.
    assert!(add(0.5).zoom("What is at 0:30?", &mut ()).expect("it works").is_none());
}

#[test]
fn memory_cannot_be_looked_at_again() {
    let mut session = open("smolvlm");
    add(&mut session, 4, FrameChoice::Even);
    assert!(session.zoom("What is at 5:02?", &mut ()).expect("it works").is_none());
}

#[test]
fn a_part_that_does_not_fit_is_left_out() {
    let clips = Clips::new();
    let params =
        SessionParams { n_predict: 4, n_ctx: Some(512), prune: PruneParams::off(), ..SessionParams::default() };
    let mut session = Session::open(&families::files("smolvlm"), params, &mut ()).expect("the fixture opens");
    let options = VideoOptions { max_frames: Some(4), ..VideoOptions::default() };
    session.add_video(minute(&clips), &options, &mut ()).expect("a video");
    struct Warnings(Vec<String>);
    impl sharpv::Observer for Warnings {
        fn warning(&mut self, message: &str) {
            self.0.push(message.to_owned());
        }
    }
    let mut warnings = Warnings(Vec::new());
    let before = session.videos().len();
    assert!(session.zoom("What is at 0:30?", &mut warnings).expect("it works").is_none());
    assert!(warnings.0.iter().any(|warning| warning.contains("no frames were added")), "{:?}", warnings.0);
    assert_eq!(session.videos().len(), before);
    session.ask("What is at 0:30?", &mut ()).expect("an answer");
}

// --- the program ------------------------------------------------------------------------------------

fn model(family: &str) -> [String; 4] {
    let files = families::files(family);
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    ["-m".into(), text(&files.model), "--mmproj".into(), text(&files.mmproj.expect("an mmproj"))]
}

fn run(args: &[&str]) -> assert_cmd::assert::Assert {
    let model = model("smolvlm");
    let model: Vec<&str> = model.iter().map(String::as_str).collect();
    sharpv(&[args, &model].concat()).assert()
}

#[test]
fn the_program_tells_how_frames_are_chosen() {
    let clips = Clips::new();
    let path = minute(&clips);
    let path = path.to_str().expect("UTF-8");
    run(&["plan", path, "--max-frames", "8"])
        .success()
        .stdout(contains("8 of").and(contains("chosen where the image changes")));
    run(&["plan", path, "--max-frames", "8", "--frames-by", "even"])
        .success()
        .stdout(contains("where the image changes").not());
    run(&["ask", path, "What?", "--max-frames", "8", "-n", "4"])
        .success()
        .stderr(contains("8 frames, chosen by what changes in 60 images, one a second"));
    run(&["ask", path, "What?", "--frames-by", "color"]).code(2).stderr(contains("even").and(contains("changes")));
    let page = clips.path("page.html");
    let page = page.to_str().expect("UTF-8");
    run(&["inspect", path, "--max-frames", "8", "-o", page, "--no-dense"]).success();
    assert!(std::fs::read_to_string(page).expect("a page").starts_with("<!doctype html>"));
}

#[test]
fn the_program_counts_merged_frames_as_frames() {
    let clips = Clips::new();
    let path = minute(&clips);
    let path = path.to_str().expect("UTF-8");
    let model = model("qwen2vl");
    let model: Vec<&str> = model.iter().map(String::as_str).collect();
    // Frames at 0, 20, 40 and 60 seconds, two in each slice.
    sharpv(&[&["chat", path, "--max-frames", "4", "--frames-by", "even", "-n", "4"][..], &model].concat())
        .write_stdin("What is there from 0:00 to 0:30?\n")
        .assert()
        .success()
        .stderr(contains("; 4 frames, ").and(contains("16 frames of 00:00 to 00:30 added to the 2 there: ")));
}

#[test]
fn the_program_looks_closer() {
    let clips = Clips::new();
    let path = minute(&clips);
    let path = path.to_str().expect("UTF-8");
    let ask = ["ask", path, "What is at 0:30?", "--max-frames", "4", "-n", "4"];
    run(&ask).success().stderr(contains("16 frames of 00:22 to 00:38 added to the "));
    run(&[&ask[..], &["--no-zoom"]].concat()).success().stderr(contains("added").not());
    let model = model("smolvlm");
    let model: Vec<&str> = model.iter().map(String::as_str).collect();
    sharpv(&[&["chat", path, "--max-frames", "4", "-n", "4"][..], &model].concat())
        .write_stdin("What is it?\nAnd from 0:10 to 0:20?\n/stats\n")
        .assert()
        .success()
        .stderr(contains("10 frames of 00:10 to 00:20 added").count(2));
}
