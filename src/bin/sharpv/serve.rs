//! `sharpv serve`: an OpenAI-compatible server.

use crate::args::ServeArgs;
use crate::exit;
use crate::screen::{Screen, Watch};
use crate::session::about_default_model;
use anyhow::Context;
use sharpv::Error;
use sharpv::runtime::{CancelToken, exit_now};
use sharpv::serve::{ServeOptions, Server, Stop};
use std::ffi::OsString;
use std::time::Duration;

/// The variable with the key, which does not show in the process list.
const KEY: &str = "SHARPV_API_KEY";

pub fn run(args: &ServeArgs, mut screen: Screen) -> anyhow::Result<()> {
    let stop = Stop::new();
    let api_key = api_key(args.api_key.as_deref(), std::env::var_os(KEY))?;
    let mut params = args.session.session_params(CancelToken::new())?;
    let files = args.session.model.files(&mut screen)?;
    params.layer_profile = args.session.evict.layer_profile(&files, &params, &mut screen)?;
    if args.session.model.uses_default() {
        screen.note(&about_default_model(&files));
    }
    let defaults = ServeOptions::new(files);
    let model_id = args.alias.clone().unwrap_or_else(|| defaults.model_id.clone());
    let mut options = defaults;
    options.params = params;
    options.video = args.session.video.options();
    options.model_id = model_id;
    options.parallel = args.parallel;
    options.queue = args.queue;
    options.api_key = api_key;
    options.without_key = args.no_api_key;
    options.hosts.clone_from(&args.allow_host);
    options.cors_origins.clone_from(&args.cors_origin);
    options.media_root.clone_from(&args.media_root);
    options.allow_remote = args.allow_remote;
    options.remote_hosts.clone_from(&args.remote_host);
    options.max_body = args.max_body;
    options.stall_timeout = Duration::from_secs(args.stall_timeout.into());
    options.max_download = args.max_download;
    options.download_timeout = Duration::from_secs(args.download_timeout.into());
    options.timeout = Duration::from_secs(args.timeout.into());
    options.video_cache = args.video_cache.0;
    let has_key = options.api_key.is_some();
    let model_id = options.model_id.clone();

    // Until the server runs, Ctrl-C ends the program as usual.
    let loading = CancelToken::new();
    let server = Server::open(&args.host, args.port, options, &mut Watch::new(&mut screen, None, &loading));
    screen.clear();
    let server = server.map_err(|error| with_way_out(error, has_key))?;
    listen_for_signals(stop.clone())?;
    let address = server.address();
    if !address.ip().is_loopback() && !has_key {
        screen.warning("Anyone who can reach this port can use the model: there is no key.");
    }
    screen.note(&format!("Serving {model_id} at http://{address}/v1; Ctrl-C ends it"));
    server.run(&stop)?;
    screen.note("All requests are done or were cancelled");
    Ok(())
}

/// The key from the option, or else from the environment. An empty key is an error.
fn api_key(given: Option<&str>, variable: Option<OsString>) -> Result<Option<String>, Error> {
    let wrong = |name, value: &str, expected: &str| Error::InvalidParameter {
        name,
        value: value.into(),
        expected: expected.into(),
    };
    match (given, variable) {
        (Some(""), _) => Err(wrong(
            "api-key",
            "empty",
            "the key that clients send; omit it to use SHARPV_API_KEY, or to serve this machine without a key",
        )),
        (Some(key), _) => Ok(Some(key.to_owned())),
        (None, None) => Ok(None),
        (None, Some(key)) => match key.into_string() {
            Ok(key) if key.is_empty() => {
                Err(wrong(KEY, "empty", "the key that clients send; unset it to serve this machine without a key"))
            }
            Ok(key) => Ok(Some(key)),
            Err(_) => Err(wrong(KEY, "not text", "the key that clients send")),
        },
    }
}

/// Adds to the error of a missing key what can be done about it.
fn with_way_out(error: Error, has_key: bool) -> Error {
    match error {
        Error::InvalidParameter { name: "api-key", value, expected } if !has_key => Error::InvalidParameter {
            name: "api-key",
            value,
            expected: format!(
                "{expected}: set {KEY} to a key, or give --api-key KEY; --no-api-key admits everyone who can reach this port, \
                 --host 127.0.0.1 only this machine"
            ),
        },
        error => error,
    }
}

/// After the first signal, running answers are finished; the second ends the program.
fn listen_for_signals(stop: Stop) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("preparing for Ctrl-C failed")?;
    let wait = move || {
        runtime.block_on(async {
            let mut signals = match Signals::new() {
                Ok(signals) => signals,
                Err(error) => {
                    tracing::warn!("signals cannot be waited for: {error}");
                    return;
                }
            };
            signals.next().await;
            stop.stop();
            signals.next().await;
            exit_now(i32::from(exit::STOPPED));
        });
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).context("preparing for Ctrl-C failed")?;
    Ok(())
}

/// The signals that ask a program to end.
#[cfg(unix)]
struct Signals([tokio::signal::unix::Signal; 2]);

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        // A failed wait is not a signal.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
