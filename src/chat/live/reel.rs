//! The video that grows, and which of its slices are held.

use super::policy::{Held, newest};
use super::script::{Script, Told};
use crate::chat::video::{EncodedSlice, EncodedVideo, VideoId};
use crate::layout::{Layout, SliceTime};
use crate::prune::DistinctTokens;
use std::ops::Range;

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
    /// Their tokens, in the same order, if these leave one by one.
    distinct: Option<DistinctTokens>,
}

/// A slice of which less is held than before.
#[derive(Debug)]
pub(super) struct Thinned {
    /// Its index in the arrangement.
    pub slice: usize,
    /// Which of its tokens left, ascending, counted among those that had been kept.
    pub gone: Vec<usize>,
}

/// A frame of which no more tokens than this are left is not worth the text around it.
const TOO_FEW: usize = 2;

impl Reel {
    /// Without slices. With `distinct`, tokens leave one by one.
    pub fn new(script: Script, told: Told, mrope: bool, distinct: Option<DistinctTokens>) -> Self {
        Self { script, told, mrope, times: Vec::new(), held: Vec::new(), distinct }
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
        if let Some(distinct) = &mut self.distinct {
            distinct.push(&slice.rows);
        }
        self.times.push(time);
        video.slices.push(slice);
        video.arrangement = self.script.arrangement(layout, &self.times);
    }

    /// Lets the held slices at these places (ascending) leave: they are empty from then on. Returns how many frames
    /// these are.
    pub fn evict(&mut self, video: &mut EncodedVideo, places: &[usize]) -> usize {
        let mut frames = 0;
        if let Some(distinct) = self.distinct.as_mut().filter(|_| !places.is_empty()) {
            let tokens = tokens_of(&self.held).collect::<Vec<_>>();
            distinct.remove(places.iter().flat_map(|&place| tokens[place].clone()));
        }
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

    /// Lets single tokens leave until at most `tokens` are held, but none of the newest `recent` frames; then slices of
    /// which too little is left. Returns what became less, and how many frames left whole.
    pub fn thin(&mut self, video: &mut EncodedVideo, tokens: usize, recent: usize) -> (Vec<Thinned>, usize) {
        let Some(distinct) = &mut self.distinct else { return (Vec::new(), 0) };
        let newest: usize = self.held.iter().rev().take(newest(&self.held, recent)).map(|held| held.kept).sum();
        let gone = distinct.thin(tokens, newest);
        let mut left = gone.as_slice();
        let (mut thinned, mut empty) = (Vec::new(), Vec::new());
        let ranges = tokens_of(&self.held).collect::<Vec<_>>();
        for (place, (held, range)) in self.held.iter_mut().zip(ranges).enumerate() {
            let (here, behind) = left.split_at(left.partition_point(|&token| token < range.end));
            left = behind;
            if here.is_empty() {
                continue;
            }
            let gone: Vec<usize> = here.iter().map(|token| token - range.start).collect();
            held.kept -= gone.len();
            if held.kept <= TOO_FEW {
                empty.push(place);
            } else {
                thinned.push(Thinned { slice: held.slice, gone: gone.clone() });
            }
            if let Some(slice) = video.slices.get_mut(held.slice) {
                leave(slice, &gone);
            }
        }
        let frames = self.evict(video, &empty);
        (thinned, frames)
    }

    /// Bytes that are held beside the video, to compare tokens.
    pub fn bytes(&self) -> usize {
        self.distinct.as_ref().map_or(0, DistinctTokens::bytes)
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

/// The tokens of each slice that is held, counted over all of them.
fn tokens_of(held: &[Held]) -> impl Iterator<Item = Range<usize>> {
    held.iter().scan(0, |end, held| {
        let start = *end;
        *end += held.kept;
        Some(start..*end)
    })
}

/// Lets tokens leave a slice: ascending, counted among those that are kept.
fn leave(slice: &mut EncodedSlice, gone: &[usize]) {
    let width = slice.rows.len() / slice.kept.len().max(1);
    let stays = |index: &usize| gone.binary_search(index).is_err();
    let kept: Vec<usize> = (0..slice.kept.len()).filter(stays).collect();
    let rows = kept.iter().filter_map(|&index| slice.rows.get(index * width..(index + 1) * width));
    // Not in place: the memory of what left has to go.
    let rows = rows.flatten().copied().collect();
    slice.kept = kept.iter().filter_map(|&index| slice.kept.get(index).copied()).collect();
    slice.rows = rows;
}
