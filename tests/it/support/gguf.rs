//! Adds values to the header of model files.

/// The alignment of tensors in the files of the tests.
const ALIGNMENT: usize = 32;

const UINT32: u32 = 4;
const STRING: u32 = 8;

/// Returns `file` with the text `value` under `key`.
pub fn with_text(file: &[u8], key: &str, value: &str) -> Vec<u8> {
    with_entries(file, &[entry(key, STRING, &text(value))])
}

/// Returns `file` with a number under `key`.
pub fn with_number(file: &[u8], key: &str, value: u32) -> Vec<u8> {
    with_entries(file, &[entry(key, UINT32, &value.to_le_bytes())])
}

fn text(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes(), value.as_bytes()].concat()
}

fn entry(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [text(key), kind.to_le_bytes().to_vec(), value.to_vec()].concat()
}

/// Inserts entries before all others. One more entry pads them, to keep the tensors aligned.
fn with_entries(file: &[u8], entries: &[Vec<u8>]) -> Vec<u8> {
    let mut added = entries.concat();
    let padding = |spaces: usize| entry("test.padding", STRING, &text(&" ".repeat(spaces)));
    let spaces = (0..ALIGNMENT).find(|&n| (added.len() + padding(n).len()).is_multiple_of(ALIGNMENT));
    added.extend(padding(spaces.expect("a length")));
    let (start, rest) = file.split_at(16);
    let (count, rest) = rest.split_at(8);
    let count = u64::from_le_bytes(count.try_into().expect("8 bytes")) + entries.len() as u64 + 1;
    [start, &count.to_le_bytes(), &added, rest].concat()
}
