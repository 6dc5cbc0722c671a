//! Answers as iterators: as `ask` gives them, and what is left of one that is dropped.

use crate::support::smol;

use sharpv::chat::{Piece, Role, Session, SessionParams, StopReason, VideoOptions};
use sharpv::error::Error;
use sharpv::runtime::{CancelToken, SamplerParams};
use std::path::{Path, PathBuf};

const QUESTIONS: [&str; 2] = ["What appears first?", "What is in the video?"];

fn clip() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden/order-1")
}

fn open(params: SessionParams) -> Session {
    let mut session = Session::open(&smol::files(), params, &mut ()).expect("smol opens");
    session.add_video(clip(), &VideoOptions::default(), &mut ()).expect("the clip is read");
    session
}

/// Goes on writing until it is stopped.
fn endless() -> SessionParams {
    let sampler = SamplerParams { grammar: Some("root ::= [a-z ]+".into()), ..SamplerParams::default() };
    SessionParams { n_predict: 4000, sampler, ..SessionParams::default() }
}

/// The text of a piece of an answer by a model that does not think.
fn text(piece: sharpv::Result<Piece>) -> String {
    match piece.expect("a piece") {
        Piece::Text(text) => text,
        Piece::Thought(thought) => panic!("a thought: {thought}"),
    }
}

#[test]
fn pieces_and_answers_are_those_of_ask() {
    let params = || SessionParams { n_predict: 24, ..SessionParams::default() };
    let (mut asked, mut streamed) = (open(params()), open(params()));
    for question in QUESTIONS {
        let mut pieces = Vec::new();
        let expected = asked.ask(question, &mut |piece: &str| pieces.push(piece.to_owned())).expect("an answer");
        let mut stream = streamed.ask_stream(question, &mut ()).expect("the prompt is read");
        let ours: Vec<String> = stream.by_ref().map(text).collect();
        assert!(stream.next().is_none());
        let answer = stream.finish().expect("an answer");
        assert_eq!(ours, pieces);
        assert!(ours.len() > 2, "{ours:?}");
        assert_eq!((answer.answer, answer.stop), (expected.answer, expected.stop));
        assert_eq!((answer.tokens, answer.kv), (expected.tokens, expected.kv));
    }
    // Marks of frames are each session's own.
    let said = |session: &Session| session.messages().iter().map(|m| (m.role, m.content.clone())).collect::<Vec<_>>();
    assert_eq!(said(&streamed), said(&asked));

    // Without a piece taken, `finish` writes all of it.
    streamed.restart();
    asked.restart();
    let answer = streamed.ask_stream(QUESTIONS[0], &mut ()).expect("the prompt is read").finish().expect("an answer");
    assert_eq!(answer.answer, asked.ask(QUESTIONS[0], &mut ()).expect("an answer").answer);
}

#[test]
fn the_time_that_the_caller_takes_is_not_the_models() {
    let mut session = open(SessionParams { n_predict: 4, ..SessionParams::default() });
    let mut stream = session.ask_stream(QUESTIONS[0], &mut ()).expect("the prompt is read");
    let pause = || std::thread::sleep(std::time::Duration::from_secs(1));
    pause();
    let mut within = std::time::Duration::ZERO;
    let start = std::time::Instant::now();
    stream.next().expect("a piece").expect("a piece");
    within += start.elapsed();
    pause();
    let start = std::time::Instant::now();
    let t = stream.finish().expect("an answer").timings_ms;
    within += start.elapsed();
    let first_token = t.ttft - t.decode_video - t.encode - t.prune - t.prefill;
    assert!(first_token + t.generate + t.evict < within.as_secs_f64() * 1000.0 + 1.0, "{within:?}: {t:?}");
}

#[test]
fn an_iterator_that_is_dropped_leaves_what_it_wrote() {
    let mut session = open(endless());
    let mut stream = session.ask_stream(QUESTIONS[0], &mut ()).expect("the prompt is read");
    let text: String = stream.by_ref().take(5).map(text).collect();
    drop(stream);
    let [question, answer] = session.messages() else { panic!("{:?}", session.messages()) };
    assert_eq!((question.role, question.content.as_str()), (Role::User, QUESTIONS[0]));
    assert_eq!((answer.role, &answer.content), (Role::Assistant, &text));

    // The session goes on, as after a stop.
    let mut stream = session.ask_stream("Go on.", &mut ()).expect("the prompt is read");
    stream.next().expect("a piece").expect("a piece");
    let answer = stream.stop().expect("what there is of it");
    assert_eq!(answer.stop, StopReason::Cancelled);
    assert!(answer.tokens.generated < 5 && answer.tokens.prompt_computed < answer.tokens.prompt / 2, "{answer:?}");
    assert_eq!(session.messages().len(), 4);

    // Where nothing was taken, nothing was asked.
    drop(session.ask_stream("Never mind.", &mut ()).expect("the prompt is read"));
    let stopped = session.ask_stream("Never mind.", &mut ()).expect("the prompt is read").stop();
    assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
    assert_eq!(session.messages().len(), 4);

    session.restart();
    session.set_sampler(SamplerParams::default()).expect("a sampler");
    assert_eq!(session.ask(QUESTIONS[0], &mut ()).expect("an answer").answer, "The tent appears first.");
}

#[test]
fn a_cancel_ends_the_iterator() {
    let cancel = CancelToken::new();
    let mut session = open(SessionParams { cancel: cancel.clone(), ..endless() });
    let mut stream = session.ask_stream(QUESTIONS[0], &mut ()).expect("the prompt is read");
    stream.next().expect("a piece").expect("a piece");
    cancel.cancel();
    let rest = stream.by_ref().inspect(|piece| assert!(piece.is_ok(), "{piece:?}")).count();
    assert!(rest < 3, "{rest}");
    assert_eq!(stream.finish().expect("an answer").stop, StopReason::Cancelled);
    let stopped = session.ask_stream(QUESTIONS[1], &mut ()).err();
    assert!(matches!(stopped, Some(Error::Cancelled)), "{stopped:?}");
    assert_eq!(session.messages().len(), 2);
}

#[test]
fn what_is_set_between_answers_holds_for_the_next() {
    let mut session = open(SessionParams { n_predict: 3, ..SessionParams::default() });
    assert_eq!(session.ask(QUESTIONS[0], &mut ()).expect("an answer").tokens.generated, 3);
    session.restart();
    session.set_n_predict(5).expect("a number");
    let grammar = Some("root ::= [0-9]+".into());
    session.set_sampler(SamplerParams { grammar, ..SamplerParams::default() }).expect("a sampler");
    let answer = session.ask(QUESTIONS[0], &mut ()).expect("an answer");
    assert_eq!((answer.tokens.generated, answer.stop), (5, StopReason::Length));
    assert!(answer.answer.chars().all(|c| c.is_ascii_digit()), "{}", answer.answer);

    let bad = [
        session.set_n_predict(0).unwrap_err(),
        session.set_sampler(SamplerParams { top_p: 2.0, ..SamplerParams::default() }).unwrap_err(),
        session.set_sampler(SamplerParams { grammar: Some("root ::= (".into()), ..Default::default() }).unwrap_err(),
    ];
    assert!(bad.iter().all(|error| matches!(error, Error::InvalidParameter { .. })), "{bad:?}");
    session.restart();
    assert_eq!(session.ask(QUESTIONS[0], &mut ()).expect("an answer").tokens.generated, 5);
}
