//! `sharpv bench`: time and memory of methods, side by side.

use crate::args::BenchArgs;
use crate::interrupt::Interrupts;
use crate::options::{ModelOptions, VideoOptions};
use crate::screen::{Screen, Watch};
use crate::session::about_default_model;
use crate::{output, report};
use anyhow::{Context as _, bail};
use indicatif::HumanDuration;
use sharpv::chat::{Session, SessionParams, Thinking};
use sharpv::lab::cost::{self, ScalingSize};
use sharpv::lab::methods;
use sharpv::lab::report::ImageFormat;
use sharpv::lab::results::{Bench, Machine, MemoryUse, Scaling, VideoBench};
use sharpv::models::ModelFiles;
use sharpv::prune::{Budget, Method, PruneParams};
use sharpv::runtime::{CancelToken, Model, SamplerParams};
use sharpv::{Observer, Stage};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The second Ctrl-C ends the program at once.
const PATIENCE: u32 = 2;

/// How often a child process is checked.
const POLL: Duration = Duration::from_millis(50);

/// What the command line requests.
struct Job {
    video: Option<PathBuf>,
    question: String,
    methods: Vec<PruneParams>,
    repeats: usize,
    predict: usize,
    sizes: Vec<ScalingSize>,
    model: ModelOptions,
    frames: VideoOptions,
    params: SessionParams,
}

pub fn run(args: BenchArgs, mut screen: Screen) -> anyhow::Result<()> {
    let interrupts = Interrupts::install(PATIENCE)?;
    let cancel = interrupts.cancel_token();
    let (json, out, measured) = (args.json, args.out.clone(), args.measure_memory);
    let job = Job::new(args, &cancel)?;
    // Errors of the command line come before a large model is loaded.
    if let Some(folder) = &out {
        std::fs::create_dir_all(folder).with_context(|| format!("{}: creating the folder failed", folder.display()))?;
    }
    if let Some(video) = &job.video {
        sharpv::video::probe(video)?;
    }
    let files = job.model.files(&mut screen)?;
    if let Some(method) = measured {
        return measure(&job, method, &files);
    }
    let machine = Machine::here();
    if let Some(warning) = machine.busy() {
        screen.warning(&warning);
    }
    let mut bench = Bench::new(machine);
    if let Some(video) = &job.video {
        bench.video = Some(on_video(&job, video, &files, &interrupts, &mut screen)?);
    }
    if !job.sizes.is_empty() {
        bench.scaling = Some(synthetic(&job, &files, &interrupts, &mut screen)?);
    }
    if let Some(folder) = &out {
        write(&bench, folder, &screen)?;
    }
    if json { output::print_json(&bench) } else { Ok(output::print(&bench.markdown())?) }
}

impl Job {
    fn new(args: BenchArgs, cancel: &CancelToken) -> anyhow::Result<Self> {
        let params = SessionParams {
            fit: args.frames.fits(),
            decode_ahead: !args.no_decode_ahead,
            evict: args.evict.params(true)?,
            encode: args.encode.params()?,
            sampler: SamplerParams { temperature: 0.0, ..SamplerParams::default() },
            n_predict: args.predict as usize,
            thinking: Thinking::Off,
            keep_unpruned: true,
            ..args.model.session_params(cancel.clone())?
        };
        let methods: Vec<PruneParams> = args.methods.iter().map(|&method| prune_params(method, args.keep)).collect();
        methods.iter().try_for_each(PruneParams::validate)?;
        cost::check(&methods, usize::from(args.repeats))?;
        Ok(Self {
            video: args.video,
            question: args.question,
            methods,
            repeats: usize::from(args.repeats),
            predict: args.predict as usize,
            sizes: args.synthetic,
            model: args.model,
            frames: args.frames,
            params,
        })
    }
}

fn prune_params(method: Method, keep: Option<f32>) -> PruneParams {
    let budget = keep.filter(|_| method.prunes()).map(Budget::Keep).unwrap_or_default();
    PruneParams { method, budget, ..PruneParams::default() }
}

fn on_video(
    job: &Job,
    video: &Path,
    files: &ModelFiles,
    interrupts: &Interrupts,
    screen: &mut Screen,
) -> anyhow::Result<VideoBench> {
    let cancel = interrupts.cancel_token();
    if job.model.uses_default() {
        screen.note(&about_default_model(files));
    }
    let session = Session::open(files, job.params.clone(), &mut Watch::new(screen, None, &cancel));
    screen.clear();
    let mut session = session?;
    let work = interrupts.work();
    let mut progress = Progress::new(screen, "runs");
    let options = job.frames.options();
    let measured = cost::run(&mut session, (video, &options), &job.question, &job.methods, job.repeats, &mut progress);
    screen.clear();
    let mut measured = measured?;
    // Two copies of a large model may not fit, especially on a GPU.
    drop(session);
    for params in &job.methods {
        let name = methods::name(params.method);
        screen.busy(&format!("measuring the memory of {name}"));
        let memory = memory_of(name, &cancel);
        screen.clear();
        cancel.check()?;
        match memory {
            Ok(memory) => measured.set_memory(name, memory),
            Err(error) => screen.warning(&format!("the memory of {name} was not measured: {error:#}")),
        }
    }
    drop(work);
    Ok(measured)
}

fn synthetic(job: &Job, files: &ModelFiles, interrupts: &Interrupts, screen: &mut Screen) -> anyhow::Result<Scaling> {
    let cancel = interrupts.cancel_token();
    let mut watch = Watch::new(screen, None, &cancel);
    if job.params.check_files {
        sharpv::models::check(&files.model)?;
    }
    let model = Model::load(&files.model, &job.params.model, |part| {
        watch.progress(Stage::LoadModel, (part.clamp(0.0, 1.0) * 1000.0) as u64, 1000);
    })?;
    let adapters = files.lora.iter().map(|path| model.load_lora(path, 1.0)).collect::<sharpv::Result<Vec<_>>>()?;
    screen.clear();
    let _work = interrupts.work();
    let mut progress = Progress::new(screen, "scaling");
    let (compute, counts) = (&job.params.compute, (job.repeats, job.predict));
    let measured = cost::scale(&model, compute, &adapters, &job.sizes, &job.methods, counts, &cancel, &mut progress);
    screen.clear();
    Ok(measured?)
}

/// Runs `method` once and nothing else, so that the peak memory of this process is that of the method.
fn measure(job: &Job, method: Method, files: &ModelFiles) -> anyhow::Result<()> {
    let Some(video) = &job.video else { bail!("measuring memory requires a video") };
    let prune = job.methods.iter().find(|params| params.method == method).cloned();
    let prune = prune.unwrap_or_else(|| prune_params(method, None));
    let free_before = cost::gpu_bytes_free();
    let params = SessionParams { prune, keep_unpruned: false, ..job.params.clone() };
    let mut session = Session::open(files, params, &mut ())?;
    session.add_video(video, &job.frames.options(), &mut ())?;
    let answer = session.ask(&job.question, &mut ())?;
    let device_bytes = free_before.zip(cost::gpu_bytes_free()).map(|(before, after)| before.saturating_sub(after));
    output::print_json(&MemoryUse { peak_rss_bytes: answer.peak_rss_bytes, device_bytes })
}

/// Measures the method `name` in another process of this program.
fn memory_of(name: &str, cancel: &CancelToken) -> anyhow::Result<MemoryUse> {
    let program = std::env::current_exe().context("finding this program failed")?;
    let mut args: Vec<_> = std::env::args_os().skip(1).collect();
    // Right after the command's name: only flags can precede it, and a `--` may follow.
    let command = args.iter().position(|arg| arg == "bench").map_or(0, |at| at + 1);
    args.splice(command..command, ["--measure-memory", name].map(Into::into));
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting a process failed")?;
    // Read meanwhile: a log of -vv would fill the pipe and block the child forever.
    let stdout = child.stdout.take().map(read_all);
    let stderr = child.stderr.take().map(read_all);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if cancel.is_cancelled() {
            let _ = child.kill();
        }
        std::thread::sleep(POLL);
    };
    let text = |reader: Option<std::thread::JoinHandle<String>>| reader.and_then(|r| r.join().ok()).unwrap_or_default();
    let (stdout, stderr) = (text(stdout), text(stderr));
    if !status.success() {
        bail!("{}", stderr.lines().last().unwrap_or("the process ended without a message"));
    }
    serde_json::from_str(stdout.trim()).context("the process printed no numbers")
}

fn read_all(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn write(bench: &Bench, folder: &Path, screen: &Screen) -> anyhow::Result<()> {
    let json = serde_json::to_string_pretty(bench)? + "\n";
    for (name, text) in [("bench.json", &json), ("bench.md", &bench.markdown())] {
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| format!("{}: writing failed", path.display()))?;
    }
    report::write(&[folder.join("bench.json")], folder, &[ImageFormat::Svg], screen)
}

/// Shows progress and the remaining time.
struct Progress<'a> {
    screen: &'a mut Screen,
    name: &'static str,
    start: Instant,
    /// The share of all work that is done, 0 to 1.
    share: f64,
}

impl<'a> Progress<'a> {
    fn new(screen: &'a mut Screen, name: &'static str) -> Self {
        screen.busy("warm-up run");
        Self { screen, name, start: Instant::now(), share: 0.0 }
    }
}

impl Observer for Progress<'_> {
    fn progress(&mut self, stage: Stage, done: u64, total: u64) {
        match stage {
            Stage::Work => self.share = done as f64 / total.max(1) as f64,
            Stage::Runs => {
                let left = HumanDuration(self.start.elapsed().mul_f64((1.0 - self.share) / self.share.max(1e-6)));
                let message = if done == total { "done".to_owned() } else { format!("about {left} left") };
                self.screen.runs(self.name, done, total, &message);
            }
            _ => {}
        }
    }

    fn warning(&mut self, message: &str) {
        self.screen.warning(message);
    }
}
