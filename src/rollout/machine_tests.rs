use super::super::fixture::*;
use super::super::*;
use std::time::Duration;

/// Names of the effects that are not words.
fn kinds(effects: &[Effect]) -> Vec<String> {
    let kind = |effect: &Effect| match effect {
        Effect::TakeSplit => "take".to_owned(),
        Effect::SetShare { share, .. } => format!("share {share}"),
        Effect::Admit { segments, .. } => format!("admit {}", segments.join("+")),
        Effect::Mirror { share, .. } => format!("mirror {share}"),
        Effect::Revoke => "revoke".to_owned(),
        Effect::ReleaseSplit => "release".to_owned(),
        Effect::ApplyWeights(weights) => format!("weights {weights:?}"),
        Effect::ResetEvidence { scope, .. } => format!("reset {scope:?}"),
        Effect::AskGate { gate, .. } => format!("ask {gate}"),
        Effect::Notify { notice, .. } => format!("notify {}", notice.word()),
        Effect::Report(_) => "report".to_owned(),
        Effect::Refused(_) => "refused".to_owned(),
    };
    effects.iter().map(kind).collect()
}

#[test]
fn a_good_candidate_is_delivered_step_by_step() {
    let mut led = Led::new(small_plan());
    assert_eq!(led.state.phase, Phase::Idle);
    assert_eq!(
        kinds(led.command(Verb::Start)),
        [
            "take",
            "share 0 %",
            "admit ",
            "mirror 0 %",
            "revoke",
            "reset Rollout",
            "notify start"
        ]
    );
    assert_eq!(led.state.phase, Phase::Progressing);
    assert_eq!(kinds(led.pass()), ["admit staff", "reset Step", "notify step"]);
    assert!(led.after(9, Judgement::Pass).is_empty(), "the hold is not over");
    assert_eq!(
        kinds(led.after(1, Judgement::Pass)),
        ["share 10 %", "reset Step", "notify step"]
    );
    assert_eq!(toward(&led.effects), Toward::Canary);
    led.after(10, Judgement::Pass);
    assert_eq!(led.state.phase, Phase::WaitingApproval);
    led.after(10, Judgement::Pass);
    led.command(Verb::Approve);
    assert_eq!((led.share(), &led.state.phase), (10_000, &Phase::Progressing));
    led.after(1, no_evidence());
    assert_eq!(led.share(), 10_000, "approved, but no verdict at this moment");
    assert_eq!(
        kinds(led.after(1, Judgement::Pass)),
        ["share 100 %", "reset Step", "notify promote"]
    );
    assert_eq!(led.state.phase, Phase::Baking);
    assert_eq!(
        kinds(led.after(10, Judgement::Pass)),
        ["admit ", "notify success", "release"]
    );
    assert_eq!((led.share(), &led.state.phase), (100_000, &Phase::Succeeded));
    insta::assert_snapshot!(led.said.join("\n"));
}

#[test]
fn no_verdict_holds_and_a_verdict_of_another_window_is_not_looked_at() {
    let mut led = Led::begun(small_plan());
    for _ in 0..1000 {
        led.after(10, no_evidence());
    }
    assert_eq!((led.state.step, led.state.wait), (1, Wait::Evidence));
    let mut stale = led.look(Judgement::Pass);
    if let Event::Look(look) = &mut stale {
        look.window -= 1;
    }
    led.happen(stale.clone());
    assert_eq!(led.state.step, 1);
    led.pass();
    assert_eq!(led.state.step, 2);
    // Nor is a failure of a window that is over: the next look says it again, if it still is so.
    if let Event::Look(look) = &mut stale {
        look.judgement = fail(Action::Rollback);
    }
    led.happen(stale);
    assert_eq!(led.state.step, 2);
}

#[test]
fn the_wait_for_evidence_ends_as_the_plan_says() {
    let with = |on_no_evidence, max_hold: Option<u64>| {
        let mut plan = small_plan();
        plan.analysis.on_no_evidence = on_no_evidence;
        plan.analysis.max_hold = max_hold.map(Duration::from_secs);
        let mut led = Led::begun(plan);
        let mut waited = 0;
        while waited < 60 && led.state.step == 1 && led.state.is_advancing() {
            waited += 5;
            led.after(5, no_evidence());
        }
        (waited, led.state.step, led.state.phase)
    };
    assert_eq!(with(OnNoEvidence::Hold, Some(20)), (60, 1, Phase::Progressing));
    assert_eq!(with(OnNoEvidence::Proceed, Some(20)), (20, 2, Phase::Progressing));
    assert_eq!(with(OnNoEvidence::Proceed, None), (10, 2, Phase::Progressing));
    assert_eq!(with(OnNoEvidence::Proceed, Some(1)).0, 10, "not before the hold");
    let (waited, _, phase) = with(OnNoEvidence::Rollback, Some(30));
    assert_eq!(
        (waited, phase.word(), phase.reason().unwrap().cause),
        (30, "rolled_back", Cause::NoEvidence)
    );
}

#[test]
fn a_failed_check_acts_as_it_says_also_in_a_pause() {
    for paused in [false, true] {
        let at_half = || {
            let plan = plan(vec![step(1_000, 10), step(50_000, 10), step(100_000, 10)]);
            let mut led = Led::at(plan, 2);
            if paused {
                led.command(Verb::Pause);
            }
            led
        };
        let mut led = at_half();
        let effects = kinds(led.judged(fail(Action::Rollback)));
        assert_eq!(
            effects,
            [
                "share 0 %",
                "admit ",
                "mirror 0 %",
                "revoke",
                "notify rollback",
                "release"
            ]
        );
        assert_eq!(toward(&led.effects), Toward::Stable);
        assert_eq!(led.state.phase.reason().unwrap().cause, Cause::Check);

        let mut led = at_half();
        led.judged(fail(Action::StepBack));
        assert_eq!(
            (led.state.step, led.share(), matches!(led.state.phase, Phase::Paused(_))),
            (1, 1_000, paused)
        );
        assert!(led.effects.contains(&Effect::Revoke));

        let mut led = at_half();
        led.judged(fail(Action::Pause));
        assert_eq!(
            (led.state.step, led.share(), led.state.phase.word()),
            (2, 50_000, "paused")
        );
        for _ in 0..10 {
            led.after(10, Judgement::Pass);
        }
        assert_eq!(led.state.step, 2, "it stays paused");
    }
}

#[test]
fn going_back_ends_in_a_rollback_or_with_a_person() {
    let mut led = Led::begun(small_plan());
    led.judged(fail(Action::StepBack));
    assert_eq!(
        led.state.phase.word(),
        "rolled_back",
        "there is nothing before the first step"
    );

    let mut led = Led::at(small_plan(), 2);
    for _ in 0..2 {
        assert_eq!(
            kinds(led.judged(fail(Action::StepBack))),
            ["share 0 %", "revoke", "reset Checks", "notify step"]
        );
        assert_eq!(
            (led.state.step, &led.state.phase, led.state.segments.len()),
            (1, &Phase::Progressing, 1)
        );
        led.after(9, Judgement::Pass);
        assert_eq!(led.state.step, 1, "its hold begins anew");
        led.after(1, Judgement::Pass);
        assert_eq!(led.state.step, 2);
    }
    led.judged(fail(Action::StepBack));
    assert_eq!(
        (led.state.step, led.state.phase.word()),
        (1, "paused"),
        "the third time"
    );
    led.command(Verb::Resume);
    assert_eq!((led.state.phase.word(), led.state.step_backs), ("progressing", 0));

    // Nobody gets more by going back: a ring that was closed is opened as at the start.
    let mut led = Led::at(plan(vec![ring(&["staff"], 10), step(10_000, 10), step(100_000, 10)]), 2);
    assert_eq!(led.state.segments, []);
    led.judged(fail(Action::StepBack));
    assert_eq!((led.state.step, led.share(), led.state.segments.len()), (0, 0, 0));
    led.pass();
    assert_eq!((led.state.step, led.state.segments.len()), (1, 1));
}

#[test]
fn the_guard_needs_no_statistics() {
    let mut led = Led::at(small_plan(), 2);
    let mut look = led.look(no_evidence());
    for (failures, phase) in [(49, "progressing"), (50, "rolled_back")] {
        if let Event::Look(look) = &mut look {
            look.failures = failures;
        }
        led.happen(look.clone());
        assert_eq!(led.state.phase.word(), phase);
    }
    assert_eq!(led.state.phase.reason().unwrap().cause, Cause::Guard);
    assert_eq!(
        led.last_said(),
        "checkout: v2 is rolled back at step 2 of 3 (10 % and segment staff): 50 failed requests, 50 are allowed (guard)"
    );
}

#[test]
fn time_that_nobody_saw_pass_does_not_count() {
    let mut led = Led::begun(plan(vec![step(1_000, 60), step(100_000, 10)]));
    // A process that stood still for a day, and a wall clock that jumps.
    led.after(86_400, Judgement::Pass);
    led.now.unix_s += 1_000_000;
    led.pass();
    led.now.unix_s -= 2_000_000;
    led.pass();
    assert_eq!((led.state.step, led.state.elapsed_ms), (1, 10_000));
    // An uptime that runs backwards is that of another process: nothing is taken away.
    led.now.uptime_ms = 0;
    led.pass();
    assert_eq!(led.state.elapsed_ms, 10_000);
    for _ in 0..5 {
        led.after(10, Judgement::Pass);
    }
    assert_eq!(led.state.step, 2);
}

#[test]
fn a_pause_stops_the_hold_and_a_resume_goes_on_with_it() {
    let mut led = Led::begun(small_plan());
    led.after(6, Judgement::Pass);
    led.command(Verb::Pause);
    for _ in 0..10 {
        led.after(10, Judgement::Pass);
    }
    assert_eq!((led.state.step, led.state.elapsed_ms), (1, 6_000));
    led.command(Verb::Resume);
    led.after(3, Judgement::Pass);
    assert_eq!(led.state.step, 1);
    led.after(1, Judgement::Pass);
    assert_eq!(led.state.step, 2);
    // After a failed check a person knows better: what it saw begins anew, and so does the hold.
    led.after(10, fail(Action::Pause));
    assert_eq!(kinds(led.command(Verb::Resume)), ["reset Checks", "notify resume"]);
    assert_eq!(led.state.elapsed_ms, 0);
}

#[test]
fn an_obstacle_holds_back_and_never_rolls_back() {
    let mut led = Led::begun(small_plan());
    let mut look = led.look(Judgement::Pass);
    led.now.uptime_ms += 10_000;
    if let Event::Look(look) = &mut look {
        look.obstacle = Some("v2 has no healthy endpoint".to_owned());
    }
    led.happen(look);
    assert_eq!((led.state.step, led.state.wait), (1, Wait::Obstacle));
    assert_eq!(
        led.last_said(),
        "checkout: v2, at step 1 of 3 (segment staff), waits: v2 has no healthy endpoint"
    );
    led.command(Verb::Promote);
    assert_eq!(
        led.refusal(),
        Some("checkout: v2 cannot be promoted: it waits: v2 has no healthy endpoint")
    );
    led.pass();
    assert_eq!(led.state.step, 2);
}

#[test]
fn a_freeze_stops_advancing_and_never_rolling_back() {
    let mut plan = small_plan();
    plan.freeze = [Freeze::parse("Tue 12:00-Tue 13:00 UTC").unwrap()].into();
    let mut led = Led::new(plan.clone());
    led.command(Verb::Start);
    for _ in 0..100 {
        led.after(10, Judgement::Pass);
    }
    assert_eq!((led.state.step, led.state.wait), (0, Wait::Freeze));
    assert_eq!(
        led.last_said(),
        "checkout: v2, before the first step, is frozen until 2026-03-03 13:00 (Tue 12:00-Tue 13:00 UTC)"
    );
    led.command(Verb::Promote);
    assert!(led.refusal().unwrap().contains("is frozen until"), "{:?}", led.effects);
    led.now.unix_s += 3_600;
    led.pass();
    assert_eq!(led.state.step, 1, "it goes on when the window is over");

    let mut led = Led::begun(small_plan());
    led.plan = plan;
    led.after(10, Judgement::Pass);
    assert_eq!((led.state.step, led.state.wait), (1, Wait::Freeze));
    led.after(1, fail(Action::Rollback));
    assert_eq!(led.state.phase.word(), "rolled_back");
}

#[test]
fn a_kill_switch_takes_all_back_and_its_end_gives_nothing() {
    let mut led = Led::at(small_plan(), 2);
    let effects = kinds(led.happen(Event::Killed(by("bob"))));
    assert_eq!(
        effects,
        [
            "notify kill",
            "share 0 %",
            "admit ",
            "mirror 0 %",
            "revoke",
            "notify rollback",
            "release"
        ]
    );
    assert_eq!(led.state.phase.reason().unwrap().cause, Cause::Killed);
    led.command(Verb::Retry);
    assert_eq!(
        led.refusal(),
        Some("checkout: a kill switch holds it: release that first (`rollgate unkill`)")
    );
    led.happen(Event::Unkilled(by("bob")));
    for _ in 0..10 {
        assert!(led.after(10, Judgement::Pass).is_empty());
    }
    assert_eq!(led.share(), 0);
    led.command(Verb::Retry);
    led.pass();
    assert_eq!((led.state.step, led.state.attempt), (1, 2));
}

#[test]
fn a_kill_switch_ends_what_waits_for_its_first_step() {
    let mut plan = small_plan();
    plan.gates = [gate(Before::Start)].into();
    for retried in [false, true] {
        let mut led = if retried {
            let mut led = Led::at(small_plan(), 2);
            led.command(Verb::Rollback);
            led.plan = plan.clone();
            led.command(Verb::Retry);
            led
        } else {
            let mut led = Led::new(plan.clone());
            led.command(Verb::Start);
            led.pass();
            assert_eq!((led.state.step, led.state.wait), (0, Wait::Gate));
            led
        };
        led.happen(Event::Killed(by("bob")));
        assert_eq!(led.state.phase.reason().unwrap().cause, Cause::Killed, "{retried}");
        led.happen(Event::Unkilled(by("bob")));
        let (window, answer) = (led.state.window, Answer::Yes);
        led.happen(Event::Gate {
            gate: 0,
            window,
            answer,
        });
        for _ in 0..10 {
            assert!(led.after(10, Judgement::Pass).is_empty(), "{retried}");
        }
        assert_eq!(led.share(), 0);
    }
}

#[test]
fn a_candidate_that_appears_while_killed_waits_for_the_end_of_the_switch() {
    let mut automatic = small_plan();
    automatic.start = Start::Automatic;
    let mut led = Led::new(small_plan());
    led.happen(Event::Killed(by("bob")));
    assert_eq!(led.state.phase, Phase::Idle);
    led.plan = Plan {
        candidate: "v3".into(),
        ..automatic
    };
    led.happen(Event::Loaded);
    led.after(10, Judgement::Pass);
    assert_eq!((led.state.step, led.state.wait), (0, Wait::Unkill));
    led.happen(Event::Killed(by("bob")));
    assert_eq!(led.state.phase, Phase::Progressing, "there is nothing to take back");
    led.happen(Event::Unkilled(by("bob")));
    led.pass();
    assert_eq!(led.state.step, 1);
}

#[test]
fn gates_are_asked_when_all_else_is_in_order() {
    let mut plan = small_plan();
    plan.gates = [
        gate(Before::Start),
        gate(Before::Step),
        gate(Before::Promote),
        gate(Before::Promote),
    ]
    .into();
    let mut led = Led::new(plan);
    led.command(Verb::Start);
    let answer = |led: &Led, gate, answer| Event::Gate {
        gate,
        window: led.state.window,
        answer,
    };

    assert_eq!(kinds(led.pass()), ["ask 0", "report"]);
    assert!(led.after(9, Judgement::Pass).is_empty(), "it was just asked");
    let no = answer(&led, 0, Answer::No("the smoke test fails".to_owned()));
    assert_eq!(kinds(led.happen(no.clone())), ["report"]);
    assert_eq!(
        led.last_said(),
        "checkout: gate http://gate.example/… says no: the smoke test fails"
    );
    assert!(led.happen(no).is_empty(), "said once");
    assert_eq!(kinds(led.after(1, Judgement::Pass)), ["ask 0"]);
    let error = answer(&led, 0, Answer::Error("connection refused".to_owned()));
    led.happen(error);
    led.after(1, Judgement::Pass);
    assert_eq!(
        (led.state.step, &led.state.phase),
        (0, &Phase::Progressing),
        "no answer is neither yes nor a failure"
    );
    let yes = answer(&led, 0, Answer::Yes);
    led.happen(yes.clone());
    assert_eq!(
        led.state.step, 0,
        "the next look goes through, with a verdict of its own"
    );
    led.pass();
    assert_eq!(led.state.step, 1);

    // Only the gate before a step is asked for the second, and an answer to another question is none.
    assert!(led.happen(yes).is_empty());
    assert_eq!(kinds(led.after(10, Judgement::Pass)), ["ask 1", "report"]);
    let yes = answer(&led, 1, Answer::Yes);
    led.happen(yes);
    led.pass();
    assert_eq!(led.state.step, 2);

    // All of them stand before the last step but the one at the start.
    led.after(10, Judgement::Pass);
    led.command(Verb::Approve);
    assert_eq!(kinds(led.pass()), ["ask 1", "ask 2", "ask 3", "report"]);
    for gate in [2, 3] {
        let yes = answer(&led, gate, Answer::Yes);
        led.happen(yes);
    }
    assert_eq!(
        kinds(led.after(10, Judgement::Pass)),
        ["ask 1"],
        "those that said yes are not asked again"
    );
    let yes = answer(&led, 1, Answer::Yes);
    led.happen(yes);
    led.pass();
    assert_eq!(led.state.phase, Phase::Baking);
    led.after(10, Judgement::Pass);
    assert_eq!(led.state.phase, Phase::Succeeded);
}

#[test]
fn a_state_is_read_by_older_and_newer_builds() {
    let mut led = Led::at(small_plan(), 2);
    led.command(Verb::Pause);
    let text = serde_json::to_value(&led.state).unwrap();
    insta::assert_snapshot!(serde_json::to_string_pretty(&text).unwrap());
    let mut newer = text.clone();
    newer["something_new"] = 7.into();
    newer["phase"]["cause"] = "something_new".into();
    let read: State = serde_json::from_value(newer).unwrap();
    assert_eq!(read.phase.reason().unwrap().cause, Cause::Other);
    assert_eq!(serde_json::from_str::<State>("{}").unwrap(), State::default());
    assert!(serde_json::from_str::<State>(r#"{"phase": {"name": "something_new"}}"#).is_err());
}

#[test]
fn the_durable_state_is_in_force_again_after_a_restart() {
    let mut led = Led::at(small_plan(), 2);
    led.after(4, Judgement::Pass);
    let before = led.state.clone();
    led.state = serde_json::from_str(&serde_json::to_string(&led.state).unwrap()).unwrap();
    // Another process: its uptime begins anew.
    led.now.uptime_ms = 77;
    assert_eq!(
        kinds(led.happen(Event::Restored)),
        ["share 10 %", "admit staff", "mirror 0 %"]
    );
    assert_eq!(
        State {
            live: before.live,
            ..led.state.clone()
        },
        before
    );
    led.after(5, Judgement::Pass);
    assert_eq!(led.state.elapsed_ms, 9_000, "it goes on with its hold");

    led.happen(Event::WeightsSet {
        share: Share::from_thousandths(3_000),
        by: by("ada"),
    });
    assert_eq!(
        kinds(led.happen(Event::Restored)),
        ["admit staff", "mirror 0 %"],
        "weights that a person set are durable by themselves"
    );
    led.command(Verb::Rollback);
    assert!(led.happen(Event::Restored).is_empty());
}
