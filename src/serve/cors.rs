//! Which web pages of other origins may send requests (CORS).

use crate::error::{Error, Result};
use axum::http::uri::Scheme;
use axum::http::{HeaderValue, Method, Uri, header};
use tower_http::cors::{AllowHeaders, AllowOrigin, Any, CorsLayer};

/// Lets in pages of `origins`; `*` is all of them. `None` if `origins` is empty.
///
/// # Errors
/// [`Error::InvalidParameter`] for text that is not an origin: no browser would ever send it.
pub(super) fn layer(origins: &[String]) -> Result<Option<CorsLayer>> {
    if origins.is_empty() {
        return Ok(None);
    }
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::from(Any)
    } else {
        AllowOrigin::list(origins.iter().map(|text| origin(text)).collect::<Result<Vec<_>>>()?)
    };
    Ok(Some(
        CorsLayer::new()
            .allow_origin(allowed)
            .allow_methods([Method::GET, Method::POST])
            // Clients send headers of their own: OpenAI's has nine.
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers([header::RETRY_AFTER, header::HeaderName::from_static("x-request-id")]),
    ))
}

/// An origin as browsers write it: in lower case, without the scheme's default port, without a slash at the end.
fn origin(text: &str) -> Result<HeaderValue> {
    // The origin of local files and sandboxed frames.
    if text == "null" {
        return Ok(HeaderValue::from_static("null"));
    }
    let wrong = || Error::InvalidParameter {
        name: "cors-origin",
        value: format!("{text:?}"),
        expected: "an origin, such as https://page.example or http://localhost:3000, without a path; or *".into(),
    };
    let text = text.trim().trim_end_matches('/');
    let uri: Uri = text.parse().map_err(|_| wrong())?;
    let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else { return Err(wrong()) };
    let (host, port) = super::authority::host_and_port(authority).ok_or_else(wrong)?;
    // The parser makes "/" of a missing path.
    if uri.path_and_query().is_some_and(|rest| rest.as_str() != "/") {
        return Err(wrong());
    }
    let own = if *scheme == Scheme::HTTP {
        Some(80)
    } else if *scheme == Scheme::HTTPS {
        Some(443)
    } else {
        None
    };
    let port = port.filter(|port| Some(*port) != own).map(|port| format!(":{port}")).unwrap_or_default();
    let origin = format!("{}://{host}{port}", scheme.as_str().to_ascii_lowercase());
    HeaderValue::from_str(&origin).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_as_browsers_write_them() {
        for (given, sent) in [
            ("https://page.example", "https://page.example"),
            ("https://page.example/", "https://page.example"),
            ("HTTPS://Page.Example:443/", "https://page.example"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://localhost:80", "http://localhost"),
            ("http://[::1]:3000/", "http://[::1]:3000"),
            ("app://obsidian.md", "app://obsidian.md"),
            ("null", "null"),
        ] {
            let read = origin(given).unwrap_or_else(|error| panic!("{given}: {error}"));
            assert_eq!(read, sent, "{given}");
        }
        for wrong in
            ["", "/", "page.example", "https://", "https://page.example/app", "https://a@b", "https://a?b", "*."]
        {
            assert!(matches!(origin(wrong), Err(Error::InvalidParameter { .. })), "{wrong}");
        }
    }

    #[test]
    fn all_origins_are_one_star() {
        assert!(layer(&[]).is_ok_and(|layer| layer.is_none()));
        assert!(layer(&["*".into()]).is_ok_and(|layer| layer.is_some()));
        assert!(layer(&["https://a.example".into(), "nonsense".into()]).is_err());
    }
}
