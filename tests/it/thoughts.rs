//! Models that think, as users of the program see them: what goes where, budgets, what is refused.
//!
//! The models are tiny and random, so their thoughts are nonsense, and a grammar makes their answers known.
#![cfg(feature = "cli")]

use crate::support::program::sharpv;
use crate::support::{families, json_schema};

use assert_cmd::Command;
use assert_cmd::assert::Assert;
use predicates::prelude::*;
use predicates::str::{contains, is_empty};
use serde_json::{Value, json};
use std::path::Path;
use tempfile::TempDir;

/// A chat template whose prompt begins a thought, unless it is told not to.
const THINKS: &str = "\
{% for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and enable_thinking is false %}<think>

</think>

{% else %}<think>
{% endif %}{% endif %}";

/// The only answer of these tests.
const YES: &str = "root ::= \"Yes.\"";

/// Frames, a tiny model, and a template for it.
struct Setup {
    folder: TempDir,
    model: String,
    mmproj: String,
}

impl Setup {
    fn new() -> Self {
        Self::with_template(THINKS)
    }

    fn with_template(template: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let frames = folder.path().join("frames");
        std::fs::create_dir(&frames).expect("a folder");
        families::write_frames(&frames, (64, 48), 2);
        std::fs::write(folder.path().join("template.jinja"), template).expect("a file");
        let files = families::files("smolvlm");
        let text = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
        Self { folder, model: text(&files.model), mmproj: text(files.mmproj.as_deref().expect("an mmproj")) }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("a path in UTF-8").to_owned()
    }

    /// The arguments for a command: `words`, separated by spaces, then the model and `more`.
    fn args(&self, words: &str, more: &[&str]) -> Vec<String> {
        let (frames, template) = (self.path("frames"), self.path("template.jinja"));
        let words = words.split_whitespace().map(|word| if word == "FRAMES" { &frames } else { word });
        let model = ["-m", &self.model, "--mmproj", &self.mmproj, "--chat-template-file", &template, "-t", "1"];
        words.chain(model).chain(more.iter().copied()).map(str::to_owned).collect()
    }

    fn run(&self, words: &str, more: &[&str]) -> Command {
        let args = self.args(words, more);
        sharpv(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Asks a question whose answer is `Yes.`.
    fn ask(&self, options: &str) -> Assert {
        self.run(&format!("ask FRAMES What? --temp 0 {options}"), &["--grammar", YES]).assert()
    }

    fn ask_json(&self, options: &str) -> Value {
        let asked = self.ask(&format!("--json {options}")).success().stderr(is_empty());
        serde_json::from_slice(&asked.get_output().stdout).expect("one JSON object")
    }
}

fn stderr(assert: &Assert) -> String {
    String::from_utf8_lossy(&assert.get_output().stderr).into_owned()
}

#[test]
fn stdout_has_the_answer_alone() {
    let setup = Setup::new();
    let asked = setup.ask("--think 8").success().stdout("Yes.\n");
    let said = stderr(&asked);
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("thought for "), "{said}");
    assert!(lines[1].contains(" tokens thought, the answer began after ") && lines.len() == 2, "{said}");
    setup.ask("--think 8 -q").success().stdout("Yes.\n").stderr(is_empty());
}

#[test]
fn json_has_the_thought_its_tokens_and_when_the_answer_began() {
    let setup = Setup::new();
    let thought = setup.ask_json("--think 8");
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ask.schema.json");
    let schema: Value = serde_json::from_slice(&std::fs::read(schema).expect("the schema")).expect("JSON");
    assert_eq!(json_schema::errors(&schema, &thought), Vec::<String>::new());
    assert_eq!((&thought["answer"], &thought["stop"]), (&"Yes.".into(), &"end_of_turn".into()));
    assert!(
        thought["reasoning"].as_str().is_some_and(|text| !text.is_empty() && !text.contains("think>")),
        "{thought}"
    );
    let tokens = |key: &str| thought["tokens"][key].as_u64().expect(key);
    assert!(tokens("reasoning") >= 8 && tokens("generated") > tokens("reasoning"), "{}", thought["tokens"]);
    let ms = |answer: &Value, key: &str| answer["timings_ms"][key].as_f64().expect(key);
    assert!(ms(&thought, "first_answer") > ms(&thought, "ttft"), "{}", thought["timings_ms"]);

    // A longer budget, a longer thought.
    let longer = setup.ask_json("--think 32");
    // Of each, the end of the thought is some more.
    let is_within =
        |n: u64, answer: &Value| (n..n + 16).contains(&answer["tokens"]["reasoning"].as_u64().expect("a number"));
    assert!(is_within(8, &thought) && is_within(32, &longer), "{} {}", thought["tokens"], longer["tokens"]);
    assert_eq!(longer["answer"], "Yes.");
}

#[test]
fn ask_does_not_think_unless_it_is_told_to() {
    let setup = Setup::new();
    for options in ["", "--think auto", "--think off", "--think 0"] {
        let answer = setup.ask_json(options);
        assert_eq!((&answer["answer"], &answer["reasoning"]), (&"Yes.".into(), &Value::Null), "{options}");
        assert_eq!(answer["tokens"]["reasoning"], 0, "{options}");
        assert_eq!(answer["timings_ms"]["first_answer"], answer["timings_ms"]["ttft"], "{options}");
        let said = stderr(&setup.ask(options).success().stdout("Yes.\n"));
        assert!(!said.contains("thought"), "{options}: {said}");
    }
    // The template decides if it is told something.
    let mut told =
        setup.run("ask FRAMES What? --json --temp 0 -n 8", &["--chat-template-kwargs", "{\"enable_thinking\": true}"]);
    let told: Value = serde_json::from_slice(&told.unwrap().stdout).expect("JSON");
    assert_eq!(told["tokens"]["reasoning"], 8, "{told}");
}

#[test]
fn an_answer_that_did_not_begin_is_told_with_what_helps() {
    let setup = Setup::new();
    let asked = setup.ask("--think on -n 8").success().stdout("\n");
    let expected = "the answer did not begin: raise -n, or limit the thought with --think N";
    assert_eq!(stderr(&asked).lines().filter(|line| *line == expected).count(), 1, "{}", stderr(&asked));
    let answer = setup.ask_json("--think on -n 8");
    assert_eq!((&answer["answer"], &answer["stop"]), (&"".into(), &"length".into()));
    assert_eq!((&answer["tokens"]["reasoning"], &answer["tokens"]["generated"]), (&8.into(), &8.into()));
    assert_eq!(answer["timings_ms"]["first_answer"], 0.0);
    assert!(answer["reasoning"].as_str().is_some_and(|text| !text.is_empty()), "{answer}");
}

#[test]
fn what_thinking_cannot_be_is_told_with_what_it_can() {
    let setup = Setup::new();
    let refused = |options: &str, expected: &[&str]| {
        let asked = setup.ask(options).code(2).stdout(is_empty());
        let said = stderr(&asked);
        assert!(said.contains("error: ") && expected.iter().all(|part| said.contains(part)), "{options}: {said}");
    };
    refused("--think 32 -n 32", &["--think is 32", "-n 32", "raise -n"]);
    refused("--think 600", &["--think is 600", "-n 512"]);
    refused("--chat-template-kwargs {\"messages\":[]}", &["--chat-template-kwargs is", "\"messages\""]);
    for wrong in ["-1", "sometimes", "1.5", "true"] {
        refused(&format!("--think {wrong}"), &["auto, on, off", wrong]);
    }
    for (wrong, expected) in [("[1]", "an array"), ("{", "not JSON"), ("7", "a number"), ("low", "not JSON")] {
        refused(&format!("--chat-template-kwargs {wrong}"), &["--chat-template-kwargs", expected, "a JSON object"]);
    }
    setup.ask("--think 31 -n 32").success();
}

#[test]
fn a_template_that_fails_over_thinking_is_told_with_its_line() {
    let fails = "{% if enable_thinking %}\n{{ raise_exception('this model cannot think') }}{% endif %}";
    let setup = Setup::with_template(&format!("{fails}{THINKS}"));
    let asked = setup.ask("--think on").code(1).stdout(is_empty());
    let said = stderr(&asked);
    let expected = ["this model cannot think", "(line 2)", "--think off", "--chat-template-file"];
    assert!(expected.iter().all(|part| said.contains(part)), "{said}");
    setup.ask("--think off").success().stdout("Yes.\n");
}

#[test]
fn values_reach_the_template() {
    let setup =
        Setup::with_template(&format!("{{{{ style }}}}{{% if more %}}{{{{ more.words[1] }}}}{{% endif %}}{THINKS}"));
    let prompt = |kwargs: &str| {
        let asked = setup.run("ask FRAMES What? --json --temp 0 -n 4", &["--chat-template-kwargs", kwargs]).assert();
        let answer: Value = serde_json::from_slice(&asked.success().get_output().stdout).expect("JSON");
        answer["tokens"]["prompt"].as_u64().expect("a number")
    };
    let none = prompt("{}");
    assert!(prompt(r#"{"style": "in three words, at least"}"#) > none);
    assert!(prompt(r#"{"more": {"words": ["", "in three words, at least"]}}"#) > none);
    assert_eq!(prompt(r#"{"other": "in three words, at least"}"#), none);
}

#[test]
fn a_chat_thinks_as_the_model_does_until_it_is_told_otherwise() {
    let setup = Setup::new();
    let chat = |input: &str, options: &str| {
        let mut chat = setup.run(&format!("chat FRAMES --temp 0 -n 24 {options}"), &["--grammar", YES]);
        chat.write_stdin(input.to_owned()).assert()
    };
    let input = "/thought\n/think\nWhat?\n/think 8\nWhat?\n/thought\n/stats\n/think off\n/think\nWhat?\n/thought\n";
    let asked = chat(input, "").success();
    // Without a budget, the thought takes all tokens.
    asked.stdout(contains("\nYes.\nYes.\n").and(predicates::ord::eq("\nYes.\nYes.\n")));
    let said = stderr(&chat(input, "").success());
    let lines: Vec<&str> = said.lines().collect();
    let at = |expected: &str| {
        let found = lines.iter().position(|line| line.contains(expected));
        found.unwrap_or_else(|| panic!("{expected} is missing in {said}"))
    };
    let order = [
        at("There is no answer yet."),
        at("Thinking is auto."),
        at("the answer did not begin: raise -n, or limit the thought with /think N"),
        at("It applies from the next question on."),
        at("tokens thought, the answer began after"),
        at("Thinking is off."),
        at("The model did not think before the last answer."),
    ];
    assert!(order.is_sorted(), "{order:?} {said}");
    assert_eq!(said.matches("thought for ").count(), 2, "{said}");
    assert!(lines.iter().any(|line| line.starts_with("thought  ") && line.contains(" tokens; ")), "{said}");

    for (wrong, expected) in
        [("/think 24", "/think is 24, but must be fewer than 24"), ("/think maybe", "auto, on, off")]
    {
        let said = stderr(&chat(&format!("{wrong}\nWhat?\n"), "").failure().stdout(is_empty()));
        assert!(said.contains(expected), "{wrong}: {said}");
    }
    // The commands are listed.
    let said = stderr(&chat("/help\n", "").success());
    assert!(said.contains("/think HOW") && said.contains("/thought"), "{said}");
}

#[test]
fn an_evaluation_does_not_think_unless_it_has_a_budget() {
    let setup = Setup::new();
    let questions = json!({ "video": setup.path("frames"), "question": "What?", "choices": ["a", "b"], "answer": "a" });
    let data = setup.path("q.jsonl");
    std::fs::write(&data, format!("{questions}\n")).expect("a file");
    let eval = |out: &str, options: &str| {
        let out = setup.path(out);
        let more = ["--data", &data, "--out", &out, "--methods", "dense", "--videos", "/"];
        setup.run(&format!("eval jsonl {options}"), &more).assert()
    };
    let settings = |out: &str| -> Value {
        let summary = std::fs::read(Path::new(&setup.path(out)).join("summary.json")).expect("a summary");
        serde_json::from_slice::<Value>(&summary).expect("JSON")["settings"].clone()
    };
    eval("off", "").success();
    assert_eq!((&settings("off")["thinking"], &settings("off")["n_predict"]), (&"off".into(), &16.into()));
    // The budget is added to the tokens of the answer.
    eval("budget", "--think 8").success();
    assert_eq!((&settings("budget")["thinking"], &settings("budget")["n_predict"]), (&"8".into(), &24.into()));
    eval("on", "--think on -n 20").success();
    assert_eq!((&settings("on")["thinking"], &settings("on")["n_predict"]), (&"on".into(), &20.into()));
    // Answers with and without thoughts are no results of one run.
    let said = stderr(&eval("off", "--think 8 -n 16").code(1));
    assert!(said.contains("thinking \"off\" there, \"8\" here"), "{said}");
    for (options, expected) in [
        ("--think on", "--think is on, but must be a number of tokens, or on with -n N"),
        ("--think 16 -n 16", "--think is 16, but must be fewer than 16"),
        ("--think 8 --score likelihood", "off with --score likelihood"),
        ("--think 8 --think on", "cannot be used multiple times"),
        ("--think x", "give auto, on, off"),
    ] {
        eval("refused", options).code(2).stdout(is_empty()).stderr(contains(expected));
    }
    let begun = setup.run("eval mvbench --data / --think 8", &[]).assert();
    begun.code(2).stdout(is_empty()).stderr(contains("off for this task, whose answers begin with"));
}

#[test]
fn live_video_is_answered_without_a_thought_unless_one_is_asked_for() {
    let setup = Setup::new();
    // yuv4mpeg: two frames of one gray.
    let frame = [&b"FRAME\n"[..], &[128; 64 * 48 * 3 / 2]].concat();
    let video = [&b"YUV4MPEG2 W64 H48 F1:1 Ip A1:1 C420jpeg\n"[..], &frame, &frame].concat();
    let watch = |options: &str| {
        let mut watch = setup.run(&format!("watch - What? --json --no-drop --temp 0 {options}"), &["--grammar", YES]);
        let output = watch.write_stdin(video.clone()).assert().success();
        let text = String::from_utf8(output.get_output().stdout.clone()).expect("UTF-8");
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        lines.into_iter().find(|line| line["type"] == "answer").expect("an answer")
    };
    let answer = watch("");
    assert_eq!((&answer["answer"], answer.get("reasoning")), (&"Yes.".into(), None));
    let answer = watch("--think 8");
    assert_eq!(answer["answer"], "Yes.");
    assert!(answer["reasoning"].as_str().is_some_and(|text| !text.is_empty()), "{answer}");
}

#[test]
fn a_page_shows_the_thought() {
    let setup = Setup::new();
    let page = setup.path("page.html");
    let inspect = |options: &str| {
        let more = ["--grammar", YES, "-o", &page, "--no-dense", "--json"];
        let run = setup.run(&format!("inspect FRAMES -q What? --temp 0 {options}"), &more).assert().success();
        let data: Value = serde_json::from_slice(&run.get_output().stdout).expect("JSON");
        (data["asked"].clone(), std::fs::read_to_string(&page).expect("a page"))
    };
    let (asked, html) = inspect("");
    assert_eq!((&asked["answer"], &asked["reasoning"]), (&"Yes.".into(), &Value::Null));
    assert!(!html.contains(">Thought<"));
    let (asked, html) = inspect("--think 8");
    assert_eq!(asked["answer"], "Yes.");
    assert!(asked["reasoning"].is_string() && html.contains(">Thought<"), "{asked}");
}

/// In a terminal, the end of a thought is shown dim, and a line stays of it.
#[cfg(target_os = "linux")]
#[test]
fn a_terminal_shows_a_thought_dim_and_folds_it() {
    let setup = Setup::new();
    let args = setup.args("ask FRAMES What? --temp 0 --think 64", &["--grammar", YES]);
    let quoted = args.iter().map(|arg| format!("'{}'", arg.replace('\'', r"'\''"))).collect::<Vec<_>>().join(" ");
    let line = format!("{} {quoted}", env!("CARGO_BIN_EXE_sharpv"));
    // `script` of util-linux runs a command in a terminal.
    let run = std::process::Command::new("script")
        .args(["-qefc", &line, "/dev/null"])
        .env_remove("SHARPV_LOG")
        .env_remove("NO_COLOR")
        .env("TERM", "xterm")
        .stdin(std::process::Stdio::null())
        .output();
    let output = match run {
        Err(error) if std::env::var_os("CI").is_none() => {
            eprintln!("SKIPPED: a_terminal_shows_a_thought_dim_and_folds_it: no `script` here: {error}");
            return;
        }
        run => run.expect("script of util-linux"),
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    let shown = text.find("thinking").unwrap_or_else(|| panic!("no thought is shown: {text:?}"));
    let folded = text.find("\u{1b}[2mthought for ").unwrap_or_else(|| panic!("it is not folded: {text:?}"));
    let answer = text.find("Yes.").unwrap_or_else(|| panic!("there is no answer: {text:?}"));
    assert!(shown < folded && folded < answer, "{text:?}");
    let during = &text[shown..folded];
    assert!(during.contains("\u{1b}[2m") && during.contains("\u{1b}[2K"), "dim, then erased: {during:?}");
    // Nothing is left of it but the line: what follows begins where it began.
    assert!(!text[folded..].contains("thinking"), "{text:?}");
}
