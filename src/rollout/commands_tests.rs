use super::super::fixture::*;
use super::super::*;

/// A state of every phase, with its name.
fn phases() -> Vec<(String, Led)> {
    let mut killed = Led::at(small_plan(), 2);
    killed.happen(Event::Killed(by("bob")));
    let mut begins = Led::new(small_plan());
    begins.plan.gates = [gate(Before::Start)].into();
    begins.command(Verb::Start);
    begins.pass();
    let mut paused = Led::at(small_plan(), 2);
    paused.command(Verb::Pause);
    let mut by_weights = Led::at(small_plan(), 2);
    by_weights.happen(Event::WeightsSet {
        share: Share::from_thousandths(2_000),
        by: by("bob"),
    });
    let mut waiting = Led::at(small_plan(), 2);
    waiting.after(10, Judgement::Pass);
    let mut succeeded = Led::at(small_plan(), 3);
    succeeded.after(10, Judgement::Pass);
    let mut rolled_back = Led::at(small_plan(), 2);
    rolled_back.judged(fail(Action::Rollback));
    [
        Led::new(small_plan()),
        begins,
        Led::at(small_plan(), 2),
        paused,
        by_weights,
        waiting,
        Led::at(small_plan(), 3),
        succeeded,
        rolled_back,
        killed,
    ]
    .into_iter()
    .map(|led| {
        let killed = if led.state.killed { ", killed" } else { "" };
        (format!("{}{killed}", standing(&led.plan, &led.state)), led)
    })
    .collect()
}

/// What each command does in each phase, for the eye of a reader.
#[test]
fn each_command_in_each_phase() {
    let mut table = String::new();
    for verb in Verb::ALL {
        table += &format!("# {}\n", verb.word());
        for (name, mut led) in phases() {
            let before = led.state.clone();
            led.command(verb);
            let said = led.last_said().to_owned();
            if led.refusal().is_some() {
                assert_eq!(led.state, before, "{} in {name}", verb.word());
                table += &format!("{name}\n  refused: {said}\n");
            } else {
                table += &format!(
                    "{name}\n  -> {}, step {}, {}: {said}\n",
                    led.state.phase.word(),
                    led.state.step,
                    led.state.share
                );
            }
        }
        table += "\n";
    }
    insta::assert_snapshot!(table);
}

#[test]
fn a_rollback_works_in_every_phase_and_without_a_plan_ever_loaded() {
    for (name, mut led) in phases() {
        led.command(Verb::Rollback);
        assert_eq!((led.share(), led.state.phase.word()), (0, "rolled_back"), "{name}");
        assert!(
            led.effects
                .iter()
                .any(|effect| matches!(effect, Effect::SetShare { share, .. } if *share == Share::ZERO))
        );
        assert_eq!(toward(&led.effects), Toward::Stable);
    }
    let mut led = Led::new(small_plan());
    led.state = State::default();
    led.command(Verb::Rollback);
    assert_eq!(
        (led.state.candidate.as_deref(), led.state.phase.word()),
        (Some("v2"), "rolled_back")
    );
    led.happen(Event::Loaded);
    assert_eq!(
        led.state.phase.word(),
        "rolled_back",
        "a plan that is read does not undo it"
    );
}

#[test]
fn who_and_why_are_told() {
    let mut led = Led::begun(small_plan());
    led.happen(Event::Command(Command {
        verb: Verb::Pause,
        by: By {
            who: "ada (uid 1000)".to_owned(),
            why: Some("the phones ring".to_owned()),
        },
    }));
    assert_eq!(
        led.last_said(),
        "checkout: v2 is paused at step 1 of 3 (segment staff): by ada (uid 1000): the phones ring"
    );
}

#[test]
fn a_promote_goes_to_everything_at_once() {
    let mut led = Led::begun(small_plan());
    led.command(Verb::Promote);
    assert_eq!(
        (led.state.step, led.share(), led.state.phase.word()),
        (3, 100_000, "baking")
    );
    assert_eq!(toward(&led.effects), Toward::Canary);
    led.judged(fail(Action::Rollback));
    assert_eq!(led.state.phase.word(), "rolled_back", "it is still judged");

    // Paused by a failed check: what that saw would stop it again.
    let mut led = Led::begun(small_plan());
    led.judged(fail(Action::Pause));
    led.command(Verb::Promote);
    assert!(led.effects.iter().any(|effect| matches!(
        effect,
        Effect::ResetEvidence {
            scope: Scope::Checks,
            ..
        }
    )));
}

#[test]
fn a_promote_waits_for_the_gates_before_it() {
    let mut plan = small_plan();
    plan.gates = [gate(Before::Step), gate(Before::Promote)].into();
    let mut led = Led::new(plan);
    led.command(Verb::Start);
    led.pass();
    led.command(Verb::Promote);
    assert_eq!((led.refusal(), led.state.step, led.share()), (None, 1, 0));
    assert!(
        led.after(1, no_evidence())
            .iter()
            .any(|effect| matches!(effect, Effect::AskGate { gate: 1, .. }))
    );
    let yes = Event::Gate {
        gate: 1,
        window: led.state.window,
        answer: Answer::Yes,
    };
    led.happen(yes);
    led.after(1, no_evidence());
    assert_eq!(
        (led.state.step, led.state.phase.word()),
        (3, "baking"),
        "a person's promote needs no verdict"
    );

    // A check that fails while the gates think stops it.
    let mut led = Led::begun(small_plan());
    led.plan.gates = [gate(Before::Promote)].into();
    led.command(Verb::Promote);
    led.judged(fail(Action::Pause));
    led.command(Verb::Resume);
    assert!(!led.state.promoting);
}
