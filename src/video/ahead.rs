//! Decoding ahead on a separate thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use super::{Frame, Images, Stop};
use crate::error::Result;

/// The capacity of the channel. The thread holds one more image while the channel is full, so two images are ready: a
/// pair, for encoders that merge frames. More would gain nothing and take 6 MB each at 1080p.
const WAITING: usize = 1;

/// Images that a thread decodes ahead.
///
/// Dropping it ends the thread and waits for it, so the file is not read any longer.
pub(super) struct Ahead {
    /// The result for each moment, in order. `None` once `self` is being dropped.
    images: Option<Receiver<Result<Option<Frame>>>>,
    /// Returns the warnings.
    thread: Option<JoinHandle<Vec<String>>>,
    n_decoded: Arc<AtomicU64>,
    /// Stops the thread.
    stop: Stop,
}

impl Ahead {
    /// Starts a thread that decodes the images at `times`. [`at`](Images::at) may be called for these only. `stop` must
    /// be the one that stops `images`.
    ///
    /// Returns `images` itself if the thread cannot be started.
    pub(super) fn start(images: Box<dyn Images>, times: Vec<f64>, stop: Stop) -> Box<dyn Images> {
        let n_decoded = Arc::new(AtomicU64::new(images.frames_decoded()));
        let (sender, receiver) = sync_channel(WAITING);
        // Sent once the thread has started: a closure that is never run would drop the images.
        let (hand_over, handed_over) = channel::<Box<dyn Images>>();
        let counter = Arc::clone(&n_decoded);
        let work = move || handed_over.recv().map_or_else(|_| Vec::new(), |it| take(it, &times, &sender, &counter));
        let Ok(thread) = thread::Builder::new().name("decode-ahead".into()).spawn(work) else { return images };
        match hand_over.send(images) {
            Ok(()) => Box::new(Self { images: Some(receiver), thread: Some(thread), n_decoded, stop }),
            Err(unsent) => unsent.0,
        }
    }

    /// Waits for the thread to end. Resumes a panic of the thread here.
    fn join(&mut self) -> Vec<String> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(warnings)) => warnings,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Vec::new(),
        }
    }
}

/// Decodes the images and sends them; the thread's main function.
fn take(
    mut images: Box<dyn Images>,
    times: &[f64],
    sender: &SyncSender<Result<Option<Frame>>>,
    n_decoded: &AtomicU64,
) -> Vec<String> {
    for &time_s in times {
        let image = images.at(time_s);
        n_decoded.store(images.frames_decoded(), Ordering::Relaxed);
        let is_last = !matches!(image, Ok(Some(_)));
        // The receiver is gone, or there is no later image.
        if sender.send(image).is_err() || is_last {
            break;
        }
    }
    images.warnings()
}

impl Images for Ahead {
    fn at(&mut self, _: f64) -> Result<Option<Frame>> {
        match self.images.as_ref().map(Receiver::recv) {
            Some(Ok(image)) => image,
            // Only a panic ends the thread before it has sent all images.
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
        // Wakes the thread if it waits for capacity.
        self.images = None;
        // The panic hook has already reported a panic.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
