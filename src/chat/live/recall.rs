//! What is remembered of video that went by, beside what is held.
//!
//! Questions about the whole of a long video are answered part by part
//! ([`Session::search`](crate::chat::Session::search)), and for that nothing of it has to be in the prompt. So of video
//! that goes on, parts stay whose tokens are known, and in no KV cache: a few kilobytes each. When there are too many,
//! neighbors in time that differ least become one ([`Segments`]). So what was seen for seconds stays, however long ago,
//! while what hardly changes comes to a single part.

use crate::chat::encoded::{EncodedSlice, EncodedVideo};
use crate::chat::search::PART;
use crate::video::{Frame, Segments, Thumbnail};
use std::sync::Arc;

/// A part of a video that can be asked about alone.
#[derive(Debug, Clone)]
pub(super) struct RecalledPart {
    pub video: Arc<EncodedVideo>,
    /// When its last frame was shown, in seconds.
    pub end_s: f64,
}

/// The slices of a part that is not complete yet.
#[derive(Debug, Clone, Default)]
pub(super) struct OpenPart {
    /// Without tokens.
    pub slices: Vec<EncodedSlice>,
    /// All of their tokens' embeddings.
    pub unpruned: Vec<Vec<f32>>,
    image: Option<Thumbnail>,
}

impl OpenPart {
    /// Adds a slice: its frames, what is known of it, and the embeddings of all of its tokens.
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

    /// The moments of their frames, in seconds.
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
    /// Of at most so many parts, 1 or more.
    pub fn new(parts: usize) -> Self {
        Self { parts: Segments::new(parts), open: OpenPart::default() }
    }

    /// Whether the slices since the last part are one.
    pub fn is_complete(&self) -> bool {
        self.open.slices.len() >= PART
    }

    /// Adds the part that the slices since the last one came to.
    pub fn close(&mut self, part: RecalledPart) {
        let open = std::mem::take(&mut self.open);
        if let Some(image) = open.image {
            self.parts.push(part, image);
        }
    }

    /// The parts, in the order of time.
    pub fn parts(&self) -> impl ExactSizeIterator<Item = &RecalledPart> {
        self.parts.items()
    }

    /// The frames in them, those that are no part yet included.
    pub fn frames(&self) -> usize {
        self.open.times().count() + self.parts().map(|part| part.video.arrangement.n_frames.0).sum::<usize>()
    }

    /// Bytes of their embeddings.
    pub fn bytes(&self) -> usize {
        let slices = self.parts().flat_map(|part| &part.video.slices).map(|slice| slice.rows.capacity());
        let open = self.open.unpruned.iter().map(Vec::capacity);
        size_of::<f32>() * slices.chain(open).sum::<usize>()
    }
}
