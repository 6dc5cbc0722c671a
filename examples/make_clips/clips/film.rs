//! Encodes frames to an MP4 file with the program `ffmpeg`.

use super::SIDE;
use image::RgbImage;
use std::io::{Error, ErrorKind, Result, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

/// How a clip is encoded.
pub struct Film {
    /// Frames per second.
    pub fps: u32,
    /// Options for libx264.
    pub x264: &'static [&'static str],
}

/// Encodes `frames` of [`SIDE`] × [`SIDE`] pixels to `path`. Replaces the file.
///
/// # Errors
/// If `ffmpeg` cannot be run, or fails, after printing the reason.
pub fn write(path: &Path, film: &Film, mut frames: impl Iterator<Item = RgbImage>) -> Result<()> {
    let about = |error: Error| Error::new(error.kind(), format!("{}: {error}", path.display()));
    let size = format!("{SIDE}x{SIDE}");
    let rate = film.fps.to_string();
    let mut ffmpeg = Command::new("ffmpeg")
        .args([
            "-v", "error", "-nostdin", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", &size, "-r", &rate, "-i", "-",
        ])
        // With one thread and no version in the file, the same ffmpeg writes the same bytes.
        .args(["-c:v", "libx264", "-pix_fmt", "yuv420p", "-threads", "1"])
        .args(film.x264)
        .args(["-fflags", "+bitexact", "-flags:v", "+bitexact", "-movflags", "+faststart", "-f", "mp4"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::new(
                ErrorKind::NotFound,
                "the program ffmpeg was not found; install it (Debian, Ubuntu: apt-get install ffmpeg)",
            ),
            _ => Error::new(error.kind(), format!("ffmpeg: {error}")),
        })?;
    let mut input = ffmpeg.stdin.take().expect("stdin is piped");
    let written = frames.try_for_each(|frame| input.write_all(&frame));
    drop(input);
    let status = ffmpeg.wait().map_err(about)?;
    if !status.success() {
        return Err(about(Error::other(format!("ffmpeg failed ({status}); it needs libx264"))));
    }
    written.map_err(about)
}
