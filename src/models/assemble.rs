//! Assembles a file from converted matrices of another file and from bytes of a recipe.

use std::io::{self, Read, Seek, SeekFrom};

/// How to assemble a file from the weights in another one.
///
/// The text has one line per piece, in their order:
///
/// ```text
/// own BYTES                                  the next BYTES of the recipe's own bytes
/// TYPE ROWSxCOLUMNS at BYTE                  a matrix that the source has in f32, row by row, from BYTE on
/// TYPE ROWSxCOLUMNS at BYTE transposed       a matrix that the source has column by column
/// ```
///
/// ROWS and COLUMNS are the shape in the assembled file. TYPE is what values are converted to: `f32`, `f16`, or `q8_0`
/// (blocks of 32 with an f16 scale, rounded half away from zero, as in llama.cpp's Python tools).
#[derive(Clone, Copy)]
pub struct Recipe {
    /// Its text.
    pub text: &'static str,
    /// Its own bytes.
    pub own: &'static [u8],
}

impl std::fmt::Debug for Recipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a recipe of {} lines and {} bytes of its own", self.text.lines().count(), self.own.len())
    }
}

/// Why a file could not be assembled.
#[derive(Debug)]
pub(super) enum Failure<E> {
    /// A line of the recipe is malformed or cannot be followed.
    Line(String),
    /// The source cannot be read.
    Read(io::Error),
    /// A piece could not be written.
    Write(E),
}

#[derive(Debug, Clone, Copy)]
enum Type {
    F32,
    F16,
    Q8_0,
}

/// The number of values in a Q8_0 block.
const BLOCK: usize = 32;

enum Piece {
    Own { bytes: usize },
    Matrix { kind: Type, rows: usize, columns: usize, at: u64, transposed: bool },
}

impl Piece {
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (kind, shape, at, transposed) = match *words.as_slice() {
            ["own", bytes] => return Some(Self::Own { bytes: bytes.parse().ok()? }),
            [kind, shape, "at", at] => (kind, shape, at, false),
            [kind, shape, "at", at, "transposed"] => (kind, shape, at, true),
            _ => return None,
        };
        let (rows, columns) = shape.split_once('x')?;
        let (rows, columns): (usize, usize) = (rows.parse().ok()?, columns.parse().ok()?);
        let kind = match kind {
            "f32" => Type::F32,
            "f16" => Type::F16,
            "q8_0" if columns.is_multiple_of(BLOCK) => Type::Q8_0,
            _ => return None,
        };
        Some(Self::Matrix { kind, rows, columns, at: at.parse().ok()?, transposed })
    }
}

/// Follows `recipe` with the matrices in `source`, and passes the file to `write` piece by piece.
pub(super) fn assemble<E>(
    recipe: &Recipe,
    source: &mut (impl Read + Seek),
    mut write: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), Failure<E>> {
    let source_bytes = source.seek(SeekFrom::End(0)).map_err(Failure::Read)?;
    let mut own = recipe.own;
    for (number, line) in recipe.text.lines().enumerate() {
        let wrong = |what: &str| Failure::Line(format!("line {} of the recipe, {line:?}: {what}", number + 1));
        match Piece::parse(line).ok_or_else(|| wrong("it is malformed"))? {
            Piece::Own { bytes } => {
                let (piece, rest) = own.split_at_checked(bytes).ok_or_else(|| wrong("it has no such bytes"))?;
                own = rest;
                write(piece).map_err(Failure::Write)?;
            }
            Piece::Matrix { kind, rows, columns, at, transposed } => {
                // Checked before memory is allocated.
                let bytes = rows.checked_mul(columns).and_then(|values| values.checked_mul(size_of::<f32>()));
                let bytes = bytes
                    .filter(|bytes| at.checked_add(*bytes as u64).is_some_and(|end| end <= source_bytes))
                    .ok_or_else(|| wrong("the source has no such bytes"))?;
                let mut raw = vec![0; bytes];
                source.seek(SeekFrom::Start(at)).and_then(|_| source.read_exact(&mut raw)).map_err(Failure::Read)?;
                let mut values: Vec<f32> =
                    raw.as_chunks().0.iter().map(|value: &[u8; 4]| f32::from_le_bytes(*value)).collect();
                if transposed {
                    values = transpose(&values, rows, columns);
                }
                write(&convert(kind, &values)).map_err(Failure::Write)?;
            }
        }
    }
    if own.is_empty() {
        return Ok(());
    }
    Err(Failure::Line(format!("the recipe leaves {} of its own bytes unused", own.len())))
}

/// Transposes a matrix that is stored column by column.
fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..rows).flat_map(|row| (0..columns).map(move |column| values[column * rows + row])).collect()
}

fn convert(kind: Type, values: &[f32]) -> Vec<u8> {
    match kind {
        Type::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Type::F16 => values.iter().flat_map(|value| half::f16::from_f32(*value).to_le_bytes()).collect(),
        Type::Q8_0 => values.as_chunks::<BLOCK>().0.iter().flat_map(quantize).collect(),
    }
}

/// A Q8_0 block: the scale in f16, then one signed byte per value.
fn quantize(block: &[f32; BLOCK]) -> [u8; BLOCK + 2] {
    let largest = block.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let scale = largest / 127.0;
    // As in the reference: the scale is not rounded to f16 before its inverse is computed, and values are multiplied by
    // the inverse, not divided by the scale.
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let mut bytes = [0; BLOCK + 2];
    bytes[..2].copy_from_slice(&half::f16::from_f32(scale).to_le_bytes());
    for (byte, value) in bytes[2..].iter_mut().zip(block) {
        *byte = ((value * inverse).round() as i8).cast_unsigned();
    }
    bytes
}
