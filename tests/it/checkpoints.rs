//! Models that cannot remove the last rows of their cache go on from a copy of their state.

use crate::support::families;
use crate::support::saved_session::Parts;
use sharpv::Observer;
use sharpv::chat::{
    Answer, EvictMode, EvictParams, LiveParams, LivePolicy, LiveSession, Role, RowKey, Session, SessionParams,
    VideoOptions,
};
use sharpv::models::ModelFiles;
use sharpv::prune::PruneParams;
use sharpv::runtime::SamplerParams;
use sharpv::video::Frame;
use std::path::Path;

const QUESTION: &str = "What is in the video?";
const OTHER: &str = "Who is it, and where?";

/// Writes an empty thought where an answer begins, and none in earlier turns, as Qwen3.5's template does.
const REWRITES: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
                        {% if add_generation_prompt %}<|im_start|>assistant\n<think>\n\n</think>\n\n{% endif %}";

/// Models with recurrent layers: short convolutions, and linear attention with M-RoPE.
fn hybrids() -> [(&'static str, ModelFiles); 5] {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let converted = |name: &str| ModelFiles {
        model: fixtures.join(format!("converted/{name}.gguf")),
        mmproj: Some(fixtures.join(format!("converted/{name}-mmproj.gguf"))),
        ..families::files("minicpmv")
    };
    [
        ("lfm2", ModelFiles { model: fixtures.join("lfm2.gguf"), ..families::files("minicpmv") }),
        ("lfm2vl", converted("lfm2vl")),
        ("qwen35", converted("qwen35")),
        ("qwen35moe", converted("qwen35moe")),
        ("minicpmv46", converted("minicpmv46")),
    ]
}

/// Answers with "No.", so that the history is the same in every session.
fn params() -> SessionParams {
    SessionParams {
        prune: PruneParams::off(),
        evict: EvictParams::off(),
        sampler: SamplerParams { grammar: Some(r#"root ::= "No.""#.into()), ..SamplerParams::default() },
        n_predict: 24,
        ..SessionParams::default()
    }
}

fn video() -> sharpv::video::Source {
    let mut frames = sharpv::video::Frames::new(64, 64);
    for n in 0..8 {
        frames.push(families::image((64, 64), n).into_raw(), f64::from(n)).expect("a frame");
    }
    ("video", frames).into()
}

fn open(files: &ModelFiles, params: SessionParams) -> Session {
    let mut session = Session::open(files, params, &mut ()).expect("the model opens");
    session.add_video(video(), &VideoOptions::default(), &mut ()).expect("the frames are read");
    session
}

fn ask(session: &mut Session, question: &str) -> Answer {
    session.ask(question, &mut ()).expect("an answer")
}

fn logits(session: &mut Session, question: &str) -> Vec<f32> {
    session.first_logits(question, &mut ()).expect("logits")
}

/// The rows of the prompt after the last visual token.
fn own_rows(session: &Session, question: &str) -> usize {
    let rows = session.prompt_rows(question).expect("a prompt");
    rows.iter().rev().take_while(|row| matches!(row.key, RowKey::Token(_))).count()
}

#[test]
fn another_question_about_a_video_computes_its_own_rows() {
    for (name, files) in hybrids() {
        let mut session = open(&files, params());
        let first = ask(&mut session, QUESTION);
        assert_eq!(first.tokens.prompt_computed, first.tokens.prompt, "{name}");
        for question in [OTHER, QUESTION] {
            session.restart();
            let own = own_rows(&session, question);
            let second = ask(&mut session, question);
            assert!(own < second.tokens.prompt / 2, "{name}: {own} of {}", second.tokens.prompt);
            assert_eq!(second.tokens.prompt_computed, own, "{name}, of {}", second.tokens.prompt);
        }
        session.restart();
        let found = logits(&mut session, OTHER);
        assert_eq!(found, logits(&mut open(&files, params()), OTHER), "{name}: as in a new session");
    }
}

#[test]
fn a_chat_computes_the_turn_even_if_the_template_writes_the_last_one_anew() {
    for (name, files) in hybrids() {
        let params = || SessionParams { chat_template: Some(REWRITES.into()), ..params() };
        let mut session = open(&files, params());
        ask(&mut session, QUESTION);
        for turn in 1..4 {
            let before = session.prompt_rows(OTHER).expect("a prompt").len();
            let answer = ask(&mut session, OTHER);
            // The last answer, the question, and what the template writes around them.
            let most = "<|im_start|>assistant\nNo.<|im_end|>\n<|im_start|>user\n<|im_end|>\n".len() + OTHER.len() + 60;
            assert_eq!(answer.tokens.prompt, before);
            assert!(answer.tokens.prompt_computed < most, "{name}, turn {turn}: {:?}", answer.tokens);
        }
        let found = logits(&mut session, QUESTION);
        // A new session computes the prompt from the first row on.
        let mut anew = open(&files, params());
        for message in session.messages().to_vec() {
            anew.say(message.role, &message.content);
        }
        assert_eq!(anew.messages().iter().filter(|message| message.role == Role::Assistant).count(), 4);
        let distance = families::distance(&found, &logits(&mut anew, QUESTION));
        assert!(distance < 2e-3, "{name}: {distance}");
    }
}

#[test]
fn a_loaded_session_goes_on_without_its_video() {
    for (name, files) in hybrids() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("chat.session");
        let mut session = open(&files, params());
        ask(&mut session, QUESTION);
        session.save(&path).expect("saved");
        let mut loaded = Session::open(&files, params(), &mut ()).expect("the model opens");
        loaded.load(&path).expect("loaded");
        assert_eq!(loaded.kv(), session.kv(), "{name}");
        loaded.restart();
        let own = own_rows(&loaded, OTHER);
        assert_eq!(ask(&mut loaded, OTHER).tokens.prompt_computed, own, "{name}");

        // Forged checkpoints do no harm: the prompt is computed again.
        for forge in [
            |parts: &mut Parts| parts.checkpoints.truncate(0),
            |parts: &mut Parts| parts.checkpoints.extend([0; 16]),
            // Magic number, sequence, cells, position, sequences of the cell, of the first checkpoint.
            |parts: &mut Parts| parts.checkpoints[0] ^= 1,
            |parts: &mut Parts| parts.checkpoints[4] ^= 1,
            |parts: &mut Parts| parts.checkpoints[8] ^= 2,
            |parts: &mut Parts| parts.checkpoints[12] ^= 1,
            |parts: &mut Parts| parts.checkpoints[16] ^= 1,
            // Transposed, layers, type and width of the first state: what llama.cpp checks itself.
            |parts: &mut Parts| parts.checkpoints[20] ^= 1,
            |parts: &mut Parts| parts.checkpoints[24] ^= 1,
            |parts: &mut Parts| parts.checkpoints[28] ^= 1,
            |parts: &mut Parts| parts.checkpoints[32] ^= 1,
        ] {
            let forged = folder.path().join("forged.session");
            let mut parts = Parts::read(&path);
            let count = parts.header["checkpoints"].as_array().expect("a list").len();
            assert!(count > 0, "{name}");
            let before = parts.checkpoints.len();
            forge(&mut parts);
            let difference = parts.checkpoints.len() as i64 - before as i64;
            let first = &mut parts.header["checkpoints"][0]["bytes"];
            *first = (first.as_i64().expect("a number") + difference).max(0).into();
            if parts.checkpoints.is_empty() {
                parts.header["checkpoints"] = serde_json::json!([]);
            }
            parts.write(&forged);
            let mut session = Session::open(&files, params(), &mut ()).expect("the model opens");
            session.load(&forged).expect("it is usable without the checkpoint");
            session.restart();
            let answer = ask(&mut session, OTHER);
            assert!(answer.tokens.prompt_computed > own, "{name}: {:?}", answer.tokens);
        }
        for rows in [0, 1_000_000] {
            let forged = folder.path().join("forged.session");
            let mut parts = Parts::read(&path);
            parts.header["checkpoints"][0]["rows"] = rows.into();
            parts.write(&forged);
            let mut session = Session::open(&files, params(), &mut ()).expect("the model opens");
            let error = session.load(&forged).expect_err("no row has this number").to_string();
            assert!(error.contains("is damaged"), "{error}");
        }
    }
}

/// Collects warnings.
#[derive(Default)]
struct Warnings(Vec<String>);

impl Observer for Warnings {
    fn warning(&mut self, message: &str) {
        self.0.push(message.to_owned());
    }
}

#[test]
fn checkpoints_stay_within_what_the_user_allows_and_a_plan_tells() {
    for (name, files) in hybrids() {
        let with = |checkpoint_memory| SessionParams { checkpoint_memory, ..params() };
        let plan = |session: &Session| session.plan_video(video(), &VideoOptions::default()).expect("a plan").memory;
        let free = Session::open(&files, with(None), &mut ()).expect("the model opens");
        let need = plan(&free);
        assert!(need.state > 0 && need.checkpoint > 0 && need.state <= need.kv, "{name}: {need:?}");
        assert_eq!(need.checkpoints, 8 * need.checkpoint, "{name}");
        let size = need.checkpoint;
        // The header of a checkpoint is not planned.
        let room = 256;
        for (limit, kept) in [(2 * (size + room), 2), (size + room, 1), (size / 2, 0), (0, 0)] {
            let mut session = open(&files, with(Some(limit)));
            assert_eq!(plan(&session).checkpoints, kept * size, "{name}, {limit}");
            let mut warnings = Warnings::default();
            session.ask(QUESTION, &mut warnings).expect("an answer");
            session.ask(OTHER, &mut warnings).expect("an answer");
            let kv = session.kv();
            assert_eq!(kv.checkpoints as u64, kept, "{name}, {limit}");
            assert!(kv.bytes_checkpoints <= limit && kv.bytes_checkpoints >= kept * size, "{name}: {kv:?}");
            assert!(kv.bytes_state > 0 && kv.bytes_state <= kv.bytes);
            // Who turns them off knows.
            let told = warnings.0.iter().filter(|warning| warning.contains("no copy of this model's state")).count();
            assert_eq!(told, usize::from(kept == 0 && limit > 0), "{name}, {limit}: {:?}", warnings.0);
            session.restart();
            let again = ask(&mut session, OTHER).tokens;
            assert_eq!(again.prompt_computed == again.prompt, kept == 0, "{name}, {limit}: {again:?}");
        }
    }
    // A model that can remove its last rows needs none.
    let mut session = open(&families::files("qwen2vl"), params());
    ask(&mut session, QUESTION);
    assert_eq!((session.kv().checkpoints, session.kv().bytes_state), (0, 0));
}

#[test]
fn visual_tokens_are_evicted_from_a_hybrid_and_the_video_stays_computed() {
    for (name, files) in hybrids() {
        for threshold in [Some(1.0), None] {
            let evict = EvictParams { mode: Some(EvictMode::Layers), threshold, ..EvictParams::default() };
            let mut session = open(&files, SessionParams { evict, ..params() });
            ask(&mut session, QUESTION);
            session.settle(&mut ()).expect("settled");
            let layers = session.kv_layers();
            let with_cells: Vec<usize> = (0..layers.len()).filter(|&il| layers[il].has_cells).collect();
            let last = *with_cells.last().expect("attention layers");
            assert!(with_cells.len() >= 2 && with_cells.len() < layers.len(), "{name}");
            assert!(!layers[last].evicted, "{name}: the last attention layer keeps its visual tokens");
            if threshold.is_some() {
                assert_eq!(session.kv().layers_evicted, with_cells.len() - 1, "{name}");
            } else {
                // It was tried: a calibrated session has decided, whatever it decided.
                assert!(session.settings().evict.mode.is_some(), "{name}");
            }
            session.restart();
            let own = own_rows(&session, OTHER);
            assert_eq!(ask(&mut session, OTHER).tokens.prompt_computed, own, "{name}, {threshold:?}");
        }
    }
}

/// Effects of layers are measured by going back to the rows before the question, many times.
#[test]
fn a_hybrid_is_calibrated_by_its_attention_layers() {
    for (name, files) in hybrids() {
        let evict = EvictParams { mode: Some(EvictMode::Layers), ..EvictParams::default() };
        let params = SessionParams { evict, sampler: SamplerParams::default(), ..params() };
        let mut session = open(&files, params);
        let evictable = session.evictable_layers(QUESTION).expect("layers");
        let attention = evictable.iter().filter(|evictable| **evictable).count();
        assert!(attention >= 2 && attention < evictable.len(), "{name}: {evictable:?}");
        let none = vec![false; evictable.len()];
        let found = session.layer_effects(QUESTION, &[none, evictable], &mut ()).expect("effects");
        assert_eq!((found[0].changed, found[0].divergence), (0, 0.0), "{name}: the same rows, computed again");
        assert!(found[1].divergence > 0.0, "{name}: {found:?}");
        // The trials leave the conversation's own rows alone.
        let mut anew = open(&files, SessionParams { evict: EvictParams::off(), ..self::params() });
        let distance = families::distance(&logits(&mut session, OTHER), &logits(&mut anew, OTHER));
        assert!(distance < 1e-3, "{name}: {distance}");
    }
}

#[test]
fn live_video_goes_on_after_a_question() {
    for (name, files) in hybrids() {
        let live = LiveParams { policy: LivePolicy::Window { frames: 64 }, ..LiveParams::default() };
        let mut session = LiveSession::open(&files, params(), live, &mut ()).expect("the model opens");
        let mut own = Vec::new();
        for n in 0..12_u32 {
            let rgb = families::image((64, 64), n).into_raw();
            let frame = Frame { width: 64, height: 64, rgb, time_s: f64::from(n) };
            session.push(&frame, &mut ()).expect("a frame");
            if n % 4 == 3 {
                let tokens = session.ask(QUESTION, &mut ()).expect("an answer").tokens;
                own.push((tokens.prompt_computed, tokens.prompt));
            }
        }
        // What a question costs does not grow with the frames before it.
        let (first, last) = (own[0], own[2]);
        assert!(last.1 > first.1 + 8, "{name}: {own:?}");
        assert!(last.0 <= first.0 + 8, "{name}: {own:?}");
    }
}

/// A session keeps all rows of layers with a sliding window, so going back finds them, also where frames have left the
/// cache in between.
#[test]
fn a_model_with_a_sliding_window_goes_back_without_checkpoints() {
    let files = families::files("gemma3");
    let mut session = open(&files, params());
    ask(&mut session, QUESTION);
    let window = session.model().window();
    assert!(window > 0 && session.prompt_rows(QUESTION).expect("a prompt").len() > window, "it has left the window");
    session.restart();
    let own = own_rows(&session, OTHER);
    // It keeps the text after the video, too, as far as it is the same.
    let computed = ask(&mut session, OTHER).tokens.prompt_computed;
    assert!(computed <= own, "{computed} rows, {own} after the video");
    assert_eq!(session.kv().checkpoints, 0);

    let live = LiveParams { policy: LivePolicy::Window { frames: 6 }, ..LiveParams::default() };
    let mut session = LiveSession::open(&files, params(), live, &mut ()).expect("the model opens");
    let mut computed = Vec::new();
    for n in 0..60_u32 {
        let rgb = families::image((64, 64), n).into_raw();
        session.push(&Frame { width: 64, height: 64, rgb, time_s: f64::from(n) }, &mut ()).expect("a frame");
        if n % 5 == 4 {
            let tokens = session.ask(QUESTION, &mut ()).expect("an answer").tokens;
            computed.push((tokens.prompt_computed, tokens.prompt));
        }
    }
    let first = computed[0].0;
    assert!(computed.iter().all(|(own, prompt)| own <= &(first + 8) && own < prompt), "{computed:?}");
}
