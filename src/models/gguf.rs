//! Reads metadata and small tensors of GGUF files (versions 2 and 3, little-endian), without llama.cpp.
//!
//! The format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. Files are not trusted: nothing here panics,
//! and memory grows with the bytes that are read, not with the lengths that a file claims.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use crate::error::{Error, Result};

/// The first four bytes of every GGUF file.
pub const MAGIC: [u8; 4] = *b"GGUF";

/// The longest key that the format allows, in bytes.
const MAX_KEY_LEN: u64 = 65_535;

/// The most dimensions of a tensor.
const MAX_DIMS: u32 = 4;

/// The longest array whose elements are kept. Longer than a model has layers.
const MAX_ARRAY_LEN: u64 = 1024;

/// The longest string value that is read, in bytes. The longest in use are chat templates of some 10 KB.
const MAX_STRING_LEN: u64 = 16 << 20;

/// A metadata value. Integers and floats of all widths are widened.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// An unsigned integer.
    Uint(u64),
    /// A signed integer.
    Int(i64),
    /// A float.
    Float(f64),
    /// A Boolean.
    Bool(bool),
    /// A string. Invalid UTF-8 is replaced.
    String(String),
    /// An array. Only its length is kept.
    Array {
        /// The number of elements.
        len: u64,
    },
}

/// What a GGUF file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A language model.
    Model,
    /// A multimodal projector.
    Mmproj,
    /// A LoRA adapter.
    Adapter,
}

impl Kind {
    /// A description for messages.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Model => "a language model",
            Self::Mmproj => "a multimodal projector",
            Self::Adapter => "a LoRA adapter",
        }
    }
}

/// The metadata of a GGUF file, by key.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metadata {
    values: BTreeMap<String, Entry>,
}

/// A value in the file.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    value: Value,
    /// The type's number in the format.
    type_id: u32,
    /// The elements of a short array of numbers.
    numbers: Option<Vec<f64>>,
    /// In an array of strings, the index of the first repeated element.
    repeated: Option<u64>,
}

impl Metadata {
    /// Reads the metadata at the start of a GGUF file, up to the first tensor's description.
    ///
    /// # Errors
    /// `InvalidData` with a reason, or `UnexpectedEof`, if the file is malformed; errors of the reader.
    pub fn parse(reader: impl BufRead) -> io::Result<Self> {
        Self::read(&mut Reader(reader)).map(|(metadata, _)| metadata)
    }

    /// Reads the metadata. Also returns the number of tensors.
    fn read(reader: &mut Reader<impl BufRead>) -> io::Result<(Self, u64)> {
        if reader.array::<4>()? != MAGIC {
            return Err(invalid("it does not start with \"GGUF\""));
        }
        match reader.u32()? {
            2 | 3 => (),
            version if (2..=3).contains(&version.swap_bytes()) => return Err(invalid("it is big-endian")),
            version => return Err(invalid(format!("it has version {version}, but versions 2 and 3 are supported"))),
        }
        let n_tensors = reader.u64()?;
        let n_values = reader.u64()?;
        let mut values = BTreeMap::new();
        // Each value takes bytes of the file, so a wrong count ends with the file.
        for _ in 0..n_values {
            let key = String::from_utf8(reader.string(MAX_KEY_LEN)?).map_err(|_| invalid("a key is not UTF-8"))?;
            let entry = reader.entry()?;
            if values.contains_key(&key) {
                return Err(invalid(format!("the key {key:?} occurs twice")));
            }
            values.insert(key, entry);
        }
        Ok((Self { values }, n_tensors))
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key).map(|entry| &entry.value)
    }

    /// The number, in the format, of the type of the value of `key`.
    pub(super) fn type_of(&self, key: &str) -> Option<u32> {
        self.values.get(key).map(|entry| entry.type_id)
    }

    /// The elements of the array under `key`, if it is a short array of numbers.
    pub(crate) fn numbers(&self, key: &str) -> Option<&[f64]> {
        self.values.get(key)?.numbers.as_deref()
    }

    /// The index of the first repeated element in the array of strings under `key`.
    pub(super) fn repeated(&self, key: &str) -> Option<u64> {
        self.values.get(key)?.repeated
    }

    /// The string under `key`; `None` if there is none, or a value of another type.
    pub fn string(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            Value::String(value) => Some(value),
            _ => None,
        }
    }

    /// The integer under `key`; `None` if there is none, if it is negative, or if the value has another type.
    pub fn u64(&self, key: &str) -> Option<u64> {
        match *self.get(key)? {
            Value::Uint(value) => Some(value),
            Value::Int(value) => value.try_into().ok(),
            _ => None,
        }
    }

    /// All keys and values, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(key, entry)| (key.as_str(), &entry.value))
    }

    /// What the file is for, according to its metadata.
    pub fn kind(&self) -> Kind {
        match (self.string("general.type"), self.string("general.architecture")) {
            (Some("adapter"), _) => Kind::Adapter,
            // Old projectors have no type.
            (Some("mmproj"), _) | (_, Some("clip")) => Kind::Mmproj,
            _ => Kind::Model,
        }
    }
}

/// Reads the metadata of the GGUF file at `path`.
///
/// # Errors
/// [`Error::Io`] if it cannot be opened or read, [`Error::NotGguf`] if it is not a GGUF file or damaged.
pub fn read_metadata(path: &Path) -> Result<Metadata> {
    Metadata::parse(open(path)?).map_err(unreadable(path))
}

/// Reads the values of the tensor `name` in the GGUF file at `path`; `None` if there is no such tensor. The values must
/// be `f32`, `f16` or `bf16`; all of them are kept in memory.
///
/// # Errors
/// As [`read_metadata`].
pub fn read_floats(path: &Path, name: &str) -> Result<Option<Vec<f32>>> {
    let mut reader = Reader(open(path)?);
    reader.floats(name).map_err(unreadable(path))
}

/// The positions of the tensors in a GGUF file.
#[derive(Debug)]
pub(super) struct Layout {
    /// The metadata.
    pub metadata: Metadata,
    /// The first byte after the descriptions, where tensor data begins.
    pub data: u64,
    /// The first byte of each tensor, in ascending order.
    pub tensors: Vec<u64>,
}

/// Reads the positions of the tensors in the GGUF file at `path`.
///
/// # Errors
/// As [`read_metadata`].
pub(super) fn read_layout(path: &Path) -> Result<Layout> {
    Reader(open(path)?).layout().map_err(unreadable(path))
}

/// Everything in a GGUF file before the data of the tensors.
#[derive(Debug)]
pub(super) struct Header {
    /// The metadata.
    pub metadata: Metadata,
    /// The dimensions of each tensor.
    pub tensors: BTreeMap<String, Vec<u64>>,
    /// The name of the tensor that ends last, and a lower bound on the byte where it ends.
    pub last: Option<(String, u64)>,
}

/// Reads the header of the GGUF file at `path`.
///
/// # Errors
/// As [`read_metadata`].
pub(super) fn read_header(path: &Path) -> Result<Header> {
    Reader(open(path)?).header().map_err(unreadable(path))
}

/// Reads a header from bytes in every way that this module has.
#[cfg(all(any(test, fuzzing), feature = "lab"))]
pub(super) fn from_bytes(bytes: &[u8]) -> io::Result<Header> {
    let reader = || Reader(io::Cursor::new(bytes));
    let _ = reader().layout();
    let _ = reader().main_type();
    let _ = reader().floats("blk.0.attn_norm.weight");
    reader().header()
}

/// The type of most values in the GGUF file at `path`, as the format's number; `None` for a file without tensors.
///
/// # Errors
/// As [`read_metadata`].
pub(crate) fn main_type(path: &Path) -> Result<Option<u32>> {
    Reader(open(path)?).main_type().map_err(unreadable(path))
}

fn open(path: &Path) -> Result<BufReader<File>> {
    let open = || {
        let file = File::open(path)?;
        // Unix can open a folder, and fails only when it is read.
        if file.metadata()?.is_dir() { Err(io::ErrorKind::IsADirectory.into()) } else { Ok(file) }
    };
    open().map(|file| BufReader::with_capacity(1 << 16, file)).map_err(Error::io("opening the model file", path))
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| match source.kind() {
        io::ErrorKind::InvalidData => Error::NotGguf { path: path.to_owned(), reason: source.to_string() },
        io::ErrorKind::UnexpectedEof => Error::NotGguf { path: path.to_owned(), reason: "it is cut off".into() },
        _ => Error::Io { action: "reading the model file", path: path.to_owned(), source },
    }
}

fn invalid(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

struct Reader<R>(R);

/// The kept part of an array.
#[derive(Default)]
struct Elements {
    numbers: Option<Vec<f64>>,
    repeated: Option<u64>,
}

/// The description of a tensor.
struct Tensor {
    name: Vec<u8>,
    shape: Vec<u64>,
    /// The number of values.
    len: u64,
    /// The number of their type in the format.
    type_id: u32,
    /// The offset from the start of tensor data.
    offset: u64,
}

impl Tensor {
    /// A lower bound on its size in bytes: one bit per value for quantized types.
    fn least_bytes(&self) -> u64 {
        match self.type_id {
            0 | 26 => self.len.saturating_mul(4),
            1 | 25 | 30 => self.len.saturating_mul(2),
            27 | 28 => self.len.saturating_mul(8),
            24 => self.len,
            _ => self.len / 8,
        }
    }
}

impl<R: BufRead + Seek> Reader<R> {
    fn tensor(&mut self) -> io::Result<Tensor> {
        let name = self.string(MAX_KEY_LEN)?;
        let n_dims = self.u32()?;
        if n_dims > MAX_DIMS {
            return Err(invalid(format!("a tensor has {n_dims} dimensions")));
        }
        let shape = (0..n_dims).map(|_| self.u64()).collect::<io::Result<Vec<_>>>()?;
        let product = |len: u64, &dim: &u64| len.checked_mul(dim);
        let len = shape.iter().try_fold(1, product).ok_or_else(|| invalid("a tensor is too large"))?;
        Ok(Tensor { name, shape, len, type_id: self.u32()?, offset: self.u64()? })
    }

    fn header(&mut self) -> io::Result<Header> {
        let (metadata, n_tensors) = Metadata::read(self)?;
        let mut tensors = BTreeMap::new();
        let mut last: Option<(String, u64)> = None;
        for _ in 0..n_tensors {
            let tensor = self.tensor()?;
            let name = String::from_utf8_lossy(&tensor.name).into_owned();
            let end = tensor.offset.saturating_add(tensor.least_bytes());
            if last.as_ref().is_none_or(|(_, farthest)| end > *farthest) {
                last = Some((name.clone(), end));
            }
            tensors.insert(name, tensor.shape);
        }
        let data = self.data_start(&metadata)?;
        let last = last.map(|(name, end)| (name, end.saturating_add(data)));
        Ok(Header { metadata, tensors, last })
    }

    fn main_type(&mut self) -> io::Result<Option<u32>> {
        let (_, n_tensors) = Metadata::read(self)?;
        let mut values = BTreeMap::<u32, u64>::new();
        for _ in 0..n_tensors {
            let tensor = self.tensor()?;
            let sum = values.entry(tensor.type_id).or_default();
            *sum = sum.saturating_add(tensor.len);
        }
        Ok(values.into_iter().max_by_key(|&(_, sum)| sum).map(|(type_id, _)| type_id))
    }

    /// The first byte of tensor data, once all descriptions are read.
    fn data_start(&mut self, metadata: &Metadata) -> io::Result<u64> {
        let alignment = metadata.u64("general.alignment").unwrap_or(32).max(1);
        let end = self.0.stream_position()?;
        end.checked_next_multiple_of(alignment).ok_or_else(|| invalid("the offset of its tensors is too large"))
    }

    fn layout(&mut self) -> io::Result<Layout> {
        let (metadata, n_tensors) = Metadata::read(self)?;
        let mut tensors = Vec::new();
        for _ in 0..n_tensors {
            tensors.push(self.tensor()?.offset);
        }
        let data = self.data_start(&metadata)?;
        for offset in &mut tensors {
            *offset = offset.checked_add(data).ok_or_else(|| invalid("the offset of a tensor is too large"))?;
        }
        tensors.sort_unstable();
        Ok(Layout { metadata, data, tensors })
    }

    fn floats(&mut self, wanted: &str) -> io::Result<Option<Vec<f32>>> {
        let (metadata, n_tensors) = Metadata::read(self)?;
        let mut found = None;
        for _ in 0..n_tensors {
            let tensor = self.tensor()?;
            if tensor.name == wanted.as_bytes() {
                found = Some(tensor);
            }
        }
        let Some(Tensor { len, type_id, offset, .. }) = found else { return Ok(None) };
        let (width, value): (u64, fn(&[u8]) -> f32) = match type_id {
            0 => (4, |b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            1 => (2, |b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()),
            30 => (2, |b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32()),
            other => {
                return Err(invalid(format!(
                    "the tensor {wanted} has the type {other}, which is not f32, f16 or bf16"
                )));
            }
        };
        let too_large = || invalid(format!("the tensor {wanted} is too large"));
        let data = self.data_start(&metadata)?;
        self.0.seek(SeekFrom::Start(data.checked_add(offset).ok_or_else(too_large)?))?;
        let n_bytes = len.checked_mul(width).ok_or_else(too_large)?;
        let mut bytes = Vec::new();
        self.0.by_ref().take(n_bytes).read_to_end(&mut bytes)?;
        if (bytes.len() as u64) < n_bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Some(bytes.chunks_exact(width as usize).map(value).collect()))
    }
}

impl<R: BufRead> Reader<R> {
    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self) -> io::Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> io::Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn string(&mut self, max_len: u64) -> io::Result<Vec<u8>> {
        let len = self.u64()?;
        if len > max_len {
            return Err(invalid(format!("a string of {len} bytes is longer than {max_len}")));
        }
        // Grows as bytes arrive, so a false length costs nothing.
        let mut bytes = Vec::new();
        self.0.by_ref().take(len).read_to_end(&mut bytes)?;
        if (bytes.len() as u64) < len { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) }
    }

    fn skip(&mut self, len: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.0.by_ref().take(len), &mut io::sink())?;
        if skipped < len { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    fn entry(&mut self) -> io::Result<Entry> {
        let type_id = self.u32()?;
        let (value, elements) = match type_id {
            9 => self.elements()?,
            _ => (self.value(type_id)?, Elements::default()),
        };
        Ok(Entry { value, type_id, numbers: elements.numbers, repeated: elements.repeated })
    }

    fn value(&mut self, type_id: u32) -> io::Result<Value> {
        Ok(match type_id {
            0 => Value::Uint(self.array().map(u8::from_le_bytes)?.into()),
            1 => Value::Int(self.array().map(i8::from_le_bytes)?.into()),
            2 => Value::Uint(self.array().map(u16::from_le_bytes)?.into()),
            3 => Value::Int(self.array().map(i16::from_le_bytes)?.into()),
            4 => Value::Uint(self.u32()?.into()),
            5 => Value::Int(self.array().map(i32::from_le_bytes)?.into()),
            6 => Value::Float(self.array().map(f32::from_le_bytes)?.into()),
            7 => Value::Bool(self.array::<1>()? != [0]),
            8 => Value::String(String::from_utf8_lossy(&self.string(MAX_STRING_LEN)?).into_owned()),
            10 => Value::Uint(self.u64()?),
            11 => Value::Int(self.array().map(i64::from_le_bytes)?),
            12 => Value::Float(self.array().map(f64::from_le_bytes)?),
            other => return Err(invalid(format!("there is no value type {other}"))),
        })
    }

    /// Reads an array. Keeps the elements of a short array of numbers.
    fn elements(&mut self) -> io::Result<(Value, Elements)> {
        let element = self.u32()?;
        let len = self.u64()?;
        let width: u64 = match element {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            10..=12 => 8,
            8 => {
                let (mut seen, mut repeated) = (HashSet::new(), None);
                for i in 0..len {
                    let string = self.string(MAX_STRING_LEN)?;
                    // Up to the first zero byte, as C reads it.
                    let string = string.split(|&byte| byte == 0).next().unwrap_or_default();
                    // Only hashes are kept, so memory does not exceed the size of the file.
                    let mut hasher = DefaultHasher::new();
                    string.hash(&mut hasher);
                    if !seen.insert(hasher.finish()) && !string.is_empty() {
                        repeated = repeated.or(Some(i));
                    }
                }
                return Ok((Value::Array { len }, Elements { numbers: None, repeated }));
            }
            // ggml does not support arrays of arrays either.
            other => return Err(invalid(format!("there are no arrays of value type {other}"))),
        };
        if len <= MAX_ARRAY_LEN {
            let number = |value| match value {
                Value::Uint(number) => number as f64,
                Value::Int(number) => number as f64,
                Value::Float(number) => number,
                _ => 0.0,
            };
            let numbers = (0..len).map(|_| self.value(element).map(number)).collect::<io::Result<_>>()?;
            let numbers = Some(numbers).filter(|_| element != 7);
            return Ok((Value::Array { len }, Elements { numbers, repeated: None }));
        }
        self.skip(len.checked_mul(width).ok_or_else(|| invalid(format!("an array of {len} elements is too long")))?)?;
        Ok((Value::Array { len }, Elements::default()))
    }
}
