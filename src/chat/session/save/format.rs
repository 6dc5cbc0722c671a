//! The format of the file. It is written and read completely or not at all.
//!
//! ```text
//! magic, 8 bytes | version, u32 | length of the header, u64 | header, JSON
//! embeddings of the kept visual tokens, f32 | state of the KV cache | states of its checkpoints
//! SHA-256 of everything before
//! ```
//!
//! Numbers are little-endian. The header has the lengths of the parts after it, and the model and the settings that
//! they belong to. The state is that of [`Context::state`](crate::runtime::Context::state), which depends on the
//! version of llama.cpp: [`VERSION`] must grow with it.

use super::rejected::Rejected;
use crate::chat::cache::checkpoints::{After, Checkpoint};
use crate::chat::cache::evict::{Choice, EvictMode, Tail};
use crate::chat::conversation::message::Message;
use crate::chat::encoded::EncodedVideo;
use crate::chat::encoded::arrangement::Arrangement;
use crate::chat::rows::PlannedRow;
use crate::error::{Error, Result};
use crate::video::VideoInfo;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"sharpv\0S";
const VERSION: u32 = 7;
/// Magic, version, length of the header.
const START: u64 = 8 + 4 + 8;
const CHECKSUM: u64 = 32;

#[derive(Serialize, Deserialize)]
pub struct Header {
    /// What a session must have to load the file: names and values, readable in errors.
    pub fits: Vec<(String, String)>,
    pub marks: String,
    pub system: Option<String>,
    pub messages: Vec<Message>,
    pub videos: Vec<SavedVideo>,
    pub videos_sent: usize,
    pub cached: Vec<PlannedRow>,
    pub evicted: SavedEvicted,
    pub dense_rows: u32,
    /// Cells of the context.
    pub n_ctx: usize,
    pub embeddings_bytes: u64,
    /// 0 if there was no context.
    pub state_bytes: u64,
    /// The checkpoints of the cache, whose states follow that of the context.
    pub checkpoints: Vec<SavedCheckpoint>,
}

#[derive(Serialize, Deserialize)]
pub struct SavedCheckpoint {
    /// How many rows of `cached` were computed.
    pub rows: usize,
    pub after: After,
    pub bytes: u64,
}

impl SavedCheckpoint {
    pub fn of(checkpoint: &Checkpoint) -> Self {
        Self { rows: checkpoint.rows, after: checkpoint.after, bytes: checkpoint.state.len() as u64 }
    }

    /// The checkpoint with its `state`.
    pub fn with(&self, state: Vec<u8>) -> Checkpoint {
        Checkpoint { rows: self.rows, after: self.after, state }
    }
}

/// The parts of a file after its header.
#[derive(Debug, Default)]
pub struct Parts {
    /// The embeddings of all videos.
    pub embeddings: Vec<u8>,
    /// The state of the context.
    pub state: Vec<u8>,
    /// The states of the checkpoints.
    pub checkpoints: Vec<Vec<u8>>,
}

#[derive(Serialize, Deserialize)]
pub struct SavedVideo {
    pub info: VideoInfo,
    pub arrangement: Arrangement,
    pub slices: Vec<SavedSlice>,
}

#[derive(Serialize, Deserialize)]
pub struct SavedSlice {
    /// The times of its frames, in seconds.
    pub times_s: Vec<f64>,
    pub n_tokens: usize,
    pub kept: Vec<u32>,
    /// The share of its encoding that was computed.
    pub computed: f32,
}

#[derive(Serialize, Deserialize)]
pub struct SavedEvicted {
    pub mode: EvictMode,
    /// The indices of the rows of `cached` that were evicted from all layers, ascending.
    pub rows: Vec<usize>,
    pub pending: Option<Tail>,
    /// `null` for NaN.
    pub similarity: Vec<Option<f32>>,
    pub n_measured: usize,
    pub calibrated: Option<Choice>,
}

/// Writes a temporary file next to the target and renames it, so that a truncated file never has the target's name.
pub fn write(
    path: &Path,
    header: &[u8],
    videos: &[Arc<EncodedVideo>],
    state: &[u8],
    checkpoints: &[Checkpoint],
) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = tempfile::Builder::new().prefix(".sharpv-").tempfile_in(folder)?;
    let mut out = HashWriter { inner: BufWriter::new(file), hasher: Sha256::new() };
    out.write_all(MAGIC)?;
    out.write_all(&VERSION.to_le_bytes())?;
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(header)?;
    for slice in videos.iter().flat_map(|video| &video.slices) {
        let bytes: Vec<u8> = slice.rows.iter().flat_map(|value| value.to_le_bytes()).collect();
        out.write_all(&bytes)?;
    }
    out.write_all(state)?;
    checkpoints.iter().try_for_each(|checkpoint| out.write_all(&checkpoint.state))?;
    let HashWriter { mut inner, hasher } = out;
    inner.write_all(hasher.finalize().as_slice())?;
    let file = inner.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Fails if `path` is a file other than a saved session, so that a typing error does not cost a video.
pub fn check_target(path: &Path) -> Result<()> {
    let io = |error| Error::io("saving the session", path)(error);
    let meta = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        meta => meta.map_err(io)?,
    };
    let is_session = meta.is_file() && {
        let mut start = Vec::new();
        File::open(path).map_err(io)?.take(MAGIC.len() as u64).read_to_end(&mut start).map_err(io)?;
        start.is_empty() || start == MAGIC
    };
    if is_session {
        return Ok(());
    }
    let reason = "it exists and is not a saved session".to_owned();
    Err(Rejected { reason, advice: "choose another name".into() }.at(path))
}

/// Returns the header and the other parts of the file at `path`, after checking its checksum.
pub fn read(path: &Path) -> Result<(Header, Parts)> {
    const ACTION: &str = "opening the saved session";
    let meta = fs::metadata(path).map_err(Error::io(ACTION, path))?;
    // Reading a pipe would wait, and a device has no end.
    if !meta.is_file() {
        return Err(Rejected::other_file().at(path));
    }
    let file = File::open(path).map_err(Error::io(ACTION, path))?;
    let input = BufReader::new(file);
    parse(HashReader { inner: input, hasher: Sha256::new(), left: meta.len(), path: path.to_owned() })
}

fn parse<R: Read>(mut file: HashReader<R>) -> Result<(Header, Parts)> {
    let path = file.path.clone();
    let damaged = || Rejected::damaged().at(&path);
    let length = file.left;
    let magic = file.bytes(length.min(MAGIC.len() as u64))?;
    if magic.is_empty() || !MAGIC.starts_with(&magic) {
        return Err(Rejected::other_file().at(&path));
    }
    let version = u32::from_le_bytes(file.array()?);
    if version != VERSION {
        let rejected = Rejected {
            reason: format!(
                "the saved session has format {version}, and this version of sharpv reads format {VERSION}"
            ),
            advice: "load it with the version of sharpv that saved it".into(),
        };
        return Err(rejected.at(&path));
    }
    let header_bytes = u64::from_le_bytes(file.array()?);
    let header: Header = serde_json::from_slice(&file.bytes(header_bytes)?).map_err(|_| damaged())?;
    let parts = [START, header_bytes, header.embeddings_bytes, header.state_bytes, CHECKSUM];
    let checkpoints = header.checkpoints.iter().map(|checkpoint| &checkpoint.bytes);
    let expected =
        parts.iter().chain(checkpoints).try_fold(0_u64, |sum, &part| sum.checked_add(part)).ok_or_else(damaged)?;
    if expected > length {
        return Err(Rejected::truncated().at(&path));
    }
    if expected < length {
        return Err(damaged());
    }
    let embeddings = file.bytes(header.embeddings_bytes)?;
    let state = file.bytes(header.state_bytes)?;
    let checkpoints =
        header.checkpoints.iter().map(|checkpoint| file.bytes(checkpoint.bytes)).collect::<Result<_>>()?;
    let computed = file.hasher.clone().finalize();
    let checksum: [u8; CHECKSUM as usize] = file.array()?;
    if computed.as_slice() != checksum {
        return Err(damaged());
    }
    Ok((header, Parts { embeddings, state, checkpoints }))
}

/// See [`crate::fuzzing`].
#[cfg(all(any(test, fuzzing), feature = "lab"))]
pub(crate) fn fuzz_saved_session(bytes: &[u8]) {
    let whole = [bytes, Sha256::digest(bytes).as_slice()].concat();
    let (left, path) = (whole.len() as u64, PathBuf::from("fuzz.session"));
    let _ = parse(HashReader { inner: &whole[..], hasher: Sha256::new(), left, path });
}

struct HashWriter<W> {
    inner: W,
    hasher: Sha256,
}

impl<W: Write> Write for HashWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

struct HashReader<R> {
    inner: R,
    hasher: Sha256,
    /// Bytes of the file that are not read yet.
    left: u64,
    path: PathBuf,
}

impl<R: Read> HashReader<R> {
    /// Returns the next `n` bytes. Allocates nothing if the file has fewer.
    fn bytes(&mut self, n: u64) -> Result<Vec<u8>> {
        let truncated = || Rejected::truncated().at(&self.path);
        let capacity = usize::try_from(n).ok().filter(|_| n <= self.left).ok_or_else(truncated)?;
        let mut bytes = Vec::with_capacity(capacity);
        let io = Error::io("reading the saved session", &self.path);
        self.inner.by_ref().take(n).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() != capacity {
            return Err(truncated());
        }
        self.left -= n;
        self.hasher.update(&bytes);
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.bytes(N as u64)?;
        bytes.try_into().map_err(|_| Rejected::truncated().at(&self.path))
    }
}
