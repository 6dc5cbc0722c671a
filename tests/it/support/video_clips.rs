//! Makes small clips with the program `ffmpeg`, for tests.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use sharpv::video::{Frame, FrameSource, Sampling};
use tempfile::TempDir;

/// A folder for the clips of one test.
pub struct Clips {
    folder: TempDir,
}

impl Clips {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file with these bytes.
    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).expect("writing a test file");
        path
    }

    /// Runs `ffmpeg <arguments> <name>`. Spaces separate the arguments, and `{}` is the folder of the clips.
    pub fn ffmpeg(&self, arguments: &str, name: &str) -> PathBuf {
        let path = self.path(name);
        let mut command = self.command(arguments);
        run(command.arg(&path));
        path
    }

    /// Makes a clip with the `lavfi` filters in `source`.
    pub fn draw(&self, source: &str, arguments: &str, name: &str) -> PathBuf {
        let path = self.path(name);
        let mut command = self.command("-f lavfi -i");
        run(command.arg(source).args(arguments.split_whitespace()).arg(&path));
        path
    }

    /// As [`ffmpeg`](Self::ffmpeg), but through a pipe, so that the muxer cannot go back to write the duration.
    pub fn ffmpeg_piped(&self, arguments: &str, name: &str) -> PathBuf {
        let path = self.path(name);
        let file = File::create(&path).expect("creating a test file");
        let mut command = self.command(arguments);
        run(command.arg("-").stdout(file));
        path
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new("ffmpeg");
        command.args(["-nostdin", "-y", "-loglevel", "error"]).stdin(Stdio::null());
        let folder = self.folder.path().to_str().expect("a path in UTF-8");
        command.args(arguments.split_whitespace().map(|argument| argument.replace("{}", folder)));
        command
    }
}

fn run(command: &mut Command) {
    let output = command.stderr(Stdio::piped()).spawn().and_then(|child| child.wait_with_output());
    let output = output.expect("these tests need the `ffmpeg` program: apt-get install ffmpeg, or brew install ffmpeg");
    assert!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
}

/// `lavfi` filters that show each of `colors` for `seconds`.
pub fn colors(colors: &[&str], seconds: f64, size: &str, fps: u32) -> String {
    let parts = colors.iter().enumerate();
    let parts: String = parts.map(|(i, color)| format!("color={color}:s={size}:r={fps}:d={seconds}[c{i}];")).collect();
    let inputs: String = (0..colors.len()).map(|i| format!("[c{i}]")).collect();
    format!("{parts}{inputs}concat=n={}", colors.len())
}

/// `lavfi` filters for `n` (at most 55) grey frames. [`index_of`] returns their number.
pub fn numbered(n: usize, fps: u32) -> String {
    assert!(n <= 55);
    format!("color=black:s=64x48:r={fps}:d={},format=yuv420p,geq=lum=16+4*N:cb=128:cr=128", n as f64 / f64::from(fps))
}

/// The number of a frame of a [`numbered`] clip.
pub fn index_of(frame: &Frame) -> usize {
    let [red, green, blue] = pixel(frame, 0.5, 0.5);
    assert!(red.abs_diff(green) < 4 && red.abs_diff(blue) < 4, "not grey: {red} {green} {blue}");
    // Limited range: 16 to 235 is black to white.
    (f64::from(red) * 219.0 / 255.0 / 4.0).round() as usize
}

/// The pixel at a fraction (0 to 1) of width and height.
pub fn pixel(frame: &Frame, x: f64, y: f64) -> [u8; 3] {
    let column = (x * f64::from(frame.width)) as usize;
    let row = (y * f64::from(frame.height)) as usize;
    let start = (row * frame.width as usize + column) * 3;
    frame.rgb[start..start + 3].try_into().expect("three bytes")
}

/// The nearest pure color, for images from a lossy codec.
pub fn color_name(pixel: [u8; 3]) -> &'static str {
    const COLORS: [(&str, [u8; 3]); 8] = [
        ("black", [0, 0, 0]),
        ("white", [255, 255, 255]),
        ("red", [255, 0, 0]),
        ("lime", [0, 255, 0]),
        ("blue", [0, 0, 255]),
        ("yellow", [255, 255, 0]),
        ("cyan", [0, 255, 255]),
        ("magenta", [255, 0, 255]),
    ];
    let distance = |color: [u8; 3]| (0..3).map(|i| u32::from(color[i].abs_diff(pixel[i])).pow(2)).sum::<u32>();
    COLORS.iter().min_by_key(|(_, color)| distance(*color)).expect("some colours").0
}

/// The names of the colors of the four quarters: top left, top right, bottom left, bottom right.
pub fn quarters(frame: &Frame) -> [&'static str; 4] {
    [(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)].map(|(x, y)| color_name(pixel(frame, x, y)))
}

/// All frames. Fails the test if one cannot be decoded, or has another size than announced.
pub fn frames(path: &Path, sampling: &Sampling) -> Vec<Frame> {
    let mut source = FrameSource::open(path, sampling).unwrap_or_else(|error| panic!("{error}"));
    take_all(&mut source)
}

/// The remaining frames of `source`.
pub fn take_all(source: &mut FrameSource) -> Vec<Frame> {
    let frames: Vec<Frame> = source.map(|frame| frame.unwrap_or_else(|error| panic!("{error}"))).collect();
    for frame in &frames {
        assert_eq!((frame.width, frame.height), (source.info().width, source.info().height));
        assert_eq!(frame.rgb.len(), frame.width as usize * frame.height as usize * 3);
    }
    frames
}

/// Returns the result of `work`. Fails the test if it takes longer than `seconds`.
pub fn within<T: Send + 'static>(seconds: u64, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(Duration::from_secs(seconds)).expect("the work fails, or takes too long")
}
