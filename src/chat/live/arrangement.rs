//! The arrangement of live video in its prompt.
//!
//! The text before the first slice and the positions of all slices stay the same while the video grows. If a family's
//! layout states the number of frames and the duration there, they are those of the frames that will usually be held.

use crate::chat::encoded::arrangement::Arrangement;
use crate::layout::{FrameCount, Layout, Part, SliceCount, SliceTime, Slices};
use crate::video::VideoInfo;

/// What all slices share until the next rebase.
#[derive(Debug, Clone)]
pub(super) struct LiveArrangement {
    /// The arrangement without its slices.
    of_slice: Arrangement,
    /// The parts before the first slice.
    start: Vec<Part>,
    mrope: bool,
    /// The number and the rate of frames to state.
    stated: Stated,
}

/// What a layout states to the model about the whole video.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stated {
    pub n_frames: FrameCount,
    pub fps: f64,
}

impl LiveArrangement {
    /// Makes the arrangement of frames of the size in `info`, of which the first is at `start_s`.
    pub fn new(layout: &dyn Layout, info: &VideoInfo, stated: Stated, start_s: f64, mrope: bool) -> Self {
        let times: Vec<f64> = (0..stated.n_frames.0.max(1)).map(|i| start_s + i as f64 / stated.fps).collect();
        let info = VideoInfo { duration_s: Some(stated.n_frames.0 as f64 / stated.fps), ..info.clone() };
        let mut of_slice = Arrangement::new(layout, &info, &times, None, mrope);
        let start = before_first(&of_slice.parts).to_vec();
        (of_slice.parts, of_slice.n_frames, of_slice.time_steps) = (Vec::new(), FrameCount(0), None);
        Self { of_slice, start, mrope, stated }
    }

    /// The part of the arrangement that does not depend on the slices: how each is encoded.
    pub fn of_slice(&self) -> &Arrangement {
        &self.of_slice
    }

    /// Returns the arrangement of slices at `times`, ascending. That of a longer list begins with the same parts, at
    /// the same positions.
    pub fn of_slices(&self, layout: &dyn Layout, times: &[SliceTime]) -> Arrangement {
        let n_frames = SliceCount(times.len()).frames(self.of_slice.frames_per_slice);
        let duration_s = Some(self.stated.n_frames.0 as f64 / self.stated.fps);
        let parts = layout.video(&Slices { times: times.to_vec(), n_frames, duration_s, sampled_fps: None });
        let rest = parts[before_first(&parts).len()..].iter();
        Arrangement {
            parts: self.start.iter().chain(rest).cloned().collect(),
            n_frames,
            time_steps: if self.mrope { time_steps(layout, times) } else { None },
            ..self.of_slice.clone()
        }
    }
}

/// The parts before the first slice.
fn before_first(parts: &[Part]) -> &[Part] {
    let first = parts.iter().position(|part| matches!(part, Part::Slice(_)));
    &parts[..first.unwrap_or(parts.len())]
}

/// Returns the position of each slice relative to the first. No two share a position, so that each can be evicted
/// alone.
fn time_steps(layout: &dyn Layout, times: &[SliceTime]) -> Option<Vec<i32>> {
    let start_s = times.first()?.first_s;
    let mut least = 0;
    let step = |(i, time): (usize, &SliceTime)| {
        let step = layout.time_step(i, time.first_s - start_s)?.max(least);
        least = step + 1;
        Some(step)
    };
    times.iter().enumerate().map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{EncoderFacts, NAMES, by_name};
    use crate::video::Kind;

    fn info() -> VideoInfo {
        VideoInfo {
            path: "live".into(),
            kind: Kind::Frames,
            width: 320,
            height: 240,
            duration_s: None,
            fps: Some(1.0),
            n_frames: None,
            container: "memory".into(),
            codec: "rawvideo".into(),
        }
    }

    fn layouts() -> impl Iterator<Item = Box<dyn Layout>> {
        let facts = EncoderFacts { image_size: Some(64), patch_size: Some(14), ..EncoderFacts::default() };
        NAMES.iter().map(move |name| by_name(name, &facts).expect("a layout"))
    }

    fn times(per_slice: usize, n: usize) -> Vec<SliceTime> {
        let at = |i: usize| (i * per_slice) as f64;
        (0..n).map(|i| SliceTime { first_s: at(i), last_s: at(i) + (per_slice - 1) as f64 }).collect()
    }

    #[test]
    fn a_longer_video_begins_as_the_shorter_did() {
        for layout in layouts() {
            let arrangement =
                LiveArrangement::new(layout.as_ref(), &info(), Stated { n_frames: FrameCount(8), fps: 1.0 }, 0.0, true);
            let of = |n| arrangement.of_slices(layout.as_ref(), &times(layout.frames().per_slice, n));
            let longest = of(40);
            assert_eq!(longest.n_slices(), SliceCount(40));
            for n in 1..40 {
                let shorter = of(n);
                let last = shorter.parts.iter().rposition(|part| matches!(part, Part::Slice(_))).expect("a slice");
                assert_eq!(shorter.parts[..=last], longest.parts[..=last], "{}, {n} slices", layout.name());
                let steps = |steps: &Option<Vec<i32>>| steps.as_ref().map(|steps| steps[..n].to_vec());
                assert_eq!(steps(&shorter.time_steps), steps(&longest.time_steps), "{}", layout.name());
            }
        }
    }

    #[test]
    fn what_the_video_as_a_whole_would_have_is_what_it_has() {
        for layout in layouts() {
            let per_slice = layout.frames().per_slice;
            let frames: Vec<f64> = (0..8).map(f64::from).collect();
            let whole =
                Arrangement::new(layout.as_ref(), &VideoInfo { duration_s: Some(8.0), ..info() }, &frames, None, true);
            let arrangement =
                LiveArrangement::new(layout.as_ref(), &info(), Stated { n_frames: FrameCount(8), fps: 1.0 }, 0.0, true);
            let live = arrangement.of_slices(layout.as_ref(), &times(per_slice, 8 / per_slice));
            assert_eq!(live.parts, whole.parts, "{}", layout.name());
            assert_eq!(live.time_steps, whole.time_steps, "{}", layout.name());
            assert_eq!((live.image_size, live.n_frames), (whole.image_size, whole.n_frames), "{}", layout.name());
        }
    }

    #[test]
    fn no_two_slices_share_a_place_in_time() {
        let facts = EncoderFacts { patch_size: Some(14), ..EncoderFacts::default() };
        let layout = by_name("qwen2.5-vl", &facts).expect("a layout");
        let quick: Vec<SliceTime> =
            [0.0, 0.1, 0.2, 3.0].map(|time| SliceTime { first_s: time, last_s: time + 0.05 }).to_vec();
        assert_eq!(time_steps(layout.as_ref(), &quick), Some(vec![0, 1, 2, 6]));
    }
}
