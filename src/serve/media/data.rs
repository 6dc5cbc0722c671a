//! Media in the request itself: data URIs and base64.

use super::limits::MediaLimits;
use crate::serve::api::error::ApiError;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::read::DecoderReader;
use sha2::{Digest, Sha256};
use std::io::{self, Read, Write};
use tempfile::{Builder, NamedTempFile};

/// Clients send base64 with and without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A temporary file, with the SHA-256 of its content.
#[derive(Debug)]
pub(super) struct Stored {
    pub file: NamedTempFile,
    pub digest: [u8; 32],
}

/// The content of a data URI.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DataUri<'a> {
    /// A file, in base64.
    File(&'a str),
    /// The frames of a video, each in base64: vLLM's `data:video/jpeg`.
    Frames(Vec<&'a str>),
}

/// Parses a data URI. `None` if `text` is not one.
pub(super) fn data_uri(text: &str) -> Option<Result<DataUri<'_>, ApiError>> {
    let start = text.get(..5)?;
    if !start.eq_ignore_ascii_case("data:") {
        return None;
    }
    Some(read_data_uri(&text[5..]))
}

fn read_data_uri(rest: &str) -> Result<DataUri<'_>, ApiError> {
    let expected = || ApiError::media("a data URI must have the form data:video/…;base64,… or data:image/…;base64,…");
    let (kind, data) = rest.split_once(',').ok_or_else(expected)?;
    let kind = kind.to_ascii_lowercase();
    let kind = kind.strip_suffix(";base64").ok_or_else(expected)?;
    let kind = kind.split(';').next().unwrap_or_default();
    if kind == "video/jpeg" {
        return Ok(DataUri::Frames(data.split(',').collect()));
    }
    let is_good = kind.starts_with("video/") || kind.starts_with("image/") || kind == "application/octet-stream";
    if is_good && kind != "image/svg+xml" { Ok(DataUri::File(data)) } else { Err(expected()) }
}

/// Decodes base64 into a temporary file.
pub(super) fn store_base64(text: &str, limits: &MediaLimits) -> Result<Stored, ApiError> {
    let content = DecoderReader::new(WithoutSpace(text.as_bytes()), &BASE64);
    store(content, limits.max_bytes, limits).map_err(|error| match error {
        StoreError::Api(error) => error,
        StoreError::Read => ApiError::media("this is not base64; send all bytes of the file in base64"),
    })
}

/// Why something could not be stored.
#[derive(Debug)]
pub(super) enum StoreError {
    Api(ApiError),
    /// The content could not be read.
    Read,
}

/// Writes at most `max_bytes` of `content` to a temporary file.
pub(super) fn store(mut content: impl Read, max_bytes: u64, limits: &MediaLimits) -> Result<Stored, StoreError> {
    let disk = |error: io::Error| {
        tracing::error!("writing a temporary file failed: {error}");
        StoreError::Api(ApiError::internal())
    };
    let mut file = Builder::new().prefix("sharpv-serve-").tempfile().map_err(disk)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut left = max_bytes;
    loop {
        limits.check().map_err(StoreError::Api)?;
        let n = match content.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return Err(StoreError::Read),
        };
        left = left
            .checked_sub(n as u64)
            .ok_or_else(|| StoreError::Api(ApiError::too_large("a video or image", max_bytes)))?;
        hasher.update(&buffer[..n]);
        file.write_all(&buffer[..n]).map_err(disk)?;
    }
    file.flush().map_err(disk)?;
    Ok(Stored { file, digest: hasher.finalize().into() })
}

/// Skips white space: some clients break base64 into lines.
struct WithoutSpace<'a>(&'a [u8]);

impl Read for WithoutSpace<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let start = self.0.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(self.0.len());
            let rest = &self.0[start..];
            let n = rest.iter().take(buffer.len()).take_while(|byte| !byte.is_ascii_whitespace()).count();
            buffer[..n].copy_from_slice(&rest[..n]);
            self.0 = &rest[n..];
            if n > 0 || self.0.is_empty() || buffer.is_empty() {
                return Ok(n);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn limits(max_bytes: u64) -> MediaLimits {
        MediaLimits::new(max_bytes, Arc::default())
    }

    fn bytes(text: &str) -> Option<Vec<u8>> {
        let stored = store_base64(text, &limits(100)).ok()?;
        std::fs::read(stored.file.path()).ok()
    }

    #[test]
    fn base64_is_decoded_as_clients_write_it() {
        for text in ["c2hhcnB2", "c2hh\r\ncnB2\n", " c2hhcnB2 "] {
            assert_eq!(bytes(text).as_deref(), Some(&b"sharpv"[..]), "{text:?}");
        }
        assert_eq!(bytes("c2hhcnA=").as_deref(), Some(&b"sharp"[..]));
        assert_eq!(bytes("c2hhcnA").as_deref(), Some(&b"sharp"[..]));
        for text in ["c2hhcnB2!", "c2h=hcnB2", "c"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    #[test]
    fn too_much_is_not_stored() {
        let error = store_base64(&"AAAA".repeat(40), &limits(100)).expect_err("120 bytes");
        assert_eq!(error.status(), 413);
    }

    #[test]
    fn data_uris_are_parsed() {
        let read = |text| data_uri(text).map(|result| result.ok());
        assert_eq!(read("data:video/mp4;base64,AAAA"), Some(Some(DataUri::File("AAAA"))));
        assert_eq!(read("DATA:image/png;BASE64,AAAA"), Some(Some(DataUri::File("AAAA"))));
        assert_eq!(read("data:video/mp4;codecs=avc1;base64,AA"), Some(Some(DataUri::File("AA"))));
        assert_eq!(read("data:video/jpeg;base64,AA,BB"), Some(Some(DataUri::Frames(vec!["AA", "BB"]))));
        for bad in [
            "data:audio/wav;base64,AA",
            "data:text/html;base64,AA",
            "data:video/mp4,AA",
            "data:",
            "data:image/svg+xml;base64,AA",
        ] {
            assert_eq!(read(bad), Some(None), "{bad}");
        }
        for other in ["", "dat", "http://x/data:", "AAAA", "日本"] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
