//! Live video: the policies hold what they promise, and nothing grows.

use crate::support::families::{self, distance};
use crate::support::gpu;
use crate::support::lcg::Lcg;

use sharpv::chat::{EvictParams, LiveParams, LivePolicy, LiveSession, LiveState, Pushed, Session, SessionParams};
use sharpv::chat::{PlannedRow, RowKey, VideoOptions};
use sharpv::error::Error;
use sharpv::lab::methods;
use sharpv::prune::{Budget, PruneParams};
use sharpv::runtime::{CancelToken, ComputeParams, FlashAttention, KvType};
use sharpv::skip::{EncodeMode, EncodeParams};
use sharpv::video::{Frame, Frames};

const FAMILIES: [&str; 8] =
    ["smolvlm", "qwen2vl", "qwen2.5vl", "qwen3vl", "llava-onevision", "internvl", "minicpmv", "gemma3"];

fn frame(number: u32, time_s: f64) -> Frame {
    let image = families::image((96, 72), number);
    Frame { width: 96, height: 72, rgb: image.into_raw(), time_s }
}

/// Everything is encoded and kept, as exactly as possible.
fn dense() -> SessionParams {
    let compute = ComputeParams {
        type_k: KvType::F32,
        type_v: KvType::F32,
        flash_attention: FlashAttention::Off,
        ..ComputeParams::default()
    };
    let encode = EncodeParams::default().in_mode(EncodeMode::Exact);
    SessionParams { prune: PruneParams::off(), encode, compute, n_predict: 4, ..SessionParams::default() }
}

fn pruned() -> SessionParams {
    SessionParams { n_predict: 4, ..SessionParams::default() }
}

fn window(frames: usize) -> LiveParams {
    LiveParams { policy: LivePolicy::Window { frames }, ..LiveParams::default() }
}

fn open(family: &str, params: SessionParams, live: LiveParams) -> LiveSession {
    LiveSession::open(&families::files(family), params, live, &mut ())
        .unwrap_or_else(|error| panic!("{family}: {error}"))
}

fn push(live: &mut LiveSession, frame: &Frame) -> Option<Pushed> {
    live.push(frame, &mut ()).unwrap_or_else(|error| panic!("{error}"))
}

/// A still room with a patch that moves through it, and another room every 50 frames. Some frames repeat the one
/// before. One frame every three seconds.
struct Camera {
    random: Lcg,
    number: u32,
    rgb: Vec<u8>,
}

impl Camera {
    fn new() -> Self {
        Self { random: Lcg(7), number: 0, rgb: Vec::new() }
    }

    fn next(&mut self) -> Frame {
        let n = self.number;
        self.number += 1;
        if self.rgb.is_empty() || self.random.below(4) > 0 {
            self.rgb = families::image((96, 72), n / 50).into_raw();
            let (left, top) = (self.random.below(64), self.random.below(40));
            for (y, x) in (top..top + 32).flat_map(|y| (left..left + 32).map(move |x| (y, x))) {
                self.rgb[3 * (96 * y + x)..][..3].copy_from_slice(&[255, (n % 200) as u8, 0]);
            }
        }
        Frame { width: 96, height: 72, rgb: self.rgb.clone(), time_s: 3.0 * f64::from(n) }
    }
}

#[test]
fn frames_that_are_all_held_are_a_video_as_any() {
    for family in FAMILIES {
        let mut frames = Frames::new(96, 72);
        let mut live = open(family, dense(), window(4));
        for i in 0..4 {
            let one = frame(3 * i, f64::from(i));
            frames.push(one.rgb.clone(), one.time_s).expect("a frame");
            push(&mut live, &one);
        }
        let params = SessionParams { evict: EvictParams::off(), ..dense() };
        let mut session = Session::open(&families::files(family), params, &mut ()).expect("the model opens");
        let options = VideoOptions { fps: Some(1.0), ..VideoOptions::default() };
        session.add_video(("frames", &frames), &options, &mut ()).expect("the frames are encoded");

        let rows = session.prompt_rows("What is it?").expect("a prompt");
        assert_eq!(live.prompt_rows("What is it?").expect("a prompt"), rows, "{family}");
        let expected = session.first_logits("What is it?", &mut ()).expect("logits");
        let found = live.first_logits("What is it?", &mut ()).expect("logits");
        // The rows are the same, but were computed in other batches.
        assert!(distance(&found, &expected) < gpu::near(1e-4), "{family}: {}", distance(&found, &expected));
        let answer = live.ask("What is it?", &mut ()).expect("an answer");
        assert_eq!(answer.answer, session.ask("What is it?", &mut ()).expect("an answer").answer, "{family}");
        assert_eq!(answer.frames, 4, "{family}");
    }
}

/// The slices of the rows of a prompt, without repetition.
fn slices(rows: &[PlannedRow]) -> Vec<usize> {
    let mut slices: Vec<usize> = rows
        .iter()
        .filter_map(|row| match row.key {
            RowKey::Visual { slice, .. } => Some(slice),
            _ => None,
        })
        .collect();
    slices.dedup();
    slices
}

#[test]
fn a_question_computes_its_own_rows_alone() {
    for family in FAMILIES {
        let mut live = open(family, dense(), window(4));
        let mut lazy = open(family, dense(), LiveParams { prefill: false, ..window(4) });
        let mut costs = Vec::new();
        for i in 0..12 {
            push(&mut live, &frame(3 * i, f64::from(i)));
            push(&mut lazy, &frame(3 * i, f64::from(i)));
            if live.state().held < 4 || live.state().pending > 0 {
                continue;
            }
            let rows = live.prompt_rows("What is it?").expect("a prompt");
            let answer = live.ask("What is it?", &mut ()).expect("an answer");
            let behind = rows.iter().rposition(|row| matches!(row.key, RowKey::Visual { .. })).expect("a frame") + 1;
            assert_eq!(answer.tokens.prompt, rows.len(), "{family}");
            assert_eq!(answer.tokens.prompt_computed, rows.len() - behind, "{family}, frame {i}");
            costs.push(answer.tokens.prompt_computed);
            assert_eq!(answer.frames, 4, "{family}");
            // The question is only about the frames, and leaves no message.
            assert_eq!(live.prompt_rows("What is it?").expect("a prompt").len(), rows.len(), "{family}");
            let again = live.ask("What is it?", &mut ()).expect("an answer");
            assert_eq!((again.answer, again.tokens), (answer.answer, answer.tokens), "{family}");
            let state = live.state();
            assert_eq!(state.cells_used, behind, "{family}");
            let held: Vec<f64> = live.held_times().collect();
            assert_eq!(held.last(), state.newest_s.as_ref(), "{family}");

            let late = lazy.ask("What is it?", &mut ()).expect("an answer");
            assert!(late.tokens.prompt_computed > answer.tokens.prompt_computed, "{family}");
        }
        costs.dedup();
        assert_eq!(costs.len(), 1, "{family}: {costs:?}");
    }
}

#[test]
fn what_leaves_keeps_the_places_of_the_rest() {
    for family in FAMILIES {
        let mut live = open(family, dense(), window(4));
        let mut before: Vec<PlannedRow> = Vec::new();
        for i in 0..16 {
            push(&mut live, &frame(3 * i, f64::from(i)));
            let Ok(rows) = live.prompt_rows("") else { continue };
            let held: Vec<PlannedRow> =
                rows.iter().filter(|row| matches!(row.key, RowKey::Visual { .. })).copied().collect();
            for row in &held {
                let same = before.iter().find(|old| old.key == row.key);
                assert!(same.is_none_or(|old| old.position == row.position), "{family}");
            }
            let n = slices(&rows).len();
            assert!(n <= 4 && (n > 0) == (live.state().held > 0), "{family}");
            before = held;
        }
        assert!(live.state().evicted > 0 && live.state().rebases == 0, "{family}");
    }
}

/// Removes what `policy` does not hold from the slices that were pushed, in the simplest way.
fn promised(policy: LivePolicy, held: &mut Vec<(f64, usize, f32)>) {
    match policy {
        LivePolicy::Window { frames } => {
            while held.len() > frames {
                held.remove(0);
            }
        }
        LivePolicy::Memory { tokens, recent, half_life_s } => {
            let now = held.last().expect("a frame").0;
            while held.iter().map(|held| held.1).sum::<usize>() > tokens && held.len() > recent {
                let worth = |&(time_s, _, novelty): &(f64, usize, f32)| {
                    f64::from(novelty) * f64::powf(2.0, -(now - time_s) / half_life_s)
                };
                let old = &held[..held.len() - recent];
                let mut least = 0;
                for (i, held) in old.iter().enumerate() {
                    if worth(held) < worth(&old[least]) {
                        least = i;
                    }
                }
                held.remove(least);
            }
        }
    }
}

/// Pushes `n` frames of a camera; what is held is compared with what is promised behind each.
fn watch(policy: LivePolicy, params: SessionParams, n: usize) -> Vec<LiveState> {
    let mut live = open("internvl", params, LiveParams { policy, ..LiveParams::default() });
    let mut camera = Camera::new();
    let (mut held, mut states, mut repeats) = (Vec::new(), Vec::new(), 0);
    for _ in 0..n {
        let pushed = push(&mut live, &camera.next()).expect("no pairs");
        if pushed.kept > 0 {
            held.push((pushed.time_s, pushed.kept, pushed.novelty));
            let before = held.len();
            promised(policy, &mut held);
            assert_eq!(pushed.evicted, before - held.len());
        } else {
            repeats += 1;
        }
        let state = live.state();
        assert!(live.held_times().eq(held.iter().map(|held| held.0)), "at {} s", pushed.time_s);
        assert_eq!(state.tokens, held.iter().map(|held| held.1).sum::<usize>());
        assert_eq!((state.held, state.repeats), (held.len(), repeats));
        assert_eq!(state.frames, state.repeats + state.held as u64 + state.evicted);
        states.push(state);
    }
    let answer = live.ask("What is it?", &mut ()).expect("an answer");
    assert_eq!((answer.frames, answer.visual_tokens.kept), (held.len(), states[n - 1].tokens));
    assert!(answer.tokens.prompt_computed < 64, "{:?}", answer.tokens);
    states
}

/// Checks that nothing grows: the maximum in the second half of a run is about that in the first.
fn is_flat(states: &[LiveState]) {
    let (first, second) = states.split_at(states.len() / 2);
    let is_flat = |what: &str, of: fn(&LiveState) -> usize| {
        let most = |states: &[LiveState]| states.iter().map(of).max().expect("states");
        // The scene varies, so a tenth more is not growth. Growth would be twice as much.
        assert!(most(second) * 10 <= most(first) * 11, "{what}: {} and {}", most(first), most(second));
    };
    is_flat("embeddings", |state| state.embedding_bytes);
    is_flat("cells", |state| state.cells_used);
    is_flat("bytes of the cache", |state| state.kv_bytes as usize);
    is_flat("positions", |state| state.positions);
    assert!(states.last().is_some_and(|state| state.rebases > 1), "{:?}", states.last());
}

#[test]
fn an_hour_of_a_window_is_flat() {
    is_flat(&watch(LivePolicy::Window { frames: 6 }, pruned(), 1200));
}

#[test]
fn an_hour_of_a_memory_is_flat() {
    let policy = LivePolicy::Memory { tokens: 60, recent: 3, half_life_s: 120.0 };
    let states = watch(policy, pruned(), 1200);
    is_flat(&states);
    // A window of three would hold only the last three frames.
    assert!(states.iter().skip(100).all(|state| state.held > 3));
    // It holds what was new for longer than the half-life.
    let back = |state: &LiveState| state.now_s.zip(state.oldest_s).map_or(0.0, |(now, oldest)| now - oldest);
    assert!(states.iter().skip(300).map(back).fold(0.0, f64::max) > 90.0);
}

#[test]
fn without_pruning_a_window_is_its_frames() {
    let params = SessionParams { n_ctx: Some(512), ..dense() };
    let states = watch(LivePolicy::Window { frames: 4 }, params, 300);
    assert!(states.iter().skip(50).all(|state| state.held == 4 && state.tokens == 64));
}

#[test]
fn a_rebase_is_a_session_that_begins_with_what_is_held() {
    for family in ["internvl", "qwen2.5vl", "smolvlm"] {
        let per_slice = if family == "qwen2.5vl" { 2 } else { 1 };
        let mut live = open(family, dense(), window(4));
        let mut i = 0;
        while live.state().rebases == 0 {
            push(&mut live, &frame(3 * i, f64::from(i)));
            i += 1;
            assert!(i < 400, "{family}");
        }
        assert_eq!(live.state().held, 4, "{family}");
        assert_eq!(live.state().evicted as u32, i - 4, "{family}");
        let mut fresh = open(family, dense(), window(4));
        (i - 4..i).for_each(|i| {
            push(&mut fresh, &frame(3 * i, f64::from(i)));
        });
        assert_eq!(slices(&live.prompt_rows("").expect("a prompt")).len(), 4 / per_slice, "{family}");
        let expected = fresh.first_logits("What is it?", &mut ()).expect("logits");
        let found = live.first_logits("What is it?", &mut ()).expect("logits");
        assert!(distance(&found, &expected) < gpu::near(1e-4), "{family}: {}", distance(&found, &expected));
    }
}

#[test]
fn a_fixed_context_holds_what_fits() {
    // A frame has 16 rows, so 256 cells do not hold 100 frames and the text.
    let params = SessionParams { n_ctx: Some(256), ..dense() };
    let mut live = open("internvl", params, window(100));
    for i in 0..60 {
        push(&mut live, &frame(3 * i, f64::from(i)));
    }
    let state = live.state();
    assert!((4..15).contains(&state.held) && state.cells_used < 256, "{state:?}");
    live.ask("What is it?", &mut ()).expect("there is room for a question");
    assert_eq!(live.held_times().last(), Some(59.0));
}

/// Records warnings.
#[derive(Default)]
struct Warned(Vec<String>);

impl sharpv::Observer for Warned {
    fn warning(&mut self, message: &str) {
        self.0.push(message.to_owned());
    }
}

#[test]
fn few_positions_hold_as_many_frames_as_can_come_again() {
    // The same model, as if it had been trained with 1024 positions.
    let folder = tempfile::tempdir().expect("a folder");
    let mut files = families::files("internvl");
    let mut bytes = std::fs::read(&files.model).expect("a model");
    let key = b".context_length";
    let at = bytes.windows(key.len()).position(|window| window == key).expect("a key") + key.len() + 4;
    bytes[at..at + 4].copy_from_slice(&1024_u32.to_le_bytes());
    files.model = folder.path().join("short.gguf");
    std::fs::write(&files.model, bytes).expect("a model");

    let mut live = LiveSession::open(&files, dense(), window(10_000), &mut ()).expect("it opens");
    let mut warned = Warned::default();
    for i in 0..150 {
        live.push(&frame(3 * i, f64::from(i)), &mut warned).expect("a frame");
        assert!(live.state().positions < 1024, "{:?}", live.state());
    }
    let state = live.state();
    assert!(state.held > 8 && (3..30).contains(&state.rebases), "{state:?}");
    assert_eq!(live.held_times().last(), Some(149.0));
    let long = "Why? ".repeat(60);
    for question in ["What is it?", &long] {
        live.ask(question, &mut ()).expect("an answer");
    }
    assert!(live.ask("Why? ".repeat(1000), &mut ()).is_err(), "that is too long");
    live.ask("What is it?", &mut ()).expect("an answer");
    assert_eq!(warned.0.len(), 1, "{:?}", warned.0);
    assert!(warned.0[0].contains("1024 positions, which are enough to hold"), "{:?}", warned.0);
}

#[test]
fn what_repeats_is_not_held() {
    let mut live = open("internvl", pruned(), window(4));
    for i in 0..20 {
        let pushed = push(&mut live, &frame(1, f64::from(i))).expect("no pairs");
        assert_eq!(pushed.kept > 0, i == 0);
        assert_eq!(pushed.computed > 0.0, i == 0);
        assert_eq!(pushed.opens_scene, i == 0);
    }
    let state = live.state();
    assert_eq!((state.frames, state.held, state.repeats, state.evicted), (20, 1, 19, 0));
    assert_eq!((state.newest_s, state.now_s), (Some(0.0), Some(19.0)));
    assert!(state.computed < 0.06, "{}", state.computed);
    // A new frame has a high novelty.
    let cut = push(&mut live, &frame(60, 20.0)).expect("no pairs");
    assert!(cut.novelty > 0.1 && cut.kept > 0, "{cut:?}");
}

#[test]
fn the_newest_frames_can_be_understood_by_themselves() {
    // A patch moves in front of a wall. Without key frames, the wall would be evicted with the first frame.
    let mut live = open("internvl", pruned(), window(4));
    let mut camera = Camera::new();
    for _ in 0..49 {
        push(&mut live, &camera.next());
        let kept: Vec<usize> = live.kept_tokens().map(|slice| slice.kept.len()).filter(|&n| n > 0).collect();
        assert!(kept.iter().max().is_some_and(|&most| most >= 4), "{kept:?}");
    }
}

#[test]
fn sizes_are_those_of_the_first_frame() {
    let mut live = open("internvl", dense(), window(3));
    push(&mut live, &frame(0, 0.0));
    let wide = Frame { width: 200, height: 50, rgb: vec![90; 200 * 50 * 3], time_s: 1.0 };
    let pushed = push(&mut live, &wide).expect("no pairs");
    assert_eq!(pushed.total, 16);
    assert_eq!(live.state().held, 2);
}

#[test]
fn what_cannot_be_is_refused_and_nothing_is_lost() {
    let mut live = open("internvl", pruned(), window(3));
    let told = live.ask("What?", &mut ()).expect_err("there is nothing yet").to_string();
    assert!(told.contains("push frames"), "{told}");
    push(&mut live, &frame(0, 5.0));
    let state = live.state();
    for (bad, expected) in [
        (Frame { time_s: 5.0, ..frame(1, 0.0) }, "later than the frame before, 5 s"),
        (Frame { time_s: 4.0, ..frame(1, 0.0) }, "later than the frame before"),
        (Frame { time_s: f64::NAN, ..frame(1, 0.0) }, "a number of seconds"),
        (Frame { rgb: vec![0; 12], ..frame(1, 6.0) }, "96×72 pixels"),
        (Frame { width: 0, ..frame(1, 6.0) }, "at least one pixel"),
    ] {
        let told = live.push(&bad, &mut ()).expect_err("no frame").to_string();
        assert!(told.contains(expected), "{told}");
    }
    assert_eq!(live.state(), state);
    let refused = |params: SessionParams, live: LiveParams| {
        LiveSession::open(&families::files("internvl"), params, live, &mut ()).expect_err("refused").to_string()
    };
    let with = |prune: PruneParams| refused(SessionParams { prune, ..pruned() }, window(3));
    let method = PruneParams { method: methods::VIDCOM2, ..PruneParams::default() };
    assert!(with(method).contains("sharpv, sharpv-paper or off"));
    let total = PruneParams { budget: Budget::MaxTokens(100), ..PruneParams::default() };
    assert!(with(total).contains("left out for live video"));
    assert!(refused(pruned(), window(0)).contains("at least 1 frame"));
    let policy = |tokens, recent, half_life_s| LivePolicy::Memory { tokens, recent, half_life_s };
    for policy in [policy(0, 1, 1.0), policy(1, 0, 1.0), policy(1, 1, 0.0), policy(1, 1, f64::NAN)] {
        let live = LiveParams { policy, ..LiveParams::default() };
        assert!(
            refused(pruned(), live).contains("at least 1") || matches!(policy, LivePolicy::Memory { recent: 1, .. })
        );
    }
    assert!(refused(pruned(), LiveParams { fps: 0.0, ..window(3) }).contains("more than 0"));
}

#[test]
fn yes_or_no_leaves_everything_as_it_was() {
    let mut live = open("internvl", SessionParams { n_predict: 3, ..pruned() }, window(3));
    assert!(live.is_so("What?", &mut ()).is_err(), "there is nothing yet");
    for i in 0..3 {
        push(&mut live, &frame(5 * i, f64::from(i)));
    }
    let answer = |live: &mut LiveSession| live.ask("What is it?", &mut ()).expect("an answer").answer;
    let before = (answer(&mut live), live.state());
    let logits = live.first_logits("Is it so?", &mut ()).expect("logits");
    let word = |word: &str| live.model().tokenize(word, false, false).expect("tokens")[0] as usize;
    let (yes, no) = (word("Yes"), word("No"));
    assert_eq!(live.is_so("Is it so?", &mut ()).expect("an answer"), logits[yes] > logits[no]);
    assert_eq!((answer(&mut live), live.state()), before);
}

#[test]
fn a_stop_ends_a_push_and_the_next_goes_on() {
    let cancel = CancelToken::new();
    let params = SessionParams { cancel: cancel.clone(), ..pruned() };
    let mut live = open("internvl", params, window(3));
    push(&mut live, &frame(0, 0.0));
    cancel.cancel();
    assert!(matches!(live.push(&frame(5, 1.0), &mut ()), Err(Error::Cancelled)));
    assert!(matches!(live.ask("What?", &mut ()), Err(Error::Cancelled)));
    cancel.reset();
    let next = push(&mut live, &frame(9, 2.0)).expect("no pairs");
    assert!(next.kept > 0 && next.computed == 1.0, "{next:?}");
    live.ask("What?", &mut ()).expect("an answer");
    live.clear();
    let state = live.state();
    assert_eq!((state.frames, state.held, state.tokens, state.cells_used, state.now_s), (0, 0, 0, 0, None));
    push(&mut live, &frame(9, 0.0));
    live.ask("What?", &mut ()).expect("an answer");
}

/// A window of four frames, and recall of `frames` frames.
fn recalling(frames: usize) -> LiveParams {
    LiveParams { policy: LivePolicy::Window { frames: 4 }, recall: frames, ..LiveParams::default() }
}

/// A grey wall with a little noise, and a white square in two of its frames.
fn wall(n: usize, shown: [usize; 2]) -> impl Iterator<Item = Frame> {
    (0..n).map(move |i| {
        let is_white = |k: usize| shown.contains(&i) && k % 56 < 28 && k / 56 < 28;
        let grey = |k: usize| 90 + ((k * 7 + i * 13) % 11 % 2) as u8;
        let rgb = (0..56 * 56).flat_map(|k| [if is_white(k) { 255 } else { grey(k) }; 3]).collect();
        Frame { width: 56, height: 56, rgb, time_s: i as f64 }
    })
}

#[test]
fn what_was_seen_once_is_found_however_long_ago() {
    for family in ["llava-onevision", "smolvlm", "qwen2.5vl"] {
        let mut live = open(family, dense(), recalling(16));
        for frame in wall(160, [20, 21]) {
            push(&mut live, &frame);
        }
        let state = live.state();
        assert_eq!((state.held, state.recalled), (4, 16), "{family}");
        let pages: Vec<(f64, f64)> = live.recalled_times().collect();
        let shows = |&(start, end): &(f64, f64)| start <= 21.0 && end >= 20.0;
        let at = pages.iter().position(shows).unwrap_or_else(|| panic!("{family}: {pages:?}"));
        let question = "Is there a square?";
        live.first_logits(question, &mut ()).expect("logits");
        let kv = live.kv();

        let search = live.search(question, &mut ()).expect("it works").expect("there are parts enough");
        let told: Vec<(f64, f64)> = search.parts.iter().map(|part| (part.start_s, part.end_s)).collect();
        assert_eq!(told, pages, "{family}");
        let most = (0..told.len()).max_by(|&a, &b| search.parts[a].surprise.total_cmp(&search.parts[b].surprise));
        assert_eq!(most, Some(at), "{family}: {:?}", search.parts);
        // What is held did not change.
        assert_eq!((live.kv(), live.state().rebases), (kv, state.rebases), "{family}");
    }
}

/// In this family, the prompt does not say when a frame is shown.
#[test]
fn what_is_found_is_answered_from_its_own_frames_alone() {
    let question = "Is there a square?";
    let mut live = open("llava-onevision", dense(), recalling(16));
    for frame in wall(60, [20, 21]) {
        push(&mut live, &frame);
    }
    let held = live.first_logits(question, &mut ()).expect("logits");
    let search = live.search(question, &mut ()).expect("it works").expect("there are parts enough");
    let part = search.part().expect("one that differs").clone();
    assert_eq!((part.start_s, part.end_s, part.frames), (20.0, 21.0, 2));

    let mut alone = Session::open(&families::files("llava-onevision"), dense(), &mut ()).expect("a session");
    let mut frames = Frames::new(56, 56);
    wall(60, [20, 21]).skip(20).take(2).for_each(|frame| frames.push(frame.rgb, frame.time_s).expect("a frame"));
    alone.add_video(("camera", &frames), &VideoOptions::default(), &mut ()).expect("a video");
    let expected = alone.first_logits(question, &mut ()).expect("logits");
    let found = live.first_logits(search.question(question), &mut ()).expect("logits");
    assert!(distance(&found, &expected) < 1e-4, "{}", distance(&found, &expected));
    assert!(distance(&found, &held) > 1e-2, "{}", distance(&found, &held));
    // The next question is about what is held.
    let behind = live.first_logits(question, &mut ()).expect("logits");
    assert!(distance(&behind, &held) < 1e-6, "{}", distance(&behind, &held));

    let answer = live.ask(search.question(question), &mut ()).expect("an answer");
    let of_its_own = alone.ask(question, &mut ()).expect("an answer");
    assert_eq!((&answer.answer, answer.frames), (&of_its_own.answer, 2));
    assert_eq!(answer.visual_tokens, of_its_own.visual_tokens);
    assert_eq!(live.ask(question, &mut ()).expect("an answer").frames, 4);

    // The part stays what it is while the video goes on.
    push(&mut live, &wall(61, [20, 21]).last().expect("a frame"));
    assert_eq!(live.ask(question, &mut ()).expect("an answer").frames, 4);
    assert_eq!(live.ask(search.question(question), &mut ()).expect("an answer").answer, answer.answer);
}

#[test]
fn a_search_wants_something_to_search_in() {
    let mut live = open("internvl", pruned(), window(4));
    push(&mut live, &frame(0, 0.0));
    let refused = live.search("What?", &mut ());
    assert!(matches!(refused, Err(Error::InvalidParameter { name: "LiveParams::recall", .. })), "{refused:?}");

    let mut live = open("internvl", dense(), recalling(16));
    assert!(live.search("What?", &mut ()).expect("nothing yet").is_none());
    // Three parts, and one that is not complete.
    for i in 0..6 {
        push(&mut live, &frame(i, f64::from(i)));
    }
    assert!(live.search("What?", &mut ()).expect("too few").is_none());
    push(&mut live, &frame(6, 6.0));
    let search = live.search("What?", &mut ()).expect("it works").expect("there are parts enough");
    assert_eq!(search.parts.iter().map(|part| part.frames).collect::<Vec<_>>(), [2, 2, 2, 1]);
    let answer = live.ask(search.question("What?"), &mut ()).expect("an answer");
    assert_eq!(answer.frames, search.part().map_or(4, |part| part.frames));

    let cancel = CancelToken::new();
    let mut live = open("internvl", SessionParams { cancel: cancel.clone(), ..dense() }, recalling(16));
    for i in 0..8 {
        push(&mut live, &frame(i, f64::from(i)));
    }
    let before = live.first_logits("What?", &mut ()).expect("logits");
    cancel.cancel();
    assert!(matches!(live.search("What?", &mut ()), Err(Error::Cancelled)));
    cancel.reset();
    assert_eq!(live.first_logits("What?", &mut ()).expect("logits"), before);
    live.clear();
    assert_eq!((live.state().recalled, live.state().recalled_bytes), (0, 0));
}

#[test]
fn an_hour_that_is_remembered_is_flat() {
    let mut live = open("internvl", pruned(), recalling(24));
    let mut camera = Camera::new();
    let mut states = Vec::new();
    for _ in 0..1200 {
        push(&mut live, &camera.next());
        states.push(live.state());
    }
    is_flat(&states);
    let most = |states: &[LiveState]| states.iter().map(|state| state.recalled_bytes).max();
    let (first, second) = states.split_at(600);
    assert!(most(second) <= most(first).map(|bytes| bytes * 11 / 10), "{:?} {:?}", most(first), most(second));
    assert!(states.iter().all(|state| state.recalled <= 25));
    // It covers the whole hour, not only its end: there are 24 rooms, one every 150 seconds.
    let halves = live.recalled_times().filter(|(start, _)| *start < 1800.0).count();
    assert!((3..=9).contains(&halves), "{:?}", live.recalled_times().collect::<Vec<_>>());
}
