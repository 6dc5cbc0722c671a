//! Places for connections. Where there are not enough, those that ask nothing leave first.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How long one that asks nothing is left alone while there are places: who has just connected is about to ask.
const GRACE: Duration = Duration::from_secs(1);

/// What a connection is at. Those that cost the least to lose come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::serve) enum At {
    /// It was answered, and sends still.
    Refused,
    /// It has asked nothing yet.
    New,
    /// Its last request was answered.
    Between,
    /// The body of a request comes.
    Receiving,
    /// A request is here, and not answered to its end.
    Working,
}

impl At {
    fn is_idle(self) -> bool {
        self < Self::Receiving
    }
}

/// All connections.
#[derive(Debug)]
pub(in crate::serve) struct Crowd {
    /// Places.
    most: usize,
    /// Places of those that ask nothing.
    most_idle: usize,
    state: Mutex<State>,
    /// A place got free, or one that can be taken.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    members: BTreeMap<u64, Member>,
}

#[derive(Debug)]
struct Member {
    at: At,
    since: Instant,
    leave: Arc<Notify>,
}

/// The place of a connection. Given back when all clones of it are gone.
#[derive(Debug)]
pub(in crate::serve) struct Seat {
    crowd: Arc<Crowd>,
    id: u64,
    leave: Arc<Notify>,
    /// Bytes came that belong to a request that was not read to its end.
    owes: AtomicBool,
}

impl Crowd {
    pub fn new(most: usize, most_idle: usize) -> Arc<Self> {
        Arc::new(Self { most, most_idle, state: Mutex::default(), changed: Notify::new() })
    }

    /// A place, as soon as one is free or can be taken from somebody who asks nothing, or else sends a body.
    pub async fn enter(self: &Arc<Self>) -> Arc<Seat> {
        loop {
            let changed = self.changed.notified();
            if let Some(seat) = self.try_enter() {
                return seat;
            }
            changed.await;
        }
    }

    fn try_enter(self: &Arc<Self>) -> Option<Arc<Seat>> {
        let now = Instant::now();
        let mut state = self.lock();
        let idle = state.members.values().filter(|member| member.at.is_idle()).count();
        let is_long = |member: &Member| member.at.is_idle() && now.duration_since(member.since) >= GRACE;
        if idle >= self.most_idle {
            state.send_away(is_long);
        }
        if state.members.len() >= self.most && !state.send_away(|member| member.at < At::Working) {
            return None;
        }
        let (id, leave) = (state.next, Arc::new(Notify::new()));
        state.next += 1;
        state.members.insert(id, Member { at: At::New, since: now, leave: Arc::clone(&leave) });
        Some(Arc::new(Seat { crowd: Arc::clone(self), id, leave, owes: AtomicBool::new(false) }))
    }

    /// Sends away whoever asks nothing for the longest time: the system has no more descriptors.
    pub fn shrink(&self) {
        self.lock().send_away(|member| member.at.is_idle());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Of those that `may` leave, sends away the one that costs the least to lose; of equals the one that is so for
    /// the longest time.
    fn send_away(&mut self, may: impl Fn(&Member) -> bool) -> bool {
        let those = self.members.iter().filter(|(_, member)| may(member));
        let first = those.min_by_key(|(_, member)| (member.at, member.since)).map(|(&id, _)| id);
        let Some(member) = first.and_then(|id| self.members.remove(&id)) else { return false };
        member.leave.notify_one();
        true
    }
}

impl Seat {
    /// What the connection is at from now on.
    pub fn set(&self, at: At) {
        if let Some(member) = self.crowd.lock().members.get_mut(&self.id)
            && member.at != at
        {
            (member.at, member.since) = (at, Instant::now());
        }
        if at < At::Working {
            self.crowd.changed.notify_one();
        }
    }

    /// Whether bytes came that belong to a request that was not read to its end.
    pub fn owes(&self) -> bool {
        self.owes.load(Ordering::Relaxed)
    }

    /// Bytes came, or what they belong to was read to its end.
    pub fn set_owes(&self, owes: bool) {
        self.owes.store(owes, Ordering::Relaxed);
    }

    /// Waits until the place is needed.
    pub async fn sent_away(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.crowd.lock().members.remove(&self.id);
        self.crowd.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it was sent away.
    fn is_gone(seat: &Seat) -> bool {
        !seat.crowd.lock().members.contains_key(&seat.id)
    }

    #[test]
    fn those_that_ask_nothing_make_room() {
        let crowd = Crowd::new(4, 4);
        let seats: Vec<_> = (0..4).map(|_| crowd.try_enter().expect("a place")).collect();
        seats[0].set(At::Working);
        seats[1].set(At::Receiving);
        seats[2].set(At::Between);
        let newest = crowd.try_enter().expect("the place of the one that never asked");
        assert_eq!(seats.iter().map(|seat| is_gone(seat)).collect::<Vec<_>>(), [false, false, false, true]);
        newest.set(At::Working);
        let next = crowd.try_enter().expect("the place of the one between two requests");
        assert!(is_gone(&seats[2]) && !is_gone(&seats[1]));
        next.set(At::Working);
        let last = crowd.try_enter().expect("the place of the one that sends");
        last.set(At::Working);
        assert!(is_gone(&seats[1]) && !is_gone(&seats[0]));
        assert!(crowd.try_enter().is_none(), "work is not given up");
    }

    #[test]
    fn the_longest_idle_goes_first() {
        let crowd = Crowd::new(3, 3);
        let seats: Vec<_> = (0..3).map(|_| crowd.try_enter().expect("a place")).collect();
        let _fourth = crowd.try_enter().expect("a place");
        assert!(is_gone(&seats[0]) && !is_gone(&seats[1]) && !is_gone(&seats[2]));
    }

    #[test]
    fn there_is_no_place_where_all_work() {
        let crowd = Crowd::new(1, 1);
        let seat = crowd.try_enter().expect("a place");
        seat.set(At::Working);
        assert!(crowd.try_enter().is_none());
        drop(seat);
        assert!(crowd.try_enter().is_some());
    }

    #[test]
    fn who_has_just_come_is_left_alone_while_there_are_places() {
        let crowd = Crowd::new(8, 2);
        let seats: Vec<_> = (0..4).map(|_| crowd.try_enter().expect("a place")).collect();
        assert!(seats.iter().all(|seat| !is_gone(seat)));
        let long_ago = Instant::now().checked_sub(2 * GRACE).expect("a time");
        crowd.lock().members.values_mut().for_each(|member| member.since = long_ago);
        let _next = crowd.try_enter().expect("a place");
        assert_eq!(seats.iter().filter(|seat| is_gone(seat)).count(), 1);
    }
}
