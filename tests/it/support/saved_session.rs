//! Takes saved sessions apart, and puts them together with a correct checksum.

use sha2::{Digest, Sha256};
use std::path::Path;

/// Appends the checksum.
pub fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.extend_from_slice(Sha256::digest(&bytes).as_slice());
    bytes
}

/// The parts of a saved session: magic and version, header, embeddings, state, states of checkpoints.
#[derive(Clone)]
pub struct Parts {
    pub start: Vec<u8>,
    pub header: serde_json::Value,
    pub embeddings: Vec<u8>,
    pub state: Vec<u8>,
    pub checkpoints: Vec<u8>,
}

impl Parts {
    pub fn read(path: &Path) -> Self {
        let whole = std::fs::read(path).expect("the file");
        let header_bytes = u64::from_le_bytes(whole[12..20].try_into().expect("8 bytes")) as usize;
        let (header, body) = whole[20..whole.len() - 32].split_at(header_bytes);
        let header: serde_json::Value = serde_json::from_slice(header).expect("a header");
        let bytes = |name: &str| header[name].as_u64().expect("a number") as usize;
        let (embeddings, rest) = body.split_at(bytes("embeddings_bytes"));
        let (state, checkpoints) = rest.split_at(bytes("state_bytes"));
        let [embeddings, state, checkpoints] = [embeddings, state, checkpoints].map(<[u8]>::to_vec);
        Self { start: whole[..12].to_vec(), embeddings, state, checkpoints, header }
    }

    /// Writes a file with correct lengths.
    pub fn write(&self, path: &Path) {
        let mut parts = self.clone();
        parts.header["embeddings_bytes"] = self.embeddings.len().into();
        parts.header["state_bytes"] = self.state.len().into();
        parts.write_as_is(path);
    }

    /// As [`write`](Self::write), with the lengths in the header as they are.
    pub fn write_as_is(&self, path: &Path) {
        let header = serde_json::to_vec(&self.header).expect("JSON");
        let length = (header.len() as u64).to_le_bytes();
        let body = [&self.embeddings[..], &self.state, &self.checkpoints].concat();
        std::fs::write(path, sealed([&self.start[..], &length, &header, &body].concat())).expect("a test file");
    }

    /// The 32-bit number at `at` in the state.
    pub fn number(&self, at: usize) -> usize {
        u32::from_le_bytes(self.state[at..at + 4].try_into().expect("4 bytes")) as usize
    }

    /// Where llama.cpp's part of the state continues after the architecture's name.
    pub fn memory(&self) -> usize {
        4 + self.number(0)
    }
}
