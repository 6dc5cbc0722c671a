//! `install.sh`, which installs a release, with releases in a folder. Their programs are scripts, some of which fail.
//! The module `release` installs the program of this build.
#![cfg(all(feature = "cli", unix))]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::release::{TARGET, package, said, write_program};
use tempfile::TempDir;

/// Releases, and a home folder to install to.
struct Releases {
    folder: TempDir,
}

impl Releases {
    /// One release, which is the latest.
    fn new() -> Self {
        let releases = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        releases.publish("latest/download", "1.0.0");
        releases
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn installed(&self) -> PathBuf {
        self.path("home/.local/bin/sharpv")
    }

    /// Publishes an archive with a program that prints this version.
    fn publish(&self, at: &str, version: &str) {
        self.publish_program(at, &format!("#!/bin/sh\necho sharpv {version}\n"));
    }

    fn publish_program(&self, at: &str, text: &str) {
        let packaged = package(&write_program(self.folder.path(), text), self.folder.path());
        assert!(packaged.status.success(), "{}", said(&packaged));
        let folder = self.path("releases").join(at);
        fs::create_dir_all(&folder).expect("a folder");
        for entry in fs::read_dir(self.path("dist")).expect("an archive and its sum") {
            let entry = entry.expect("a file");
            fs::rename(entry.path(), folder.join(entry.file_name())).expect("published");
        }
    }

    /// Runs the script.
    fn install(&self, variables: &[(&str, &str)]) -> Output {
        let releases = format!("file://{}", self.path("releases").display());
        let mut command = Command::new("sh");
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("install.sh"));
        command.env("HOME", self.path("home")).env("SHARPV_RELEASES", releases);
        for name in ["SHARPV_VERSION", "SHARPV_BIN"] {
            command.env_remove(name);
        }
        command.envs(variables.iter().copied()).output().expect("sh")
    }
}

fn version(program: &Path) -> String {
    let output = Command::new(program).arg("--version").output().expect("an installed program");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn the_latest_release_is_installed() {
    let releases = Releases::new();
    let output = releases.install(&[]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(version(&releases.installed()), "sharpv 1.0.0\n");
    let installed = format!("Installed sharpv 1.0.0 to {}", releases.installed().display());
    assert!(said(&output).contains(&installed) && said(&output).contains("not in PATH"), "{}", said(&output));
}

#[test]
fn a_version_and_a_folder_can_be_named() {
    let releases = Releases::new();
    releases.publish("download/v0.9.0", "0.9.0");
    let bin = releases.path("my programs");
    let bin_variable = bin.to_str().expect("a path in UTF-8");
    for version_variable in ["0.9.0", "v0.9.0"] {
        let output = releases.install(&[("SHARPV_VERSION", version_variable), ("SHARPV_BIN", bin_variable)]);
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(version(&bin.join("sharpv")), "sharpv 0.9.0\n");
    }
    assert!(!releases.installed().exists());
}

#[test]
fn an_installed_program_is_replaced_only_by_a_whole_one_that_runs() {
    let releases = Releases::new();
    assert!(releases.install(&[]).status.success());

    releases.publish("download/v2.0.0", "2.0.0");
    let folder = releases.path("releases/download/v2.0.0");
    let archive = folder.join(format!("sharpv-{TARGET}.tar.gz"));
    let bytes = fs::read(&archive).expect("an archive");
    fs::write(&archive, &bytes[..bytes.len() - 10]).expect("an archive");
    let output = releases.install(&[("SHARPV_VERSION", "2.0.0")]);
    assert!(!output.status.success() && said(&output).contains("is damaged"), "{}", said(&output));
    assert_eq!(version(&releases.installed()), "sharpv 1.0.0\n");

    let output = releases.install(&[("SHARPV_VERSION", "3.0.0")]);
    assert!(!output.status.success() && said(&output).contains("cannot be downloaded"), "{}", said(&output));
    assert_eq!(version(&releases.installed()), "sharpv 1.0.0\n");

    // A program that cannot be started, and one that crashes when it computes, at an unknown instruction.
    for program in
        ["echo it needs a newer system >&2; exit 1", "case $1 in --version) echo sharpv 4;; *) kill -ILL $$;; esac"]
    {
        releases.publish_program("download/v4.0.0", &format!("#!/bin/sh\n{program}\n"));
        let output = releases.install(&[("SHARPV_VERSION", "4.0.0")]);
        assert!(!output.status.success() && said(&output).contains("does not run"), "{}", said(&output));
        assert_eq!(version(&releases.installed()), "sharpv 1.0.0\n");
    }

    releases.publish("latest/download", "5.0.0");
    assert!(releases.install(&[]).status.success());
    assert_eq!(version(&releases.installed()), "sharpv 5.0.0\n");
}

/// The script in the repository has no address; the script of a release has its own.
#[test]
fn the_place_of_the_releases_must_be_known() {
    let releases = Releases::new();
    let output = releases.install(&[("SHARPV_RELEASES", "")]);
    assert!(!output.status.success() && said(&output).contains("SHARPV_RELEASES"), "{}", said(&output));
    assert!(!releases.installed().exists());
}
