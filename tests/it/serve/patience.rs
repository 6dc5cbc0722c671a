//! Slow, idle or rejected clients do not delay others.

use super::client::{MediaServer, Reply, Server, about, say, with};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The longest time that a client here sends.
const LIMIT: Duration = Duration::from_secs(60);

/// The head of a chat request with a body of `length` bytes.
fn head(length: usize) -> String {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    )
}

/// The time that a short text question takes, on its own connection.
fn question(server: &Server) -> Duration {
    let start = Instant::now();
    let mut stream = server.begin(&with(say("Why?"), json!({ "max_tokens": 2 })));
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).expect("an answer within 20 s");
    assert_eq!(&answer, b"HTTP/1.1 200");
    start.elapsed()
}

/// The longest time of a few questions.
fn slowest_question(server: &Server) -> Duration {
    (0..5).map(|_| question(server)).max().expect("a time")
}

#[test]
fn bodies_that_do_not_arrive_hold_up_nobody() {
    let server = Server::tiny(&[]);
    let alone = slowest_question(&server);
    // Each announces the largest allowed body.
    let _slow: Vec<_> = (0..8).map(|_| server.connect(&(head(128 << 20) + "{"))).collect();
    thread::sleep(Duration::from_millis(200));
    let beside = slowest_question(&server);
    assert!(beside < alone + Duration::from_secs(1), "{beside:?}, and {alone:?} alone");
}

#[test]
fn idle_and_slow_clients_hold_up_nobody() {
    let server = Server::tiny(&[]);
    let alone = slowest_question(&server);
    let _idle: Vec<_> = (0..500).map(|_| server.connect("")).collect();
    let heads = (0..25).map(|_| server.connect("POST /v1/chat/completions HTTP/1.1\r\nX-Slow: "));
    let bodies = (0..25).map(|_| server.connect(&head(100 << 20)));
    let mut slow: Vec<TcpStream> = heads.chain(bodies).collect();
    let (done, start) = (AtomicBool::new(false), Instant::now());
    thread::scope(|scope| {
        // Sends byte by byte.
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) && start.elapsed() < LIMIT {
                // Connections that the server closed fail.
                slow.iter_mut().for_each(|stream| drop(stream.write_all(b"x")));
                thread::sleep(Duration::from_millis(50));
            }
        });
        thread::sleep(Duration::from_millis(500));
        let beside = slowest_question(&server);
        let start = Instant::now();
        assert_eq!(server.get("/health").status, 200);
        let health = start.elapsed();
        done.store(true, Ordering::Relaxed);
        assert!(beside < alone + Duration::from_secs(1), "{beside:?}, and {alone:?} alone");
        assert!(health < Duration::from_secs(1), "{health:?}");
    });
}

/// A body of about `bytes` bytes, most of them in a field that the server ignores.
fn body(bytes: usize) -> String {
    with(say("Why?"), json!({ "max_tokens": 2, "metadata": "x".repeat(bytes) })).to_string()
}

/// Sends `bytes` as over a lossy connection: in bursts, with pauses, some of them long.
fn send_lossy(stream: &mut TcpStream, bytes: &[u8], rate: f64, long_pause: Duration) {
    let burst = 64 << 10;
    let start = Instant::now();
    let mut stalled = Duration::ZERO;
    for (i, piece) in bytes.chunks(burst).enumerate() {
        stream.write_all(piece).expect("it is taken");
        if i % 16 == 15 {
            thread::sleep(long_pause);
            stalled += long_pause;
        }
        let due = Duration::from_secs_f64(((i + 1) * burst) as f64 / rate) + stalled;
        thread::sleep(due.saturating_sub(start.elapsed()));
    }
}

#[test]
fn an_upload_may_take_its_time() {
    // The whole upload takes five times the longest allowed pause.
    let server = Server::tiny(&["--stall-timeout", "2"]);
    let body = body(5 << 20);
    let mut stream = server.connect(&head(body.len()));
    let start = Instant::now();
    send_lossy(&mut stream, body.as_bytes(), f64::from(1 << 20), Duration::from_millis(1400));
    assert!(start.elapsed() > Duration::from_secs(10), "{:?}", start.elapsed());
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200");
}

/// 100 MB at 5 Mbit/s with pauses, about four minutes.
#[test]
#[ignore = "minutes of waiting"]
fn a_long_upload_over_a_bad_line_is_answered() {
    let server = Server::tiny(&[]);
    let body = body(100_000_000);
    let mut stream = server.connect(&head(body.len()));
    let start = Instant::now();
    send_lossy(&mut stream, body.as_bytes(), 5e6 / 8.0, Duration::from_secs(1));
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200", "after {:?}", start.elapsed());
}

#[test]
fn a_body_that_stops_arriving_gets_an_error() {
    let server = Server::tiny(&["--stall-timeout", "2"]);
    let mut stream = server.connect(&head(1 << 20));
    let start = Instant::now();
    let mut reader = stream.try_clone().expect("a stream");
    let done = AtomicBool::new(false);
    let answer = thread::scope(|scope| {
        scope.spawn(|| {
            // Bytes keep coming, but too slowly.
            while !done.load(Ordering::Relaxed) && start.elapsed() < LIMIT {
                let _ = stream.write_all(b" ");
                thread::sleep(Duration::from_millis(100));
            }
        });
        let mut answer = [0; 12];
        reader.read_exact(&mut answer).expect("an answer");
        done.store(true, Ordering::Relaxed);
        answer
    });
    assert_eq!(&answer, b"HTTP/1.1 408");
    assert!((2..15).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

/// The resident set size of a server, in MiB.
fn rss_mib(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("the process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") >> 10
}

#[test]
fn bodies_are_on_disk_until_they_are_complete() {
    let server = Server::tiny(&[]);
    question(&server);
    let before = rss_mib(&server);
    let mut streams: Vec<_> = (0..3).map(|_| server.connect(&head(110 << 20))).collect();
    for stream in &mut streams {
        stream.write_all(&vec![b' '; 100 << 20]).expect("it is taken");
    }
    let after = rss_mib(&server);
    assert!(after < before + 50, "{before} MiB, and {after} MiB with 300 MiB of bodies");
}

/// Sends a whole request before it reads the answer, like Python's clients.
fn send_all(server: &Server, head: &str, body: &[u8]) -> Result<Reply, std::io::Error> {
    let mut stream = server.connect(head);
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, text) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Ok(Reply { status, headers: Vec::new(), text: text.to_owned() })
}

#[test]
fn a_client_that_is_rejected_while_sending_sees_the_answer() {
    let server = Server::tiny(&["--max-body", "1M", "--api-key", "k"]);
    let body = vec![b'x'; 20 << 20];
    let length = format!("Content-Length: {}\r\n", body.len());
    let key = "Authorization: Bearer k\r\nContent-Type: application/json\r\n";
    let chat = "POST /v1/chat/completions";
    let long = format!("X-Long: {}\r\n", "x".repeat(300 << 10));
    for (line, headers, status) in [
        (chat, format!("{key}{length}"), 413),
        (chat, format!("Content-Type: application/json\r\n{length}"), 401),
        (chat, format!("Authorization: Bearer k\r\nContent-Type: text/plain\r\n{length}"), 415),
        ("POST /v1/nothing", format!("{key}{length}"), 404),
        ("POST /v1/models", format!("{key}{length}"), 405),
        ("POST /health", length.clone(), 405),
        (chat, format!("{key}{length}{long}"), 431),
    ] {
        for _ in 0..4 {
            let head = format!("{line} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
            let reply = send_all(&server, &head, &body).unwrap_or_else(|error| panic!("{status}: {error}"));
            assert_eq!(reply.status, status, "{}", reply.text);
        }
    }
    // A body that turns out too large while it is sent, and a request for another host.
    let mut chunks = Vec::new();
    for chunk in body.chunks(1 << 20) {
        chunks.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        chunks.extend_from_slice(&[chunk, b"\r\n"].concat());
    }
    chunks.extend_from_slice(b"0\r\n\r\n");
    let chunked = format!("{chat} HTTP/1.1\r\nHost: localhost\r\n{key}Transfer-Encoding: chunked\r\n\r\n");
    let reply = send_all(&server, &chunked, &chunks).expect("an answer");
    assert_eq!((reply.status, reply.error().as_str()), (413, "too_large"));
    let other = format!("{chat} HTTP/1.1\r\nHost: evil.example\r\n{key}{length}\r\n");
    let reply = send_all(&server, &other, &body).expect("an answer");
    assert_eq!((reply.status, reply.error().as_str()), (403, "unknown_host"));
}

#[test]
fn a_rejected_client_is_not_read_from_forever() {
    let server = Server::tiny(&["--max-body", "1M"]);
    let mut stream = server.connect(&head(1 << 40));
    let block = vec![b'x'; 1 << 20];
    let taken = (0..1024).take_while(|_| stream.write_all(&block).is_ok()).count();
    assert!(taken < 256, "{taken} MiB were read of a rejected request");
}

/// The number of a server's open sockets.
fn sockets(server: &Server) -> usize {
    let fds = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("the process");
    let links = fds.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

#[test]
fn a_client_that_reads_no_answers_is_disconnected() {
    let server = Server::tiny(&["--stall-timeout", "2"]);
    // Sockets that the server opens by itself are open after a question.
    question(&server);
    thread::sleep(Duration::from_millis(500));
    let before = sockets(&server);
    let mut stream = server.connect("");
    stream.set_write_timeout(Some(Duration::from_millis(500))).expect("a timeout");
    // The answers to all of these exceed the buffers of the system.
    let asked = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1000);
    let mut rounds = 0;
    while rounds < 1000 && stream.write_all(asked.as_bytes()).is_ok() {
        rounds += 1;
    }
    assert!(rounds < 1000, "the server keeps reading");
    let start = Instant::now();
    while sockets(&server) > before {
        assert!(start.elapsed() < Duration::from_secs(20), "the client is not disconnected");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn requests_that_wait_for_other_servers_hold_up_nobody() {
    let media = MediaServer::start(|_| {
        thread::sleep(Duration::from_secs(15));
        Vec::new()
    });
    let server = Server::tiny(&["--remote-host", &media.address, "--queue", "64", "--download-timeout", "15"]);
    let alone = slowest_question(&server);
    let waiting: Vec<_> = (0..40).map(|i| server.begin(&about(&media.url(&format!("/{i}.mp4")), "What?"))).collect();
    thread::sleep(Duration::from_millis(500));
    let beside = slowest_question(&server);
    assert!(beside < alone + Duration::from_secs(1), "{beside:?}, and {alone:?} alone");
    // When the clients disconnect, the threads that still wait for the other server delay nobody either.
    drop(waiting);
    let _again: Vec<_> = (0..40).map(|i| server.begin(&about(&media.url(&format!("/{i}.mp4")), "What?"))).collect();
    let beside = slowest_question(&server);
    assert!(beside < alone + Duration::from_secs(1), "{beside:?}, and {alone:?} alone");
}
