//! Videos that are encoded once for several sessions, and conversations that are set.

use crate::support::families::{distance, files, write_frames};
use crate::support::{adapter, gpu};
use sharpv::chat::{EvictMode, EvictParams, Role, Session, SessionParams, VideoOptions};
use sharpv::prune::PruneParams;
use std::path::Path;

const QUESTION: &str = "What is it?";

/// Rows of a batch are computed together. Other rows in the batch cause other rounding errors.
const NOISE: f64 = 1e-3;

fn open(params: SessionParams) -> Session {
    Session::open(&files("smolvlm"), SessionParams { n_predict: 8, ..params }, &mut ()).expect("the model opens")
}

fn dense() -> SessionParams {
    SessionParams { prune: PruneParams::off(), ..SessionParams::default() }
}

/// A folder of frames, which differ for each `seed`.
fn video(folder: &Path, seed: u32) -> std::path::PathBuf {
    let path = folder.join(format!("{seed}"));
    std::fs::create_dir(&path).expect("a folder");
    // The same frames in another size.
    write_frames(&path, (48 + 16 * seed, 48), 4);
    path
}

fn logits(session: &mut Session) -> Vec<f32> {
    session.first_logits(QUESTION, &mut ()).expect("logits")
}

#[test]
fn a_video_that_was_encoded_elsewhere_is_the_same_video() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = video(folder.path(), 0);
    let mut own = open(dense());
    own.add_video(&path, &VideoOptions::default(), &mut ()).expect("a video");
    let encoded =
        open(dense()).encode_video(&path, &VideoOptions::default().for_question(QUESTION), &mut ()).expect("a video");
    assert_eq!((encoded.frames(), encoded.info().path.as_path()), (4, path.as_path()));
    assert!(encoded.bytes() > encoded.visual_tokens().kept * own.model().n_embd_inp() * 4);
    let mut other = open(dense());
    let report = other.add_encoded(&encoded).expect("it fits");
    assert_eq!(report.visual_tokens, encoded.visual_tokens());
    assert!(distance(&logits(&mut other), &logits(&mut own)) < gpu::near(NOISE));
    assert_eq!(other.visual_tokens(), own.visual_tokens());
}

#[test]
fn a_video_of_another_model_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = video(folder.path(), 0);
    let encoded =
        open(dense()).encode_video(&path, &VideoOptions::default().for_question(QUESTION), &mut ()).expect("a video");
    let params = SessionParams { n_predict: 8, ..dense() };
    let mut other = Session::open(&files("qwen2vl"), params, &mut ()).expect("the model opens");
    assert_ne!(other.model().n_embd_inp(), open(dense()).model().n_embd_inp());
    assert!(other.add_encoded(&encoded).is_err());
    assert_eq!(other.videos().len(), 0);
}

#[test]
fn another_video_in_the_same_place_is_computed() {
    let folder = tempfile::tempdir().expect("a folder");
    let evicting = SessionParams {
        evict: EvictParams { mode: Some(EvictMode::Layers), threshold: Some(1.0), early: false },
        ..dense()
    };
    for (i, params) in [dense(), evicting].into_iter().enumerate() {
        let folder = folder.path().join(format!("case-{i}"));
        std::fs::create_dir(&folder).expect("a folder");
        let mut session = open(params.clone());
        let mut encode = |seed| {
            let path = video(&folder, seed);
            let options = VideoOptions::default();
            (session.encode_video(&path, &options.for_question(QUESTION), &mut ()).expect("a video"), path)
        };
        let [(one, _), (two, _), (three, path)] = [encode(0), encode(1), encode(2)];
        // All have as many rows with the same keys. Nothing else distinguishes them.
        assert_eq!(one.visual_tokens(), two.visual_tokens());
        let fresh = |videos: &[&sharpv::chat::EncodedVideo]| {
            let mut session = open(params.clone());
            videos.iter().for_each(|video| drop(session.add_encoded(video).expect("it fits")));
            logits(&mut session)
        };
        let both = fresh(&[&one, &two]);
        assert!(
            distance(&fresh(&[&one, &three]), &both) > 10.0 * NOISE,
            "the videos must differ for the test to tell anything"
        );
        // After an answer, the layers of a video that stays are evicted. In that case, only videos that are removed are
        // compared.
        let evicts = i == 1;
        for (videos, follows_itself) in [
            (vec![&one], false),
            (vec![&one, &two], true),
            (vec![&one, &three], true),
            (vec![&two, &three], false),
            (vec![], false),
            (vec![&one, &two], false),
            (vec![&three], false),
        ] {
            session.start_over(None);
            videos.iter().for_each(|video| drop(session.add_encoded(video).expect("it fits")));
            let found = distance(&logits(&mut session), &fresh(&videos));
            assert!(
                found < gpu::near(NOISE) || (evicts && follows_itself),
                "case {i}, {} videos: {found}",
                videos.len()
            );
            // With eviction on, an answer evicts.
            session.ask(QUESTION, &mut ()).expect("an answer");
        }
        drop(path);
    }
}

/// Loading an adapter changes the model, which other sessions read at the same time. `./x races` checks for data races;
/// this test checks that each session answers as if it were alone.
#[test]
fn a_session_with_an_adapter_is_opened_while_another_answers() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = video(folder.path(), 0);
    let mut plain = open(dense());
    let model = plain.model().clone();
    let lora = folder.path().join("adapter.gguf");
    adapter::write(&lora, &model);
    let with_adapter = sharpv::models::ModelFiles { lora: vec![lora], ..files("smolvlm") };
    let open_beside = || {
        let params = SessionParams { n_predict: 8, ..dense() };
        let builder = Session::builder(&with_adapter).params(params).model(model.clone());
        let mut session = builder.open().expect("the model opens");
        session.add_video(&path, &VideoOptions::default(), &mut ()).expect("a video");
        session
    };
    let expected = open_beside().ask(QUESTION, &mut ()).expect("an answer");
    plain.add_video(&path, &VideoOptions::default(), &mut ()).expect("a video");
    assert!(distance(&logits(&mut plain), &logits(&mut open_beside())) > 10.0 * NOISE, "the adapter does something");

    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let answering = scope.spawn(|| {
            let mut session = open_beside();
            let mut answers = 0;
            while answers < 3 || (answers < 1000 && !done.load(std::sync::atomic::Ordering::Acquire)) {
                session.clear();
                session.add_video(&path, &VideoOptions::default(), &mut ()).expect("a video");
                assert_eq!(session.ask(QUESTION, &mut ()).expect("an answer").answer, expected.answer);
                answers += 1;
            }
        });
        for _ in 0..8 {
            assert_eq!(open_beside().ask(QUESTION, &mut ()).expect("an answer").answer, expected.answer);
        }
        done.store(true, std::sync::atomic::Ordering::Release);
        answering.join().expect("it answered");
    });
}

#[test]
fn what_was_said_can_be_set() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = video(folder.path(), 0);
    let mut held = open(SessionParams { system: Some("Be brief.".into()), ..dense() });
    held.add_video(&path, &VideoOptions::default(), &mut ()).expect("a video");
    let first = held.ask(QUESTION, &mut ()).expect("an answer");

    let mut set = open(dense());
    let encoded = set.encode_video(&path, &VideoOptions::default().for_question(QUESTION), &mut ()).expect("a video");
    let mut fill = |answer: Option<&str>| {
        set.start_over(Some("Be brief.".into()));
        set.add_encoded(&encoded).expect("it fits");
        if let Some(answer) = answer {
            set.say(Role::User, QUESTION);
            set.say(Role::Assistant, answer);
        }
        set.ask(if answer.is_some() { "And why?" } else { QUESTION }, &mut ()).expect("an answer")
    };
    let again = fill(None);
    assert_eq!((again.answer.as_str(), again.tokens.prompt), (first.answer.as_str(), first.tokens.prompt));
    // Continues the held conversation, word for word.
    let said = held.messages()[1].content.clone();
    let next = held.ask("And why?", &mut ()).expect("an answer");
    let set_next = fill(Some(&said));
    assert_eq!((set_next.answer, set_next.tokens.prompt), (next.answer, next.tokens.prompt));
    assert!(
        set_next.tokens.prompt_computed < set_next.tokens.prompt - again.tokens.prompt + 2,
        "the first turn is in the cache"
    );
}

#[test]
fn what_is_set_for_a_turn_is_checked_as_a_whole() {
    let mut session = open(dense());
    let before = session.turn_params();
    let mut bad = before.clone();
    bad.sampler.top_p = 2.0;
    assert!(session.configure(&bad).is_err());
    assert!(session.configure(&sharpv::chat::TurnParams { n_predict: 0, ..before.clone() }).is_err());
    let share = PruneParams { budget: sharpv::prune::Budget::Keep(3.0), ..PruneParams::default() };
    assert!(session.configure(&sharpv::chat::TurnParams { prune: share, ..before.clone() }).is_err());
    assert_eq!(session.turn_params(), before);
    session.configure(&sharpv::chat::TurnParams { n_predict: 2, ..before }).expect("good");
    assert_eq!(session.ask(QUESTION, &mut ()).expect("an answer").tokens.generated, 2);
}
