//! Rollouts that begin with copies.

use super::*;
use crate::rollout::Share;

/// A mirror of 20 %, a ring, and then users.
fn begun() -> World {
    let plan = "    rollout:\n      candidate: v2\n      steps: [{ mirror: 20%, hold: 10s }, { segments: [staff], hold: 10s }, \
                { share: 10%, hold: 10s }]\n      analysis:\n        min_requests: 10\n        warmup: 0s\n        checks: [{ \
                metric: error_rate, compared_to: stable, tolerance: 10%, on_fail: rollback }]\n      guard: { max_failures: 5 }\n";
    let mut world = World::begin(file(&[("v1", 95), ("v2", 5)], plan));
    // Before its first step nothing is sent to it.
    world.ms += 1_000;
    world.see(Seen::default());
    world
}

/// A second with 100 pairs, in which so many copies fail, and what else was seen.
fn pairs(world: &mut World, bad: u64, seen: Seen) -> Change {
    world.ms += 1_000;
    let seen = Seen {
        copies: observed(100, bad),
        originals: observed(100, 0),
        elapsed: Duration::from_secs(1),
        ..seen
    };
    world.see(seen)
}

#[test]
fn its_step_copies_and_gives_nobody() {
    let mut world = begun();
    let live = world.live();
    let mirror = live.mirror.unwrap();
    assert_eq!(
        (mirror.version.0, mirror.share, live.ring, world.share()),
        (1, 20_000, None, 0.0)
    );
    assert_eq!(mirror.window, world.machine().window);
    world.restart();
    let after = world.live().mirror.unwrap();
    assert_eq!((after.version, after.share), (mirror.version, mirror.share));
    assert!(
        after.window > mirror.window,
        "copies of the process before are not judged"
    );
    let before = traffic(&world.state, &world.file);
    for _ in 0..9 {
        pairs(&mut world, 0, Seen::default());
    }
    assert_eq!(world.machine().step, 1, "its hold is ten seconds");
    for _ in 0..2 {
        pairs(&mut world, 0, Seen::default());
    }
    assert_eq!((world.machine().step, world.live().mirror), (2, None));
    assert_eq!(world.live().ring.unwrap().1.len(), 1);
    let after = traffic(&world.state, &world.file);
    assert!(moves_toward_canary(&world.file, &before, &after));
    assert!(
        !moves_toward_canary(&world.file, &after, &before),
        "copies are less than users"
    );
}

#[test]
fn what_begins_to_copy_is_durable_first() {
    let world = begun();
    let after = traffic(&world.state, &world.file);
    let mut before = traffic(&world.state, &world.file);
    before.services[0].mirror = None;
    assert!(moves_toward_canary(&world.file, &before, &after));
    assert!(!moves_toward_canary(&world.file, &after, &before));
    assert!(!moves_toward_canary(&world.file, &after, &after));
}

#[test]
fn copies_that_fail_roll_it_back_by_the_check_and_not_by_the_guard() {
    let mut world = begun();
    let change = pairs(&mut world, 40, Seen::default());
    assert_eq!((world.cause(), world.live().mirror), (Some(Cause::Check), None));
    let text = &change.happened[0].text;
    assert!(text.contains("v2 fails 40 % (40/100) against 0 % (0/100)"), "{text}");
    assert_eq!(world.state.rollout("shop").unwrap().failures, 0);
}

#[test]
fn copies_count_in_mirror_steps_alone_and_what_users_got_elsewhere() {
    let mut world = begun();
    let users = |bad| Seen {
        candidate: observed(100, bad),
        stable: observed(100, 0),
        ..Seen::default()
    };
    // Nobody is sent to the candidate in a mirror step; what ends late is of a time before.
    pairs(&mut world, 0, users(100));
    assert_eq!(world.cause(), None);
    for _ in 0..30 {
        if world.share() > 0.0 {
            break;
        }
        pairs(
            &mut world,
            0,
            Seen {
                forced: observed(100, 0),
                ..Seen::default()
            },
        );
    }
    assert_eq!(world.share(), 10.0);
    let findings = |world: &World| world.state.rollout("shop").unwrap().findings[0].clone();
    for _ in 0..5 {
        pairs(&mut world, 100, users(0));
    }
    assert_eq!(
        (world.cause(), world.machine().step),
        (None, 3),
        "{:?}",
        findings(&world)
    );
    pairs(&mut world, 0, users(60));
    assert_eq!(world.cause(), Some(Cause::Check));
}

#[test]
fn without_copies_it_waits() {
    let mut world = begun();
    for _ in 0..30 {
        world.look(0);
    }
    assert_eq!((world.machine().step, world.machine().wait.word()), (1, "evidence"));
    assert_eq!(world.machine().mirror, Share::from_thousandths(20_000));
    let reason = &world.state.rollout("shop").unwrap().findings[0].reason;
    assert!(reason.contains("v2 has had 0 of the 10 requests needed"), "{reason}");
}
