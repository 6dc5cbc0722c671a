//! Planning a video and making it fit: positions, cells, memory.

use crate::support::families;

use sharpv::chat::{Session, SessionParams, VideoOptions, VideoPlan};
use sharpv::models::ModelFiles;
use sharpv::prune::PruneParams;
use sharpv::runtime::{
    CancelToken, ComputeParams, Context, ContextParams, Model, ModelNeed, ModelParams, Vision, VisionParams,
    vision_need,
};
use sharpv::{Error, Fix, Observer};
use std::path::Path;

const FRAMES: usize = 12;

/// A folder of frames.
fn clip(size: (u32, u32)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    families::write_frames(folder.path(), size, FRAMES);
    folder
}

/// Records warnings.
#[derive(Default)]
struct Warnings(Vec<String>);

impl Observer for Warnings {
    fn warning(&mut self, message: &str) {
        self.0.push(message.to_owned());
    }
}

/// The family's model, as if it had been trained with `n_ctx` positions.
fn trained_for(family: &str, architecture: &str, n_ctx: u32, folder: &Path) -> ModelFiles {
    let files = families::files(family);
    let mut bytes = std::fs::read(&files.model).expect("the model");
    let key = format!("{architecture}.context_length");
    let at = bytes.windows(key.len()).position(|window| window == key.as_bytes()).expect("the key");
    // The value follows its type.
    let value = at + key.len() + 4;
    bytes[value..value + 4].copy_from_slice(&n_ctx.to_le_bytes());
    let model = folder.join("model.gguf");
    std::fs::write(&model, bytes).expect("a model is written");
    ModelFiles { model, ..files }
}

fn open(files: &ModelFiles, params: SessionParams) -> Session {
    Session::open(files, params, &mut ()).expect("the model opens")
}

fn unpruned() -> SessionParams {
    SessionParams { prune: PruneParams::off(), n_predict: 8, ..SessionParams::default() }
}

fn plan(session: &Session, video: &Path) -> VideoPlan {
    session.plan_video(video, &VideoOptions::default().for_question("What is it?")).expect("a plan")
}

#[test]
fn a_plan_says_what_a_question_then_takes() {
    let clip = clip((96, 64));
    for family in ["smolvlm", "qwen2.5vl", "qwen3vl", "llava-onevision", "minicpmv", "gemma3"] {
        let mut session = open(&families::files(family), unpruned());
        let plan = plan(&session, clip.path());
        assert!(plan.fits && plan.shortage.is_none() && plan.changes.is_empty(), "{family}: {plan:?}");
        assert_eq!(plan.asked, plan.planned, "{family}");
        session.add_video(clip.path(), &VideoOptions::default(), &mut ()).expect("the video");
        let answer = session.ask("What is it?", &mut ()).expect("an answer");
        let planned = plan.planned;
        assert_eq!(planned.frames, answer.frames, "{family}");
        assert_eq!(planned.slices, answer.slices.len(), "{family}");
        assert_eq!(planned.visual_tokens, answer.visual_tokens.total, "{family}");
        assert_eq!(planned.prompt_tokens, answer.tokens.prompt, "{family}");
        assert_eq!(plan.memory.kv_dense, answer.kv.bytes, "{family}");
        assert_eq!(plan.memory.weights, session.model().size_bytes(), "{family}");
    }
}

/// Gemma's attention within an image is not causal, so each image must be one batch.
#[test]
fn batches_are_as_large_as_images_that_have_to_be_seen_at_once() {
    let clip = clip((96, 64));
    let files = families::files("gemma3");
    let with =
        |n_ubatch| SessionParams { compute: ComputeParams { n_ubatch, ..ComputeParams::default() }, ..unpruned() };
    let ask = |session: &mut Session| {
        let mut warnings = Warnings::default();
        session.add_video(clip.path(), &VideoOptions::default(), &mut warnings).expect("the video");
        let logits = session.first_logits("What is it?", &mut ()).expect("logits");
        (logits, session.ask("What is it?", &mut ()).expect("an answer").settings.n_ubatch, warnings.0.join("\n"))
    };
    let mut usual = open(&files, with(512));
    let roomy = plan(&usual, clip.path());
    let (expected, n_ubatch, told) = ask(&mut usual);
    assert_eq!((roomy.raised_ubatch, n_ubatch, told.as_str()), (None, 512, ""));

    let mut small = open(&files, with(8));
    let tight = plan(&small, clip.path());
    let per_image = tight.planned.visual_tokens / tight.planned.slices;
    assert!(per_image > 8 && tight.fits, "{tight:?}");
    assert_eq!(tight.raised_ubatch, Some(per_image));
    // The plan has the larger batches before a frame is encoded.
    let compute = |plan: &VideoPlan| plan.memory.compute;
    let as_large = plan(&open(&files, with(per_image)), clip.path());
    assert_eq!(compute(&tight), compute(&as_large));
    assert!(compute(&tight) < compute(&roomy), "{tight:?}");
    let (found, n_ubatch, told) = ask(&mut small);
    assert_eq!(n_ubatch, per_image);
    assert!(told.contains(&format!("{per_image} rows are computed at once in place of 8")), "{told}");
    let distance = families::distance(&found, &expected);
    assert!(distance < 0.01, "{distance}");

    // After another question, in a conversation that begins without an image, the cache moves to a context with larger
    // batches.
    let mut later = open(&files, with(8));
    later.ask("Who are you?", &mut ()).expect("an answer");
    assert_eq!(later.settings().n_ubatch, 8);
    let (_, n_ubatch, _) = ask(&mut later);
    assert_eq!(n_ubatch, per_image);

    // A family with causal attention accepts an image in several batches.
    let mut other = open(&families::files("smolvlm"), with(8));
    assert_eq!(plan(&other, clip.path()).raised_ubatch, None);
    assert_eq!(ask(&mut other).1, 8);
}

#[test]
fn a_video_that_passes_the_models_positions_gets_fewer_frames() {
    let (clip, folder) = (clip((64, 64)), tempfile::tempdir().expect("a folder"));
    let files = trained_for("smolvlm", "llama", 450, folder.path());
    let mut session = open(&files, unpruned());
    let plan = plan(&session, clip.path());
    assert!(plan.fits && plan.planned.frames < FRAMES && plan.planned.frames >= 6, "{plan:?}");
    assert!(plan.planned.positions <= 450 && plan.asked.positions > 450, "{plan:?}");
    assert!(plan.shortage.expect("a reason").contains("450 positions"));

    let mut warnings = Warnings::default();
    session.add_video(clip.path(), &VideoOptions::default(), &mut warnings).expect("it fits");
    let told = warnings.0.join("\n");
    assert!(told.contains(&format!("{} of {FRAMES} frames", plan.planned.frames)), "{told}");
    session.ask("What is it?", &mut ()).expect("an answer");

    // Options that were set are not changed.
    let all = VideoOptions { max_frames: Some(FRAMES), ..VideoOptions::default() };
    session.clear();
    let error = session.add_video(clip.path(), &all, &mut ()).expect_err("it does not fit");
    assert!(matches!(error, Error::PromptTooLong { limit: 450, .. }), "{error}");
    let suggested = plan.suggestions.max_frames;
    assert!(error.fixes().contains(&Fix::MaxFrames(suggested)), "{error}");
    let fewer = VideoOptions { max_frames: Some(suggested), ..VideoOptions::default() };
    session.add_video(clip.path(), &fewer, &mut ()).expect("what is suggested fits");

    let strict = open(&files, SessionParams { fit: false, ..unpruned() });
    let plan = strict.plan_video(clip.path(), &VideoOptions::default()).expect("a plan");
    assert!(!plan.fits && plan.planned == plan.asked && plan.changes.is_empty(), "{plan:?}");
}

#[test]
fn images_become_smaller_before_frames_become_fewer() {
    let clip = clip((640, 360));
    let with = |cells| SessionParams { n_ctx: Some(cells), ..unpruned() };
    let free = plan(&open(&families::files("qwen2.5vl"), unpruned()), clip.path());
    let some = plan(&open(&families::files("qwen2.5vl"), with(free.planned.prompt_tokens * 2 / 3)), clip.path());
    assert!(some.fits && some.planned.frames == FRAMES, "{some:?}");
    assert!(some.planned.image.0 < free.planned.image.0, "{some:?}");
    let shape = |need: sharpv::chat::Need| f64::from(need.image.0) / f64::from(need.image.1);
    assert!((shape(some.planned) / shape(free.planned) - 1.0).abs() < 0.2, "{some:?}");

    let mut session = open(&families::files("qwen2.5vl"), with(400));
    let few = plan(&session, clip.path());
    assert!(few.fits && few.planned.frames < FRAMES && few.planned.frames.is_multiple_of(2), "{few:?}");
    session.add_video(clip.path(), &VideoOptions::default(), &mut ()).expect("it fits");
    let answer = session.ask("What is it?", &mut ()).expect("an answer");
    assert_eq!(answer.visual_tokens.total, few.planned.visual_tokens);
}

#[test]
fn pruning_is_told_how_much_there_is_room_for() {
    let clip = clip((96, 64));
    let params = SessionParams { n_ctx: Some(512), prune: PruneParams::default(), ..unpruned() };
    let mut session = open(&families::files("internvl"), params.clone());
    let roomy = plan(&session, clip.path());
    assert_eq!(roomy.max_kept, None, "{roomy:?}");
    session.add_video(clip.path(), &VideoOptions::default(), &mut ()).expect("it fits");
    let wanted = session.ask("What is it?", &mut ()).expect("an answer").visual_tokens.kept;

    // Cells for the text, and for fewer visual tokens than pruning would keep.
    let text = roomy.planned.prompt_tokens - roomy.planned.visual_tokens;
    let mut session =
        open(&families::files("internvl"), SessionParams { n_ctx: Some(text + 8 + 32 + wanted / 2), ..params });
    let tight = plan(&session, clip.path());
    assert!(tight.fits && tight.planned.frames == roomy.planned.frames, "{tight:?}");
    let max_kept = tight.max_kept.expect("a limit");
    assert!(max_kept < wanted, "{max_kept} {wanted}");
    let report = session.add_video(clip.path(), &VideoOptions::default(), &mut ()).expect("it fits");
    assert!(report.visual_tokens.kept <= max_kept, "{report:?}");
    assert!(report.visual_tokens.kept < wanted, "{report:?}");
    let answer = session.ask("What is it?", &mut ()).expect("an answer");
    assert_eq!(answer.settings.prune.cap, Some(max_kept));
}

#[test]
fn a_limit_of_memory_is_kept() {
    let clip = clip((320, 180));
    let files = families::files("qwen2vl");
    let free = plan(&open(&files, unpruned()), clip.path());
    let need = free.memory.kv_dense + free.memory.compute + free.memory.embeddings;
    // Without pruning, images become smaller.
    let limit = need - need / 20;
    let mut session = open(&files, SessionParams { max_memory: Some(limit), ..unpruned() });
    let tight = plan(&session, clip.path());
    let memory = &tight.memory;
    assert!(tight.fits && tight.planned.visual_tokens < free.planned.visual_tokens, "{tight:?}");
    assert!(memory.kv_dense + memory.compute + memory.embeddings <= limit, "{tight:?}");
    assert!(memory.free == Some(limit) && tight.shortage.expect("a reason").contains("memory"));
    session.add_video(clip.path(), &VideoOptions::default(), &mut ()).expect("it fits");
    session.ask("What is it?", &mut ()).expect("an answer");

    // The limit excludes even an empty context.
    let nothing = open(&files, SessionParams { max_memory: Some(1), ..unpruned() });
    let nothing = plan(&nothing, clip.path());
    assert!(!nothing.fits && nothing.suggestions.max_frames == 0, "{nothing:?}");
}

#[test]
fn the_program_says_what_is_planned_and_what_would_fit() {
    let clip = clip((96, 64));
    let run = |more: &[&str]| {
        let files = families::files("smolvlm");
        let mut command = assert_cmd::Command::cargo_bin("sharpv").expect("the program");
        command.args(["plan".as_ref(), clip.path().as_os_str(), "-m".as_ref(), files.model.as_os_str()]);
        let output = command.args(more).output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let mmproj = families::files("smolvlm").mmproj.expect("one");
    let mmproj = mmproj.to_str().expect("UTF-8");
    let text = run(&["--mmproj", mmproj, "--prune", "off"]);
    for part in ["12 of 128×128 pixels", "smolvlm", "192 (12 × 16)", "KV cache", "free memory", "fits           yes"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let text = run(&["--mmproj", mmproj, "--prune", "off", "--no-fit", "-c", "300"]);
    assert!(
        text.contains("no: the context has 300 cells") && text.contains("-c ") && text.contains("--max-frames"),
        "{text}"
    );
    assert!(!text.contains("batches"), "{text}");
    let text = run(&["--mmproj", mmproj, "--prune", "off", "-c", "300"]);
    assert!(text.contains("yes, with less than requested"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&run(&["--mmproj", mmproj, "--json"])).expect("JSON");
    assert_eq!(json["planned"]["frames"], 12);
    assert_eq!(json["fits"], true);
    assert!(json["memory"]["free"].as_u64().expect("a number") > 0);
}

/// The memory that llama.cpp plans for a model before loading is what the loaded model occupies.
#[test]
fn what_a_model_takes_is_told_before_it_is_loaded() {
    for family in ["smolvlm", "qwen2.5vl", "qwen3vl", "llava-onevision", "gemma3"] {
        let files = families::files(family);
        for evictable in [false, true] {
            // The file is read, not mapped: a mapping is counted in whole pages.
            let params = ModelParams { mmap: false, ..ModelParams::default() };
            let context = ContextParams { n_ctx: 512, evictable, ..ContextParams::default() };
            let need = ModelNeed::of(&files.model, &params, &context).expect("a plan");
            let model = Model::load(&files.model, &params, |_| {}).expect("the model");
            let real = Context::new(&model, &context, &[], &CancelToken::new()).expect("a context");
            assert_eq!(need.devices, real.memory_by_device().expect("what it takes"), "{family}, {evictable}");
            assert_eq!(need.n_layers as usize, model.n_layer() + 1);
        }
    }
}

#[test]
fn what_an_encoder_takes_is_told_before_it_is_loaded() {
    let files = families::files("llava-onevision");
    let mmproj = files.mmproj.expect("an mmproj");
    let need = vision_need(&mmproj, &VisionParams::default()).expect("what it takes");
    let bytes = need.iter().map(|device| device.usage.total()).sum::<u64>();
    // All tensors, and buffers.
    let file = std::fs::metadata(&mmproj).expect("the file").len();
    assert!(bytes > file / 2 && bytes < file + (1 << 30), "{bytes} bytes, of a file of {file}");
    let model = vision_need(&files.model, &VisionParams::default()).expect_err("a language model sees nothing");
    assert!(matches!(&model, Error::Load { path, .. } if path == &files.model), "{model}");
}

/// mtmd's own function turns its log off for all threads during the call, and forever if two threads call it at once.
#[test]
fn what_encoders_take_can_be_asked_side_by_side() {
    let files = families::files("smolvlm");
    let mmproj = files.mmproj.expect("an mmproj");
    let expected = vision_need(&mmproj, &VisionParams::default()).expect("what it takes");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let need = vision_need(&mmproj, &VisionParams::default()).expect("what it takes");
                    assert_eq!(need, expected);
                }
            });
        }
    });
    let model = Model::load(&files.model, &ModelParams::default(), |_| {}).expect("the model");
    let error = Vision::load(&files.model, &model, &VisionParams::default(), |_| {}).expect_err("it sees nothing");
    assert!(!error.to_string().contains("gave no reason"), "{error}");
}
