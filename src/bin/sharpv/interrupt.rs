//! Ctrl-C: it stops the work at hand, and the program where there is none.

use crate::exit;
use anyhow::Context;
use sharpv::runtime::{CancelToken, exit_now};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// What Ctrl-C does now: `IDLE` ends the program, other values count how often it was pressed during the work.
type Pressed = Arc<AtomicU32>;

const IDLE: u32 = u32::MAX;

/// Ctrl-C of this program.
#[derive(Debug, Clone)]
pub struct Interrupts {
    cancel: CancelToken,
    pressed: Pressed,
}

/// While it lives, Ctrl-C stops the work rather than the program.
#[derive(Debug)]
pub struct Work(Pressed);

impl Interrupts {
    /// Takes over Ctrl-C. During work, the press with number `patience` ends the program at once.
    pub fn install(patience: u32) -> anyhow::Result<Self> {
        let interrupts = Self { cancel: CancelToken::new(), pressed: Arc::new(AtomicU32::new(IDLE)) };
        let handler = interrupts.clone();
        ctrlc::set_handler(move || handler.on_press(patience)).context("preparing for Ctrl-C failed")?;
        Ok(interrupts)
    }

    /// The flag that Ctrl-C sets.
    pub fn cancel_token(&self) -> CancelToken {
        self.cancel.clone()
    }

    /// Begins a piece of work that Ctrl-C shall stop.
    pub fn work(&self) -> Work {
        self.cancel.reset();
        self.pressed.store(0, Ordering::SeqCst);
        Work(Arc::clone(&self.pressed))
    }

    fn on_press(&self, patience: u32) {
        let next = |n| (n != IDLE).then_some(n + 1);
        match self.pressed.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next) {
            Ok(before) if before + 1 < patience => self.cancel.cancel(),
            // Loading, or work that does not stop.
            _ => exit_now(i32::from(exit::STOPPED)),
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.store(IDLE, Ordering::SeqCst);
    }
}
