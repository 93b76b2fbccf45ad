//! The writer and rollouts, on the bench of the writer's own tests.

use super::super::tests::{Bench, Disk, kill, unkill};
use super::*;
use crate::control::commands::NotDone;
use crate::outcome::{FailureKind, Outcome};
use crate::rollout::Verb;
use crate::shared::Ending;
use tokio::time::sleep;

const TEXT: &str = "listeners: [{ address: \"127.0.0.1:0\" }]\nservices:\n  - name: s\n    versions:\n      - { name: v1, weight: 90, \
                    pool: { endpoints: [\"127.0.0.1:1\"] } }\n      - { name: v2, weight: 10, pool: { endpoints: [\"127.0.0.1:1\"] \
                    } }\n    rollout:\n      steps: [{ share: 10%, hold: 1h }, { share: 50%, hold: 1h }, { share: 100%, hold: 1h \
                    }]\n      analysis: { min_requests: 1, warmup: 0s }\n      guard: { max_failures: 5 }\n";

async fn bench() -> Bench {
    probed(Bench::begin(TEXT.into(), Disk::default()).await)
}

/// Every endpoint answers.
fn probed(bench: Bench) -> Bench {
    for version in &bench.shared.load().services[0].versions {
        for endpoint in &version.pool.endpoints {
            for _ in 0..10 {
                endpoint.probe_ended(None, &version.pool.spec.health_check, 0, 0);
            }
        }
    }
    bench
}

async fn look(bench: &Bench, burst: bool) {
    let looking = Looking {
        burst,
        outside: Vec::new(),
    };
    bench
        .commander
        .submit(Order::Look(looking), Origin::rollout(0), None)
        .await
        .unwrap();
}

fn verb(verb: Verb) -> Command {
    Command::Rollout {
        service: "s".to_owned(),
        steer: Steer::Verb(verb),
    }
}

/// Requests of the candidate that fail.
fn fail(bench: &Bench, requests: usize) {
    let in_force = bench.shared.load();
    let evidence = in_force.services[0].evidence.as_ref().unwrap();
    for _ in 0..requests {
        let counted = evidence.begin(0, 1, Some(Sent::Split), None);
        let ending = Ending {
            outcome: Outcome::Failure(FailureKind::Status5xx),
            duration: None,
            values: &[],
        };
        evidence.end(0, counted, &ending);
    }
}

fn phase(bench: &Bench) -> &'static str {
    let state = bench.shared.load();
    state
        .state
        .service("s")
        .unwrap()
        .rollout
        .as_ref()
        .unwrap()
        .machine
        .phase
        .word()
}

#[tokio::test(start_paused = true)]
async fn a_look_that_moves_nothing_is_no_generation() {
    let bench = bench().await;
    assert_eq!(
        bench.weights(),
        [90, 0],
        "until somebody has looked the candidate has nothing"
    );
    look(&bench, false).await;
    assert_eq!(bench.weights(), [90, 10]);
    let generation = bench.generation();
    fail(&bench, 1);
    look(&bench, false).await;
    assert_eq!(bench.generation(), generation);
    let state = bench.shared.load();
    assert_eq!(
        state.state.service("s").unwrap().rollout.as_ref().unwrap().failures,
        1,
        "but it is seen"
    );
}

#[tokio::test(start_paused = true)]
async fn the_candidate_gets_nothing_that_is_not_durable_and_loses_it_at_once() {
    let mut bench = bench().await;
    look(&bench, false).await;
    bench.disk.set(true, Duration::ZERO);
    // The state of before is not on the disk either: what is proposed is refused.
    let refused = bench.order(verb(Verb::Promote)).await;
    assert!(matches!(refused, Err(NotDone::NotDurable(_))), "{refused:?}");
    assert_eq!(bench.weights(), [90, 10]);
    fail(&bench, 5);
    look(&bench, true).await;
    assert_eq!((bench.weights(), phase(&bench)), (vec![90, 0], "rolled_back"));
    let mut notices = Vec::new();
    while let Ok(ask) = bench.asked.try_recv() {
        notices.extend(match ask {
            Ask::Notify { notice, .. } => Some(notice),
            Ask::Gate { .. } => None,
        });
    }
    assert_eq!(notices, [Notice::Step, Notice::Rollback]);
    let live = &bench.shared.load().services[0];
    assert_eq!((live.rollbacks.of(Cause::Guard), live.rollbacks.detected().0), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_rollback_overtakes_a_step_that_waits_for_the_disk() {
    for by_person in [false, true] {
        let bench = bench().await;
        look(&bench, false).await;
        bench.disk.set(false, Duration::from_secs(2));
        let (promoted, ()) = tokio::join!(bench.order(verb(Verb::Promote)), async {
            sleep(Duration::from_millis(100)).await;
            if by_person {
                bench.order(verb(Verb::Rollback)).await.unwrap();
            } else {
                fail(&bench, 5);
                look(&bench, true).await;
            }
            assert_eq!((bench.weights(), phase(&bench)), (vec![90, 0], "rolled_back"));
        });
        assert!(matches!(promoted, Err(NotDone::Overtaken)), "{promoted:?}");
        assert_eq!(bench.weights(), [90, 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_seen_before_a_retry_is_not_held_against_it() {
    let bench = bench().await;
    look(&bench, false).await;
    fail(&bench, 5);
    look(&bench, true).await;
    assert_eq!(phase(&bench), "rolled_back");
    fail(&bench, 100);
    bench.order(verb(Verb::Retry)).await.unwrap();
    look(&bench, false).await;
    assert_eq!((bench.weights(), phase(&bench)), (vec![90, 10], "progressing"));
}

#[tokio::test(start_paused = true)]
async fn a_crash_finds_the_rollout_as_it_was_kept() {
    let bench = bench().await;
    look(&bench, false).await;
    assert_eq!(bench.weights(), [90, 10]);
    bench.order(kill()).await.unwrap();
    assert_eq!(phase(&bench), "rolled_back");
    let bench = probed(bench.crash(TEXT.into()).await);
    assert_eq!(phase(&bench), "rolled_back");
    bench.order(unkill()).await.unwrap();
    assert_eq!(bench.weights(), [90, 0]);
    bench.order(verb(Verb::Retry)).await.unwrap();
    look(&bench, false).await;
    let bench = probed(bench.crash(TEXT.into()).await);
    assert_eq!((bench.weights(), phase(&bench)), (vec![90, 10], "progressing"));
}
