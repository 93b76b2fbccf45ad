//! Kill switches and rollouts.

use super::*;
use crate::runtime::Scope;

#[test]
fn a_kill_ends_it_and_only_a_person_begins_again() {
    for scope in [Scope::All, Scope::Service("shop".to_owned())] {
        let mut world = World::at(50.0);
        let change = world.command(Command::Kill(scope.clone())).unwrap();
        assert_eq!(change.happened[0].kind, EventKind::Kill);
        assert_eq!((world.share(), world.cause()), (0.0, Some(Cause::Killed)));
        assert!(world.verb(Verb::Retry).is_err(), "not while the switch is on");
        let released = world.command(Command::Unkill(scope)).unwrap().text;
        assert!(
            released.contains("rolled back") && released.contains("retry"),
            "{released}"
        );
        world.look(0);
        assert_eq!(world.share(), 0.0);
        world.verb(Verb::Retry).unwrap();
        world.look(0);
        assert_eq!(world.machine().step, 1);
    }
    // After it a person may give the candidate something without a rollout: that comes back.
    let scope = Scope::Service("shop".to_owned());
    let mut world = World::at(50.0);
    world.command(Command::Kill(scope.clone())).unwrap();
    world.command(Command::Unkill(scope.clone())).unwrap();
    world.weights(80, 20).unwrap();
    world.command(Command::Kill(scope.clone())).unwrap();
    let released = world.command(Command::Unkill(scope)).unwrap().text;
    assert!(
        released.ends_with("the weights from before are in force again"),
        "{released}"
    );
    assert_eq!(world.share(), 20.0);
}

#[test]
fn a_kill_ends_what_waits_and_not_what_a_file_begins_beside_it() {
    let shop = || Scope::Service("shop".to_owned());
    let mut world = World::begin(with_plan());
    assert_eq!((world.machine().phase, world.machine().step), (Phase::Progressing, 0));
    world.command(Command::Kill(shop())).unwrap();
    assert_eq!(world.cause(), Some(Cause::Killed));
    world.command(Command::Unkill(shop())).unwrap();
    world.look(0);
    assert_eq!((world.machine().step, world.share()), (0, 0.0));

    // The switch comes in the same file as the next candidate, which waits for its end.
    let mut world = World::at(10.0);
    let next = |killed: &str| {
        let plan = plan_of("v3") + killed;
        file(&[("v1", 95), ("v2", 0), ("v3", 5)], &plan)
    };
    let before = world.machine().attempt;
    world.load(next("    kill: true\n"));
    assert_eq!(world.machine().attempt, before + 1);
    world.look(0);
    assert_eq!(world.machine().wait, rollout::Wait::Unkill);
    world.load(next(""));
    world.look(0);
    assert_eq!((world.machine().step, world.cause()), (1, None));
}
