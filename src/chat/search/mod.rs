//! Finds the part of a video that a question is about: by asking about each part alone, or by the time that the
//! question names.

mod by_part;
mod by_time;
mod named;

pub(in crate::chat) use by_part::{LEAST_PARTS, PART, Searcher, arranged, parts_of, selected};
pub use by_part::{Question, Search, SearchedPart};
pub(in crate::chat) use by_time::CloserLook;
pub use by_time::Zoom;
