//! The slices of live video that are held.

use super::arrangement::{LiveArrangement, Stated};
use super::policy::Held;
use crate::chat::encoded::{EncodedSlice, EncodedVideo, VideoId};
use crate::layout::{FrameCount, Layout, SliceCount, SliceTime};

/// What belongs to the slices of an [`EncodedVideo`] since the last rebase.
#[derive(Debug)]
pub(super) struct HeldSlices {
    arrangement: LiveArrangement,
    stated: Stated,
    mrope: bool,
    /// When each slice of the video is, whether it is held or not.
    times: Vec<SliceTime>,
    /// The slices that are held, oldest first.
    held: Vec<Held>,
}

impl HeldSlices {
    /// Without slices.
    pub fn new(arrangement: LiveArrangement, stated: Stated, mrope: bool) -> Self {
        Self { arrangement, stated, mrope, times: Vec::new(), held: Vec::new() }
    }

    /// How slices stand in the prompt.
    pub fn arrangement(&self) -> &LiveArrangement {
        &self.arrangement
    }

    /// The slices that are held, oldest first.
    pub fn slices(&self) -> &[Held] {
        &self.held
    }

    /// Slices since the last rebase.
    pub fn n_slices(&self) -> SliceCount {
        SliceCount(self.times.len())
    }

    /// Adds a slice of which something is kept to `video`.
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

    /// Drops the held slices at these indices (ascending): they are empty from then on. Returns how many frames these
    /// are.
    pub fn evict(&mut self, video: &mut EncodedVideo, indices: &[usize]) -> FrameCount {
        let mut frames = FrameCount(0);
        for &index in indices.iter().rev() {
            let gone = self.held.remove(index);
            frames.0 += gone.frames.0;
            if let Some(slice) = video.slices.get_mut(gone.slice) {
                // Not `clear`: their memory has to go.
                (slice.kept, slice.rows, slice.unfinished) = Default::default();
                (slice.cells, slice.notes) = (None, None);
                slice.is_removed = true;
            }
        }
        frames
    }

    /// Arranges what is held anew, as another video.
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
