//! Reads videos with FFmpeg: plans which frames to take, and decodes them.

mod address;
mod convert;
mod decode;
mod keyframes;
mod live;
mod scan;
mod track;
mod write;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Once;

use ffmpeg_next as ff;

use super::sampling::Plan;
use super::sniff::Nature;
use super::spread::Known;
use super::{Frame, Images, Kind, Opened, Sampling, Stop, VideoInfo};
use crate::error::{Error, MediaProblem, Result};
use crate::ffi::ffmpeg::limit_allocations;
use convert::{Converter, Orientation};
use decode::Decoder;
pub(super) use keyframes::Keyframes;
pub(super) use live::LiveDecoder;
use scan::Scan;
use track::Track;
pub use write::VideoWriter;

/// A video stream that ends this long before the file's stated end causes a warning. Audio often exceeds it by less.
const SUSPICIOUS_GAP_S: f64 = 1.0;

/// The largest allocation of FFmpeg in bytes: the largest image in RGBA, with its padding.
const MAX_ALLOCATION: usize = 5 << 26;

/// The size of an MPEG-TS packet, which has at most one frame.
const TS_PACKET_BYTES: f64 = 188.0;

/// If a transport stream's duration implies more than this many frames per packet, its timestamps are wrong.
const MAX_SPARSENESS: f64 = 100.0;

/// Opens a file with FFmpeg and plans which frames to take.
pub(super) fn open(path: &Path, nature: Nature, stop: &Stop) -> Result<Opened> {
    initialize();
    let mut track = Track::open(path, stop)?;
    let codec = decode::open_codec(path, &track)?;
    let mut warnings = Vec::new();
    let timeline = match nature {
        Nature::Image(_) => Timeline::of_image(),
        Nature::Open | Nature::Animation => Timeline::of(path, &mut track, &mut warnings)?,
    };

    let container = track.container();
    let kind = match (nature, timeline.n_frames, container.as_str()) {
        (Nature::Image(_), ..) => Kind::Image,
        (Nature::Animation, Some(1), _) | (_, Some(1), "gif" | "apng" | "image2" | "ico") => Kind::Image,
        (_, Some(1), name) if name.ends_with("_pipe") => Kind::Image,
        (Nature::Animation, ..) | (_, _, "gif" | "apng") => Kind::Animation,
        _ => Kind::Video,
    };
    let moving = kind != Kind::Image;
    let info = VideoInfo {
        path: path.to_owned(),
        kind,
        width: 0,
        height: 0,
        duration_s: moving.then_some(timeline.duration_s),
        fps: track.fps().filter(|_| moving),
        n_frames: timeline.n_frames,
        container,
        codec: track.codec_id().name().to_owned(),
    };
    let orientation = match nature {
        // FFmpeg 7 reports this, too; older versions do not.
        Nature::Image(turn) => Orientation::from_turn(turn),
        Nature::Open | Nature::Animation => track.orientation(),
    };
    let converter = Converter::new(orientation, track.container_sar());
    // GIF and PNG frames depend on the previous ones, whatever their flags say.
    let can_seek = kind == Kind::Video && !track.clock.counts_frames;
    let decoder = Decoder::new(path, track, codec, can_seek);
    let images = FfmpegImages { path: path.to_owned(), decoder, converter };
    let (path, stop) = (path.to_owned(), stop.clone());
    let planner = Box::new(move |sampling: &Sampling| match moving {
        true => timeline.plan(&path, sampling, &stop),
        false => Ok(Plan::image()),
    });
    Ok(Opened { info, planner, images: Box::new(images), warnings })
}

/// The names and versions of the loaded libraries. A version number holds major, minor (8 bits) and micro (8 bits).
pub(super) fn versions() -> Vec<(&'static str, String)> {
    let version = |v: u32| format!("{}.{}.{}", v >> 16, v >> 8 & 0xff, v & 0xff);
    [
        ("libavcodec", ff::codec::version()),
        ("libavfilter", ff::filter::version()),
        ("libavformat", ff::format::version()),
        ("libavutil", ff::util::version()),
        ("libswscale", ff::software::scaling::version()),
    ]
    .map(|(name, v)| (name, version(v)))
    .into()
}

/// Initializes FFmpeg, once per process. Turns off its log, which would mix with the program's output on stderr. Limits
/// its allocations, because FFmpeg decodes an image while it probes a file, before the limit of a decoder applies.
fn initialize() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Cannot fail in the supported versions. Opening a file would report anything missing.
        let _ = ff::init();
        ff::log::set_level(ff::log::Level::Quiet);
        limit_allocations(MAX_ALLOCATION);
    });
}

/// The times of a stream's frames.
struct Timeline {
    duration_s: f64,
    fps: Option<f64>,
    n_frames: Option<u64>,
    /// The start of each frame in seconds, ascending, if the whole file was scanned.
    frame_times: Option<Vec<f64>>,
}

impl Timeline {
    /// The timeline of a still image, whatever its container says.
    fn of_image() -> Self {
        Self { duration_s: 0.0, fps: None, n_frames: Some(1), frame_times: None }
    }

    /// The timeline by the frames' timestamps, or by their number if the timestamps make no sense.
    fn of(path: &Path, track: &mut Track, warnings: &mut Vec<String>) -> Result<Self> {
        let mut timeline_warnings = Vec::new();
        let timeline = Self::by_timestamps(path, track, &mut timeline_warnings)?;
        // MPEG-TS has no index, so one wrong timestamp can make the video hours long, or make it end before it starts.
        let longest_s = timeline.duration_s.max(track.duration_s().unwrap_or(0.0));
        let fps = 1.0 / track.clock.frame_s;
        let room = MAX_SPARSENESS * file_bytes(path) / TS_PACKET_BYTES;
        let too_long = track.container() == "mpegts" && longest_s * fps > room;
        if timeline.duration_s > 0.0 && !too_long {
            warnings.append(&mut timeline_warnings);
            return Ok(timeline);
        }
        warnings.push(format!(
            "{}: the file's timestamps are damaged; assuming {fps:.2} evenly spaced frames per second",
            path.display()
        ));
        let scan = Scan::counted(path, track.stop())?;
        Self::of_scan(path, track, scan)
    }

    /// The timeline by the file's stated duration, after a check of its end. Scans all packets if none is stated.
    fn by_timestamps(path: &Path, track: &mut Track, warnings: &mut Vec<String>) -> Result<Self> {
        let fps = track.fps();
        let small = matches!(track.container().as_str(), "gif" | "apng");
        if let Some(claimed) = track.duration_s().filter(|_| !small && track.has_start_time()) {
            let end = match scan::end_of(path, claimed, track.stop())? {
                Some(end) => end,
                // Nothing can be read at the stated end, so find the real one.
                None => {
                    let scan = Scan::whole(path, track.stop())?;
                    if scan.times.is_empty() {
                        return Err(Error::NoFrames { path: path.to_owned() });
                    }
                    scan.end_s
                }
            };
            let tolerance = 2.0 * track.clock.frame_s;
            let missing = claimed - end;
            if missing > tolerance.max(SUSPICIOUS_GAP_S.min(claimed / 10.0)) {
                warnings.push(format!(
                    "{}: the file is cut off or damaged: it should be {claimed:.1} s long, but its images end at \
                     {end:.1} s, so {missing:.1} s ({:.0} %) are missing; frames are taken from the rest",
                    path.display(),
                    100.0 * missing / claimed
                ));
            }
            // Some containers state the start of the last frame, not its end.
            let duration_s = if end > claimed || missing > tolerance { end } else { claimed };
            let n_frames = track.n_frames().filter(|_| missing.abs() <= tolerance);
            return Ok(Self { duration_s, fps, n_frames, frame_times: None });
        }

        let scan = Scan::whole(path, track.stop())?;
        Self::of_scan(path, track, scan)
    }

    /// The timeline by a scan of all packets.
    fn of_scan(path: &Path, track: &mut Track, scan: Scan) -> Result<Self> {
        if scan.times.is_empty() {
            return Err(Error::NoFrames { path: path.to_owned() });
        }
        track.clock = scan.clock;
        let n_frames = Some(scan.times.len() as u64);
        Ok(Self { duration_s: scan.end_s, fps: track.fps(), n_frames, frame_times: Some(scan.times) })
    }

    fn plan(&self, path: &Path, sampling: &Sampling, stop: &Stop) -> Result<Plan> {
        let range = sampling.range(path, self.duration_s)?;
        let fps = self.fps;
        if let Some(times) = &self.frame_times {
            return Ok(sampling.plan(&range, Known { fps, frame_times: Some(times) }));
        }
        // Two moments can show the same frame only if the sampling is dense. The range then has few enough packets to
        // scan.
        let n_frames = fps.map_or(0.0, |fps| (range.end - range.start) * fps);
        // Every frame takes more than one byte of the file.
        let max_frames = file_bytes(path);
        let dense = sampling.needs_frame_times(&range, fps, n_frames.min(max_frames));
        let times = if dense { Self::times_in(path, &range, stop)? } else { None };
        if times.is_none() && sampling.max_moments(&range, fps) as f64 > max_frames {
            return Err(Error::NoFrames { path: path.to_owned() });
        }
        Ok(sampling.plan(&range, Known { fps, frame_times: times.as_deref() }))
    }

    /// The starts of the frames in `range`; `None` if there are none, or none with timestamps.
    fn times_in(path: &Path, range: &Range<f64>, stop: &Stop) -> Result<Option<Vec<f64>>> {
        let scan = Scan::part(path, range, stop)?;
        Ok((!scan.times.is_empty() && !scan.clock.counts_frames).then_some(scan.times))
    }
}

/// The size of a file in bytes; infinite if unknown.
fn file_bytes(path: &Path) -> f64 {
    std::fs::metadata(path).map_or(f64::INFINITY, |file| file.len() as f64)
}

struct FfmpegImages {
    path: PathBuf,
    decoder: Decoder,
    converter: Converter,
}

impl Images for FfmpegImages {
    fn at(&mut self, time_s: f64) -> Result<Option<Frame>> {
        let Some(image) = self.decoder.image_at(time_s)? else { return Ok(None) };
        let frame = self.converter.convert(image);
        frame.map(Some).map_err(|error| Error::Media {
            problem: MediaProblem::Decode,
            path: self.path.clone(),
            reason: error.to_string(),
        })
    }

    fn frames_decoded(&self) -> u64 {
        self.decoder.n_decoded()
    }

    fn warnings(&mut self) -> Vec<String> {
        let what = match self.decoder.take_damaged() {
            0 => return Vec::new(),
            1 => "found 1 damaged packet or image; frames near it may look wrong".to_owned(),
            n => format!("found {n} damaged packets or images; frames near them may look wrong"),
        };
        vec![format!("{}: {what}", self.path.display())]
    }
}
