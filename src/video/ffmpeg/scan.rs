//! Reads packets without decoding them, to find the times of the frames.

use std::ops::Range;
use std::path::Path;

use ff::Packet;
use ffmpeg_next as ff;

use super::super::Stop;
use super::super::sampling::TIMESTAMP_TOLERANCE_S;
use super::track::{Clock, Track, timestamp};
use crate::error::Result;

/// Packets come in decoding order, so an earlier frame may follow a later one, but not by more than this.
const MAX_REORDERING_S: f64 = 2.0;

/// The times of a stream's frames.
pub(super) struct Scan {
    /// The start of each frame in seconds, ascending.
    pub(super) times: Vec<f64>,
    /// The end of the last frame in seconds.
    pub(super) end_s: f64,
    /// The stream's clock, corrected by the packets' timestamps.
    pub(super) clock: Clock,
}

impl Scan {
    /// Reads the whole file.
    pub(super) fn whole(path: &Path, stop: &Stop) -> Result<Self> {
        let (track, packets) = Self::all_stamps(path, stop)?;
        let origin = packets.iter().filter_map(|packet| packet.timestamp).min();
        let clock = match origin {
            // The decoding timestamps of raw MPEG are made up from the frame rate.
            None => track.clock.counting_frames(),
            Some(_) if is_raw_stream(&track) => track.clock.counting_frames(),
            Some(origin) if !track.has_start_time() => track.clock.starting_at(origin),
            Some(_) => track.clock,
        };
        Ok(Self::from_stamps(&packets, clock))
    }

    /// Reads the whole file and counts its frames. Ignores their timestamps.
    pub(super) fn counted(path: &Path, stop: &Stop) -> Result<Self> {
        let (track, packets) = Self::all_stamps(path, stop)?;
        Ok(Self::from_stamps(&packets, track.clock.counting_frames()))
    }

    fn all_stamps(path: &Path, stop: &Stop) -> Result<(Track, Vec<Stamp>)> {
        let mut track = Track::open(path, stop)?;
        let mut packets = Vec::new();
        while let Some(packet) = track.next_packet()? {
            packets.push(Stamp::of(&packet, &track.clock));
        }
        Ok((track, packets))
    }

    /// Reads as many packets as the frames in `range` need.
    pub(super) fn part(path: &Path, range: &Range<f64>, stop: &Stop) -> Result<Self> {
        let mut track = Track::open(path, stop)?;
        // Not every container seeks to a keyframe, so frames of the range may be stored before that place.
        if range.start > 0.0 && track.seek((range.start - MAX_REORDERING_S).max(0.0)).is_ok() {
            let scan = Self::until(&mut track, range.end)?;
            if scan.times.first().is_some_and(|&first| first <= range.start + TIMESTAMP_TOLERANCE_S) {
                return Ok(scan);
            }
            // The seek went too far.
            track = Track::open(path, stop)?;
        }
        Self::until(&mut track, range.end)
    }

    fn until(track: &mut Track, end_s: f64) -> Result<Self> {
        let mut packets = Vec::new();
        while let Some(packet) = track.next_packet()? {
            let stamp = Stamp::of(&packet, &track.clock);
            if stamp.timestamp.is_some_and(|t| track.clock.seconds(t) > end_s + MAX_REORDERING_S) {
                break;
            }
            packets.push(stamp);
        }
        Ok(Self::from_stamps(&packets, track.clock))
    }

    fn from_stamps(packets: &[Stamp], clock: Clock) -> Self {
        let spans = packets.iter().enumerate().filter_map(|(i, packet)| match packet.timestamp {
            _ if clock.counts_frames => Some((i as f64 * clock.frame_s, clock.frame_s)),
            Some(timestamp) => Some((clock.seconds(timestamp), packet.duration_s)),
            None => None,
        });
        // Edit lists cut frames before the start, which only help to decode others.
        let spans: Vec<_> = spans.filter(|&(time, _)| time > -TIMESTAMP_TOLERANCE_S).collect();
        let end_s = spans.iter().map(|(time, duration)| time + duration).fold(0.0, f64::max);
        let mut times: Vec<f64> = spans.iter().map(|&(time, _)| time.max(0.0)).collect();
        times.sort_by(f64::total_cmp);
        times.dedup();
        Self { times, end_s, clock }
    }
}

/// The timestamp and duration of a packet.
struct Stamp {
    timestamp: Option<i64>,
    duration_s: f64,
}

impl Stamp {
    fn of(packet: &Packet, clock: &Clock) -> Self {
        Self { timestamp: timestamp(packet), duration_s: clock.span(packet.duration()) }
    }
}

/// The real end of the stream's last frame, in seconds, by the packets near the stated end `claimed_s`.
///
/// A file that is cut off ends earlier, and one that was written live may end later. `None` if there are no packets
/// near the stated end, or the file cannot seek.
pub(super) fn end_of(path: &Path, claimed_s: f64, stop: &Stop) -> Result<Option<f64>> {
    let mut track = Track::open(path, stop)?;
    if track.seek((claimed_s - 1.0).max(0.0)).is_err() {
        return Ok(None);
    }
    let mut end: Option<f64> = None;
    while let Some(packet) = track.next_packet()? {
        if let Some(timestamp) = timestamp(&packet) {
            let packet_end = track.clock.seconds(timestamp) + track.clock.span(packet.duration());
            end = Some(end.map_or(packet_end, |end| end.max(packet_end)));
        }
    }
    Ok(end)
}

/// Whether the file is a bare video stream without a container.
fn is_raw_stream(track: &Track) -> bool {
    matches!(track.container().as_str(), "h264" | "hevc" | "mpegvideo" | "m4v" | "vc1" | "h263" | "h261" | "mjpeg")
}
