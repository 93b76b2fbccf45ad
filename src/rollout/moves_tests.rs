use super::super::fixture::*;
use super::super::*;
use std::time::Duration;

fn shares(thousandths: &[u32]) -> Vec<Step> {
    thousandths.iter().map(|&share| step(share, 10)).collect()
}

/// A rollout at `step` of a plan of these shares, under an edited plan.
fn edited(before: &[u32], step: u32, after: Vec<Step>) -> Led {
    let mut led = Led::at(plan(shares(before)), step);
    led.after(4, Judgement::Pass);
    led.plan = plan(after);
    led.happen(Event::Loaded);
    let raised = |effect: &&Effect| {
        matches!(
            effect,
            Effect::SetShare {
                toward: Toward::Canary,
                ..
            } | Effect::Admit {
                toward: Toward::Canary,
                ..
            }
        )
    };
    assert_eq!(
        led.effects.iter().find(raised),
        None,
        "an edit gives the candidate nothing"
    );
    led
}

#[test]
fn an_edit_of_a_hold_takes_effect_in_the_step() {
    let mut led = edited(
        &[1_000, 10_000, 100_000],
        2,
        vec![step(1_000, 10), step(10_000, 5), step(100_000, 10)],
    );
    assert_eq!((led.state.step, led.state.elapsed_ms, led.state.attempt), (2, 4_000, 1));
    led.after(1, Judgement::Pass);
    assert_eq!(led.state.step, 3);
}

#[test]
fn an_edit_of_the_steps_finds_the_place() {
    let places = [
        // before, at, after; the step and share it then has
        (
            &[1_000, 10_000, 100_000][..],
            2,
            &[1_000, 5_000, 10_000, 50_000, 100_000][..],
            3,
            10_000,
        ),
        (&[1_000, 10_000, 50_000, 100_000], 3, &[50_000, 100_000], 1, 50_000),
        // More in this step: it stays as it is, as a part of the step before, and then gets more by the step.
        (&[1_000, 10_000, 100_000], 2, &[1_000, 20_000, 100_000], 1, 10_000),
        // Less in this step: at once.
        (&[1_000, 10_000, 100_000], 2, &[1_000, 5_000, 100_000], 2, 5_000),
        (
            &[1_000, 10_000, 50_000, 100_000],
            3,
            &[1_000, 2_000, 3_000, 100_000],
            3,
            3_000,
        ),
        // Fewer steps than the one in force.
        (&[1_000, 10_000, 50_000, 100_000], 3, &[60_000, 100_000], 0, 0),
        (&[1_000, 10_000, 100_000], 3, &[20_000, 100_000], 2, 100_000),
        // The same share twice: the nearest.
        (
            &[1_000, 10_000, 10_000, 100_000],
            3,
            &[1_000, 2_000, 10_000, 10_000, 100_000],
            3,
            10_000,
        ),
        (&[10_000, 100_000], 1, &[], 0, 0),
    ];
    for (before, at, after, step, share) in places {
        let led = edited(before, at, shares(after));
        assert_eq!(
            (led.state.step, led.share()),
            (step, share),
            "{before:?} at {at}, then {after:?}"
        );
    }
}

#[test]
fn an_edit_of_a_ring_closes_what_it_does_not_name() {
    let mut led = Led::begun(plan(vec![ring(&["staff", "japan"], 10), step(100_000, 10)]));
    led.plan = plan(vec![ring(&["japan"], 10), step(100_000, 10)]);
    led.happen(Event::Loaded);
    assert_eq!((led.state.step, &*led.state.segments), (1, &["japan".into()][..]));
    led.plan = plan(vec![ring(&["beta"], 10), step(100_000, 10)]);
    led.happen(Event::Loaded);
    assert_eq!(
        (led.state.step, &*led.state.segments),
        (0, &[][..]),
        "nothing of it is admitted: it starts over"
    );
    led.pass();
    assert_eq!((led.state.step, &*led.state.segments), (1, &["beta".into()][..]));
}

#[test]
fn an_edit_that_takes_the_approval_away_lets_it_go_on() {
    let mut led = Led::at(small_plan(), 2);
    led.after(10, Judgement::Pass);
    led.happen(Event::Loaded);
    assert_eq!(led.state.phase, Phase::WaitingApproval, "nothing was edited");
    let steps: Vec<Step> = led
        .plan
        .steps
        .iter()
        .cloned()
        .map(|step| Step {
            approval: false,
            ..step
        })
        .collect();
    led.plan.steps = steps.into();
    led.happen(Event::Loaded);
    assert_eq!((led.state.step, &led.state.phase), (2, &Phase::Progressing));
    led.pass();
    assert_eq!(led.state.step, 3);
}

#[test]
fn a_verdict_and_an_answer_from_before_an_edit_do_not_count() {
    let mut led = Led::begun(plan(shares(&[1_000, 100_000])));
    led.after(9, Judgement::Pass);
    let look = led.look(Judgement::Pass);
    led.happen(Event::Loaded);
    led.now.uptime_ms += 1_000;
    led.happen(look);
    assert_eq!(led.state.step, 1);
    led.pass();
    assert_eq!(led.state.step, 2);
}

#[test]
fn an_edit_after_the_end_changes_nothing() {
    let mut led = Led::at(plan(shares(&[1_000, 100_000])), 2);
    led.after(10, Judgement::Pass);
    led.plan.steps = shares(&[5_000, 100_000]).into();
    assert!(led.happen(Event::Loaded).is_empty());
    assert_eq!(led.state.phase, Phase::Succeeded);
}

#[test]
fn a_candidate_of_another_name_starts_a_new_rollout() {
    let mut led = Led::at(small_plan(), 2);
    led.plan.candidate = "v3".into();
    led.plan.start = Start::Automatic;
    led.happen(Event::Loaded);
    let shares: Vec<(&str, Share)> = led
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::SetShare { candidate, share, .. } => Some((&**candidate, *share)),
            _ => None,
        })
        .collect();
    assert_eq!(shares, [("v2", Share::ZERO), ("v3", Share::ZERO)]);
    assert_eq!(toward(&led.effects), Toward::Stable);
    assert_eq!(
        (led.state.step, led.state.attempt, led.state.candidate.as_deref()),
        (0, 2, Some("v3"))
    );
    led.pass();
    assert_eq!(led.state.step, 1);
    assert!(
        led.said
            .iter()
            .any(|said| said
                .contains("v2 is rolled back at step 2 of 3 (10 % and segment staff): the file now names v3")),
        "{:?}",
        led.said
    );

    // Also after an end; by hand where the plan says so. The same name is no new candidate.
    for end in [Verb::Rollback, Verb::Promote] {
        let mut led = Led::at(small_plan(), 2);
        led.command(end);
        led.after(10, Judgement::Pass);
        led.plan.start = Start::Automatic;
        assert!(led.happen(Event::Loaded).is_empty());
        led.plan.candidate = "v3".into();
        led.plan.start = Start::Manual;
        led.happen(Event::Loaded);
        assert_eq!((led.state.phase.word(), led.state.step), ("idle", 0));
        led.command(Verb::Start);
        assert_eq!(led.state.phase.word(), "progressing");
    }
}

#[test]
fn a_plan_that_left_the_file_leaves_the_weights_alone() {
    let mut led = Led::at(small_plan(), 2);
    led.happen(Event::Removed);
    assert!(
        !led.effects
            .iter()
            .any(|effect| matches!(effect, Effect::SetShare { .. }))
    );
    assert!(led.effects.contains(&Effect::ReleaseSplit));
    assert!(
        led.effects.iter().any(
            |effect| matches!(effect, Effect::Admit { segments, toward: Toward::Stable, .. } if segments.is_empty())
        )
    );
    assert_eq!((led.state.phase.word(), &led.state.candidate), ("idle", &None));
}

#[test]
fn weights_set_by_a_person_pause_it_and_a_resume_gives_nothing() {
    let set = |thousandths| Event::WeightsSet {
        share: Share::from_thousandths(thousandths),
        by: by("bob"),
    };
    let steps = || plan(shares(&[1_000, 10_000, 50_000, 100_000]));
    for (at, thousandths, step, share) in [
        // (at step, set to): the step and share after a resume
        (3, 10_000, 2, 10_000),
        (3, 2_000, 1, 2_000),
        (3, 500, 0, 0),
        (3, 0, 0, 0),
        (3, 50_000, 3, 50_000),
        (2, 70_000, 2, 10_000),
        (2, 100_000, 2, 10_000),
    ] {
        let mut led = Led::at(steps(), at);
        led.happen(set(thousandths));
        assert_eq!(
            led.state.phase.reason().map(|reason| reason.cause),
            Some(Cause::Weights)
        );
        assert_eq!(
            (led.effects.first(), led.share()),
            (Some(&Effect::TakeSplit), thousandths)
        );
        led.after(10, Judgement::Pass);
        led.happen(Event::Loaded);
        assert_eq!(led.share(), thousandths, "what a person set stays");
        led.command(Verb::Resume);
        assert_eq!(
            (led.state.step, led.share(), led.state.elapsed_ms),
            (step, share, 0),
            "{thousandths} at {at}"
        );
        assert_eq!(toward(&led.effects), Toward::Stable);
    }
    let mut led = Led::at(steps(), 2);
    led.happen(set(2_000));
    led.judged(fail(Action::Rollback));
    assert_eq!(led.share(), 0, "a pause stops no rollback");
    assert!(led.happen(set(2_000)).is_empty(), "the split is theirs");
    assert_eq!(led.state.phase.word(), "rolled_back");
}

#[test]
fn weights_of_the_file_wait_for_the_end() {
    let weights = |v1, v2, v3| Weights::from([("v1".to_owned(), v1), ("v2".to_owned(), v2), ("v3".to_owned(), v3)]);
    let applied = |led: &Led| {
        led.effects.iter().find_map(|effect| match effect {
            Effect::ApplyWeights(weights) => Some(weights.clone()),
            _ => None,
        })
    };
    let recorded = |text: Weights| {
        let mut led = Led::at(small_plan(), 2);
        led.happen(Event::FileWeights(weights(1, 1, 1)));
        led.happen(Event::FileWeights(text));
        assert_eq!(applied(&led), None);
        assert_eq!(
            led.last_said(),
            "checkout: the file's weights are recorded, and applied when the rollout of v2 ends"
        );
        led
    };
    let mut led = recorded(weights(80, 10, 10));
    led.command(Verb::Rollback);
    assert_eq!(
        applied(&led),
        Some(weights(80, 0, 10)),
        "but for the candidate, which was rolled back"
    );
    assert_eq!(toward(&led.effects), Toward::Stable);
    led.command(Verb::Rollback);
    assert_eq!(applied(&led), None, "once");

    let mut led = recorded(weights(80, 10, 10));
    led.command(Verb::Promote);
    led.after(10, Judgement::Pass);
    assert_eq!(
        (led.state.phase.word(), applied(&led)),
        ("succeeded", Some(weights(80, 10, 10)))
    );

    let mut led = recorded(weights(0, 10, 0));
    led.command(Verb::Rollback);
    assert_eq!(applied(&led), None);
    assert_eq!(
        led.last_said(),
        "checkout: the file's weights are not applied, as they leave stable nothing"
    );

    led.happen(Event::FileWeights(weights(1, 2, 3)));
    assert_eq!(
        (applied(&led), toward(&led.effects)),
        (Some(weights(1, 2, 3)), Toward::Canary)
    );
}

#[test]
fn a_rollout_without_steps_ends_where_it_began() {
    let mut led = Led::new(plan(Vec::new()));
    led.command(Verb::Start);
    led.pass();
    assert_eq!((led.state.phase.word(), led.share()), ("succeeded", 0));
}

#[test]
fn holds_of_years_do_not_overflow() {
    let mut long = plan(shares(&[1_000, 100_000]));
    long.steps[0].hold = Duration::MAX;
    let mut led = Led::begun(long);
    led.state.elapsed_ms = u64::MAX - 1;
    led.after(10, Judgement::Pass);
    assert_eq!((led.state.step, led.state.elapsed_ms), (1, u64::MAX));
}
