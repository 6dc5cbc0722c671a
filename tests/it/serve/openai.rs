//! Clients as people install them: OpenAI's for Python and JavaScript, and LangChain.

use super::client::{Server, clip};
use super::thinking::ThinkingServer;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The folder of build outputs, into which `./x test` installs clients.
fn target() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_sharpv")).ancestors().nth(2).expect("a folder").to_owned()
}

/// A Python with these packages: the one that `./x test` installs, or the system's.
fn python(packages: &str) -> Option<PathBuf> {
    let candidates = [target().join("openai-client/bin/python"), "python3".into()];
    candidates.into_iter().find(|python| {
        let found = Command::new(python).args(["-c", &format!("import {packages}")]).output();
        found.is_ok_and(|output| output.status.success())
    })
}

/// The folder with the JavaScript client that `./x test` installs, where there is Node.js.
fn javascript() -> Option<PathBuf> {
    let folder = target().join("openai-javascript");
    folder.join("node_modules/openai").is_dir().then_some(folder)
}

/// Says that a client is missing, which is an error in CI.
fn skip(what: &str) {
    assert!(std::env::var_os("CI").is_none(), "{what} is missing: ./x test installs it");
    eprintln!("SKIPPED: {what} is missing; ./x test installs it");
}

/// Runs a script of this folder with a client.
fn run(program: impl AsRef<OsStr>, script: &str, server: &Server, more: &[&Path]) {
    let output = Command::new(program)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(script))
        .args([format!("http://{}/v1", server.address).as_str(), "k"])
        .args(more)
        .env("NO_PROXY", "*")
        .output()
        .expect("the client runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("all well"), "{out}\n{err}");
}

#[test]
fn the_openai_client_understands_this_server() {
    let Some(python) = python("openai") else { return skip("the Python package openai") };
    let server = Server::tiny(&["--api-key", "k", "--parallel", "2", "--queue", "32"]);
    run(python, "serve_openai.py", &server, &[&clip()]);
}

#[test]
fn openais_client_and_langchain_tell_a_thought_from_an_answer() {
    let Some(python) = python("openai, langchain_openai") else { return skip("the Python package langchain-openai") };
    let server = ThinkingServer::start(&["--api-key", "k"]);
    run(python, "serve_thinking.py", &server, &[]);
}

#[test]
fn openais_javascript_client_tells_a_thought_from_an_answer() {
    let node = Command::new("node").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !node.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: there is no Node.js");
        return;
    }
    let Some(packages) = javascript() else { return skip("the npm package openai") };
    let server = ThinkingServer::start(&["--api-key", "k"]);
    run("node", "serve_thinking.mjs", &server, &[&packages]);
}
