//! The end of the process: as soon as nothing is in flight, and within a bound.

use super::Life;
use crate::proxy::accept::{IDLE_GRACE, Stage};
use async_trait::async_trait;
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How often a stopping process looks whether it is idle.
const LOOK: Duration = Duration::from_millis(5);

/// See [`farewell`] and [`last_word`].
const FAREWELL: Duration = Duration::from_secs(1);
const LAST_WORD: Duration = Duration::from_millis(500);

/// SIGTERM and SIGINT: the first one drains, the second one ends at once. When another process has taken over, this one
/// drains, too.
pub struct Drain(pub Life);

#[async_trait]
impl ShutdownSignalWatch for Drain {
    async fn recv(&self) -> ShutdownSignal {
        tokio::select! {
            () = self.0.upgrader.handed_over() => {}
            () = self.0.asked.stop(1) => {}
            () = self.0.threads.failed.notified() => tracing::error!("stopping: a part of this process is missing"),
        }
        tokio::select! {
            () = self.drain() => {}
            () = self.0.asked.stop(2) => tracing::warn!("asked twice: stopping at once"),
        }
        ShutdownSignal::FastShutdown
    }
}

impl Drain {
    async fn drain(&self) {
        let limits = self.0.shared.load().snapshot.limits.clone();
        let until = if self.0.upgrader.close().await {
            let until = Instant::now() + limits.drain_timeout;
            self.yields(until - farewell(limits.drain_timeout)).await;
            until
        } else {
            self.leaves(limits.drain_delay, limits.drain_timeout).await;
            Instant::now() + limits.drain_timeout
        };
        self.0.stage.send_replace(Stage::Closing);
        self.ends(until, limits.drain_timeout).await;
    }

    /// Not ready first, so that balancers notice, and still accepting.
    async fn leaves(&self, delay: Duration, timeout: Duration) {
        tracing::info!(
            delay_ms = delay.as_millis() as u64,
            timeout_ms = timeout.as_millis() as u64,
            "draining"
        );
        self.0.manager.stopping();
        self.0.shared.draining.store(true, Ordering::SeqCst);
        tokio::time::sleep(delay).await;
    }

    /// Another process accepts. What is here already is served to its end; at `until` it is time to say so.
    async fn yields(&self, until: Instant) {
        // Nobody receives it any more: the thread has ended.
        let _ = self.0.admin_stop.send(true);
        self.0.shared.handed_over.store(true, Ordering::SeqCst);
        self.0.stage.send_replace(Stage::Yielding);
        self.wait_until_nobody_accepts().await;
        let grace = IDLE_GRACE.min(until.saturating_duration_since(Instant::now()));
        tokio::select! {
            () = self.wait(grace, || self.connections() == 0) => {}
            () = self.0.asked.stop(1) => {}
        }
    }

    /// No new connections, then the end as soon as nothing is in flight, and at `until`. Before that tunnels that are still open
    /// are told, and then all that is in flight is ended.
    async fn ends(&self, until: Instant, drain_timeout: Duration) {
        // Only when nobody accepts any more does the count say who is left.
        self.wait_until_nobody_accepts().await;
        self.wait_until_idle(until - farewell(drain_timeout)).await;
        self.0.stage.send_replace(Stage::Leaving);
        self.wait_until_idle(until - last_word(drain_timeout)).await;
        let cut = self.connections();
        if cut > 0 {
            tracing::warn!(
                connections = cut,
                "limits.drain_timeout is over: ending what is still in flight"
            );
            self.0.stage.send_replace(Stage::Ending);
            // The word takes its time, also when a busy machine comes to it late.
            let said = Instant::now() + last_word(drain_timeout);
            self.wait_until_idle(until.max(said)).await;
        }
        self.0.stage.send_replace(Stage::Over);
        self.wait(Duration::from_secs(1), || {
            self.0.threads.running.load(Ordering::SeqCst) == 0
        })
        .await;
    }

    async fn wait_until_nobody_accepts(&self) {
        self.wait(Duration::from_secs(1), || {
            self.0.threads.accepting.load(Ordering::SeqCst) == 0
        })
        .await;
    }

    async fn wait_until_idle(&self, until: Instant) {
        let bound = until.saturating_duration_since(Instant::now());
        self.wait(bound, || self.connections() == 0).await;
    }

    /// Until `done`, or `bound` has passed.
    async fn wait(&self, bound: Duration, done: impl Fn() -> bool) {
        let until = Instant::now() + bound;
        while !done() && Instant::now() < until {
            tokio::time::sleep(LOOK).await;
        }
    }

    fn connections(&self) -> i64 {
        self.0.shared.threads.iter().map(|thread| thread.connections()).sum()
    }
}

/// How long before the end of `drain_timeout` tunnels are told: time for an answer to that, and at most half of what they have.
fn farewell(drain_timeout: Duration) -> Duration {
    FAREWELL.min(drain_timeout / 2)
}

/// How long before it everything else is ended: time to write that, and a tenth of what there is at most.
fn last_word(drain_timeout: Duration) -> Duration {
    LAST_WORD.min(drain_timeout / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_takes_half_a_second_and_at_most_a_tenth_of_the_time_there_is() {
        let words = [0, 1, 2, 30].map(|seconds| last_word(Duration::from_secs(seconds)));
        assert_eq!(words, [0, 100, 200, 500].map(Duration::from_millis));
    }

    #[test]
    fn the_farewell_is_a_second_and_at_most_half_of_the_time_there_is() {
        let farewells = [0, 1, 2, 30].map(|seconds| farewell(Duration::from_secs(seconds)));
        assert_eq!(farewells, [0, 500, 1_000, 1_000].map(Duration::from_millis));
    }
}
