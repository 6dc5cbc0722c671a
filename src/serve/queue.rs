//! Who answers which request, and who waits.
//!
//! Slots are threads. A request goes to the free slot whose KV cache begins most like it, or waits in line; a slot that
//! gets free takes the first that waits.

use super::api::error::ApiError;
use super::job::{Job, Why};
use crate::runtime::CancelToken;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a slot's cache holds, or a request needs: numbers for the messages and videos of a conversation, in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Trail(pub Vec<Step>);

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub number: u64,
    pub is_video: bool,
}

/// What a video is worth against a message.
const VIDEO_WORTH: isize = 100;

impl Trail {
    /// What a cache with this is worth to `other`: what is alike from the beginning on, without the videos that it
    /// would cost.
    fn worth_to(&self, other: &Self) -> isize {
        let alike = self.0.iter().zip(&other.0).take_while(|(a, b)| a == b).count();
        let gain: isize = self.0[..alike].iter().map(|step| if step.is_video { VIDEO_WORTH } else { 1 }).sum();
        let loss: isize = self.0[alike..].iter().map(|step| if step.is_video { VIDEO_WORTH } else { 0 }).sum();
        gain - loss
    }
}

/// The line and the slots.
#[derive(Debug)]
pub(super) struct Queue {
    max_waiting: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    slots: Vec<Slot>,
    waiting: VecDeque<Arc<Job>>,
    is_closed: bool,
    /// How long answers took lately.
    mean: Duration,
}

#[derive(Debug)]
enum Slot {
    /// Not ready yet, or at work on a request.
    Busy(Option<Arc<Job>>),
    /// Since when, and with what in the cache. `chores` stops what it does meanwhile.
    Free { since: Instant, trail: Trail, chores: Option<CancelToken> },
    /// A request that it has not seen yet.
    Given(Arc<Job>),
}

impl Slot {
    fn stop_chores(&self) {
        if let Self::Free { chores: Some(token), .. } = self {
            token.cancel();
        }
    }
}

impl Queue {
    pub fn new(slots: usize, max_waiting: usize) -> Self {
        let state = State {
            slots: (0..slots).map(|_| Slot::Busy(None)).collect(),
            waiting: VecDeque::new(),
            is_closed: false,
            mean: Duration::from_secs(2),
        };
        Self { max_waiting, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Requests at work, and requests that wait.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        (state.slots.iter().filter(|slot| !matches!(slot, Slot::Free { .. })).count(), state.waiting.len())
    }

    /// Fails if another request would find no place.
    pub fn check_room(&self) -> Result<(), ApiError> {
        let state = self.lock();
        let is_free = state.slots.iter().any(|slot| matches!(slot, Slot::Free { .. }));
        if is_free || state.waiting.len() < self.max_waiting { Ok(()) } else { Err(state.full()) }
    }

    /// Gives a request to a slot, or puts it in line.
    pub fn submit(&self, job: Arc<Job>) -> Result<(), ApiError> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(ApiError::shutting_down());
        }
        match state.best_slot(&job.prepared.trail) {
            Some(slot) => {
                state.slots[slot].stop_chores();
                state.slots[slot] = Slot::Given(job);
            }
            None if state.waiting.len() < self.max_waiting => state.waiting.push_back(job),
            None => return Err(state.full()),
        }
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Takes a request out of the line that nobody waits for any more.
    pub fn forget(&self, job: &Arc<Job>) {
        self.lock().waiting.retain(|waiting| !Arc::ptr_eq(waiting, job));
    }

    /// A slot is done, if it was at work: its cache holds `trail`, and the request took so long.
    ///
    /// To be said before the client is told, who may ask again at once.
    pub fn release(&self, slot: usize, trail: Trail, took: Option<Duration>) {
        let mut state = self.lock();
        if let Some(took) = took {
            state.mean = (state.mean * 3 + took) / 4;
        }
        state.slots[slot] = match state.waiting.pop_front() {
            Some(job) => Slot::Given(job),
            None => Slot::Free { since: Instant::now(), trail, chores: None },
        };
    }

    /// Whether a slot has nothing to do. Then `token` is cancelled as soon as it has.
    pub fn idle(&self, slot: usize, token: &CancelToken) -> bool {
        let mut state = self.lock();
        if state.is_closed {
            return false;
        }
        let Slot::Free { chores, .. } = &mut state.slots[slot] else { return false };
        token.reset();
        *chores = Some(token.clone());
        true
    }

    /// The next request for a slot that was released. `None` when the server ends.
    pub fn next(&self, slot: usize) -> Option<Arc<Job>> {
        let mut state = self.lock();
        loop {
            if let Slot::Given(job) = &state.slots[slot] {
                let job = Arc::clone(job);
                state.slots[slot] = Slot::Busy(Some(Arc::clone(&job)));
                return Some(job);
            }
            if state.is_closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes no more requests, and turns away those that wait. What is at work goes on.
    pub fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        state.slots.iter().for_each(Slot::stop_chores);
        drop(state);
        self.changed.notify_all();
        waiting.iter().for_each(|job| job.fail(ApiError::shutting_down()));
    }

    /// Stops what is at work.
    pub fn stop(&self) {
        for slot in &self.lock().slots {
            if let Slot::Busy(Some(job)) | Slot::Given(job) = slot {
                job.control.cancel(Why::Shutdown);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The free slot whose cache is of most use; of equals the one that was not used for the longest time.
    fn best_slot(&self, trail: &Trail) -> Option<usize> {
        let free = self.slots.iter().enumerate().filter_map(|(i, slot)| match slot {
            Slot::Free { since, trail: there, .. } => Some((i, there.worth_to(trail), since.elapsed())),
            _ => None,
        });
        free.max_by_key(|&(_, worth, idle)| (worth, idle)).map(|(i, ..)| i)
    }

    fn full(&self) -> ApiError {
        let rounds = (self.waiting.len() + 1).div_ceil(self.slots.len().max(1));
        let wait = self.mean * u32::try_from(rounds).unwrap_or(u32::MAX);
        ApiError::queue_full(wait.clamp(Duration::from_secs(1), Duration::from_secs(60)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trail(steps: &[(u64, bool)]) -> Trail {
        Trail(steps.iter().map(|&(number, is_video)| Step { number, is_video }).collect())
    }

    fn state(trails: &[Trail]) -> State {
        let start = Instant::now();
        let free = |(i, trail): (usize, &Trail)| Slot::Free {
            // The first was used last.
            since: start.checked_sub(Duration::from_secs(i as u64)).unwrap_or(start),
            trail: trail.clone(),
            chores: None,
        };
        let slots = trails.iter().enumerate().map(free).collect();
        State { slots, waiting: VecDeque::new(), is_closed: false, mean: Duration::from_secs(3) }
    }

    #[test]
    fn the_slot_with_the_longest_common_beginning_is_taken() {
        let caches = [trail(&[(1, false), (7, true)]), trail(&[(1, false), (8, true), (2, false)]), trail(&[])];
        let state = state(&caches);
        assert_eq!(state.best_slot(&trail(&[(1, false), (8, true), (3, false)])), Some(1));
        assert_eq!(state.best_slot(&trail(&[(1, false), (7, true)])), Some(0));
        assert_eq!(state.best_slot(&trail(&[(1, false), (9, true)])), Some(2), "no video is lost there");
        let alike = super::tests::state(&[trail(&[]), trail(&[])]);
        assert_eq!(alike.best_slot(&trail(&[(1, false)])), Some(1), "of equals the one that is longest idle");
    }

    #[test]
    fn what_needs_no_video_leaves_the_videos() {
        // What leads both is alike.
        let state = state(&[trail(&[]), trail(&[(5, false), (1, true)])]);
        assert_eq!(state.best_slot(&trail(&[(5, false), (2, false)])), Some(0));
    }

    #[test]
    fn chores_end_with_the_server_and_begin_only_in_a_free_slot() {
        let (queue, token) = (Queue::new(2, 0), CancelToken::new());
        assert!(!queue.idle(0, &token), "it is not ready yet");
        queue.release(0, Trail::default(), None);
        token.cancel();
        assert!(queue.idle(0, &token) && !token.is_cancelled());
        queue.close();
        assert!(token.is_cancelled() && !queue.idle(0, &token));
    }

    #[test]
    fn a_full_queue_says_when_to_come_back() {
        let mut state = state(&[]);
        state.slots = vec![Slot::Busy(None)];
        assert_eq!(state.best_slot(&trail(&[])), None);
        assert_eq!(state.full().status(), 429);
    }
}
