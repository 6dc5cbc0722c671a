//! The program as users see it: arguments, stdout, stderr, exit codes.
#![cfg(feature = "cli")]

use crate::support::json_schema;
use crate::support::program::{sharpv, with_smol};
use crate::support::smol;

use assert_cmd::assert::Assert;
use predicates::prelude::*;
use predicates::str::{contains, is_empty, is_match, starts_with};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

/// A folder with 8 frames.
fn clip(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden").join(name);
    path.to_str().expect("a path in UTF-8").to_owned()
}

/// Asks about a clip; `options` are separated by spaces.
fn ask(clip_name: &str, question: &str, options: &str) -> Assert {
    let clip = clip(clip_name);
    let mut args = vec!["ask", &clip, question];
    args.extend(options.split_whitespace());
    with_smol(&args).assert()
}

/// A temporary file with this content.
fn temporary(name: &str, content: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(name);
    std::fs::write(&path, content).expect("writing a test file");
    (folder, path)
}

// --- without a model -------------------------------------------------------------------------------

#[test]
fn version_and_help_go_to_stdout() {
    let version = format!("sharpv {}\n", env!("CARGO_PKG_VERSION"));
    sharpv(&["--version"]).assert().success().stdout(version).stderr(is_empty());
    sharpv(&["--help"]).assert().success().stdout(contains("sharpv pull smol")).stderr(is_empty());
}

#[test]
fn every_command_has_help() {
    for command in ["ask", "chat", "watch", "eval", "pull", "models", "doctor", "serve"] {
        sharpv(&["help", command]).assert().success().stdout(contains(format!("Usage: sharpv {command}")));
    }
}

/// `-h` shows common options on one screen, `--help` shows all options.
#[test]
fn the_short_help_fits_a_screen() {
    let text = |args: &[&str]| {
        let output = sharpv(args).assert().success().stderr(is_empty());
        String::from_utf8(output.get_output().stdout.clone()).expect("UTF-8")
    };
    let options = |help: &str| -> Vec<String> {
        let words = help.lines().filter(|line| line.trim_start().starts_with('-')).flat_map(str::split_whitespace);
        let words = words.map(|word| word.trim_end_matches([',', '.', ']']));
        words.filter(|word| word.starts_with("--") && word.len() > 2).map(str::to_owned).collect()
    };
    let all = text(&["--help"]);
    let listed = all.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // The description of a command may continue on lines with more indentation.
    let names = listed.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    let commands: Vec<&str> = names.filter(|name| *name != "help").collect();
    assert!(commands.contains(&"ask") && commands.len() > 10, "{commands:?}");
    for command in commands {
        let (short, long) = (text(&[command, "-h"]), text(&[command, "--help"]));
        let n = short.lines().count();
        assert!(n <= 45, "{command}: {n} lines\n{short}");
        let wide = short.lines().filter(|line| line.chars().count() > 100).collect::<Vec<_>>();
        assert!(
            wide.iter().all(|line| line.starts_with("  sharpv") || line.starts_with("  ffmpeg")),
            "{command}: {wide:?}"
        );
        let (short_options, long_options) = (options(&short), options(&long));
        assert!(short_options.iter().all(|option| long.contains(option)), "{command}: {short_options:?}");
        if long_options.len() > short_options.len() {
            let last = short.lines().last().unwrap_or_default();
            assert!(last.contains(&format!("`sharpv {command} --help`")), "{command}: {last}");
        }
    }
    let ask = text(&["ask", "-h"]);
    for option in ["--model", "--max-frames", "--fps", "--start", "--keep", "--json"] {
        assert!(ask.contains(option), "{option}");
    }
    assert!(!ask.contains("--ubatch-size"), "{ask}");
}

#[test]
fn the_option_that_is_meant_is_told() {
    for (wrong, ours) in [
        ("--frames", "--max-frames"),
        ("--num-frames", "--max-frames"),
        ("--max-tokens", "--predict"),
        ("--ngl", "--gpu-layers"),
        ("--reasoning-budget", "--think"),
    ] {
        let told = sharpv(&["ask", "v.mp4", "q", wrong, "8"]).assert().code(2);
        told.stderr(
            contains(format!("unexpected argument '{wrong}'"))
                .and(contains(format!("'{ours}'")))
                .and(contains("--frames-by").not()),
        );
    }
    // Not for a command without this option.
    sharpv(&["doctor", "--frames", "8"]).assert().code(2).stderr(contains("--max-frames").not());
}

#[test]
fn the_help_of_ask_names_llama_cpps_options() {
    let options = [
        "-m, --model",
        "--mmproj",
        "--lora",
        "-n, --predict",
        "--n-predict",
        "--temp",
        "--top-k",
        "--top-p",
        "--min-p",
        "--repeat-penalty",
        "--repeat-last-n",
        "--presence-penalty",
        "--frequency-penalty",
        "--grammar",
        "--grammar-file",
        "-s, --seed",
        "-ngl",
        "--gpu-layers",
        "--n-gpu-layers",
        "-t, --threads",
        "-c, --ctx-size",
        "-ub",
        "--ubatch-size",
        "-fa",
        "--flash-attn",
        "-ctk",
        "--cache-type-k",
        "-ctv",
        "--cache-type-v",
        "--no-mmap",
        "-dev",
        "--device",
        "-nkvo",
        "--no-kv-offload",
        "--chat-template-file",
        "--chat-template-kwargs",
        "-sys",
        "--system-prompt",
    ];
    let help = sharpv(&["ask", "--help"]).assert().success();
    for option in options {
        assert!(contains(option).eval(&String::from_utf8_lossy(&help.get_output().stdout)), "{option}");
    }
}

#[test]
fn wrong_use_ends_with_2() {
    let cases = [
        "",
        "nonsense",
        "ask",
        "ask v.mp4",
        "ask v.mp4 q --nonsense",
        "ask v.mp4 q --keep 0.5 --threshold 1",
        "ask v.mp4 q --keep 0.5 --max-visual-tokens 9",
        "ask v.mp4 q --keep 1.5",
        "ask v.mp4 q --max-visual-tokens 0",
        "ask v.mp4 q --prune off --keep 0.5",
        "ask v.mp4 q --prune divprune",
        "inspect v.mp4 --json --prune divprune --threshold 1",
        "ask v.mp4 q --prune nonsense",
        "ask v.mp4 q --spatial-weight 2",
        "ask v.mp4 q --encode-depth 0.5",
        "ask v.mp4 q --layout nonsense",
        "ask v.mp4 q --fps 0",
        "ask v.mp4 q --max-frames 0",
        "ask v.mp4 q --start 1:75",
        "ask v.mp4 q --folder-fps nan",
        "ask v.mp4 q -n 0",
        "ask v.mp4 q --temp nan",
        "ask v.mp4 q --top-p 2",
        "ask v.mp4 q --repeat-penalty 0",
        "ask v.mp4 q -ngl some",
        "ask v.mp4 q -fa maybe",
        "ask v.mp4 q -ctk q9",
        "ask v.mp4 q -fa off -ctv q8_0",
        "ask v.mp4 q -ub 0",
        "ask v.mp4 q -t 0",
        "ask v.mp4 q -s x",
        "ask v.mp4 q --grammar x --grammar-file y",
        "ask v.mp4 q --think",
        "ask v.mp4 q --think sometimes",
        "ask v.mp4 q --think -1",
        "ask v.mp4 q --think 600",
        "ask v.mp4 q --chat-template-kwargs [1]",
        "-q -v doctor",
    ];
    for case in cases {
        let args: Vec<&str> = case.split_whitespace().collect();
        sharpv(&args).assert().code(2).stdout(is_empty()).stderr(is_match("error: |Usage: ").expect("a pattern"));
    }
    sharpv(&["ask", "v.mp4", " "]).assert().code(2).stderr(contains("the question is empty"));
}

#[test]
fn a_command_line_that_another_program_would_take_is_told_with_ours() {
    let clip = clip("order-1");
    let cases: [(&[&str], String); 9] = [
        (&[&clip, "What's this?"], format!("sharpv ask {clip} 'What'\\''s this?'")),
        (&["-q", &clip, "--keep", "0.3", "What?"], format!("sharpv -q ask {clip} --keep 0.3 'What?'")),
        (&[&clip], format!("sharpv chat {clip}")),
        (&["chat.mp4"], "sharpv chat chat.mp4".into()),
        (&["run", "smol"], "sharpv chat -m smol".into()),
        (&["run", "smol", "a clip.mp4", "What?"], "sharpv ask -m smol 'a clip.mp4' 'What?'".into()),
        (&["run", "clip.mp4", "-ngl", "0"], "sharpv chat clip.mp4 --gpu-layers 0".into()),
        (&["list", "--json"], "sharpv models --json".into()),
        (&["download", "smol"], "sharpv pull smol".into()),
    ];
    for (args, expected) in cases {
        let expected = contains(format!("is not a command; did you mean this?\n\n  {expected}\n"));
        sharpv(args).assert().code(2).stdout(is_empty()).stderr(expected);
    }
    // No suggestion that would fail, too.
    for args in [&["nonsense"][..], &["list", "smol"], &["clip.mp4", "--nonsense"], &["run"]] {
        sharpv(args).assert().code(2).stderr(contains("unrecognized subcommand").and(contains("did you mean").not()));
    }
}

#[test]
fn a_wrong_value_is_told_with_a_right_one() {
    let (_folder, no_text) = temporary("no-text", "");
    std::fs::write(&no_text, [0xff, 0xfe, 0xfd]).expect("writing a test file");
    let no_text = no_text.to_str().expect("a path in UTF-8");
    let clip = clip("order-1");
    let cases: [(&[&str], i32, &str); 7] = [
        (&["ask", "v.mp4", "q", "--keep", "30%"], 2, "give a share of 1: 0.3"),
        (&["plan", "v.mp4", "--keep", "a third"], 2, "give a share of 1, such as 0.3"),
        (&["bench", "v.mp4", "--keep", "30%"], 2, "give a share of 1: 0.3"),
        (&["watch", "v.mp4", "--when", " "], 2, "give some text"),
        (&["calibrate", &clip], 2, "the number of videos is 1, but must be at least 2"),
        (&["ask", "rtsp://me:secret@camera/1", "q"], 1, "try `sharpv watch rtsp://camera/1`"),
        (&["eval", "jsonl", "--data", no_text, "-m", "smol"], 1, "it is not text in UTF-8"),
    ];
    for (args, code, expected) in cases {
        with_smol(args).assert().code(code).stdout(is_empty()).stderr(contains(expected));
    }
}

#[test]
fn a_file_is_no_folder_for_results() {
    let (_folder, path) = temporary("notes.txt", "These are notes.");
    let path = path.to_str().expect("a path in UTF-8");
    for command in ["bench v.mp4", "eval jsonl --data q.jsonl", "report results"] {
        let args: Vec<&str> = command.split(' ').chain(["--out", path]).collect();
        let expected = contains("notes.txt").and(contains("is a file, not a folder")).and(contains("os error").not());
        sharpv(&args).assert().code(2).stdout(is_empty()).stderr(expected);
    }
}

#[test]
fn an_unknown_model_is_told_with_the_names_there_are() {
    sharpv(&["pull", "nonsense"]).assert().code(1).stderr(contains("error: nonsense").and(contains("smol")));
    sharpv(&["ask", &clip("order-1"), "q", "-m", "nonsense"]).assert().code(1).stderr(contains("error: nonsense"));
}

#[test]
fn a_model_that_was_not_pulled_is_told_with_the_command() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let mut command = sharpv(&["ask", &clip("order-1"), "q"]);
    command.env("SHARPV_HOME", home.path()).assert().code(1).stdout(is_empty()).stderr(contains("sharpv pull smol"));
}

#[test]
fn a_file_that_is_no_gguf_is_refused() {
    let (_folder, path) = temporary("model.gguf", "This is no model.");
    let model = path.to_str().expect("a path in UTF-8");
    sharpv(&["ask", &clip("order-1"), "q", "-m", model])
        .assert()
        .code(1)
        .stderr(contains("model.gguf: not a usable GGUF file").and(contains("panicked").not()));
}

#[test]
fn files_with_texts_must_exist() {
    for option in ["--grammar-file", "--chat-template-file"] {
        let mut command = sharpv(&["ask", "v.mp4", "q", option, "/nonsense/file"]);
        command.assert().code(1).stderr(contains("/nonsense/file: reading the"));
    }
}

#[test]
fn models_lists_what_there_is() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let list = |args: &[&str]| sharpv(args).env("SHARPV_HOME", home.path()).assert().success().stderr(is_empty());
    list(&["models"])
        .stdout(is_match("smol .* no .*\\(default\\)").expect("a pattern").and(contains("sharpv pull smol")));
    let json = list(&["models", "--json"]);
    let models: Value = serde_json::from_slice(&json.get_output().stdout).expect("JSON");
    assert_eq!(models[0]["name"], "smol");
    assert_eq!(models[0]["installed"], false);
    assert!(models[0]["bytes"].as_u64() > Some(100_000_000));
}

#[test]
fn doctor_names_the_build_and_what_is_missing() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let doctor = |args: &[&str]| sharpv(args).env("SHARPV_HOME", home.path()).assert().success().stderr(is_empty());
    let text = doctor(&["doctor"]);
    for part in ["llama.cpp", "amx-tile-config.patch", "libavcodec", "CPU", "sharpv pull smol"] {
        assert!(contains(part).eval(&String::from_utf8_lossy(&text.get_output().stdout)), "{part}");
    }
    let json = doctor(&["doctor", "--json"]);
    let report: Value = serde_json::from_slice(&json.get_output().stdout).expect("JSON");
    assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(report["cache_dir"], home.path().to_str().expect("a path in UTF-8"));
    assert_eq!(report["models"], serde_json::json!([]));
    assert!(report["problems"].as_array().is_some_and(|p| p.iter().any(|p| p["fix"] == "sharpv pull smol")));
}

#[test]
fn doctor_misses_pip() {
    let home = tempfile::tempdir().expect("a temporary folder");
    let mut command = sharpv(&["doctor", "--json"]);
    command.env("SHARPV_HOME", home.path()).env_remove("SHARPV_PIP").env("PATH", home.path());
    let report: Value = serde_json::from_slice(&command.assert().success().get_output().stdout).expect("JSON");
    assert_eq!(report["pip"], Value::Null);
    assert!(report["problems"].as_array().is_some_and(|p| p.iter().any(|p| p["what"].to_string().contains("pip"))));
}

#[test]
fn a_closed_stdout_is_no_failure() {
    let mut child = spawn(&["help", "ask"]);
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    let mut child = spawn(&["models"]);
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

// --- with smol --------------------------------------------------------------------------------------

#[test]
fn a_file_that_is_no_video_is_told_before_the_model_is_loaded() {
    let (_folder, path) = temporary("notes.mp4", "These are notes.\n");
    let args = ["ask", path.to_str().expect("a path in UTF-8"), "What is it?"];
    let expected = starts_with("error: ").and(contains("notes.mp4: not a video"));
    with_smol(&args).assert().code(1).stdout(is_empty()).stderr(expected);
    with_smol(&["ask", "/nonsense/v.mp4", "q"])
        .assert()
        .code(1)
        .stderr(contains("/nonsense/v.mp4: opening the video failed"));
}

#[test]
fn an_answer_goes_to_stdout_and_all_else_to_stderr() {
    let answer = ask("order-1", "What appears first?", "");
    let stderr = is_match("^Model: smol.*\n8 frames, [0-9]+ of 512 visual tokens kept .*KV [0-9]+ cells.*\n$")
        .expect("a pattern");
    answer.success().stdout("The tent appears first.\n").stderr(stderr);
}

#[test]
fn the_small_model_is_told_to_be_one() {
    for options in ["", "-m smol"] {
        let answer = ask("order-1", "What appears first?", options).success();
        let stderr = String::from_utf8_lossy(&answer.get_output().stderr).into_owned();
        assert_eq!(stderr.matches("answers something to anything").count(), 1, "{options}: {stderr}");
    }
    ask("order-1", "What?", "-q -n 2 -m smol").success().stderr(is_empty());
}

#[test]
fn quiet_says_nothing_but_the_answer() {
    ask("enter-2", "What is in the video?", "-q")
        .success()
        .stdout("There is a guitar and a donut.\n")
        .stderr(is_empty());
}

#[test]
fn json_is_as_documented_and_its_numbers_agree() {
    let result =
        ask("order-1", "What appears first?", "--json --threshold 1.2 --temp 0.5 --seed 7 -ctk q8_0 --weights exact");
    let output = result.success().stderr(is_empty());
    let json: Value = serde_json::from_slice(&output.get_output().stdout).expect("one JSON object");
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ask.schema.json");
    let schema: Value = serde_json::from_slice(&std::fs::read(schema).expect("the schema")).expect("JSON");
    assert_eq!(json_schema::errors(&schema, &json), Vec::<String>::new());

    let sum =
        |key: &str| json["slices"].as_array().expect("slices").iter().map(|s| s[key].as_u64().expect(key)).sum::<u64>();
    let (total, kept) = (sum("total"), sum("kept"));
    // llama.cpp takes a model of 30 layers for one of 256M parameters.
    assert_eq!(json["model"], "llama 135M Q4_1");
    assert_eq!(json["frames"], 8);
    assert_eq!(json["slices"].as_array().map(Vec::len), Some(8));
    assert_eq!(total, 8 * 64);
    assert!(0 < kept && kept < total, "{kept}");
    assert_eq!(json["visual_tokens"]["total"], total);
    assert_eq!(json["visual_tokens"]["kept"], kept);
    assert_eq!(json["visual_tokens"]["keep_ratio"], kept as f64 / total as f64);
    assert!(json["tokens"]["prompt"].as_u64() > Some(kept));
    assert_eq!(json["tokens"]["prompt"], json["tokens"]["prompt_computed"]);
    assert!(json["kv"]["cells"].as_u64() >= json["kv"]["cells_used"].as_u64());
    assert!(json["kv"]["bytes"].as_u64() < json["kv"]["bytes_dense"].as_u64());
    let ms = |key: &str| json["timings_ms"][key].as_f64().expect(key);
    assert!(ms("ttft") >= ms("decode_video") + ms("encode") + ms("prune") + ms("prefill"));

    let settings = &json["settings"];
    assert_eq!(settings["prune"]["budget"], serde_json::json!({ "threshold": 1.2 }));
    assert_eq!(settings["prune"]["seed"], 7);
    assert_eq!(settings["sampler"]["seed"], 7);
    assert_eq!(settings["sampler"]["temperature"], 0.5);
    assert_eq!(settings["cache_type"], serde_json::json!(["q8_0", "f16"]));
}

#[test]
fn frames_and_tokens_can_be_chosen() {
    let result = ask("order-1", "What?", "--json -n 2 --start 0:02 --end 6 --fps 0.5 --max-visual-tokens 20 -ub 16");
    let json: Value = serde_json::from_slice(&result.success().get_output().stdout).expect("one JSON object");
    let times: Vec<f64> =
        json["slices"].as_array().expect("slices").iter().filter_map(|s| s["time_s"].as_f64()).collect();
    assert_eq!(times, [2.0, 4.0]);
    assert_eq!(json["visual_tokens"]["kept"], 20);
    assert_eq!(json["stop"], "length");
    assert_eq!(json["tokens"]["generated"], 2);
    assert_eq!(json["settings"]["n_ubatch"], 16);
}

#[test]
fn a_grammar_restricts_the_answer() {
    let clip = clip("order-1");
    let grammar = r#"root ::= "Yes, indeed." | "Not at all.""#;
    let answer =
        with_smol(&["ask", &clip, "What is in the video?", "--max-frames", "1", "--grammar", grammar]).assert();
    answer.success().stdout(predicates::ord::eq("Yes, indeed.\n").or(predicates::ord::eq("Not at all.\n")));
    let wrong = with_smol(&["ask", &clip, "q", "--max-frames", "1", "--grammar", "root ::= (("]).assert();
    wrong.code(2).stdout(is_empty()).stderr(contains("GBNF"));
}

#[test]
fn a_seed_makes_a_random_answer_repeatable() {
    let answer = |seed: u32| {
        let options = format!("-q -n 12 --max-frames 1 --temp 3 --top-k 0 --top-p 1 --min-p 0 --seed {seed}");
        ask("order-1", "What is it?", &options).success().get_output().stdout.clone()
    };
    assert_eq!(answer(1), answer(1));
    assert_ne!(answer(1), answer(2));
}

#[test]
fn a_context_that_is_too_small_is_told_with_what_would_do() {
    let result = ask("order-1", "What?", "--max-frames 2 -c 100");
    result.code(1).stdout(is_empty()).stderr(contains("more than the 100 that the context has").and(contains(" -c ")));
}

#[test]
fn a_chat_reads_lines_and_encodes_a_video_once() {
    let input = "What appears first?\n\nWhat appears last?\n/stats\n/exit\nnot read\n";
    let chat = with_smol(&["chat", &clip("order-1")]).write_stdin(input).assert().success();
    let output = chat.get_output();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "The tent appears first.\nThe house appears last.\n");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let statistics: Vec<&str> = stderr.lines().filter(|line| line.contains("first token after")).collect();
    assert_eq!(statistics.len(), 2, "{stderr}");
    assert!(statistics[0].contains("encode") && !statistics[1].contains("encode"), "{stderr}");
    // The second turn computes only its question, not the video.
    let computed =
        stderr.lines().find_map(|line| line.strip_prefix("prompt")?.split(',').nth(1)?.split_whitespace().next());
    assert!(computed.and_then(|n| n.parse().ok()).is_some_and(|n: u32| n < 30), "{stderr}");
}

/// Later lines may depend on a line that failed: without its video, the answer to a question would be made up.
#[test]
fn a_script_ends_at_the_first_line_that_fails() {
    let not_a_session = format!("/load {}", file!());
    let cases = [
        ("/video /nonsense/v.mp4", "error: /nonsense/v.mp4: opening the video failed"),
        ("/vidoe v.mp4", "error: /vidoe is not a command; /help lists them"),
        ("/load /nonsense", "error: /nonsense: opening the saved session failed"),
        (&not_a_session, "cli.rs: it is not a saved session; use a file"),
        ("/load", "error: /load requires the name of a FILE"),
        ("/save", "error: /save requires the name of a FILE"),
        ("/save /nonsense/folder/file", "error: /nonsense/folder"),
    ];
    for (line, expected) in cases {
        let input = format!("/help\n{line}\nWhat color is the background?\n");
        let chat = with_smol(&["chat", "--max-frames", "1"]).write_stdin(input).assert();
        chat.code(1).stdout(is_empty()).stderr(contains("/stats").and(contains(expected)));
    }
    // A question that does not fit into the context is also a line that failed.
    let chat = with_smol(&["chat", "-c", "8"]).write_stdin("What is it?\n/help\n").assert();
    chat.code(1).stdout(is_empty()).stderr(contains("error: ").and(contains("/stats").not()));
}

#[test]
fn a_chat_takes_videos_a_system_message_and_a_new_start() {
    let input = format!(
        "/video \"{}\"\n/video\n/system Be brief.\nWhat is in the video?\n/clear\n/stats\n/video\n",
        clip("enter-2")
    );
    let chat = with_smol(&["chat", "-q", "--max-frames", "1"]).write_stdin(input.clone()).assert().success();
    chat.stdout(is_match("^.+\n$").expect("a pattern")).stderr(is_empty());
    let chat = with_smol(&["chat", "--max-frames", "1"]).write_stdin(input).assert().success();
    let stderr = String::from_utf8_lossy(&chat.get_output().stderr).into_owned();
    for part in ["; 1 frame, ", "forgotten", "There is no answer yet", "There is no video yet"] {
        assert!(stderr.contains(part), "{part} in {stderr}");
    }
}

#[test]
fn a_chat_is_saved_and_goes_on_in_another_process() {
    let (_folder, path) = temporary("a chat.session", "");
    let path = path.to_str().expect("a path in UTF-8");
    let input = format!("What appears first?\n/save {path}\n");
    let saved = with_smol(&["chat", &clip("order-1")]).write_stdin(input).assert().success();
    let stderr = String::from_utf8_lossy(&saved.get_output().stderr).into_owned();
    assert!(stderr.contains(&format!("Saved to {path}: 1 answer, 1 video, ")) && stderr.contains("MB"), "{stderr}");

    let input = format!("/load '{path}'\nWhat appears last?\n/stats\n");
    let loaded = with_smol(&["chat"]).write_stdin(input).assert().success();
    let output = loaded.get_output();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "The house appears last.\n");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains(&format!("Restored from {path}: 1 answer, 1 video, ")), "{stderr}");
    assert!(!stderr.contains("encode"), "{stderr}");
    let computed =
        stderr.lines().find_map(|line| line.strip_prefix("prompt")?.split(',').nth(1)?.split_whitespace().next());
    assert!(computed.and_then(|n| n.parse().ok()).is_some_and(|n: u32| n < 30), "{stderr}");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child = spawn(&["ask", &clip("order-1"), "What is it?", "--max-frames", "1"]);
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

// --- Ctrl-C -----------------------------------------------------------------------------------------

/// An answer that would take minutes, as the grammar never ends it.
#[cfg(unix)]
const ENDLESS: [&str; 6] = ["--max-frames", "1", "-n", "4000", "--grammar", "root ::= [a-z ] root"];

#[cfg(unix)]
#[test]
fn ctrl_c_stops_an_answer_and_keeps_what_there_is() {
    let clip = clip("order-1");
    let mut args = vec!["ask", &clip, "What is it?"];
    args.extend(ENDLESS);
    let mut child = spawn(&args);
    let mut stdout = child.stdout.take().expect("stdout");
    let mut first = [0];
    stdout.read_exact(&mut first).expect("the answer begins");
    interrupt(&child);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("the answer ends");
    assert!(rest.ends_with('\n'));
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
}

#[cfg(unix)]
#[test]
fn ctrl_c_stops_the_answer_of_a_chat_and_not_the_chat() {
    let clip = clip("order-1");
    let mut args = vec!["chat", &clip];
    args.extend(ENDLESS);
    let mut child = spawn(&args);
    let mut stdin = child.stdin.take().expect("stdin");
    let mut stdout = child.stdout.take().expect("stdout");
    let mut stderr = BufReader::new(child.stderr.take().expect("stderr")).lines();
    stdin.write_all(b"What is it?\n").expect("a question");
    stdout.read_exact(&mut [0]).expect("the answer begins");
    interrupt(&child);
    let stopped = stderr.by_ref().map(|line| line.expect("a line")).find(|line| line == "stopped");
    assert!(stopped.is_some());
    stdin.write_all(b"/help\n").expect("a command");
    drop(stdin);
    assert!(stderr.map(|line| line.expect("a line")).any(|line| line.contains("/exit")));
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

/// Starts the program with pipes for stdin, stdout and stderr.
fn spawn(args: &[&str]) -> Child {
    smol::files();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sharpv"));
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the program starts")
}

/// Sends SIGINT, as Ctrl-C does.
#[cfg(unix)]
fn interrupt(child: &Child) {
    let status = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(status.expect("kill runs").success());
}
