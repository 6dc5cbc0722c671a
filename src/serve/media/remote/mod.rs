//! Media of other servers: fetched only if that is allowed, and only from public addresses.
//!
//! ureq follows redirects, and resolves the host of each hop with [`Checked`]. It checks the hop's URL and all
//! addresses of its host; ureq then connects to one of these very addresses, so that a second look-up cannot lead
//! elsewhere. No connection is reused. Proxies of the environment, cookies and credentials are not used.

mod rules;

pub use rules::RemoteHost;

use super::address::is_global;
use super::data::{StoreError, Stored, store};
use super::limits::MediaLimits;
use crate::net;
use crate::serve::api::error::ApiError;
use crate::serve::cancel::Cancellation;
use rules::{Rules, wrong_scheme};
use std::sync::Arc;
use std::time::{Duration, Instant};
use ureq::Agent;
use ureq::config::Config;
use ureq::http::{StatusCode, Uri, header};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

/// The most redirects that are followed.
const MAX_REDIRECTS: u32 = 5;

/// The most bytes of a URL.
const MAX_URL: usize = 4096;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Fetches what may be fetched.
#[derive(Debug)]
pub(in crate::serve) struct Remote {
    rules: Arc<Rules>,
    max_bytes: u64,
    timeout: Duration,
}

impl Remote {
    /// `None` if nothing may be fetched.
    pub fn new(any: bool, hosts: Vec<RemoteHost>, max_bytes: u64, timeout: Duration) -> Option<Self> {
        (any || !hosts.is_empty()).then(|| Self { rules: Arc::new(Rules { any, hosts }), max_bytes, timeout })
    }

    /// Fetches a file. Blocks.
    pub(in crate::serve::media) fn fetch(&self, url: &str, limits: &MediaLimits) -> Result<Stored, ApiError> {
        self.fetch_with(url, limits, DefaultResolver::default())
    }

    fn fetch_with(&self, url: &str, limits: &MediaLimits, resolver: impl Resolver) -> Result<Stored, ApiError> {
        let deadline = Instant::now() + self.timeout;
        // The limit is for all files of a request together.
        let left = self.max_bytes.saturating_sub(limits.downloaded.get());
        let too_large = || ApiError::too_large("what the URLs lead to", self.max_bytes);
        let uri = parse(url)?;
        let (rules, cancellation) = (Arc::clone(&self.rules), Arc::clone(&limits.cancellation));
        let agent = Agent::with_parts(
            self.config()?,
            DefaultConnector::default(),
            Checked { inner: resolver, rules, cancellation },
        );
        let mut response = agent.get(uri).call().map_err(|error| self.failed(error))?;
        if response.status() != StatusCode::OK {
            return Err(ApiError::media("the server of the URL does not send the file; try the URL in a browser"));
        }
        let length = response.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if length.is_some_and(|length: u64| length > left) {
            return Err(too_large());
        }
        // The header may be wrong, so the bytes are counted as well.
        let stored = store(response.body_mut().as_reader(), left, limits).map_err(|error| match error {
            StoreError::Api(error) if error.status() == StatusCode::PAYLOAD_TOO_LARGE => too_large(),
            StoreError::Api(error) => error,
            StoreError::Read if Instant::now() >= deadline => self.too_slow(),
            StoreError::Read => ApiError::media("the download broke off; try again, or send the file itself"),
        })?;
        let bytes = stored.file.as_file().metadata().map_or(left, |meta| meta.len());
        limits.downloaded.set(limits.downloaded.get().saturating_add(bytes));
        Ok(stored)
    }

    fn config(&self) -> Result<Config, ApiError> {
        let client = net::client().map_err(|reason| {
            tracing::error!("{reason}");
            ApiError::media("this server cannot make encrypted connections; send the file itself")
        })?;
        Ok(client
            .proxy(None)
            .max_redirects(MAX_REDIRECTS)
            .http_status_as_error(false)
            .max_idle_connections(0)
            .accept_encoding("identity")
            .timeout_global(Some(self.timeout))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .build())
    }

    fn failed(&self, error: ureq::Error) -> ApiError {
        match error {
            ureq::Error::Other(error) if error.is::<ApiError>() => {
                error.downcast().map_or_else(|_| ApiError::internal(), |error| *error)
            }
            ureq::Error::Timeout(_) => self.too_slow(),
            ureq::Error::BadUri(_) => wrong_scheme(),
            ureq::Error::TooManyRedirects => {
                ApiError::forbidden_media("the URL redirects too often; send the URL that it leads to")
            }
            error if net::certificate_problem(&error).is_some() => {
                ApiError::media("this server does not trust the certificate of the URL's server; send the file itself")
            }
            _ => ApiError::media(
                "the server of the URL cannot be reached; try the URL in a browser, or send the file itself",
            ),
        }
    }

    fn too_slow(&self) -> ApiError {
        let seconds = self.timeout.as_secs();
        ApiError::media(format!("the download took longer than {seconds} s; send the file itself"))
    }
}

/// Resolves a host as the system does. Rejects URLs that may not be fetched, and addresses that are not public.
#[derive(Debug)]
struct Checked<R> {
    inner: R,
    rules: Arc<Rules>,
    cancellation: Arc<Cancellation>,
}

impl<R: Resolver> Resolver for Checked<R> {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let rejected = |error: ApiError| ureq::Error::Other(Box::new(error));
        if self.cancellation.reason().is_some() {
            return Err(rejected(ApiError::cancelled()));
        }
        self.rules.check(uri).map_err(rejected)?;
        let found = self.inner.resolve(uri, config, timeout)?;
        // A name with a public and a private address is meant to reach the private one.
        if self.rules.names(uri) || found.iter().all(|address| is_global(address.ip())) {
            return Ok(found);
        }
        Err(rejected(ApiError::forbidden_media("the URL leads to an address that is not public; send the file itself")))
    }
}

fn parse(url: &str) -> Result<Uri, ApiError> {
    let wrong = || ApiError::media("this is not a URL that can be fetched");
    if url.len() > MAX_URL || url.bytes().any(|byte| byte.is_ascii_control() || byte == b'\\' || byte == b' ') {
        return Err(wrong());
    }
    url.parse().map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::net::{SocketAddr, TcpListener};
    use std::sync::Mutex;
    use std::thread::{self, JoinHandle};

    /// Resolves each name to the next of these answers.
    #[derive(Debug, Clone)]
    struct Fake(Arc<Mutex<Vec<Vec<SocketAddr>>>>);

    impl Resolver for Fake {
        fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
            let mut answers = self.0.lock().unwrap();
            let mut found = self.empty();
            answers.remove(0).into_iter().for_each(|address| found.push(address));
            Ok(found)
        }
    }

    /// Fetches `url` with names that resolve to one of `answers` after the other. Says how many names were resolved.
    fn fetch(host: &str, url: &str, answers: &[&[&str]]) -> (Result<Stored, ApiError>, usize) {
        let rules = Rules { any: true, hosts: vec![host.parse().unwrap()] };
        let remote = Remote { rules: Arc::new(rules), max_bytes: 1000, timeout: Duration::from_secs(5) };
        let limits = MediaLimits::new(1000, Arc::default());
        let addresses = |answer: &&[&str]| answer.iter().map(|address| address.parse().unwrap()).collect();
        let fake = Fake(Arc::new(Mutex::new(answers.iter().map(addresses).collect())));
        let result = remote.fetch_with(url, &limits, fake.clone());
        let left = fake.0.lock().unwrap().len();
        (result, answers.len() - left)
    }

    /// A server for one request. It returns the lines of the request's head.
    fn serve(answer: &'static str) -> (SocketAddr, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let head: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            stream.write_all(answer.as_bytes()).unwrap();
            head.join("\n").to_ascii_lowercase()
        });
        (address, server)
    }

    fn is_forbidden(result: Result<Stored, ApiError>) -> bool {
        result.is_err_and(|error| error.body().to_string().contains("media_not_allowed"))
    }

    #[test]
    fn a_name_with_one_private_address_is_rejected() {
        for private in ["127.0.0.1:80", "10.0.0.1:80", "[::ffff:127.0.0.1]:80", "[fd00::1]:80", "169.254.169.254:80"] {
            let answers: [&[&str]; 2] = [&["1.1.1.1:80", private], &["1.1.1.1:80"]];
            let (result, resolved) = fetch("other.example", "http://rebind.example/", &answers);
            assert!(is_forbidden(result), "{private}");
            assert_eq!(resolved, 1, "it is not tried again");
        }
    }

    #[test]
    fn each_redirect_is_checked() {
        for to in
            ["http://rebind.example/", "//rebind.example/", "http://rebind.example:22/", "http://a@rebind.example/"]
        {
            let answer =
                format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let (address, server) = serve(answer.leak());
            let named = format!("clips.example:{}", address.port());
            let answers: [&[&str]; 2] = [&[&address.to_string()], &["1.1.1.1:80", "127.0.0.1:80"]];
            let (result, _) = fetch(&named, &format!("http://{named}/a.mp4"), &answers);
            assert!(is_forbidden(result), "{to}");
            server.join().unwrap();
        }
    }

    #[test]
    fn the_address_that_was_checked_is_the_one_that_is_connected_to() {
        let (address, server) = serve("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi");
        let named = format!("clips.example:{}", address.port());
        // A second look-up would lead elsewhere.
        let answers: [&[&str]; 2] = [&[&address.to_string()], &["192.0.2.1:9"]];
        let (result, resolved) = fetch(&named, &format!("http://{named}/a.mp4"), &answers);
        let stored = result.unwrap_or_else(|error| panic!("{}", error.body()));
        assert_eq!(std::fs::read(stored.file.path()).unwrap(), b"hi");
        assert_eq!(resolved, 1);
        let head = server.join().unwrap();
        assert!(head.contains(&format!("host: {named}")), "{head}");
        for unwanted in ["authorization", "cookie", "proxy"] {
            assert!(!head.contains(unwanted), "{head}");
        }
    }
}
