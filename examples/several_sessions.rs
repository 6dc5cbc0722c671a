//! Several sessions at once, over one loaded model: asks a question about each of several videos.
//! `cargo run --release --example several_sessions -- QUESTION VIDEO…`.
//!
//! The language model's weights are in memory once. Each session has its vision encoder, its KV cache and its threads;
//! the processor's cores are shared among them.

use sharpv::{Session, VideoOptions, models};
use std::thread;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let question = args.next().ok_or("several_sessions QUESTION VIDEO…")?;
    let videos: Vec<String> = args.collect();
    let threads = (thread::available_parallelism()?.get() / videos.len().max(1)).max(1);

    let files = models::resolve("smol", None, &[])?;
    let first = Session::builder(&files).threads(threads).open()?;
    // A clone shares the weights; they are freed with the last of them.
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
            // A session may move to another thread. It works where it is called.
            let question = &question;
            let work = move || -> sharpv::Result<String> {
                session.add_video(video.as_ref(), &VideoOptions::default(), &mut ())?;
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
