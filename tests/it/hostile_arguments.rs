//! Nonsensical command lines: the program works, or says what is wrong.
#![cfg(feature = "cli")]

use crate::support::families;
use crate::support::lcg::Lcg;
use crate::support::program::sharpv;

use std::time::{Duration, Instant};

const OPTIONS: [&str; 29] = [
    "--fps",
    "--max-frames",
    "--folder-fps",
    "--start",
    "--end",
    "--no-fit",
    "--json",
    "--prune",
    "--keep",
    "--max-visual-tokens",
    "--evict",
    "--threshold",
    "--ctx-size",
    "-c",
    "--threads",
    "--max-memory",
    "--ubatch-size",
    "--flash-attn",
    "--cache-type-k",
    "--cache-type-v",
    "--layout",
    "--seed",
    "--temp",
    "--system",
    "--encode",
    "--think",
    "--chat-template-kwargs",
    "--no-warmup",
    "--",
];

const VALUES: [&str; 36] = [
    "",
    "0",
    "-1",
    "1",
    "2",
    "4.5",
    "1e308",
    "1e-308",
    "-0",
    "NaN",
    "inf",
    "18446744073709551615",
    "4294967295",
    "2147483647",
    "99999999999999999999999",
    "0.3",
    "1:30",
    "99:99:99.9",
    "1G",
    "16384P",
    "-1K",
    "off",
    "auto",
    "layers",
    "sharpv",
    "f16",
    "q4_0",
    "qwen2-vl",
    "\u{1b}[2J",
    "a,b,,c",
    "日本",
    "%n%s",
    "on",
    "{",
    "[{}]",
    r#"{"enable_thinking": [], "messages": 7, "": null}"#,
];

/// A model and frames to ask about.
struct Asked {
    frames: tempfile::TempDir,
    files: sharpv::models::ModelFiles,
}

impl Asked {
    fn new() -> Self {
        let frames = tempfile::tempdir().expect("a folder");
        families::write_frames(frames.path(), (64, 48), 2);
        Self { frames, files: families::files("smolvlm") }
    }

    /// Asks a question with `options`. Returns the exit code, `None` for a signal, and stderr.
    fn ask(&self, options: &[&str]) -> (Option<i32>, String) {
        let text = |path: &std::path::Path| path.to_str().expect("a path in UTF-8").to_owned();
        let mmproj = self.files.mmproj.as_deref().expect("an mmproj");
        let files = [self.frames.path(), &self.files.model, mmproj].map(text);
        let mut args = vec!["ask", &files[0], "What is it?", "-m", &files[1], "--mmproj", &files[2], "-q"];
        args.extend(options);
        let has = |name: &str| options.contains(&name);
        if !has("-n") {
            args.extend(["-n", "4"]);
        }
        if !has("-t") {
            args.extend(["-t", "1"]);
        }
        let output = sharpv(&args).timeout(Duration::from_secs(120)).output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Numbers that would take gigabytes or make logits invalid are rejected with their range.
#[test]
fn a_number_out_of_range_is_refused_with_its_range() {
    let asked = Asked::new();
    for options in [
        // These took 8.6 GB, or ended the program on machines with less.
        &["--repeat-last-n", "4000000000", "--repeat-penalty", "1.1"][..],
        &["--repeat-last-n", "4294967295", "--presence-penalty", "1"],
        &["--repeat-last-n", "100000000"],
        &["--repeat-penalty", "1e-30"],
        &["--repeat-penalty", "1e30"],
        &["--temp", "1e-30"],
        &["--temp", "1e30"],
        &["--frequency-penalty", "101"],
        &["--presence-penalty", "-101"],
        // For llama.cpp, this is no seed.
        &["--seed", "4294967295"],
        // More than ggml's limit. With so many threads waiting for each other, it does not finish.
        &["-t", "513"],
        &["-t", "4096"],
        &["-ub", "65537"],
        &["-ub", "0"],
        &["-c", "4294967295"],
        &["-n", "0"],
        &["-n", "4294967295"],
        &["--think", "-1"],
        &["--think", "4"],
        &["--think", "99999999999999999999999"],
    ] {
        let (code, said) = asked.ask(options);
        assert_eq!(code, Some(2), "{options:?}: {said}");
        let (name, value) = (options[0].trim_start_matches('-'), options[1]);
        assert!(said.contains(value) || said.contains(name), "{options:?}: {said}");
        assert!(!said.contains("panicked") && said.contains("error: "), "{options:?}: {said}");
    }
    // Ranges include their ends.
    for options in [
        &["--repeat-last-n", "1000000", "--repeat-penalty", "1.1"][..],
        &["--repeat-last-n", "0", "--repeat-penalty", "1.1"],
        &["--repeat-penalty", "100", "--temp", "100", "--top-k", "4294967295", "--seed", "4294967294"],
        &["--temp", "0.001", "--top-p", "0", "--min-p", "1", "--frequency-penalty", "-100"],
        &["-ub", "65536"],
        &["-ngl", "4294967295"],
    ] {
        let (code, said) = asked.ask(options);
        assert_eq!(code, Some(0), "{options:?}: {said}");
    }
}

/// llama.cpp parses nested rules recursively.
#[test]
fn a_grammar_cannot_end_the_program() {
    let asked = Asked::new();
    let deep = format!("root ::= {}\"a\"{}", "(".repeat(20_000), ")".repeat(20_000));
    let many = (0..4000).map(|i| format!("r{i} ::= r{}\n", i + 1)).collect::<String>();
    let chain = format!("root ::= r0\n{many}r4000 ::= \"a\"");
    let long = format!("root ::= {}", "\"a\" ".repeat(30_000));
    for (grammar, reason) in [(&deep, "parentheses"), (&long, "bytes"), (&"root ::= (".to_owned(), "grammar")] {
        let (code, said) = asked.ask(&["--grammar", grammar]);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("--grammar is ") && said.contains(reason) && said.len() < 2000, "{said}");
    }
    for good in [&chain, &format!("root ::= {}\"a\"{}", "(".repeat(200), ")".repeat(200))] {
        let (code, said) = asked.ask(&["--grammar", good]);
        assert_eq!(code, Some(0), "{said}");
    }
}

/// With any number for any option, the program answers or says what is wrong.
#[test]
fn no_number_of_an_option_ends_the_program() {
    const NUMBERS: [&str; 12] = [
        "0",
        "1",
        "-1",
        "3.5",
        "1e-40",
        "1e38",
        "65535",
        "2147483647",
        "4294967295",
        "9223372036854775807",
        "18446744073709551615",
        "NaN",
    ];
    const OPTIONS: [&str; 28] = [
        "-c",
        "-ub",
        "-t",
        "-n",
        "--think",
        "-ngl",
        "--gpu-margin",
        "--max-memory",
        "--checkpoint-memory",
        "--temp",
        "--top-k",
        "--top-p",
        "--min-p",
        "--repeat-penalty",
        "--repeat-last-n",
        "--presence-penalty",
        "--frequency-penalty",
        "--seed",
        "--fps",
        "--max-frames",
        "--folder-fps",
        "--start",
        "--end",
        "--keep",
        "--max-visual-tokens",
        "--threshold",
        "--evict-threshold",
        "--encode-change",
    ];
    let asked = Asked::new();
    let every = std::env::var("SHARPV_TEST_MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(6_usize);
    let mut random = Lcg(std::env::var("SHARPV_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(11));
    let (mut wrong, mut answered) = (Vec::new(), 0);
    for option in OPTIONS {
        for number in NUMBERS {
            if random.below(every) > 0 {
                continue;
            }
            // Some numbers have an effect only with a penalty.
            let (code, said) = asked
                .ask(&[option, number, "--repeat-penalty", "1.1"][..if option == "--repeat-penalty" { 2 } else { 4 }]);
            answered += usize::from(code == Some(0));
            if !matches!(code, Some(0..=2)) || said.contains("panicked") || (code != Some(0) && said.trim().is_empty())
            {
                wrong.push(format!("{option} {number}: {code:?} {said}"));
            }
        }
    }
    assert!(answered > 5, "only {answered} were answered");
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn no_command_line_ends_the_program() {
    let count = std::env::var("SHARPV_TEST_MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(60_usize);
    let mut random = Lcg(std::env::var("SHARPV_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7));
    let clip = tempfile::tempdir().expect("a folder");
    families::write_frames(clip.path(), (160, 120), 4);
    let files = families::files("smolvlm");
    let text = |path: &std::path::Path| path.to_str().expect("a path in UTF-8").to_owned();
    let (model, mmproj) = (text(&files.model), text(files.mmproj.as_ref().expect("an mmproj")));
    let (mut wrong, mut answered) = (Vec::new(), 0);
    for _ in 0..count {
        let mut args: Vec<String> = ["plan", "-m", &model, "--mmproj", &mmproj].map(str::to_owned).into();
        args.push(text(clip.path()));
        for _ in 0..random.below(4) {
            args.push(OPTIONS[random.below(OPTIONS.len())].to_owned());
            if random.below(5) > 0 {
                args.push(VALUES[random.below(VALUES.len())].to_owned());
            }
        }
        let begin = Instant::now();
        let mut command = sharpv(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let output = command.timeout(Duration::from_secs(60)).output().expect("it runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        let code = output.status.code();
        answered += usize::from(code == Some(0));
        // An error has a message.
        let told = code == Some(0) || !stderr.trim().is_empty();
        if !matches!(code, Some(0..=2)) || !told || stderr.contains("panicked") {
            wrong.push(format!("{:?} after {:?}: {}: {stderr}", &args[6..], begin.elapsed(), output.status));
        }
    }
    assert!(answered > count / 20, "only {answered} of {count} were answered");
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}
