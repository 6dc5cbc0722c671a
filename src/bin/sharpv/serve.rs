//! `sharpv serve`: the model for clients of OpenAI's chat completions.

use crate::args::ServeArgs;
use crate::exit;
use crate::screen::{Screen, Watch};
use crate::session::about_default_model;
use anyhow::Context;
use sharpv::runtime::{CancelToken, exit_now};
use sharpv::serve::{ServeOptions, Server, Stop};
use std::time::Duration;

/// The key, where it is not to be seen in the list of processes.
const KEY: &str = "SHARPV_API_KEY";

pub fn run(args: &ServeArgs, mut screen: Screen) -> anyhow::Result<()> {
    let stop = Stop::new();
    let mut params = args.session.session_params(CancelToken::new())?;
    let files = args.session.model.files(&mut screen)?;
    params.layer_profile = args.session.evict.layer_profile(&files, &params, &mut screen)?;
    if args.session.model.uses_default() {
        screen.note(&about_default_model(&files));
    }
    let from_env = || std::env::var(KEY).ok();
    let api_key = args.api_key.clone().or_else(from_env).filter(|key| !key.is_empty());
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
    options.max_download = args.max_download;
    options.download_timeout = Duration::from_secs(args.download_timeout.into());
    options.timeout = Duration::from_secs(args.timeout.into());
    options.video_cache = args.video_cache.0;
    let has_key = options.api_key.is_some();
    let model_id = options.model_id.clone();

    // Until it serves, Ctrl-C ends the program as it does by default.
    let loading = CancelToken::new();
    let server = Server::open(&args.host, args.port, options, &mut Watch::new(&mut screen, None, &loading));
    screen.clear();
    let server = server?;
    listen_for_signals(stop.clone())?;
    let address = server.address();
    if !address.ip().is_loopback() && !has_key {
        screen.warning("Whoever reaches this port can use the model: there is no key.");
    }
    screen.note(&format!("Serving {model_id} at http://{address}/v1; Ctrl-C ends it"));
    server.run(&stop)?;
    screen.note("All requests are done, or were given up");
    Ok(())
}

/// The first signal lets answers come to their end, the second ends the program.
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

/// What asks a program to end.
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
        // A wait that fails is no wish to end.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
