//! Workers: the order of events, cancelling, errors, the end, and several workers at once.

use crate::support::{families, smol};

use sharpv::chat::{Answer, Loaded, Session, SessionParams, StopReason, VideoOptions};
use sharpv::error::Error;
use sharpv::models::ModelFiles;
use sharpv::prune::{Budget, PruneParams};
use sharpv::runtime::{CancelToken, SamplerParams};
use sharpv::video::Frames;
use sharpv::{Event, EventKind, Stage, Ticket, Worker};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

const QUESTION: &str = "What appears first?";
const ANSWER: &str = "The tent appears first.";

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(1200);

fn clip(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(name)
}

fn short() -> SessionParams {
    SessionParams { n_predict: 16, ..SessionParams::default() }
}

/// Decodes until it is cancelled.
fn endless() -> SamplerParams {
    SamplerParams { grammar: Some("root ::= [a-z ]+".into()), ..SamplerParams::default() }
}

fn next(events: &Receiver<Event>) -> Event {
    events.recv_timeout(PATIENCE).expect("an event")
}

/// Returns the events of a command, up to the one that ends it. Events of other commands must not come in between.
fn events_of(events: &Receiver<Event>, ticket: Ticket) -> Vec<EventKind> {
    let mut all = Vec::new();
    loop {
        let event = next(events);
        assert_eq!(event.ticket, ticket, "{:?}", event.kind);
        let is_end = event.kind.is_end();
        all.push(event.kind);
        if is_end {
            return all;
        }
    }
}

fn end_of(events: &Receiver<Event>, ticket: Ticket) -> EventKind {
    events_of(events, ticket).pop().expect("an end")
}

fn loaded(events: &Receiver<Event>) -> Loaded {
    match end_of(events, Ticket::OPENING) {
        EventKind::Loaded(loaded) => loaded,
        other => panic!("{other:?}"),
    }
}

fn answered(kind: EventKind) -> Answer {
    match kind {
        EventKind::Answered(answer) => *answer,
        other => panic!("{other:?}"),
    }
}

fn is_cancelled(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Failed(Error::Cancelled))
}

/// Waits until an event satisfies `is_it`.
fn wait_for(events: &Receiver<Event>, mut is_it: impl FnMut(&EventKind) -> bool) {
    while !is_it(&next(events).kind) {}
}

/// Many images, so that there is time to cancel.
fn many_frames() -> Frames {
    let mut frames = Frames::new(128, 128);
    for i in 0..64 {
        frames.push(families::image((128, 128), i).into_raw(), f64::from(i)).expect("a frame");
    }
    frames
}

fn all() -> VideoOptions {
    VideoOptions { fps: Some(1.0), max_frames: Some(64), ..VideoOptions::default() }
}

#[test]
fn events_come_in_order_and_end_each_command_once() {
    let woken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&woken);
    let (worker, events) = Worker::builder(smol::files(), short())
        .on_event(move || {
            counter.fetch_add(1, Ordering::SeqCst);
        })
        .spawn();
    let plan = worker.plan_video(clip("order-1"), VideoOptions::default().for_question(QUESTION));
    let add = worker.add_video(clip("order-1"), VideoOptions::default());
    let ask = worker.ask(QUESTION);
    let settle = worker.run(|session, observer| session.settle(observer));
    assert!(Ticket::OPENING < plan && plan < add && add < ask && ask < settle);

    let mut n = 0;
    let mut of = |ticket| {
        let of = events_of(&events, ticket);
        n += of.len();
        assert!(matches!(of[0], EventKind::Started), "{of:?}");
        of
    };
    let opening = of(Ticket::OPENING);
    let is_at = |wanted| move |kind: &EventKind| matches!(kind, EventKind::Progress { stage, .. } if *stage == wanted);
    assert!(opening.iter().any(is_at(Stage::LoadModel)) && opening.iter().any(is_at(Stage::LoadVision)));
    assert!(matches!(opening.last(), Some(EventKind::Loaded(loaded)) if loaded.layout == "internvl"), "{opening:?}");

    let planned = of(plan);
    let Some(EventKind::Planned(plan)) = planned.last() else { panic!("{planned:?}") };
    let added = of(add);
    let encoded = added.iter().filter(|kind| is_at(Stage::Encode)(kind)).count();
    let Some(EventKind::VideoReady(report)) = added.last() else { panic!("{added:?}") };
    assert_eq!((encoded, report.slices.len()), (plan.planned.frames, plan.planned.frames));

    let mut asked = of(ask);
    assert!(asked.iter().any(is_at(Stage::Prefill)), "{asked:?}");
    let answer = answered(asked.pop().expect("an end"));
    let text: String =
        asked.iter().filter_map(|kind| if let EventKind::Text(t) = kind { Some(&**t) } else { None }).collect();
    assert_eq!((text.trim(), answer.answer.as_str(), answer.stop), (ANSWER, ANSWER, StopReason::EndOfTurn));
    assert!(matches!(of(settle).last(), Some(EventKind::Done)));
    assert!(worker.is_idle());
    drop(worker);
    let last: Vec<Event> = events.iter().collect();
    assert!(matches!(last[..], [Event { kind: EventKind::Closed, .. }]), "{last:?}");
    assert_eq!(woken.load(Ordering::SeqCst), n + 1);
}

#[test]
fn a_cancel_stops_what_runs_and_nothing_else() {
    let (worker, events) = Worker::spawn(smol::files(), short());
    loaded(&events);
    // Nothing runs, so nothing is cancelled.
    worker.cancel();
    worker.cancel_all();

    let add = worker.add_video(("noise", many_frames()), all());
    let good = worker.add_video(clip("order-1"), VideoOptions::default());
    wait_for(&events, |kind| matches!(kind, EventKind::Progress { stage: Stage::Encode, .. }));
    worker.cancel();
    assert!(is_cancelled(&end_of(&events, add)));
    assert!(matches!(end_of(&events, good), EventKind::VideoReady(_)));
    // The cancelled video is not part of the conversation.
    let ask = worker.ask(QUESTION);
    assert_eq!(answered(end_of(&events, ask)).answer, ANSWER);

    // Cancels an answer, from another thread.
    let set = [
        worker.run(move |session, _| session.set_sampler(endless())),
        worker.run(|session, _| session.set_n_predict(4000)),
    ];
    let long = worker.ask("Go on.");
    let behind = worker.run(|session, _| {
        session.restart();
        Ok(())
    });
    set.into_iter().for_each(|ticket| assert!(matches!(end_of(&events, ticket), EventKind::Done)));
    wait_for(&events, |kind| matches!(kind, EventKind::Text(_)));
    std::thread::scope(|scope| {
        scope.spawn(|| worker.cancel());
    });
    let answer = answered(end_of(&events, long));
    assert_eq!(answer.stop, StopReason::Cancelled);
    assert!(answer.tokens.generated < 4000 && !answer.answer.is_empty());
    assert!(matches!(end_of(&events, behind), EventKind::Done));

    // Waiting commands can be cancelled, too, one by one or all at once.
    let long = worker.ask(QUESTION);
    let [not_this, this, last] = [
        worker.run(|session, _| session.set_n_predict(16)),
        worker.ask(QUESTION),
        worker.run(|session, observer| session.settle(observer)),
    ];
    worker.cancel_ticket(this);
    wait_for(&events, |kind| matches!(kind, EventKind::Text(_)));
    worker.cancel_ticket(long);
    assert_eq!(answered(end_of(&events, long)).stop, StopReason::Cancelled);
    assert!(matches!(end_of(&events, not_this), EventKind::Done));
    assert!(is_cancelled(&events_of(&events, this)[0]));
    assert!(matches!(end_of(&events, last), EventKind::Done));

    let all = [
        worker.add_video(("noise", many_frames()), all()),
        worker.ask(QUESTION),
        worker.run(|session, observer| session.settle(observer)),
    ];
    worker.cancel_all();
    all.into_iter().for_each(|ticket| assert!(is_cancelled(&end_of(&events, ticket))));

    // The next command is not cancelled.
    worker.run(|session, _| {
        session.restart();
        Ok(())
    });
    worker.run(move |session, _| session.set_sampler(SamplerParams::default()));
    let ask = worker.ask(QUESTION);
    wait_for(&events, |kind| matches!(kind, EventKind::Done));
    wait_for(&events, |kind| matches!(kind, EventKind::Done));
    assert_eq!(answered(end_of(&events, ask)).answer, ANSWER);
}

#[test]
fn an_error_ends_its_command_only() {
    let (worker, events) = Worker::spawn(smol::files(), short());
    loaded(&events);
    let missing = worker.add_video("no such file.mp4", VideoOptions::default());
    let bad = worker.run(|session, _| session.set_n_predict(0));
    let refused = worker.run(|_, _| Err(Error::NoCacheDir));
    let add = worker.add_video(clip("order-1"), VideoOptions::default());
    let ask = worker.ask(QUESTION);
    match end_of(&events, missing) {
        EventKind::Failed(Error::Io { path, .. }) => assert_eq!(path, Path::new("no such file.mp4")),
        other => panic!("{other:?}"),
    }
    assert!(matches!(end_of(&events, bad), EventKind::Failed(Error::InvalidParameter { .. })));
    assert!(matches!(end_of(&events, refused), EventKind::Failed(Error::NoCacheDir)));
    assert!(matches!(end_of(&events, add), EventKind::VideoReady(_)));
    assert_eq!(answered(end_of(&events, ask)).answer, ANSWER);
}

#[test]
fn a_model_that_cannot_be_opened_ends_the_worker() {
    let files = ModelFiles { model: "no such model.gguf".into(), ..smol::files() };
    let (worker, events) = Worker::spawn(files, short());
    let ask = worker.ask(QUESTION);
    let opening = events_of(&events, Ticket::OPENING);
    assert!(matches!(opening.last(), Some(EventKind::Failed(Error::Io { .. }))), "{opening:?}");
    // A command that was sent in time is cancelled. Then the channel closes.
    let rest: Vec<Event> = events.iter().collect();
    assert!(matches!(rest.last(), Some(Event { kind: EventKind::Closed, .. })), "{rest:?}");
    assert!(rest.iter().rev().skip(1).all(|event| event.ticket == ask && is_cancelled(&event.kind)), "{rest:?}");
    worker.ask(QUESTION);
    assert!(events.recv().is_err());
}

#[test]
fn a_panic_is_told_and_ends_the_worker() {
    let (worker, events) = Worker::spawn(families::files("internvl"), short());
    loaded(&events);
    let first = worker.run(|_, _| Ok(()));
    let panics = worker.run(|_, _| panic!("for a test, number {}", 7));
    let never = worker.ask(QUESTION);
    assert!(matches!(end_of(&events, first), EventKind::Done));
    let EventKind::Panicked(said) = end_of(&events, panics) else { panic!("no panic") };
    assert_eq!(said, "for a test, number 7");
    let rest: Vec<Event> = events.iter().collect();
    assert!(matches!(rest.last(), Some(Event { kind: EventKind::Closed, .. })), "{rest:?}");
    assert!(rest.iter().rev().skip(1).all(|event| event.ticket == never && is_cancelled(&event.kind)), "{rest:?}");

    // A panic in the program's own callback does not end the worker. Its text goes only to stderr.
    let (worker, events) = Worker::builder(families::files("internvl"), short()).on_event(|| panic!("awake")).spawn();
    loaded(&events);
    let done = worker.run(|_, _| Ok(()));
    assert!(matches!(end_of(&events, done), EventKind::Done));
}

#[test]
fn dropping_a_worker_stops_it_and_waits() {
    let freed = Arc::new(());
    let (worker, events) = Worker::spawn(smol::files(), SessionParams { n_predict: 4000, ..short() });
    let held = Arc::clone(&freed);
    worker.run(move |_, _| {
        drop(held);
        Ok(())
    });
    worker.run(move |session, _| session.set_sampler(endless()));
    let long = worker.ask(QUESTION);
    wait_for(&events, |kind| matches!(kind, EventKind::Text(_)));
    let held = Arc::clone(&freed);
    let waits = worker.run(move |_, _| {
        drop(held);
        Ok(())
    });
    drop(worker);
    // The worker has ended, and has freed the waiting command.
    assert_eq!(Arc::strong_count(&freed), 1);
    let mut rest: Vec<Event> = events.try_iter().skip_while(|event| !event.kind.is_end()).collect();
    assert!(matches!(rest.pop().expect("the last event").kind, EventKind::Closed));
    assert_eq!(rest[0].ticket, long);
    assert_eq!(answered(rest.swap_remove(0).kind).stop, StopReason::Cancelled);
    assert!(rest.len() == 1 && rest[0].ticket == waits && is_cancelled(&rest[0].kind), "{rest:?}");
}

#[test]
fn a_worker_can_be_dropped_by_its_own_thread() {
    let (worker, events) = Worker::spawn(families::files("internvl"), short());
    loaded(&events);
    let (give, take) = std::sync::mpsc::channel::<Worker>();
    worker.run(move |_, _| {
        drop(take.recv());
        Ok(())
    });
    give.send(worker).expect("it waits");
    wait_for(&events, |kind| matches!(kind, EventKind::Closed));
    assert!(events.recv_timeout(PATIENCE).is_err());
}

/// Also without a receiver of the events.
#[test]
fn closing_does_not_wait() {
    let (worker, events) = Worker::spawn(families::files("internvl"), short());
    worker.close();
    let all: Vec<Event> = events.iter().collect();
    assert!(is_cancelled(&all[all.len() - 2].kind) && matches!(all[all.len() - 1].kind, EventKind::Closed), "{all:?}");
    let (worker, events) = Worker::spawn(families::files("internvl"), short());
    drop(events);
    worker.run(|_, _| Ok(()));
    drop(worker);
}

#[test]
fn workers_that_share_a_model_answer_as_each_alone() {
    let asked = [("order-1", QUESTION), ("move-0", "What is in the video?"), ("enter-2", "What is in the video?")];
    let few = PruneParams { budget: Budget::Keep(0.1), ..PruneParams::default() };
    let params = |i: usize| {
        // The settings differ, so that nothing can leak from one to another.
        let prune = if i == 1 { few.clone() } else { PruneParams::default() };
        SessionParams { n_predict: 8 + 4 * i, prune, system: (i == 2).then(|| "Be brief.".to_owned()), ..short() }
    };
    let alone: Vec<Answer> = asked
        .iter()
        .enumerate()
        .map(|(i, (video, question))| {
            let mut session = Session::open(&smol::files(), params(i), &mut ()).expect("smol opens");
            session.add_video(clip(video), &VideoOptions::default(), &mut ()).expect("the clip is read");
            session.ask(question, &mut ()).expect("an answer")
        })
        .collect();

    let (first, events) = Worker::spawn(smol::files(), params(0));
    let model = loaded(&events).model;
    let shared = |i| Worker::builder(smol::files(), params(i)).model(model.clone()).spawn();
    let workers = [(first, events), shared(1), shared(2)];
    for (worker, events) in &workers[1..] {
        loaded(events);
        assert!(worker.is_idle());
    }
    let tickets: Vec<Ticket> = workers
        .iter()
        .zip(asked)
        .map(|((worker, _), (video, question))| {
            worker.add_video(clip(video), VideoOptions::default());
            worker.ask(question)
        })
        .collect();
    for (((_, events), ticket), alone) in workers.iter().zip(tickets).zip(alone) {
        wait_for(events, |kind| matches!(kind, EventKind::VideoReady(_)));
        let answer = answered(end_of(events, ticket));
        assert_eq!((answer.answer, answer.tokens), (alone.answer, alone.tokens));
        assert_eq!((answer.visual_tokens, answer.settings.n_predict), (alone.visual_tokens, alone.settings.n_predict));
    }
}

#[test]
fn a_session_can_be_opened_by_the_program() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let saved = folder.path().join("session");
    let (worker, events) = Worker::spawn(smol::files(), short());
    worker.add_video(clip("order-1"), VideoOptions::default());
    let save = {
        let path = saved.clone();
        worker.run(move |session, _| session.save(&path))
    };
    wait_for(&events, |kind| matches!(kind, EventKind::VideoReady(_)));
    assert!(matches!(end_of(&events, save), EventKind::Done));

    let cancel = CancelToken::new();
    let params = SessionParams { cancel: cancel.clone(), ..short() };
    let (again, events) = Worker::opened_by(cancel, move |observer| {
        observer.message("opening");
        let mut session = Session::open(&smol::files(), params, observer)?;
        session.load(&saved)?;
        Ok(session)
    })
    .spawn();
    let opening = events_of(&events, Ticket::OPENING);
    assert!(opening.iter().any(|kind| matches!(kind, EventKind::Message(said) if said == "opening")), "{opening:?}");
    let ask = again.ask(QUESTION);
    assert_eq!(answered(end_of(&events, ask)).answer, ANSWER);
    again.cancel();
    let ask = again.ask(QUESTION);
    assert_eq!(answered(end_of(&events, ask)).stop, StopReason::EndOfTurn);
}

/// llama.cpp has one log for the process. Each line goes to the subscriber of the thread that wrote it.
#[cfg(feature = "cli")]
#[test]
fn each_thread_has_its_own_log() {
    use std::io::Write;
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("a log").write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let log_of = |family: &'static str| {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(move || writer.clone())
            .finish();
        let work = move || {
            tracing::subscriber::with_default(subscriber, || {
                let mut session = Session::open(&families::files(family), short(), &mut ()).expect("it opens");
                session.add_video(("noise", &many_frames()), &VideoOptions::default(), &mut ()).expect("a video");
            });
        };
        (std::thread::spawn(work), log)
    };
    let logs = ["internvl", "llava-onevision"].map(|family| (family, log_of(family)));
    let texts = logs.map(|(family, (thread, log))| {
        thread.join().expect("it works");
        (family, String::from_utf8(log.0.lock().expect("a log").clone()).expect("UTF-8"))
    });
    for (family, text) in &texts {
        for (other, _) in &texts {
            assert_eq!(text.contains(&format!("{other}.gguf")), other == family, "{family}: {text}");
        }
    }
}
