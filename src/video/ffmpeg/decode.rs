//! Decodes forward to the images that are wanted, and jumps where that is cheaper.

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

/// More threads gain little but hold more decoded images. Large images get fewer.
const MAX_THREADS: u64 = 8;

/// A wanted image at most this many frames ahead is decoded to without looking for a keyframe nearer to it.
const NEAR_FRAMES: f64 = 8.0;

/// Images this much before the wanted one need not be decoded if no other refers to them.
const UNWANTED_S: f64 = 1.0;

/// How far before the wanted moment to seek, tried in this order: in some containers (MPEG-TS) a seek does not go to a
/// keyframe, and the next keyframe can be behind the wanted image.
const SEEK_BACK_S: [f64; 5] = [0.0, 2.0, 6.0, 20.0, 60.0];

/// Packets to read ahead at most in search of the last keyframe before the wanted moment.
const MAX_READ_AHEAD: usize = 1000;

/// The last image may be asked for this long after it should have ended: audio often lasts longer.
const MAX_OVERHANG_S: f64 = 0.5;

/// Packets that may be read twice by seeks that found nothing, beyond as many as were decoded.
const REREAD_ALLOWANCE: u64 = 2000;

/// After as many errors in a row the decoder is given up.
const MAX_ERRORS: u32 = 1000;

/// Opens a decoder for the track.
pub(super) fn open_codec(path: &Path, track: &Track) -> Result<decoder::Video> {
    let id = track.codec_id();
    let name = if id == ff::codec::Id::None { "a codec it does not know" } else { id.name() };
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
    // What the packets say goes before what the container says.
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

/// A decoded image and when it is shown.
struct Timed {
    image: Image,
    time_s: f64,
    duration_s: f64,
}

/// Finds the images that are shown at ascending moments.
pub(super) struct Decoder {
    path: PathBuf,
    track: Track,
    codec: decoder::Video,
    /// The last decoded image that is not after the wanted moment.
    current: Option<Timed>,
    /// The first decoded image after it.
    ahead: Option<Timed>,
    at_end: bool,
    /// Packets that a seek has read and that go to the decoder next.
    pending: VecDeque<Packet>,
    /// Timestamps of the last packet and the last keyframe that the decoder got, while it can go on from there.
    last_sent: Option<i64>,
    last_key: Option<i64>,
    can_seek: bool,
    /// Index into `SEEK_BACK_S` of what worked last.
    seek_back: usize,
    /// Whether images that no other refers to are skipped when far from the wanted one.
    can_skip: bool,
    /// Time of the last packet that may have been skipped.
    skipped_until: f64,
    n_decoded: u64,
    n_sent: u64,
    n_reread: u64,
    n_damaged: u64,
    /// Time of the last image out of the decoder.
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

    /// Number of images that came out of the decoder.
    pub(super) fn n_decoded(&self) -> u64 {
        self.n_decoded
    }

    /// Number of damaged packets and images since the last call.
    pub(super) fn take_damaged(&mut self) -> u64 {
        std::mem::take(&mut self.n_damaged) + self.track.n_unreadable()
    }

    /// The image that is shown at `time_s`: the last one that is not later, or the first one if all are. `None` if
    /// the images end before.
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
            // A file that ends before the first wanted moment still has an image to give.
            .filter(|shown| !self.at_end || is_first || time_s <= shown.time_s + shown.duration_s + MAX_OVERHANG_S)
            .map(|shown| &shown.image))
    }

    /// Decodes until an image after `time_s` or the end.
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

    /// A jump that landed after the wanted image is repeated from farther back, at last from the start of the file.
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

    /// If a skipped image could be the wanted one, decodes once more without skipping.
    ///
    /// That happens only where images are shown for long; then skipping is not worth it any more.
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

    /// Whether to look for a keyframe nearer to `time_s` than the present position.
    fn is_far(&self, time_s: f64) -> bool {
        let position = self.last_time.unwrap_or(0.0);
        self.can_seek
            && time_s - position > NEAR_FRAMES * self.track.clock.frame_s
            && self.n_reread <= self.n_sent + REREAD_ALLOWANCE
    }

    /// Goes to the last keyframe before `time_s`, or stays where it is if there is none in between.
    ///
    /// Returns whether the decoder starts anew. The decoder is left alone until a keyframe is found: if the container
    /// goes back to one that was decoded already, packets are skipped until the present position is met again.
    fn jump(&mut self, time_s: f64) -> Result<bool> {
        while self.seek_back < SEEK_BACK_S.len() {
            if self.track.seek((time_s - SEEK_BACK_S[self.seek_back]).max(0.0)).is_err() {
                break;
            }
            match self.find_entry(time_s)? {
                Entry::Here => {
                    // What an earlier jump read ahead, the track gives once more.
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
        // No working index: from now on everything is decoded.
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

    /// Where decoding can begin after a seek.
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
            if packet_time > time_s + UNWANTED_S || (is_new_key && !is_shown(packet_time, time_s)) {
                // Goes with the others: the decoder gets what was read.
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
            // A seek to the moment itself goes to the last keyframe before it; from farther back there may be others.
            if !packets.is_empty() && self.seek_back == 0 {
                break;
            }
        }
        Ok(if packets.is_empty() { Entry::None } else { Entry::Keyframe(packets) })
    }

    /// Begins again with the first packet of the file.
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

    /// The next image out of the decoder, in the order of display; `None` at the end.
    fn decode_next(&mut self, wanted_s: f64) -> Result<Option<Timed>> {
        let mut errors = 0;
        while errors < MAX_ERRORS {
            let mut image = Image::empty();
            match self.codec.receive_frame(&mut image) {
                Ok(()) => return Ok(Some(self.timed(image))),
                Err(ff::Error::Eof) => return Ok(None),
                Err(ff::Error::Other { errno: ff::error::EAGAIN }) => self.feed(wanted_s)?,
                Err(_) => {
                    errors += 1;
                    self.n_damaged += 1;
                }
            }
        }
        Ok(None)
    }

    /// Gives the decoder one packet, or the news that there are no more.
    fn feed(&mut self, wanted_s: f64) -> Result<()> {
        self.track.stop().check()?;
        let next = match self.pending.pop_front() {
            Some(packet) => Some(packet),
            None => self.track.next_packet()?,
        };
        let Some(packet) = next else {
            // Fails only if it was told before.
            let _ = self.codec.send_eof();
            return Ok(());
        };
        let stamp = timestamp(&packet);
        let time_s = stamp.map(|stamp| self.track.clock.seconds(stamp));
        let skip = self.can_skip && time_s.is_some_and(|time| time < wanted_s - UNWANTED_S);
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

/// Where decoding goes on after a seek.
enum Entry {
    /// With the next packet: it is the one that the decoder would have got anyway.
    Here,
    /// With a keyframe: the first of these packets.
    Keyframe(VecDeque<Packet>),
    /// Nowhere before the wanted moment.
    None,
}
