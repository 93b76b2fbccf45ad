//! The store on real directories.

mod audit_log;
mod crash;
mod faults;
mod handover;
mod migration;
mod outbox;
mod saving;
mod unreadable;

use super::*;
use crate::analysis::{Check, Judge, Observed, Rules, Test, Window};
use crate::rollout;
use crate::routing::Role;
use crate::runtime::{
    EventKind, FileSplit, FileVersion, Happened, Latch, Origin, RolloutState, ServiceState, WeightsSet,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Instant;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Short times, so that a test of a disk that fails is short.
const SHORT: Tuning = Tuning {
    busy: Duration::from_millis(50),
    retry_first: Duration::from_millis(20),
    retry_last: Duration::from_millis(100),
    ..TUNING
};

fn open(state_dir: &Path) -> (Store, Restored) {
    Store::open_tuned(state_dir, Options::default(), SHORT).unwrap()
}

fn refused(state_dir: &Path) -> StoreError {
    match Store::open_tuned(state_dir, Options::default(), SHORT) {
        Ok(_) => panic!("it was opened"),
        Err(error) => error,
    }
}

fn recovered(state_dir: &Path) -> (Store, Restored) {
    let options = Options {
        recover: true,
        ..Options::default()
    };
    Store::open_tuned(state_dir, options, SHORT).unwrap()
}

fn close(store: Store) {
    store.close(PATIENCE).unwrap();
}

/// What a process that starts now finds.
fn found(state_dir: &Path) -> Restored {
    let (store, restored) = open(state_dir);
    close(store);
    restored
}

fn database(state_dir: &Path) -> PathBuf {
    state_dir.join("state.db")
}

fn by(who: &str) -> Origin {
    Origin {
        who: who.to_owned(),
        from: "unix".to_owned(),
        at_ms: 1,
        reason: Some("because".to_owned()),
    }
}

fn event(seq: u64) -> Arc<Event> {
    let happened = Happened {
        kind: EventKind::Weights,
        service: Some("shop".to_owned()),
        before: Value::Null,
        after: json!({ "weights": { "v1": seq } }),
        text: format!("number {seq}"),
    };
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let by = Origin {
        at_ms: u64::try_from(now.as_millis()).unwrap(),
        ..by("ada")
    };
    Arc::new(Event::new(seq, happened, &by, seq, Value::Null))
}

/// A state that is told apart by `weight`.
fn state(weight: u32) -> Arc<State> {
    let mut state = State::default();
    state.services.insert("shop".into(), Arc::new(service(weight)));
    Arc::new(state)
}

fn service(weight: u32) -> ServiceState {
    let version = |name: &str, role, weight| FileVersion {
        name: name.to_owned(),
        role,
        weight,
    };
    ServiceState {
        file: FileSplit {
            versions: vec![version("v1", Role::Stable, 95), version("v2", Role::Canary, 5)],
        },
        file_kill: false,
        epoch: 3,
        set: Some(WeightsSet {
            weights: [("v1".to_owned(), 100), ("v2".to_owned(), weight)].into(),
            by: by("ada"),
        }),
        kill: None,
        rollout: None,
    }
}

fn weight(state: &State) -> u32 {
    state.service("shop").unwrap().weights()["v2"]
}

/// Polls until `is_so`.
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "never: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn is_durable(store: &Store) -> bool {
    store.not_durable().is_none()
}

fn why_not_durable(store: &Store) -> String {
    store.not_durable().unwrap()
}

// ---- any state ----

fn any_origin() -> impl Strategy<Value = Origin> {
    let reason = proptest::option::of(".{0,20}");
    (".{0,20}", ".{0,20}", any::<u64>(), reason).prop_map(|(who, from, at_ms, reason)| Origin {
        who,
        from,
        at_ms,
        reason,
    })
}

fn any_latch() -> impl Strategy<Value = Option<Latch>> {
    proptest::option::of(any_origin().prop_map(|by| Latch { by }))
}

fn any_service() -> impl Strategy<Value = ServiceState> {
    let role = prop_oneof![Just(Role::Stable), Just(Role::Canary)];
    let version = (".{1,10}", role, any::<u32>()).prop_map(|(name, role, weight)| FileVersion { name, role, weight });
    let set = (
        proptest::collection::btree_map(".{1,10}", any::<u32>(), 1..4),
        any_origin(),
    )
        .prop_map(|(weights, by)| WeightsSet { weights, by });
    (
        proptest::collection::vec(version, 0..4),
        any::<bool>(),
        any::<u32>(),
        proptest::option::of(set),
        any_latch(),
        proptest::option::of(any_rollout()),
    )
        .prop_map(|(versions, file_kill, epoch, set, kill, rollout)| ServiceState {
            file: FileSplit { versions },
            file_kill,
            epoch,
            set,
            kill,
            rollout,
        })
}

fn any_rollout() -> impl Strategy<Value = RolloutState> {
    let arms = proptest::collection::vec((0..1000_u64, 0..1000_u64, 1..60_000_000_u64), 0..5);
    (any::<u64>(), any::<u32>(), ".{0,20}", arms).prop_map(|(failures, step, text, arms)| {
        let mut judge = Judge::new(Rules {
            confidence: 0.99,
            min_requests: 100,
            checks: vec![Check {
                metric: "error_rate".to_owned(),
                test: Test::ErrorsCompared { tolerance: 0.1 },
            }],
        });
        for (ended, bad, us) in arms {
            let mut seen = Observed::default();
            (seen.requests.begun, seen.requests.ended, seen.requests.bad) = (ended, ended, bad.min(ended));
            seen.durations.record(us);
            let window = Window {
                candidate: &seen,
                forced: &seen,
                stable: &seen,
                share: 0.5,
                warming: false,
                mirrored: false,
            };
            judge.tick(&window, Duration::from_secs(1));
        }
        RolloutState {
            machine: rollout::State {
                step,
                candidate: Some(text.as_str().into()),
                obstacle: Some(text.into()),
                ..rollout::State::default()
            },
            judge: Some(Box::new(judge)),
            failures,
            ..RolloutState::default()
        }
    })
}

fn any_state() -> impl Strategy<Value = State> {
    let services = proptest::collection::btree_map("[a-d]|.{0,12}", any_service(), 0..6);
    (any_latch(), any::<bool>(), any::<u32>(), services).prop_map(|(kill, file_kill, floor_epoch, services)| State {
        kill,
        file_kill,
        floor_epoch,
        services: services
            .into_iter()
            .map(|(name, service)| (name.into(), Arc::new(service)))
            .collect(),
    })
}
