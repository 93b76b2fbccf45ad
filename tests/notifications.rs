//! Notifications that wait when a process ends, with the real binary: the next one tells them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use rollgate::control::http_client::HttpClient;
use rollgate::control::notifier::{Notification, Notifier};
use rollgate::control::store::{Options, Store};
use rollgate::rollout::{Notice, Share};
use rollgate::routing::{CookieKey, Traffic};
use rollgate::shared::{InForce, Shared};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use support::{Config, Gate, PATIENCE, Service, Upstream, eventually, signal};
use tempfile::TempDir;

/// A receiver that answers with this status; 0: not at all, for a second.
fn receiver(status: &Arc<AtomicU16>) -> Upstream {
    let status = Arc::clone(status);
    Upstream::with("receiver", move |exchange| {
        exchange.read_body();
        match status.load(Ordering::SeqCst) {
            0 => {
                std::thread::sleep(Duration::from_secs(1));
                support::Then::Close
            }
            status => exchange.answer(status, &[("connection", "close")], b"said"),
        }
    })
}

struct Site {
    receiver: Upstream,
    status: Arc<AtomicU16>,
    upstream: Upstream,
    state: TempDir,
}

impl Site {
    /// Whose receiver begins with this status.
    fn new(status: u16) -> Self {
        let status = Arc::new(AtomicU16::new(status));
        Self {
            receiver: receiver(&status),
            status,
            upstream: Upstream::named("v1"),
            state: tempfile::tempdir().unwrap(),
        }
    }

    fn config(&self) -> String {
        let port = self.upstream.port();
        let hook = self.receiver.port();
        let rollout = format!(
            "rollout:\n  start: manual\n  steps: [{{ share: 100%, hold: 1m }}]\n  notify: [{{ webhook: \
             \"http://127.0.0.1:{hook}/events?token=secret\" }}]"
        );
        Config::with(Service::split(port, 100, port, 0).key(&rollout))
            .top(&format!("state_dir: {}", self.state.path().display()))
            .text()
    }

    /// Leaves what a process leaves that is killed before anybody was told.
    fn leave(&self, reasons: &[&str]) {
        let snapshot = Arc::new(rollgate::config::parse(&self.config(), Path::new("/")).unwrap());
        let receivers = snapshot.services[0].rollout.clone().unwrap().notify;
        let shared = Arc::new(Shared::new(in_force(snapshot), 1));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (store, restored) = Store::open(self.state.path(), Options::default()).unwrap();
            let notifier = Notifier::new(shared, store.clone(), HttpClient::new(), restored.outbox);
            for reason in reasons {
                notifier.tell(&receivers, &told(reason));
            }
            tokio::select! {
                biased;
                // Nobody is told, and all is on the disk.
                () = notifier.freeze() => {}
                never = notifier.run() => match never {},
            }
            store.close(PATIENCE).unwrap();
        });
        assert_eq!(self.receiver.count(), 0);
    }

    /// What the receiver got, as id and reason, without repeats of what came just before.
    fn told(&self) -> Vec<(String, String)> {
        let told = |request: &support::Received| {
            let told: Value = serde_json::from_slice(&request.body).unwrap();
            let word = |key: &str| told[key].as_str().unwrap().to_owned();
            (word("id"), word("reason"))
        };
        let requests = self.receiver.requests();
        let mut told: Vec<_> = requests.iter().filter(|request| request.complete).map(told).collect();
        told.dedup();
        told
    }

    fn answers(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    fn after(&self, requests: usize) {
        eventually(PATIENCE, "the receiver was asked", || self.receiver.count() >= requests);
    }
}

fn in_force(snapshot: Arc<rollgate::config::Snapshot>) -> InForce {
    InForce {
        generation: 1,
        snapshot,
        state: Arc::default(),
        traffic: Traffic {
            killed: false,
            services: Box::default(),
        },
        cookie_key: CookieKey::new(&[7; 32]),
        listeners: Arc::default(),
        services: Arc::default(),
        departed: Arc::default(),
    }
}

fn told(reason: &str) -> Notification {
    Notification {
        notice: Notice::Rollback,
        service: "shop".into(),
        version: "v2".into(),
        phase: "rolled_back".into(),
        step: 1,
        share: Share::ZERO,
        reason: reason.into(),
        evidence: Vec::new(),
        generation: 1,
        time: "2026-03-01T12:00:00.000Z".into(),
    }
}

const WAITING: &str = "rollgate_notifications_waiting";
const ENDED: &str = "rollgate_notifications_total";

#[test]
fn what_waits_survives_kills_and_is_told_once_the_receiver_takes_it() {
    let site = Site::new(503);
    site.leave(&["one", "two", "three"]);
    let gate = Gate::start(&site.config());
    site.after(2);
    gate.expect_metric(WAITING, &[], 3.0);
    // One that hangs, and a process that dies in the middle of it.
    site.answers(0);
    let gate = gate.crash(&site.config());
    site.after(site.receiver.count() + 1);
    assert_eq!(gate.get("/", &[]).status, 200);
    let gate = gate.crash(&site.config());
    site.answers(204);
    gate.expect_metric(ENDED, &[("end", "delivered")], 3.0);
    gate.expect_metric(WAITING, &[], 0.0);
    let told = site.told();
    let reasons: Vec<_> = told.iter().map(|(_, reason)| reason.as_str()).collect();
    assert_eq!(
        reasons,
        ["one", "two", "three"],
        "in order, and a repeat has the id of the first"
    );
}

#[test]
fn the_log_tells_of_a_receiver_that_fails_once_and_never_its_secret() {
    let site = Site::new(500);
    site.leave(&["one"]);
    let gate = Gate::start(&site.config());
    site.after(3);
    site.answers(204);
    gate.expect_metric(ENDED, &[("end", "delivered")], 1.0);
    eventually(PATIENCE, "the log says so", || {
        gate.log().contains("notifications are delivered again")
    });
    let log = gate.log();
    assert_eq!(log.matches("notifications cannot be delivered").count(), 1, "{log}");
    assert!(log.contains("it answers 500: said"), "{log}");
    assert!(!log.contains("secret"), "{log}");
}

#[test]
fn a_process_that_takes_over_takes_what_waits() {
    let site = Site::new(503);
    site.leave(&["one", "two"]);
    let gate = Gate::start(&site.config());
    site.after(1);
    signal(gate.serving(), "USR2");
    eventually(PATIENCE, "another process serves", || !gate.successors().is_empty());
    gate.expect_metric(WAITING, &[], 2.0);
    site.answers(200);
    gate.expect_metric(ENDED, &[("end", "delivered")], 2.0);
    assert_eq!(site.told().len(), 2);
    assert!(site.told().is_sorted_by_key(|(_, reason)| reason.clone()));
}

#[test]
fn an_upgrade_that_comes_to_nothing_leaves_what_waits_to_who_goes_on() {
    let site = Site::new(503);
    site.leave(&["one", "two"]);
    let gate = Gate::start(&site.config());
    site.after(1);
    std::fs::write(gate.config_path(), "nonsense").unwrap();
    signal(gate.serving(), "USR2");
    gate.expect_metric("rollgate_upgrades_failed_total", &[], 1.0);
    site.answers(200);
    gate.expect_metric(ENDED, &[("end", "delivered")], 2.0);
    assert_eq!(site.told().len(), 2);
}
