//! A bound on TLS handshakes under way. When a newer one comes at it, the oldest is given up: whoever holds handshakes
//! open has to open them faster than honest clients finish theirs, and never shuts them out.

use super::worker::Worker;
use crate::outcome::Handshake;
use std::collections::BTreeMap;
use std::rc::Rc;
use tokio::task::AbortHandle;

/// Handshakes under way on one thread, from the connection's beginning on. A thread that does nothing else finishes some
/// thousands a second, each within a round trip or two.
pub const HANDSHAKES_MOST: usize = 1024;

/// Those of one thread, by their age.
#[derive(Default)]
pub struct Handshakes {
    next: u64,
    under_way: BTreeMap<u64, AbortHandle>,
}

impl Handshakes {
    /// The place of one that begins now.
    fn place(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// `task` carries the handshake at `place`; returns the oldest one where there are too many.
    fn begun(&mut self, place: u64, task: AbortHandle) -> Option<AbortHandle> {
        self.under_way.insert(place, task);
        if self.under_way.len() <= HANDSHAKES_MOST {
            return None;
        }
        self.under_way.pop_first().map(|(_, oldest)| oldest)
    }
}

/// A handshake's place, from its beginning to its end.
pub struct Turn {
    worker: Rc<Worker>,
    place: u64,
}

impl Turn {
    pub fn new(worker: &Rc<Worker>) -> Self {
        Self {
            worker: Rc::clone(worker),
            place: worker.handshakes.borrow_mut().place(),
        }
    }

    /// Its number, by which [`begun`] knows it.
    pub fn place(&self) -> u64 {
        self.place
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.worker.handshakes.borrow_mut().under_way.remove(&self.place);
    }
}

/// The task of the handshake at `place` has been made; the oldest one makes room where there are too many.
pub fn begun(worker: &Worker, place: u64, task: AbortHandle) {
    let displaced = worker.handshakes.borrow_mut().begun(place, task);
    if let Some(displaced) = displaced {
        worker.stats.shook_hands(Handshake::Displaced);
        displaced.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::fixture;
    use std::sync::Arc;

    #[tokio::test]
    async fn the_oldest_makes_room_and_those_that_end_do_too() {
        let shared = fixture::shared(fixture::in_force(1, 1, &[]), 1);
        let worker = Worker::new(0, Arc::clone(&shared), Arc::clone(&shared.threads[0]), None, 16);
        let tasks = tokio::task::LocalSet::new();
        let begin = || {
            let turn = Turn::new(&worker);
            let place = turn.place();
            let task = tasks.spawn_local(async move {
                let _turn = turn;
                std::future::pending::<()>().await;
            });
            begun(&worker, place, task.abort_handle());
            task
        };
        let first = begin();
        let mut others: Vec<_> = (1..HANDSHAKES_MOST).map(|_| begin()).collect();
        tasks.run_until(tokio::task::yield_now()).await;
        assert!(!first.is_finished(), "as many as there may be");
        others.push(begin());
        tasks.run_until(first).await.unwrap_err();
        assert_eq!(worker.stats.handshakes(Handshake::Displaced), 1);
        // One that ends leaves its place to the next.
        let ended = others.pop().unwrap();
        ended.abort();
        tasks.run_until(ended).await.unwrap_err();
        others.push(begin());
        tasks.run_until(tokio::task::yield_now()).await;
        assert_eq!(worker.stats.handshakes(Handshake::Displaced), 1);
        assert!(others.iter().all(|other| !other.is_finished()));
    }
}
