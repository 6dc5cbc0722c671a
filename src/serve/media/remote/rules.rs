//! Which URLs may be fetched.

use crate::serve::api::error::ApiError;
use crate::serve::authority::host_and_port;
use ureq::http::Uri;

/// A host that may be fetched from even if its address is not public, or its port not the scheme's default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteHost {
    /// A name or an address; IPv6 in brackets.
    pub host: String,
    /// `None` is the default port of the scheme.
    pub port: Option<u16>,
}

impl std::str::FromStr for RemoteHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "give HOST or HOST:PORT (IPv6 in brackets)".to_owned();
        let authority: ureq::http::uri::Authority = text.parse().map_err(|_| wrong())?;
        let (host, port) = host_and_port(&authority).ok_or_else(wrong)?;
        Ok(Self { host, port })
    }
}

#[derive(Debug)]
pub(super) struct Rules {
    /// Any host with a public address.
    pub any: bool,
    pub hosts: Vec<RemoteHost>,
}

impl Rules {
    /// Whether the host of `uri` is one of [`hosts`](Self::hosts).
    pub fn names(&self, uri: &Uri) -> bool {
        let Some((host, port)) = uri.authority().and_then(host_and_port) else { return false };
        let default = default_port(uri);
        self.hosts.iter().any(|named| named.host == host && named.port.or(default) == port.or(default))
    }

    /// Fails if `uri` may not be fetched, whatever its address is.
    pub fn check(&self, uri: &Uri) -> Result<(), ApiError> {
        let Some(default) = default_port(uri) else { return Err(wrong_scheme()) };
        let Some((_, port)) = uri.authority().and_then(host_and_port) else {
            return Err(ApiError::forbidden_media("a URL must have a host, and no user name or password"));
        };
        if self.names(uri) {
            return Ok(());
        }
        if !self.any {
            return Err(ApiError::forbidden_media(
                "this server does not fetch media from this host; send the file itself",
            ));
        }
        if port.is_some_and(|port| port != default) {
            return Err(ApiError::forbidden_media("media are fetched only from the ports 80 (http) and 443 (https)"));
        }
        Ok(())
    }
}

/// The error for a scheme other than http and https.
pub(super) fn wrong_scheme() -> ApiError {
    ApiError::forbidden_media("media are fetched only over http and https")
}

fn default_port(uri: &Uri) -> Option<u16> {
    match uri.scheme_str() {
        Some("http") => Some(80),
        Some("https") => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_allowed(hosts: &[&str], url: &str) -> bool {
        let hosts: Vec<RemoteHost> = hosts.iter().map(|host| host.parse().unwrap()).collect();
        let rules = Rules { any: hosts.is_empty(), hosts };
        url.parse().is_ok_and(|uri| rules.check(&uri).is_ok())
    }

    #[test]
    fn urls_that_two_parsers_could_read_differently_are_rejected() {
        for url in [
            r"http://example.com\@127.0.0.1/",
            r"http:\\127.0.0.1/",
            "http://example.com\t.evil/",
            "http://[::1/",
            "http://",
            "http:///a",
            "http://a b/",
            "http://user@example.com/",
            "http://user:pass@example.com/",
            "ftp://example.com/",
            "gopher://example.com/",
            "/etc/passwd",
            "example.com",
            "http://example.com:70000/",
            "http://example.com:22/",
            "https://example.com:80/",
            "http://example.com:x/",
        ] {
            assert!(!is_allowed(&[], url), "{url}");
        }
        for url in
            ["http://example.com/a.mp4", "https://example.com", "https://example.com:443/a?b#c", "HTTP://EXAMPLE.com/"]
        {
            assert!(is_allowed(&[], url), "{url}");
        }
    }

    #[test]
    fn named_hosts_are_allowed_with_their_port_only() {
        let hosts = ["nas.local:8000", "192.168.1.5", "[::1]:9"];
        for url in ["http://nas.local:8000/a", "http://NAS.local:8000/", "https://192.168.1.5/", "http://[::1]:9/"] {
            assert!(is_allowed(&hosts, url), "{url}");
        }
        for url in [
            "http://nas.local/",
            "http://nas.local:8001/",
            "http://192.168.1.5:8000/",
            "http://example.com/",
            "http://nas.local.evil:8000/",
        ] {
            assert!(!is_allowed(&hosts, url), "{url}");
        }
        for wrong in ["", "a@b", "http://a", "a:b", "a:99999", "a/b"] {
            assert!(wrong.parse::<RemoteHost>().is_err(), "{wrong}");
        }
    }
}
