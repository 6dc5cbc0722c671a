//! Saving sessions to files, with the model `smol`.

use crate::support::saved_session::{Parts, sealed};
use crate::support::{families, smol};

use sharpv::chat::{EvictMode, EvictParams, Session, SessionParams, VideoOptions};
use sharpv::models::ModelFiles;
use sharpv::prune::PruneParams;
use sharpv::runtime::{ComputeParams, FlashAttention, KvType};
use std::path::{Path, PathBuf};

const FIRST: &str = "What appears first?";
const NEXT: &str = "What appears last?";

fn clip(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(name)
}

fn evict(mode: EvictMode, threshold: f32) -> EvictParams {
    EvictParams { mode: Some(mode), threshold: Some(threshold), ..EvictParams::default() }
}

fn params(prune: PruneParams, evict: EvictParams) -> SessionParams {
    SessionParams { prune, evict, n_predict: 24, ..SessionParams::default() }
}

/// Prunes, and evicts with the paper's threshold.
fn usual() -> SessionParams {
    params(PruneParams::default(), evict(EvictMode::Layers, 0.2))
}

fn open(params: SessionParams) -> Session {
    Session::open(&smol::files(), params, &mut ()).expect("smol opens")
}

fn add(session: &mut Session, name: &str) {
    session.add_video(clip(name), &VideoOptions::default(), &mut ()).expect("the clip is read");
}

fn logits(session: &mut Session, question: &str) -> Vec<f32> {
    session.first_logits(question, &mut ()).expect("logits")
}

/// The largest difference between the elements of two vectors.
fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("chat.session");
    (folder, path)
}

#[test]
fn a_restored_session_goes_on_as_the_saved_one() {
    let cases = [
        (params(PruneParams::default(), EvictParams::off()), 0, false),
        (usual(), 29, false),
        (params(PruneParams::off(), evict(EvictMode::Layers, 0.2)), 29, false),
        (params(PruneParams::off(), evict(EvictMode::Tokens, 0.11)), 0, true),
    ];
    for (params, layers, tokens) in cases {
        let (_folder, path) = folder();
        let mut session = open(SessionParams { system: Some("Be brief.".into()), ..params.clone() });
        add(&mut session, "order-1");
        let first = session.ask(FIRST, &mut ()).expect("an answer");
        assert_eq!((first.kv.layers_evicted, first.kv.tokens_evicted > 0), (layers, tokens));
        session.save(&path).expect("saved");

        let mut restored = open(params.clone());
        restored.load(&path).expect("restored");
        assert_eq!(restored.messages(), session.messages());
        assert!(restored.videos().eq(session.videos()));
        assert_eq!(restored.similarity(), session.similarity());
        assert_eq!(restored.kv(), session.kv());
        assert_eq!(restored.prompt_text(NEXT).expect("a prompt"), session.prompt_text(NEXT).expect("a prompt"));

        let far = distance(&logits(&mut restored, NEXT), &logits(&mut session, NEXT));
        assert_eq!(far, 0.0, "{:?}", params.evict);
        let (a, b) = (restored.ask(NEXT, &mut ()), session.ask(NEXT, &mut ()));
        let (a, b) = (a.expect("an answer"), b.expect("an answer"));
        assert_eq!((a.answer, a.kv, a.slices), (b.answer, b.kv, b.slices));
        assert_eq!(a.similarity, b.similarity);

        // Loaded again, the session computes only the question.
        restored.load(&path).expect("restored again");
        let again = restored.ask(NEXT, &mut ()).expect("an answer");
        assert!(again.tokens.prompt_computed < 40, "{} rows", again.tokens.prompt_computed);
        assert_eq!((again.timings_ms.encode, again.timings_ms.decode_video), (0.0, 0.0));
        assert_eq!((again.kv.layers_evicted, again.kv.tokens_evicted), (layers, first.kv.tokens_evicted));
    }
}

#[test]
fn a_cache_of_a_fixed_size_is_restored_without_its_gaps() {
    // The answers have the same rows. A cache that may shrink is packed when tokens are evicted.
    let run = |n_ctx| {
        let tokens = params(PruneParams::off(), evict(EvictMode::Tokens, 0.11));
        let params = SessionParams { n_ctx, n_predict: 1, ..tokens };
        let mut session = open(params.clone());
        add(&mut session, "order-1");
        session.ask(FIRST, &mut ()).expect("an answer");
        session.settle(&mut ()).expect("settled");
        (session, params)
    };
    let (mut packed, _) = run(None);
    let (mut gaps, params) = run(Some(1024));
    let (_folder, path) = folder();
    gaps.save(&path).expect("saved");
    let mut restored = open(params);
    restored.load(&path).expect("restored");
    assert_eq!(distance(&logits(&mut restored, NEXT), &logits(&mut packed, NEXT)), 0.0);
    let kv = restored.ask(NEXT, &mut ()).expect("an answer").kv;
    assert!(kv.cells == 1024 && kv.tokens_evicted > 0 && kv.tokens_evicted < 512, "{kv:?}");
}

/// Under M-RoPE, frames less than half a second apart have the same positions.
#[test]
fn frames_that_share_their_positions_leave_the_cache_one_by_one() {
    let mut frames = sharpv::video::Frames::new(112, 112);
    for frame in 0..16 {
        let image = families::image((112, 112), frame);
        frames.push(image.into_raw(), f64::from(frame) / 16.0).expect("a frame");
    }
    let options = VideoOptions { fps: Some(16.0), ..VideoOptions::default() };
    let open = |threshold| {
        let params = SessionParams { n_predict: 8, ..params(PruneParams::off(), evict(EvictMode::Tokens, threshold)) };
        Session::open(&families::files("qwen2.5vl"), params, &mut ()).expect("the fixture opens")
    };
    let ask = |threshold| {
        let mut session = open(threshold);
        let added = session.add_video(("camera", &frames), &options, &mut ()).expect("the frames are encoded");
        let answer = session.ask(FIRST, &mut ()).expect("an answer");
        session.settle(&mut ()).expect("settled");
        (session, added.visual_tokens.total, answer)
    };
    let (measured, total, _) = ask(-1.0);
    assert_eq!(measured.kv().tokens_evicted, 0);
    let places = measured.prompt_rows(FIRST).expect("a prompt");
    let visual = places.iter().filter(|row| matches!(row.key, sharpv::chat::RowKey::Visual { .. }));
    let distinct: std::collections::HashSet<_> = visual.map(|row| row.position).collect();
    assert!(distinct.len() < total, "the frames must share positions for the test to tell anything");

    // The similarity of all tokens is below 1, that of a part of them below the mean.
    let curve = measured.similarity();
    let mean = curve.iter().sum::<f32>() / curve.len() as f32;
    for (threshold, is_right) in [(1.0, &(|n| n == total) as &dyn Fn(usize) -> bool), (mean, &|n| n > 0 && n < total)] {
        let (mut session, _, answer) = ask(threshold);
        let kv = session.kv();
        assert!(is_right(kv.tokens_evicted), "{kv:?}, {total} visual tokens");
        let rows = answer.tokens.prompt + answer.tokens.decoded;
        assert_eq!(kv.cells_used + kv.tokens_evicted, rows, "{kv:?}");

        let (_folder, path) = folder();
        session.save(&path).expect("saved");
        let mut restored = open(threshold);
        restored.load(&path).expect("restored");
        assert_eq!(restored.kv(), session.kv());
        assert_eq!(distance(&logits(&mut restored, NEXT), &logits(&mut session, NEXT)), 0.0);
        // Truncates the cache to before the question, where evicted tokens stay evicted.
        session.restart();
        let again = session.ask("And then?", &mut ()).expect("an answer");
        assert!(again.tokens.prompt_computed < 40, "{:?}", again.tokens);
        assert_eq!(again.kv.tokens_evicted, kv.tokens_evicted);
    }
}

#[test]
fn what_waits_is_saved_too() {
    // This answer is too short to decide what to evict.
    let files = smol::files();
    let open = || Session::open(&files, SessionParams { n_predict: 24, ..SessionParams::default() }, &mut ());
    let (_folder, path) = folder();
    let mut session = open().expect("smol opens");
    add(&mut session, "order-1");
    session.ask(FIRST, &mut ()).expect("an answer");
    add(&mut session, "enter-2");
    session.save(&path).expect("saved");

    let mut restored = open().expect("smol opens");
    restored.load(&path).expect("restored");
    assert_eq!(restored.videos().len(), 2);
    for session in [&mut session, &mut restored] {
        session.settle(&mut ()).expect("settled");
        assert_eq!(session.similarity().len(), 30);
    }
    // The second video's embeddings come from the file.
    let question = "What is in the video?";
    let (a, b) = (restored.ask(question, &mut ()), session.ask(question, &mut ()));
    let (a, b) = (a.expect("an answer"), b.expect("an answer"));
    assert_eq!((&a.answer, a.kv, a.tokens), (&b.answer, b.kv, b.tokens));
    assert_eq!(distance(&logits(&mut restored, NEXT), &logits(&mut session, NEXT)), 0.0);

    // A session without a KV cache can be saved, too.
    session.free_cache();
    session.save(&path).expect("saved over the first");
    restored.load(&path).expect("restored");
    let whole = restored.ask(NEXT, &mut ()).expect("an answer");
    assert_eq!(whole.tokens.prompt, whole.tokens.prompt_computed);
    assert_eq!(whole.timings_ms.encode, 0.0);
    session.clear();
    session.save(&path).expect("an empty session is saved");
    restored.load(&path).expect("and restored");
    assert_eq!((restored.messages().len(), restored.videos().len()), (0, 0));
}

#[test]
fn what_is_no_session_of_this_model_is_refused_and_changes_nothing() {
    let (folder, path) = folder();
    let mut session = open(usual());
    add(&mut session, "order-1");
    session.ask(FIRST, &mut ()).expect("an answer");
    session.save(&path).expect("saved");
    let whole = std::fs::read(&path).expect("the file");
    // The second call computes only the last row, as the third one will.
    logits(&mut session, NEXT);
    let before = logits(&mut session, NEXT);

    let damaged = folder.path().join("damaged.session");
    let mut refuse = |bytes: &[u8], reason: &str| {
        std::fs::write(&damaged, bytes).expect("a test file");
        let error = session.load(&damaged).expect_err(reason).to_string();
        assert!(error.contains(reason) && error.contains("damaged.session: ") && error.contains("; "), "{error}");
    };
    for length in [1, 7, 8, 11, 12, 19, 20, 21, 1000, whole.len() / 2, whole.len() - 33, whole.len() - 1] {
        refuse(&whole[..length], "truncated");
    }
    refuse(&[], "not a saved session");
    refuse(b"GGUF and something more of it", "not a saved session");
    refuse(&[&whole[..], b"x"].concat(), "damaged");
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    refuse(&flipped(0), "not a saved session");
    refuse(&flipped(8), "has format 6, and this version of sharpv reads format 7; load it with the version");
    refuse(&flipped(19), "truncated");
    for at in [20, 30, whole.len() / 2, whole.len() - 40, whole.len() - 1] {
        refuse(&flipped(at), "damaged");
    }

    // Complete files with wrong contents and a correct checksum.
    let header_bytes = u64::from_le_bytes(whole[12..20].try_into().expect("8 bytes")) as usize;
    let body = &whole[20 + header_bytes..whole.len() - 32];
    let header: serde_json::Value = serde_json::from_slice(&whole[20..20 + header_bytes]).expect("a header");
    let forged = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut header = header.clone();
        change(&mut header);
        let header = serde_json::to_vec(&header).expect("JSON");
        sealed([&whole[..12], &(header.len() as u64).to_le_bytes(), &header, body].concat())
    };
    std::fs::write(&damaged, forged(&|_| {})).expect("a test file");
    open(usual()).load(&damaged).expect("unchanged, it is good");
    let visual = header["cached"].as_array().expect("rows").iter().position(|row| row["key"]["Visual"].is_object());
    let visual = visual.expect("a visual row");
    let set = |pointer: &str, value: serde_json::Value| {
        let pointer = pointer.to_owned();
        forged(&move |header| *header.pointer_mut(&pointer).expect("a field") = value.clone())
    };
    for (pointer, value) in [
        (format!("/cached/{visual}/key/Visual/video"), 1.into()),
        (format!("/cached/{visual}/key/Visual/slice"), u64::MAX.into()),
        (format!("/cached/{visual}/key/Visual/kept"), 64.into()),
        ("/cached/0/key/Token".into(), (-1).into()),
        ("/cached/0/key/Token".into(), i32::MAX.into()),
        ("/cached/0/position/0".into(), i32::MAX.into()),
        ("/cached/1/position/0".into(), (-1).into()),
        ("/cached".into(), serde_json::json!([])),
        ("/videos/0/slices/0/kept/0".into(), 64.into()),
        ("/videos/0/slices/0/n_tokens".into(), 1.into()),
        ("/videos/0/slices/0/kept".into(), serde_json::json!([])),
        ("/videos/0/arrangement/image_size/0".into(), 0.into()),
        ("/videos/0/arrangement/image_size/0".into(), u32::MAX.into()),
        ("/videos/0/arrangement/n_frames".into(), u64::MAX.into()),
        ("/videos/0/arrangement/frames_per_slice".into(), 0.into()),
        ("/videos/0/arrangement/parts".into(), serde_json::json!([{"Slice": 1000}])),
        ("/videos/0/arrangement/time_steps".into(), serde_json::json!([-1])),
        ("/videos".into(), serde_json::json!([])),
        ("/videos_sent".into(), 2.into()),
        ("/dense_rows".into(), u64::MAX.into()),
        ("/marks".into(), "".into()),
        ("/evicted/similarity".into(), serde_json::json!([0.5])),
        ("/evicted/rows".into(), serde_json::json!([0])),
        ("/evicted/rows".into(), serde_json::json!([visual, visual])),
        ("/evicted/rows".into(), serde_json::json!([1_000_000])),
        ("/videos/0/slices/0/times_s".into(), serde_json::json!([])),
        ("/videos/0/slices/0/times_s".into(), serde_json::json!([0.0, 1.0])),
        ("/evicted/calibrated".into(), serde_json::json!({"Layers": [true]})),
        ("/embeddings_bytes".into(), 4.into()),
        ("/state_bytes".into(), 0.into()),
        ("/fits".into(), serde_json::json!([])),
    ] {
        refuse(&set(&pointer, value), "damaged");
    }
    refuse(&set("/embeddings_bytes", u64::MAX.into()), "damaged");
    refuse(&set("/state_bytes", (u64::MAX / 2).into()), "truncated");
    refuse(&set("/videos/0/slices/0/n_tokens", 65.into()), "cannot be used");
    // One byte at the beginning of the KV cache's state.
    let embeddings = header["embeddings_bytes"].as_u64().expect("a number") as usize;
    let mut bytes = whole[..whole.len() - 32].to_vec();
    bytes[20 + header_bytes + embeddings] ^= 0xff;
    refuse(&sealed(bytes), "its KV cache cannot be restored");
    // A context of an impossible size is not allocated.
    std::fs::write(&damaged, set("/n_ctx", (1_u64 << 60).into())).expect("a test file");
    open(usual()).load(&damaged).expect("restored");

    let error = session.load(&folder.path().join("missing")).expect_err("missing").to_string();
    assert!(error.contains("opening the saved session failed"), "{error}");
    session.load(folder.path()).expect_err("a folder");
    assert_eq!(distance(&logits(&mut session, NEXT), &before), 0.0);
    let answer = session.ask(NEXT, &mut ()).expect("an answer");
    assert!(answer.tokens.prompt_computed < 40, "the cache is still there");

    // Sessions with other settings reject the file.
    let usual = usual();
    let with = |compute| SessionParams { compute, ..usual.clone() };
    let q8 = ComputeParams { type_k: KvType::Q8_0, type_v: KvType::Q8_0, ..usual.compute.clone() };
    let slow = ComputeParams { flash_attention: FlashAttention::Off, ..usual.compute.clone() };
    let mut files = smol::files();
    files.lora.clear();
    for (files, params, reason) in [
        (smol::files(), with(q8), "saved with KV types f16/f16, and this one has q8_0/q8_0; open the session with"),
        (smol::files(), with(slow), "saved with flash attention on"),
        (smol::files(), SessionParams { evict: EvictParams::off(), ..usual.clone() }, "saved with eviction on"),
        (smol::files(), SessionParams { n_ctx: Some(64), ..usual.clone() }, "more than the 64 of this one"),
        (files, usual.clone(), "saved with LoRA adapters "),
    ] {
        let mut other = Session::open(&files, params, &mut ()).expect("smol opens");
        let error = other.load(&path).expect_err(reason).to_string();
        assert!(error.contains(reason), "{error}");
        assert_eq!((other.messages().len(), other.videos().len()), (0, 0));
    }
}

#[test]
fn saving_replaces_nothing_but_sessions() {
    let (folder, path) = folder();
    let mut session = open(usual());
    let names = || {
        let entries = std::fs::read_dir(folder.path()).expect("the folder");
        entries.map(|entry| entry.expect("an entry").file_name()).collect::<Vec<_>>()
    };
    let error = session.save(&folder.path().join("nowhere/chat.session")).expect_err("no folder").to_string();
    assert!(error.contains("chat.session: saving the session failed"), "{error}");
    let error = session.save(folder.path()).expect_err("a folder").to_string();
    assert!(error.contains("is not a saved session"), "{error}");
    std::fs::write(&path, "a video").expect("a test file");
    session.save(&path).expect_err("another file");
    assert_eq!(std::fs::read(&path).expect("the file"), b"a video");

    std::fs::write(&path, "").expect("a test file");
    for _ in 0..2 {
        session.save(&path).expect("saved");
        session.load(&path).expect("restored");
    }
    assert_eq!(names(), ["chat.session"], "nothing is left beside it");
}

#[test]
fn a_fine_tune_of_the_same_shape_is_another_model() {
    let (folder, path) = folder();
    let files = families::files("llava-onevision");
    let open = |files: &ModelFiles| {
        let params = SessionParams { n_predict: 4, ..SessionParams::default() };
        Session::open(files, params, &mut ()).expect("the fixture opens")
    };
    let clip = folder.path().join("clip");
    std::fs::create_dir(&clip).expect("a folder");
    families::write_frames(&clip, (160, 120), 2);
    let mut session = open(&files);
    session.add_video(&clip, &VideoOptions::default(), &mut ()).expect("the frames are read");
    session.ask(FIRST, &mut ()).expect("an answer");
    session.save(&path).expect("saved");

    // Simulates training: changes bytes of a tensor in the middle of the file, or near its end.
    let tuned = |of: &Path, from_end: fn(usize) -> usize| {
        let mut bytes = std::fs::read(of).expect("a model");
        let start = bytes.len() - from_end(bytes.len());
        bytes[start..start + 8].iter_mut().for_each(|byte| *byte ^= 1);
        let tuned = folder.path().join(of.file_name().expect("a name"));
        std::fs::write(&tuned, bytes).expect("a model");
        tuned
    };
    let mmproj = files.mmproj.clone().expect("an mmproj");
    let places: [fn(usize) -> usize; 2] = [|length| length / 2, |_| 64];
    for place in places {
        let with_model = ModelFiles { model: tuned(&files.model, place), ..files.clone() };
        let with_mmproj = ModelFiles { mmproj: Some(tuned(&mmproj, place)), ..files.clone() };
        for (files, reason) in [(with_model, "saved with model weights "), (with_mmproj, "saved with mmproj weights ")]
        {
            let error = open(&files).load(&path).expect_err(reason).to_string();
            assert!(error.contains(reason) && error.contains("open the session with the same model"), "{error}");
        }
    }
    // The same weights under another name are the same model.
    let copy = folder.path().join("copy.gguf");
    std::fs::copy(&files.model, &copy).expect("a copy");
    open(&ModelFiles { model: copy, ..files }).load(&path).expect("restored");
}

#[test]
fn an_adapter_with_other_weights_is_another() {
    let (folder, path) = folder();
    let mut files = smol::files();
    let open = |files: &ModelFiles| Session::open(files, usual(), &mut ()).expect("smol opens");
    open(&files).save(&path).expect("saved");
    let adapter = files.lora[0].clone();
    let mut bytes = std::fs::read(&adapter).expect("the adapter");
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    files.lora[0] = folder.path().join(adapter.file_name().expect("a name"));
    std::fs::write(&files.lora[0], bytes).expect("an adapter");
    let error = open(&files).load(&path).expect_err("another adapter").to_string();
    assert!(error.contains("saved with LoRA adapters "), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_forged_length_in_the_state_allocates_nothing() {
    let (_folder, path) = folder();
    let mut session = open(usual());
    session.ask(FIRST, &mut ()).expect("an answer");
    session.save(&path).expect("saved");
    let mut parts = Parts::read(&path);
    // The state begins with the length of the architecture's name.
    let length = parts.number(0);
    assert_eq!(&parts.state[4..4 + length], b"llama");
    parts.state[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    parts.write(&path);
    let before = sharpv::runtime::peak_rss_bytes().expect("Linux tells");
    let error = session.load(&path).expect_err("forged").to_string();
    assert!(error.contains("its KV cache cannot be restored: "), "{error}");
    let grown = sharpv::runtime::peak_rss_bytes().expect("Linux tells") - before;
    assert!(grown < 1 << 30, "{grown} bytes more");
}

#[test]
fn a_forged_state_that_names_a_layer_twice_is_refused() {
    let (_folder, path) = folder();
    let mut session = open(usual());
    add(&mut session, "order-1");
    session.ask(FIRST, &mut ()).expect("an answer");
    assert_eq!(session.kv().layers_evicted, 29);
    session.save(&path).expect("saved");
    let mut parts = Parts::read(&path);
    // Our part of the state is at its end, before its length and a mark. It begins with six numbers, and then the
    // layers.
    let end = parts.state.len() - 16;
    let length = u64::from_le_bytes(parts.state[end..end + 8].try_into().expect("8 bytes")) as usize;
    let layers = end - length + 24;
    assert_eq!(parts.number(layers - 4), 29);
    parts.state.copy_within(layers..layers + 4, layers + 4);
    parts.write(&path);
    let error = session.load(&path).expect_err("forged").to_string();
    assert!(error.contains("its KV cache cannot be restored: it is damaged"), "{error}");
}

#[test]
fn logits_that_are_no_numbers_are_an_error_and_cost_only_the_cache() {
    let (_folder, path) = folder();
    let params = params(PruneParams::default(), EvictParams::off());
    let mut session = open(params.clone());
    add(&mut session, "order-1");
    session.ask(FIRST, &mut ()).expect("an answer");
    session.save(&path).expect("saved");
    session.free_cache();
    let expected = session.ask(NEXT, &mut ()).expect("an answer").answer;

    let mut parts = Parts::read(&path);
    // After the architecture's name: one stream, its cells of three numbers each, then four numbers. Then follow the
    // keys of the first layer, after their type and the bytes of a row.
    let cells = 4 + parts.number(0) + 4;
    let n_cells = parts.number(cells);
    let keys = cells + 4 + 12 * n_cells + 16;
    let row = parts.number(keys + 4);
    assert_eq!((parts.number(keys), row), (1, 2 * 192));
    parts.state[keys + 12..keys + 12 + row * n_cells].fill(0xff);
    parts.write(&path);

    let mut restored = open(params);
    restored.load(&path).expect("it is whole");
    let error = restored.ask(NEXT, &mut ()).expect_err("no numbers").to_string();
    assert!(error.contains("not finite") && error.contains("ask again"), "{error}");
    // The embeddings are good: the prompt is computed anew.
    let answer = restored.ask(NEXT, &mut ()).expect("an answer");
    assert_eq!((answer.answer, answer.tokens.prompt_computed), (expected, answer.tokens.prompt));
    restored.load(&path).expect("it is whole");
    restored.first_logits(NEXT, &mut ()).expect_err("no numbers");
    restored.first_logits(NEXT, &mut ()).expect("numbers");
}
