//! Decodes the keyframes of a file, and nothing between them.

use std::path::{Path, PathBuf};

use ff::decoder;
use ff::frame::Video as Image;
use ffmpeg_next as ff;

use super::super::sampling::is_shown;
use super::super::{Frame, Stop};
use super::convert::Converter;
use super::decode::open_codec;
use super::track::{Track, timestamp};
use crate::error::{Error, MediaProblem, Result};

/// The most packets to read in search of a keyframe.
const MAX_READ: usize = 300;

/// Decodes keyframes near ascending moments.
pub(in crate::video) struct Keyframes {
    path: PathBuf,
    track: Track,
    codec: decoder::Video,
    converter: Converter,
    /// The timestamp of the last keyframe that was returned.
    last: Option<i64>,
}

impl Keyframes {
    /// Opens a file. FFmpeg must have been initialized, which opening the file before does.
    pub(in crate::video) fn open(path: &Path, stop: Stop) -> Result<Self> {
        let track = Track::open(path, &stop)?;
        let codec = open_codec(path, &track)?;
        let converter = Converter::new(track.orientation(), track.container_sar());
        Ok(Self { path: path.to_owned(), track, codec, converter, last: None })
    }

    /// The last keyframe that is not later than `time_s`, with its own time. `None` if it was returned before or cannot
    /// be decoded, or if the file cannot seek.
    pub(in crate::video) fn before(&mut self, time_s: f64) -> Result<Option<Frame>> {
        if self.track.clock.counts_frames || self.track.seek(time_s).is_err() {
            self.track.stop().check()?;
            return Ok(None);
        }
        for _ in 0..MAX_READ {
            let Some(packet) = self.track.next_packet()? else { break };
            let Some(stamp) = timestamp(&packet) else { break };
            let key_s = self.track.clock.seconds(stamp);
            if self.last.is_some_and(|last| stamp <= last) || !is_shown(key_s, time_s) {
                break;
            }
            if !packet.is_key() {
                continue;
            }
            self.last = Some(stamp);
            let Some(image) = self.decode(&packet) else { break };
            let frame = self.converter.convert(&image).map_err(|error| Error::Media {
                problem: MediaProblem::Decode,
                path: self.path.clone(),
                reason: error.to_string(),
            })?;
            return Ok(Some(Frame { time_s: key_s.max(0.0), ..frame }));
        }
        Ok(None)
    }

    /// Decodes a keyframe, which needs no other packet, and resets the decoder.
    fn decode(&mut self, packet: &ff::Packet) -> Option<Image> {
        let mut image = Image::empty();
        let sent = self.codec.send_packet(packet).and_then(|()| self.codec.send_eof());
        let received = sent.and_then(|()| self.codec.receive_frame(&mut image));
        self.codec.flush();
        received.ok().map(|()| image)
    }
}
