//! Makes a release as the workflow does (`.github/workflows/archives.yml`), with the program of this build: packages
//! it, publishes it to a folder, installs it from there, and tries what the README shows.
#![cfg(all(feature = "cli", unix))]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::smol;
use sharpv::models::Store;

/// The target that `install.sh` looks for on this machine.
pub const TARGET: &str = if cfg!(target_os = "macos") {
    "aarch64-apple-darwin"
} else if cfg!(target_arch = "aarch64") {
    "aarch64-unknown-linux-gnu"
} else {
    "x86_64-unknown-linux-gnu"
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// One of `.github/*.sh`.
fn script(name: &str) -> Command {
    let mut command = Command::new("bash");
    command.arg(root().join(".github").join(name));
    command
}

pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Runs `package.sh`, which puts the archive with `program` and its checksum into `work/dist`. The license texts of
/// cargo-about and `ffmpeg.sh` are replaced by a line each.
pub fn package(program: &Path, work: &Path) -> Output {
    let licenses = work.join("licenses");
    if !licenses.exists() {
        fs::create_dir(&licenses).expect("a folder");
        for part in ["crates", "FFmpeg", "dav1d"] {
            fs::write(licenses.join(part).with_extension("txt"), format!("The license of {part}.\n")).expect("a file");
        }
    }
    let mut command = script("package.sh");
    // Not the target folder of this build, where `./x` in other tests uses the same files.
    command.arg(program).arg(TARGET).arg(&licenses).arg(work.join("dist")).env("CARGO_TARGET_DIR", work.join("target"));
    command.output().expect("bash")
}

/// The archive that [`package`] made.
fn archive(work: &Path) -> PathBuf {
    work.join("dist").join(format!("sharpv-{TARGET}.tar.gz"))
}

/// Runs `smoke.sh` on that archive, with the installed model. Nothing is downloaded.
fn smoke(work: &Path, steps: &[&str]) -> Output {
    smol::files();
    let cache = Store::from_env().expect("a cache folder");
    let mut command = script("smoke.sh");
    command.arg(archive(work)).args(steps).env("SHARPV_HOME", cache.root()).env_remove("SHARPV_LOG");
    command.output().expect("bash")
}

#[test]
fn what_is_packaged_is_installed_and_does_what_the_readme_shows() {
    let work = tempfile::tempdir().expect("a folder");
    let program = Path::new(env!("CARGO_BIN_EXE_sharpv"));
    let packaged = package(program, work.path());
    assert!(packaged.status.success(), "{}", said(&packaged));

    let list = Command::new("tar").arg("-tzf").arg(archive(work.path())).output().expect("tar");
    let folder = format!("sharpv-{}-{TARGET}/", env!("CARGO_PKG_VERSION"));
    let list = said(&list);
    let files: BTreeSet<&str> = list
        .lines()
        .filter_map(|line| line.strip_prefix(&folder))
        .filter(|name| !name.is_empty() && !name.ends_with('/'))
        .collect();
    let texts = ["FFmpeg", "crates", "dav1d", "llama.cpp"].map(|part| format!("third-party-licenses/{part}.txt"));
    let others = ["CHANGELOG.md", "LICENSE", "README.md", "sharpv", "third-party-licenses/smol.md"];
    assert_eq!(files, texts.iter().map(String::as_str).chain(others).collect());
    let mut unpack = Command::new("tar");
    unpack.arg("-xzOf").arg(archive(work.path())).arg(format!("{folder}third-party-licenses/llama.cpp.txt"));
    let license = said(&unpack.output().expect("tar"));
    assert!(license.contains("MIT License") && license.contains("The ggml authors"), "{license}");

    // The paths of GitHub: `releases/latest/download/NAME`.
    let releases = work.path().join("releases");
    let latest = releases.join("latest/download");
    let address = format!("file://{}", releases.display());
    let dist = work.path().join("dist");
    let installer = script("installer.sh").arg(&address).arg(&dist).output().expect("bash");
    assert!(installer.status.success(), "{}", said(&installer));
    fs::create_dir_all(latest.parent().expect("a parent")).expect("a folder");
    fs::rename(&dist, &latest).expect("published");
    let mut install = Command::new("sh");
    install.arg(latest.join("install.sh")).env("HOME", work.path().join("home"));
    for name in ["SHARPV_RELEASES", "SHARPV_VERSION", "SHARPV_BIN"] {
        install.env_remove(name);
    }
    let installed = install.output().expect("sh");
    assert!(installed.status.success(), "{}", said(&installed));
    let copy = fs::read(work.path().join("home/.local/bin/sharpv")).expect("the installed program");
    assert!(copy == fs::read(program).expect("the program"), "another program was installed");

    fs::rename(&latest, &dist).expect("back");
    let smoked = smoke(work.path(), &[]);
    assert!(smoked.status.success(), "{}", said(&smoked));
}

/// The checks of a release find a program that lacks one thing.
#[test]
fn a_program_that_lacks_something_is_no_release() {
    // The errors of an FFmpeg without network, encoders or muxers, and of a processor without instructions.
    let lacks = [
        ("run", "doctor", "kill -ILL $$"),
        ("pull", "pull*", "exit 1"),
        ("ask", "ask*", "echo There is a bus."),
        ("inspect", "inspect*", "echo 'error: this FFmpeg has none of the encoders' >&2; exit 1"),
        ("inspect", "inspect*.mkv", "echo 'error: Muxer not found' >&2; exit 1"),
        ("inspect", "inspect*", "exit 0"),
        ("serve", "serve*", "exit 1"),
        ("http", "watch*http:*", "echo 'error: Protocol not found' >&2; exit 1"),
        ("rtsp", "watch*rtsp:*", "exit 0"),
        ("refused", "watch*rtsp:*", "echo 'error: Protocol not found' >&2; exit 1"),
    ];
    let real = env!("CARGO_BIN_EXE_sharpv");
    for (step, command, answer) in lacks {
        let work = tempfile::tempdir().expect("a folder");
        let text = format!("#!/bin/sh\ncase \"$*\" in {command}) {answer};; *) exec '{real}' \"$@\";; esac\n");
        let packaged = package(&write_program(work.path(), &text), work.path());
        assert!(packaged.status.success(), "{}", said(&packaged));
        let smoked = smoke(work.path(), &[step]);
        assert!(!smoked.status.success(), "{step} passes without {command}: {}", said(&smoked));
        assert!(said(&smoked).contains(&format!("== {step}")), "{}", said(&smoked));
    }
}

/// A script named `sharpv` in `folder`.
pub fn write_program(folder: &Path, text: &str) -> PathBuf {
    let program = folder.join("sharpv");
    fs::write(&program, text).expect("a program");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a program");
    program
}

#[test]
fn what_lacks_a_license_is_not_packaged() {
    for part in ["crates", "FFmpeg", "dav1d"] {
        let work = tempfile::tempdir().expect("a folder");
        let program = write_program(work.path(), "#!/bin/sh\n");
        assert!(package(&program, work.path()).status.success());
        fs::remove_file(work.path().join("licenses").join(part).with_extension("txt")).expect("a license");
        let output = package(&program, work.path());
        assert!(!output.status.success() && said(&output).contains(part), "{part}: {}", said(&output));
    }
}

#[test]
fn the_notes_are_what_the_changelog_says_of_the_tag() {
    let work = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| fs::write(work.path().join(name), text).expect("a file");
    fs::create_dir(work.path().join(".github")).expect("a folder");
    write(".github/notes.sh", &fs::read_to_string(root().join(".github/notes.sh")).expect("notes.sh"));
    write("Cargo.toml", "[package]\nname = \"sharpv\"\nversion = \"2.0.0\"\n");
    let notes = |tag: Option<&str>| {
        let mut command = Command::new("bash");
        command.arg(work.path().join(".github/notes.sh")).env_remove("GITHUB_REF_TYPE").env_remove("GITHUB_REF_NAME");
        if let Some(tag) = tag {
            command.env("GITHUB_REF_TYPE", "tag").env("GITHUB_REF_NAME", tag);
        }
        let output = command.output().expect("bash");
        (output.status.success(), said(&output))
    };
    write(
        "CHANGELOG.md",
        "# Changelog\n\n## Unreleased\n\nNew.\n\n## 2.0.0 (today)\n\nSecond.\n\n## 1.0.0\n\nFirst.\n",
    );
    let (done, text) = notes(Some("v2.0.0"));
    assert!(done && text.contains("Second.") && !text.contains("First.") && !text.contains("New."), "{text}");
    let (done, text) = notes(None);
    assert!(done && text.contains("New.") && !text.contains("Second."), "{text}");
    let (done, text) = notes(Some("v1.0.0"));
    assert!(!done && text.contains("Cargo.toml says 2.0.0"), "{text}");
    write("CHANGELOG.md", "# Changelog\n\n## 1.0.0\n\nFirst.\n");
    let (done, text) = notes(Some("v2.0.0"));
    assert!(!done && text.contains("no section"), "{text}");
}

/// Files that workflows and scripts name exist: a cache with the checksum of a missing file would never be renewed, and
/// a script that reads a missing file fails on the day of the release.
#[test]
fn what_workflows_and_scripts_name_is_there() {
    // Made by the commands that name them, or part of FFmpeg.
    let made = ["vendor/llama.cpp/bindings.rs", "fuzz/artifacts", "configure"];
    let folders = [".github", ".github/workflows", ".ci", ""];
    let mut files = Vec::new();
    for folder in folders {
        for entry in fs::read_dir(root().join(folder)).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_file()
                && (name.ends_with(".sh") || name.ends_with(".yml") || ["x", "run"].contains(&name.as_str()))
            {
                files.push(path);
            }
        }
    }
    assert!(files.len() > 8, "{files:?}");
    let mut wrong = Vec::new();
    let mut n_named = 0;
    for file in files {
        let text = fs::read_to_string(&file).expect("a script");
        for named in of_hash_files(&text).into_iter().chain(of_paths(&text)) {
            n_named += 1;
            if !made.iter().any(|made| named.starts_with(made)) && !matches_a_file(&named) {
                wrong.push(format!("{}: {named}", file.display()));
            }
        }
    }
    assert!(n_named > 30, "only {n_named} are named");
    assert!(wrong.is_empty(), "these are not there:\n{}", wrong.join("\n"));
}

/// The patterns in `hashFiles('…', '…')`.
fn of_hash_files(workflow: &str) -> Vec<String> {
    let calls = workflow.split("hashFiles(").skip(1).filter_map(|rest| rest.split_once(')'));
    calls.flat_map(|(patterns, _)| patterns.split('\'').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// Words that are paths in the repository: in one of its folders, or with the prefix `./` or `$root/`.
fn of_paths(script: &str) -> Vec<String> {
    let in_word = |c: char| c.is_ascii_alphanumeric() || "._/-*$@{}#:~+".contains(c);
    let words = script.split(|c| !in_word(c)).map(|word| word.trim_end_matches(['.', ':']));
    let path = |word: &str| {
        let named = ["./", "$root/"].iter().find_map(|start| word.strip_prefix(start));
        let path = named.unwrap_or(word).trim_end_matches('/');
        // Paths of the system, paths with variables, addresses, and actions (`actions/cache@v5`).
        if path.is_empty()
            || ["/", ".."].iter().any(|start| path.starts_with(start))
            || path.contains(['$', '{', '#', ':', '@', '~'])
        {
            return None;
        }
        let (first, _) = path.split_once('/').unwrap_or((path, ""));
        let in_folder = path != first && !["target", ".git", ".cache"].contains(&first) && root().join(first).is_dir();
        (named.is_some() || in_folder).then(|| path.to_owned())
    };
    words.filter_map(path).collect()
}

/// Whether a file or folder matches a pattern with `*` and `**`.
fn matches_a_file(pattern: &str) -> bool {
    let Some((before, _)) = pattern.split_once('*') else { return root().join(pattern).exists() };
    let folder = before.rsplit_once('/').map_or("", |(folder, _)| folder);
    let (start, end) = pattern.rsplit('/').next().and_then(|last| last.split_once('*')).unwrap_or(("", ""));
    let deep = pattern.contains("**");
    let mut todo = vec![root().join(folder)];
    while let Some(folder) = todo.pop() {
        for path in fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                todo.extend(deep.then_some(path));
            } else if name.starts_with(start) && name.ends_with(end.trim_start_matches('*')) {
                return true;
            }
        }
    }
    false
}

#[test]
fn names_in_scripts_are_found() {
    assert_eq!(of_hash_files("a: x-${{ hashFiles('a/b', 'c/**') }}"), ["a/b", "c/**"]);
    let script = "cp \"$root/LICENSE\" $out/src/x; ./x check; uses: actions/cache@v5; src/gone.rs (docs/serve.md).";
    assert_eq!(of_paths(script), ["LICENSE", "x", "src/gone.rs", "docs/serve.md"]);
    assert!(matches_a_file("patches/**") && matches_a_file("docs/*.md") && matches_a_file("src/ffi/**"));
    assert!(!matches_a_file("models/smol/*.gguf") && !matches_a_file("gone/**") && !matches_a_file("src/gone.rs"));
}

/// A processor of 2008 has none of AVX2, FMA, F16C and BMI2. Every command reports that, instead of crashing at an
/// unknown instruction, and the library does not load a model.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[test]
fn a_processor_that_is_too_old_is_told() {
    let old = |cpu: &str, args: &[&str]| {
        let mut command = Command::new("qemu-x86_64");
        command.args(["-cpu", cpu, env!("CARGO_BIN_EXE_sharpv")]).args(args).env_remove("SHARPV_LOG");
        command.output().expect("qemu-x86_64: run ./x test, or install qemu-user")
    };
    let clip = root().join("demo/clip.mp4").display().to_string();
    for args in [&["--version"][..], &["doctor"], &["plan", &clip], &["ask", &clip, "What?"]] {
        let output = old("Nehalem", args);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
        assert!(text.contains("no AVX, AVX2, FMA, F16C, BMI2") && text.contains("from source"), "{args:?}: {text}");
    }
    // The generation before Haswell has AVX.
    let text = said(&old("IvyBridge", &["--version"]));
    assert!(text.contains("no AVX2, FMA, BMI2"), "{text}");
}
