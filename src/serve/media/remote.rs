//! Media of other servers: fetched only if that was allowed, and only from where anybody could fetch them.
//!
//! A URL is parsed once, and what is fetched is what was parsed. The name is resolved once: if one of its addresses is
//! not global the fetch is refused, else one of these very addresses is dialed, with the name in Host and SNI.
//! Redirects are followed by hand, and each is checked as the first URL was. No proxy of the environment, no cookies,
//! no credentials.

use super::MediaLimits;
use super::address::is_global;
use super::data::{StoreError, Stored, store};
use crate::net;
use crate::serve::api::error::ApiError;
use crate::serve::authority::host_and_port;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use ureq::Agent;
use ureq::config::Config;
use ureq::http::{StatusCode, Uri, header};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

/// Redirects that are followed.
const MAX_REDIRECTS: usize = 5;

/// The longest URL.
const MAX_URL: usize = 4096;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A host that may be asked although its address is not global, or its port not the scheme's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteHost {
    /// A name or an address; IPv6 in brackets.
    pub host: String,
    /// Without it, the scheme's own.
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

/// Fetches what may be fetched.
#[derive(Debug)]
pub(in crate::serve) struct Remote {
    rules: Arc<Rules>,
    max_bytes: u64,
    timeout: Duration,
}

#[derive(Debug)]
struct Rules {
    /// Any host with a global address.
    any: bool,
    hosts: Vec<RemoteHost>,
}

impl Rules {
    /// Whether the host of `uri` was named.
    fn names(&self, uri: &Uri) -> bool {
        let Some((host, port)) = uri.authority().and_then(host_and_port) else { return false };
        let default = default_port(uri);
        self.hosts.iter().any(|named| named.host == host && named.port.or(default) == port.or(default))
    }

    /// Whether `uri` may be fetched, its address aside.
    fn check(&self, uri: &Uri) -> Result<(), ApiError> {
        let Some(default) = default_port(uri) else {
            return Err(ApiError::forbidden_media("media are fetched by http and https only"));
        };
        let Some((_, port)) = uri.authority().and_then(host_and_port) else {
            return Err(ApiError::forbidden_media("a URL must have a host, and no name or password"));
        };
        if self.names(uri) {
            return Ok(());
        }
        if !self.any {
            return Err(ApiError::forbidden_media("this server does not fetch media from there; send the file itself"));
        }
        if port.is_some_and(|port| port != default) {
            return Err(ApiError::forbidden_media("media are fetched from the ports 80 (http) and 443 (https) only"));
        }
        Ok(())
    }
}

impl Remote {
    /// `None` if nothing may be fetched.
    pub fn new(any: bool, hosts: Vec<RemoteHost>, max_bytes: u64, timeout: Duration) -> Option<Self> {
        (any || !hosts.is_empty()).then(|| Self { rules: Arc::new(Rules { any, hosts }), max_bytes, timeout })
    }

    /// Fetches a file.
    pub(super) fn fetch(&self, url: &str, limits: &MediaLimits) -> Result<Stored, ApiError> {
        self.fetch_with(url, limits, DefaultResolver::default)
    }

    fn fetch_with<R: Resolver>(
        &self,
        url: &str,
        limits: &MediaLimits,
        resolver: impl Fn() -> R,
    ) -> Result<Stored, ApiError> {
        let deadline = Instant::now() + self.timeout;
        // What is allowed is allowed for all files of a request together.
        let left = self.max_bytes.saturating_sub(limits.downloaded.get());
        let own = MediaLimits { max_bytes: left, ..limits.clone() };
        let mut uri = parse(url)?;
        for _ in 0..=MAX_REDIRECTS {
            limits.check()?;
            self.rules.check(&uri)?;
            match self.get(&uri, deadline, &own, resolver())? {
                Got::File(stored) => {
                    let bytes = stored.file.as_file().metadata().map_or(left, |meta| meta.len());
                    limits.downloaded.set(limits.downloaded.get().saturating_add(bytes));
                    return Ok(stored);
                }
                Got::Redirect(to) => uri = to,
            }
        }
        Err(ApiError::forbidden_media("the URL redirects too often; send the last one"))
    }

    fn get(
        &self,
        uri: &Uri,
        deadline: Instant,
        limits: &MediaLimits,
        resolver: impl Resolver,
    ) -> Result<Got, ApiError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(self.too_slow());
        }
        let client = net::client().map_err(|reason| {
            tracing::error!("{reason}");
            ApiError::media("this server cannot make encrypted connections; send the file itself")
        })?;
        let config = client
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .max_idle_connections(0)
            .accept_encoding("identity")
            .timeout_global(Some(left))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .build();
        let resolver = Checked { inner: resolver, rules: Arc::clone(&self.rules) };
        let agent = Agent::with_parts(config, DefaultConnector::default(), resolver);
        let mut response = agent.get(uri).call().map_err(|error| self.failed(&error))?;
        if response.status().is_redirection() {
            let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            let to = location.and_then(|location| resolve(uri, location));
            return to.map(Got::Redirect).ok_or_else(|| ApiError::media("the server of the URL redirects to nowhere"));
        }
        if response.status() != StatusCode::OK {
            return Err(ApiError::media("the server of the URL does not send the file; try it in a browser"));
        }
        let length = response.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if length.is_some_and(|length: u64| length > limits.max_bytes) {
            return Err(ApiError::too_large("what the URLs lead to", self.max_bytes));
        }
        // What the header says is not believed: the bytes are counted.
        store(response.body_mut().as_reader(), limits).map(Got::File).map_err(|error| match error {
            StoreError::Api(error) if error.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                ApiError::too_large("what the URLs lead to", self.max_bytes)
            }
            StoreError::Api(error) => error,
            StoreError::Read if Instant::now() >= deadline => self.too_slow(),
            StoreError::Read => ApiError::media("the file at the URL broke off; try again, or send the file itself"),
        })
    }

    fn failed(&self, error: &ureq::Error) -> ApiError {
        match error {
            ureq::Error::Other(inner) if inner.is::<NotGlobal>() => ApiError::forbidden_media(
                "the URL leads to an address that is not of the public internet; such addresses are not fetched from",
            ),
            ureq::Error::Timeout(_) => self.too_slow(),
            _ if net::certificate_problem(error).is_some() => {
                ApiError::media("the certificate of the URL's server is not trusted here; send the file itself")
            }
            _ => {
                ApiError::media("the server of the URL cannot be reached; try it in a browser, or send the file itself")
            }
        }
    }

    fn too_slow(&self) -> ApiError {
        let seconds = self.timeout.as_secs();
        ApiError::media(format!("the file at the URL did not arrive within {seconds} s; send the file itself"))
    }
}

enum Got {
    File(Stored),
    Redirect(Uri),
}

/// Resolves as the system does, and refuses what is not global.
#[derive(Debug)]
struct Checked<R> {
    inner: R,
    rules: Arc<Rules>,
}

#[derive(Debug)]
struct NotGlobal;

impl std::fmt::Display for NotGlobal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not a global address")
    }
}

impl std::error::Error for NotGlobal {}

impl<R: Resolver> Resolver for Checked<R> {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = self.inner.resolve(uri, config, timeout)?;
        // All of them: a name that has one good address and one bad is after the bad one.
        let is_good = |address: &SocketAddr| is_global(address.ip());
        if self.rules.names(uri) || found.iter().all(is_good) {
            Ok(found)
        } else {
            Err(ureq::Error::Other(Box::new(NotGlobal)))
        }
    }
}

fn parse(url: &str) -> Result<Uri, ApiError> {
    let wrong = || ApiError::media("this is no URL that can be fetched");
    if url.len() > MAX_URL || url.bytes().any(|byte| byte.is_ascii_control() || byte == b'\\' || byte == b' ') {
        return Err(wrong());
    }
    url.parse().map_err(|_| wrong())
}

fn default_port(uri: &Uri) -> Option<u16> {
    match uri.scheme_str() {
        Some("http") => Some(80),
        Some("https") => Some(443),
        _ => None,
    }
}

/// Where `location` leads from `base` (RFC 3986, 5.2, without dot segments, which the other server takes out itself).
fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next()?;
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    let scheme_end = location
        .find(':')
        .filter(|&end| location[..end].chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c)) && end > 0);
    let target = if scheme_end.is_some() {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.is_empty() {
        return None;
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", base.path())
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    parse(&target).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(hosts: &[&str]) -> Rules {
        Rules { any: hosts.is_empty(), hosts: hosts.iter().map(|host| host.parse().unwrap()).collect() }
    }

    fn is_let(rules: &Rules, url: &str) -> bool {
        parse(url).is_ok_and(|uri| rules.check(&uri).is_ok())
    }

    #[test]
    fn one_parser_reads_a_url() {
        // What is a path to one parser and a host to the other.
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
            assert!(!is_let(&rules(&[]), url), "{url}");
        }
        for url in
            ["http://example.com/a.mp4", "https://example.com", "https://example.com:443/a?b#c", "HTTP://EXAMPLE.com/"]
        {
            assert!(is_let(&rules(&[]), url), "{url}");
        }
    }

    #[test]
    fn named_hosts_are_let_with_their_port_only() {
        let rules = rules(&["nas.local:8000", "192.168.1.5", "[::1]:9"]);
        for url in ["http://nas.local:8000/a", "http://NAS.local:8000/", "https://192.168.1.5/", "http://[::1]:9/"] {
            assert!(is_let(&rules, url), "{url}");
        }
        for url in [
            "http://nas.local/",
            "http://nas.local:8001/",
            "http://192.168.1.5:8000/",
            "http://example.com/",
            "http://nas.local.evil:8000/",
        ] {
            assert!(!is_let(&rules, url), "{url}");
        }
        for wrong in ["", "a@b", "http://a", "a:b", "a:99999", "a/b"] {
            assert!(wrong.parse::<RemoteHost>().is_err(), "{wrong}");
        }
    }

    /// Names lead where the test wants, other each time.
    #[derive(Debug, Clone)]
    struct Fake(Arc<std::sync::Mutex<Vec<Vec<SocketAddr>>>>);

    impl Resolver for Fake {
        fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
            let mut answers = self.0.lock().unwrap();
            let mut found = self.empty();
            answers.remove(0).into_iter().for_each(|address| found.push(address));
            Ok(found)
        }
    }

    fn fetch(hosts: &[&str], url: &str, answers: &[&[&str]]) -> (Result<Stored, ApiError>, usize) {
        let remote = Remote { rules: Arc::new(rules(hosts)), max_bytes: 1000, timeout: Duration::from_secs(5) };
        let limits = MediaLimits::new(1000, Arc::default());
        let addresses = |answer: &&[&str]| answer.iter().map(|address| address.parse().unwrap()).collect();
        let fake = Fake(Arc::new(std::sync::Mutex::new(answers.iter().map(addresses).collect())));
        let result = remote.fetch_with(url, &limits, || fake.clone());
        let left = fake.0.lock().unwrap().len();
        (result, answers.len() - left)
    }

    #[test]
    fn a_name_with_one_address_of_this_network_is_refused() {
        for bad in ["127.0.0.1:80", "10.0.0.1:80", "[::ffff:127.0.0.1]:80", "[fd00::1]:80", "169.254.169.254:80"] {
            let (result, asked) = fetch(&[], "http://rebind.example/", &[&["1.1.1.1:80", bad], &["1.1.1.1:80"]]);
            let error = result.err().unwrap_or_else(|| panic!("{bad}")).body().to_string();
            assert!(error.contains("media_not_allowed"), "{error}");
            assert_eq!(asked, 1, "no second try");
        }
    }

    #[test]
    fn the_address_that_was_checked_is_the_one_that_is_dialed() {
        use std::io::{BufRead, BufReader, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let here = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let head: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi").unwrap();
            head
        });
        let port = here.port();
        // A second look at the name would lead elsewhere.
        let (result, asked) = fetch(
            &[&format!("clips.example:{port}")],
            &format!("http://clips.example:{port}/a.mp4"),
            &[&[&here.to_string()], &["192.0.2.1:9"]],
        );
        let stored = result.unwrap_or_else(|error| panic!("{}", error.body()));
        assert_eq!(std::fs::read(stored.file.path()).unwrap(), b"hi");
        assert_eq!(asked, 1);
        let head = server.join().unwrap().join("\n").to_ascii_lowercase();
        assert!(head.contains(&format!("host: clips.example:{port}")), "{head}");
        for unwanted in ["authorization", "cookie", "proxy"] {
            assert!(!head.contains(unwanted), "{head}");
        }
    }

    #[test]
    fn redirects_are_resolved() {
        let base = parse("http://a.example/x/y?z").unwrap();
        for (location, url) in [
            ("http://b.example/q", "http://b.example/q"),
            ("//b.example/q", "http://b.example/q"),
            ("/q?r#s", "http://a.example/q?r"),
            ("q", "http://a.example/x/q"),
            ("?r", "http://a.example/x/y?r"),
        ] {
            assert_eq!(resolve(&base, location).map(|uri| uri.to_string()).as_deref(), Some(url), "{location}");
        }
        for bad in ["", r"\\evil", "http://", "a b"] {
            assert_eq!(resolve(&base, bad), None, "{bad}");
        }
        // Checked as any URL is.
        let file = resolve(&base, "file:///etc/passwd");
        assert!(file.is_none_or(|uri| rules(&[]).check(&uri).is_err()));
    }
}
