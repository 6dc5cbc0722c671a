//! An open container and its video stream: properties, packets and clock.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use ff::codec::packet::side_data::Type as SideDataType;
use ff::format::context::{Input, StreamIo};
use ff::format::stream::Disposition;
use ff::{Packet, Rational, media};
use ffmpeg_next as ff;

use super::super::Stop;
use super::super::sampling::TIMESTAMP_TOLERANCE_S;
use super::convert::Orientation;
use crate::error::{Error, MediaProblem, Result};
use crate::ffi::ffmpeg::{can_go_back, metadata, n_shown_in_index, sample_aspect_ratio, size};

/// FFmpeg's time base outside of streams (`AV_TIME_BASE`): microseconds.
pub(super) const MICROSECONDS: f64 = 1e6;

/// The longest duration that FFmpeg can represent.
const MAX_DURATION_S: f64 = i64::MAX as f64 / MICROSECONDS;

/// `AV_NOPTS_VALUE`: no timestamp.
const NO_TIMESTAMP: i64 = i64::MIN;

/// A format with a lower score (of 100) is a guess, less certain than the file's extension (`AVPROBE_SCORE_EXTENSION`).
const CERTAIN_FORMAT: i32 = 50;

/// The demuxers that FFmpeg may use: the common ones for videos, animations and images, and those for audio, so that an
/// error can name it. FFmpeg has three hundred more: playlists, session descriptions, scripts, files of old games.
pub(super) const FORMATS: &str = "3gp,aac,ac3,aiff,apng,asf,asf_o,av1,avi,bmp_pipe,caf,dhav,dirac,dnxhd,dpx_pipe,dv,evc,exr_pipe,\
    flac,flv,gif,gxf,h261,h263,h264,hdr_pipe,hevc,ico,ivf,j2k_pipe,jpeg_pipe,jpegls_pipe,jpegxl_anim,jpegxl_pipe,\
    live_flv,m4v,matroska,mjpeg,mjpeg_2000,mov,mp3,mpeg,mpegts,mpegtsraw,mpegvideo,mpjpeg,mxf,nsv,nut,obu,ogg,pam_pipe,\
    pbm_pipe,pcx_pipe,pgm_pipe,pgmyuv_pipe,png_pipe,ppm_pipe,psd_pipe,qoi_pipe,rm,sgi_pipe,smjpeg,sunrast_pipe,swf,\
    tiff_pipe,ty,vc1,vc1test,vvc,w64,wav,webp_pipe,wtv,wv,xbm_pipe,xpm_pipe,xwd_pipe,yuv4mpegpipe";

const UNKNOWN_FORMAT: &str = "the format is not supported";

/// Reading ends after this many unreadable packets in a row.
const MAX_UNREADABLE: usize = 1000;

/// A frame rate above this is a guess from the container's time base.
const MAX_FPS: f64 = 1000.0;

/// Turns timestamps into seconds since the first frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// The time base: seconds per unit of a timestamp.
    unit_s: f64,
    /// The timestamp of the first frame.
    origin: i64,
    /// The mean duration of a frame.
    pub(super) frame_s: f64,
    /// The packets have no timestamps (raw streams): frame `i` starts at `i·frame_s`.
    pub(super) counts_frames: bool,
}

impl Clock {
    pub(super) fn seconds(&self, timestamp: i64) -> f64 {
        timestamp.saturating_sub(self.origin) as f64 * self.unit_s
    }

    /// How long an image with this `duration` is shown. Without a duration, the mean, but more than the tolerance, so
    /// that the last image is within the video even if the stated frame rate is that of the clock.
    pub(super) fn span(&self, duration: i64) -> f64 {
        if duration > 0 { duration as f64 * self.unit_s } else { self.frame_s.max(2.0 * TIMESTAMP_TOLERANCE_S) }
    }

    /// The same clock with another first timestamp.
    pub(super) fn starting_at(self, origin: i64) -> Self {
        Self { origin, ..self }
    }

    /// The same frame rate, but ignoring timestamps.
    pub(super) fn counting_frames(self) -> Self {
        Self { counts_frames: true, ..self }
    }
}

/// The best video stream of a file, read packet by packet.
pub(super) struct Track {
    input: Input,
    index: usize,
    pub(super) clock: Clock,
    has_start_time: bool,
    stop: Stop,
    n_unreadable: u64,
    /// Packets read so far, of all streams.
    n_read: u64,
}

impl Track {
    pub(super) fn open(path: &Path, stop: &Stop) -> Result<Self> {
        Self::of(open_container(path, stop)?, path, stop)
    }

    /// The video stream of an open container. `path` is its name in errors.
    pub(super) fn of(input: Input, path: &Path, stop: &Stop) -> Result<Self> {
        let stream = input.streams().best(media::Type::Video);
        // Cover art of an audio file is a video stream, too.
        let stream = stream.filter(|stream| !stream.disposition().contains(Disposition::ATTACHED_PIC));
        let Some(stream) = stream else {
            // FFmpeg mistakes some texts for audio.
            if input.probe_score() < CERTAIN_FORMAT {
                let reason = UNKNOWN_FORMAT.to_owned();
                return Err(Error::Media { problem: MediaProblem::NotAVideo, path: path.to_owned(), reason });
            }
            return Err(Error::NoVideoStream { path: path.to_owned(), found: streams_found(&input) });
        };
        let index = stream.index();
        let has_start_time = stream.start_time() != NO_TIMESTAMP;
        let clock = Clock {
            unit_s: positive(stream.time_base()).unwrap_or(1.0 / MICROSECONDS),
            origin: if has_start_time { stream.start_time() } else { 0 },
            frame_s: frame_rate(&stream).map_or(0.04, |fps| 1.0 / fps),
            counts_frames: false,
        };
        Ok(Self { input, index, clock, has_start_time, stop: stop.clone(), n_unreadable: 0, n_read: 0 })
    }

    /// What stops the reading of the file.
    pub(super) fn stop(&self) -> &Stop {
        &self.stop
    }

    fn stream(&self) -> Option<ff::Stream<'_>> {
        self.input.stream(self.index)
    }

    /// FFmpeg's name for the container.
    pub(super) fn container(&self) -> String {
        self.input.format().name().to_owned()
    }

    pub(super) fn parameters(&self) -> Option<ff::codec::Parameters> {
        self.stream().map(|stream| stream.parameters())
    }

    pub(super) fn codec_id(&self) -> ff::codec::Id {
        self.parameters().map_or(ff::codec::Id::None, |parameters| parameters.id())
    }

    /// The time base of the stream's timestamps.
    pub(super) fn time_base(&self) -> Rational {
        self.stream().map_or(Rational(1, 1_000_000), |stream| stream.time_base())
    }

    pub(super) fn fps(&self) -> Option<f64> {
        self.stream().and_then(|stream| frame_rate(&stream))
    }

    /// Whether the container states a start time. Without one, the packets may have no timestamps at all.
    pub(super) fn has_start_time(&self) -> bool {
        self.has_start_time
    }

    /// The width and height that the container states; 0 if it states none.
    pub(super) fn size(&self) -> (u32, u32) {
        self.stream().map_or((0, 0), |stream| size(&stream))
    }

    /// The number of frames that are shown, if the container states it.
    pub(super) fn n_frames(&self) -> Option<u64> {
        let stream = self.stream()?;
        let stored = u64::try_from(stream.frames()).ok().filter(|&n| n > 0)?;
        // An edit list may cut frames, or show some twice.
        let shown = if self.is_mp4() { n_shown_in_index(&stream) } else { 0 };
        Some(if shown > 0 { shown } else { stored })
    }

    /// Whether the container is of the MP4 family: MP4, QuickTime, 3GP, …
    fn is_mp4(&self) -> bool {
        self.container().starts_with("mov,mp4")
    }

    /// The stated duration of the video stream in seconds, or else that of the whole file.
    pub(super) fn duration_s(&self) -> Option<f64> {
        let stream = self.stream()?;
        let of_track = (stream.duration() > 0).then(|| stream.duration() as f64 * self.clock.unit_s);
        // Matroska keeps a stream's duration in a tag.
        let of_tag = metadata(&stream, c"DURATION").as_deref().and_then(parse_clock_time);
        let of_file = (self.input.duration() > 0).then(|| self.input.duration() as f64 / MICROSECONDS);
        [of_track, of_tag, of_file].into_iter().flatten().find(|&duration| duration < MAX_DURATION_S)
    }

    /// How to turn decoded images upright.
    pub(super) fn orientation(&self) -> Orientation {
        let Some(stream) = self.stream() else { return Orientation::UPRIGHT };
        let matrix = stream.side_data().find(|data| data.kind() == SideDataType::DisplayMatrix);
        matrix.map_or(Orientation::UPRIGHT, |matrix| Orientation::from_display_matrix(matrix.data()))
    }

    /// The container's sample aspect ratio, which overrides the codec's.
    pub(super) fn container_sar(&self) -> Option<f64> {
        self.stream().and_then(|stream| positive(sample_aspect_ratio(&stream)))
    }

    /// The next packet of the stream; `None` at the end. Skips and counts unreadable parts of the file.
    ///
    /// # Errors
    ///
    /// Only [`Error::Cancelled`].
    pub(super) fn next_packet(&mut self) -> Result<Option<Packet>> {
        let mut unreadable_in_a_row = 0;
        while unreadable_in_a_row < MAX_UNREADABLE {
            self.stop.check()?;
            let mut packet = Packet::empty();
            match packet.read(&mut self.input) {
                Ok(()) => {
                    self.n_read += 1;
                    unreadable_in_a_row = 0;
                    if packet.stream() == self.index && packet.size() > 0 {
                        return Ok(Some(packet));
                    }
                }
                Err(ff::Error::Exit) => return Err(Error::Cancelled),
                Err(ff::Error::Eof) => break,
                Err(_) => {
                    unreadable_in_a_row += 1;
                    self.n_unreadable += 1;
                    if self.is_past_packets() {
                        break;
                    }
                }
            }
        }
        // FFmpeg may report the end of the file when it was stopped.
        self.stop.check()?;
        Ok(None)
    }

    /// Whether the input is an MP4 with its index at its end, and cannot seek back from there to its packets.
    pub(super) fn is_past_packets(&self) -> bool {
        self.n_read == 0 && self.n_unreadable > 0 && self.is_mp4() && !can_go_back(&self.input)
    }

    /// Number of times that reading a packet failed.
    pub(super) fn n_unreadable(&self) -> u64 {
        self.n_unreadable
    }

    /// Seeks to the last place from which `time_s` can be decoded. Only the next packets show where that is.
    pub(super) fn seek(&mut self, time_s: f64) -> std::result::Result<(), ff::Error> {
        let target = (self.clock.origin as f64 * self.clock.unit_s + time_s) * MICROSECONDS;
        // Rounded up, so as not to miss a frame that starts at exactly `time_s`.
        let target = target.ceil() as i64;
        self.input.seek(target, ..target)
    }
}

/// The presentation timestamp of a packet, or the decoding timestamp in containers without it (AVI).
pub(super) fn timestamp(packet: &Packet) -> Option<i64> {
    packet.pts().or(packet.dts())
}

/// Opens a container. FFmpeg gets an open file and no protocol, so it cannot open the files and addresses that a format
/// names, nor those that match a pattern in the file's name.
fn open_container(path: &Path, stop: &Stop) -> Result<Input> {
    let file = File::open(path).map_err(Error::io("opening the video", path))?;
    let mut options = ff::Dictionary::new();
    options.set("protocol_whitelist", "none");
    options.set("format_whitelist", FORMATS);
    let asked = stop.clone();
    let interrupt = move || asked.is_requested();
    // Some formats are recognized only by the file's extension.
    let name = path.file_name().map(|name| name.to_string_lossy());
    let opened = StreamIo::from_read_seek(file)
        .and_then(|io| ff::format::input_from_stream_with_interrupt(io, name.as_deref(), Some(options), interrupt));
    stop.check()?;
    opened.map_err(|error| {
        let (problem, reason) = match error {
            _ if is_mp4(path) => (MediaProblem::CutOff, error.to_string()),
            // The format is not in the list.
            ff::Error::Other { errno: ff::error::EINVAL } => (MediaProblem::NotAVideo, UNKNOWN_FORMAT.to_owned()),
            _ => (MediaProblem::NotAVideo, format!("FFmpeg cannot read it ({error})")),
        };
        Error::Media { problem, path: path.to_owned(), reason }
    })
}

/// Whether the file begins like an MP4 or QuickTime file.
fn is_mp4(path: &Path) -> bool {
    let mut head = [0; 8];
    File::open(path).and_then(|mut file| file.read_exact(&mut head)).is_ok() && &head[4..] == b"ftyp"
}

/// The kinds of streams in the container, for an error.
fn streams_found(input: &Input) -> String {
    let mut kinds: Vec<&str> = Vec::new();
    for stream in input.streams() {
        let kind = match stream.parameters().medium() {
            media::Type::Audio => "audio",
            media::Type::Subtitle => "subtitles",
            media::Type::Video => "a cover image",
            _ => "data",
        };
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    if kinds.is_empty() { "nothing".to_owned() } else { kinds.join(", ") }
}

fn frame_rate(stream: &ff::Stream<'_>) -> Option<f64> {
    let usable = |rate| positive(rate).filter(|&fps| fps <= MAX_FPS);
    usable(stream.avg_frame_rate()).or_else(|| usable(stream.rate()))
}

fn positive(value: Rational) -> Option<f64> {
    let Rational(numerator, denominator) = value;
    (numerator > 0 && denominator > 0).then(|| f64::from(numerator) / f64::from(denominator))
}

/// Parses `00:01:02.500000000` into seconds.
fn parse_clock_time(text: &str) -> Option<f64> {
    let mut seconds = 0.0;
    for part in text.split(':') {
        seconds = seconds * 60.0 + part.parse::<f64>().ok()?;
    }
    (seconds > 0.0).then_some(seconds)
}
