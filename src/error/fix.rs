//! What a user can do about an error, as data.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What a user can do about an [`Error`](super::Error): see [`Error::fixes`](super::Error::fixes).
///
/// Its text names no option or button, because the library does not know them: a program adds its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Fix {
    /// Take at most this many frames of the video.
    MaxFrames(usize),
    /// Take fewer frames of the videos.
    FewerFrames,
    /// Keep fewer visual tokens.
    KeepFewer,
    /// Use a context of this many cells.
    CtxSize(usize),
    /// Use a larger context.
    LargerCtx,
    /// Use a smaller type for the keys and values of the KV cache.
    QuantizeKv,
    /// Ask a shorter question.
    ShorterQuestion,
    /// Start a new conversation.
    NewConversation,
    /// Download the model of this name.
    Pull(String),
    /// Name the multimodal projector to use.
    NameMmproj,
    /// Pass each model file as what it is: language model, multimodal projector or adapter.
    SortModelFiles,
    /// Skip the check, and let llama.cpp load the file. llama.cpp ends the process if it cannot use the file.
    SkipCheck,
    /// Read llama.cpp's log.
    ReadLog,
    /// Measure which layers can do without visual tokens.
    MeasureLayers,
    /// Run the evaluation or benchmark whose results are to be drawn.
    Measure,
    /// Start an RPC server on the other machine.
    StartRpcServer,
    /// Have the model not think.
    NoThinking,
    /// Leave it to the model whether it thinks.
    DefaultThinking,
    /// Tell the chat template something else.
    OtherKwargs,
    /// Use another chat template.
    OtherTemplate,
}

impl fmt::Display for Fix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MaxFrames(n) => write!(f, "take at most {n} of its frames"),
            Self::FewerFrames => f.write_str("take fewer frames"),
            Self::KeepFewer => f.write_str("keep fewer visual tokens"),
            Self::CtxSize(cells) => write!(f, "use a context of {cells} cells"),
            Self::LargerCtx => f.write_str("use a larger context"),
            Self::QuantizeKv => f.write_str("quantize the KV cache"),
            Self::ShorterQuestion => f.write_str("ask a shorter question"),
            Self::NewConversation => f.write_str("start a new conversation"),
            Self::Pull(name) => write!(f, "download {name} first"),
            Self::NameMmproj => f.write_str("name the one to use"),
            Self::SortModelFiles => f.write_str("pass each file as what it is"),
            Self::SkipCheck => f.write_str("skip the check if you know that llama.cpp loads the file"),
            Self::ReadLog => f.write_str("read llama.cpp's log"),
            Self::MeasureLayers => f.write_str("measure the model's layers again"),
            Self::Measure => f.write_str("evaluate or benchmark the model first"),
            Self::StartRpcServer => f.write_str("start a server there"),
            Self::NoThinking => f.write_str("turn thinking off"),
            Self::DefaultThinking => f.write_str("leave thinking to the model"),
            Self::OtherKwargs => f.write_str("tell it something else"),
            Self::OtherTemplate => f.write_str("use another template"),
        }
    }
}

/// `fixes` as part of a sentence: `do this, or that`.
pub(super) fn in_words(fixes: &[Fix]) -> String {
    fixes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", or ")
}
