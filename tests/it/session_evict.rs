//! Memory SharpV in sessions with the model `smol`.

use crate::support::smol;

use sharpv::chat::{EvictMode, EvictParams, Session, SessionParams, VideoOptions};
use sharpv::prune::PruneParams;
use std::path::{Path, PathBuf};

const CLIPS: [&str; 3] = ["move-0", "order-1", "enter-2"];

fn clip(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(name)
}

fn golden(name: &str) -> serde_json::Value {
    let file = std::fs::read(clip(name).join("golden.json")).expect("golden.json");
    serde_json::from_slice(&file).expect("golden.json is JSON")
}

fn evict(mode: EvictMode, threshold: f32) -> EvictParams {
    EvictParams { mode: Some(mode), threshold: Some(threshold), ..EvictParams::default() }
}

fn params(prune: PruneParams, evict: EvictParams) -> SessionParams {
    SessionParams { prune, evict, n_predict: 24, ..SessionParams::default() }
}

fn open(params: SessionParams, name: &str) -> Session {
    let mut session = Session::open(&smol::files(), params, &mut ()).expect("smol opens");
    session.add_video(clip(name), &VideoOptions::default(), &mut ()).expect("the clip is read");
    session
}

#[test]
fn the_similarity_curve_is_that_of_the_reference() {
    // No cosine is below -1, so similarities are measured and nothing is evicted.
    let measure = evict(EvictMode::Layers, -1.0);
    for name in CLIPS {
        let golden = golden(name);
        for (kind, prune) in [("dense", PruneParams::off()), ("pruned", PruneParams::default())] {
            let mut session = open(params(prune, measure), name);
            let answer = session.ask(golden["question"].as_str().expect("a question"), &mut ()).expect("an answer");
            assert_eq!(answer.kv.layers_evicted, 0);
            let expected = golden[kind]["similarity"].as_array().expect("a curve");
            assert_eq!(session.similarity().len(), expected.len());
            assert_eq!(answer.similarity, session.similarity());
            for (il, (ours, expected)) in session.similarity().iter().zip(expected).enumerate() {
                let expected = expected.as_f64().expect("a number") as f32;
                assert!((ours - expected).abs() < 0.02, "{name}, {kind}, layer {il}: {ours} instead of {expected}");
            }
        }
    }
}

#[test]
fn a_threshold_evicts_the_layers_below_it_and_returns_their_memory() {
    let prune = PruneParams::off();
    let mut stage_1 = open(params(prune.clone(), EvictParams::off()), "order-1");
    let before = stage_1.ask("What appears first?", &mut ()).expect("an answer");
    assert_eq!((before.kv.layers_evicted, before.kv.layers), (0, 30));
    assert!(before.similarity.is_empty() && stage_1.similarity().is_empty());

    let mut session = open(params(prune, evict(EvictMode::Layers, 0.2)), "order-1");
    let answer = session.ask("What appears first?", &mut ()).expect("an answer");
    assert_eq!(answer.kv.layers_evicted, 29);
    assert_eq!(answer.kv.cells, before.kv.cells);
    assert_eq!(answer.kv.cells_used, before.kv.cells_used);
    assert_eq!(answer.kv.bytes_dense, before.kv.bytes_dense);
    // 512 visual tokens in 29 of 30 layers, except for llama.cpp's padding.
    let per_cell = before.kv.bytes / before.kv.cells as u64;
    let freed = before.kv.bytes - answer.kv.bytes;
    let expected = 512 * per_cell * 29 / 30;
    assert!(freed > expected * 9 / 10 && freed <= expected, "{freed} bytes were freed, of {expected}");

    // Later turns are stored in all layers, and the video is not computed again.
    let next = session.ask("Is there a tent in the video?", &mut ()).expect("another answer");
    assert!(next.tokens.prompt_computed < 40, "{} rows", next.tokens.prompt_computed);
    assert_eq!(next.kv.layers_evicted, 29);

    // Another video is evicted, too, from a cache that grew for it.
    let cells = next.kv.cells;
    session.add_video(clip("enter-2"), &VideoOptions::default(), &mut ()).expect("another clip");
    let both = session.ask("What is in the video?", &mut ()).expect("an answer");
    assert!(both.kv.cells > cells && both.kv.layers_evicted == 29);
    let all = both.kv.cells as u64 * per_cell;
    let freed = all - both.kv.bytes;
    let expected = 1024 * per_cell * 29 / 30;
    assert!(freed > expected * 9 / 10 && freed <= expected, "{freed} bytes were freed, of {expected}");
    assert!(!both.answer.is_empty());

    // A cache that is computed again holds everything until the eviction.
    session.free_cache();
    let again = session.ask("What is in the video?", &mut ()).expect("an answer");
    assert_eq!(again.kv.layers_evicted, 29);
    assert_eq!(again.tokens.prompt, again.tokens.prompt_computed);
}

#[test]
fn nothing_below_the_threshold_is_as_without_eviction() {
    for name in CLIPS {
        let question = golden(name)["question"].as_str().expect("a question").to_owned();
        let run = |evict| {
            let mut session = open(params(PruneParams::default(), evict), name);
            let first = session.ask(&question, &mut ()).expect("an answer");
            let second = session.ask("What color is the background?", &mut ()).expect("an answer");
            (first.answer, second.answer, second.kv.bytes, session.first_logits("And now?", &mut ()).expect("logits"))
        };
        assert_eq!(run(EvictParams::off()), run(evict(EvictMode::Layers, -1.0)), "{name}");
        assert_eq!(run(EvictParams::off()), run(evict(EvictMode::Tokens, -1.0)), "{name}");
    }
}

#[test]
fn evicted_tokens_leave_their_cells() {
    let run = |n_ctx, threshold| {
        let params = SessionParams { n_ctx, ..params(PruneParams::off(), evict(EvictMode::Tokens, threshold)) };
        let mut session = open(params, "order-1");
        let answer = session.ask("What appears first?", &mut ()).expect("an answer");
        (session, answer)
    };
    let (_, whole) = run(None, -1.0);
    let (mut session, answer) = run(None, 0.99);
    assert_eq!(answer.kv.tokens_evicted, 512);
    assert_eq!(answer.kv.cells_used + 512, whole.kv.cells_used);
    assert!(answer.kv.bytes < whole.kv.bytes, "the cache was made smaller");
    // The conversation continues without computing the text again.
    let next = session.ask("What color is the background?", &mut ()).expect("an answer");
    assert!(next.tokens.prompt_computed < 40, "{} rows", next.tokens.prompt_computed);
    assert_eq!(next.kv.tokens_evicted, 512);
    session.restart();
    let again = session.ask("What appears first?", &mut ()).expect("an answer");
    assert!(again.tokens.prompt_computed < 40);

    // Evicts a part of the tokens, from a cache of a fixed size.
    let (_, part) = run(Some(1024), 0.11);
    assert!(part.kv.tokens_evicted > 0 && part.kv.tokens_evicted < 512, "{}", part.kv.tokens_evicted);
    assert_eq!(part.kv.cells, 1024);
}

#[test]
fn without_a_threshold_answers_stay_as_they_are() {
    for mode in [EvictMode::Layers, EvictMode::Tokens] {
        for name in CLIPS {
            let golden = golden(name);
            let question = golden["question"].as_str().expect("a question");
            let asked = |evict| {
                let mut session = open(params(PruneParams::default(), evict), name);
                let answer = session.ask(question, &mut ()).expect("an answer");
                (session, answer)
            };
            // (The tests in `session` compare answers with the reference. They depend on near-ties between tokens, of
            // which each processor keeps others.)
            let (_, expected) = asked(EvictParams::off());
            let (mut session, answer) = asked(EvictParams { mode: Some(mode), ..EvictParams::default() });
            assert_eq!(answer.answer, expected.answer, "{name}, {mode:?}");
            // The answer was too short to decide what to evict. settle() decides it.
            assert_eq!((answer.kv.layers_evicted, answer.kv.tokens_evicted), (0, 0));
            session.settle(&mut ()).expect("settled");
            assert_eq!(session.similarity().len(), 30);
            // Asks the same question after the eviction.
            session.restart();
            let again = session.ask(question, &mut ()).expect("an answer");
            assert_eq!(again.answer, answer.answer, "{name}, {mode:?}");
            assert!(again.tokens.prompt_computed < 40, "the video is in the cache");
        }
    }
}

#[test]
fn a_threshold_that_is_no_similarity_is_refused() {
    let params = params(PruneParams::default(), evict(EvictMode::Layers, 1.5));
    let error = Session::open(&smol::files(), params, &mut ()).expect_err("refused").to_string();
    assert!(error.contains("evict-threshold"), "{error}");
}
