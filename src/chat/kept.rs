//! Which visual tokens are kept, one by one.

use super::session::Session;

/// The visual tokens of a frame, or of a merged pair of frames: see [`Session::kept_tokens`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct KeptTokens<'a> {
    /// Its time in the video, in seconds.
    pub time_s: f64,
    /// Its visual tokens.
    pub total: usize,
    /// Those that are kept: their places in the encoder's grid, row by row from the top left, ascending.
    pub kept: &'a [u32],
}

impl Session {
    /// The visual tokens that are kept of video number `video`, frame by frame; none if there is no such video. For
    /// drawing them over the frames.
    pub fn kept_tokens(&self, video: usize) -> impl ExactSizeIterator<Item = KeptTokens<'_>> {
        let slices = self.conversation.videos.get(video).map_or(&[][..], |video| &video.slices[..]);
        slices.iter().map(|slice| KeptTokens { time_s: slice.time_s(), total: slice.n_tokens, kept: &slice.kept })
    }
}
