//! Decoding on a thread of its own, while the images before are used.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use super::{Frame, Images, Stop};
use crate::error::Result;

/// Decoded images that wait, besides the one that the thread holds until there is room for it. Together they are two:
/// some encoders take images in pairs, and one to take next is all that helps. More would only take memory, 6 MB each
/// at 1080p.
const WAITING: usize = 1;

/// Images that a thread decodes ahead.
///
/// Dropping it ends the thread, and waits for that: a file is read no longer than somebody wants its images.
pub(super) struct Ahead {
    /// What the thread found at each moment, in order. Gone when this is dropped.
    images: Option<Receiver<Result<Option<Frame>>>>,
    /// Gives what went wrong without stopping the decoding.
    thread: Option<JoinHandle<Vec<String>>>,
    n_decoded: Arc<AtomicU64>,
    /// Stops the reading of the file.
    stop: Stop,
}

impl Ahead {
    /// Lets a thread take the images at `times`, which are all that [`at`](Images::at) will be asked for. `stop`
    /// has to be what `images` are stopped by.
    ///
    /// Gives `images` back where the system has no thread to give.
    pub(super) fn start(images: Box<dyn Images>, times: Vec<f64>, stop: Stop) -> Box<dyn Images> {
        let n_decoded = Arc::new(AtomicU64::new(images.frames_decoded()));
        let (give, given) = sync_channel(WAITING);
        // The thread gets them when it is there: what a closure holds that is never run is lost.
        let (hand_over, handed_over) = channel::<Box<dyn Images>>();
        let counter = Arc::clone(&n_decoded);
        let work = move || handed_over.recv().map_or_else(|_| Vec::new(), |it| take(it, &times, &give, &counter));
        let Ok(thread) = thread::Builder::new().name("decode-ahead".into()).spawn(work) else { return images };
        match hand_over.send(images) {
            Ok(()) => Box::new(Self { images: Some(given), thread: Some(thread), n_decoded, stop }),
            Err(unsent) => unsent.0,
        }
    }

    /// Waits for the end of the thread. A panic in it goes on here, as if there were no thread.
    fn join(&mut self) -> Vec<String> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(warnings)) => warnings,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Vec::new(),
        }
    }
}

/// What the thread does.
fn take(
    mut images: Box<dyn Images>,
    times: &[f64],
    give: &SyncSender<Result<Option<Frame>>>,
    n_decoded: &AtomicU64,
) -> Vec<String> {
    for &time_s in times {
        let image = images.at(time_s);
        n_decoded.store(images.frames_decoded(), Ordering::Relaxed);
        let is_last = !matches!(image, Ok(Some(_)));
        // Nobody takes it any more, or there is nothing behind it.
        if give.send(image).is_err() || is_last {
            break;
        }
    }
    images.warnings()
}

impl Images for Ahead {
    fn at(&mut self, _: f64) -> Result<Option<Frame>> {
        match self.images.as_ref().map(Receiver::recv) {
            Some(Ok(image)) => image,
            // Only a panic ends the thread before it gave all.
            _ => {
                self.join();
                Ok(None)
            }
        }
    }

    fn frames_decoded(&self) -> u64 {
        self.n_decoded.load(Ordering::Relaxed)
    }

    fn warnings(&mut self) -> Vec<String> {
        self.join()
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.stop.end();
        // A thread that waits for room is woken by it.
        self.images = None;
        // A panic that nobody asked for has been told on stderr.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
