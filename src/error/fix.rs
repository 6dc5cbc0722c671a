//! What can be done about an error, as data.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What a user can do about an [`Error`](super::Error): see [`Error::fixes`](super::Error::fixes).
///
/// Its text is for people who do not know how a program is told so: a program adds its own word for it, a button or an
/// option.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Fix {
    /// Take no more frames of the video than this.
    MaxFrames(usize),
    /// Take fewer frames of the videos.
    FewerFrames,
    /// Keep fewer visual tokens.
    KeepFewer,
    /// Give the context this many cells.
    CtxSize(usize),
    /// Give the context more cells.
    LargerCtx,
    /// Keep the keys and values of the KV cache in a smaller type.
    QuantizeKv,
    /// Ask a shorter question.
    ShorterQuestion,
    /// Begin a new conversation.
    NewConversation,
    /// Fetch the model of this name.
    Pull(String),
    /// Say which multimodal projector to use.
    NameMmproj,
    /// Give each model file in its own place: language model, multimodal projector, adapter.
    SortModelFiles,
    /// Leave it to llama.cpp whether it can use the file. It ends the process where it cannot.
    SkipCheck,
    /// Read what llama.cpp logs.
    ReadLog,
    /// Measure in which layers the model can do without its visual tokens.
    MeasureLayers,
    /// Measure what is to be drawn.
    Measure,
    /// Start a server that computes, on the other machine.
    StartRpcServer,
}

impl fmt::Display for Fix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MaxFrames(n) => write!(f, "take at most {n} of its frames"),
            Self::FewerFrames => f.write_str("take fewer frames"),
            Self::KeepFewer => f.write_str("keep fewer visual tokens"),
            Self::CtxSize(cells) => write!(f, "give the context {cells} cells"),
            Self::LargerCtx => f.write_str("give the context more cells"),
            Self::QuantizeKv => f.write_str("quantize the KV cache"),
            Self::ShorterQuestion => f.write_str("ask a shorter question"),
            Self::NewConversation => f.write_str("begin a new conversation"),
            Self::Pull(name) => write!(f, "fetch {name} first"),
            Self::NameMmproj => f.write_str("name the one to use"),
            Self::SortModelFiles => f.write_str("give each file in its own place"),
            Self::SkipCheck => f.write_str("leave the check out, where llama.cpp is known to load the file"),
            Self::ReadLog => f.write_str("read llama.cpp's log"),
            Self::MeasureLayers => f.write_str("measure the model's layers anew"),
            Self::Measure => f.write_str("evaluate or benchmark the model first"),
            Self::StartRpcServer => f.write_str("start a server there"),
        }
    }
}

/// `fixes` in a sentence: `do this, or that`.
pub(super) fn in_words(fixes: &[Fix]) -> String {
    fixes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", or ")
}
