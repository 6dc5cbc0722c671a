//! Searching the part of a video that an answer depends on.

use crate::support::families::{self, distance};
use crate::support::program::sharpv;
use predicates::prelude::*;
use predicates::str::contains;
use sharpv::chat::{FrameChoice, Role, Session, SessionParams, VideoOptions};
use sharpv::error::Error;
use sharpv::prune::PruneParams;
use sharpv::skip::{EncodeMode, EncodeParams};
use sharpv::video::Frames;
use std::path::Path;

const QUESTION: &str = "Is there a square?";
const SIDE: u32 = 56;

/// A grey image, with or without a white square.
fn image(square: bool) -> Vec<u8> {
    let side = SIDE as usize;
    let is_white = |i: usize| square && i % side < side / 2 && i / side < side / 2;
    (0..side * side).flat_map(|i| [if is_white(i) { 255 } else { 90 }; 3]).collect()
}

/// `n` frames, one per second. Those in `shown` have a square.
fn frames(n: usize, shown: &[usize]) -> Frames {
    let mut frames = Frames::new(SIDE, SIDE);
    (0..n).for_each(|i| frames.push(image(shown.contains(&i)), i as f64).expect("a frame"));
    frames
}

fn open(family: &str, keep_unpruned: bool) -> Session {
    // Encodes every frame completely, so that it does not depend on earlier ones.
    let encode = EncodeParams { mode: EncodeMode::Exact, ..EncodeParams::default() };
    let prune = PruneParams::off();
    let params = SessionParams { n_predict: 4, keep_unpruned, prune, encode, ..SessionParams::default() };
    Session::open(&families::files(family), params, &mut ()).expect("the fixture opens")
}

fn add(session: &mut Session, frames: &Frames) {
    let options = VideoOptions { max_frames: Some(frames.len()), choice: FrameChoice::Even, ..VideoOptions::default() };
    session.add_video(("camera", frames), &options, &mut ()).expect("it is encoded");
}

#[test]
fn the_part_that_differs_is_found() {
    for family in ["llava-onevision", "smolvlm", "internvl", "qwen2.5vl", "gemma3"] {
        let mut session = open(family, true);
        let probe = frames(16, &[10, 11]);
        add(&mut session, &probe);
        let search = session.search(QUESTION, &mut ()).expect("it works").expect("it is long enough");
        // A merged pair of frames is one slice, and a part has two slices.
        let per_part = search.parts[0].frames;
        assert_eq!(search.parts.len(), 16 / per_part, "{family}");
        assert_eq!(search.parts.iter().map(|part| part.frames).sum::<usize>(), 16, "{family}");
        let most = (0..search.parts.len())
            .max_by(|&a, &b| search.parts[a].surprise.total_cmp(&search.parts[b].surprise))
            .expect("parts");
        assert_eq!(most, 10 / per_part, "{family}: {:?}", search.parts);
        let start_s = (10 / per_part * per_part) as f64;
        let part = &search.parts[most];
        assert_eq!((part.start_s, part.end_s), (start_s, start_s + per_part as f64), "{family}");
    }
}

/// In this family, the prompt does not say when a frame is shown.
#[test]
fn the_answer_is_that_of_the_parts_frames_alone() {
    let mut alone = open("llava-onevision", false);
    add(&mut alone, &frames(2, &[0, 1]));
    let expected = alone.first_logits(QUESTION, &mut ()).expect("logits");
    let expected_answer = alone.ask(QUESTION, &mut ()).expect("an answer");

    let mut session = open("llava-onevision", true);
    add(&mut session, &frames(12, &[4, 5]));
    let whole = session.first_logits(QUESTION, &mut ()).expect("logits");
    let search = session.search(QUESTION, &mut ()).expect("it works").expect("it is long enough");
    assert_eq!(search.found, Some(2), "{:?}", search.parts);
    assert_eq!(search.part().expect("a part").to_string(), "00:04 to 00:06");
    let found = session.first_logits(search.question(QUESTION), &mut ()).expect("logits");
    assert!(distance(&found, &expected) < 1e-4, "{}", distance(&found, &expected));
    assert!(distance(&found, &whole) > 1e-2, "{}", distance(&found, &whole));
    let begin = std::time::Instant::now();
    let search = session.search(QUESTION, &mut ()).expect("it works").expect("it is long enough");
    let took_ms = begin.elapsed().as_secs_f64() * 1000.0;
    let held = session.kv();
    let answer = session.ask(search.question(QUESTION), &mut ()).expect("an answer");
    assert_eq!(answer.answer, expected_answer.answer);
    // The search has computed six prompts.
    assert!(answer.timings_ms.prefill > took_ms / 2.0, "{:?}, {took_ms} ms", answer.timings_ms);
    // The part has a cache of its own; that of the whole video stays as it is.
    assert_eq!(session.kv(), held);
    let times: Vec<f64> = answer.slices.iter().map(|slice| slice.time_s).collect();
    assert_eq!((answer.frames, times), (2, vec![4.0, 5.0]));

    // After that, the conversation has the whole video, and what was said about its part.
    let told: Vec<(Role, &str)> = session.messages().iter().map(|m| (m.role, m.content.as_str())).collect();
    assert_eq!(told[0], (Role::User, QUESTION));
    assert_eq!(told.len(), 2);
    let said = told[1].1.to_owned();
    let mut other = open("llava-onevision", false);
    add(&mut other, &frames(12, &[4, 5]));
    other.say(Role::User, QUESTION);
    other.say(Role::Assistant, &said);
    let next = |session: &mut Session| session.first_logits("And now?", &mut ()).expect("logits");
    let (ours, theirs) = (next(&mut session), next(&mut other));
    // Batches of other sizes round in other ways.
    assert!(distance(&ours, &theirs) < 1e-2, "{}", distance(&ours, &theirs));
    session.free_cache();
    let ours = next(&mut session);
    assert!(distance(&ours, &theirs) < 1e-4, "{}", distance(&ours, &theirs));
    // The cache had the whole video all along: the next question computes its own rows.
    let answer = session.ask("And now?", &mut ()).expect("an answer");
    session.ask(search.question(QUESTION), &mut ()).expect("an answer");
    let next = session.ask("And then?", &mut ()).expect("an answer");
    assert!(next.tokens.prompt_computed < answer.tokens.prompt / 4, "{:?}", next.tokens);
}

/// Qwen3-VL's prompt has the time of each slice. With frames chosen by changes, those of a pair are half a second
/// apart, and pairs are far apart.
#[test]
fn a_part_is_told_the_times_that_the_whole_is_told() {
    let mut frames = Frames::new(SIDE, SIDE);
    for second in 0..600_usize {
        let square = (300..304).contains(&second);
        let rgb: Vec<u8> = image(square).into_iter().map(|c| c.saturating_add((second / 60 % 2) as u8)).collect();
        frames.push(rgb, second as f64).expect("a frame");
    }
    let mut session = open("qwen3vl", true);
    let options = VideoOptions { max_frames: Some(16), choice: FrameChoice::Changes, ..VideoOptions::default() };
    let report = session.add_video(("camera", &frames), &options, &mut ()).expect("it is encoded");
    assert!(report.survey.is_some() && report.slices.len() == 8, "{:?}", report.slices);
    let told = |text: String| -> Vec<String> {
        let times = text.match_indices(" seconds>").map(|(end, _)| &text[text[..end].rfind('<').expect("a time")..end]);
        times.map(str::to_owned).collect()
    };
    let whole = told(session.prompt_text(QUESTION).expect("a prompt"));
    assert_eq!(whole.len(), 8, "{whole:?}");
    let search = session.search(QUESTION, &mut ()).expect("it works").expect("it is long enough");
    let found = search.found.expect("one part shows a square");
    assert_eq!(
        told(session.prompt_text(search.question(QUESTION)).expect("a prompt")),
        whole[2 * found..2 * found + 2],
        "{whole:?}"
    );
}

#[test]
fn a_search_leaves_no_trace() {
    let mut session = open("llava-onevision", true);
    add(&mut session, &frames(12, &[4, 5]));
    session.first_logits(QUESTION, &mut ()).expect("logits");
    // From here on, the last row alone is computed again.
    let before = session.first_logits(QUESTION, &mut ()).expect("logits");
    let rows = session.prompt_rows(QUESTION).expect("a prompt");
    session.search(QUESTION, &mut ()).expect("it works").expect("it is long enough");
    assert_eq!(session.prompt_rows(QUESTION).expect("a prompt"), rows);
    let behind = session.first_logits(QUESTION, &mut ()).expect("logits");
    assert!(distance(&behind, &before) < 1e-5, "{}", distance(&behind, &before));
    // Cancelling is an error, and the next question is about the whole video.
    session.cancel_token().cancel();
    assert!(matches!(session.search(QUESTION, &mut ()), Err(Error::Cancelled)));
    session.cancel_token().reset();
    let behind = session.first_logits(QUESTION, &mut ()).expect("logits");
    assert!(distance(&behind, &before) < 1e-5, "{}", distance(&behind, &before));
}

#[test]
fn where_all_parts_say_the_same_the_whole_is_asked() {
    let mut session = open("llava-onevision", true);
    add(&mut session, &frames(12, &[]));
    let search = session.search(QUESTION, &mut ()).expect("it works").expect("it is long enough");
    assert_eq!(search.found, None, "{:?}", search.parts);
    assert!(search.parts.iter().all(|part| part.surprise < 1e-6), "{:?}", search.parts);
    assert_eq!(session.ask(search.question(QUESTION), &mut ()).expect("an answer").frames, 12);
}

#[test]
fn what_cannot_be_searched_is_told() {
    let mut session = open("smolvlm", true);
    assert!(session.search(QUESTION, &mut ()).expect("it works").is_none(), "no video");
    add(&mut session, &frames(6, &[3]));
    assert!(session.search(QUESTION, &mut ()).expect("it works").is_none(), "too short");
    assert_eq!(session.ask(QUESTION, &mut ()).expect("an answer").frames, 6);

    let mut session = open("smolvlm", false);
    add(&mut session, &frames(12, &[3]));
    let error = session.search(QUESTION, &mut ()).expect_err("nothing was kept");
    assert!(error.to_string().contains("keep_unpruned"), "{error}");
    session.ask(QUESTION, &mut ()).expect("it goes on");
}

/// Evicted layers have no cells for the visual tokens of another part.
#[test]
fn what_was_evicted_is_no_obstacle() {
    let params = SessionParams {
        n_predict: 4,
        keep_unpruned: true,
        evict: sharpv::chat::EvictParams {
            mode: Some(sharpv::chat::EvictMode::Layers),
            threshold: Some(0.999),
            ..Default::default()
        },
        ..SessionParams::default()
    };
    let mut session = Session::open(&families::files("llava-onevision"), params, &mut ()).expect("the fixture opens");
    add(&mut session, &frames(12, &[4, 5]));
    session.ask("What is it?", &mut ()).expect("an answer");
    session.settle(&mut ()).expect("evicted");
    assert!(session.kv().layers_evicted > 0, "{:?}", session.kv());
    let search = session.search(QUESTION, &mut ()).expect("it works").expect("it is long enough");
    assert_eq!(search.parts.len(), 6);
    let answer = session.ask(search.question(QUESTION), &mut ()).expect("an answer");
    assert_eq!(answer.frames, search.part().map_or(12, |_| 2));
    session.ask("And now?", &mut ()).expect("an answer");
}

// --- the program ------------------------------------------------------------------------------------

fn run(command: &str, args: &[&str], video: &Path, input: &str) -> assert_cmd::assert::Assert {
    let files = families::files("llava-onevision");
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let (model, mmproj, video) = (text(&files.model), text(&files.mmproj.expect("an mmproj")), text(video));
    let fixed = ["-m", &model, "--mmproj", &mmproj, "-n", "4", "--prune", "off"];
    sharpv(&[&[command, &video], args, &fixed].concat()).write_stdin(input).assert()
}

#[test]
fn the_program_tells_where_it_found_the_answer() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let video = folder.path().join("frames");
    std::fs::create_dir(&video).expect("a folder");
    for i in 0..12 {
        let image = image::RgbImage::from_raw(SIDE, SIDE, image((4..6).contains(&i))).expect("an image");
        image.save(video.join(format!("{i:03}.png"))).expect("written");
    }
    let found = "searched 6 parts: answered from 00:04 to 00:06 (2 frames)";
    let frames = ["--max-frames", "12", "--frames-by", "even"];
    run("ask", &[&[QUESTION, "--search"], &frames[..]].concat(), &video, "").success().stderr(contains(found));
    let json = run("ask", &[&[QUESTION, "--search", "--json"], &frames[..]].concat(), &video, "").success();
    let answer: serde_json::Value = serde_json::from_slice(&json.get_output().stdout).expect("JSON");
    assert_eq!((answer["frames"].as_u64(), answer["slices"][0]["time_s"].as_f64()), (Some(2), Some(4.0)));
    run("ask", &[&[QUESTION], &frames[..]].concat(), &video, "").success().stderr(contains("searched").not());
    run("ask", &[QUESTION, "--search", "--max-frames", "4"], &video, "").success().stderr(contains("too few frames"));
    run("chat", &[&["--search"], &frames[..]].concat(), &video, &format!("{QUESTION}\n/stats\n"))
        .success()
        .stderr(contains(found).count(2));
}
