//! Command lines that nobody means: `plan` answers, or says what is wrong with them.
#![cfg(feature = "cli")]

use crate::support::families;
use crate::support::lcg::Lcg;
use crate::support::program::sharpv;

use std::time::{Duration, Instant};

const OPTIONS: [&str; 30] = [
    "--fps",
    "--max-frames",
    "--folder-fps",
    "--start",
    "--end",
    "--fit",
    "--no-fit",
    "--json",
    "--prune",
    "--keep",
    "--max-visual-tokens",
    "--min-keep",
    "--spatial-weight",
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
    "--no-warmup",
    "--",
];

const VALUES: [&str; 32] = [
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
];

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
        // What is wrong is said.
        let told = code == Some(0) || !stderr.trim().is_empty();
        if !matches!(code, Some(0..=2)) || !told || stderr.contains("panicked") {
            wrong.push(format!("{:?} after {:?}: {}: {stderr}", &args[6..], begin.elapsed(), output.status));
        }
    }
    assert!(answered > count / 20, "only {answered} of {count} were answered");
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}
