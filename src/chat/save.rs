//! A session in a file: saved, and restored in another process.
//!
//! ```text
//! magic, 8 bytes | version, u32 | length of the header, u64 | header, JSON
//! embeddings of the kept visual tokens, f32 | state of the KV cache | SHA-256 of everything before
//! ```
//!
//! Numbers are little-endian. The header tells how long the two parts behind it are, and which model and settings they are of. The state is
//! what [`Context::state`] gives: it depends on the version of llama.cpp, and [`VERSION`] has to grow with it.
//!
//! The checksum finds damage, not malice: every index and length of the header is checked as well before it is used. The state is llama.cpp's
//! to check, which stops the process at some of what only a forger would write (a negative position).

use super::arrangement::Arrangement;
use super::encode::{EncodeTimings, EncodedSlice, EncodedVideo};
use super::evict::{Choice, EvictMode, Evicted, Tail};
use super::plan::{Marks, PlannedRow, RowKey};
use super::template::Message;
use super::{Session, no_context};
use crate::error::{Error, Result};
use crate::models;
use crate::runtime::{Context, FlashAttention, LoraAdapter, Similarity};
use crate::video::VideoInfo;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::mem::{swap, take};
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 8] = b"sharpv\0S";
const VERSION: u32 = 3;
/// Magic, version, length of the header.
const START: u64 = 8 + 4 + 8;
const CHECKSUM: u64 = 32;

#[derive(Serialize, Deserialize)]
struct Header {
    /// What the file fits: names and values, for people to read.
    fits: Vec<(String, String)>,
    marks: String,
    system: Option<String>,
    messages: Vec<Message>,
    videos: Vec<SavedVideo>,
    videos_sent: usize,
    cached: Vec<PlannedRow>,
    evicted: SavedEvicted,
    dense_rows: u32,
    /// Cells of the context.
    n_ctx: usize,
    embeddings_bytes: u64,
    /// 0 if there was no context.
    state_bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct SavedVideo {
    info: VideoInfo,
    arrangement: Arrangement,
    slices: Vec<SavedSlice>,
}

#[derive(Serialize, Deserialize)]
struct SavedSlice {
    time_s: f64,
    n_tokens: usize,
    kept: Vec<u32>,
}

#[derive(Serialize, Deserialize)]
struct SavedEvicted {
    mode: EvictMode,
    tokens: Vec<[i32; 3]>,
    pending: Option<Tail>,
    /// `null` for NaN.
    similarity: Vec<Option<f32>>,
    n_measured: usize,
    calibrated: Option<Choice>,
}

/// Digests of the files that a session was opened with: fine-tunes of one model differ in nothing else.
#[derive(Debug)]
pub(super) struct Fingerprints {
    model: String,
    mmproj: String,
    adapters: Vec<String>,
}

/// What a file puts in the place of what a session holds.
struct Conversation {
    context: Option<Context>,
    marks: Marks,
    system: Option<String>,
    messages: Vec<Message>,
    videos: Vec<EncodedVideo>,
    videos_sent: usize,
    spent: EncodeTimings,
    cached: Vec<PlannedRow>,
    evicted: Evicted,
    dense_rows: usize,
    /// Found out anew with the context.
    bytes_per_cell: u64,
}

impl Conversation {
    fn exchange(&mut self, session: &mut Session) {
        swap(&mut self.context, &mut session.context);
        swap(&mut self.marks, &mut session.marks);
        swap(&mut self.system, &mut session.params.system);
        swap(&mut self.messages, &mut session.messages);
        swap(&mut self.videos, &mut session.videos);
        swap(&mut self.videos_sent, &mut session.videos_sent);
        swap(&mut self.spent, &mut session.spent);
        swap(&mut self.cached, &mut session.cached);
        swap(&mut self.evicted, &mut session.evicted);
        swap(&mut self.dense_rows, &mut session.dense_rows);
        swap(&mut self.bytes_per_cell, &mut session.bytes_per_cell);
    }
}

impl Session {
    /// Writes the session to a file, for [`load`](Self::load): the conversation, the embeddings of the kept visual tokens, and the KV cache
    /// as it is, with what was evicted from it. A file from an earlier call is replaced, in one step when all is written; any other is
    /// left alone.
    ///
    /// The file holds what was said, and what the model saw of the videos, in the clear; on Unix no other user can read it.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written; [`Error::SessionFile`] if something else is there; [`Error::Llama`] if the KV cache
    /// cannot be copied. What was there before is then still there.
    pub fn save(&mut self, path: &Path) -> Result<()> {
        check_target(path)?;
        let (n_ctx, state) = match self.context.as_mut() {
            Some(context) if !self.cached.is_empty() => (context.n_ctx(), context.state()?),
            _ => (0, Vec::new()),
        };
        let header = self.header(n_ctx, state.len() as u64)?;
        let header = serde_json::to_vec(&header).map_err(|e| Error::io("saving the session", path)(e.into()))?;
        self.write(path, &header, &state).map_err(Error::io("saving the session", path))
    }

    /// Goes on with the session that [`save`](Self::save) wrote to a file, in the place of this one's conversation: with the same videos,
    /// without reading, encoding or prefilling them again. The system message is that of the file; all other parameters stay.
    ///
    /// Load only files that you trust: damage is found, but a state of the KV cache that was forged can stop the process.
    ///
    /// This session must have been opened with the same model, mmproj and adapters, the same KV types, and eviction likewise on or off.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; [`Error::SessionFile`] if it is no saved session, cut short, damaged, of another version,
    /// or does not fit this session; [`Error::Llama`] if there is no memory for its KV cache beside that of this session.
    pub fn load(&mut self, path: &Path) -> Result<()> {
        let refused = |refused: Refused| refused.at(path);
        let (header, embeddings, state) = read(path)?;
        check_fits(&self.fits()?, &header.fits).map_err(refused)?;
        let n_ctx = header.n_ctx;
        let mut other = self.conversation(header, &embeddings, !state.is_empty()).map_err(refused)?;
        drop(embeddings);
        other.exchange(self);
        let adopted = self.adopt(path, n_ctx, &state);
        if adopted.is_err() {
            other.exchange(self);
        }
        adopted
    }

    fn header(&self, n_ctx: usize, state_bytes: u64) -> Result<Header> {
        let slice = |s: &EncodedSlice| SavedSlice { time_s: s.time_s, n_tokens: s.n_tokens, kept: s.kept.clone() };
        let video = |v: &EncodedVideo| SavedVideo {
            info: v.info.clone(),
            arrangement: v.arrangement.clone(),
            slices: v.slices.iter().map(slice).collect(),
        };
        let evicted = &self.evicted;
        // Without a state there is nothing in the cache, and nothing that left it.
        let in_cache = state_bytes > 0;
        let mut tokens: Vec<[i32; 3]> = evicted.tokens.iter().filter(|_| in_cache).copied().collect();
        tokens.sort_unstable();
        let floats: usize = self.videos.iter().flat_map(|v| &v.slices).map(|s| s.rows.len()).sum();
        Ok(Header {
            fits: self.fits()?,
            marks: self.marks.prefix().to_owned(),
            system: self.params.system.clone(),
            messages: self.messages.clone(),
            videos: self.videos.iter().map(video).collect(),
            videos_sent: self.videos_sent,
            cached: if in_cache { self.cached.clone() } else { Vec::new() },
            evicted: SavedEvicted {
                mode: self.evict_mode(),
                tokens,
                pending: evicted.pending.clone().filter(|_| in_cache),
                similarity: evicted.similarity.layers.iter().map(|&s| Some(s).filter(|s| s.is_finite())).collect(),
                n_measured: evicted.similarity.n_tokens,
                calibrated: evicted.calibrated.clone(),
            },
            dense_rows: u32::try_from(self.dense_rows).unwrap_or(u32::MAX),
            n_ctx,
            embeddings_bytes: 4 * floats as u64,
            state_bytes,
        })
    }

    /// Writes beside the target first: a file that is cut short never has its name.
    fn write(&self, path: &Path, header: &[u8], state: &[u8]) -> io::Result<()> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = tempfile::Builder::new().prefix(".sharpv-").tempfile_in(folder)?;
        let mut out = HashWriter { inner: BufWriter::new(file), hasher: Sha256::new() };
        out.write_all(MAGIC)?;
        out.write_all(&VERSION.to_le_bytes())?;
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(header)?;
        for slice in self.videos.iter().flat_map(|video| &video.slices) {
            let bytes: Vec<u8> = slice.rows.iter().flat_map(|value| value.to_le_bytes()).collect();
            out.write_all(&bytes)?;
        }
        out.write_all(state)?;
        let HashWriter { mut inner, hasher } = out;
        inner.write_all(hasher.finalize().as_slice())?;
        let file = inner.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }

    /// Everything that the embeddings and the KV state of this session depend on.
    fn fits(&self) -> Result<Vec<(String, String)>> {
        let weights = self.fingerprints()?;
        let size = |path: &Path| fs::metadata(path).map_or(0, |meta| meta.len());
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let adapters: Vec<String> = (self.adapters.iter().map(LoraAdapter::path).zip(&weights.adapters))
            .map(|(path, weights)| format!("{} ({} bytes, {weights})", name(path), size(path)))
            .collect();
        let context = &self.params.context;
        let on_off = |on| String::from(if on { "on" } else { "off" });
        let model = &self.model;
        let fits = [
            ("the model", model.description()),
            ("model layers", model.n_layer().to_string()),
            ("model width", model.n_embd().to_string()),
            ("embedding width", model.n_embd_inp().to_string()),
            ("vocabulary size", model.n_vocab().to_string()),
            ("model bytes", model.size_bytes().to_string()),
            ("mmproj bytes", size(self.vision.path()).to_string()),
            ("model weights", weights.model.clone()),
            ("mmproj weights", weights.mmproj.clone()),
            ("LoRA adapters", if adapters.is_empty() { "none".into() } else { adapters.join(", ") }),
            ("KV types", format!("{}/{}", context.type_k.name(), context.type_v.name())),
            ("eviction", on_off(self.evict_mode() != EvictMode::Off)),
            // Where `auto` finds that the device cannot, llama.cpp tells.
            ("flash attention", on_off(context.flash_attention != FlashAttention::Off)),
        ];
        Ok(fits.map(|(name, value)| (name.to_owned(), value)).into())
    }

    fn fingerprints(&self) -> Result<&Fingerprints> {
        if let Some(known) = self.fingerprints.get() {
            return Ok(known);
        }
        let adapters = self.adapters.iter().map(|adapter| models::fingerprint(adapter.path()));
        let found = Fingerprints {
            model: models::fingerprint(self.model.path())?,
            mmproj: models::fingerprint(self.vision.path())?,
            adapters: adapters.collect::<Result<_>>()?,
        };
        Ok(self.fingerprints.get_or_init(|| found))
    }

    /// Checks what was read, as far as it can be without a context. `in_cache`: there is a state of the KV cache.
    fn conversation(
        &self,
        header: Header,
        embeddings: &[u8],
        in_cache: bool,
    ) -> std::result::Result<Conversation, Refused> {
        let damaged = Refused::damaged;
        let n_layer = self.model.n_layer();
        let videos = videos(header.videos, embeddings, self.model.n_embd_inp()).ok_or_else(damaged)?;
        let evicted = header.evicted;
        let rows = Rows {
            videos: &videos,
            n_vocab: self.model.n_vocab(),
            n_positions: self.model.n_ctx_train(),
            has_newline: self.newline.is_some(),
        };
        // A tail without a question cannot be looked at.
        let pending = evicted.pending.filter(|tail| !tail.question.is_empty());
        let good = header.videos_sent <= videos.len()
            && in_cache != header.cached.is_empty()
            && (in_cache || (evicted.tokens.is_empty() && pending.is_none()))
            && evicted.tokens.len() <= header.cached.len()
            && [0, n_layer].contains(&evicted.similarity.len())
            && rows.are_good(&header.cached)
            && pending.iter().all(|tail| rows.are_good(&tail.question) && rows.are_good(&tail.describe))
            && match &evicted.calibrated {
                Some(Choice::Layers(layers)) => layers.len() == n_layer,
                Some(Choice::Tokens(threshold)) => threshold.is_finite(),
                None => true,
            };
        if !good {
            return Err(damaged());
        }
        let same_mode = evicted.mode == self.evict_mode();
        Ok(Conversation {
            context: None,
            marks: Marks::with_prefix(header.marks).ok_or_else(damaged)?,
            system: header.system,
            messages: header.messages,
            videos,
            videos_sent: header.videos_sent,
            spent: EncodeTimings::default(),
            cached: header.cached,
            evicted: Evicted {
                tokens: evicted.tokens.into_iter().collect(),
                pending,
                similarity: Similarity {
                    layers: evicted.similarity.into_iter().map(|s| s.unwrap_or(f32::NAN)).collect(),
                    n_tokens: evicted.n_measured,
                },
                // What was found out for layers says nothing of tokens.
                calibrated: evicted.calibrated.filter(|_| same_mode),
            },
            dense_rows: header.dense_rows as usize,
            bytes_per_cell: 0,
        })
    }

    /// Makes what was put in from the file at `path` whole: with a context that holds `state`, unless that is empty.
    fn adopt(&mut self, path: &Path, n_ctx: usize, state: &[u8]) -> Result<()> {
        // Marks, frames and their sizes have to go together.
        match self.plan(&self.user_message("")) {
            Ok(_) | Err(Error::PromptTooLong { .. }) => {}
            Err(error) => return Err(Refused::because(format!("its conversation cannot be used: {error}")).at(path)),
        }
        if state.is_empty() {
            return Ok(());
        }
        let used = self.cells_used();
        let n_ctx = match self.params.n_ctx {
            Some(fixed) if fixed < used => {
                let refused = Refused {
                    reason: format!(
                        "the session takes {used} cells of the KV cache, more than the {fixed} of this one"
                    ),
                    advice: format!("open the session with -c {} or more", used + self.params.n_predict),
                };
                return Err(refused.at(path));
            }
            Some(fixed) => fixed,
            // A file does not make this process allocate what no conversation takes: one that grows gets half as much again.
            None => n_ctx.min(2 * (used + self.params.n_predict)).max(used),
        };
        // A new context empties both.
        let (cached, evicted) = (take(&mut self.cached), take(&mut self.evicted));
        self.resize(n_ctx)?;
        let context = self.context.as_mut().ok_or_else(no_context)?;
        context.set_state(state).map_err(|error| match error {
            Error::Llama { reason, .. } => {
                Refused::because(format!("its KV cache cannot be restored: {}", reason.trim())).at(path)
            }
            error => error,
        })?;
        let last = context.last_position();
        if !cached.iter().any(|row| Some(row.position[0]) == last) {
            return Err(Refused::damaged().at(path));
        }
        (self.cached, self.evicted) = (cached, evicted);
        Ok(())
    }
}

fn check_fits(ours: &[(String, String)], theirs: &[(String, String)]) -> std::result::Result<(), Refused> {
    if !ours.iter().map(|(name, _)| name).eq(theirs.iter().map(|(name, _)| name)) {
        return Err(Refused::damaged());
    }
    match ours.iter().zip(theirs).find(|(ours, theirs)| ours != theirs) {
        None => Ok(()),
        Some(((name, ours), (_, theirs))) => Err(Refused {
            reason: format!("the session was saved with {name} {theirs}, and this one has {ours}"),
            advice: "open the session with the same model and settings".into(),
        }),
    }
}

/// What rows may refer to.
struct Rows<'a> {
    videos: &'a [EncodedVideo],
    n_vocab: usize,
    n_positions: usize,
    has_newline: bool,
}

impl Rows<'_> {
    fn are_good(&self, rows: &[PlannedRow]) -> bool {
        rows.iter().all(|row| self.is_good(row)) && rows.is_sorted_by_key(|row| row.position[0])
    }

    fn is_good(&self, row: &PlannedRow) -> bool {
        let is_below = |value: i32, limit: usize| usize::try_from(value).is_ok_and(|value| value < limit);
        let exists = match row.key {
            RowKey::Token(token) => is_below(token, self.n_vocab),
            RowKey::Visual { video, slice, kept } => {
                let slice = self.videos.get(video).and_then(|video| video.slices.get(slice));
                slice.is_some_and(|slice| kept < slice.kept.len())
            }
            RowKey::Newline => self.has_newline,
        };
        exists && is_below(row.position[0], self.n_positions)
    }
}

/// The videos with their embeddings, rows of `stride` values; `None` if something does not go together.
fn videos(saved: Vec<SavedVideo>, mut embeddings: &[u8], stride: usize) -> Option<Vec<EncodedVideo>> {
    let mut videos = Vec::with_capacity(saved.len());
    for video in saved {
        if !video.arrangement.is_good(video.slices.len()) {
            return None;
        }
        let mut slices = Vec::with_capacity(video.slices.len());
        for SavedSlice { time_s, n_tokens, kept } in video.slices {
            let ascends = kept.is_sorted_by(|a, b| a < b);
            if !ascends || kept.last().is_some_and(|&last| last as usize >= n_tokens) {
                return None;
            }
            let n_bytes = kept.len().checked_mul(stride)?.checked_mul(4)?;
            let (bytes, rest) = embeddings.split_at_checked(n_bytes)?;
            embeddings = rest;
            let (values, _) = bytes.as_chunks::<4>();
            let rows = values.iter().map(|&value| f32::from_le_bytes(value)).collect();
            slices.push(EncodedSlice { time_s, n_tokens, kept, rows });
        }
        videos.push(EncodedVideo {
            info: video.info,
            arrangement: video.arrangement,
            slices,
            timings: EncodeTimings::default(),
            max_kept: None,
            unpruned: Vec::new(),
        });
    }
    embeddings.is_empty().then_some(videos)
}

/// Why a file is not used.
#[derive(Debug)]
struct Refused {
    reason: String,
    advice: String,
}

impl Refused {
    fn because(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), advice: "take another file, or ask about the videos anew".into() }
    }

    fn damaged() -> Self {
        Self::because("the saved session is damaged")
    }

    fn cut_short() -> Self {
        Self::because("the saved session is cut short")
    }

    fn other_file() -> Self {
        Self { reason: "this is no saved session".into(), advice: "give a file that was written by /save".into() }
    }

    fn at(self, path: &Path) -> Error {
        Error::SessionFile { path: path.to_owned(), reason: self.reason, advice: self.advice }
    }
}

/// Refuses to replace what is no session: a typing error must not cost a video.
fn check_target(path: &Path) -> Result<()> {
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
    let reason = "something else than a saved session is there already".to_owned();
    Err(Refused { reason, advice: "give another name".into() }.at(path))
}

/// Header, embeddings and state of the file at `path`, when its checksum is right.
fn read(path: &Path) -> Result<(Header, Vec<u8>, Vec<u8>)> {
    const ACTION: &str = "opening the saved session";
    let meta = fs::metadata(path).map_err(Error::io(ACTION, path))?;
    // A pipe would be waited for, and a device has no end.
    if !meta.is_file() {
        return Err(Refused::other_file().at(path));
    }
    let file = File::open(path).map_err(Error::io(ACTION, path))?;
    let input = BufReader::new(file);
    parse(HashReader { inner: input, hasher: Sha256::new(), left: meta.len(), path: path.to_owned() })
}

fn parse<R: Read>(mut file: HashReader<R>) -> Result<(Header, Vec<u8>, Vec<u8>)> {
    let path = file.path.clone();
    let damaged = || Refused::damaged().at(&path);
    let length = file.left;
    let magic = file.bytes(length.min(MAGIC.len() as u64))?;
    if magic.is_empty() || !MAGIC.starts_with(&magic) {
        return Err(Refused::other_file().at(&path));
    }
    let version = u32::from_le_bytes(file.array()?);
    if version != VERSION {
        let refused = Refused {
            reason: format!(
                "the saved session has format {version}, and this version of sharpv reads format {VERSION}"
            ),
            advice: "load it with the version of sharpv that saved it".into(),
        };
        return Err(refused.at(&path));
    }
    let header_bytes = u64::from_le_bytes(file.array()?);
    let header: Header = serde_json::from_slice(&file.bytes(header_bytes)?).map_err(|_| damaged())?;
    let parts = [START, header_bytes, header.embeddings_bytes, header.state_bytes, CHECKSUM];
    let expected = parts.iter().try_fold(0_u64, |sum, &part| sum.checked_add(part)).ok_or_else(damaged)?;
    if expected > length {
        return Err(Refused::cut_short().at(&path));
    }
    if expected < length {
        return Err(damaged());
    }
    let embeddings = file.bytes(header.embeddings_bytes)?;
    let state = file.bytes(header.state_bytes)?;
    let computed = file.hasher.clone().finalize();
    let checksum: [u8; CHECKSUM as usize] = file.array()?;
    if computed.as_slice() != checksum {
        return Err(damaged());
    }
    Ok((header, embeddings, state))
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
    /// Bytes of the file that were not read yet.
    left: u64,
    path: PathBuf,
}

impl<R: Read> HashReader<R> {
    /// The next `n` bytes. A number that the file cannot hold allocates nothing.
    fn bytes(&mut self, n: u64) -> Result<Vec<u8>> {
        let cut_short = || Refused::cut_short().at(&self.path);
        let capacity = usize::try_from(n).ok().filter(|_| n <= self.left).ok_or_else(cut_short)?;
        let mut bytes = Vec::with_capacity(capacity);
        let io = Error::io("reading the saved session", &self.path);
        self.inner.by_ref().take(n).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() != capacity {
            return Err(cut_short());
        }
        self.left -= n;
        self.hasher.update(&bytes);
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.bytes(N as u64)?;
        bytes.try_into().map_err(|_| Refused::cut_short().at(&self.path))
    }
}
