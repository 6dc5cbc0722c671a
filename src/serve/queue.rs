//! Which slot answers which request, and which requests wait.
//!
//! Slots are threads. A request goes to the free slot whose KV cache it can reuse most of. If no slot is free, it
//! waits, and the next slot that becomes free takes the request that has waited the longest.

use super::api::error::ApiError;
use super::cancel::Reason;
use super::job::{Event, Job};
use super::trail::Trail;
use crate::runtime::CancelToken;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The waiting requests and the slots.
#[derive(Debug)]
pub(super) struct Queue {
    max_waiting: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    slots: Vec<SlotState>,
    waiting: VecDeque<Arc<Job>>,
    is_closed: bool,
    /// How long recent answers took: a moving average.
    mean: Duration,
}

#[derive(Debug)]
enum SlotState {
    /// Not ready yet, or working on a request.
    Busy(Option<Arc<Job>>),
    /// Idle since a time, with `trail` in its cache. `chores` cancels what it does meanwhile.
    Free { since: Instant, trail: Trail, chores: Option<CancelToken> },
    /// It has a request that its thread has not taken yet.
    Given(Arc<Job>),
}

impl SlotState {
    fn stop_chores(&self) {
        if let Self::Free { chores: Some(token), .. } = self {
            token.cancel();
        }
    }
}

impl Queue {
    pub fn new(slots: usize, max_waiting: usize) -> Self {
        let state = State {
            slots: (0..slots).map(|_| SlotState::Busy(None)).collect(),
            waiting: VecDeque::new(),
            is_closed: false,
            mean: Duration::from_secs(2),
        };
        Self { max_waiting, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// The number of busy slots, and of requests that wait.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        (state.slots.iter().filter(|slot| !matches!(slot, SlotState::Free { .. })).count(), state.waiting.len())
    }

    /// Fails if another request could not even wait.
    pub fn check_capacity(&self) -> Result<(), ApiError> {
        let state = self.lock();
        let is_free = state.slots.iter().any(|slot| matches!(slot, SlotState::Free { .. }));
        if is_free || state.waiting.len() < self.max_waiting { Ok(()) } else { Err(state.full()) }
    }

    /// Gives a request to a slot, or lets it wait.
    pub fn submit(&self, job: Arc<Job>) -> Result<(), ApiError> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(ApiError::shutting_down());
        }
        match state.best_slot(&job.task.trail) {
            Some(slot) => {
                state.slots[slot].stop_chores();
                state.slots[slot] = SlotState::Given(job);
            }
            None if state.waiting.len() < self.max_waiting => state.waiting.push_back(job),
            None => return Err(state.full()),
        }
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Removes a waiting request whose client has gone.
    pub fn remove(&self, job: &Arc<Job>) {
        self.lock().waiting.retain(|waiting| !Arc::ptr_eq(waiting, job));
    }

    /// A slot has become free: its cache holds `trail`, and its last request, if any, took `took`.
    ///
    /// Call it before the client gets the end of the answer: the client may send its next request at once.
    pub fn release(&self, slot: usize, trail: Trail, took: Option<Duration>) {
        let mut state = self.lock();
        if let Some(took) = took {
            state.mean = (state.mean * 3 + took) / 4;
        }
        state.slots[slot] = match state.waiting.pop_front() {
            Some(job) => SlotState::Given(job),
            None => SlotState::Free { since: Instant::now(), trail, chores: None },
        };
    }

    /// Whether a slot is idle. If it is, `token` is cancelled as soon as the slot gets a request.
    pub fn idle(&self, slot: usize, token: &CancelToken) -> bool {
        let mut state = self.lock();
        if state.is_closed {
            return false;
        }
        let SlotState::Free { chores, .. } = &mut state.slots[slot] else { return false };
        token.reset();
        *chores = Some(token.clone());
        true
    }

    /// Waits for the next request of a slot. `None` when the server ends.
    pub fn next(&self, slot: usize) -> Option<Arc<Job>> {
        let mut state = self.lock();
        loop {
            if let SlotState::Given(job) = &state.slots[slot] {
                let job = Arc::clone(job);
                state.slots[slot] = SlotState::Busy(Some(Arc::clone(&job)));
                return Some(job);
            }
            if state.is_closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Accepts no more requests, and fails those that wait. Slots finish what they work on.
    pub fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        state.slots.iter().for_each(SlotState::stop_chores);
        drop(state);
        self.changed.notify_all();
        waiting.iter().for_each(|job| job.send(Event::Failed(ApiError::shutting_down())));
    }

    /// Cancels the requests that slots work on.
    pub fn cancel(&self) {
        for slot in &self.lock().slots {
            if let SlotState::Busy(Some(job)) | SlotState::Given(job) = slot {
                job.cancellation.cancel(Reason::Shutdown);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The free slot whose cache is worth most to a request; among equals, the one that is idle for the longest time.
    fn best_slot(&self, trail: &Trail) -> Option<usize> {
        let free = self.slots.iter().enumerate().filter_map(|(i, slot)| match slot {
            SlotState::Free { since, trail: cached, .. } => Some((i, cached.worth_to(trail), since.elapsed())),
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

    fn state(trails: &[Trail]) -> State {
        let start = Instant::now();
        let free = |(i, trail): (usize, &Trail)| SlotState::Free {
            // The first was used most recently.
            since: start.checked_sub(Duration::from_secs(i as u64)).unwrap_or(start),
            trail: trail.clone(),
            chores: None,
        };
        let slots = trails.iter().enumerate().map(free).collect();
        State { slots, waiting: VecDeque::new(), is_closed: false, mean: Duration::from_secs(3) }
    }

    #[test]
    fn the_slot_with_the_longest_common_prefix_is_taken() {
        let caches =
            [Trail::of(&[(1, false), (7, true)]), Trail::of(&[(1, false), (8, true), (2, false)]), Trail::of(&[])];
        let state = state(&caches);
        assert_eq!(state.best_slot(&Trail::of(&[(1, false), (8, true), (3, false)])), Some(1));
        assert_eq!(state.best_slot(&Trail::of(&[(1, false), (7, true)])), Some(0));
        assert_eq!(state.best_slot(&Trail::of(&[(1, false), (9, true)])), Some(2), "no video is removed there");
        let alike = super::tests::state(&[Trail::of(&[]), Trail::of(&[])]);
        assert_eq!(
            alike.best_slot(&Trail::of(&[(1, false)])),
            Some(1),
            "among equals the one that is idle for the longest time"
        );
    }

    #[test]
    fn a_request_without_a_video_leaves_the_videos() {
        // Both begin alike.
        let state = state(&[Trail::of(&[]), Trail::of(&[(5, false), (1, true)])]);
        assert_eq!(state.best_slot(&Trail::of(&[(5, false), (2, false)])), Some(0));
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
    fn a_full_queue_says_when_to_retry() {
        let mut state = state(&[]);
        state.slots = vec![SlotState::Busy(None)];
        assert_eq!(state.best_slot(&Trail::of(&[])), None);
        assert_eq!(state.full().status(), 429);
    }
}
