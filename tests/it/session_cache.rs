//! How a session uses its KV cache when it returns to an earlier position: in a prompt, after an eviction, after an
//! error.

use crate::support::{families, smol};
use sharpv::chat::{EvictMode, EvictParams, Session, SessionParams, StopReason, VideoOptions};
use sharpv::models::ModelFiles;
use sharpv::prune::PruneParams;
use sharpv::runtime::{CancelToken, SamplerParams};
use sharpv::{Error, Fix, Observer, Stage};
use std::path::{Path, PathBuf};

const QUESTION: &str = "What is in the video?";

fn clip(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(name)
}

fn dense() -> SessionParams {
    SessionParams { prune: PruneParams::off(), n_predict: 24, ..SessionParams::default() }
}

fn evicting(threshold: Option<f32>) -> SessionParams {
    SessionParams {
        evict: EvictParams { mode: Some(EvictMode::Layers), threshold, ..EvictParams::default() },
        ..dense()
    }
}

fn open(params: SessionParams, name: &str) -> Session {
    let mut session = Session::open(&smol::files(), params, &mut ()).expect("smol opens");
    session.add_video(clip(name), &VideoOptions::default(), &mut ()).expect("the clip is read");
    session
}

/// ‖a − b‖ / ‖b‖.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    let square = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>();
    (square(&mut a.iter().zip(b).map(|(a, b)| a - b)) / square(&mut b.iter().copied())).sqrt()
}

/// Answers of `n_predict` tokens, without pruning and eviction.
fn tiny(n_predict: usize) -> SessionParams {
    SessionParams { prune: PruneParams::off(), evict: EvictParams::off(), n_predict, ..SessionParams::default() }
}

/// Each decoded token leaves a row in the cache, after those of the prompt.
#[test]
fn the_speed_is_that_of_the_tokens_that_went_through_the_model() {
    let grammar = |text: &str| SamplerParams { grammar: Some(format!("root ::= {text}")), ..SamplerParams::default() };
    for (text, n_predict, stop) in [
        (r#""No.""#, 24, StopReason::EndOfTurn),
        (r#""Yes, and then some more.""#, 64, StopReason::EndOfTurn),
        ("[a-z ] root", 1, StopReason::Length),
        ("[a-z ] root", 9, StopReason::Length),
    ] {
        let params = SessionParams { sampler: grammar(text), ..tiny(n_predict) };
        let mut session = Session::open(&families::files("smolvlm"), params, &mut ()).expect("the model opens");
        let answer = session.ask(QUESTION, &mut ()).expect("an answer");
        assert_eq!(answer.stop, stop, "{text}");
        let decoded = answer.kv.cells_used - answer.tokens.prompt;
        assert_eq!(answer.tokens.decoded, decoded, "{text}");
        // The logits after the last token choose the one that ends the turn, which is not part of the answer.
        let ended = usize::from(stop == StopReason::EndOfTurn);
        assert_eq!(answer.tokens.generated, decoded + 1 - ended, "{text}");
        let expected = if decoded == 0 { 0.0 } else { decoded as f64 * 1000.0 / answer.timings_ms.generate };
        assert!((answer.tokens_per_second() - expected).abs() <= 1e-9 * expected, "{text}: {answer:?}");
    }
}

/// Asks `turns` questions. Returns for each turn the cells of the cache, and the cells that it requires: the rows of
/// the prompt and of an answer.
fn grow(params: SessionParams, turns: usize) -> Vec<(usize, usize)> {
    let n_predict = params.n_predict;
    // Makes every answer short.
    let sampler = SamplerParams { grammar: Some(r#"root ::= "No.""#.into()), ..SamplerParams::default() };
    let params = SessionParams { sampler, ..params };
    let mut session = Session::open(&families::files("smolvlm"), params, &mut ()).expect("the model opens");
    let question = "What does it say about the way that things go round and round? ".repeat(3);
    let mut turn = || {
        let answer = session.ask(&question, &mut ()).expect("an answer");
        (answer.kv.cells, answer.tokens.prompt + n_predict)
    };
    (0..turns).map(|_| turn()).collect()
}

/// llama.cpp allocates cells in multiples of this.
fn in_steps(cells: usize) -> usize {
    cells.next_multiple_of(256)
}

#[test]
fn a_cache_that_grows_takes_little_more_than_is_wanted() {
    let turns = grow(tiny(8), 14);
    let mut before = 0;
    let mut copied = 0;
    for &(cells, wanted) in &turns {
        assert!(cells >= wanted, "{turns:?}");
        // Either the cache did not grow, or it has the required cells and an eighth more.
        assert!(cells == before || cells <= in_steps(wanted + wanted / 8), "{cells} for {wanted}: {turns:?}");
        if cells != before {
            copied += before;
        }
        before = cells;
    }
    assert!(before > 3 * turns[0].0, "it must grow for the test to tell anything: {turns:?}");
    // The cache is not copied in every turn.
    assert!(copied < 8 * before, "{copied} cells were copied: {turns:?}");
}

#[test]
fn where_memory_holds_what_is_wanted_and_not_more_that_is_taken() {
    // Chosen so that the first turn uses all cells.
    let n_predict = 2048 - (grow(tiny(1), 1)[0].1 - 1);
    let free = grow(tiny(n_predict), 2);
    let (first, (cells, wanted)) = (free[0], free[1]);
    let exact = in_steps(wanted);
    assert_eq!(first, (2048, 2048));
    assert!(exact < cells, "an eighth more has to be more steps: {free:?}");

    // The planned memory of contexts with so many cells.
    let mut frames = sharpv::video::Frames::new(64, 64);
    frames.push(vec![90; 64 * 64 * 3], 0.0).expect("a frame");
    let bytes = |cells: usize| {
        let plan = |n_predict| {
            let session = Session::open(&families::files("smolvlm"), tiny(n_predict), &mut ()).expect("it opens");
            session.plan_video(("camera", &frames), &VideoOptions::default()).expect("a plan")
        };
        let memory = plan(cells - plan(1).planned.prompt_tokens).memory;
        memory.kv_dense + memory.compute
    };
    let between = (bytes(exact) + bytes(cells)) / 2;
    assert!(bytes(exact) < between, "{exact} {cells}");
    let tight = grow(SessionParams { max_memory: Some(between), ..tiny(n_predict) }, 2);
    assert_eq!(tight, [first, (exact, wanted)]);
}

#[test]
fn a_window_that_was_overwritten_is_computed_again() {
    // In the fixture of Gemma 3, five of six layers see 64 rows.
    let params = SessionParams { prune: PruneParams::off(), n_predict: 8, ..SessionParams::default() };
    let mut session = Session::open(&families::files("gemma3"), params, &mut ()).expect("the model opens");
    let long = "What does it say about the way that things go round and round? ".repeat(4);
    for _ in 0..4 {
        // The cache grows with each turn: its rows move, and later rows overwrite the oldest ones of the windows.
        session.ask(&long, &mut ()).expect("an answer");
    }
    session.set_system(Some("Be brief.".into()));
    let warm = session.first_logits(QUESTION, &mut ()).expect("logits");
    session.free_cache();
    let cold = session.first_logits(QUESTION, &mut ()).expect("logits");
    let moved = distance(&warm, &cold);
    assert!(moved < 0.01, "going back moved the logits by {moved}");
}

#[test]
fn logits_are_those_of_the_question_that_would_be_asked() {
    let next = "What color is the background?";
    let mut settled = open(evicting(None), "enter-2");
    settled.ask(QUESTION, &mut ()).expect("an answer");
    settled.settle(&mut ()).expect("settled");
    assert!(settled.kv().layers_evicted > 0, "this clip must have something to evict for the test to tell anything");
    let expected = settled.first_logits(next, &mut ()).expect("logits");

    // The answer was too short to evict after it. The next question evicts, and so do logits.
    let mut session = open(evicting(None), "enter-2");
    session.ask(QUESTION, &mut ()).expect("an answer");
    assert_eq!(session.kv().layers_evicted, 0);
    let logits = session.first_logits(next, &mut ()).expect("logits");
    assert!(logits == expected, "another distribution, by {}", distance(&logits, &expected));
    assert_eq!(session.kv().layers_evicted, settled.kv().layers_evicted);
}

#[test]
fn a_prompt_that_parts_before_an_evicted_video_is_computed_anew() {
    for n_ctx in [None, Some(1024)] {
        let params = SessionParams { n_ctx, ..evicting(Some(0.2)) };
        let mut session = open(params.clone(), "enter-2");
        let first = session.ask(QUESTION, &mut ()).expect("an answer");
        assert!(first.kv.layers_evicted > 20, "{} layers", first.kv.layers_evicted);

        session.restart();
        session.set_system(Some("You are brief.".into()));
        let warm = session.ask(QUESTION, &mut ()).expect("an answer behind another system message");
        let mut fresh = open(SessionParams { system: Some("You are brief.".into()), ..params }, "enter-2");
        let cold = fresh.ask(QUESTION, &mut ()).expect("an answer");
        assert_eq!(warm.answer, cold.answer);
        assert_eq!(warm.kv.layers_evicted, cold.kv.layers_evicted);
    }
}

#[test]
fn a_settle_that_was_stopped_can_be_done_again() {
    let cancel = CancelToken::new();
    let mut session = open(SessionParams { cancel: cancel.clone(), ..evicting(None) }, "enter-2");
    session.ask(QUESTION, &mut ()).expect("an answer");
    cancel.cancel();
    let error = session.settle(&mut ()).expect_err("stopped");
    assert!(matches!(error, Error::Cancelled), "{error}");
    cancel.reset();
    session.settle(&mut ()).expect("settled");
    assert!(session.kv().layers_evicted > 0);
}

#[test]
fn a_template_that_refuses_the_trial_question_does_not_refuse_the_users() {
    // The session tries evictions with a question of its own, which the template rejects.
    let template = "{% for message in messages %}{% if 'Describe what you see' in message['content'] %}\
                    {{ raise_exception('not this one') }}{% endif %}<|im_start|>{{ message['role'] }}\n\
                    {{ message['content'] }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n";
    let mut session = open(SessionParams { chat_template: Some(template.into()), ..evicting(None) }, "enter-2");
    session.ask(QUESTION, &mut ()).expect("an answer");
    session.settle(&mut ()).expect("settled");
}

#[test]
fn what_a_dense_cache_would_take_is_told_right_for_recurrent_layers() {
    // In LFM2, two of four layers have a recurrent state, whose size does not depend on the number of cells.
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let files = ModelFiles { model: fixtures.join("lfm2.gguf"), ..families::files("minicpmv") };
    let frames = tempfile::tempdir().expect("a folder");
    families::write_frames(frames.path(), (64, 64), 12);
    let ask = |prune| {
        // A session that evicts would have a second recurrent state, to try evictions in.
        let params = SessionParams { prune, evict: EvictParams::off(), n_predict: 8, ..SessionParams::default() };
        let mut session = Session::open(&files, params, &mut ()).expect("the model opens");
        session.add_video(frames.path(), &VideoOptions::default(), &mut ()).expect("the frames are read");
        session.ask(QUESTION, &mut ()).expect("an answer").kv
    };
    let dense = ask(PruneParams::off());
    let pruned = ask(PruneParams { cap: Some(24), ..PruneParams::default() });
    assert!(pruned.cells < dense.cells, "{} cells in place of {}", pruned.cells, dense.cells);
    assert_eq!(pruned.bytes_dense, dense.bytes);
}

/// Counts the encoded frames.
#[derive(Default)]
struct Encoded(u64);

impl Observer for Encoded {
    fn progress(&mut self, stage: Stage, done: u64, _: u64) {
        if stage == Stage::Encode {
            self.0 = done;
        }
    }
}

#[test]
fn a_question_that_leaves_no_room_is_told_before_a_frame_is_encoded() {
    let mut session = Session::open(&smol::files(), dense(), &mut ()).expect("smol opens");
    let question = "Why? ".repeat(20_000);
    let mut encoded = Encoded::default();
    let error = session
        .add_video(clip("enter-2"), &VideoOptions::default().for_question(&question), &mut encoded)
        .expect_err("there is no room");
    assert_eq!(encoded.0, 0, "frames were encoded for nothing");
    assert!(matches!(error, Error::PromptTooLong { .. }), "{error}");
    assert_eq!(error.fixes(), [Fix::ShorterQuestion, Fix::NewConversation]);

    let error = session.ask(&question, &mut ()).expect_err("there is no room");
    assert_eq!(error.fixes(), [Fix::ShorterQuestion, Fix::NewConversation]);
}

#[test]
fn a_plan_names_the_cache_that_the_answer_takes() {
    for params in [dense(), SessionParams { n_predict: 24, ..SessionParams::default() }] {
        let prunes = params.prune != PruneParams::off();
        let mut session = Session::open(&smol::files(), params, &mut ()).expect("smol opens");
        let plan =
            session.plan_video(clip("enter-2"), &VideoOptions::default().for_question(QUESTION)).expect("a plan");
        session.add_video(clip("enter-2"), &VideoOptions::default(), &mut ()).expect("the clip is read");
        let kv = session.ask(QUESTION, &mut ()).expect("an answer").kv;
        if prunes {
            assert!(kv.bytes <= plan.memory.kv, "{} > {}", kv.bytes, plan.memory.kv);
        } else {
            assert_eq!(kv.bytes, plan.memory.kv);
        }
    }
}
