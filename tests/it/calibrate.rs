//! Layer profiles: measuring, storing and using them.

use crate::support::families;
#[cfg(feature = "cli")]
use crate::support::program::sharpv;
use crate::support::smol;
use sharpv::chat::{EvictMode, EvictParams, LayerProfile, Loss, ProfileStep, VideoOptions, order_of};
use sharpv::lab::calibrate::{Calibration, Record, write_clips};
use sharpv::models;
use sharpv::{CancelToken, Error, Observer, Session, SessionParams, Stage};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const QUESTIONS: [&str; 2] = ["What?", "Where?"];

fn params() -> SessionParams {
    let mut params = SessionParams {
        evict: EvictParams { mode: Some(EvictMode::Layers), ..EvictParams::default() },
        n_predict: 4,
        ..SessionParams::default()
    };
    params.compute.n_threads = Some(1);
    params.vision.n_threads = Some(1);
    params.sampler.temperature = 0.0;
    params
}

fn session(params: SessionParams) -> Session {
    Session::open(&families::files("llava-onevision"), params, &mut ()).expect("a session")
}

/// Clips that a tiny encoder encodes quickly.
fn clips(folder: &Path, n: usize) -> Vec<PathBuf> {
    write_clips(folder, n).expect("clips")
}

fn calibration<'a>(clips: &'a [PathBuf], questions: &'a [String]) -> Calibration<'a> {
    let video = VideoOptions { max_frames: Some(2), ..VideoOptions::default() };
    Calibration { clips, video, questions, max_loss: 0.5 }
}

fn questions() -> Vec<String> {
    QUESTIONS.map(String::from).to_vec()
}

#[test]
fn every_layer_is_measured_and_all_but_one_may_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let (clips, questions) = (clips(folder.path(), 4), questions());
    let mut record = Record::open(&folder.path().join("record"), "one").expect("a record");
    let mut session = session(params());
    let profile = calibration(&clips, &questions).run(&mut session, &mut record, &mut ()).expect("a profile");
    let n_layer = session.model().n_layer();
    assert_eq!((profile.single.len(), profile.clips, profile.answers), (n_layer, 4, 8));
    assert!(profile.single.iter().flatten().all(|loss| loss.divergence >= -1e-9 && (0.0..=1.0).contains(&loss.lost)));
    assert!(profile.single.iter().flatten().any(|loss| loss.divergence > 0.0), "hiding does something");
    assert_eq!(profile.order, order_of(&profile.single));
    let mut layers = profile.order.clone();
    layers.sort_unstable();
    assert_eq!(layers, (0..n_layer).collect::<Vec<_>>());
    assert_eq!(profile.steps.last().map(|step| step.layers), Some(n_layer - 1));
    assert!(profile.free < n_layer);

    let file = folder.path().join("profile.json");
    profile.write(&file).expect("it is written");
    assert_eq!(LayerProfile::read(&file).expect("it is read"), profile);
}

#[test]
fn hiding_nothing_changes_nothing_and_an_effect_is_repeatable() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut session = session(params());
    session.add_video(&clips(folder.path(), 1)[0], &VideoOptions::default(), &mut ()).expect("a video");
    let n_layer = session.model().n_layer();
    assert_eq!(session.evictable_layers("What?").expect("layers"), vec![true; n_layer]);
    let all_but_first: Vec<bool> = (0..n_layer).map(|il| il > 0).collect();
    let sets = [vec![false; n_layer], all_but_first.clone(), all_but_first];
    let found = session.layer_effects("What?", &sets, &mut ()).expect("effects");
    assert!(found[0].tokens > 0);
    assert_eq!((found[0].changed, found[0].divergence, found[0].lost), (0, 0.0, 0.0));
    assert!(found[1].divergence > 0.0);
    assert_eq!(found[1], found[2]);
    // Nothing was evicted, so another question finds the same tokens as the first.
    let other = session.layer_effects("Where?", &sets[..2], &mut ()).expect("effects");
    assert_eq!((other[0].changed, other[0].divergence), (0, 0.0));
    assert_eq!(session.layer_effects("What?", &sets, &mut ()).expect("effects"), found);
}

/// Cancels the work after this many answers.
struct StopAfter(u64, CancelToken);

impl Observer for StopAfter {
    fn progress(&mut self, stage: Stage, done: u64, _total: u64) {
        if stage == Stage::Answers && done >= self.0 {
            self.1.cancel();
        }
    }
}

#[test]
fn a_run_that_was_stopped_goes_on_to_the_same_profile() {
    let folder = tempfile::tempdir().expect("a folder");
    let (clips, questions) = (clips(folder.path(), 4), questions());
    let calibration = calibration(&clips, &questions);
    let mut record = Record::open(&folder.path().join("whole"), "one").expect("a record");
    let whole = calibration.run(&mut session(params()), &mut record, &mut ()).expect("a profile");

    let path = folder.path().join("stopped");
    let mut record = Record::open(&path, "one").expect("a record");
    let cancel = CancelToken::new();
    let mut stopped = session(SessionParams { cancel: cancel.clone(), ..params() });
    let error = calibration.run(&mut stopped, &mut record, &mut StopAfter(3, cancel.clone())).expect_err("stopped");
    assert!(matches!(error, Error::Cancelled), "{error}");
    drop(record);
    cancel.reset();
    let mut record = Record::open(&path, "one").expect("a record");
    assert_eq!(record.len(), 3);
    let resumed = calibration.run(&mut stopped, &mut record, &mut ()).expect("a profile");
    assert_eq!(resumed, whole);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (clips, questions) = (clips(folder.path(), 2), questions());
    let good = || calibration(&clips, &questions);
    good().validate().expect("it is right");
    let says = |calibration: Calibration<'_>| calibration.validate().expect_err("it is wrong").to_string();
    assert!(says(Calibration { clips: &clips[..1], ..good() }).contains("at least 2"));
    assert!(says(Calibration { questions: &[], ..good() }).contains("at least one"));
    assert!(says(Calibration { max_loss: 1.5, ..good() }).contains("0 to 1"));
    // A session that does not evict cannot measure.
    let mut record = Record::open(&folder.path().join("record"), "one").expect("a record");
    let mut stock = session(SessionParams { evict: EvictParams::off(), ..params() });
    assert!(good().run(&mut stock, &mut record, &mut ()).is_err());
}

/// A profile that frees all layers but the last, in order.
fn profile(n_layer: usize) -> LayerProfile {
    let single = (0..n_layer).map(|il| Some(Loss { divergence: il as f64, changed: 0.0, lost: 0.0 })).collect();
    LayerProfile::new(
        single,
        vec![ProfileStep { layers: n_layer - 1, loss: Loss { divergence: 0.0, changed: 0.0, lost: 0.0 } }],
        0.1,
    )
}

#[test]
fn a_session_evicts_by_its_profile_as_far_as_answers_stay() {
    let folder = tempfile::tempdir().expect("a folder");
    let clip = clips(folder.path(), 1).remove(0);
    let mut session = session(params());
    let n_layer = session.model().n_layer();
    session.set_layer_profile(Some(Arc::new(profile(n_layer)))).expect("it fits");
    session.add_video(&clip, &VideoOptions::default(), &mut ()).expect("a video");
    let before = session.ask("What?", &mut ()).expect("an answer").answer;
    session.settle(&mut ()).expect("it is evicted");
    let kv = session.kv();
    assert!(kv.layers_evicted < n_layer);
    // The same question after the eviction has the same answer, since the eviction was tried on it.
    session.restart();
    assert_eq!(session.ask("What?", &mut ()).expect("an answer").answer, before);

    let error = session.set_layer_profile(Some(Arc::new(profile(n_layer + 1)))).expect_err("another model's");
    assert!(error.to_string().contains(&format!("{} layers", n_layer + 1)), "{error}");
}

#[test]
fn the_profile_that_comes_with_smol_is_of_its_files_and_of_this_llama_cpp() {
    let digest = models::digest(&smol::files()).expect("a digest");
    let profile = LayerProfile::shipped(&digest).expect("it has that digest");
    assert_eq!(profile.llama_cpp, env!("SHARPV_LLAMA_PIN"), "the pin moved: run sharpv calibrate -m smol again");
    assert_eq!(profile.order, order_of(&profile.single));
    assert!(profile.free_layers().len() >= 10);
    assert!(LayerProfile::shipped("another").is_none());
}

#[cfg(feature = "cli")]
#[test]
fn the_program_makes_a_profile_and_uses_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let clips = clips(folder.path(), 2);
    let files = families::files("llava-onevision");
    let (model, mmproj) = (files.model.display().to_string(), files.mmproj.expect("an mmproj").display().to_string());
    let home = folder.path().join("home");
    let run = |args: &[&str]| {
        let mut all = args.to_vec();
        all.extend(["-m", &model, "--mmproj", &mmproj, "-t", "1", "--max-frames", "2"]);
        sharpv(&all).env("SHARPV_HOME", &home).assert()
    };
    let [one, two] = [0, 1].map(|i| clips[i].display().to_string());
    let wrong = run(&["calibrate", &one]);
    assert!(String::from_utf8_lossy(&wrong.failure().get_output().stderr).contains("at least 2"));

    let args = ["calibrate", &one, &two, "--question", "What?", "--max-quality-loss", "1", "--json"];
    let output = run(&args).success();
    let json: serde_json::Value = serde_json::from_slice(&output.get_output().stdout).expect("JSON");
    let free = json["free"].as_u64().expect("a number");
    assert_eq!(Some(free + 1), json["order"].as_array().map(|order| order.len() as u64), "all changes are allowed");
    let kept = std::fs::read_dir(home.join("profiles")).expect("a folder").count();
    assert_eq!(kept, 1, "the profile, and nothing unfinished");

    let said = |output: assert_cmd::assert::Assert| {
        String::from_utf8_lossy(&output.success().get_output().stdout).into_owned()
    };
    let with = said(run(&["plan", &one]));
    assert!(with.contains(&format!("{free} of {}", free + 1)), "{with}");
    assert!(!said(run(&["plan", &one, "--layer-profile", "off"])).contains("layer profile"));
    let report = folder.path().join("report");
    let profile = std::fs::read_dir(home.join("profiles")).expect("a folder").next().expect("a file").expect("a file");
    let args = ["report", &profile.path().display().to_string(), "--out", &report.display().to_string()];
    sharpv(&args).assert().success();
    let page = std::fs::read_to_string(report.join("report.html")).expect("a page");
    assert!(page.contains("id=\"layer-costs\""), "the image is in the page");
    assert!(page.contains(&format!("{free} of {} layers", free + 1)));
    assert!(report.join("layer-costs.svg").exists() && report.join("layers-together.svg").exists());

    let broken = folder.path().join("broken.json");
    std::fs::write(&broken, "{}").expect("a file");
    let output = run(&["ask", &one, "What?", "--layer-profile", &broken.display().to_string()]).failure();
    let error = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(error.contains("not a layer profile") && error.contains("sharpv calibrate"), "{error}");
}
