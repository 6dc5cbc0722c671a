//! The held slices of live video.

use super::arrangement::{LiveArrangement, Stated};
use super::policy::Held;
use crate::chat::encoded::{EncodedSlice, EncodedVideo, VideoId};
use crate::layout::{FrameCount, Layout, SliceCount, SliceTime};

/// The slices of an [`EncodedVideo`] since the last rebase, and which of them are held.
#[derive(Debug)]
pub(super) struct HeldSlices {
    arrangement: LiveArrangement,
    stated: Stated,
    mrope: bool,
    /// The times of all slices of the video, held or not.
    times: Vec<SliceTime>,
    /// The held slices, oldest first.
    held: Vec<Held>,
}

impl HeldSlices {
    /// Makes one without slices.
    pub fn new(arrangement: LiveArrangement, stated: Stated, mrope: bool) -> Self {
        Self { arrangement, stated, mrope, times: Vec::new(), held: Vec::new() }
    }

    /// The arrangement of slices in the prompt.
    pub fn arrangement(&self) -> &LiveArrangement {
        &self.arrangement
    }

    /// The held slices, oldest first.
    pub fn slices(&self) -> &[Held] {
        &self.held
    }

    /// The number of slices since the last rebase.
    pub fn n_slices(&self) -> SliceCount {
        SliceCount(self.times.len())
    }

    /// Adds a slice with kept tokens to `video`, and holds it.
    pub fn push(
        &mut self,
        video: &mut EncodedVideo,
        layout: &dyn Layout,
        slice: EncodedSlice,
        (time, novelty): (SliceTime, f32),
    ) {
        let frames = FrameCount(self.arrangement.of_slice().frames_per_slice);
        let (index, kept) = (video.slices.len(), slice.kept.len());
        self.held.push(Held { slice: index, time_s: time.last_s, kept, novelty, frames });
        self.times.push(time);
        video.slices.push(slice);
        video.arrangement = self.arrangement.of_slices(layout, &self.times);
    }

    /// Evicts the held slices at these indices, ascending: they stay in `video`, with no tokens. Returns the number of
    /// their frames.
    pub fn evict(&mut self, video: &mut EncodedVideo, indices: &[usize]) -> FrameCount {
        let mut frames = FrameCount(0);
        for &index in indices.iter().rev() {
            let evicted = self.held.remove(index);
            frames.0 += evicted.frames.0;
            if let Some(slice) = video.slices.get_mut(evicted.slice) {
                // New vectors, because `clear` would keep the memory.
                (slice.kept, slice.rows, slice.unfinished) = Default::default();
                (slice.cells, slice.notes) = (None, None);
                slice.is_removed = true;
            }
        }
        frames
    }

    /// Arranges the held slices anew, as a video with another id.
    pub fn rebase(&mut self, video: &mut EncodedVideo, layout: &dyn Layout) {
        let mut slices = Vec::with_capacity(self.held.len());
        let mut times = Vec::with_capacity(self.held.len());
        for (to, held) in self.held.iter_mut().enumerate() {
            slices.extend(video.slices.get_mut(held.slice).map(std::mem::take));
            times.extend(self.times.get(held.slice));
            held.slice = to;
        }
        let start_s = times.first().map_or(0.0, |time: &SliceTime| time.first_s);
        self.arrangement = LiveArrangement::new(layout, &video.info, self.stated, start_s, self.mrope);
        (self.times, video.slices) = (times, slices);
        video.arrangement = self.arrangement.of_slices(layout, &self.times);
        video.id = VideoId::new();
    }
}
