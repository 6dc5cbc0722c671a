//! A local server that answers like the hub: the list of a repository's files, redirects for large files to a second
//! server with their content, ranges, and faults.

use sha2::{Digest, Sha256};
use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// What the second server does instead of answering correctly.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Closes the connection after this many bytes.
    Cut(usize),
    /// Sends this many bytes, and then nothing as long as the test runs.
    Silence(usize),
    /// Ignores the requested range, and sends the whole file.
    NoRange,
    /// As [`NoRange`](Self::NoRange), and closes the connection after this many bytes.
    NoRangeCut(usize),
    /// Sends as many bytes, but with other values.
    Garbage,
    /// Answers with a status.
    Status(u16),
    /// Waits before it answers correctly.
    Slow(Duration),
}

/// A request that was received.
#[derive(Debug, Clone)]
pub struct Request {
    /// The path, with the query.
    pub path: String,
    headers: HashMap<String, String>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// Files by their paths.
type Files = Vec<(String, Arc<Vec<u8>>)>;

/// The content and the faults of the servers. Tests may change it at any time.
#[derive(Debug, Default)]
pub struct State {
    /// `ORG/REPO` and its files.
    pub repos: HashMap<String, Files>,
    /// Repositories whose list is answered with 401, as for private or missing ones.
    pub private: Vec<String>,
    /// Repositories whose files require this token.
    pub gated: HashMap<String, String>,
    /// Names that redirect to others.
    pub renamed: HashMap<String, String>,
    /// Statuses that replace the list, each once.
    pub list_faults: VecDeque<u16>,
    /// Faults of the second server, by the file's name, each once.
    pub faults: HashMap<String, VecDeque<Fault>>,
    pub commit: String,
    /// Sizes in the list instead of the true ones, by the file's name.
    pub claims: HashMap<String, u64>,
    requests: Vec<Request>,
    content_requests: Vec<(String, Request)>,
}

pub struct HubServer {
    pub endpoint: String,
    state: Arc<Mutex<State>>,
}

impl HubServer {
    pub fn start() -> Self {
        let state = State { commit: "0123456789abcdef0123456789abcdef01234567".into(), ..State::default() };
        let state = Arc::new(Mutex::new(state));
        let contents = {
            let state = Arc::clone(&state);
            listen(move |request, stream| send_content(&state, &request, stream))
        };
        let hub = {
            let state = Arc::clone(&state);
            listen(move |request, stream| answer(&state, &contents, &request, stream))
        };
        Self { endpoint: hub, state }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds the state")
    }

    /// Replaces the files of a repository.
    pub fn publish(&self, repo: &str, files: &[(&str, Vec<u8>)]) {
        let files = files.iter().map(|(path, content)| ((*path).to_owned(), Arc::new(content.clone()))).collect();
        self.state().repos.insert(repo.to_owned(), files);
    }

    /// Puts empty files into a repository, and claims that they have these sizes.
    pub fn claim(&self, repo: &str, sizes: &[(&str, u64)]) {
        self.publish(repo, &sizes.iter().map(|(path, _)| (*path, Vec::new())).collect::<Vec<_>>());
        self.state().claims.extend(sizes.iter().map(|(path, size)| ((*path).to_owned(), *size)));
    }

    pub fn fault(&self, file: &str, faults: &[Fault]) {
        self.state().faults.insert(file.to_owned(), faults.iter().cloned().collect());
    }

    /// The requests to the hub itself.
    pub fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    /// The requests for the content of a file.
    pub fn content_requests(&self, file: &str) -> Vec<Request> {
        let of_file = |(name, request): &(String, Request)| (name == file).then(|| request.clone());
        self.state().content_requests.iter().filter_map(of_file).collect()
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Starts a server on a free port, and returns its address.
fn listen(handle: impl Fn(Request, TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let handle = Arc::new(handle);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let handle = Arc::clone(&handle);
            thread::spawn(move || {
                if let Some(request) = read_request(&stream) {
                    handle(request, stream);
                }
            });
        }
    });
    address
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let path = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
    let header = |line: String| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    let headers = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).filter_map(header).collect();
    Some(Request { path, headers })
}

/// Ignores errors: the client may be gone.
fn send(mut stream: TcpStream, status: u16, headers: &[(&str, String)], length: usize, body: &[u8]) {
    let mut head = format!("HTTP/1.1 {status} Status\r\nContent-Length: {length}\r\nConnection: close\r\n");
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    let _ = stream.write_all(format!("{head}\r\n").as_bytes());
    let _ = stream.write_all(body);
    let _ = stream.flush();
}

fn answer(state: &Mutex<State>, contents: &str, request: &Request, stream: TcpStream) {
    let mut state = state.lock().expect("the state");
    state.requests.push(request.clone());
    let path = request.path.split('?').next().unwrap_or_default();
    let refuse = |status, code: &str, message: &str| {
        let headers = [("X-Error-Code", code.to_owned()), ("X-Error-Message", message.to_owned())];
        (status, headers.to_vec(), Vec::new())
    };
    let (status, headers, body) = match path.strip_prefix("/api/models/") {
        Some(rest) => {
            let repo = rest.trim_end_matches("/revision/main").to_owned();
            if let Some(status) = state.list_faults.pop_front() {
                (status, Vec::new(), Vec::new())
            } else if let Some(new) = state.renamed.get(&repo) {
                (307, vec![("Location", format!("/api/models/{new}/revision/main?blobs=true"))], Vec::new())
            } else if state.private.contains(&repo) {
                refuse(401, "RepoNotFound", "Invalid credentials in Authorization header")
            } else {
                match state.repos.get(&repo) {
                    Some(files) => (200, Vec::new(), list(&state, files).into_bytes()),
                    None => refuse(404, "RepoNotFound", "Repository not found"),
                }
            }
        }
        None => {
            let (repo, rest) = path.trim_start_matches('/').split_once("/resolve/").unwrap_or_default();
            let (commit, file) = rest.split_once('/').unwrap_or_default();
            let token = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
            let renamed = state.renamed.get(repo);
            let content = state.repos.get(repo).and_then(|files| files.iter().find(|(name, _)| name == file));
            match content {
                _ if state.gated.get(repo).is_some_and(|wanted| token != Some(wanted.as_str())) => {
                    let status = if token.is_some() { 403 } else { 401 };
                    refuse(status, "GatedRepo", "Access to this model is restricted")
                }
                _ if renamed.is_some() => {
                    let new = renamed.map(String::as_str).unwrap_or_default();
                    (307, vec![("Location", format!("/{new}/resolve/{rest}"))], Vec::new())
                }
                Some((_, content)) if commit == state.commit => {
                    let headers = vec![
                        ("X-Repo-Commit", state.commit.clone()),
                        ("X-Linked-Size", content.len().to_string()),
                        ("X-Linked-Etag", format!("\"{}\"", sha256(content))),
                        // Another name of this host, so that clients must not send on what is meant for the first one.
                        ("Location", format!("{}/{repo}/{file}", contents.replace("127.0.0.1", "localhost"))),
                    ];
                    (302, headers, Vec::new())
                }
                _ => refuse(404, "EntryNotFound", "Entry not found"),
            }
        }
    };
    drop(state);
    send(stream, status, &headers, body.len(), &body);
}

fn list(state: &State, files: &Files) -> String {
    let sibling = |(path, content): &(String, Arc<Vec<u8>>)| {
        let size = state.claims.get(path).copied().unwrap_or(content.len() as u64);
        let sha256 = sha256(content);
        serde_json::json!({ "rfilename": path, "size": size, "blobId": "00aa".repeat(10),
            "lfs": { "sha256": sha256, "size": size, "pointerSize": 134 } })
    };
    let siblings: Vec<_> = files.iter().map(sibling).collect();
    serde_json::json!({ "id": "any", "sha": state.commit, "siblings": siblings, "gated": false }).to_string()
}

fn send_content(state: &Mutex<State>, request: &Request, stream: TcpStream) {
    let mut state = state.lock().expect("the state");
    let path = request.path.trim_start_matches('/').to_owned();
    let Some((content, name)) = state.repos.iter().find_map(|(repo, files)| {
        let name = path.strip_prefix(repo.as_str())?.strip_prefix('/')?;
        files.iter().find(|(file, _)| file == name).map(|(file, content)| (Arc::clone(content), file.clone()))
    }) else {
        drop(state);
        return send(stream, 404, &[], 0, &[]);
    };
    state.content_requests.push((name.clone(), request.clone()));
    let fault = state.faults.get_mut(&name).and_then(VecDeque::pop_front);
    drop(state);

    let asked = || request.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok();
    let start = asked().filter(|_| !matches!(fault, Some(Fault::NoRange | Fault::NoRangeCut(_))));
    let rest = match start {
        Some(start) if start >= content.len() => return send(stream, 416, &[], 0, &[]),
        start => &content[start.unwrap_or(0)..],
    };
    let range = format!("bytes {}-{}/{}", content.len() - rest.len(), content.len() - 1, content.len());
    let headers: &[_] = if start.is_some() { &[("Content-Range", range)] } else { &[] };
    let status = if start.is_some() { 206 } else { 200 };
    match fault {
        Some(Fault::Status(status)) => send(stream, status, &[], 0, &[]),
        Some(Fault::Cut(bytes) | Fault::NoRangeCut(bytes)) => send(stream, status, headers, rest.len(), &rest[..bytes]),
        Some(Fault::Silence(bytes)) => {
            let held = stream.try_clone();
            send(stream, status, headers, rest.len(), &rest[..bytes]);
            thread::sleep(Duration::from_secs(600));
            drop(held);
        }
        Some(Fault::Garbage) => send(stream, status, headers, rest.len(), &vec![b'x'; rest.len()]),
        Some(Fault::Slow(time)) => {
            thread::sleep(time);
            send(stream, status, headers, rest.len(), rest);
        }
        Some(Fault::NoRange) | None => send(stream, status, headers, rest.len(), rest),
    }
}
