//! Writes video files.

use std::path::{Path, PathBuf};

use ff::codec::{self, Flags, encoder};
use ff::format::{self, Pixel};
use ff::frame::Video as Image;
use ff::software::scaling;
use ff::{Dictionary, Packet, Rational};
use ffmpeg_next as ff;

use super::super::Frame;
use crate::error::{Error, MediaProblem, Result};

/// The encoders, the best first. Every FFmpeg has one of them, unless it was built without encoders.
const ENCODERS: [&str; 3] = ["libx264", "libopenh264", "mpeg4"];

/// The extensions of the containers that can hold these encoders' output.
const ENDINGS: [&str; 4] = ["mp4", "m4v", "mov", "mkv"];

/// The time base is milliseconds.
const TICKS_PER_S: i32 = 1000;

/// The most images from one keyframe to the next.
const GROUP: u32 = 12;

/// Writes a video. Each frame is shown until the next one.
///
/// The file is playable only after [`finish`](Self::finish).
pub struct VideoWriter {
    path: PathBuf,
    output: format::context::Output,
    encoder: encoder::Video,
    scaler: scaling::Context,
    /// The size of the frames.
    size: (u32, u32),
    /// The time of the last frame, and how long the frame before it was shown.
    last: i64,
    gap: i64,
}

impl VideoWriter {
    /// Creates a video of `width × height` pixels at `path`, whose extension chooses the container. Overwrites an
    /// existing file.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if the extension is not `.mp4`, `.m4v`, `.mov` or `.mkv`; [`Error::Media`] if the
    /// file cannot be created, or FFmpeg has no encoder.
    pub fn create(path: &Path, width: u32, height: u32) -> Result<Self> {
        Self::check_name(path)?;
        super::initialize();
        let failed = |error: ff::Error| failed(path, &error.to_string());
        let mut output = format::output(path).map_err(failed)?;
        let codec = ENCODERS.iter().find_map(|name| encoder::find_by_name(name)).ok_or_else(|| {
            let names = ENCODERS.join(", ");
            self::failed(path, &format!("this FFmpeg has none of the encoders {names}; use an FFmpeg that has one"))
        })?;
        // Colors are stored for two by two pixels.
        let (even_width, even_height) = (width.next_multiple_of(2), height.next_multiple_of(2));
        let mut settings = codec::context::Context::new_with_codec(codec).encoder().video().map_err(failed)?;
        settings.set_width(even_width);
        settings.set_height(even_height);
        settings.set_format(Pixel::YUV420P);
        settings.set_time_base(Rational(1, TICKS_PER_S));
        settings.set_gop(GROUP);
        settings.set_max_b_frames(0);
        settings.set_aspect_ratio(Rational(1, 1));
        // For `mpeg4`, whose only setting of quality is the bit rate.
        settings.set_bit_rate(even_width as usize * even_height as usize * 4);
        if output.format().flags().contains(format::Flags::GLOBAL_HEADER) {
            settings.set_flags(Flags::GLOBAL_HEADER);
        }
        let mut options = Dictionary::new();
        if codec.name() == "libx264" {
            options.set("crf", "18");
        }
        let encoder = settings.open_as_with(codec, options).map_err(failed)?;
        let mut stream = output.add_stream(codec).map_err(failed)?;
        stream.set_time_base(Rational(1, TICKS_PER_S));
        stream.set_parameters(&encoder);
        output.write_header().map_err(failed)?;
        let flags = scaling::Flags::BICUBIC | scaling::Flags::ACCURATE_RND | scaling::Flags::FULL_CHR_H_INP;
        let scaler = scaling::Context::get(
            Pixel::RGB24,
            even_width,
            even_height,
            Pixel::YUV420P,
            even_width,
            even_height,
            flags,
        );
        let scaler = scaler.map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            output,
            encoder,
            scaler,
            size: (width, height),
            last: -1,
            gap: i64::from(TICKS_PER_S),
        })
    }

    /// Checks that the extension of `path` is one that can be written.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if it is not `.mp4`, `.m4v`, `.mov` or `.mkv`.
    pub fn check_name(path: &Path) -> Result<()> {
        let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        if ENDINGS.contains(&ending.as_str()) {
            return Ok(());
        }
        Err(Error::InvalidParameter {
            name: "the file of the video",
            value: path.display().to_string(),
            expected: format!("a name that ends in .{}", ENDINGS.join(", .")),
        })
    }

    /// Adds a frame, which is shown from its time on. Times must ascend.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if the frame has another size; [`Error::Media`] if it cannot be encoded or written.
    pub fn push(&mut self, frame: &Frame) -> Result<()> {
        let (width, height) = self.size;
        if (frame.width, frame.height) != self.size || frame.rgb.len() != (width * height * 3) as usize {
            return Err(Error::InvalidParameter {
                name: "the size of a frame",
                value: format!("{}×{}", frame.width, frame.height),
                expected: format!("{width}×{height}, the size of the video"),
            });
        }
        let mut rgb = Image::new(Pixel::RGB24, width.next_multiple_of(2), height.next_multiple_of(2));
        let stride = rgb.stride(0);
        let row_bytes = width as usize * 3;
        let rows = rgb.data_mut(0).chunks_exact_mut(stride).zip((0..height).chain([height - 1]));
        for (to, y) in rows {
            let from = &frame.rgb[y as usize * row_bytes..][..row_bytes];
            to[..row_bytes].copy_from_slice(from);
            // Repeats the last column if the width is odd.
            if let (Some(to), Some(last)) = (to.get_mut(row_bytes..row_bytes + 3), from.last_chunk::<3>()) {
                to.copy_from_slice(last);
            }
        }
        let mut image = Image::empty();
        self.scaler.run(&rgb, &mut image).map_err(|error| failed(&self.path, &error.to_string()))?;
        let ticks = (frame.time_s * f64::from(TICKS_PER_S)).round() as i64;
        let ticks = ticks.max(self.last + 1);
        if self.last >= 0 {
            self.gap = ticks - self.last;
        }
        self.last = ticks;
        image.set_pts(Some(self.last));
        self.encoder.send_frame(&image).map_err(|error| failed(&self.path, &error.to_string()))?;
        self.write_packets()
    }

    /// Writes the remaining packets and closes the file.
    ///
    /// # Errors
    /// [`Error::Media`] if it cannot be written.
    pub fn finish(mut self) -> Result<()> {
        self.encoder.send_eof().map_err(|error| failed(&self.path, &error.to_string()))?;
        self.write_packets()?;
        self.output.write_trailer().map_err(|error| failed(&self.path, &error.to_string()))
    }

    fn write_packets(&mut self) -> Result<()> {
        let failed = |error: ff::Error| failed(&self.path, &error.to_string());
        let time_base = self.output.stream(0).map_or(Rational(1, TICKS_PER_S), |stream| stream.time_base());
        let mut packet = Packet::empty();
        // An error means that the encoder needs more frames.
        while self.encoder.receive_packet(&mut packet).is_ok() {
            packet.set_stream(0);
            // Matters for the last frame only, because each other frame is shown until the next.
            packet.set_duration(self.gap);
            packet.rescale_ts(Rational(1, TICKS_PER_S), time_base);
            packet.write_interleaved(&mut self.output).map_err(failed)?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for VideoWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VideoWriter").field("path", &self.path).field("size", &self.size).finish_non_exhaustive()
    }
}

fn failed(path: &Path, reason: &str) -> Error {
    Error::Media { problem: MediaProblem::Encode, path: path.to_owned(), reason: reason.to_owned() }
}
