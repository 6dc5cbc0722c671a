//! `sharpv calibrate`: finds the layers of a model that can do without visual tokens.

use crate::args::CalibrateArgs;
use crate::interrupt::Interrupts;
use crate::output;
use crate::screen::{Screen, Watch};
use crate::session::about_default_model;
use indicatif::HumanDuration;
use sharpv::chat::{EvictMode, EvictParams, LayerProfile, Loss, Session, SessionParams, Thinking};
use sharpv::lab::calibrate::{Calibration, QUESTIONS, Record, write_clips};
use sharpv::models::{self, Store};
use sharpv::{Observer, Stage, video};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The second Ctrl-C ends the program at once.
const PATIENCE: u32 = 2;

/// Number of generated clips.
const CLIPS: usize = 12;

pub fn run(args: &CalibrateArgs, mut screen: Screen) -> anyhow::Result<()> {
    let interrupts = Interrupts::install(PATIENCE)?;
    let cancel = interrupts.cancel_token();
    let drawn = if args.videos.is_empty() { Some(tempfile::tempdir()?) } else { None };
    let clips = match &drawn {
        Some(folder) => write_clips(folder.path(), CLIPS)?,
        None => args.videos.clone(),
    };
    let questions =
        if args.questions.is_empty() { QUESTIONS.map(String::from).to_vec() } else { args.questions.clone() };
    let calibration = Calibration {
        clips: &clips,
        video: args.frames.of_whole_video(),
        questions: &questions,
        max_loss: args.max_quality_loss,
    };
    // Errors of the command line and the videos come before a large model is loaded.
    calibration.validate()?;
    for clip in &clips {
        video::probe(clip)?;
    }
    let params = SessionParams {
        prune: args.prune.params(None)?,
        thinking: Thinking::Off,
        evict: EvictParams { mode: Some(EvictMode::Layers), ..EvictParams::default() },
        ..args.model.session_params(cancel.clone())?
    };
    let files = args.model.files(&mut screen)?;
    let digest = models::digest(&files)?;
    let path = match &args.out {
        Some(path) => path.clone(),
        None => Store::from_env()?.profile_path(&digest),
    };
    if args.model.uses_default() {
        screen.note(&about_default_model(&files));
    }
    let settings = settings(args, &digest, &clips);
    let mut record = Record::open(&path.with_extension("unfinished"), &settings)?;
    if !record.is_empty() {
        screen.note(&format!("{} answers have been measured before", record.len()));
    }
    let mut session = Session::open(&files, params, &mut Watch::new(&mut screen, None, &cancel))?;
    screen.clear();
    let work = interrupts.work();
    let mut progress = Progress::new(&mut screen);
    let measured = calibration.run(&mut session, &mut record, &mut progress);
    screen.clear();
    drop(work);
    let mut profile = measured.inspect_err(|_| {
        screen.note(&format!("{} answers are measured; the same command continues", record.len()));
    })?;
    profile.model = session.model().description();
    profile.digest = digest.to_string();
    profile.llama_cpp = env!("SHARPV_LLAMA_PIN").to_owned();
    profile.write(&path)?;
    record.delete()?;
    if args.json {
        output::print_json(&profile)?;
    } else {
        output::print(&table(&profile))?;
    }
    screen.note(&format!("profile: {}", path.display()));
    Ok(())
}

/// Everything that a calibration depends on, in one line. A stopped run resumes only with the same settings.
fn settings(args: &CalibrateArgs, digest: &str, clips: &[PathBuf]) -> String {
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |meta| meta.len());
    let clips: Vec<(String, u64)> = match args.videos.is_empty() {
        true => vec![("drawn".to_owned(), clips.len() as u64)],
        false => clips.iter().map(|clip| (clip.display().to_string(), size(clip))).collect(),
    };
    serde_json::json!({
        "sharpv_calibrate": 2,
        "model": digest,
        "llama_cpp": env!("SHARPV_LLAMA_PIN"),
        "clips": clips,
        "questions": args.questions,
        "frames": format!("{:?}", args.frames),
        "prune": format!("{:?}", args.prune),
    })
    .to_string()
}

fn table(profile: &LayerProfile) -> String {
    let mut text =
        format!("{}, {} answers to questions about {} clips\n", profile.model, profile.answers, profile.clips);
    text += "\n layer  probability lost  nats a token  tokens changed\n";
    for &layer in &profile.order {
        if let Some(Some(loss)) = profile.single.get(layer) {
            let free = if profile.free_layers().contains(&layer) { "  free" } else { "" };
            text += &format!("{layer:>6}  {}{free}\n", row(loss));
        }
    }
    text += "\nlayers  probability lost  nats a token  tokens changed   (together, on the other clips)\n";
    for step in &profile.steps {
        text += &format!("{:>6}  {}\n", step.layers, row(&step.loss));
    }
    text + &format!(
        "\n{} of {} layers can do without visual tokens, at a loss of at most {}: {}\n",
        profile.free,
        profile.single.len(),
        profile.max_loss,
        in_order(profile.free_layers())
    )
}

fn row(loss: &Loss) -> String {
    format!("{:>16.4}  {:>12.4}  {:>12.1} %", loss.lost, loss.divergence, loss.changed * 100.0)
}

/// The layers in ascending order, such as `1, 2, 5`.
fn in_order(layers: &[usize]) -> String {
    let mut layers = layers.to_vec();
    layers.sort_unstable();
    if layers.is_empty() {
        return "none".to_owned();
    }
    layers.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

/// Shows how many answers are measured, and the remaining time.
struct Progress<'a> {
    screen: &'a mut Screen,
    start: Option<(Instant, u64)>,
    /// The last time that it was shown on a screen without bars.
    shown: Option<Instant>,
}

impl<'a> Progress<'a> {
    fn new(screen: &'a mut Screen) -> Self {
        screen.busy("measuring the first answer");
        Self { screen, start: None, shown: None }
    }
}

/// The pause between lines on a screen without bars.
const PAUSE: Duration = Duration::from_secs(10);

impl Observer for Progress<'_> {
    fn progress(&mut self, stage: Stage, done: u64, total: u64) {
        if stage != Stage::Answers {
            return;
        }
        let (start, before) = *self.start.get_or_insert((Instant::now(), done));
        let is_due = self.screen.has_bars() || self.shown.is_none_or(|shown| shown.elapsed() >= PAUSE) || done == total;
        if !is_due {
            return;
        }
        self.shown = Some(Instant::now());
        let message = match done - before {
            0 => String::new(),
            n => {
                format!("{} left", HumanDuration(start.elapsed().mul_f64((total - done) as f64 / n as f64)))
            }
        };
        self.screen.runs("answers", done, total, &message);
    }

    fn message(&mut self, message: &str) {
        self.screen.note(message);
    }

    fn warning(&mut self, message: &str) {
        self.screen.warning(message);
    }
}
