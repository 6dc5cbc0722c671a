//! Tests that inspect a session's cache.

use super::Session;
use crate::chat::cache::ledger::Entry;
use crate::chat::{EvictParams, PlannedRow, RowKey, VideoOptions};
use crate::models::ModelFiles;
use crate::prune::PruneParams;
use crate::video::{Frames, Source, opened};
use std::path::Path;
use std::sync::Arc;

fn family(name: &str) -> ModelFiles {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families");
    ModelFiles {
        name: name.into(),
        model: folder.join(format!("{name}.gguf")),
        mmproj: Some(folder.join(format!("{name}-mmproj.gguf"))),
        lora: Vec::new(),
    }
}

/// Frames that differ, one per second.
fn frames(n: usize) -> Frames {
    let mut frames = Frames::new(128, 128);
    for frame in 0..n {
        let rgb: Vec<u8> = (0..3 * 128 * 128).map(|i| (i * (frame + 3) / 7 + 40 * frame) as u8).collect();
        frames.push(rgb, frame as f64).expect("a frame");
    }
    frames
}

/// A session about six frames.
fn session(family_name: &str) -> Session {
    let files = family(family_name);
    let builder = Session::builder(&files).n_predict(4).prune(PruneParams::off()).evict(EvictParams::off());
    let mut session = builder.open().expect("it opens");
    let options = VideoOptions { fps: Some(1.0), ..Default::default() };
    session.add_video(("frames", frames(6)), &options, &mut ()).expect("the frames are encoded");
    session
}

/// Returns the logits of a question in a cache that held all frames, after `remove` removed the rows of the slices
/// `evicted`.
fn logits(session: &mut Session, evicted: &[usize], remove: impl FnOnce(&mut Session, &[PlannedRow])) -> Vec<f32> {
    session.first_logits("What?", &mut ()).expect("all frames");
    let video = session.conversation.videos.first_mut().map(Arc::make_mut).expect("a video");
    for &slice in evicted {
        (video.slices[slice].kept, video.slices[slice].rows) = Default::default();
    }
    let plan = session.chat().plan("What else?").expect("a plan");
    remove(session, &plan.rows);
    session.first_logits("What else?", &mut ()).expect("the frames that are left")
}

#[test]
fn what_is_forgotten_leaves_the_rest_as_it_was() {
    for name in ["smolvlm", "internvl", "llava-onevision", "minicpmv", "gemma3", "qwen2vl", "qwen2.5vl", "qwen3vl"] {
        let mut ours = session(name);
        let n_slices = ours.conversation.videos[0].slices.len();
        let evicted = if n_slices == 6 { vec![1, 2, 4] } else { vec![1] };
        let mut left = 0;
        let found = logits(&mut ours, &evicted, |session, wanted| {
            let before = session.cache.entries().len();
            let videos = session.conversation.videos.clone();
            left = session.cache.forget(wanted, &videos);
            let entries = session.cache.entries();
            assert_eq!(before - left, entries.len(), "{name}");
            let is_evicted = |entry: &Entry| matches!(entry.row(&videos).map(|row| row.key), Some(RowKey::Visual { slice, .. }) if evicted.contains(&slice));
            assert!(!entries.iter().any(is_evicted), "{name}");
        });
        assert!(left > 0, "{name}");

        // By hand, position by position: remove what the plan has no row for.
        let mut theirs = session(name);
        let expected = logits(&mut theirs, &evicted, |session, wanted| {
            let last = wanted.last().map_or(0, |row| row.position[0]);
            let positions: Vec<i32> = session.cache.entries().iter().map(|entry| entry.position[0]).collect();
            for position in positions.iter().rev().filter(|position| **position < last) {
                let entries = session.cache.entries();
                let start = entries.partition_point(|entry| entry.position[0] < *position);
                let end = entries.partition_point(|entry| entry.position[0] <= *position);
                let is_wanted = |entry: &Entry| wanted.iter().any(|row| row.position == entry.position);
                let n_wanted = entries[start..end].iter().filter(|entry| is_wanted(entry)).count();
                assert!([0, end - start].contains(&n_wanted), "{name}: rows of one position are removed together");
                if n_wanted == 0 && end > start {
                    assert_eq!(session.cache.remove(std::slice::from_ref(&(start..end))), end - start, "{name}");
                }
            }
        });
        assert_eq!(found, expected, "{name}");

        // The result differs from that without these frames, and from that with all of them.
        let mut anew = session(name);
        let without = logits(&mut anew, &evicted, |session, _| session.free_cache());
        assert_ne!(found, without, "{name}: later rows attended to the evicted frames");
        let mut all = session(name);
        assert_ne!(found, logits(&mut all, &[], |_, _| ()), "{name}");
    }
}

#[test]
fn a_cache_that_cannot_be_moved_ends_the_answer_and_is_computed_anew() {
    let mut session = Session::builder(&family("smolvlm")).n_predict(4).open().expect("the fixture opens");
    let question = "Why? ".repeat(100);
    session.ask(&question, &mut ()).expect("an answer");
    assert!(session.cache.cells_used() > 256);
    // llama.cpp makes contexts of 256 cells at least.
    let Session { cache, engine, params, learned, .. } = &mut session;
    let error = cache.shrink(engine, &params.cache(), learned, 1).expect_err("it does not go in");
    assert!(error.to_string().contains("could not be moved"), "{error}");
    assert_eq!(session.cache.cells_used(), 0);
    let again = session.ask("And now?", &mut ()).expect("the prompt is computed anew");
    assert_eq!(again.tokens.prompt, again.tokens.prompt_computed);
}

/// Planning alone reduces a video that does not fit.
#[test]
fn an_attempt_opens_no_file_and_tokenizes_nothing_twice() {
    let files = family("internvl");
    let params = |n_ctx| crate::SessionParams {
        n_ctx: Some(n_ctx),
        n_predict: 8,
        prune: PruneParams::off(),
        ..crate::SessionParams::default()
    };
    let session = Session::open(&files, params(700), &mut ()).expect("it opens");
    // Longer than the text between frames.
    let options = VideoOptions { fps: Some(1.0), ..Default::default() }.for_question(&"Is it so? ".repeat(20));
    let source = Source::from(("frames", frames(24)));
    let plan = |session: &Session| {
        let (opened_before, tokenized) = (opened(), session.engine.texts.tokenized());
        let plan = session.plan_video(source.clone(), &options).expect("a plan");
        (plan, opened() - opened_before, session.engine.texts.tokenized() - tokenized)
    };
    let (first, n_opened, n_tokens) = plan(&session);
    assert!(first.planned.frames < first.asked.frames && first.planned.frames > 0, "{first:?}");
    assert!(n_opened <= 2, "opened {n_opened} times");
    let (again, _, n_again) = plan(&session);
    assert_eq!((again.planned, n_again), (first.planned, 0), "what was tokenized once is known");
    // A video that fits tokenizes at least as much.
    let roomy = Session::open(&files, params(8000), &mut ()).expect("it opens");
    let (whole, n_opened, n_whole) = plan(&roomy);
    assert_eq!((whole.planned.frames, n_opened), (first.asked.frames, 1));
    assert!(n_tokens <= n_whole, "{n_tokens} tokens of attempts, {n_whole} of one plan");
}
