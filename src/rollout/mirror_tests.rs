//! Steps that copy requests: what begins them, what ends them, and what goes back to them.

use super::super::fixture::*;
use super::super::*;

/// A mirror of 10 %, then of 50 %, 1 % of the users, and a bake.
fn mirrored() -> Plan {
    plan(vec![
        mirror(10_000, 10),
        mirror(50_000, 10),
        step(1_000, 10),
        step(100_000, 10),
    ])
}

fn in_force(led: &Led) -> (u32, u32, u32) {
    let state = &led.state;
    assert_eq!(state.is_mirroring(), state.mirror > Share::ZERO && state.owns_split());
    (
        state.step,
        state.mirror.thousandths_percent(),
        state.share.thousandths_percent(),
    )
}

fn told(effects: &[Effect]) -> Vec<(u32, Toward)> {
    let mirrors = effects.iter().filter_map(|effect| match effect {
        Effect::Mirror { share, toward, .. } => Some((share.thousandths_percent(), *toward)),
        _ => None,
    });
    mirrors.collect()
}

#[test]
fn a_mirror_begins_and_grows_on_the_disk_first_and_ends_with_its_step() {
    let mut led = Led::begun(mirrored());
    assert_eq!(in_force(&led), (1, 10_000, 0));
    assert_eq!(told(&led.effects), [(10_000, Toward::Canary)]);
    assert_eq!(toward(&led.effects), Toward::Canary);
    assert!(
        led.said
            .last()
            .unwrap()
            .contains("v2 gets a mirror of 10 % (step 1 of 4)"),
        "{:?}",
        led.said
    );
    led.after(10, Judgement::Pass);
    assert_eq!((in_force(&led), toward(&led.effects)), ((2, 50_000, 0), Toward::Canary));
    led.after(10, Judgement::Pass);
    assert_eq!(in_force(&led), (3, 0, 1_000));
    assert_eq!(told(&led.effects), [(0, Toward::Stable)]);
    assert_eq!(toward(&led.effects), Toward::Canary, "a share is given");
}

#[test]
fn a_pause_keeps_it_and_a_rollback_a_kill_and_weights_end_it_at_once() {
    let mut led = Led::at(mirrored(), 2);
    led.command(Verb::Pause);
    assert_eq!(in_force(&led), (2, 50_000, 0));
    led.command(Verb::Resume);
    assert_eq!(in_force(&led), (2, 50_000, 0));
    led.happen(Event::Restored);
    assert_eq!(in_force(&led), (2, 50_000, 0), "a restart goes on with it");
    for end in [
        command(Verb::Rollback),
        Event::Killed(by("bob")),
        Event::WeightsSet {
            share: Share::from_thousandths(7_000),
            by: by("bob"),
        },
        led.look(fail(Action::Rollback)),
        Event::Removed,
    ] {
        let mut led = Led::at(mirrored(), 2);
        led.happen(end.clone());
        assert_eq!(led.state.mirror, Share::ZERO, "{end:?}");
        assert_eq!(told(&led.effects), [(0, Toward::Stable)], "{end:?}");
        assert_eq!(toward(&led.effects), Toward::Stable, "{end:?}");
    }
}

#[test]
fn a_step_back_to_a_mirror_takes_users_away_and_waits_for_no_disk() {
    let mut led = Led::at(mirrored(), 3);
    led.judged(fail(Action::StepBack));
    assert_eq!(in_force(&led), (2, 50_000, 0));
    assert_eq!(told(&led.effects), [(50_000, Toward::Stable)]);
    assert_eq!(toward(&led.effects), Toward::Stable);
    led.judged(fail(Action::StepBack));
    assert_eq!(in_force(&led), (1, 10_000, 0));
    led.judged(fail(Action::StepBack));
    assert_eq!((in_force(&led), led.state.phase.word()), ((1, 0, 0), "rolled_back"));
}

#[test]
fn weights_of_a_person_go_on_from_a_step_that_gives_no_more() {
    let set = |share| Event::WeightsSet {
        share: Share::from_thousandths(share),
        by: by("bob"),
    };
    let mut led = Led::at(mirrored(), 2);
    led.happen(set(5_000));
    led.command(Verb::Resume);
    assert_eq!(in_force(&led), (2, 50_000, 0), "copies are less than users");
    let mut led = Led::at(mirrored(), 3);
    led.happen(set(0));
    led.command(Verb::Resume);
    assert_eq!(in_force(&led), (0, 0, 0), "nothing was in force");
    led.pass();
    assert_eq!(in_force(&led), (1, 10_000, 0));
}

#[test]
fn an_edit_gives_no_more_copies_than_before() {
    let edited = |steps| {
        let mut led = Led::at(mirrored(), 2);
        led.plan = plan(steps);
        led.happen(Event::Loaded);
        in_force(&led)
    };
    let whole = || step(100_000, 10);
    assert_eq!(edited(vec![mirror(50_000, 10), whole()]), (1, 50_000, 0), "the same");
    assert_eq!(
        edited(vec![mirror(20_000, 10), whole()]),
        (0, 0, 0),
        "a step is missing: it starts over"
    );
    assert_eq!(
        edited(vec![mirror(10_000, 1), mirror(20_000, 10), whole()]),
        (2, 20_000, 0),
        "less"
    );
    assert_eq!(
        edited(vec![mirror(10_000, 1), mirror(60_000, 10), whole()]),
        (1, 50_000, 0),
        "more"
    );
    assert_eq!(edited(vec![step(1_000, 10), whole()]), (0, 0, 0));
}
