//! Starts servers, and sends requests to them.

use crate::support::families;
use crate::support::smol;
use base64::Engine as _;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// The time limit of everything here.
const LIMIT: Duration = Duration::from_secs(300);

/// A running `sharpv serve`, which ends when the value is dropped.
pub struct Server {
    child: Child,
    pub address: String,
    log: Arc<Mutex<String>>,
}

/// A response.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub text: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The text of an answer that was not streamed.
    pub fn answer(&self) -> String {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json()["choices"][0]["message"]["content"].as_str().expect("text").to_owned()
    }

    /// The code of an error. Checks the format of the error, too.
    pub fn error(&self) -> String {
        let json = self.json();
        let error = json["error"].as_object().unwrap_or_else(|| panic!("no error: {}", self.text));
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{error:?}");
        assert!(error["type"].is_string() && error.contains_key("param"), "{error:?}");
        error["code"].as_str().expect("a code").to_owned()
    }

    /// The events of a stream: JSON, and `[DONE]` as a string.
    pub fn events(&self) -> Vec<Value> {
        let read = |line: &str| match line {
            "[DONE]" => Value::String("[DONE]".into()),
            data => serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}")),
        };
        self.text.lines().filter_map(|line| line.strip_prefix("data: ")).map(read).collect()
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The clip of the demo.
pub fn clip() -> PathBuf {
    root().join("demo/clip.mp4")
}

pub fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// A file as a data URI.
pub fn data_uri(path: &Path, kind: &str) -> String {
    format!("data:{kind};base64,{}", base64(&std::fs::read(path).expect("a file")))
}

/// A message about a video.
pub fn about(url: &str, question: &str) -> Value {
    json!({ "messages": [{ "role": "user", "content": [
        { "type": "video_url", "video_url": { "url": url } },
        { "type": "text", "text": question },
    ] }] })
}

/// A message without a video.
pub fn say(question: &str) -> Value {
    json!({ "messages": [{ "role": "user", "content": question }] })
}

/// `body` with more fields.
pub fn with(mut body: Value, fields: Value) -> Value {
    for (name, value) in fields.as_object().expect("an object") {
        body[name] = value.clone();
    }
    body
}

impl Server {
    /// Starts a server with a tiny model of random weights, which answers nonsense quickly.
    pub fn tiny(options: &[&str]) -> Self {
        let files = families::files("smolvlm");
        let mmproj = files.mmproj.expect("a projector");
        let (model, mmproj) = (files.model.to_str().expect("UTF-8"), mmproj.to_str().expect("UTF-8"));
        let mut model = vec!["-m", model, "--mmproj", mmproj, "--weights", "exact"];
        for default in [["--alias", "tiny"], ["-n", "16"]] {
            if !options.contains(&default[0]) {
                model.extend(default);
            }
        }
        Self::start(&[&model, options].concat(), &[])
    }

    /// Starts a server with the small model `smol`, which gives real answers.
    pub fn smol(options: &[&str]) -> Self {
        smol::files();
        Self::start(&[&["-m", "smol"], options].concat(), &[])
    }

    pub fn start(options: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_sharpv"))
            .args(["serve", "--port", "0"])
            .args(options)
            .env_remove("SHARPV_LOG")
            .env_remove("SHARPV_API_KEY")
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut lines = BufReader::new(child.stderr.take().expect("stderr")).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let mut address = None;
        for line in lines.by_ref().map_while(Result::ok) {
            if let Some((_, rest)) = line.split_once(" at http://") {
                address = rest.split_once("/v1").map(|(address, _)| address.to_owned());
                break;
            }
            log.lock().expect("the log").push_str(&format!("{line}\n"));
        }
        let Some(address) = address else {
            panic!("the server did not start: {}", log.lock().expect("the log"));
        };
        let written = Arc::clone(&log);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                written.lock().expect("the log").push_str(&format!("{line}\n"));
            }
        });
        Self { child, address, log }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The server's log so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("the log").clone()
    }

    pub fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], None)
    }

    pub fn post(&self, body: &Value) -> Reply {
        self.post_text(&body.to_string())
    }

    pub fn post_text(&self, body: &str) -> Reply {
        self.send("POST", "/v1/chat/completions", &[("content-type", "application/json")], Some(body))
    }

    /// Sends a request with only these headers.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> Reply {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false)
            .timeout_global(Some(LIMIT))
            .build()
            .into();
        let mut request = ureq::http::Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = match body {
            Some(body) => agent.run(request.body(body.to_owned()).expect("a request")),
            None => agent.run(request.body(()).expect("a request")),
        };
        let mut response = response.expect("an answer");
        let text = |value: &ureq::http::HeaderValue| value.to_str().expect("text").to_owned();
        Reply {
            status: response.status().as_u16(),
            headers: response.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
            text: response.body_mut().read_to_string().expect("a body"),
        }
    }

    /// Sends bytes unchanged, and returns everything that comes back.
    pub fn raw(&self, request: &str) -> Reply {
        let mut stream = self.connect(request);
        let mut answer = Vec::new();
        // A connection may be reset after the answer.
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, text) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let headers = head.lines().skip(1).filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        Reply { status, headers, text: text.to_owned() }
    }

    /// Sends bytes unchanged, and leaves the connection open.
    pub fn connect(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).expect("a connection");
        stream.set_read_timeout(Some(LIMIT)).expect("a timeout");
        stream.write_all(request.as_bytes()).expect("the request is sent");
        stream
    }

    /// Sends a chat request without reading the answer.
    pub fn begin(&self, body: &Value) -> TcpStream {
        let body = body.to_string();
        self.connect(&format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    /// The value of a metric, summed over all labels; 0 if it was never counted.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").text;
        let value = |line: &str| {
            let (metric, value) = line.rsplit_once(' ')?;
            let is_it = metric == name || metric.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'));
            is_it.then(|| value.parse::<f64>().expect("a number"))
        };
        text.lines().filter_map(value).sum()
    }

    /// Waits until a metric satisfies `is_expected`.
    pub fn wait_for(&self, name: &str, is_expected: impl Fn(f64) -> bool) -> f64 {
        let start = Instant::now();
        loop {
            let value = self.metric(name);
            if is_expected(value) {
                return value;
            }
            assert!(start.elapsed() < LIMIT, "{name} is {value}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends a signal, and returns the exit code.
    #[cfg(unix)]
    pub fn end(mut self, signal: &str) -> Option<i32> {
        let sent = Command::new("kill").args([&format!("-{signal}"), &self.pid().to_string()]).status();
        assert!(sent.expect("kill runs").success());
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the program") {
                return status.code();
            }
            assert!(start.elapsed() < LIMIT, "the server does not end");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A local server of media, which sends bytes unchanged.
pub struct MediaServer {
    pub address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl MediaServer {
    /// `answer` returns the complete response for a path, with its head.
    pub fn start(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (Arc::clone(&requests), Arc::new(answer));
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                thread::spawn(move || {
                    let mut lines = BufReader::new(stream.try_clone().expect("a stream")).lines();
                    let first = lines.next().and_then(Result::ok).unwrap_or_default();
                    lines.map_while(Result::ok).find(String::is_empty);
                    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
                    seen.lock().expect("the requests").push(path.clone());
                    // The client may have closed the connection.
                    let _ = stream.write_all(&answer(&path));
                });
            }
        });
        Self { address, requests }
    }

    /// The requested paths.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("the requests").clone()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

/// A response with a file.
pub fn file_answer(bytes: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", bytes.len()).as_bytes(), bytes]
        .concat()
}

/// A response that redirects.
pub fn redirect(to: &str) -> Vec<u8> {
    format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into_bytes()
}
