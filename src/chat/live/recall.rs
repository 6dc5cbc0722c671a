//! Recall: parts of live video that are remembered for search, in addition to the held frames.
//!
//! A search ([`Session::search`](crate::chat::Session::search)) asks about each part of a video alone, so the whole
//! video need not fit in one prompt. Recall keeps the embeddings of parts of live video, a few kilobytes each, in no KV
//! cache. When there are too many parts, the two neighbors in time that differ least become one ([`Segments`]). So an
//! event of seconds stays, however long ago it was, while a long stretch with few changes becomes a single part.

use super::arrangement::LiveArrangement;
use crate::chat::encoded::{EncodedSlice, EncodedVideo};
use crate::chat::engine::Engine;
use crate::chat::search::{PART, arranged, selected};
use crate::error::Result;
use crate::prune::PruneParams;
use crate::video::{Frame, Segments, Thumbnail, VideoInfo};
use std::sync::Arc;

/// A part of a video that can be asked about alone.
#[derive(Debug, Clone)]
pub(super) struct RecalledPart {
    pub video: Arc<EncodedVideo>,
    /// The time of its last frame, in seconds.
    pub end_s: f64,
}

/// The slices of a part that is not complete yet.
#[derive(Debug, Clone, Default)]
pub(super) struct OpenPart {
    /// The slices, without embeddings.
    pub slices: Vec<EncodedSlice>,
    /// The embeddings of all of their tokens, before pruning.
    pub unpruned: Vec<Vec<f32>>,
    image: Option<Thumbnail>,
}

impl OpenPart {
    /// Adds a slice: its frames, the slice, and the embeddings of all of its tokens.
    pub fn push(&mut self, frames: &[Frame], slice: EncodedSlice, all: Vec<f32>) {
        let before = self.times().count();
        for (i, frame) in frames.iter().enumerate() {
            let image = Thumbnail::of(frame);
            self.image = Some(match self.image.take() {
                Some(mean) => mean.mean((before + i) as f64, &image, 1.0),
                None => image,
            });
        }
        self.slices.push(EncodedSlice { kept: Vec::new(), rows: Vec::new(), ..slice });
        self.unpruned.push(all);
    }

    /// The times of their frames, in seconds.
    pub fn times(&self) -> impl Iterator<Item = f64> {
        self.slices.iter().flat_map(|slice| slice.times_s.iter().copied())
    }
}

/// The parts that are remembered.
#[derive(Debug)]
pub(super) struct Recall {
    parts: Segments<RecalledPart>,
    pub open: OpenPart,
}

impl Recall {
    /// Remembers at most `parts` parts, 1 or more.
    pub fn new(parts: usize) -> Self {
        Self { parts: Segments::new(parts), open: OpenPart::default() }
    }

    /// Whether the slices since the last part make a part.
    pub fn is_complete(&self) -> bool {
        self.open.slices.len() >= PART
    }

    /// Adds the part that was made of the slices since the last part.
    pub fn close(&mut self, part: RecalledPart) {
        let open = std::mem::take(&mut self.open);
        if let Some(image) = open.image {
            self.parts.push(part, image);
        }
    }

    /// The parts, ordered by time.
    pub fn parts(&self) -> impl ExactSizeIterator<Item = &RecalledPart> {
        self.parts.items()
    }

    /// The number of remembered frames, including those of the incomplete part.
    pub fn frames(&self) -> usize {
        self.open.times().count() + self.parts().map(|part| part.video.arrangement.n_frames.0).sum::<usize>()
    }

    /// Bytes of the remembered embeddings.
    pub fn bytes(&self) -> usize {
        let slices = self.parts().flat_map(|part| &part.video.slices).map(|slice| slice.rows.capacity());
        let open = self.open.unpruned.iter().map(Vec::capacity);
        size_of::<f32>() * slices.chain(open).sum::<usize>()
    }
}

/// Makes a part of the slices of `open`.
pub(super) fn part_of(
    engine: &Engine,
    prune: &PruneParams,
    arrangement: &LiveArrangement,
    info: &VideoInfo,
    open: &OpenPart,
) -> Result<RecalledPart> {
    let times: Vec<f64> = open.times().collect();
    let end_s = times.last().copied().unwrap_or(0.0);
    let info = VideoInfo { duration_s: Some(end_s), ..info.clone() };
    let arrangement = arranged(engine, &info, arrangement.of_slice().image_size, &times);
    let OpenPart { slices, unpruned, .. } = open.clone();
    let empty = EncodedVideo::empty(&engine.model, &engine.vision, &info, arrangement)?;
    let part = EncodedVideo { slices, unpruned, ..empty };
    Ok(RecalledPart { video: selected(engine, prune, part)?, end_s })
}
