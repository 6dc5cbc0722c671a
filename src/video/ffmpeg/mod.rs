//! Everything that FFmpeg reads: planning which frames to take, and taking them.

mod address;
mod convert;
mod decode;
mod endless;
mod keyframes;
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
pub(super) use endless::Endless;
pub(super) use keyframes::Keyframes;
use scan::Scan;
use track::Track;
pub use write::VideoWriter;

/// A video track that ends this much before the file says is worth a warning; less is what audio often overhangs.
const SUSPICIOUS_GAP_S: f64 = 1.0;

/// What FFmpeg allocates at once: the largest image in RGBA, with the room that it leaves around one.
const MAX_ALLOCATION: usize = 5 << 26;

/// Size of a packet of MPEG-TS, which has at most one frame.
const TS_PACKET_BYTES: f64 = 188.0;

/// A transport stream that has room for less than one in as many of the frames that its length asks for has wrong
/// times.
const MAX_SPARSENESS: f64 = 100.0;

/// Opens a file with FFmpeg and plans the frames to take.
pub(super) fn open(path: &Path, nature: Nature, sampling: &Sampling, stop: &Stop) -> Result<Opened> {
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
    let planned = if moving { timeline.plan(path, sampling, stop)? } else { Plan::image() };
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
        // What FFmpeg 7 says as well, and older ones do not.
        Nature::Image(turn) => Orientation::from_turn(turn),
        Nature::Open | Nature::Animation => track.orientation(),
    };
    let converter = Converter::new(orientation, track.container_sar());
    // GIF and PNG frames build on the ones before, whatever their flags say.
    let can_seek = kind == Kind::Video && !track.clock.counts_frames;
    let decoder = Decoder::new(path, track, codec, can_seek);
    let images = FfmpegImages { path: path.to_owned(), decoder, converter };
    Ok(Opened { info, planned, images: Box::new(images), warnings })
}

/// The libraries that are loaded, with their versions: major, minor and micro, one byte each but for the major.
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

/// Once per process: FFmpeg's own log goes to stderr and would mix with the program's output; and it decodes an image
/// to look at a file, before there is a decoder of which the size is limited.
fn initialize() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Fails for no reason in the versions that are supported; what is missing shows up when a file is opened.
        let _ = ff::init();
        ff::log::set_level(ff::log::Level::Quiet);
        limit_allocations(MAX_ALLOCATION);
    });
}

/// When the frames of a track are.
struct Timeline {
    duration_s: f64,
    fps: Option<f64>,
    n_frames: Option<u64>,
    /// When each frame begins, in seconds, ascending, if the whole file was read to learn it.
    frame_times: Option<Vec<f64>>,
}

impl Timeline {
    /// That of a still image, whatever its container makes of it.
    fn of_image() -> Self {
        Self { duration_s: 0.0, fps: None, n_frames: Some(1), frame_times: None }
    }

    /// When the frames are by their timestamps, or by their number where the timestamps make no sense.
    fn of(path: &Path, track: &mut Track, warnings: &mut Vec<String>) -> Result<Self> {
        let mut timeline_warnings = Vec::new();
        let timeline = Self::by_timestamps(path, track, &mut timeline_warnings)?;
        // One wrong timestamp can make it hours long, or end before it begins; there is no index that would tell.
        let longest_s = timeline.duration_s.max(track.duration_s().unwrap_or(0.0));
        let fps = 1.0 / track.clock.frame_s;
        let room = MAX_SPARSENESS * file_bytes(path) / TS_PACKET_BYTES;
        let too_long = track.container() == "mpegts" && longest_s * fps > room;
        if timeline.duration_s > 0.0 && !too_long {
            warnings.append(&mut timeline_warnings);
            return Ok(timeline);
        }
        warnings.push(format!(
            "{}: the times in the file are damaged; its frames are taken to follow each other at {fps:.2} per second",
            path.display()
        ));
        let scan = Scan::counted(path, track.stop())?;
        Self::of_scan(path, track, scan)
    }

    /// Believes what the file says about its length after looking at its end; reads all packets if it says nothing.
    fn by_timestamps(path: &Path, track: &mut Track, warnings: &mut Vec<String>) -> Result<Self> {
        let fps = track.fps();
        let small = matches!(track.container().as_str(), "gif" | "apng");
        if let Some(claimed) = track.duration_s().filter(|_| !small && track.has_start_time()) {
            let end = match scan::end_of(path, claimed, track.stop())? {
                Some(end) => end,
                // Nothing can be read where the end should be: learn where it really is.
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
                    "{}: the file is cut off or damaged: it says it is {claimed:.1} s long, but its images end at \
                     {end:.1} s, so {missing:.1} s ({:.0} %) are missing. The frames are taken from what is there",
                    path.display(),
                    100.0 * missing / claimed
                ));
            }
            // Some containers say when the last frame begins, not when it ends.
            let duration_s = if end > claimed || missing > tolerance { end } else { claimed };
            let n_frames = track.n_frames().filter(|_| missing.abs() <= tolerance);
            return Ok(Self { duration_s, fps, n_frames, frame_times: None });
        }

        let scan = Scan::whole(path, track.stop())?;
        Self::of_scan(path, track, scan)
    }

    /// What a look at all packets told.
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
        // Only where many of the frames are wanted can two moments show the same one, and then there are few enough
        // packets to look at all of them.
        let n_frames = fps.map_or(0.0, |fps| (range.end - range.start) * fps);
        // Whatever a file claims, a frame takes more than one byte of it.
        let max_frames = file_bytes(path);
        let dense = sampling.needs_frame_times(&range, fps, n_frames.min(max_frames));
        let times = if dense { Self::times_in(path, &range, stop)? } else { None };
        if times.is_none() && sampling.n_wanted(&range, fps) as f64 > max_frames {
            return Err(Error::NoFrames { path: path.to_owned() });
        }
        Ok(sampling.plan(&range, Known { fps, frame_times: times.as_deref() }))
    }

    /// When the frames in `range` begin.
    fn times_in(path: &Path, range: &Range<f64>, stop: &Stop) -> Result<Option<Vec<f64>>> {
        let scan = Scan::part(path, range, stop)?;
        Ok((!scan.times.is_empty() && !scan.clock.counts_frames).then_some(scan.times))
    }
}

/// Size of a file; infinite if it cannot be told.
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
            1 => "1 damaged packet or image was met; frames near it may look wrong".to_owned(),
            n => format!("{n} damaged packets or images were met; frames near them may look wrong"),
        };
        vec![format!("{}: {what}", self.path.display())]
    }
}
