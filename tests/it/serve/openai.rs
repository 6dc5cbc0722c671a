//! OpenAI's own Python client.

use super::client::{Server, clip};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A Python with the client: the one that `./x test` installs, or the system's.
fn python() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_BIN_EXE_sharpv")).ancestors().nth(2)?.to_owned();
    let candidates = [target.join("openai-client/bin/python"), "python3".into()];
    candidates.into_iter().find(|python| {
        let found = Command::new(python).args(["-c", "import openai"]).output();
        found.is_ok_and(|output| output.status.success())
    })
}

#[test]
fn the_openai_client_understands_this_server() {
    let Some(python) = python() else {
        assert!(std::env::var_os("CI").is_none(), "the Python package openai is missing: ./x test installs it");
        eprintln!("SKIPPED: the Python package openai is missing; ./x test installs it");
        return;
    };
    let server = Server::tiny(&["--api-key", "k", "--parallel", "2", "--queue", "32"]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/serve_openai.py");
    let output = Command::new(python)
        .arg(script)
        .args([format!("http://{}/v1", server.address).as_str(), "k"])
        .arg(clip())
        .env("NO_PROXY", "*")
        .output()
        .expect("Python runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("all well"), "{out}\n{err}");
}
