//! Reads the metadata, and small tensors, of GGUF files (versions 2 and 3, little-endian): what a file is, before
//! llama.cpp loads it.
//!
//! The format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. A file may be anything: nothing here
//! panics, and memory grows only with bytes that are really there, never with a length that the file claims.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use crate::error::{Error, Result};

/// The first four bytes of every GGUF file.
pub const MAGIC: [u8; 4] = *b"GGUF";

/// Longest key that the format allows, in bytes.
const MAX_KEY_LEN: u64 = 65_535;

/// Most dimensions of a tensor.
const MAX_DIMS: u32 = 4;

/// Longest array whose elements are kept: more than a model has layers.
const MAX_ARRAY_LEN: u64 = 1024;

/// Longest string value that is read, in bytes. The longest in use are chat templates, some 10 KB.
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
    /// A truth value.
    Bool(bool),
    /// A string; bytes that are not UTF-8 are replaced.
    String(String),
    /// An array, of which only the number of elements is read.
    Array {
        /// Elements.
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
    /// What it is in words, for messages.
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

/// A value as it stands in the file.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    value: Value,
    /// The format's number for its type.
    type_id: u32,
    /// Those of a short array.
    numbers: Option<Vec<f64>>,
    /// Of an array of strings, the first that was there before.
    repeated: Option<u64>,
}

impl Metadata {
    /// Reads the metadata at the start of a GGUF file, up to the first tensor's description.
    ///
    /// # Errors
    /// `InvalidData` or `UnexpectedEof` with a reason for anything that is not well-formed, or the reader's own
    /// error.
    pub fn parse(reader: impl BufRead) -> io::Result<Self> {
        Self::read(&mut Reader(reader)).map(|(metadata, _)| metadata)
    }

    /// The metadata, and how many tensors' descriptions follow.
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
        // Each value takes bytes of the file, so a wrong count ends at the end of the file.
        for _ in 0..n_values {
            let key = String::from_utf8(reader.string(MAX_KEY_LEN)?).map_err(|_| invalid("a key is not UTF-8"))?;
            let entry = reader.entry()?;
            if values.contains_key(&key) {
                return Err(invalid(format!("the key {key:?} is there twice")));
            }
            values.insert(key, entry);
        }
        Ok((Self { values }, n_tensors))
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key).map(|entry| &entry.value)
    }

    /// The format's number for the type of the value of `key`.
    pub(super) fn type_of(&self, key: &str) -> Option<u32> {
        self.values.get(key).map(|entry| entry.type_id)
    }

    /// The elements of the array under `key`, if they are few, and numbers.
    pub(crate) fn numbers(&self, key: &str) -> Option<&[f64]> {
        self.values.get(key)?.numbers.as_deref()
    }

    /// The place of the first element of the array of strings under `key` that stands in it before.
    pub(super) fn repeated(&self, key: &str) -> Option<u64> {
        self.values.get(key)?.repeated
    }

    /// The string under `key`; `None` when there is none, or something else.
    pub fn string(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            Value::String(value) => Some(value),
            _ => None,
        }
    }

    /// The integer under `key`; `None` when there is none, when it is negative, or something else.
    pub fn u64(&self, key: &str) -> Option<u64> {
        match *self.get(key)? {
            Value::Uint(value) => Some(value),
            Value::Int(value) => value.try_into().ok(),
            _ => None,
        }
    }

    /// All keys and values, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(key, entry)| (key.as_str(), &entry.value))
    }

    /// What the file is for, as far as its metadata tell.
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
/// [`Error::Io`] when it cannot be opened or read, [`Error::NotGguf`] when it is something else or damaged.
pub fn read_metadata(path: &Path) -> Result<Metadata> {
    Metadata::parse(open(path)?).map_err(unreadable(path))
}

/// Reads the values of the tensor `name` of the GGUF file at `path`; `None` if there is no such tensor. For small
/// tensors of `f32`, `f16` or `bf16` values; others are an error.
///
/// # Errors
/// As [`read_metadata`].
pub fn read_floats(path: &Path, name: &str) -> Result<Option<Vec<f32>>> {
    let mut reader = Reader(open(path)?);
    reader.floats(name).map_err(unreadable(path))
}

/// Where the tensors of the GGUF file at `path` begin.
#[derive(Debug)]
pub(super) struct Layout {
    /// What the file is.
    pub metadata: Metadata,
    /// The end of what describes the tensors, and the beginning of the first.
    pub data: u64,
    /// The beginning of each tensor, in the order of the file.
    pub tensors: Vec<u64>,
}

/// Reads where the tensors of the GGUF file at `path` begin.
///
/// # Errors
/// As [`read_metadata`].
pub(super) fn read_layout(path: &Path) -> Result<Layout> {
    Reader(open(path)?).layout().map_err(unreadable(path))
}

/// All that stands before the tensors themselves.
#[derive(Debug)]
pub(super) struct Header {
    /// What the file is.
    pub metadata: Metadata,
    /// The dimensions of each tensor.
    pub tensors: BTreeMap<String, Vec<u64>>,
    /// The tensor that ends farthest behind, and the least byte where that can be.
    pub last: Option<(String, u64)>,
}

/// Reads the header of the GGUF file at `path`.
///
/// # Errors
/// As [`read_metadata`].
pub(super) fn read_header(path: &Path) -> Result<Header> {
    Reader(open(path)?).header().map_err(unreadable(path))
}

/// All that is read of a header, from bytes.
#[cfg(all(any(test, fuzzing), feature = "lab"))]
pub(super) fn from_bytes(bytes: &[u8]) -> io::Result<Header> {
    let reader = || Reader(io::Cursor::new(bytes));
    let _ = reader().layout();
    let _ = reader().main_type();
    let _ = reader().floats("blk.0.attn_norm.weight");
    reader().header()
}

/// The type that most values of the GGUF file at `path` are stored in, by the format's number; `None` of a file without
/// tensors.
///
/// # Errors
/// As [`read_metadata`].
pub(crate) fn main_type(path: &Path) -> Result<Option<u32>> {
    Reader(open(path)?).main_type().map_err(unreadable(path))
}

fn open(path: &Path) -> Result<BufReader<File>> {
    let open = || {
        let file = File::open(path)?;
        // Opening a folder works on Unix; reading it says only "Is a directory".
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

/// What is kept of an array.
#[derive(Default)]
struct Elements {
    numbers: Option<Vec<f64>>,
    repeated: Option<u64>,
}

/// What a file says of a tensor.
struct Tensor {
    name: Vec<u8>,
    shape: Vec<u64>,
    /// Values.
    len: u64,
    /// The format's number for their type.
    type_id: u32,
    /// Where it begins behind the descriptions.
    offset: u64,
}

impl Tensor {
    /// The bytes that it takes, or fewer: of quantized types, those of a bit for each value.
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
            return Err(invalid(format!("a tensor of {n_dims} dimensions")));
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

    /// Where the first tensor begins, when all descriptions were read.
    fn data_start(&mut self, metadata: &Metadata) -> io::Result<u64> {
        let alignment = metadata.u64("general.alignment").unwrap_or(32).max(1);
        let end = self.0.stream_position()?;
        end.checked_next_multiple_of(alignment).ok_or_else(|| invalid("its tensors begin too far behind"))
    }

    fn layout(&mut self) -> io::Result<Layout> {
        let (metadata, n_tensors) = Metadata::read(self)?;
        let mut tensors = Vec::new();
        for _ in 0..n_tensors {
            tensors.push(self.tensor()?.offset);
        }
        let data = self.data_start(&metadata)?;
        for offset in &mut tensors {
            *offset = offset.checked_add(data).ok_or_else(|| invalid("a tensor begins too far behind"))?;
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
            1 => (2, |b| half(u16::from_le_bytes([b[0], b[1]]))),
            30 => (2, |b| f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16)),
            other => return Err(invalid(format!("the tensor {wanted} has the type {other}, which is no float"))),
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

/// An IEEE 754 half as a single.
fn half(bits: u16) -> f32 {
    let (sign, exponent, fraction) = (u32::from(bits >> 15) << 31, u32::from(bits >> 10 & 31), u32::from(bits & 1023));
    let magnitude = match exponent {
        0 => fraction as f32 * 2.0_f32.powi(-24),
        31 => f32::from_bits(0x7f80_0000 | fraction << 13),
        _ => f32::from_bits((exponent + 112) << 23 | fraction << 13),
    };
    f32::from_bits(magnitude.to_bits() | sign)
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
        // Grows as bytes arrive, so a file that claims more than it has costs nothing.
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

    /// An array, with its elements if they are few, and numbers.
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
                    // As C reads it.
                    let string = string.split(|&byte| byte == 0).next().unwrap_or_default();
                    // Of what is long only a number is kept, so a file that is a list takes no more than itself.
                    let mut hasher = DefaultHasher::new();
                    string.hash(&mut hasher);
                    if !seen.insert(hasher.finish()) && !string.is_empty() {
                        repeated = repeated.or(Some(i));
                    }
                }
                return Ok((Value::Array { len }, Elements { numbers: None, repeated }));
            }
            // ggml has no arrays of arrays either.
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
