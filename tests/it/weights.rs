//! Copies of model files in another type, and when they are used.

use crate::support::families::{self, distance};
#[cfg(feature = "cli")]
use crate::support::program::{sharpv, with_smol};
use crate::support::smol;
use sharpv::models::gguf::Kind;
use sharpv::models::{self, ModelFiles, Store, gguf};
use sharpv::runtime::{
    CancelToken, Context, ContextParams, Model, ModelParams, Row, RowInput, VisionParams, WeightType, convert,
};
use sharpv::weights::{Copies, Copy, in_place};
use sharpv::{Session, VideoOptions};
use std::path::Path;

/// Of `llava-onevision`'s encoder.
const MATRIX: &str = "v.blk.0.ffn_up.weight";

/// A copy of a projector of the fixtures, in a cache of its own. What it is in is no matter of the processor here.
fn copy_in(folder: &Path) -> (Store, Copy) {
    let store = Store::at(folder.join("cache"));
    let source = families::files("llava-onevision").mmproj.expect("an mmproj");
    let path = folder.join("cache/copies/of-a-file/mmproj.BF16.gguf");
    (store, Copy { source, path, weights: WeightType::Bf16 })
}

#[test]
fn a_matrix_is_rounded_and_all_else_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = families::files("llava-onevision").mmproj.expect("an mmproj");
    let target = folder.path().join("bf16.gguf");
    convert(&source, &target, WeightType::Bf16, None).expect("a copy");

    let values = |path: &Path, name: &str| gguf::read_floats(path, name).expect("a file").expect("a tensor");
    let (exact, rounded) = (values(&source, MATRIX), values(&target, MATRIX));
    let expected: Vec<f32> = exact.iter().map(|&value| half::bf16::from_f32(value).to_f32()).collect();
    assert_eq!(rounded, expected);
    assert_ne!(exact, rounded, "the matrix was not rounded before");
    for name in ["v.blk.0.ln1.weight", "v.position_embd.weight"] {
        assert_eq!(values(&source, name), values(&target, name), "{name}");
    }
    let (before, after) = (gguf::read_metadata(&source), gguf::read_metadata(&target));
    let (before, after) = (before.expect("metadata"), after.expect("metadata"));
    for (key, value) in before.iter().filter(|(key, _)| *key != "general.file_type") {
        assert_eq!(after.get(key), Some(value), "{key}");
    }
}

#[test]
fn a_language_model_in_larger_blocks_computes_the_same_but_for_rounding() {
    let source = smol::files().model;
    let folder = tempfile::tempdir().expect("a folder");
    let target = folder.path().join("q8_0.gguf");
    convert(&source, &target, WeightType::Q8_0, None).expect("a copy");
    let [exact, copy] = [&source, &target].map(|path| {
        let model = Model::load(path, &ModelParams::default(), |_| {}).expect("a model");
        let params = ContextParams { n_ctx: 16, ..ContextParams::default() };
        let mut context = Context::new(&model, &params, &[], &CancelToken::new()).expect("a context");
        let tokens = model.tokenize("The capital of France is", true, false).expect("tokens");
        let n = tokens.len();
        let row = |(i, token): (usize, i32)| Row {
            input: RowInput::Token(token),
            position: [i as i32; 4],
            logits: i + 1 == n,
        };
        let rows: Vec<Row<'_>> = tokens.into_iter().enumerate().map(row).collect();
        context.process(&rows).expect("logits");
        context.logits().expect("logits").to_vec()
    });
    // Rounding activations to 8 bits, in other blocks, moves them as well: 0.07 on the machine that this was written
    // on.
    let off = distance(&copy, &exact);
    assert!(off > 0.0 && off < 0.15, "{off}");
    let best = |logits: &[f32]| (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
    assert_eq!(best(&copy), best(&exact));
}

#[test]
fn a_copy_is_made_once_and_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, copy) = copy_in(folder.path());
    // Of a process that was killed while it made one.
    let unfinished = copy.path.with_extension("gguf.partial");
    std::fs::create_dir_all(copy.path.parent().expect("a folder")).expect("a folder");
    std::fs::write(&unfinished, "half").expect("a file");
    let said = std::thread::scope(|scope| {
        let make = || {
            let mut said = Said::default();
            Copies::new(&store).make(&copy, &mut said).map(|()| said.0)
        };
        let both = [scope.spawn(make), scope.spawn(make)];
        both.map(|thread| thread.join().expect("no panic").expect("a copy")).concat()
    });
    let wrote = said.iter().filter(|line| line.starts_with("writing a copy of llava-onevision-mmproj.gguf in BF16"));
    assert_eq!(wrote.count(), 1, "{said:?}");
    assert!(copy.exists() && !unfinished.exists());
    assert_eq!(gguf::read_metadata(&copy.path).expect("metadata").kind(), Kind::Mmproj);

    let files = families::files("llava-onevision");
    let used = in_place(files.clone(), std::slice::from_ref(&copy));
    assert_eq!((&used.mmproj, &used.model), (&Some(copy.path.clone()), &files.model));
    std::fs::remove_file(&copy.path).expect("it was there");
    assert_eq!(in_place(files.clone(), std::slice::from_ref(&copy)), files, "a copy that is not there");
}

#[test]
fn a_session_goes_on_with_a_copy_and_with_the_file_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let frames = folder.path().join("frames");
    std::fs::create_dir(&frames).expect("a folder");
    families::write_frames(&frames, (28, 28), 2);
    let (store, copy) = copy_in(folder.path());
    Copies::new(&store).make(&copy, &mut ()).expect("a copy");
    let exact = families::files("llava-onevision");
    let fast = in_place(exact.clone(), std::slice::from_ref(&copy));
    assert_ne!(exact, fast);
    assert_eq!(models::digest(&exact).expect("a digest"), models::digest(&fast).expect("a digest"));
    for (i, [saved, loaded]) in [[&exact, &fast], [&fast, &exact]].into_iter().enumerate() {
        let file = folder.path().join(format!("saved-{i}"));
        let mut session = Session::builder(saved).n_predict(2).threads(1).open().expect("a session");
        session.add_video(&frames, &VideoOptions::default(), &mut ()).expect("a video");
        session.ask("What?", &mut ()).expect("an answer");
        session.save(&file).expect("it is saved");
        let mut other = Session::builder(loaded).n_predict(2).threads(1).open().expect("a session");
        other.load(&file).expect("it is the same model");
        let answer = other.ask("Where?", &mut ()).expect("an answer");
        assert!(answer.tokens.prompt_computed < answer.tokens.prompt, "the video is in the cache");
    }
}

#[derive(Default)]
struct Said(Vec<String>);

impl sharpv::Observer for Said {
    fn message(&mut self, message: &str) {
        self.0.push(message.to_owned());
    }
}

#[test]
fn what_cannot_be_copied_leaves_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, copy) = copy_in(folder.path());
    // Its tensors are cut off.
    let bytes = std::fs::read(&copy.source).expect("a file");
    let broken = folder.path().join("broken.gguf");
    std::fs::write(&broken, &bytes[..bytes.len() - 100]).expect("a file");
    let copy = Copy { source: broken.clone(), ..copy };
    let error = Copies::new(&store).make(&copy, &mut ()).expect_err("no copy").to_string();
    assert!(error.starts_with(&broken.display().to_string()) && error.contains("it is cut off"), "{error}");
    let left: Vec<_> = std::fs::read_dir(copy.path.parent().expect("a folder"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(left, ["lock"]);
}

#[test]
fn no_copy_is_made_of_what_is_fast_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::at(folder.path());
    let copies = Copies::new(&store);
    let target = folder.path().join("mmproj.gguf");
    convert(&families::files("llava-onevision").mmproj.expect("an mmproj"), &target, WeightType::Bf16, None)
        .expect("a copy");
    let files = ModelFiles { mmproj: Some(target), ..families::files("llava-onevision") };
    let found = copies.of(&files, &ModelParams::default(), &VisionParams::default()).expect("files");
    assert_eq!(found, [], "an encoder in BF16, and a language model in F16");
}

#[cfg(feature = "cli")]
#[test]
fn the_program_uses_copies_and_says_where_they_are() {
    let folder = tempfile::tempdir().expect("a folder");
    let frames = folder.path().join("frames");
    std::fs::create_dir(&frames).expect("a folder");
    families::write_frames(&frames, (28, 28), 2);
    let files = families::files("llava-onevision");
    let (model, mmproj) = (files.model.display().to_string(), files.mmproj.expect("an mmproj").display().to_string());
    let home = folder.path().join("home");
    let ask = |weights: &str| {
        let frames = frames.display().to_string();
        let args = ["ask", &frames, "What?", "-m", &model, "--mmproj", &mmproj, "-n", "2", "-v", "--weights", weights];
        let output = sharpv(&args).env("SHARPV_HOME", &home).assert().success();
        String::from_utf8_lossy(&output.get_output().stderr).into_owned()
    };
    let is_faster = sharpv::weights::Processor::here() == sharpv::weights::Processor { bf16: true, amx: false };
    assert!(!ask("auto").contains("in place of"), "nothing was made yet");
    assert!(!home.join("copies").exists());
    assert_eq!(ask("fast").contains("writing a copy of llava-onevision-mmproj.gguf in BF16"), is_faster);
    assert_eq!(ask("auto").contains("in place of"), is_faster);
    assert!(!ask("exact").contains("in place of"));
}

#[cfg(feature = "cli")]
#[test]
fn an_unknown_choice_is_an_error() {
    let output = with_smol(&["ask", "clip.mp4", "What?", "--weights", "quick"]).assert().failure();
    let said = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(said.contains("auto") && said.contains("exact") && said.contains("fast"), "{said}");
}
