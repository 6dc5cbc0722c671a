//! Asks a question about each of several videos, in parallel sessions that share one loaded model:
//! `cargo run --release --example several_sessions -- QUESTION VIDEO…`.
//!
//! The weights of the language model are in memory once. Each session has its own vision encoder, KV cache and threads,
//! and gets its share of the cores.

use sharpv::{Session, VideoOptions, models};
use std::thread;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let question = args.next().ok_or("several_sessions QUESTION VIDEO…")?;
    let videos: Vec<String> = args.collect();
    let threads = (thread::available_parallelism()?.get() / videos.len().max(1)).max(1);

    let files = models::resolve("smol", None, &[])?;
    let first = Session::builder(&files).threads(threads).open()?;
    // Clones share the weights, which are freed with the last one.
    let model = first.model().clone();
    let mut waiting = Some(first);
    let mut sessions = Vec::new();
    for video in &videos {
        let session = match waiting.take() {
            Some(first) => first,
            None => Session::builder(&files).model(model.clone()).threads(threads).open()?,
        };
        sessions.push((video, session));
    }
    thread::scope(|scope| {
        let asked = sessions.into_iter().map(|(video, mut session)| {
            // A session may move to another thread. It works on the thread that calls it.
            let question = &question;
            let work = move || -> sharpv::Result<String> {
                session.add_video(video, &VideoOptions::default(), &mut ())?;
                Ok(session.ask(question, &mut ())?.answer)
            };
            (video, scope.spawn(work))
        });
        for (video, thread) in asked.collect::<Vec<_>>() {
            match thread.join() {
                Ok(Ok(answer)) => println!("{video}: {answer}"),
                Ok(Err(error)) => println!("{video}: {error}"),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    Ok(())
}
