//! Network access: the list of a repository's files, and the files.
//!
//! hf-hub provides the addresses, but its client is not used: it trusts only built-in certificate authorities,
//! downloads files again that the cache has under another commit, appends whatever a server sends to an unfinished
//! download, retries from where the download began, and waits forever for a silent server. Downloads use ureq directly.

use std::cell::Cell;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use hf_hub::api::sync::{Api, ApiBuilder};
use hf_hub::{Cache, Repo, RepoType};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{HeaderMap, StatusCode, header};
use ureq::typestate::WithoutBody;
use ureq::{Proxy, RequestBuilder};

use super::files::{Content, RepoFile};
use super::size;
use crate::error::{Error, RemoteKind, Result};
use crate::models::files::Home;
use crate::names::{InnerPath, ObjectId};
use crate::net::{self, CertificateProblem};
use crate::observer::{Observer, Stage};

/// How many attempts in a row may bring nothing before a download fails.
const MAX_FRUITLESS_TRIES: u32 = 4;

/// The wait after the first such attempt. It doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_millis(300);

/// How often a download that restarts from the beginning has all its attempts again.
const MAX_FRESH_STARTS: u32 = 3;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a server may stay silent.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);

/// The largest list of files, in bytes. Large repositories need a few.
const MAX_LIST_BYTES: u64 = 32 << 20;

/// An HTTP client for a hub. It has no `Debug`, which would show the token.
pub(super) struct Client {
    api: Api,
    agent: ureq::Agent,
    endpoint: String,
    token: Option<String>,
}

/// The files of a repository at one commit.
#[derive(Debug)]
pub(super) struct Listing {
    pub commit: ObjectId,
    pub files: Vec<RepoFile>,
}

/// The used part of the hub's answer.
#[derive(Debug, Deserialize)]
struct RepoInfo {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Debug, Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Debug, Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

/// The unfinished download of a file.
struct Part<'a> {
    content: &'a mut File,
    path: &'a Path,
    /// Its size, in bytes.
    have: u64,
    /// Set if the download restarts from the beginning.
    began_anew: &'a Cell<bool>,
}

/// Why an attempt failed.
enum Trouble {
    /// Another attempt may succeed.
    Passing(Error),
    Final(Error),
}

impl Client {
    /// A client for the hub at `endpoint`, or else hf-hub's default.
    pub fn new(cache: &Cache, endpoint: Option<&str>, token: Option<&str>) -> Result<Self> {
        let unusable = |reason: String, advice: &str| Error::Remote {
            kind: RemoteKind::Hub,
            what: endpoint.unwrap_or("the hub").to_owned(),
            status: None,
            reason,
            advice: advice.to_owned(),
        };
        let agent = net::client()
            .map_err(|reason| unusable(reason, "name a file in PEM there, or unset it"))?
            .http_status_as_error(false)
            // Files are on other servers, which must not get the token.
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            // A resumed download counts uncompressed bytes.
            .accept_encoding("identity")
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_per_read(Some(SILENCE_TIMEOUT))
            .build()
            .new_agent();
        let builder = ApiBuilder::from_cache(cache.clone());
        let builder = match endpoint {
            Some(endpoint) => builder.with_endpoint(endpoint.to_owned()),
            None => builder,
        };
        let api =
            builder.with_progress(false).build().map_err(|error| unusable(error.to_string(), "check HF_ENDPOINT"))?;
        let url = api.model(String::new()).url("");
        let endpoint = url.split("//resolve/").next().unwrap_or(&url).to_owned();
        Ok(Self { api, agent, endpoint, token: token.map(str::to_owned) })
    }

    /// Lists the files on the main branch of `repo`.
    pub fn list(&self, repo: &str) -> Result<Listing> {
        let request = || {
            let model = Repo::new(repo.to_owned(), RepoType::Model);
            let request = self.get(&format!("{}/api/{}", self.endpoint, model.api_url())).query("blobs", "true");
            let mut response = request.call().map_err(|error| self.unreachable(repo, &error))?;
            if response.status() != StatusCode::OK {
                return Err(self.rejected(repo, false, response.status(), response.headers()));
            }
            let body = response.body_mut().with_config().limit(MAX_LIST_BYTES).read_to_string();
            body.map_err(|error| self.unreachable(repo, &error))
        };
        let text = retry(request, || false)?;
        let info: RepoInfo = serde_json::from_str(&text).map_err(|error| self.garbled(repo, &error.to_string()))?;
        let no_commit = || self.garbled(repo, &format!("{:?} is no commit", info.sha));
        let commit = ObjectId::parse(&info.sha).ok_or_else(no_commit)?;
        Ok(Listing { commit, files: info.siblings.into_iter().filter_map(Sibling::into_file).collect() })
    }

    /// The error for an answer that a hub would not give.
    pub fn garbled(&self, repo: &str, reason: &str) -> Error {
        Error::Remote {
            kind: RemoteKind::Hub,
            what: repo.to_owned(),
            status: None,
            reason: format!("{} does not answer as the hub does: {reason}", self.endpoint),
            advice: "check HF_ENDPOINT".into(),
        }
    }

    fn get(&self, url: &str) -> RequestBuilder<WithoutBody> {
        let request = self.agent.get(url);
        match &self.token {
            Some(token) => request.header(header::AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        }
    }

    /// Completes the download of `file` in `part`.
    pub fn fetch(
        &self,
        repo: &str,
        commit: &ObjectId,
        file: &RepoFile,
        part: &Path,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let what = format!("{} of {repo}", file.path);
        let revision = Repo::with_revision(repo.to_owned(), RepoType::Model, commit.as_str().to_owned());
        let url = self.api.repo(revision).url(&utf8_percent_encode(&file.path, ESCAPED).to_string());
        let mut output =
            File::options().create(true).append(true).read(true).open(part).map_err(Home::Hub.error(part))?;
        let length = |output: &File| output.metadata().map(|meta| meta.len()).map_err(Home::Hub.error(part));
        if length(&output)? > file.size {
            output.set_len(0).map_err(Home::Hub.error(part))?;
        }
        let mut best = length(&output)?;
        // A server without ranges restarts each time, and may break off each time, so the number of restarts is
        // limited.
        let (began_anew, mut fresh_starts) = (Cell::new(false), 0);
        observer.progress(Stage::Download, best, file.size);
        let fetched = retry(
            || {
                let have =
                    output.seek(SeekFrom::End(0)).map_err(|error| Trouble::Final(Home::Hub.error(part)(error)))?;
                if have == file.size {
                    Ok(())
                } else {
                    let part = Part { content: &mut output, have, path: part, began_anew: &began_anew };
                    self.attempt(&what, &url, file, part, observer)
                }
            },
            || {
                let now = part.metadata().map_or(0, |meta| meta.len());
                if began_anew.take() && fresh_starts < MAX_FRESH_STARTS {
                    (fresh_starts, best) = (fresh_starts + 1, 0);
                }
                let has_progressed = now > best;
                best = best.max(now);
                has_progressed
            },
        );
        fetched?;
        observer.progress(Stage::Download, file.size, file.size);
        Ok(())
    }

    /// Downloads what follows the first `have` bytes.
    fn attempt(
        &self,
        what: &str,
        url: &str,
        file: &RepoFile,
        Part { content: output, have, path: part, began_anew }: Part<'_>,
        observer: &mut dyn Observer,
    ) -> Result<(), Trouble> {
        let mut request = self.get(url);
        if have > 0 {
            request = request.header(header::RANGE, format!("bytes={have}-"));
        }
        let response = request.call().map_err(|error| self.unreachable(what, &error))?;
        let status = response.status();
        let write_error = |error| Trouble::Final(Home::Hub.error(part)(error));
        let mut done = match status {
            StatusCode::PARTIAL_CONTENT if starts_at(response.headers(), have) => have,
            // The server does not support ranges, so start from the beginning.
            StatusCode::OK => {
                if have > 0 {
                    output.set_len(0).map_err(write_error)?;
                    began_anew.set(true);
                }
                0
            }
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                output.set_len(0).map_err(write_error)?;
                began_anew.set(true);
                return Err(Trouble::Passing(self.wrong_size(what, file, have)));
            }
            _ => return Err(self.rejected(what, true, status, response.headers())),
        };
        // One byte too many is enough to detect a file that is too large.
        let mut body = response.into_body().into_reader().take((file.size - done).saturating_add(1));
        let mut buffer = vec![0; 1 << 18];
        loop {
            match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => {
                    output.write_all(&buffer[..n]).map_err(write_error)?;
                    done += n as u64;
                    observer.progress(Stage::Download, done.min(file.size), file.size);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => (),
                Err(error) => return Err(Trouble::Passing(self.cut(what, file, done, &error.to_string()))),
            }
        }
        match done {
            _ if done < file.size => Err(Trouble::Passing(self.cut(what, file, done, "the connection was closed"))),
            _ if done > file.size => {
                Home::Hub.remove(part).map_err(Trouble::Final)?;
                Err(Trouble::Final(self.wrong_size(what, file, done)))
            }
            _ => Ok(()),
        }
    }

    fn cut(&self, what: &str, file: &RepoFile, done: u64, reason: &str) -> Error {
        Error::Remote {
            kind: RemoteKind::Hub,
            what: what.to_owned(),
            status: None,
            reason: format!("the download ended after {} of {}: {reason}", size(done), size(file.size)),
            advice: "run it again to resume".into(),
        }
    }

    fn wrong_size(&self, what: &str, file: &RepoFile, got: u64) -> Error {
        Error::Remote {
            kind: RemoteKind::Hub,
            what: what.to_owned(),
            status: None,
            reason: format!("the server has another file than it lists: {got} bytes do not match {}", file.size),
            advice: "the download was deleted; try again".into(),
        }
    }

    fn unreachable(&self, what: &str, error: &ureq::Error) -> Trouble {
        if let Some(problem) = net::certificate_problem(error) {
            // Another attempt would not help.
            return Trouble::Final(self.untrusted(what, &problem));
        }
        let is_used = |proxy: &&Proxy| self.endpoint.parse().is_ok_and(|hub| !proxy.is_no_proxy(&hub));
        let through = match self.agent.config().proxy().filter(is_used) {
            Some(proxy) => format!(" through the proxy {}:{}", proxy.host(), proxy.port()),
            None => String::new(),
        };
        let error_text = match error {
            ureq::Error::HostNotFound => "no such host".to_owned(),
            // Without ureq's prefix "io: ".
            ureq::Error::Io(error) => error.to_string(),
            error => error.to_string(),
        };
        Trouble::Passing(Error::Remote {
            kind: RemoteKind::Hub,
            what: what.to_owned(),
            status: None,
            reason: format!("{} cannot be reached{through}: {error_text}", self.endpoint),
            advice: "check the network connection, HF_ENDPOINT and the proxy settings, and run it again".into(),
        })
    }

    fn untrusted(&self, what: &str, problem: &CertificateProblem) -> Error {
        let trusted = net::trust().map_or_else(|reason| reason, ToString::to_string);
        let variable = net::CERTIFICATES_VARIABLE;
        let advice = if problem.is_unknown {
            format!(
                "trusted are {trusted}; for a proxy or a hub of your own, set {variable} to a PEM file with the certificate of its authority"
            )
        } else {
            "check the clock of this machine and HF_ENDPOINT".to_owned()
        };
        Error::Remote {
            kind: RemoteKind::Hub,
            what: what.to_owned(),
            status: None,
            reason: format!("the certificate of {} is not trusted: {}", self.endpoint, problem.reason),
            advice,
        }
    }

    /// The error for a status other than success. `listed`: whether the repository was listed before.
    fn rejected(&self, what: &str, listed: bool, status: StatusCode, headers: &HeaderMap) -> Trouble {
        let page = |repo: &str| format!("{}/{repo}", self.endpoint);
        let repo = what.rsplit(' ').next().unwrap_or(what);
        let token = match &self.token {
            Some(_) => "check that HF_TOKEN is valid and may read it",
            None => "set HF_TOKEN to a token of your account",
        };
        let gated = headers.get("x-error-code").is_some_and(|code| code == "GatedRepo");
        let (reason, advice) = match status.as_u16() {
            401 | 403 if gated || listed => {
                ("access is restricted".to_owned(), format!("accept the license on {}, and {token}", page(repo)))
            }
            // Without access, the hub does not distinguish private repositories from missing ones.
            401 | 403 => (
                "there is no such repository, or it is private".to_owned(),
                format!("check the spelling; if it is private, {token}"),
            ),
            404 if listed => {
                ("there is no such file".to_owned(), "run it again; the repository may just have changed".to_owned())
            }
            404 => ("there is no such repository".to_owned(), format!("check the spelling: {}", page(repo))),
            429 => ("too many requests".to_owned(), "wait a few minutes and run it again".to_owned()),
            500..=599 => ("the server has a problem".to_owned(), "try again later".to_owned()),
            _ => (
                "the server answered something unexpected".to_owned(),
                "check HF_ENDPOINT, and try again later".to_owned(),
            ),
        };
        let said = headers.get("x-error-message").and_then(|text| text.to_str().ok()).filter(|text| !text.is_empty());
        let said =
            said.map_or(String::new(), |text| format!("; it says: {}", text.chars().take(200).collect::<String>()));
        let error = Error::Remote {
            kind: RemoteKind::Hub,
            what: what.to_owned(),
            status: Some(status.as_u16()),
            reason: format!("{reason} (HTTP {}{said})", status.as_u16()),
            advice,
        };
        if status.is_server_error() { Trouble::Passing(error) } else { Trouble::Final(error) }
    }
}

impl Sibling {
    /// `None` for files that cannot be in the cache: without a size, or with a path or content id that is not valid as
    /// a file name.
    fn into_file(self) -> Option<RepoFile> {
        let rejected =
            |reason: &str| tracing::info!("the hub lists {:?}, which {reason}; it is ignored", self.rfilename);
        let path = InnerPath::parse(&self.rfilename).inspect_err(|reason| rejected(reason)).ok()?;
        let size = self.lfs.as_ref().map(|lfs| lfs.size).or(self.size)?;
        let sha256 = self.lfs.map(|lfs| lfs.sha256.to_ascii_lowercase());
        let id = ObjectId::parse(sha256.as_ref().or(self.blob_id.as_ref())?)?;
        Some(RepoFile { path, size, content: Some(Content { id, sha256 }) })
    }
}

/// Repeats `work` while its trouble is passing, and `has_progressed` or attempts are left.
fn retry<T>(mut work: impl FnMut() -> Result<T, Trouble>, mut has_progressed: impl FnMut() -> bool) -> Result<T> {
    let mut fruitless = 0;
    loop {
        match work() {
            Ok(value) => return Ok(value),
            Err(Trouble::Final(error)) => return Err(error),
            Err(Trouble::Passing(error)) => {
                fruitless = if has_progressed() { 1 } else { fruitless + 1 };
                tracing::debug!("{error}");
                if fruitless >= MAX_FRUITLESS_TRIES {
                    return Err(error);
                }
                std::thread::sleep(FIRST_WAIT * (1 << (fruitless - 1)));
            }
        }
    }
}

/// Whether a response contains the part of a file that starts at `have`.
fn starts_at(headers: &HeaderMap, have: u64) -> bool {
    let range = headers.get(header::CONTENT_RANGE).and_then(|range| range.to_str().ok());
    let start = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse::<u64>().ok());
    start == Some(have)
}

/// The characters of a path that an address does not contain as they are.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');
