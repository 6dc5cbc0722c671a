//! The published packages: their files, their sizes, and the licenses of their dependencies.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn cargo(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).current_dir(root()).args(args).output().expect("cargo runs");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn listed(package: &str) -> BTreeSet<String> {
    let list = cargo(&["package", "--list", "--allow-dirty", "--locked", "--offline", "-p", package]);
    list.lines().map(|line| line.replace('\\', "/")).collect()
}

#[test]
fn the_package_has_what_a_build_needs_and_no_more() {
    let files = listed("sharpv");
    let needed = [
        "LICENSE",
        "README.md",
        "THIRD-PARTY.md",
        "build.rs",
        "build/source.rs",
        "patches/series",
        "src/ffi/shim.cpp",
        "src/ffi/wrapper.h",
        "src/lib.rs",
        "vendor/llama.cpp/pin.lock",
        "vendor/llama.cpp/pin.toml",
        "vendor/llama.cpp/tree.sha256",
    ];
    for file in needed {
        assert!(files.contains(file), "{file} is missing");
    }
    for folder in ["patches", "build", "src/ffi"] {
        for entry in root().join(folder).read_dir().expect("a folder") {
            let entry = entry.expect("an entry");
            let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
            assert!(files.contains(&path) || entry.path().is_dir(), "{path} is missing");
        }
    }
    let top: BTreeSet<&str> = files.iter().filter_map(|file| Some(file.split_once('/')?.0)).collect();
    assert_eq!(top, BTreeSet::from(["build", "patches", "src", "vendor"]));
}

#[test]
fn what_was_trained_is_in_crates_of_its_own() {
    let of_smol = |name: &str, data: &[&str]| {
        let files = listed(name);
        let own = |file: &&String| !file.starts_with("Cargo.") && !file.starts_with(".cargo");
        let expected: BTreeSet<&str> = data.iter().copied().chain(["README.md", "lib.rs"]).collect();
        assert_eq!(files.iter().filter(own).map(String::as_str).collect::<BTreeSet<_>>(), expected);
    };
    of_smol("sharpv-smol-lora", &["smol-lora-f16.gguf"]);
    of_smol("sharpv-smol-vision", &["own.bin", "recipe.txt"]);
    // crates.io accepts 10 MiB, compressed. Weights hardly compress.
    for file in ["models/smol/lora/smol-lora-f16.gguf", "models/smol/vision/own.bin"] {
        assert!(root().join(file).metadata().expect(file).len() < 10 << 20, "{file}");
    }
}

/// Metadata of the packages for this target, as others may not have been downloaded.
fn metadata() -> Value {
    let output = Command::new("rustc").arg("-vV").output().expect("rustc runs");
    let version = String::from_utf8(output.stdout).expect("UTF-8");
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("a host");
    let args = ["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", host];
    serde_json::from_str(&cargo(&args)).expect("JSON")
}

/// Checks what cargo-deny does, which may not be installed.
#[test]
fn licenses_and_sources_are_those_that_are_let_in() {
    let deny = std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml");
    let (_, allow) = deny.split_once("allow = [").expect("a list of licenses");
    let (allow, _) = allow.split_once(']').expect("its end");
    let allow: BTreeSet<&str> = allow.split('"').skip(1).step_by(2).collect();
    assert!(allow.contains("MIT") && allow.len() > 5, "{allow:?}");

    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("packages");
    assert!(packages.len() > 100);
    for package in packages {
        let name = package["name"].as_str().expect("a name");
        let license = package["license"].as_str().unwrap_or_else(|| panic!("{name} names no license"));
        assert!(is_allowed(license, &allow), "{name}: {license}");
        let source = package["source"].as_str();
        assert!(source.is_none_or(|source| source.starts_with("registry+")), "{name} comes from {source:?}");
    }
}

/// Whether the licenses in `allow` satisfy an SPDX expression.
fn is_allowed(expression: &str, allow: &BTreeSet<&str>) -> bool {
    // Before SPDX, a slash meant OR.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ").replace(" WITH ", "+WITH+");
    let words: Vec<String> = spaced.split_whitespace().map(|word| word.replace("+WITH+", " WITH ")).collect();
    let (allowed, rest) = any_of(&words, allow);
    assert!(rest.is_empty(), "{expression}");
    allowed
}

fn any_of<'a>(words: &'a [String], allow: &BTreeSet<&str>) -> (bool, &'a [String]) {
    let (first, rest) = all_of(words, allow);
    match rest {
        [or, rest @ ..] if or == "OR" => {
            let (others, rest) = any_of(rest, allow);
            (first || others, rest)
        }
        rest => (first, rest),
    }
}

fn all_of<'a>(words: &'a [String], allow: &BTreeSet<&str>) -> (bool, &'a [String]) {
    let (first, rest) = match words {
        [open, rest @ ..] if open == "(" => {
            let (inner, rest) = any_of(rest, allow);
            (inner, rest.strip_prefix(&[")".to_owned()]).expect("a closing parenthesis"))
        }
        [license, rest @ ..] => (allow.contains(license.as_str()), rest),
        [] => panic!("a license is missing"),
    };
    match rest {
        [and, rest @ ..] if and == "AND" => {
            let (others, rest) = all_of(rest, allow);
            (first && others, rest)
        }
        rest => (first, rest),
    }
}

#[test]
fn expressions_of_licenses_are_understood() {
    let allow = BTreeSet::from(["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"]);
    for yes in ["MIT", "GPL-3.0/MIT", "GPL-3.0 OR MIT", "(MIT OR GPL-3.0) AND ISC", "Apache-2.0 WITH LLVM-exception"] {
        assert!(is_allowed(yes, &allow), "{yes}");
    }
    for no in ["GPL-3.0", "MIT AND GPL-3.0", "(MIT OR GPL-3.0) AND Zlib", "Apache-2.0", "GPL-3.0 OR Zlib AND MIT"] {
        assert!(!is_allowed(no, &allow), "{no}");
    }
}

/// A constant of 10 MB could be in a program several times.
#[cfg(feature = "cli")]
#[test]
fn the_program_carries_what_was_trained_once() {
    let program = std::fs::read(env!("CARGO_BIN_EXE_sharpv")).expect("the program");
    for file in ["models/smol/lora/smol-lora-f16.gguf", "models/smol/vision/own.bin"] {
        let content = std::fs::read(root().join(file)).expect(file);
        // From the middle, as other data may have the same header.
        let sample = &content[1 << 20..][..64];
        assert_eq!(program.windows(64).filter(|window| *window == sample).count(), 1, "{file}");
    }
}

/// Users of the library get no data of the small model by default.
#[test]
fn only_the_program_has_the_small_model() {
    let of_features = |features: &[&str]| -> BTreeSet<String> {
        let mut args = vec!["tree", "--locked", "--offline", "-p", "sharpv", "-e", "normal", "--prefix", "none"];
        args.extend(features);
        cargo(&args).lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
    };
    let data = ["sharpv-smol-lora", "sharpv-smol-vision"];
    let has = |tree: &BTreeSet<String>| data.map(|name| tree.contains(name));
    assert_eq!(has(&of_features(&[])), [true; 2]);
    assert_eq!(has(&of_features(&["--no-default-features", "--features", "hub,lab"])), [false; 2]);
}
