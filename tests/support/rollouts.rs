//! Rollouts as the tests of them see them: versions that change, users who go on asking, and the word of the operator.

use super::{Client, Gate, Operator, PATIENCE, Upstream};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A version that fails more often than stable is taken back.
pub const ERRORS: &str = "{ metric: error_rate, compared_to: stable, tolerance: 10%, on_fail: rollback }";
/// One that is slower stays where it is.
pub const LATENCY: &str = "{ metric: latency_p90, compared_to: stable, tolerance: 50%, on_fail: pause }";

/// A version whose behaviour the test changes.
pub struct Version {
    pub upstream: Upstream,
    pub status: Arc<AtomicU16>,
    pub delay_ms: Arc<AtomicU64>,
}

impl Version {
    pub fn new(name: &str) -> Self {
        let (status, delay_ms) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicU64::new(0)));
        let (answers, takes) = (Arc::clone(&status), Arc::clone(&delay_ms));
        let upstream = Upstream::with(name, move |exchange| {
            exchange.read_body();
            thread::sleep(Duration::from_millis(takes.load(Ordering::Relaxed)));
            exchange.answer(answers.load(Ordering::Relaxed), &[], b"hello")
        });
        Self {
            upstream,
            status,
            delay_ms,
        }
    }

    pub fn fails(&self) {
        self.status.store(500, Ordering::Relaxed);
    }

    pub fn port(&self) -> u16 {
        self.upstream.port()
    }
}

/// Users who ask again and again, about 400 times a second altogether, until it is dropped.
pub struct Users {
    stop: Arc<AtomicBool>,
    /// Answers by status.
    seen: Arc<Mutex<BTreeMap<u16, u64>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Users {
    pub fn of(gate: &Gate) -> Self {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(BTreeMap::new())));
        let port = gate.port();
        let user = |number: usize| {
            let (stop, seen) = (Arc::clone(&stop), Arc::clone(&seen));
            thread::spawn(move || {
                let mut client = Client::connect(port);
                for turn in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let id = format!("{number}-{turn}");
                    let status = client.get("/", &[("x-user", &id)]).status;
                    *seen.lock().unwrap().entry(status).or_default() += 1;
                    thread::sleep(Duration::from_millis(10));
                }
            })
        };
        let threads = (0..4).map(user).collect();
        Self { stop, seen, threads }
    }

    /// How many answers there were that are not 200.
    pub fn errors(&self) -> u64 {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .filter(|(status, _)| **status != 200)
            .map(|(_, count)| count)
            .sum()
    }

    /// None of them has seen anything but 200.
    pub fn end_in_order(self) {
        let seen = self.end();
        assert!(seen.keys().all(|status| *status == 200), "{seen:?}");
    }

    /// Answers by status.
    pub fn end(mut self) -> BTreeMap<u16, u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

impl Drop for Users {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// How the rollout stands.
pub fn rollout(operator: &Operator) -> Value {
    operator.get("/v1/services/shop").expect_ok()["rollout"].clone()
}

pub fn wait_for(operator: &Operator, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let until = Instant::now() + PATIENCE;
    loop {
        let now = rollout(operator);
        if is_so(&now) {
            return now;
        }
        assert!(Instant::now() < until, "never {what}: {now:#}");
        thread::sleep(Duration::from_millis(50));
    }
}

pub fn wait_for_phase(operator: &Operator, phase: &str) -> Value {
    wait_for(operator, phase, |rollout| rollout["phase"] == phase)
}
