//! Decodes live video: forward only, image after image.

use std::io::Read;
use std::path::{Path, PathBuf};

use ff::format::context::StreamIo;
use ff::frame::Video as Image;
use ff::{Packet, decoder};
use ffmpeg_next as ff;

use super::super::{Frame, Stop, forward};
use super::address;
use super::convert::Converter;
use super::decode::open_codec;
use super::initialize;
use super::track::{FORMATS, MICROSECONDS, Track, timestamp};
use crate::error::{Error, MediaProblem, Result};

/// How many seconds of a stream FFmpeg analyzes before decoding.
pub(super) const LOOK_S: f64 = 1.0;

/// Decoding ends after this many errors in a row.
const MAX_ERRORS: u32 = 1000;

/// A longer gap between timestamps means that the source restarted its clock.
const MAX_PAUSE_S: f64 = 60.0;

/// The decoder of a live video.
pub(in crate::video) struct LiveDecoder {
    path: PathBuf,
    track: Track,
    codec: decoder::Video,
    converter: Converter,
    times: Times,
    n_damaged: u64,
}

impl LiveDecoder {
    /// Opens a reader. `path` is its name in errors.
    pub(in crate::video) fn read(path: &Path, reader: impl Read + Send + 'static, stop: &Stop) -> Result<Self> {
        initialize();
        let reader = forward::begun(path, reader)?;
        let mut options = ff::Dictionary::new();
        options.set("protocol_whitelist", "none");
        options.set("format_whitelist", FORMATS);
        options.set("analyzeduration", &microseconds(LOOK_S));
        let asked = stop.clone();
        let interrupt = move || asked.is_requested();
        let opened = StreamIo::from_read(reader)
            .and_then(|io| ff::format::input_from_stream_with_interrupt(io, None, Some(options), interrupt));
        stop.check()?;
        let input = opened.map_err(|error| forward::not_opened(path, error.to_string()))?;
        Self::of_track(path, Track::of(input, path, stop)?)
    }

    /// Opens a complete file.
    pub(in crate::video) fn file(path: &Path, stop: &Stop) -> Result<Self> {
        initialize();
        Self::of_track(path, Track::open(path, stop)?)
    }

    /// Opens an address. `path` is its name in errors.
    pub(in crate::video) fn address(path: &Path, address: &str, stop: &Stop) -> Result<Self> {
        initialize();
        let input = address::open(path, address, stop)?;
        Self::of_track(path, Track::of(input, path, stop)?)
    }

    fn of_track(path: &Path, track: Track) -> Result<Self> {
        let codec = open_codec(path, &track)?;
        let converter = Converter::new(track.orientation(), track.container_sar());
        let times = Times::new(track.clock.frame_s);
        Ok(Self { path: path.to_owned(), track, codec, converter, times, n_damaged: 0 })
    }

    /// The next image at `from_s` or later; `None` at the end. Earlier images are decoded, but not converted.
    pub(in crate::video) fn next_from(&mut self, from_s: f64) -> Result<Option<Frame>> {
        while let Some(image) = self.decode()? {
            let clock = self.track.clock;
            let time_s = self.times.next(image.timestamp().map(|stamp| clock.seconds(stamp)));
            if time_s >= from_s {
                let converted = self.converter.convert(&image).map_err(|error| Error::Media {
                    problem: MediaProblem::Decode,
                    path: self.path.clone(),
                    reason: error.to_string(),
                })?;
                return Ok(Some(Frame { time_s, ..converted }));
            }
        }
        Ok(None)
    }

    fn decode(&mut self) -> Result<Option<Image>> {
        let mut errors = 0;
        while errors < MAX_ERRORS {
            let mut image = Image::empty();
            match self.codec.receive_frame(&mut image) {
                Ok(()) => return Ok(Some(image)),
                Err(ff::Error::Eof) => return Ok(None),
                Err(ff::Error::Other { errno: ff::error::EAGAIN }) => match self.next_packet()? {
                    Some(packet) => {
                        let accepted = timestamp(&packet).is_some() || !packet.is_corrupt();
                        let accepted = self.codec.send_packet(&packet).is_ok() && accepted;
                        self.n_damaged += u64::from(!accepted);
                    }
                    // Fails only if the end was sent before.
                    None => drop(self.codec.send_eof()),
                },
                Err(_) => {
                    errors += 1;
                    self.n_damaged += 1;
                }
            }
        }
        Ok(None)
    }

    fn next_packet(&mut self) -> Result<Option<Packet>> {
        let packet = self.track.next_packet()?;
        if packet.is_none() && self.track.is_past_packets() {
            return Err(forward::index_at_end(&self.path));
        }
        Ok(packet)
    }

    /// Frames per second, if the source states it.
    pub(in crate::video) fn fps(&self) -> Option<f64> {
        self.track.fps()
    }

    /// Problems so far that did not stop the decoding.
    pub(in crate::video) fn warnings(&self) -> Vec<String> {
        let name = self.path.display();
        let mut warnings = Vec::new();
        if self.times.n_repaired > 0 {
            warnings.push(format!(
                "{name}: the timestamps of {} images were missing, went back, or jumped by more than \
                 {MAX_PAUSE_S:.0} s; each of these images was put right after the previous one",
                self.times.n_repaired
            ));
        }
        let n_damaged = self.n_damaged + self.track.n_unreadable();
        // Packets that cannot be reached are not damaged.
        if n_damaged > 0 && !self.track.is_past_packets() {
            warnings.push(format!("{name}: found {n_damaged} damaged packets or images"));
        }
        warnings
    }
}

/// Turns a source's timestamps into ascending times.
#[derive(Debug)]
struct Times {
    frame_s: f64,
    last: Option<f64>,
    /// What is added to the source's timestamps.
    shift: f64,
    /// Whether the source has sent a timestamp.
    has_stamps: bool,
    n_repaired: u64,
}

impl Times {
    fn new(frame_s: f64) -> Self {
        Self { frame_s, last: None, shift: 0.0, has_stamps: false, n_repaired: 0 }
    }

    /// The time of the next image in seconds since the first; `stamp_s` is the source's timestamp in seconds.
    fn next(&mut self, stamp_s: Option<f64>) -> f64 {
        let stamp_s = stamp_s.filter(|stamp_s| stamp_s.is_finite());
        let time_s = match (self.last, stamp_s) {
            (None, stamp_s) => {
                self.shift = -stamp_s.unwrap_or(0.0);
                0.0
            }
            (Some(last), Some(stamp_s))
                if stamp_s + self.shift > last && stamp_s + self.shift <= last + MAX_PAUSE_S =>
            {
                stamp_s + self.shift
            }
            (Some(last), stamp_s) => {
                // Raw streams have no timestamps to repair.
                self.n_repaired += u64::from(self.has_stamps || stamp_s.is_some());
                let time_s = last + self.frame_s;
                self.shift = stamp_s.map_or(self.shift, |stamp_s| time_s - stamp_s);
                time_s
            }
        };
        self.has_stamps |= stamp_s.is_some();
        self.last = Some(time_s);
        time_s
    }
}

/// A time in the format of FFmpeg's options.
pub(super) fn microseconds(seconds: f64) -> String {
    format!("{:.0}", seconds * MICROSECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(stamp_s: &[Option<f64>]) -> (Vec<f64>, u64) {
        let mut times = Times::new(0.5);
        let found = stamp_s.iter().map(|&stamp_s| times.next(stamp_s)).collect();
        (found, times.n_repaired)
    }

    #[test]
    fn times_begin_at_zero_and_keep_their_pauses() {
        assert_eq!(times(&[Some(7.0), Some(7.5), Some(20.0)]), (vec![0.0, 0.5, 13.0], 0));
        assert_eq!(times(&[None, Some(0.25), Some(0.5)]), (vec![0.0, 0.25, 0.5], 0));
        assert_eq!(times(&[None, None, None]), (vec![0.0, 0.5, 1.0], 0));
    }

    #[test]
    fn times_that_go_back_or_are_missing_follow_the_last() {
        // The source's clock restarts at 0.
        assert_eq!(times(&[Some(9.0), Some(10.0), Some(0.0), Some(1.0)]), (vec![0.0, 1.0, 1.5, 2.5], 1));
        assert_eq!(times(&[Some(0.0), Some(0.0), None, Some(1.0)]), (vec![0.0, 0.5, 1.0, 1.5], 2));
        assert_eq!(times(&[Some(0.0), Some(90_000.0), Some(90_001.0)]), (vec![0.0, 0.5, 1.5], 1));
        assert_eq!(times(&[Some(0.0), Some(f64::NAN), Some(1.0)]), (vec![0.0, 0.5, 1.0], 1));
    }
}
