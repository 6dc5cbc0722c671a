//! `sharpv eval`: runs a benchmark with several methods side by side.

use crate::args::EvalArgs;
use crate::interrupt::Interrupts;
use crate::options::check_budget;
use crate::output;
use crate::screen::{Screen, Watch};
use crate::session::about_default_model;
use indicatif::HumanDuration;
use sharpv::chat::{EvictMode, EvictParams, Session, SessionParams, Thinking};
use sharpv::lab::eval::{self, Dataset, Question, Run, RunObserver, Score, Variant};
use sharpv::lab::results::{BadRow, Conditions, Results, Row, Summary};
use sharpv::prune::PruneParams;
use sharpv::runtime::SamplerParams;
use sharpv::skip::EncodeMode;
use sharpv::{Observer, Stage};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The second Ctrl-C ends the program at once.
const PATIENCE: u32 = 2;

/// How many bad rows are shown. The summary lists all.
const SHOWN: usize = 10;

pub fn run(args: &EvalArgs, mut screen: Screen) -> anyhow::Result<()> {
    let interrupts = Interrupts::install(PATIENCE)?;
    let cancel = interrupts.cancel_token();
    // Errors of the command line and the data come before a large model is loaded.
    let variants = Variant::all(&args.methods, &args.budgets, &args.encode)?;
    let prune = PruneParams { seed: args.seed, ..args.weights.params() };
    prune.validate()?;
    let evict = evict_params(args)?;
    let (thinking, for_thought) = thinking(args)?;
    let files = args.model.files(&mut screen)?;
    let Dataset { mut questions, mut bad_rows } = args.task.load(&args.data, args.videos.as_deref())?;
    show_bad_rows(&bad_rows, &screen);
    let fingerprint = eval::fingerprint(args.task, &questions);
    // From all questions, so that it does not depend on which of them are asked.
    let n_predict = questions.iter().map(|question| args.task.n_predict(question)).max().unwrap_or(16);
    choose(args, &mut questions)?;

    let mut params = SessionParams {
        prune: prune.clone(),
        encode: args.encoder.params(EncodeMode::Exact)?,
        keep_unpruned: true,
        evict,
        sampler: SamplerParams { temperature: 0.0, ..SamplerParams::default() },
        n_predict: args.predict.map_or(n_predict.saturating_add(for_thought), |n| n as usize),
        thinking,
        ..args.model.session_params(cancel.clone())?
    };
    params.layer_profile = args.evict.layer_profile(&files, &params, &mut screen)?;
    let video = args.frames.of_whole_video();
    let settings = Conditions {
        task: args.task.name(),
        questions: &fingerprint,
        score: args.score.name(),
        files: &files,
        params: &params,
        video: &video,
    }
    .settings();
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("sharpv-eval-{}", args.task.name())));
    let mut results = Results::open(&out.join("results.jsonl"), &settings)?;

    let run = Run {
        task: args.task,
        questions: &questions,
        variants: &variants,
        score: args.score,
        prune,
        video,
        evict,
        encode: params.encode,
    };
    let missing = run.missing(&results);
    let total = questions.len() * variants.len();
    if missing < total {
        screen.note(&format!("{} of {total} answers are in {} already", total - missing, out.display()));
    }
    if missing > 0 {
        if args.model.uses_default() {
            screen.note(&about_default_model(&files));
        }
        let jobs = args.jobs.min(run.missing_clips(&results));
        let watch = &mut Watch::new(&mut screen, None, &cancel);
        let mut sessions = Session::open_several(&files, vec![params.clone(); jobs], watch)?;
        screen.clear();
        let work = interrupts.work();
        let mut progress = Progress::new(&mut screen, total, missing);
        let asked = run.run(&mut sessions, &mut results, &mut progress);
        progress.finish();
        drop(work);
        match asked {
            Ok(failed) => bad_rows.extend(failed),
            Err(error) => {
                let there = total - run.missing(&results);
                screen
                    .note(&format!("{there} of {total} answers are in {}; the same command continues", out.display()));
                return Err(error.into());
            }
        }
    }
    let summary = Summary::new(args.task, &questions, &variants, &results, &settings, bad_rows);
    let path = out.join("summary.json");
    summary.write(&path)?;
    output::print(&summary.table())?;
    if !summary.bad_rows.is_empty() {
        screen.note(&format!("{} rows were skipped; {} lists them", summary.bad_rows.len(), path.display()));
    }
    screen.note(&format!("results: {}", path.display()));
    if summary.variants.iter().all(|variant| variant.all.n == 0) {
        let reason = "no question could be asked".to_owned();
        let advice = "see the reasons above; --videos DIR names the folder of the videos".to_owned();
        return Err(sharpv::Error::Unusable {
            what: sharpv::error::FileKind::Evaluation,
            path: args.data.clone(),
            reason,
            advice,
        }
        .into());
    }
    Ok(())
}

/// Whether the model thinks, and how many tokens that adds to those of an answer.
fn thinking(args: &EvalArgs) -> sharpv::Result<(Thinking, usize)> {
    let reject = |expected: &str| {
        let (name, value) = ("--think", args.think.to_string());
        Err(sharpv::Error::InvalidParameter { name, value, expected: expected.to_owned() })
    };
    let start = args.task.answer_start();
    match (args.think, args.predict) {
        // One short answer is wanted.
        (Thinking::Auto | Thinking::Off, _) => Ok((Thinking::Off, 0)),
        _ if args.score == Score::Likelihood => {
            reject("off with --score likelihood, which compares the first tokens of answers")
        }
        _ if !start.is_empty() => reject(&format!("off for this task, whose answers begin with `{start}`")),
        (Thinking::On, None) => {
            reject("a number of tokens, or on with -n N: a thought needs more tokens than an answer")
        }
        (Thinking::Budget(n), None) => Ok((Thinking::Budget(n), n)),
        (thinking, Some(n_predict)) => {
            check_budget("--think", thinking, n_predict as usize)?;
            Ok((thinking, 0))
        }
    }
}

fn evict_params(args: &EvalArgs) -> sharpv::Result<EvictParams> {
    let evict = args.evict.or_off().params(true)?;
    if evict.mode(true) != EvictMode::Off && args.score == Score::Likelihood {
        return Err(sharpv::Error::InvalidParameter {
            name: "--score",
            value: "likelihood".into(),
            expected: "generate with --evict: eviction happens after the first token of an answer".into(),
        });
    }
    Ok(evict)
}

/// Keeps the questions that are requested.
fn choose(args: &EvalArgs, questions: &mut Vec<Question>) -> sharpv::Result<()> {
    let reject = |name, value: &str, expected: String| {
        Err(sharpv::Error::InvalidParameter { name, value: value.to_owned(), expected })
    };
    let kinds = eval::category_names(questions);
    eval::select(questions, args.category.as_deref(), args.shuffle, args.limit.map(|n| n as usize));
    if let (true, Some(category)) = (questions.is_empty(), &args.category) {
        let none = "omitted, as these questions have no categories".to_owned();
        return reject("--category", category, if kinds.is_empty() { none } else { format!("one of {kinds}") });
    }
    if args.score == Score::Likelihood && questions.iter().all(|question| question.choices.is_empty()) {
        return reject("--score", "likelihood", "generate: these questions are open and have no choices".into());
    }
    Ok(())
}

fn show_bad_rows(bad_rows: &[BadRow], screen: &Screen) {
    for bad in bad_rows.iter().take(SHOWN) {
        screen.warning(&format!("{}: {}", bad.place, bad.reason));
    }
    if bad_rows.len() > SHOWN {
        screen.warning(&format!("{} more rows cannot be asked", bad_rows.len() - SHOWN));
    }
}

/// Shows progress and the remaining time.
struct Progress<'a> {
    screen: &'a mut Screen,
    total: usize,
    /// Answers that exist or failed.
    done: usize,
    /// How many of these are from this run.
    new: usize,
    start: Instant,
    /// For each variant: its name, correct answers, answers.
    tally: Vec<(String, usize, usize)>,
    last_line: Instant,
    n_failed: usize,
}

/// The pause between lines on a screen without bars.
const LINE_EVERY: Duration = Duration::from_secs(30);

impl<'a> Progress<'a> {
    fn new(screen: &'a mut Screen, total: usize, missing: usize) -> Self {
        let now = Instant::now();
        let done = total - missing;
        Self { screen, total, done, new: 0, start: now, tally: Vec::new(), last_line: now, n_failed: 0 }
    }

    fn count(&mut self, n: usize) {
        self.done += n;
        self.new += n;
    }

    fn show(&mut self) {
        let left = self.total.saturating_sub(self.done);
        let message = match self.new {
            0 => "answers".to_owned(),
            new => {
                let eta = self.start.elapsed().div_f64(new as f64).mul_f64(left as f64);
                format!("answers, {} left{}", HumanDuration(eta), self.standing())
            }
        };
        if self.screen.has_bars() {
            self.screen.runs("eval", self.done as u64, self.total as u64, &message);
        } else if self.new > 0 && (self.last_line.elapsed() >= LINE_EVERY || left == 0) {
            self.last_line = Instant::now();
            self.screen.note(&format!("{}/{} {message}", self.done, self.total));
        }
    }

    /// The accuracies of this run so far, for as many variants as fit in a line.
    fn standing(&self) -> String {
        let parts = self.tally.iter().take(3);
        parts.map(|(name, right, n)| format!(", {name} {:.0} %", 100.0 * *right as f64 / (*n).max(1) as f64)).collect()
    }

    fn finish(self) {
        self.screen.clear();
    }
}

impl Observer for Progress<'_> {
    fn progress(&mut self, stage: Stage, _: u64, _: u64) {
        if stage == Stage::Answers {
            self.show();
        }
    }

    fn warning(&mut self, message: &str) {
        self.screen.warning(message);
    }
}

impl RunObserver for Progress<'_> {
    fn answered(&mut self, row: &Row) {
        let name = if row.method == "dense" { row.method.clone() } else { format!("{}@{}", row.method, row.budget) };
        let place = self.tally.iter().position(|(known, _, _)| *known == name);
        let place = place.unwrap_or_else(|| {
            self.tally.push((name, 0, 0));
            self.tally.len() - 1
        });
        if let Some((_, right, n)) = self.tally.get_mut(place) {
            *right += usize::from(row.correct);
            *n += 1;
        }
        self.count(1);
    }

    fn failed(&mut self, bad: &BadRow, n_answers: usize) {
        self.n_failed += 1;
        if self.n_failed <= SHOWN {
            self.screen.warning(&format!("{}: {}", bad.place, bad.reason));
        } else if self.n_failed == SHOWN + 1 {
            self.screen.warning("more questions cannot be asked; the summary will list them");
        }
        self.count(n_answers);
    }
}
