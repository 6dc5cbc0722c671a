//! A limit on connections. When it is reached, connections without a request are closed first.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How long an idle connection stays open when there are too many of them: a new one is about to send a request.
const GRACE: Duration = Duration::from_secs(1);

/// What a connection does. The activity that is cheapest to lose comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::serve) enum Activity {
    /// Its request was rejected, and the client still sends it.
    Rejected,
    /// It has sent no request yet.
    New,
    /// Its last request was answered.
    Idle,
    /// It sends the body of a request.
    Receiving,
    /// Its request is complete, and the answer is not.
    Working,
}

impl Activity {
    fn has_no_request(self) -> bool {
        self < Self::Receiving
    }
}

/// All connections of a server.
#[derive(Debug)]
pub(in crate::serve) struct ConnectionLimit {
    /// The most connections.
    most: usize,
    /// The most connections without a request.
    most_idle: usize,
    state: Mutex<State>,
    /// A connection was closed, or became one that can be closed.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    connections: BTreeMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    activity: Activity,
    since: Instant,
    close: CancellationToken,
}

/// The permit of one connection.
#[derive(Debug)]
pub(in crate::serve) struct Permit {
    limit: Arc<ConnectionLimit>,
    id: u64,
    close: CancellationToken,
    /// Bytes of a request arrived, and its end was not read.
    unread: AtomicBool,
}

impl ConnectionLimit {
    pub fn new(most: usize, most_idle: usize) -> Arc<Self> {
        Arc::new(Self { most, most_idle, state: Mutex::default(), changed: Notify::new() })
    }

    /// Waits for a permit. If there is none, closes a connection without a request, or else one that sends a body.
    pub async fn enter(self: &Arc<Self>) -> Arc<Permit> {
        loop {
            let changed = self.changed.notified();
            if let Some(permit) = self.try_enter() {
                return permit;
            }
            changed.await;
        }
    }

    fn try_enter(self: &Arc<Self>) -> Option<Arc<Permit>> {
        let now = Instant::now();
        let mut state = self.lock();
        let idle = state.connections.values().filter(|connection| connection.activity.has_no_request()).count();
        let is_long = |connection: &Connection| {
            connection.activity.has_no_request() && now.duration_since(connection.since) >= GRACE
        };
        if idle >= self.most_idle {
            state.close_one(is_long);
        }
        if state.connections.len() >= self.most
            && !state.close_one(|connection| connection.activity < Activity::Working)
        {
            return None;
        }
        let (id, close) = (state.next, CancellationToken::new());
        state.next += 1;
        state.connections.insert(id, Connection { activity: Activity::New, since: now, close: close.clone() });
        Some(Arc::new(Permit { limit: Arc::clone(self), id, close, unread: AtomicBool::new(false) }))
    }

    /// Closes the connection that has had no request for the longest time.
    pub fn close_idle(&self) {
        self.lock().close_one(|connection| connection.activity.has_no_request());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Of the connections that `may` be closed, closes the one that is cheapest to lose; among equals, the one that is
    /// in this state for the longest time.
    fn close_one(&mut self, may: impl Fn(&Connection) -> bool) -> bool {
        let those = self.connections.iter().filter(|(_, connection)| may(connection));
        let first = those.min_by_key(|(_, connection)| (connection.activity, connection.since)).map(|(&id, _)| id);
        let Some(connection) = first.and_then(|id| self.connections.remove(&id)) else { return false };
        connection.close.cancel();
        true
    }
}

impl Permit {
    /// Sets what the connection does from now on.
    pub fn set(&self, activity: Activity) {
        if let Some(connection) = self.limit.lock().connections.get_mut(&self.id)
            && connection.activity != activity
        {
            (connection.activity, connection.since) = (activity, Instant::now());
        }
        if activity < Activity::Working {
            self.limit.changed.notify_one();
        }
    }

    /// Whether bytes of a request arrived whose end was not read.
    pub fn has_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// Sets [`has_unread`](Self::has_unread).
    pub fn set_unread(&self, unread: bool) {
        self.unread.store(unread, Ordering::Relaxed);
    }

    /// Waits until the connection must be closed for another one.
    pub async fn closed(&self) {
        self.close.cancelled().await;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limit.lock().connections.remove(&self.id);
        self.limit.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it was closed.
    fn is_gone(permit: &Permit) -> bool {
        !permit.limit.lock().connections.contains_key(&permit.id)
    }

    #[test]
    fn connections_without_a_request_are_closed_first() {
        let limit = ConnectionLimit::new(4, 4);
        let permits: Vec<_> = (0..4).map(|_| limit.try_enter().expect("a permit")).collect();
        permits[0].set(Activity::Working);
        permits[1].set(Activity::Receiving);
        permits[2].set(Activity::Idle);
        let newest = limit.try_enter().expect("the permit of the one that never sent a request");
        assert_eq!(permits.iter().map(|permit| is_gone(permit)).collect::<Vec<_>>(), [false, false, false, true]);
        newest.set(Activity::Working);
        let next = limit.try_enter().expect("the permit of the one between two requests");
        assert!(is_gone(&permits[2]) && !is_gone(&permits[1]));
        next.set(Activity::Working);
        let last = limit.try_enter().expect("the permit of the one that sends a body");
        last.set(Activity::Working);
        assert!(is_gone(&permits[1]) && !is_gone(&permits[0]));
        assert!(limit.try_enter().is_none(), "work is not cancelled");
    }

    #[test]
    fn the_longest_idle_goes_first() {
        let limit = ConnectionLimit::new(3, 3);
        let permits: Vec<_> = (0..3).map(|_| limit.try_enter().expect("a permit")).collect();
        let _fourth = limit.try_enter().expect("a permit");
        assert!(is_gone(&permits[0]) && !is_gone(&permits[1]) && !is_gone(&permits[2]));
    }

    #[test]
    fn there_is_no_permit_when_all_connections_work() {
        let limit = ConnectionLimit::new(1, 1);
        let permit = limit.try_enter().expect("a permit");
        permit.set(Activity::Working);
        assert!(limit.try_enter().is_none());
        drop(permit);
        assert!(limit.try_enter().is_some());
    }

    #[test]
    fn new_connections_stay_open_for_a_while() {
        let limit = ConnectionLimit::new(8, 2);
        let permits: Vec<_> = (0..4).map(|_| limit.try_enter().expect("a permit")).collect();
        assert!(permits.iter().all(|permit| !is_gone(permit)));
        let long_ago = Instant::now().checked_sub(2 * GRACE).expect("a time");
        limit.lock().connections.values_mut().for_each(|connection| connection.since = long_ago);
        let _next = limit.try_enter().expect("a permit");
        assert_eq!(permits.iter().filter(|permit| is_gone(permit)).count(), 1);
    }
}
