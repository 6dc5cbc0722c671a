//! `install.sh`, which installs a released program, with releases that lie in a folder.
#![cfg(unix)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// Releases, and a home to install to.
struct Releases {
    folder: TempDir,
}

impl Releases {
    /// One release: the latest, and the only one.
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

    /// Makes an archive as `.github/package.sh` does, with a program that tells its version, for each system.
    fn publish(&self, at: &str, version: &str) {
        let folder = self.path("releases").join(at);
        fs::create_dir_all(&folder).expect("a folder");
        for target in ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "aarch64-apple-darwin"] {
            let name = format!("sharpv-{version}-{target}");
            let program = self.path(&name).join("sharpv");
            fs::create_dir_all(self.path(&name)).expect("a folder");
            fs::write(&program, format!("#!/bin/sh\necho sharpv {version}\n")).expect("a program");
            let archive = folder.join(format!("sharpv-{target}.tar.gz"));
            let script = "chmod +x \"$1/sharpv\" && tar -czf \"$2\" \"$1\" && cd \"$(dirname \"$2\")\" && f=$(basename \"$2\") &&
                if command -v sha256sum >/dev/null; then sha256sum $f; else shasum -a 256 $f; fi > $f.sha256";
            let mut command = Command::new("sh");
            command.args(["-c", script, "sh", &name]).arg(&archive).current_dir(self.folder.path());
            assert!(command.status().expect("sh").success());
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

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
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
    for entry in fs::read_dir(&folder).expect("the release") {
        let path = entry.expect("a file").path();
        if path.extension().is_some_and(|extension| extension == "gz") {
            let bytes = fs::read(&path).expect("an archive");
            fs::write(&path, &bytes[..bytes.len() - 10]).expect("an archive");
        }
    }
    let output = releases.install(&[("SHARPV_VERSION", "2.0.0")]);
    assert!(!output.status.success() && said(&output).contains("arrived damaged"), "{}", said(&output));
    assert_eq!(version(&releases.installed()), "sharpv 1.0.0\n");

    let output = releases.install(&[("SHARPV_VERSION", "3.0.0")]);
    assert!(!output.status.success() && said(&output).contains("cannot be fetched"), "{}", said(&output));
    assert_eq!(version(&releases.installed()), "sharpv 1.0.0\n");

    releases.publish("download/v4.0.0", "4.0.0; exit 1");
    let output = releases.install(&[("SHARPV_VERSION", "4.0.0")]);
    assert!(!output.status.success() && said(&output).contains("does not run"), "{}", said(&output));
    assert_eq!(version(&releases.installed()), "sharpv 1.0.0\n");

    releases.publish("latest/download", "5.0.0");
    assert!(releases.install(&[]).status.success());
    assert_eq!(version(&releases.installed()), "sharpv 5.0.0\n");
}

/// The script in the repository knows no place; that of a release knows its own.
#[test]
fn the_place_of_the_releases_must_be_known() {
    let releases = Releases::new();
    let output = releases.install(&[("SHARPV_RELEASES", "")]);
    assert!(!output.status.success() && said(&output).contains("SHARPV_RELEASES"), "{}", said(&output));
    assert!(!releases.installed().exists());
}
