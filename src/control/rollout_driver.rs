//! What keeps rollouts going: looks at them once a second, and at once when a candidate fails. The writer does what follows.

mod outside;

pub use outside::Outside;

use super::commands::{Commander, Looking, Order};
use super::writer::now_ms;
use crate::runtime::{Ask, Origin, ServiceState};
use crate::shared::Shared;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{Mutex, Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

/// Time between two looks.
const TICK: Duration = Duration::from_secs(1);

/// The least time between two looks at failures: a storm of them is no reason to do nothing else.
const BETWEEN_BURSTS: Duration = Duration::from_millis(20);

/// Asks that may wait for the driver.
pub const ASKS: usize = 1024;

/// See the module.
pub struct Driver {
    pub shared: Arc<Shared>,
    pub commander: Commander,
    /// Rung at each failure of a service with a rollout.
    pub failures: Arc<Notify>,
    /// Taken by the task that runs: there is one at a time.
    pub asks: Mutex<mpsc::Receiver<Ask>>,
    pub outside: Outside,
}

impl Driver {
    pub async fn run(&self) -> Infallible {
        let mut asks = self.asks.lock().await;
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut calm = Instant::now();
        loop {
            tokio::select! {
                _ = ticks.tick() => self.look(false).await,
                () = self.failure(calm) => {
                    calm = Instant::now() + BETWEEN_BURSTS;
                    self.look(true).await;
                }
                Some(ask) = asks.recv() => self.outside.pass_on(&self.shared.load(), ask),
                () = self.outside.gates.answered() => self.take_answers().await,
            }
        }
    }

    /// Comes true after a failure, and not before `calm`.
    async fn failure(&self, calm: Instant) {
        sleep_until(calm).await;
        self.failures.notified().await;
    }

    async fn look(&self, burst: bool) {
        // Before the first probes have ended every endpoint seems to be missing, and nothing is served.
        if !self.shared.ready.load(Ordering::Relaxed) {
            return;
        }
        let is_any_under_way = self
            .shared
            .load()
            .state
            .services
            .values()
            .any(|known| ServiceState::is_rolled_out(known));
        if !is_any_under_way {
            return;
        }
        let looking = Looking {
            burst,
            outside: self.outside.numbers(&self.shared.load()),
        };
        // A writer that has ended was told of.
        drop(
            self.commander
                .submit(Order::Look(looking), Origin::rollout(now_ms()), None)
                .await,
        );
    }

    async fn take_answers(&self) {
        for answer in self.outside.answers() {
            // One that came too late changes nothing.
            drop(
                self.commander
                    .submit(Order::Change(answer), Origin::rollout(now_ms()), None)
                    .await,
            );
        }
    }
}
