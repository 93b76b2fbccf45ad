//! Machines that are broken in one place each: the search must find them out, or it proves nothing.

use super::search::{search, without_gates};
use super::world::{files, happenings};
use crate::rollout::*;

type Outcome = (State, Vec<Effect>);
type Mutant = fn(&Plan, State, Event, Now) -> Outcome;

const RISE: &str = "a share rises only when all is in order";
const SKIP: &str = "no step is left out";
const ZERO: &str = "after a rollback or a kill the share stays 0 until a person acts";
const STATE: &str = "what is in force is what the state says";
const STABLE: &str = "every phase can reach stable in one command";
const RESTART: &str = "a restart changes nothing";
const REVOKE: &str = "a rollback revokes cookies and goes first";
const DURABLE: &str = "a rise is durable first";
const REFUSAL: &str = "a refusal changes nothing";
const TIME: &str = "time counts as it passed";
const FILE: &str = "weights of the file are applied once, after the end";

/// `plan` with a change.
fn edited(plan: &Plan, edit: impl FnOnce(&mut Plan)) -> Plan {
    let mut plan = plan.clone();
    edit(&mut plan);
    plan
}

fn looking(event: Event, edit: impl FnOnce(&mut Look)) -> Event {
    match event {
        Event::Look(mut look) => {
            edit(&mut look);
            Event::Look(look)
        }
        event => event,
    }
}

fn without((state, mut effects): Outcome, unwanted: impl Fn(&Effect) -> bool) -> Outcome {
    effects.retain(|effect| !unwanted(effect));
    (state, effects)
}

const MUTANTS: [(&str, &str, Mutant); 26] = [
    ("no evidence is as good as a pass", RISE, |plan, state, event, now| {
        let event = looking(event, |look| {
            if let Judgement::NoEvidence(_) = look.judgement {
                look.judgement = Judgement::Pass;
            }
        });
        advance(plan, state, event, now)
    }),
    (
        "a failed check is as good as a pass",
        RISE,
        |plan, state, event, now| {
            let event = looking(event, |look| {
                if let Judgement::Fail { .. } = look.judgement {
                    look.judgement = Judgement::Pass;
                }
            });
            advance(plan, state, event, now)
        },
    ),
    ("a verdict of another window counts", RISE, |plan, state, event, now| {
        let event = looking(event, |look| look.window = state.window);
        advance(plan, state, event, now)
    }),
    ("an obstacle is none", RISE, |plan, state, event, now| {
        advance(plan, state, looking(event, |look| look.obstacle = None), now)
    }),
    ("the guard counts nothing", RISE, |plan, state, event, now| {
        advance(plan, state, looking(event, |look| look.failures = 0), now)
    }),
    ("a freeze is not looked at", RISE, |plan, state, event, now| {
        advance(&edited(plan, |plan| plan.freeze = Box::default()), state, event, now)
    }),
    ("nobody has to approve", RISE, |plan, state, event, now| {
        let plan = edited(plan, |plan| {
            plan.steps.iter_mut().for_each(|step| step.approval = false)
        });
        advance(&plan, state, event, now)
    }),
    ("gates are not asked", RISE, |plan, state, event, now| {
        advance(&edited(plan, |plan| plan.gates = Box::default()), state, event, now)
    }),
    ("a yes to an old question counts", RISE, |plan, state, event, now| {
        let event = match event {
            Event::Gate { gate, answer, .. } => Event::Gate {
                gate,
                answer,
                window: state.window,
            },
            event => event,
        };
        advance(plan, state, event, now)
    }),
    ("no hold is waited for", RISE, |plan, state, event, now| {
        let plan = edited(plan, |plan| {
            plan.steps
                .iter_mut()
                .for_each(|step| step.hold = std::time::Duration::ZERO)
        });
        advance(&plan, state, event, now)
    }),
    ("an hour that nobody saw counts", TIME, |plan, state, event, now| {
        let gone = now.uptime_ms - state.live.seen_ms.unwrap_or(now.uptime_ms);
        let counts = state.is_advancing();
        let (mut state, effects) = advance(plan, state, event, now);
        if counts && state.elapsed_ms > 0 {
            state.elapsed_ms += gone.saturating_sub(10_000);
        }
        (state, effects)
    }),
    ("a pause counts as a hold", TIME, |plan, mut state, event, now| {
        if let Phase::Paused(_) = state.phase {
            state.elapsed_ms += now.uptime_ms - state.live.seen_ms.unwrap_or(now.uptime_ms);
        }
        advance(plan, state, event, now)
    }),
    ("the ring is left out", SKIP, |plan, mut state, event, now| {
        if state.step == 0 && matches!(event, Event::Look(_)) {
            state.step = 1;
            state.elapsed_ms = 10_000;
        }
        advance(plan, state, event, now)
    }),
    ("a rollback leaves the ring open", STABLE, |plan, state, event, now| {
        without(
            advance(plan, state, event, now),
            |effect| matches!(effect, Effect::Admit { segments, .. } if segments.is_empty()),
        )
    }),
    ("a rollback goes on copying", STABLE, |plan, state, event, now| {
        let mirrored = state.mirror > Share::ZERO;
        without(
            advance(plan, state, event, now),
            |effect| matches!(effect, Effect::Mirror { share: Share::ZERO, .. } if mirrored),
        )
    }),
    ("a step back leaves the share", STATE, |plan, state, event, now| {
        let out = state.step > 1;
        let (state, effects) = advance(plan, state, event, now);
        let back = out && state.step == 1 && state.owns_split();
        without((state, effects), |effect| {
            back && matches!(effect, Effect::SetShare { .. })
        })
    }),
    ("nothing is taken away", STATE, |plan, state, event, now| {
        without(advance(plan, state, event, now), |effect| {
            matches!(effect, Effect::SetShare { share: Share::ZERO, .. })
        })
    }),
    ("a rollback leaves cookies valid", REVOKE, |plan, state, event, now| {
        without(advance(plan, state, event, now), |effect| *effect == Effect::Revoke)
    }),
    (
        "a paused rollout cannot be rolled back",
        STABLE,
        |plan, state, event, now| {
            let rollback = matches!(&event, Event::Command(command) if command.verb == Verb::Rollback);
            if rollback && matches!(state.phase, Phase::Paused(_)) {
                return (state, vec![Effect::Refused(String::new())]);
            }
            advance(plan, state, event, now)
        },
    ),
    ("it tries again by itself", ZERO, |plan, mut state, event, now| {
        if matches!(event, Event::Look(_)) && matches!(state.phase, Phase::RolledBack(_)) {
            state.phase = Phase::Progressing;
        }
        advance(plan, state, event, now)
    }),
    (
        "a kill switch does not end the rollout",
        ZERO,
        |plan, state, event, now| match event {
            Event::Killed(_) => (state, Vec::new()),
            event => advance(plan, state, event, now),
        },
    ),
    ("a restart begins the step anew", RESTART, |plan, state, event, now| {
        let restored = event == Event::Restored;
        let (mut state, effects) = advance(plan, state, event, now);
        if restored {
            state.elapsed_ms = 0;
        }
        (state, effects)
    }),
    (
        "a rise does not wait for the disk",
        DURABLE,
        |plan, state, event, now| {
            let (state, mut effects) = advance(plan, state, event, now);
            for effect in &mut effects {
                if let Effect::SetShare { toward, .. } | Effect::Admit { toward, .. } | Effect::Mirror { toward, .. } =
                    effect
                {
                    *toward = Toward::Stable;
                }
            }
            (state, effects)
        },
    ),
    ("a refused command approves", REFUSAL, |plan, state, event, now| {
        let (mut state, effects) = advance(plan, state, event, now);
        if refusal(&effects).is_some() {
            state.approved = true;
        }
        (state, effects)
    }),
    (
        "weights of the file are applied at once",
        FILE,
        |plan, state, event, now| {
            let weights = match &event {
                Event::FileWeights(weights) => Some(weights.clone()),
                _ => None,
            };
            let (state, mut effects) = advance(plan, state, event, now);
            effects.extend(weights.map(Effect::ApplyWeights).filter(|_| state.owns_split()));
            (state, effects)
        },
    ),
    ("an edit gives what it says at once", RISE, |plan, state, event, now| {
        let loaded = event == Event::Loaded;
        let (mut state, mut effects) = advance(plan, state, event, now);
        let step = plan
            .step(state.step)
            .filter(|step| loaded && step.share < state.share.max(Share::WHOLE));
        let next = step.and_then(|_| plan.step(state.step + 1));
        if let (Some(next), Some(candidate)) = (next, state.candidate.clone()) {
            state.share = next.share;
            let share = next.share;
            effects.push(Effect::SetShare {
                candidate,
                share,
                toward: Toward::Canary,
            });
        }
        (state, effects)
    }),
];

#[test]
fn every_broken_machine_is_found_out() {
    let with_gates = files();
    let happenings = happenings(with_gates.len());
    for (name, invariant, mutant) in MUTANTS {
        let found = search(&mutant, &without_gates(files()), &happenings, 5);
        let found = found
            .violation
            .or_else(|| search(&mutant, &with_gates, &happenings, 6).violation);
        let (violated, way) = found.unwrap_or_else(|| panic!("{name}: not found"));
        println!("{name}: {violated}: {way}");
        assert_eq!(violated, invariant, "{name}: {way}");
    }
}
