//! Ctrl-C: it stops the current work, or the program if there is none.

use crate::exit;
use anyhow::Context;
use sharpv::runtime::{CancelToken, exit_now};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// `IDLE`: Ctrl-C ends the program. Other values: how often it was pressed during the current work.
type Pressed = Arc<AtomicU32>;

const IDLE: u32 = u32::MAX;

/// The handler of Ctrl-C.
#[derive(Debug, Clone)]
pub struct Interrupts {
    cancel: CancelToken,
    pressed: Pressed,
}

/// As long as it exists, Ctrl-C stops the work instead of the program.
#[derive(Debug)]
pub struct Work(Pressed);

impl Interrupts {
    /// Installs the handler. During work, pressing Ctrl-C for the `patience`th time ends the program at once.
    pub fn install(patience: u32) -> anyhow::Result<Self> {
        let interrupts = Self { cancel: CancelToken::new(), pressed: Arc::new(AtomicU32::new(IDLE)) };
        let handler = interrupts.clone();
        ctrlc::set_handler(move || handler.on_press(patience)).context("preparing for Ctrl-C failed")?;
        Ok(interrupts)
    }

    /// The token that Ctrl-C cancels.
    pub fn cancel_token(&self) -> CancelToken {
        self.cancel.clone()
    }

    /// Starts work that Ctrl-C can stop.
    pub fn work(&self) -> Work {
        self.cancel.reset();
        self.pressed.store(0, Ordering::SeqCst);
        Work(Arc::clone(&self.pressed))
    }

    fn on_press(&self, patience: u32) {
        let next = |n| (n != IDLE).then_some(n + 1);
        match self.pressed.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next) {
            Ok(before) if before + 1 < patience => self.cancel.cancel(),
            // There is no work to stop, or it does not stop.
            _ => exit_now(i32::from(exit::STOPPED)),
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.store(IDLE, Ordering::SeqCst);
    }
}
