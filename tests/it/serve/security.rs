//! Keys, host names, web pages, and what is logged.

use super::client::{Server, about, clip, data_uri, say, with};
use crate::support::families;
use crate::support::program::sharpv;
use predicates::prelude::*;
use predicates::str::contains;
use serde_json::json;

const ROUTES: [(&str, &str); 6] = [
    ("POST", "/v1/chat/completions"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/tiny"),
    ("GET", "/metrics"),
    ("GET", "/nothing"),
    ("POST", "/health/../v1/models"),
];

#[test]
fn a_key_guards_everything_but_the_health() {
    let server = Server::tiny(&["--api-key", "s3cret-key"]);
    assert_eq!(server.get("/health").status, 200);
    for (method, path) in ROUTES {
        for headers in [
            &[][..],
            &[("authorization", "Bearer wrong")],
            &[("authorization", "Bearer s3cret-ke")],
            &[("authorization", "Bearer s3cret-keyy")],
            &[("authorization", "Basic s3cret-key")],
            &[("authorization", "s3cret-key")],
            &[("authorization", "Bearer ")],
            &[("x-api-key", "s3cret-key")],
        ] {
            let reply = server.send(method, path, headers, None);
            assert_eq!((reply.status, reply.error().as_str()), (401, "invalid_api_key"), "{method} {path} {headers:?}");
            assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
        }
    }
    let key = ("authorization", "Bearer s3cret-key");
    assert_eq!(server.send("GET", "/v1/models", &[key], None).status, 200);
    let body = with(say("hi"), json!({ "max_tokens": 1 })).to_string();
    let kind = ("content-type", "application/json");
    assert_eq!(server.send("POST", "/v1/chat/completions", &[key, kind], Some(&body)).status, 200);
    assert_eq!(server.send("POST", "/v1/chat/completions", &[kind], Some(&body)).status, 401);
}

#[test]
fn the_key_can_come_from_the_environment() {
    let files = families::files("smolvlm");
    let mmproj = files.mmproj.expect("a projector");
    let model = ["-m", files.model.to_str().expect("UTF-8"), "--mmproj", mmproj.to_str().expect("UTF-8")];
    let server = Server::start(&model, &[("SHARPV_API_KEY", "from-env")]);
    assert_eq!(server.get("/v1/models").status, 401);
    assert_eq!(server.send("GET", "/v1/models", &[("authorization", "Bearer from-env")], None).status, 200);
}

#[test]
fn an_empty_key_is_rejected() {
    let serve = |options: &[&str], variable: Option<&str>| {
        let mut command = sharpv(&[&["serve", "--port", "0", "-m", "nowhere.gguf"], options].concat());
        command.env_remove("SHARPV_API_KEY").envs(variable.map(|key| ("SHARPV_API_KEY", key)));
        command.assert()
    };
    // The variable does not replace an empty key.
    for variable in [None, Some("good"), Some("")] {
        let expected = contains("--api-key is empty").and(contains("SHARPV_API_KEY"));
        serve(&["--api-key", ""], variable).code(2).stderr(expected);
    }
    serve(&[], Some("")).code(2).stderr(contains("SHARPV_API_KEY is empty").and(contains("unset it")));
    // The option replaces an empty variable, so that the missing model is the error.
    serve(&["--api-key", "good"], Some("")).code(1).stderr(contains("nowhere.gguf"));
}

#[test]
fn a_key_that_no_client_can_send_is_rejected() {
    let files = families::files("smolvlm");
    let mmproj = files.mmproj.expect("a projector");
    let model = ["-m", files.model.to_str().expect("UTF-8"), "--mmproj", mmproj.to_str().expect("UTF-8")];
    for key in [" ", "k ", "k\n", "ключ"] {
        let options = [&["serve", "--port", "0", "--api-key", key], &model[..]].concat();
        let expected = contains("--api-key is unusable");
        sharpv(&options).env_remove("SHARPV_API_KEY").assert().code(2).stderr(expected);
    }
}

#[test]
fn a_server_without_a_key_accepts_any_key() {
    // OpenAI's clients always send a key.
    let server = Server::tiny(&[]);
    assert_eq!(server.send("GET", "/v1/models", &[("authorization", "Bearer anything")], None).status, 200);
}

#[test]
fn other_machines_are_not_let_in_without_a_key() {
    let files = families::files("smolvlm");
    let mmproj = files.mmproj.expect("a projector");
    let model = ["-m", files.model.to_str().expect("UTF-8"), "--mmproj", mmproj.to_str().expect("UTF-8")];
    let serve = |options: &[&str]| {
        sharpv(&[&["serve", "--port", "0"], &model[..], options].concat()).env_remove("SHARPV_API_KEY").assert()
    };
    // The message names every way to fix it.
    let expected = contains("--api-key is missing").and(contains("SHARPV_API_KEY")).and(contains("--api-key KEY"));
    let expected = expected.and(contains("--no-api-key")).and(contains("--host 127.0.0.1"));
    serve(&["--host", "0.0.0.0"]).code(2).stderr(expected);
    let open = Server::tiny(&["--host", "0.0.0.0", "--no-api-key"]);
    assert_eq!(open.get("/v1/models").status, 200);
    assert!(open.log().is_empty() || open.log().contains("there is no key"), "{}", open.log());
}

#[test]
fn only_host_names_of_this_server_are_accepted() {
    let server = Server::tiny(&["--allow-host", "media.example"]);
    let get = |head: &str| server.raw(&format!("GET /v1/models HTTP/1.1\r\n{head}Connection: close\r\n\r\n"));
    for host in ["localhost", "127.0.0.1:1", "[::1]", "LOCALHOST:80", "media.example", "Media.Example:8080"] {
        assert_eq!(get(&format!("Host: {host}\r\n")).status, 200, "{host}");
    }
    for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "media.example.evil"] {
        let reply = get(&format!("Host: {host}\r\n"));
        assert_eq!((reply.status, reply.error().as_str()), (403, "unknown_host"), "{host}");
    }
    for head in [
        "",
        "Host: localhost\r\nHost: evil.example\r\n",
        "Host: user@localhost\r\n",
        "Host: localhost/v1/models\r\n",
        "Host: localhost:port\r\n",
        "Host: \r\n",
    ] {
        assert_eq!(get(head).status, 400, "{head:?}");
    }
    // The host in the request line is checked as well.
    let reply =
        server.raw("GET http://evil.example/v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_eq!(reply.status, 400, "{}", reply.text);
}

#[test]
fn web_pages_are_let_in_only_if_their_origin_is_named() {
    let preflight = [
        ("origin", "https://page.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type"),
    ];
    let path = "/v1/chat/completions";
    let closed = Server::tiny(&[]);
    let reply = closed.send("OPTIONS", path, &preflight, None);
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (405, None));
    let got = closed.send("GET", "/v1/models", &preflight[..1], None);
    assert_eq!((got.status, got.header("access-control-allow-origin")), (200, None));

    let open = Server::tiny(&["--cors-origin", "https://page.example", "--api-key", "k"]);
    let reply = open.send("OPTIONS", path, &preflight, None);
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, Some("https://page.example")));
    let other = open.send("OPTIONS", path, &[&[("origin", "https://other.example")], &preflight[1..]].concat(), None);
    assert_eq!(other.header("access-control-allow-origin"), None);
    // A named origin still needs the key.
    assert_eq!(open.send("GET", "/v1/models", &preflight[..1], None).status, 401);
}

#[test]
fn web_pages_may_send_the_headers_of_their_client() {
    // The headers of OpenAI's JavaScript client in a web page.
    let wanted = "authorization,content-type,x-stainless-arch,x-stainless-lang,x-stainless-os,x-stainless-package-version,\
                  x-stainless-retry-count,x-stainless-runtime,x-stainless-runtime-version,x-stainless-timeout";
    let preflight = |origin| {
        [("origin", origin), ("access-control-request-method", "POST"), ("access-control-request-headers", wanted)]
    };
    let named = Server::tiny(&["--cors-origin", "https://Page.example/", "--cors-origin", "http://localhost:80"]);
    let all = Server::tiny(&["--cors-origin", "*"]);
    for (server, origin) in
        [(&named, "https://page.example"), (&named, "http://localhost"), (&all, "https://anywhere.example")]
    {
        let reply = server.send("OPTIONS", "/v1/chat/completions", &preflight(origin), None);
        assert_eq!(reply.status, 200);
        let headers = reply.header("access-control-allow-headers").unwrap_or_default().to_owned();
        assert!(wanted.split(',').all(|header| headers.contains(header)), "{origin}: {headers}");
        let answered = server.send("GET", "/v1/models", &[("origin", origin)], None);
        let allowed = answered.header("access-control-allow-origin");
        assert!([Some(origin), Some("*")].contains(&allowed), "{origin}: {allowed:?}");
    }
    let files = families::files("smolvlm");
    let mmproj = files.mmproj.expect("a projector");
    let model = ["-m", files.model.to_str().expect("UTF-8"), "--mmproj", mmproj.to_str().expect("UTF-8")];
    for wrong in ["page.example", "https://page.example/app", ""] {
        let options = [&["serve", "--port", "0", "--cors-origin", wrong], &model[..]].concat();
        let expected = contains("--cors-origin is").and(contains("https://page.example"));
        sharpv(&options).env_remove("SHARPV_API_KEY").assert().code(2).stderr(expected);
    }
}

#[test]
fn neither_keys_nor_bodies_are_logged() {
    let server = Server::tiny(&["--api-key", "s3cret-key", "-v", "-v"]);
    let uri = data_uri(&clip(), "video/mp4");
    let sent = server.send(
        "POST",
        "/v1/chat/completions?token=s3cret-query",
        &[("content-type", "application/json"), ("authorization", "Bearer s3cret-key"), ("x-request-id", "s3cret-id")],
        Some(&with(about(&uri, "s3cret-question"), json!({ "max_tokens": 2, "user": "s3cret-user" })).to_string()),
    );
    assert_eq!(sent.status, 200, "{}", sent.text);
    server.send("GET", "/s3cret-path", &[("authorization", "Bearer s3cret-wrong")], None);
    server.send("GET", "/v1/models", &[("authorization", "Bearer s3cret-key")], None);
    let log = server.log();
    assert!(log.contains("/v1/chat/completions 200"), "requests are logged: {log}");
    assert!(!log.contains("s3cret") && !log.contains(&uri[30..60]), "{log}");
    assert!(!sent.header("x-request-id").is_some_and(|id| id.contains("s3cret")));
}
