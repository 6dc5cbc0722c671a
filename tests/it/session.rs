//! Sessions with the model `smol`: prompts, logits against those of stock llama.cpp, turns, cancelling, errors.

use crate::support::gpu;
use crate::support::npy;
use crate::support::smol;

use sharpv::chat::{PrefillMode, RowKey, Session, SessionParams, StopReason, Tokenization, VideoOptions};
use sharpv::error::{Error, Fix, Resource};
use sharpv::prune::{Method, PruneParams};
use sharpv::runtime::{
    Bitmap, CancelToken, ComputeParams, Context, ContextParams, Model, ModelParams, Part, Row, RowInput, Sampler,
    SamplerParams, Vision, VisionParams,
};
use sharpv::skip::{EncodeMode, EncodeParams};
use sharpv::video::{Frame, FrameSource, Sampling};
use sharpv::{Observer, Stage};
use std::path::{Path, PathBuf};

/// How much the logits of one prompt differ between different batches. With quantized weights on a CPU, it is 3 to 7 %
/// for this model.
const BATCH_NOISE: f64 = 0.1;

const QUESTION: &str = "What appears first?";

fn clip(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(name)
}

fn golden(name: &str) -> serde_json::Value {
    let file = std::fs::read(clip(name).join("golden.json")).expect("golden.json");
    serde_json::from_slice(&file).expect("golden.json is JSON")
}

fn frames(n: usize) -> VideoOptions {
    VideoOptions { max_frames: Some(n), ..VideoOptions::default() }
}

/// Short answers, and every frame encoded completely, as the reference and stock llama.cpp do.
fn params() -> SessionParams {
    let encode = EncodeParams::default().in_mode(EncodeMode::Exact);
    SessionParams { n_predict: 16, encode, ..SessionParams::default() }
}

fn dense() -> SessionParams {
    SessionParams { prune: PruneParams::off(), ..params() }
}

fn open(params: SessionParams) -> Session {
    Session::open(&smol::files(), params, &mut ()).expect("smol opens")
}

fn open_with(params: SessionParams, name: &str, options: &VideoOptions) -> Session {
    let mut session = open(params);
    session.add_video(clip(name), options, &mut ()).expect("the clip is read");
    session
}

/// ‖a − b‖ / ‖b‖.
fn relative_distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |x: f64| x * x;
    let (difference, size) = a.iter().zip(b).fold((0.0, 0.0), |(difference, size), (&a, &b)| {
        (difference + square(f64::from(a) - f64::from(b)), size + square(f64::from(b)))
    });
    (difference / size).sqrt()
}

fn argmax(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).expect("not empty")
}

/// Prefills the prompt of a session with llama.cpp's own functions.
struct Stock {
    model: Model,
    vision: Vision,
    context: Context,
    frames: Vec<Frame>,
}

const N_CTX: usize = 1024;

impl Stock {
    fn new(name: &str, n_frames: usize) -> Self {
        let files = smol::files();
        let model = Model::load(&files.model, &ModelParams::default(), |_| {}).expect("the model loads");
        let vision =
            Vision::load(files.mmproj.as_deref().expect("smol has one"), &model, &VisionParams::default(), |_| {})
                .expect("the mmproj loads");
        let adapters = [model.load_lora(&files.lora[0], 1.0).expect("the adapter loads")];
        let params = ContextParams { n_ctx: N_CTX, ..ContextParams::default() };
        let context = Context::new(&model, &params, &adapters, &CancelToken::new()).expect("a context is made");
        let source = FrameSource::open(&clip(name), &Sampling::uniform(n_frames)).expect("the clip opens");
        let frames = source.map(|frame| frame.expect("a frame")).collect();
        Self { model, vision, context, frames }
    }

    /// Returns the logits after `prompt`, in which `[sharpv-frame-…]` stands for the next frame, and the next position.
    fn logits(&mut self, prompt: &str, n_batch: usize) -> (Vec<f32>, i32) {
        let bitmaps: Vec<Bitmap> = self
            .frames
            .iter()
            .map(|frame| Bitmap::rgb(frame.width, frame.height, &frame.rgb, false).expect("a bitmap"))
            .collect();
        let mut texts = prompt.split("[sharpv-frame-");
        let mut parts = vec![Part::Text(texts.next().unwrap_or_default())];
        for (bitmap, text) in bitmaps.iter().zip(texts) {
            parts.push(Part::Image(bitmap));
            parts.push(Part::Text(text.split_once(']').expect("the end of a mark").1));
        }
        assert_eq!(parts.len(), 2 * bitmaps.len() + 1, "as many marks as frames");
        let chunks = self.vision.tokenize(&parts, true).expect("the prompt is tokenized");
        self.context.clear();
        let next = self.vision.eval_stock(&mut self.context, &chunks, 0, n_batch).expect("the prompt is evaluated");
        (self.context.logits().expect("logits").to_vec(), next)
    }

    /// Decodes the greedy answer to the last prompt.
    fn answer(&mut self, mut position: i32) -> String {
        let mut sampler = Sampler::new(&self.model, &SamplerParams::default()).expect("a sampler");
        let mut bytes = Vec::new();
        loop {
            let token = sampler.sample(&mut self.context).expect("a token");
            if self.model.is_end_of_generation(token) {
                return String::from_utf8(bytes).expect("UTF-8");
            }
            bytes.extend(self.model.token_bytes(token, false));
            let row = Row { input: RowInput::Token(token), position: [position, 0, 0, 0], logits: true };
            self.context.process(&[row]).expect("a token is computed");
            position += 1;
        }
    }
}

#[test]
fn unpruned_logits_equal_those_of_stock_llama_cpp() {
    const FRAMES: usize = 3;
    const QUESTIONS: [&str; 3] = [QUESTION, "What is in the video?", "What color is the background?"];
    let ours = |prefill, n_ubatch| {
        let params = SessionParams {
            n_ctx: Some(N_CTX),
            tokenization: Tokenization::Mtmd,
            prefill,
            compute: ComputeParams { n_ubatch, ..ComputeParams::default() },
            ..dense()
        };
        open_with(params, "order-1", &frames(FRAMES))
    };
    let mut stock = Stock::new("order-1", FRAMES);
    let mut same_batches = ours(PrefillMode::PerChunk, 512);
    let mut one_pass = ours(PrefillMode::OnePass, 512);
    let mut one_pass_small = ours(PrefillMode::OnePass, 32);
    let (mut spread, mut distance, mut distance_small) = (0.0, 0.0, 0.0);
    for question in QUESTIONS {
        // Starts with an empty cache: a warm one would be filled in other batches.
        for session in [&mut same_batches, &mut one_pass, &mut one_pass_small] {
            session.free_cache();
        }
        let prompt = same_batches.prompt_text(question).expect("a prompt");
        let (small, _) = stock.logits(&prompt, 32);
        let (expected, next) = stock.logits(&prompt, 512);

        // The same batches give the same numbers.
        let logits = same_batches.first_logits(question, &mut ()).expect("logits");
        assert!(logits == expected, "{question} {}", relative_distance(&logits, &expected));

        // One pass computes the same rows in other batches, which are rounded differently, as in stock llama.cpp with
        // another n_batch.
        spread += relative_distance(&small, &expected);
        let logits = one_pass_small.first_logits(question, &mut ()).expect("logits");
        distance_small += relative_distance(&logits, &small);
        let logits = one_pass.first_logits(question, &mut ()).expect("logits");
        distance += relative_distance(&logits, &expected).min(relative_distance(&logits, &small));
        assert_eq!(argmax(&logits), argmax(&expected), "{question}");

        stock.logits(&prompt, 512);
        let expected = stock.answer(next);
        assert_eq!(one_pass.ask(question, &mut ()).expect("an answer").answer, expected);
        one_pass.restart();
    }
    // On a GPU, both batch sizes of stock llama.cpp are rounded alike: each batch is a single frame.
    if gpu::near(0.0) > 0.0 {
        spread = QUESTIONS.len() as f64 * BATCH_NOISE;
    }
    assert!(distance_small <= spread, "one pass {distance_small}, stock against itself {spread}");
    assert!(distance <= spread, "one pass {distance}, stock against itself {spread}");
}

/// Returns how many kept tokens the reference does not keep. The importance of each must be about equal to that of the
/// token that it replaces: the reference computes in 32 bits, the encoder here in 8.
fn as_good(session: &Session, golden: &serde_json::Value) -> usize {
    /// As a share of the range of importances in a frame.
    const TIE: f64 = 0.01;
    let frames = golden["sharpv"].as_array().expect("frames");
    assert_eq!(session.kept_tokens(0).len(), frames.len());
    let replaced = session.kept_tokens(0).zip(frames).map(|(ours, theirs)| {
        let importance: Vec<f64> =
            theirs["importance"].as_array().expect("scores").iter().filter_map(serde_json::Value::as_f64).collect();
        let kept: Vec<u32> = theirs["kept"]
            .as_array()
            .expect("tokens")
            .iter()
            .filter_map(|token| Some(token.as_u64()? as u32))
            .collect();
        let span =
            importance.iter().copied().fold(f64::MIN, f64::max) - importance.iter().copied().fold(f64::MAX, f64::min);
        let of = |token: &u32| importance[*token as usize];
        let best_lost = kept.iter().filter(|token| !ours.kept.contains(token)).map(of).fold(f64::MIN, f64::max);
        let others: Vec<u32> = ours.kept.iter().copied().filter(|token| !kept.contains(token)).collect();
        for token in &others {
            assert!(best_lost - of(token) <= TIE * span, "{token} for one of {best_lost}, of a span of {span}");
        }
        others.len()
    });
    replaced.sum()
}

#[test]
fn rows_stand_where_the_reference_puts_them() {
    for (name, question) in [("move-0", "Which way does the hamburger move?"), ("order-1", QUESTION)] {
        let golden = golden(name);
        for (method, key) in [(Method::OFF, "dense"), (Method::SHARPV_PAPER, "pruned")] {
            let prune = PruneParams { method, ..PruneParams::default() };
            let session = open_with(SessionParams { prune, ..params() }, name, &VideoOptions::default());
            let rows = session.prompt_rows(question).expect("a prompt");
            let positions: Vec<i64> = rows.iter().map(|row| i64::from(row.position[0])).collect();
            let expected: Vec<i64> =
                golden[key]["positions"].as_array().expect("positions").iter().filter_map(|p| p.as_i64()).collect();
            let other = positions.iter().filter(|position| !expected.contains(position)).count();
            // A GPU's embeddings differ more from the reference's.
            let most = if gpu::near(0.0) > 0.0 {
                positions.len() / 50
            } else if method == Method::OFF {
                0
            } else {
                as_good(&session, &golden)
            };
            assert!(
                positions.len() == expected.len() && other <= most,
                "{name}, {key}: {positions:?}, not {expected:?}"
            );
        }
    }
}

#[test]
fn answers_equal_the_reference_dense_and_pruned() {
    for name in ["order-1", "enter-2"] {
        let golden = golden(name);
        let question = golden["question"].as_str().expect("a question");
        for (method, key) in [(Method::OFF, "dense"), (Method::SHARPV_PAPER, "pruned")] {
            let prune = PruneParams { method, ..PruneParams::default() };
            let session = SessionParams { prune, ..params() };
            let mut session = open_with(session, name, &VideoOptions::default());
            let answer = session.ask(question, &mut ()).expect("an answer");
            assert_eq!(answer.answer, golden[key]["answer"].as_str().expect("an answer"), "{name}, {key}");
            assert_eq!(answer.stop, StopReason::EndOfTurn);
        }
    }
}

#[test]
fn embeddings_point_where_the_reference_points() {
    let expected = npy::read(&clip("move-0").join("embeddings.npy"));
    let files = smol::files();
    let model = Model::load(&files.model, &ModelParams::default(), |_| {}).expect("the model loads");
    let mmproj = files.mmproj.as_deref().expect("smol has one");
    let mut vision = Vision::load(mmproj, &model, &VisionParams::default(), |_| {}).expect("the mmproj loads");
    let mut source = FrameSource::open(&clip("move-0"), &Sampling::uniform(8)).expect("the clip opens");
    let frame = source.next().expect("a frame").expect("a frame");
    let bitmap = Bitmap::rgb(frame.width, frame.height, &frame.rgb, false).expect("a bitmap");
    let chunks = vision.tokenize(&[Part::Image(&bitmap)], false).expect("chunks");
    let chunk = chunks.images().next().expect("an image");
    let ours = vision.encode(&chunk).expect("embeddings");
    assert_eq!(ours.len(), 64 * 576);
    for (i, (a, b)) in ours.chunks(576).zip(expected.data.chunks(576)).enumerate() {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
        // The encoder here is Q8_0, the reference is fp32.
        assert!(cosine > 0.98, "token {i}: {cosine}");
    }
}

#[test]
fn a_second_question_neither_encodes_nor_prefills_the_video_again() {
    let mut session = open_with(params(), "order-1", &VideoOptions::default());
    let first = session.ask(QUESTION, &mut ()).expect("an answer");
    assert!(first.timings_ms.encode > 0.0);
    assert_eq!(first.tokens.prompt_computed, first.tokens.prompt);

    let second = session.ask("What appears last?", &mut ()).expect("an answer");
    assert_eq!(second.timings_ms.encode, 0.0);
    assert_eq!(second.frames, first.frames);
    assert!(second.tokens.prompt > first.tokens.prompt);
    assert!(second.tokens.prompt_computed < 40, "{:?}", second.tokens);

    // A warm cache holds what a cold one would compute.
    let warm = session.first_logits("Is there a tent in the video?", &mut ()).expect("logits");
    session.free_cache();
    let cold = session.first_logits("Is there a tent in the video?", &mut ()).expect("logits");
    assert!(relative_distance(&warm, &cold) < BATCH_NOISE, "{}", relative_distance(&warm, &cold));
    assert_eq!(argmax(&warm), argmax(&cold));
}

#[test]
fn the_cache_grows_with_the_conversation_and_keeps_its_contents() {
    let tight = SessionParams { n_predict: 8, ..params() };
    let mut session = open_with(tight, "enter-2", &frames(2));
    let first = session.ask("What is in the video?", &mut ()).expect("an answer");
    let mut last = first.clone();
    // Asks long questions until the first allocation is too small.
    let question = format!("{}What is in the video?", "Please look at it again. ".repeat(20));
    while last.kv.cells == first.kv.cells {
        last = session.ask(&question, &mut ()).expect("an answer");
        assert!(last.tokens.prompt < 4000, "it never grows");
    }
    assert!(last.kv.bytes > first.kv.bytes);
    assert!(last.tokens.prompt_computed < last.tokens.prompt / 2, "computed anew: {:?}", last.tokens);
    let warm = session.first_logits("And now?", &mut ()).expect("logits");
    session.free_cache();
    let cold = session.first_logits("And now?", &mut ()).expect("logits");
    assert!(relative_distance(&warm, &cold) < BATCH_NOISE, "{}", relative_distance(&warm, &cold));
}

#[test]
fn two_videos_in_two_turns() {
    let mut session = open_with(params(), "order-1", &frames(2));
    session.ask(QUESTION, &mut ()).expect("an answer");
    let report = session.add_video(clip("enter-2"), &frames(2), &mut ()).expect("the second clip");
    assert_eq!(report.slices.len(), 2);
    let answer = session.ask("What is in the video?", &mut ()).expect("an answer");
    assert_eq!(answer.frames, 4);
    assert!(answer.timings_ms.encode > 0.0);
    let rows = session.prompt_rows("?").expect("a prompt");
    let videos: Vec<usize> = rows
        .iter()
        .filter_map(|row| match row.key {
            RowKey::Visual { video, .. } => Some(video),
            RowKey::Token(_) | RowKey::Newline => None,
        })
        .collect();
    assert!(videos.is_sorted() && videos.contains(&0) && videos.contains(&1), "{videos:?}");
    assert!(rows.windows(2).all(|pair| pair[0].position[0] < pair[1].position[0]));
}

#[test]
fn pruning_allocates_a_smaller_cache() {
    let mut pruned = open_with(params(), "order-1", &VideoOptions::default());
    let mut full = open_with(dense(), "order-1", &VideoOptions::default());
    let (pruned, full) =
        (pruned.ask(QUESTION, &mut ()).expect("an answer"), full.ask(QUESTION, &mut ()).expect("an answer"));
    assert_eq!(full.visual_tokens.kept, full.visual_tokens.total);
    assert!(pruned.visual_tokens.kept * 10 < pruned.visual_tokens.total);
    assert!(pruned.kv.bytes * 2 < full.kv.bytes, "{:?} {:?}", pruned.kv, full.kv);
    assert_eq!(pruned.kv.bytes_dense, full.kv.bytes);
    assert_eq!(full.kv.bytes_dense, full.kv.bytes);
}

#[test]
fn restart_keeps_the_video_and_its_cache() {
    let mut session = open_with(params(), "order-1", &VideoOptions::default());
    let first = session.ask(QUESTION, &mut ()).expect("an answer");
    session.restart();
    assert!(session.messages().is_empty());
    let again = session.ask(QUESTION, &mut ()).expect("an answer");
    assert_eq!(again.answer, first.answer);
    assert_eq!(again.tokens.prompt, first.tokens.prompt);
    assert!(again.tokens.prompt_computed < 20, "{:?}", again.tokens);
}

#[test]
fn clear_forgets_everything() {
    let mut session = open_with(params(), "order-1", &frames(2));
    session.ask(QUESTION, &mut ()).expect("an answer");
    session.clear();
    assert_eq!(session.videos().len(), 0);
    let answer = session.ask("Hello!", &mut ()).expect("an answer without a video");
    assert_eq!((answer.frames, answer.visual_tokens.total), (0, 0));
    assert_eq!(answer.visual_tokens.keep_ratio, 1.0);
}

/// Sets the flag when a stage begins, or when text arrives.
struct StopAt {
    token: CancelToken,
    stage: Option<Stage>,
    text: String,
}

impl Observer for StopAt {
    fn progress(&mut self, stage: Stage, _done: u64, _total: u64) {
        if Some(stage) == self.stage {
            self.token.cancel();
        }
    }

    fn text(&mut self, piece: &str) {
        self.text.push_str(piece);
        if self.stage.is_none() {
            self.token.cancel();
        }
    }
}

#[test]
fn a_stop_leaves_the_session_as_it_was() {
    let token = CancelToken::new();
    let small_batches = ComputeParams { n_ubatch: 32, ..ComputeParams::default() };
    let params = SessionParams { cancel: token.clone(), compute: small_batches, ..params() };
    let mut session = open(params);
    let stop = |stage| StopAt { token: token.clone(), stage, text: String::new() };

    let stopped = session.add_video(clip("order-1"), &VideoOptions::default(), &mut stop(Some(Stage::Encode)));
    assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
    assert_eq!(session.videos().len(), 0);

    token.reset();
    session.add_video(clip("order-1"), &VideoOptions::default(), &mut ()).expect("the clip is read");
    let stopped = session.ask(QUESTION, &mut stop(Some(Stage::Prefill)));
    assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
    assert!(session.messages().is_empty());

    token.reset();
    let mut during_answer = stop(None);
    let stopped = session.ask(QUESTION, &mut during_answer).expect("what there is of an answer");
    assert_eq!(stopped.stop, StopReason::Cancelled);
    assert_eq!(stopped.answer, during_answer.text.trim());
    assert!(stopped.tokens.generated < 4, "{:?}", stopped.tokens);

    token.reset();
    session.restart();
    assert_eq!(session.ask(QUESTION, &mut ()).expect("an answer").answer, "The tent appears first.");
}

#[test]
fn decoding_ahead_changes_nothing_but_time() {
    let [(ahead, stopped_ahead), (behind, stopped)] = [true, false].map(|decode_ahead| {
        let cancel = CancelToken::new();
        let params = SessionParams { decode_ahead, cancel: cancel.clone(), ..params() };
        let mut session = open_with(params, "move-0", &frames(6));
        let rows = session.prompt_rows(QUESTION).expect("a prompt");
        let logits = session.first_logits(QUESTION, &mut ()).expect("logits");
        let mut stop = StopAt { token: cancel, stage: Some(Stage::Encode), text: String::new() };
        let stopped = session.add_video(clip("order-1"), &frames(6), &mut stop);
        ((rows, logits), stopped.expect_err("it is stopped").to_string())
    });
    assert!(ahead == behind);
    assert_eq!(stopped_ahead, stopped);
}

#[test]
fn a_stop_from_another_thread_ends_a_long_answer() {
    let token = CancelToken::new();
    let params = SessionParams {
        cancel: token.clone(),
        n_predict: 4000,
        // Keeps the model from ending its turn.
        sampler: SamplerParams { grammar: Some("root ::= [a-z ]+".into()), ..SamplerParams::default() },
        ..SessionParams::default()
    };
    let mut session = open(params);
    let (started, wait) = std::sync::mpsc::channel();
    let stopper = std::thread::spawn(move || {
        wait.recv().expect("the answer begins");
        token.cancel();
    });
    let answer =
        session.ask("Go on.", &mut |_: &str| started.send(()).unwrap_or_default()).expect("what there is of an answer");
    stopper.join().expect("the other thread ends");
    assert_eq!(answer.stop, StopReason::Cancelled);
    assert!(answer.tokens.generated < 4000);
}

#[test]
fn a_context_that_is_too_small_says_what_is_needed() {
    let mut session = open(SessionParams { n_ctx: Some(256), fit: false, ..dense() });
    let error = session.add_video(clip("order-1"), &VideoOptions::default(), &mut ()).unwrap_err();
    assert!(matches!(error, Error::PromptTooLong { limit: 256, .. }), "{error}");
    assert!(error.fixes().contains(&Fix::MaxFrames(2)), "{error}");
    // The proposed number of frames does fit.
    session.add_video(clip("order-1"), &frames(2), &mut ()).expect("two frames fit");
    let error = session.ask("Why? ".repeat(200), &mut ()).unwrap_err();
    let Error::PromptTooLong { resource: Resource::Cells, needed, .. } = error else { panic!("{error}") };
    assert_eq!(error.fixes(), [Fix::CtxSize(needed), Fix::ShorterQuestion, Fix::NewConversation]);
    session.ask(QUESTION, &mut ()).expect("a short question fits");
}

#[test]
fn an_answer_ends_where_the_context_does() {
    let params = SessionParams {
        n_ctx: Some(256),
        n_predict: 1000,
        sampler: SamplerParams { grammar: Some("root ::= [a-z ]+".into()), ..SamplerParams::default() },
        ..SessionParams::default()
    };
    let answer = open(params).ask("Go on.", &mut ()).expect("an answer");
    assert_eq!(answer.stop, StopReason::ContextFull);
    assert_eq!(answer.kv.cells_used, answer.kv.cells);
}

#[test]
fn a_grammar_binds_the_answer() {
    let sampler = SamplerParams { grammar: Some(r#"root ::= "yes" | "no""#.into()), ..SamplerParams::default() };
    let mut session = open(SessionParams { sampler, ..params() });
    let answer = session.ask("Is the sky green?", &mut ()).expect("an answer").answer;
    assert!(answer == "yes" || answer == "no", "{answer}");

    // Opening the session rejects a bad grammar, before a video is encoded.
    let sampler = SamplerParams { grammar: Some("root ::= (".into()), ..SamplerParams::default() };
    let error = Session::open(&smol::files(), SessionParams { sampler, ..params() }, &mut ()).unwrap_err();
    assert!(error.to_string().contains("grammar"), "{error}");
}

#[test]
fn a_seed_repeats_an_answer() {
    let answer = |seed| {
        let sampler = SamplerParams { temperature: 1.5, min_p: 0.0, seed: Some(seed), ..SamplerParams::default() };
        open(SessionParams { sampler, ..params() }).ask("Tell me a story.", &mut ()).expect("an answer").answer
    };
    assert_eq!(answer(7), answer(7));
    assert_ne!(answer(7), answer(8));
}

#[test]
fn quantized_and_unfused_caches_answer_too() {
    use sharpv::runtime::{FlashAttention, KvType};
    let answer = |flash_attention, kv| {
        let compute = ComputeParams { flash_attention, type_k: kv, type_v: kv, ..ComputeParams::default() };
        let mut session = open_with(SessionParams { compute, ..params() }, "order-1", &VideoOptions::default());
        let answer = session.ask(QUESTION, &mut ()).expect("an answer");
        (answer.answer, answer.kv.bytes)
    };
    let (half, bytes_half) = answer(FlashAttention::Off, KvType::F16);
    let (eight, bytes_eight) = answer(FlashAttention::On, KvType::Q8_0);
    assert_eq!((half.as_str(), eight.as_str()), ("The tent appears first.", "The tent appears first."));
    assert!(bytes_eight < bytes_half);

    let compute =
        ComputeParams { flash_attention: FlashAttention::Off, type_v: KvType::Q8_0, ..ComputeParams::default() };
    let error = open(SessionParams { compute, ..params() }).ask("?", &mut ()).unwrap_err().to_string();
    assert!(error.contains("context"), "{error}");
}

#[test]
fn a_saved_state_restores_the_logits() {
    let files = smol::files();
    let model = Model::load(&files.model, &ModelParams::default(), |_| {}).expect("the model loads");
    let params = ContextParams { n_ctx: 256, ..ContextParams::default() };
    let new = || Context::new(&model, &params, &[], &CancelToken::new()).expect("a context");
    let tokens = model.tokenize("The capital of France is", true, true).expect("tokens");
    let rows = |range: std::ops::Range<usize>| -> Vec<Row<'static>> {
        let row = |i: usize| Row {
            input: RowInput::Token(tokens[i]),
            position: [i as i32, 0, 0, 0],
            logits: i + 1 == tokens.len(),
        };
        range.map(row).collect()
    };
    let last = tokens.len() - 1;
    let mut context = new();
    context.process(&rows(0..last)).expect("computed");
    let state = context.state().expect("a state");
    context.process(&rows(last..last + 1)).expect("computed");
    let expected = context.logits().expect("logits").to_vec();

    let mut restored = new();
    restored.set_state(&state).expect("restored");
    restored.process(&rows(last..last + 1)).expect("computed");
    assert!(restored.logits().expect("logits") == expected);

    assert!(restored.set_state(&state[..state.len() / 2]).is_err(), "a state that was cut short");
    assert_eq!(restored.last_position(), None);
}

#[test]
fn files_that_do_not_belong_together_are_named() {
    let mut files = smol::files();
    let mmproj = files.mmproj.clone();
    files.mmproj = None;
    let error = Session::open(&files, params(), &mut ()).unwrap_err().to_string();
    assert!(error.contains("mmproj is missing"), "{error}");

    files.mmproj = Some(files.model.clone());
    let error = Session::open(&files, params(), &mut ()).unwrap_err().to_string();
    assert!(error.contains(&files.model.display().to_string()), "{error}");

    files.mmproj = mmproj;
    files.lora = vec![files.model.clone()];
    let error = Session::open(&files, params(), &mut ()).unwrap_err().to_string();
    assert!(error.contains("LoRA"), "{error}");
}
