//! Opens addresses, and explains why that fails.

use std::path::Path;

use ff::format::context::Input;
use ffmpeg_next as ff;

use super::super::Stop;
use super::live::{LOOK_S, microseconds};
use super::track::FORMATS;
use crate::error::{Error, RemoteKind, Result};

/// The timeout of an address in seconds.
const SILENCE_S: f64 = 20.0;

/// The protocols that FFmpeg may use. They open no files.
const PROTOCOLS: &str = "crypto,http,httpproxy,https,rtmp,rtp,rtsp,rtsps,srtp,tcp,tls,udp";

/// The formats that are read from addresses, in addition to [`FORMATS`].
const STREAM_FORMATS: &str = "hls,rtp,rtsp,sdp";

/// Connects to an address. `path` is its name in errors.
pub(super) fn open(path: &Path, address: &str, stop: &Stop) -> Result<Input> {
    let mut options = ff::Dictionary::new();
    options.set("protocol_whitelist", PROTOCOLS);
    options.set("format_whitelist", &format!("{FORMATS},{STREAM_FORMATS}"));
    options.set("analyzeduration", &microseconds(LOOK_S));
    options.set("rw_timeout", &microseconds(SILENCE_S));
    if address.starts_with("rtsp") {
        options.set("rtsp_flags", "prefer_tcp");
        options.set("timeout", &microseconds(SILENCE_S));
    }
    let asked = stop.clone();
    let interrupt = move || asked.is_requested();
    let opened = ff::format::input_with_interrupt_and_dictionary(address, interrupt, options);
    stop.check()?;
    opened.map_err(|error| not_opened(path, error))
}

/// The error for an address that FFmpeg could not open.
fn not_opened(path: &Path, error: ff::Error) -> Error {
    let scheme = path.to_str().and_then(|address| address.split_once("://")).map_or("rtsp", |(scheme, _)| scheme);
    let check_host = || "check the host and the port in the address, and that the camera or server is on".to_owned();
    let (status, reason, advice) = match error {
        ff::Error::HttpUnauthorized => (
            Some(401),
            "a user name and a password are required, or those given are wrong".to_owned(),
            format!("give them in the address, as {scheme}://NAME:PASSWORD@HOST/…"),
        ),
        ff::Error::HttpForbidden => (
            Some(403),
            "access is forbidden".to_owned(),
            "check what this account, or this machine, may see".to_owned(),
        ),
        ff::Error::HttpNotFound => (
            Some(404),
            "there is nothing at this path".to_owned(),
            "check the part of the address after the host; a camera's manual names it".to_owned(),
        ),
        ff::Error::HttpBadRequest => {
            (Some(400), "the server does not understand the request".to_owned(), "check the address".to_owned())
        }
        ff::Error::HttpOther4xx => {
            (None, "the server rejected the request (4xx)".to_owned(), "check the address".to_owned())
        }
        ff::Error::HttpServerError => (
            None,
            "the server failed, or has no such stream (5xx)".to_owned(),
            "try again later, and check the address".to_owned(),
        ),
        ff::Error::ProtocolNotFound => (
            None,
            format!("the FFmpeg in this program cannot connect to {scheme}:// addresses"),
            "connect with the program ffmpeg, and pipe its output in".to_owned(),
        ),
        ff::Error::InvalidData | ff::Error::DemuxerNotFound => (
            None,
            "it does not send a video in a supported format".to_owned(),
            "check that it is the address of the stream itself, and not of a page about it".to_owned(),
        ),
        ff::Error::Eof => {
            (None, "it ends before the first image".to_owned(), "check that the stream is being sent".to_owned())
        }
        ff::Error::Other { errno: ff::error::ECONNREFUSED } => {
            (None, "the connection was refused: no server listens on that port".to_owned(), check_host())
        }
        ff::Error::Other { errno: ff::error::EHOSTUNREACH | ff::error::ENETUNREACH } => {
            (None, "the host cannot be reached".to_owned(), "check the host in the address, and the network".to_owned())
        }
        ff::Error::Other { errno: ff::error::ETIMEDOUT } => {
            (None, format!("it does not answer within {SILENCE_S:.0} s"), check_host())
        }
        // FFmpeg's error for an unknown host name.
        ff::Error::Other { errno: ff::error::EIO } => (
            None,
            "the name of the host is unknown, or the connection broke".to_owned(),
            "check the host in the address, and the network".to_owned(),
        ),
        other => (None, format!("FFmpeg cannot read it ({other})"), "check the address".to_owned()),
    };
    Error::Remote { kind: RemoteKind::VideoSource, what: path.display().to_string(), status, reason, advice }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_an_address_is_told_with_what_to_check() {
        for (error, reason, advice) in [
            (ff::error::ECONNREFUSED, "refused", "port"),
            (ff::error::EHOSTUNREACH, "cannot be reached", "network"),
            (ff::error::ENETUNREACH, "cannot be reached", "network"),
            (ff::error::ETIMEDOUT, "within 20 s", "is on"),
            (ff::error::EIO, "unknown", "host in the address"),
        ] {
            let error = not_opened(Path::new("rtsp://camera/1"), ff::Error::Other { errno: error }).to_string();
            assert!(
                error.starts_with("rtsp://camera/1: ") && error.contains(reason) && error.contains(advice),
                "{error}"
            );
        }
        let error = not_opened(Path::new("http://camera/1"), ff::Error::HttpUnauthorized);
        assert!(error.to_string().contains("http://NAME:PASSWORD@HOST"), "{error}");
        assert!(matches!(error, Error::Remote { status: Some(401), .. }), "{error:?}");
    }
}
