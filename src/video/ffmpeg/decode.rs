//! Decodes forward to the sampled moments, and seeks where that is cheaper.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use ff::codec::discard::Discard;
use ff::frame::Video as Image;
use ff::{Packet, decoder};
use ffmpeg_next as ff;

use super::super::limits::{MAX_VIDEO_PIXELS, check_size};
use super::super::sampling::is_shown;
use super::track::{Track, timestamp};
use crate::error::{Error, MediaProblem, Result};

/// The most decoder threads. More would gain little and hold more decoded images. Large images get fewer.
const MAX_THREADS: u64 = 8;

/// A target at most this many frames ahead is decoded to without a seek.
const NEAR_FRAMES: f64 = 8.0;

/// Images that no other refers to are skipped if they are this long before the target.
const SKIP_BEFORE_S: f64 = 1.0;

/// How far before the target to seek, in order of attempts. In some containers (MPEG-TS), a seek does not go to a
/// keyframe, and the next keyframe can be after the target.
const SEEK_BACK_S: [f64; 5] = [0.0, 2.0, 6.0, 20.0, 60.0];

/// The most packets to read ahead in search of the last keyframe before the target.
const MAX_READ_AHEAD: usize = 1000;

/// The last image is still shown this long after its end, because audio often lasts longer.
const MAX_OVERHANG_S: f64 = 0.5;

/// How many more packets than were decoded may be read twice by seeks that found nothing.
const REREAD_ALLOWANCE: u64 = 2000;

/// Decoding ends after this many errors in a row.
const MAX_ERRORS: u32 = 1000;

/// Opens a decoder for the stream.
pub(super) fn open_codec(path: &Path, track: &Track) -> Result<decoder::Video> {
    let id = track.codec_id();
    let name = if id == ff::codec::Id::None { "its codec, which is unknown" } else { id.name() };
    let unsupported = || Error::UnsupportedCodec { path: path.to_owned(), codec: name.to_owned() };
    let codec = decoder::find(id).ok_or_else(unsupported)?;
    let parameters = track.parameters().ok_or_else(unsupported)?;
    let (width, height) = track.size();
    check_size(path, width.into(), height.into(), MAX_VIDEO_PIXELS)?;
    let n_pixels = u64::from(width) * u64::from(height);
    let n_threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let n_threads = n_threads.min(MAX_THREADS).min(MAX_VIDEO_PIXELS / n_pixels.max(1)).max(1);
    let mut options = ff::Dictionary::new();
    options.set("threads", &n_threads.to_string());
    // The packets may override the container's size.
    options.set("max_pixels", &MAX_VIDEO_PIXELS.to_string());

    let opened = ff::codec::Context::from_parameters(parameters).and_then(|context| {
        let mut decoder = context.decoder();
        decoder.set_packet_time_base(track.time_base());
        decoder.open_as_with(codec, options)?.video()
    });
    opened.map_err(|error| Error::Media {
        problem: MediaProblem::Decode,
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

/// A decoded image with its time.
struct Timed {
    image: Image,
    time_s: f64,
    duration_s: f64,
}

/// Decodes the images that are shown at ascending moments. The *target* is the moment of the current call.
pub(super) struct Decoder {
    path: PathBuf,
    track: Track,
    codec: decoder::Video,
    /// The last decoded image that is not after the target.
    current: Option<Timed>,
    /// The first decoded image after the target.
    ahead: Option<Timed>,
    at_end: bool,
    /// Packets that a seek has read; the decoder gets them next.
    pending: VecDeque<Packet>,
    /// Timestamps of the last packet and the last keyframe sent to the decoder, while it can continue from there.
    last_sent: Option<i64>,
    last_key: Option<i64>,
    can_seek: bool,
    /// The index into `SEEK_BACK_S` that worked last.
    seek_back: usize,
    /// Whether to skip images far from the target that no other refers to.
    can_skip: bool,
    /// The time of the last packet that may have been skipped.
    skipped_until: f64,
    n_decoded: u64,
    n_sent: u64,
    n_reread: u64,
    n_damaged: u64,
    /// The time of the last decoded image.
    last_time: Option<f64>,
}

impl Decoder {
    pub(super) fn new(path: &Path, track: Track, codec: decoder::Video, can_seek: bool) -> Self {
        Self {
            path: path.to_owned(),
            track,
            codec,
            current: None,
            ahead: None,
            at_end: false,
            pending: VecDeque::new(),
            last_sent: None,
            last_key: None,
            can_seek,
            seek_back: 0,
            can_skip: can_seek,
            skipped_until: f64::NEG_INFINITY,
            n_decoded: 0,
            n_sent: 0,
            n_reread: 0,
            n_damaged: 0,
            last_time: None,
        }
    }

    /// Number of decoded images.
    pub(super) fn n_decoded(&self) -> u64 {
        self.n_decoded
    }

    /// Number of damaged packets and images since the last call.
    pub(super) fn take_damaged(&mut self) -> u64 {
        std::mem::take(&mut self.n_damaged) + self.track.n_unreadable()
    }

    /// The image that is shown at `time_s`: the last one that is not later, or the first image if all are later. `None`
    /// if the images end before `time_s`.
    pub(super) fn image_at(&mut self, time_s: f64) -> Result<Option<&Image>> {
        let is_first = self.n_decoded == 0;
        if self.ahead.as_ref().is_some_and(|ahead| is_shown(ahead.time_s, time_s)) {
            self.current = self.ahead.take();
        }
        if self.ahead.is_none() && !self.at_end {
            let jumped = self.is_far(time_s) && self.jump(time_s)?;
            self.decode_until(time_s)?;
            self.check_jump(time_s, jumped)?;
            self.check_skipped(time_s)?;
        }

        let shown = self.current.as_ref().or(self.ahead.as_ref());
        Ok(shown
            // A file that ends before the first target still yields its last image.
            .filter(|shown| !self.at_end || is_first || time_s <= shown.time_s + shown.duration_s + MAX_OVERHANG_S)
            .map(|shown| &shown.image))
    }

    /// Decodes until an image after `time_s`, or to the end.
    fn decode_until(&mut self, time_s: f64) -> Result<()> {
        while self.ahead.is_none() && !self.at_end {
            match self.decode_next(time_s)? {
                Some(next) if is_shown(next.time_s, time_s) => self.current = Some(next),
                Some(next) => self.ahead = Some(next),
                None => self.at_end = true,
            }
        }
        Ok(())
    }

    /// If a jump landed after the target, repeats it from farther back, and finally from the start of the file.
    fn check_jump(&mut self, time_s: f64, mut jumped: bool) -> Result<()> {
        while jumped && self.current.is_none() {
            self.forget_position();
            self.seek_back += 1;
            jumped = if self.seek_back < SEEK_BACK_S.len() {
                self.jump(time_s)?
            } else {
                self.restart()?;
                false
            };
            self.decode_until(time_s)?;
        }
        Ok(())
    }

    /// If a skipped image could be the one that is shown, decodes again without skipping.
    ///
    /// This happens only if images are shown for long, and then skipping gains nothing, so it stays off.
    fn check_skipped(&mut self, time_s: f64) -> Result<()> {
        let may_be_wrong = self.current.as_ref().is_none_or(|current| current.time_s < self.skipped_until);
        let skipped = std::mem::replace(&mut self.skipped_until, f64::NEG_INFINITY) > f64::NEG_INFINITY;
        if skipped && may_be_wrong {
            self.can_skip = false;
            self.forget_position();
            let jumped = self.jump(time_s)?;
            self.decode_until(time_s)?;
            self.check_jump(time_s, jumped)?;
        }
        Ok(())
    }

    /// Whether to seek a keyframe that is nearer to `time_s` than the current position.
    fn is_far(&self, time_s: f64) -> bool {
        let position = self.last_time.unwrap_or(0.0);
        self.can_seek
            && time_s - position > NEAR_FRAMES * self.track.clock.frame_s
            && self.n_reread <= self.n_sent + REREAD_ALLOWANCE
    }

    /// Goes to the last keyframe before `time_s`, unless the current position is after it.
    ///
    /// Returns whether the decoder restarts. The decoder keeps its state until a keyframe is found. If the container
    /// goes back to packets that were decoded before, these are skipped up to the current position.
    fn jump(&mut self, time_s: f64) -> Result<bool> {
        while self.seek_back < SEEK_BACK_S.len() {
            if self.track.seek((time_s - SEEK_BACK_S[self.seek_back]).max(0.0)).is_err() {
                break;
            }
            match self.find_entry(time_s)? {
                Entry::Here => {
                    // The stream returns again the packets that an earlier jump had read ahead.
                    self.pending.clear();
                    return Ok(false);
                }
                Entry::Keyframe(packets) => {
                    self.forget_position();
                    self.pending = packets;
                    return Ok(true);
                }
                Entry::None => self.seek_back += 1,
            }
        }
        // The index does not work, so everything is decoded from now on.
        self.can_seek = false;
        self.track = self.reopened()?;
        self.pending.clear();
        let Some(last_sent) = self.last_sent else {
            self.forget_position();
            return Ok(false);
        };
        while let Some(packet) = self.track.next_packet()? {
            if timestamp(&packet) == Some(last_sent) {
                return Ok(false);
            }
        }
        self.restart()?;
        Ok(false)
    }

    /// Where decoding can continue after a seek.
    fn find_entry(&mut self, time_s: f64) -> Result<Entry> {
        let mut packets = VecDeque::new();
        while packets.len() < MAX_READ_AHEAD {
            let Some(packet) = self.track.next_packet()? else { break };
            self.n_reread += 1;
            let Some(stamp) = timestamp(&packet) else { return Ok(Entry::None) };
            if self.last_sent == Some(stamp) {
                return Ok(Entry::Here);
            }
            let packet_time = self.track.clock.seconds(stamp);
            let is_new_key = packet.is_key() && self.last_key.is_none_or(|last| last < stamp);
            if packet_time > time_s + SKIP_BEFORE_S || (is_new_key && !is_shown(packet_time, time_s)) {
                // The decoder needs this packet, too, because it was read.
                if !packets.is_empty() {
                    packets.push_back(packet);
                }
                break;
            }
            if is_new_key {
                packets.clear();
            }
            if is_new_key || !packets.is_empty() {
                packets.push_back(packet);
            }
            // A seek to the target itself finds the last keyframe before it. From farther back, there may be others.
            if !packets.is_empty() && self.seek_back == 0 {
                break;
            }
        }
        Ok(if packets.is_empty() { Entry::None } else { Entry::Keyframe(packets) })
    }

    /// Starts over with the first packet of the file.
    fn restart(&mut self) -> Result<()> {
        self.can_seek = false;
        self.can_skip = false;
        self.track = self.reopened()?;
        self.forget_position();
        Ok(())
    }

    fn reopened(&self) -> Result<Track> {
        let mut track = Track::open(&self.path, self.track.stop())?;
        track.clock = self.track.clock;
        Ok(track)
    }

    fn forget_position(&mut self) {
        self.codec.flush();
        self.current = None;
        self.ahead = None;
        self.at_end = false;
        self.pending.clear();
        self.last_sent = None;
        self.last_key = None;
        self.last_time = None;
    }

    /// Decodes the next image in display order; `None` at the end.
    fn decode_next(&mut self, target_s: f64) -> Result<Option<Timed>> {
        let mut errors = 0;
        while errors < MAX_ERRORS {
            let mut image = Image::empty();
            match self.codec.receive_frame(&mut image) {
                Ok(()) => return Ok(Some(self.timed(image))),
                Err(ff::Error::Eof) => return Ok(None),
                Err(ff::Error::Other { errno: ff::error::EAGAIN }) => self.feed(target_s)?,
                Err(_) => {
                    errors += 1;
                    self.n_damaged += 1;
                }
            }
        }
        Ok(None)
    }

    /// Sends the decoder one packet, or the end of the stream.
    fn feed(&mut self, target_s: f64) -> Result<()> {
        self.track.stop().check()?;
        let next = match self.pending.pop_front() {
            Some(packet) => Some(packet),
            None => self.track.next_packet()?,
        };
        let Some(packet) = next else {
            // Fails only if the end was sent before.
            let _ = self.codec.send_eof();
            return Ok(());
        };
        let stamp = timestamp(&packet);
        let time_s = stamp.map(|stamp| self.track.clock.seconds(stamp));
        let skip = self.can_skip && time_s.is_some_and(|time| time < target_s - SKIP_BEFORE_S);
        self.codec.skip_frame(if skip { Discard::NonReference } else { Discard::Default });
        if let (true, Some(time)) = (skip, time_s) {
            self.skipped_until = self.skipped_until.max(time);
        }

        self.last_sent = stamp;
        if packet.is_key() {
            self.last_key = stamp.max(self.last_key);
        }
        self.n_sent += 1;
        let accepted = self.codec.send_packet(&packet).is_ok();
        self.n_damaged += u64::from(!accepted || packet.is_corrupt());
        Ok(())
    }

    fn timed(&mut self, image: Image) -> Timed {
        let clock = self.track.clock;
        let stamp = image.timestamp().filter(|_| !clock.counts_frames);
        let time_s = match (stamp, self.last_time) {
            (Some(stamp), _) => clock.seconds(stamp),
            (None, Some(last)) => last + clock.frame_s,
            (None, None) => 0.0,
        };
        self.n_decoded += 1;
        self.n_damaged += u64::from(image.is_corrupt() || image.has_decode_errors());
        self.last_time = Some(time_s);
        let duration_s = clock.span(image.packet().duration).max(2.0 * clock.frame_s);
        Timed { image, time_s, duration_s }
    }
}

/// Where decoding continues after a seek.
enum Entry {
    /// With the next packet, which the decoder would have got without the seek.
    Here,
    /// With a keyframe, the first of these packets.
    Keyframe(VecDeque<Packet>),
    /// Nowhere before the target.
    None,
}
