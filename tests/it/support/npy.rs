//! Reads the arrays of the golden clips: NumPy `.npy`, version 1, little-endian f32, C order. Nothing else.

use std::path::Path;

/// An array and its shape.
pub struct Npy {
    /// Length of each dimension, outermost first.
    pub shape: Vec<usize>,
    /// The values, the last dimension contiguous.
    pub data: Vec<f32>,
}

/// Reads `path`. Panics if it is anything else.
pub fn read(path: &Path) -> Npy {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00", "{}: not .npy version 1", path.display());
    let header_len = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let (header, data) = bytes[10..].split_at(header_len);
    let header = std::str::from_utf8(header).unwrap();
    assert!(header.contains("'descr': '<f4'") && header.contains("'fortran_order': False"), "unexpected: {header}");
    let shape = header.split_once("'shape': (").and_then(|(_, rest)| rest.split_once(')')).unwrap().0;
    let shape: Vec<usize> = shape.split(',').filter_map(|n| n.trim().parse().ok()).collect();
    let data: Vec<f32> = data.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect();
    assert_eq!(data.len(), shape.iter().product::<usize>(), "{}: shape {shape:?}", path.display());
    Npy { shape, data }
}
