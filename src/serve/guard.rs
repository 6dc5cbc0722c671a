//! Which requests are let in: by their key, and by the host name that they use.

use super::api::error::ApiError;
use super::authority::host_and_port;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// The digest of the key. Comparing digests does not reveal the key, not even its length.
#[derive(Clone)]
pub(super) struct Key([u8; 32]);

impl Key {
    pub fn new(key: &str) -> Self {
        Self(Sha256::digest(key).into())
    }

    fn is(&self, key: &str) -> bool {
        self.0.ct_eq(Self::new(key).0.as_slice()).into()
    }
}

/// Rejects requests without the key. It guards every route but `/health`.
pub(super) async fn check_key(State(key): State<Option<Key>>, request: Request, next: Next) -> Response {
    match &key {
        Some(key) if !bearer(request.headers()).is_some_and(|sent| key.is(sent)) => {
            ApiError::unauthorized().into_response()
        }
        _ => next.run(request).await,
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
}

/// Rejects requests for another host. A web page can make its own name resolve to this machine (DNS rebinding); then
/// the header `Host` has that name.
pub(super) async fn check_host(State(names): State<Arc<Vec<String>>>, request: Request, next: Next) -> Response {
    match host(request.headers(), request.uri()) {
        None => ApiError::bad_host().into_response(),
        Some(host) if is_ours(&host, &names) => next.run(request).await,
        Some(_) => ApiError::unknown_host().into_response(),
    }
}

/// The host that is requested, if there is exactly one.
fn host(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    let mut sent = headers.get_all(header::HOST).iter();
    let (Some(only), None) = (sent.next(), sent.next()) else { return None };
    let authority: Authority = only.to_str().ok()?.parse().ok()?;
    // The request line may name a host as well.
    let is_one = uri.authority().is_none_or(|other| *other == authority);
    host_and_port(&authority).filter(|_| is_one).map(|(host, _)| host)
}

fn is_ours(host: &str, names: &[String]) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    // DNS rebinding needs a name: an address is safe.
    let is_address = host.parse::<Ipv4Addr>().is_ok()
        || host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .is_some_and(|host| host.parse::<Ipv6Addr>().is_ok());
    is_address || host == "localhost" || names.iter().any(|name| name.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn requested(hosts: &[&'static str], uri: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, HeaderValue::from_static(host));
        }
        host(&headers, &uri.parse().unwrap())
    }

    #[test]
    fn only_names_of_this_server_are_accepted() {
        let names = ["Media.Example".to_owned()];
        for host in ["localhost", "localhost.", "127.0.0.1", "[::1]", "192.168.1.9", "media.example"] {
            assert!(is_ours(host, &names), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
            "media.example.evil",
            "0x7f.1",
            "2130706433",
        ] {
            assert!(!is_ours(host, &names), "{host}");
        }
    }

    #[test]
    fn odd_hosts_are_rejected() {
        assert_eq!(requested(&["LocalHost:8080"], "/v1/models").as_deref(), Some("localhost"));
        assert_eq!(requested(&["[::1]:8080"], "/").as_deref(), Some("[::1]"));
        for hosts in [
            &[][..],
            &["a", "b"],
            &["user@localhost"],
            &["localhost/v1"],
            &["localhost:x"],
            &["localhost:99999"],
            &["a b"],
        ] {
            assert_eq!(requested(hosts, "/"), None, "{hosts:?}");
        }
        assert_eq!(requested(&["localhost"], "http://evil.example/v1/models"), None);
    }

    #[test]
    fn keys_are_compared_whole() {
        let key = Key::new("secret");
        assert!(key.is("secret"));
        assert!(["", "secre", "secret ", "Secret", "secretsecret"].into_iter().all(|wrong| !key.is(wrong)));
        let mut headers = HeaderMap::new();
        for (value, found) in [("Bearer a b", Some("a b")), ("bearer a", Some("a")), ("Basic a", None), ("a", None)] {
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
            assert_eq!(bearer(&headers), found, "{value}");
        }
    }
}
