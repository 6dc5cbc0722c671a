//! The video that grows, and which of its slices are held.

use super::policy::Held;
use super::script::{Script, Told};
use crate::chat::video::{EncodedSlice, EncodedVideo, VideoId};
use crate::layout::{Layout, SliceTime};

/// What belongs to the slices of an [`EncodedVideo`] since the last rebase.
#[derive(Debug)]
pub(super) struct Reel {
    script: Script,
    told: Told,
    mrope: bool,
    /// When each slice of the video is, whether it is held or not.
    times: Vec<SliceTime>,
    /// The slices that are held, oldest first.
    held: Vec<Held>,
}

impl Reel {
    /// Without slices.
    pub fn new(script: Script, told: Told, mrope: bool) -> Self {
        Self { script, told, mrope, times: Vec::new(), held: Vec::new() }
    }

    /// How slices are encoded.
    pub fn script(&self) -> &Script {
        &self.script
    }

    /// The slices that are held, oldest first.
    pub fn held(&self) -> &[Held] {
        &self.held
    }

    /// Slices since the last rebase.
    pub fn n_slices(&self) -> usize {
        self.times.len()
    }

    /// Adds a slice of which something is kept to `video`.
    pub fn push(
        &mut self,
        video: &mut EncodedVideo,
        layout: &dyn Layout,
        slice: EncodedSlice,
        (time, novelty): (SliceTime, f32),
    ) {
        let frames = self.script.frame().frames_per_slice;
        let (index, kept) = (video.slices.len(), slice.kept.len());
        self.held.push(Held { slice: index, time_s: time.last_s, kept, novelty, frames });
        self.times.push(time);
        video.slices.push(slice);
        video.arrangement = self.script.arrangement(layout, &self.times);
    }

    /// Lets the held slices at these places (ascending) leave: they are empty from then on. Returns how many frames
    /// these are.
    pub fn evict(&mut self, video: &mut EncodedVideo, places: &[usize]) -> usize {
        let mut frames = 0;
        for &place in places.iter().rev() {
            let gone = self.held.remove(place);
            frames += gone.frames;
            if let Some(slice) = video.slices.get_mut(gone.slice) {
                // Not `clear`: their memory has to go.
                (slice.kept, slice.rows, slice.unfinished) = Default::default();
                (slice.cells, slice.notes) = (None, None);
                slice.has_left = true;
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
        self.script = Script::new(layout, &video.info, self.told, start_s, self.mrope);
        (self.times, video.slices) = (times, slices);
        video.arrangement = self.script.arrangement(layout, &self.times);
        video.id = VideoId::new();
    }
}
