//! Models that think: their thoughts are told from their answers, and end when they should. The models have random
//! weights, so the templates here begin the thoughts, and budgets end them.

use crate::support::families;

use serde_json::{Map, Value, json};
use sharpv::chat::{Piece, Role, RowKey, StopReason, Thinking, TurnParams, VideoOptions};
use sharpv::models::ModelFiles;
use sharpv::runtime::SamplerParams;
use sharpv::{Error, EventKind, Fix, LiveParams, LiveSession, Observer, Session, SessionParams, Worker};

/// As Qwen3.5's: thinks unless it is told not to.
const THINKS: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n\
    {% if m.role == 'assistant' and m.reasoning_content is string %}{{ '<think>\n' + m.reasoning_content + '\n</think>\n\n' }}{% endif %}\
    {{ m.content }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking is defined and enable_thinking is false %}\
    {{ '<think>\n\n</think>\n\n' }}{% else %}{{ '<think>\n' }}{% endif %}{% endif %}";

/// As [`THINKS`], but deaf.
const ALWAYS_THINKS: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n\
    {% if m.role == 'assistant' and m.reasoning_content is string %}{{ '<think>\n' + m.reasoning_content + '\n</think>\n\n' }}{% endif %}\
    {{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{{ '<think>\n' }}{% endif %}";

/// Its model may think, but the template does not begin a thought.
const MAY_THINK: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

const END: &str = "\n</think>\n\n";

/// How many tokens of an answer a trial of an eviction compares.
const N_COMPARED: usize = 16;

const YES_OR_NO: &str = r#"root ::= "yes" | "no""#;

fn params(template: &str, thinking: Thinking) -> SessionParams {
    SessionParams { chat_template: Some(template.into()), thinking, n_predict: 32, ..SessionParams::default() }
}

fn with_grammar(params: SessionParams) -> SessionParams {
    let sampler = SamplerParams { grammar: Some(YES_OR_NO.into()), ..SamplerParams::default() };
    SessionParams { sampler, ..params }
}

fn open(params: SessionParams) -> Session {
    Session::open(&families::files("qwen3vl"), params, &mut ()).expect("the model opens")
}

fn n_tokens(session: &Session, text: &str) -> usize {
    session.model().tokenize(text, false, true).expect("tokens").len()
}

#[derive(Debug, Default)]
struct Heard {
    thought: String,
    text: String,
}

impl Observer for Heard {
    fn thought(&mut self, piece: &str) {
        assert!(self.text.is_empty(), "a thought after {:?}", self.text);
        self.thought += piece;
    }

    fn text(&mut self, piece: &str) {
        self.text += piece;
    }
}

#[test]
fn a_thought_ends_when_its_tokens_are_used_up() {
    let mut session = open(params(THINKS, Thinking::Budget(4)));
    let mut heard = Heard::default();
    let answer = session.ask("What is it?", &mut heard).expect("an answer");
    let end = n_tokens(&session, END);
    assert_eq!(answer.tokens.reasoning, 4 + end);
    assert!(answer.tokens.generated > answer.tokens.reasoning, "{:?}", answer.tokens);
    let thought = answer.reasoning.clone().expect("a thought");
    assert_eq!((heard.thought.trim(), heard.text.trim()), (thought.as_str(), answer.answer.as_str()));
    assert!(!answer.answer.is_empty() && !answer.answer.contains("think>") && !thought.contains("think>"));
    let times = answer.timings_ms;
    assert!(times.first_answer > times.ttft, "{times:?}");
    let json = serde_json::to_value(&answer).expect("JSON");
    assert_eq!(json["reasoning"], json!(thought));
    assert_eq!((&json["settings"]["thinking"], &json["tokens"]["reasoning"]), (&json!("4"), &json!(4 + end)));

    // The prompt of the next question has what the template makes of the thought.
    let [_, message] = session.messages() else { panic!("{:?}", session.messages()) };
    assert_eq!((message.role, message.reasoning.as_deref()), (Role::Assistant, Some(thought.as_str())));
    let prompt = session.prompt_text("And now?").expect("a prompt");
    assert!(prompt.contains(&format!("<think>\n{thought}{END}{}", message.content)), "{prompt}");
}

#[test]
fn a_thought_that_the_template_begins_is_closed_where_there_shall_be_none() {
    let closed = format!("<|im_start|>assistant\n<think>\n{END}");
    let mut answers = Vec::new();
    for template in [THINKS, ALWAYS_THINKS] {
        for thinking in [Thinking::Off, Thinking::Budget(0)] {
            let mut session = open(params(template, thinking));
            let prompt = session.prompt_text("What is it?").expect("a prompt");
            assert!(prompt.ends_with(&closed), "{prompt:?}");
            let mut heard = Heard::default();
            let answer = session.ask("What is it?", &mut heard).expect("an answer");
            assert_eq!((answer.reasoning, answer.tokens.reasoning, heard.thought.as_str()), (None, 0, ""));
            assert_eq!(answer.timings_ms.first_answer, answer.timings_ms.ttft);
            answers.push(answer.answer);
        }
    }
    answers.dedup();
    assert!(answers.len() == 1 && !answers[0].is_empty(), "{answers:?}");
}

#[test]
fn a_thought_that_is_cut_off_has_no_answer() {
    let mut session = open(SessionParams { n_predict: 6, ..params(THINKS, Thinking::Auto) });
    let answer = session.ask("What is it?", &mut ()).expect("an answer");
    assert_eq!((answer.answer.as_str(), answer.stop), ("", StopReason::Length));
    assert!(answer.reasoning.is_some_and(|thought| !thought.is_empty()));
    assert_eq!((answer.tokens.reasoning, answer.tokens.generated), (6, 6));
    assert!(answer.timings_ms.first_answer == 0.0 && answer.timings_ms.ttft > 0.0);
    // It goes on.
    session.set_thinking(Thinking::Off).expect("a setting");
    let next = session.ask("And now?", &mut ()).expect("an answer");
    assert!(next.reasoning.is_none() && !next.answer.is_empty());
}

/// A model whose answer to a question begins with a thought: the token that it would begin with is named `<think>`.
/// Returns its folder, its files and the question.
fn model_that_thinks() -> (tempfile::TempDir, ModelFiles, &'static str) {
    let files = families::files("qwen3vl");
    let mut session = open(params(MAY_THINK, Thinking::Auto));
    let likeliest = |logits: &[f32]| (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
    let mut begin = |question: &str| {
        let rows = session.prompt_rows(question).expect("rows");
        let token = likeliest(&session.first_logits(question, &mut ()).expect("logits"))?;
        // The name of a token in the prompt must stay.
        rows.iter().all(|row| row.key != RowKey::Token(token as i32)).then_some(token)
    };
    let questions = ["What is it?", "Is it?", "Why?", "Who is it?", "And now?", "Where?"];
    let (question, token) = questions.into_iter().find_map(|q| begin(q).map(|t| (q, t))).expect("a free token");
    let mut bytes = std::fs::read(&files.model).expect("the model");
    rename_token(&mut bytes, token, b"<think>");
    let folder = tempfile::tempdir().expect("a folder");
    let model = folder.path().join("thinks.gguf");
    std::fs::write(&model, bytes).expect("a model");
    (folder, ModelFiles { model, ..files }, question)
}

/// Renames a token in a GGUF file. Another that is in no text becomes as much shorter or longer, so that nothing moves.
fn rename_token(file: &mut [u8], token: usize, name: &[u8]) {
    const KEY: &[u8] = b"tokenizer.ggml.tokens";
    const SPARE: &[u8] = b"<row_6_col_6>";
    let key = file.windows(KEY.len()).position(|window| window == KEY).expect("the tokens");
    let u64_at = |file: &[u8], at: usize| u64::from_le_bytes(file[at..at + 8].try_into().expect("8 bytes")) as usize;
    // After the key: the type, the type of an element, and the number of elements.
    let start = key + KEY.len() + 8;
    let n = u64_at(file, start);
    let mut at = start + 8;
    let mut tokens = Vec::with_capacity(n);
    for _ in 0..n {
        let length = u64_at(file, at);
        tokens.push(file[at + 8..at + 8 + length].to_vec());
        at += 8 + length;
    }
    let spare = tokens.iter().position(|token| token == SPARE).expect("a token in no text");
    let total = tokens[token].len() + SPARE.len();
    tokens[token] = name.to_vec();
    tokens[spare] = SPARE.iter().copied().chain(std::iter::repeat(b'_')).take(total - name.len()).collect();
    let written: Vec<u8> =
        tokens.iter().flat_map(|token| [&(token.len() as u64).to_le_bytes()[..], token].concat()).collect();
    file[start + 8..at].copy_from_slice(&written);
}

#[test]
fn a_model_begins_a_thought_itself() {
    let (_folder, files, question) = model_that_thinks();
    let ask = |params: SessionParams| {
        let mut session = Session::open(&files, params, &mut ()).expect("the model opens");
        let mut heard = Heard::default();
        let answer = session.ask(question, &mut heard).expect("an answer");
        assert!(!heard.thought.contains("think>") && !answer.answer.starts_with("<think>"), "{heard:?}");
        (answer, n_tokens(&session, END))
    };
    let (free, end) = ask(params(MAY_THINK, Thinking::Auto));
    assert_eq!((free.answer.as_str(), free.tokens.reasoning), ("", free.tokens.generated));
    assert!(free.tokens.generated > 4 && free.timings_ms.first_answer == 0.0, "{:?}", free.tokens);
    let thought = free.reasoning.expect("a thought");
    let (short, _) = ask(params(MAY_THINK, Thinking::Budget(3)));
    assert!(short.tokens.reasoning >= 1 + 3 + end && !short.answer.is_empty(), "{:?}", short.tokens);
    assert!(short.reasoning.is_some_and(|short| thought.starts_with(&short)));
    // Where there shall be no thought, it has no text.
    let (none, _) = ask(params(MAY_THINK, Thinking::Off));
    assert!(none.tokens.reasoning > end && !none.answer.is_empty(), "{:?}", none.tokens);
    assert_eq!(none.reasoning, None);

    let (by_grammar, _) = ask(with_grammar(params(MAY_THINK, Thinking::Budget(3))));
    assert!(["yes", "no"].contains(&by_grammar.answer.as_str()), "{:?}", by_grammar.answer);
    assert!(by_grammar.reasoning.is_some());
    for thinking in [Thinking::Auto, Thinking::Off] {
        let (at_once, _) = ask(with_grammar(params(MAY_THINK, thinking)));
        assert!(["yes", "no"].contains(&at_once.answer.as_str()), "{:?}", at_once.answer);
        assert_eq!((at_once.reasoning, at_once.tokens.reasoning), (None, 0));
    }
}

#[test]
fn a_grammar_holds_for_the_answer_alone() {
    for template in [THINKS, ALWAYS_THINKS] {
        let mut session = open(with_grammar(params(template, Thinking::Budget(5))));
        let answer = session.ask("Is it?", &mut ()).expect("an answer");
        assert!(["yes", "no"].contains(&answer.answer.as_str()), "{:?}", answer.answer);
        assert!(answer.reasoning.is_some(), "{template}");
        assert_eq!(answer.tokens.reasoning, 5 + n_tokens(&session, END));
    }
    // A model that does not think, though it may, answers by the grammar from its first token on.
    for thinking in [Thinking::On, Thinking::Budget(5), Thinking::Auto, Thinking::Off] {
        let mut session = open(with_grammar(params(MAY_THINK, thinking)));
        let answer = session.ask("Is it?", &mut ()).expect("an answer");
        assert!(["yes", "no"].contains(&answer.answer.as_str()), "{thinking}: {:?}", answer.answer);
        assert_eq!((answer.reasoning, answer.tokens.reasoning), (None, 0), "{thinking}");
    }
}

#[test]
fn first_tokens_are_compared_without_thoughts() {
    let logits = |template, thinking| {
        let mut session = open(params(template, thinking));
        session.first_logits("What is it?", &mut ()).expect("logits")
    };
    let off = logits(THINKS, Thinking::Off);
    for thinking in [Thinking::Auto, Thinking::On, Thinking::Budget(4)] {
        assert_eq!(logits(THINKS, thinking), off, "{thinking}");
        assert_eq!(logits(ALWAYS_THINKS, thinking), off, "{thinking}");
    }
    assert_ne!(logits(MAY_THINK, Thinking::Auto), off);
}

#[test]
fn an_answer_that_has_begun_has_no_thought() {
    let mut session = open(params(THINKS, Thinking::Budget(4)));
    session.set_answer_start("Best option: (");
    let prompt = session.prompt_text("What is it?").expect("a prompt");
    assert!(prompt.ends_with(&format!("<think>\n{END}Best option: (")), "{prompt:?}");
    assert_eq!(session.ask("What is it?", &mut ()).expect("an answer").reasoning, None);
}

#[test]
fn an_iterator_and_a_worker_tell_thoughts_from_answers() {
    let mut session = open(params(THINKS, Thinking::Budget(4)));
    let expected = session.ask("What is it?", &mut ()).expect("an answer");
    session.restart();
    let mut stream = session.ask_stream("What is it?", &mut ()).expect("the prompt is read");
    let (mut thought, mut text) = (String::new(), String::new());
    for piece in &mut stream {
        match piece.expect("a piece") {
            Piece::Thought(piece) => thought += &piece,
            Piece::Text(piece) => text += &piece,
        }
    }
    let answer = stream.finish().expect("an answer");
    assert_eq!((Some(thought.as_str()), text.trim()), (expected.reasoning.as_deref(), expected.answer.as_str()));
    assert_eq!((answer.answer, answer.reasoning), (expected.answer.clone(), expected.reasoning.clone()));

    // What is dropped in its thought leaves the thought.
    session.restart();
    let mut stream = session.ask_stream("What is it?", &mut ()).expect("the prompt is read");
    let piece = stream.next().expect("a piece").expect("a piece");
    drop(stream);
    let Piece::Thought(begun) = piece else { panic!("{piece:?}") };
    let message = session.messages().last().expect("an answer");
    assert_eq!((message.content.as_str(), message.reasoning.as_deref()), ("", Some(begun.trim())));

    let (worker, events) = Worker::spawn(families::files("qwen3vl"), params(THINKS, Thinking::Budget(4)));
    worker.ask("What is it?");
    let (mut thought, mut text) = (String::new(), String::new());
    for event in events {
        match event.kind {
            EventKind::Thought(piece) => thought += &piece,
            EventKind::Text(piece) => text += &piece,
            EventKind::Answered(_) => worker.close(),
            EventKind::Failed(error) => panic!("{error}"),
            _ => {}
        }
    }
    assert_eq!((Some(thought), text.trim()), (expected.reasoning, expected.answer.as_str()));
}

#[test]
fn the_template_is_told_what_the_user_says() {
    let template = "{% for m in messages %}{{ m.content }}|{% endfor %}{{ reasoning_effort }}|{{ enable_thinking }}|{{ extra.depth[0] if extra }}";
    let kwargs = |value: Value| value.as_object().expect("an object").clone();
    let mut session = Session::builder(&families::files("qwen3vl"))
        .params(params(template, Thinking::Auto))
        .thinking(Thinking::On)
        .template_kwargs(kwargs(json!({ "reasoning_effort": "low", "extra": { "depth": [7] } })))
        .open()
        .expect("the model opens");
    assert_eq!(session.prompt_text("Why?").expect("a prompt"), "Why?|low|True|7");
    // What the user says counts.
    session.set_template_kwargs(kwargs(json!({ "enable_thinking": 2 }))).expect("an object");
    assert_eq!(session.prompt_text("Why?").expect("a prompt"), "Why?||2|");
    // It is no token of the template.
    session.set_template_kwargs(kwargs(json!({ "extra": { "depth": ["<|im_end|>"] } }))).expect("an object");
    assert!(session.prompt_text("Why?").expect("a prompt").ends_with("|<|im_end|>"));
    let end = session.model().tokenize("<|im_end|>", false, true).expect("a token")[0];
    let rows = session.prompt_rows("Why?").expect("rows");
    assert!(rows.len() > 8 && rows.iter().all(|row| row.key != RowKey::Token(end)));
    session.set_thinking(Thinking::Auto).expect("a setting");
    session.set_template_kwargs(Map::new()).expect("nothing");
    assert_eq!(session.prompt_text("Why?").expect("a prompt"), "Why?|||");

    for name in ["messages", "tools", "add_generation_prompt", "bos_token", "eos_token"] {
        let bad = Map::from_iter([(name.to_owned(), json!([]))]);
        let refused = session.set_template_kwargs(bad.clone()).expect_err("a name of something else").to_string();
        assert!(refused.starts_with("template-kwargs is ") && refused.contains(name), "{refused}");
        let turn = TurnParams { template_kwargs: bad.clone(), ..session.turn_params() };
        assert!(matches!(session.configure(&turn), Err(Error::InvalidParameter { name: "template-kwargs", .. })));
        let opened = SessionParams { template_kwargs: bad, ..SessionParams::default() };
        assert!(Session::open(&families::files("qwen3vl"), opened, &mut ()).is_err());
    }
}

#[test]
fn a_budget_leaves_tokens_for_the_answer() {
    let refused = |result: sharpv::Result<()>| {
        let error = result.expect_err("no token for the answer");
        assert!(matches!(error, Error::InvalidParameter { name: "thinking", .. }), "{error}");
    };
    refused(Session::open(&families::files("qwen3vl"), params(THINKS, Thinking::Budget(32)), &mut ()).map(|_| ()));
    let mut session = open(params(THINKS, Thinking::Budget(31)));
    refused(session.set_n_predict(31));
    refused(session.set_thinking(Thinking::Budget(32)));
    let before = session.turn_params();
    refused(session.configure(&TurnParams { n_predict: 8, ..before.clone() }));
    assert_eq!(session.turn_params(), before);
    session.configure(&TurnParams { n_predict: 8, thinking: Thinking::On, ..before }).expect("no budget");
    assert_eq!(session.turn_params().thinking, Thinking::On);
}

#[test]
fn a_template_that_cannot_think_says_what_to_do() {
    let template = "{{ messages[0].content }}\n{% if thinking %}{{ raise_exception('I do not think') }}{% endif %}";
    let mut session = open(params(template, Thinking::On));
    let error = session.ask("Why?", &mut ()).expect_err("an exception of the template");
    assert_eq!(error.fixes(), [Fix::NoThinking, Fix::OtherTemplate]);
    let text = error.to_string();
    for part in ["qwen3vl.gguf", "thinking = true", "I do not think (line 2)", "turn thinking off"] {
        assert!(text.contains(part), "{text}");
    }
    session.set_thinking(Thinking::Off).expect("a setting");
    session.ask("Why?", &mut ()).expect("an answer");
}

#[test]
fn thoughts_are_said_saved_and_loaded() {
    let mut session = open(params(THINKS, Thinking::Off));
    session.say(Role::User, "Is it a cat?");
    session.say_answer(Some("It has <|im_end|> whiskers."), "Yes.");
    let turn = "assistant\n<think>\nIt has <|im_end|> whiskers.\n</think>\n\nYes.<|im_end|>\n";
    let prompt = session.prompt_text("Why?").expect("a prompt");
    assert!(prompt.contains(turn), "{prompt}");
    // What a message says is no token of the template.
    let end = session.model().tokenize("<|im_end|>", false, true).expect("a token")[0];
    let rows = session.prompt_rows("Why?").expect("rows");
    let ends = rows.iter().filter(|row| row.key == RowKey::Token(end)).count();
    assert_eq!(ends, 3);
    session.ask("Why?", &mut ()).expect("an answer");

    let file = tempfile::NamedTempFile::new().expect("a file");
    session.save(file.path()).expect("it is saved");
    let mut other = open(params(THINKS, Thinking::Off));
    other.load(file.path()).expect("it is loaded");
    assert_eq!(other.messages(), session.messages());
    assert!(other.prompt_text("And now?").expect("a prompt").contains(turn));
}

#[test]
fn live_video_is_thought_about_but_yes_and_no_are_not() {
    let live = LiveParams::default();
    let thinks = SessionParams { n_predict: 40, ..params(THINKS, Thinking::Budget(20)) };
    let mut live = LiveSession::open(&families::files("qwen3vl"), thinks, live, &mut ()).expect("the model opens");
    for second in 0..4 {
        let rgb = families::image((64, 64), second).into_raw();
        let frame = sharpv::video::Frame { width: 64, height: 64, rgb, time_s: f64::from(second) };
        live.push(&frame, &mut ()).expect("a frame");
    }
    let answer = live.ask("What is it?", &mut ()).expect("an answer");
    assert!(answer.reasoning.is_some() && answer.timings_ms.first_answer > answer.timings_ms.ttft);
    let first = live.is_so("Is it?", &mut ()).expect("yes or no");
    assert_eq!(live.is_so("Is it?", &mut ()).expect("yes or no"), first);
    let again = live.ask("What is it?", &mut ()).expect("an answer");
    assert_eq!((again.answer, again.reasoning), (answer.answer, answer.reasoning));
}

#[test]
fn evictions_are_tried_on_thoughts_too() {
    let folder = tempfile::tempdir().expect("a folder");
    families::write_frames(folder.path(), (160, 120), 6);
    // The thought ends before a trial, and within what it compares.
    for budget in [4, 24] {
        // The model's weights are random, so it may end its turn before its thought.
        let tried = (0..20).any(|seed| {
            let sampler = SamplerParams { temperature: 4.0, seed: Some(seed), ..SamplerParams::default() };
            let thinks = SessionParams { n_predict: 48, sampler, ..params(THINKS, Thinking::Budget(budget)) };
            let mut session = open(thinks);
            let options = VideoOptions { fps: Some(1.0), folder_fps: Some(1.0), ..VideoOptions::default() };
            session.add_video(folder.path(), &options, &mut ()).expect("the frames are read");
            let answer = session.ask("What is it?", &mut ()).expect("an answer");
            assert!(!answer.similarity.is_empty());
            session.settle(&mut ()).expect("nothing is left to do");
            session.ask("And then?", &mut ()).expect("another answer");
            answer.tokens.reasoning == budget + n_tokens(&session, END) && answer.tokens.generated > N_COMPARED
        });
        assert!(tried, "{budget}");
    }
}
