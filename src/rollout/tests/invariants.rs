//! What must hold, whatever happens: of each thing that happens (from a world, by a happening, to an outcome), and of each
//! world.

use super::world::{Advance, HOLD_MS, Happening, Outcome, VERSIONS, What, World, reread};
use crate::rollout::fixture::{by, command};
use crate::rollout::*;

pub struct Seen<'s> {
    pub advance: &'s Advance<'s>,
    pub files: &'s [Plan],
    pub before: &'s World,
    pub happening: &'s Happening,
    pub after: &'s Outcome,
}

type Invariant = fn(&Seen<'_>) -> Result<(), String>;

/// Of each thing that happens.
pub const OF_HAPPENINGS: [(&str, Invariant); 7] = [
    ("no step is left out", no_step_is_left_out),
    ("a share rises only when all is in order", a_rise_needs_all_in_order),
    ("a rollback revokes cookies and goes first", a_rollback_revokes),
    ("a rise is durable first", a_rise_is_durable_first),
    ("a refusal changes nothing", a_refusal_changes_nothing),
    ("time counts as it passed", time_counts_as_it_passed),
    (
        "weights of the file are applied once, after the end",
        weights_of_the_file_wait,
    ),
];

/// Of each world: `after` is the world, however it was reached.
pub const OF_WORLDS: [(&str, Invariant); 4] = [
    (
        "after a rollback or a kill the share stays 0 until a person acts",
        zero_until_a_person_acts,
    ),
    ("what is in force is what the state says", in_force_is_the_state),
    ("every phase can reach stable in one command", stable_in_one_command),
    ("a restart changes nothing", a_restart_changes_nothing),
];

fn hold(condition: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(otherwise()) }
}

impl Seen<'_> {
    fn plan(&self) -> &Plan {
        &self.files[self.after.world.file]
    }

    fn event(&self) -> Option<&Event> {
        match &self.happening.what {
            What::Event(event) => Some(event),
            _ => None,
        }
    }

    fn verb(&self) -> Option<Verb> {
        match self.event() {
            Some(Event::Command(command)) if refusal(&self.after.effects).is_none() => Some(command.verb),
            _ => None,
        }
    }

    /// The versions that have more, or to which more are admitted.
    fn risen(&self) -> Vec<usize> {
        let after = &self.after.world;
        let more = |version: &usize| {
            let admitted = self.before.admitted(*version);
            after.effective(*version) > self.before.effective(*version)
                || after
                    .admitted(*version)
                    .iter()
                    .any(|segment| !admitted.contains(segment))
                || (after.mirrored(*version) > self.before.mirrored(*version) && !self.before.has_users(*version))
        };
        (0..VERSIONS.len()).filter(more).collect()
    }
}

fn zero_until_a_person_acts(seen: &Seen<'_>) -> Result<(), String> {
    let world = &seen.after.world;
    for (version, name) in VERSIONS.iter().enumerate() {
        if world.diary.rolled_back[version] || world.diary.killed {
            let nothing = !world.has_users(version) && world.mirrored(version) == Share::ZERO;
            hold(nothing, || {
                format!(
                    "{name} has {} and {:?}",
                    world.effective(version),
                    world.admitted(version)
                )
            })?;
        }
    }
    Ok(())
}

fn no_step_is_left_out(seen: &Seen<'_>) -> Result<(), String> {
    let (before, after) = (&seen.before.state, &seen.after.world.state);
    if after.step <= before.step {
        return Ok(());
    }
    let promoted = seen.verb() == Some(Verb::Promote) || seen.before.diary.promoted;
    let next = match &seen.happening.what {
        What::Look { .. } if promoted => seen.plan().whole() == Some(after.step),
        What::Look { .. } => after.step == before.step + 1,
        // The place in an edited plan: the step gives what was in force.
        What::Save(_) => {
            let step = seen.plan().step(after.step);
            step.is_some_and(|step| {
                (step.share, step.mirror) == (before.share, before.mirror) && *step.segments == *before.segments
            })
        }
        _ => promoted && seen.plan().whole() == Some(after.step),
    };
    hold(next, || format!("from step {} to {}", before.step, after.step))
}

fn a_rise_needs_all_in_order(seen: &Seen<'_>) -> Result<(), String> {
    let risen = seen.risen();
    if risen.is_empty() {
        return Ok(());
    }
    let by_person = matches!(
        seen.event(),
        Some(Event::WeightsSet { .. } | Event::FileWeights(_) | Event::Removed | Event::Unkilled(_))
    );
    if by_person {
        return Ok(());
    }
    let (world, diary) = (seen.before, &seen.before.diary);
    let candidate = world.candidate(seen.files);
    // What the file says of versions that are nobody's candidate.
    let of_file = seen
        .after
        .effects
        .iter()
        .any(|effect| matches!(effect, Effect::ApplyWeights(_)));
    if of_file && !risen.contains(&candidate) {
        return Ok(());
    }
    hold(risen == [candidate], || "another than the candidate".to_owned())?;
    hold(!diary.killed, || "killed".to_owned())?;
    hold(frozen(&seen.plan().freeze, world.now(0).unix_s).is_none(), || {
        "frozen".to_owned()
    })?;
    let promoted = diary.promoted || seen.verb() == Some(Verb::Promote);
    let closed = closed_gates(seen.plan(), world, promoted, diary.yes);
    hold(closed == 0, || format!("gates {closed:b} did not say yes"))?;
    let What::Look {
        judgement,
        obstacle,
        failures,
        stale,
    } = &seen.happening.what
    else {
        hold(seen.verb() == Some(Verb::Promote), || "nobody looked".to_owned())?;
        return hold(!diary.obstacle, || "an obstacle".to_owned());
    };
    hold(!stale && !obstacle && *failures < 50, || {
        "a look that does not allow it".to_owned()
    })?;
    let step = seen.plan().step(world.state.step);
    let (Some(step), false) = (step, promoted) else {
        return hold(!matches!(judgement, Judgement::Fail { .. }), || {
            "a failed check".to_owned()
        });
    };
    let held_ms = diary.held_ms + seen.happening.after_ms.min(HOLD_MS);
    hold(held_ms >= step.hold.as_millis() as u64, || {
        format!("held for {held_ms} ms")
    })?;
    hold(!step.approval || diary.approved, || "not approved".to_owned())?;
    let analysis = &seen.plan().analysis;
    let waited = analysis
        .max_hold
        .is_some_and(|max_hold| held_ms >= max_hold.as_millis() as u64);
    let proceeds = analysis.on_no_evidence == OnNoEvidence::Proceed && waited;
    match judgement {
        Judgement::Pass => Ok(()),
        Judgement::NoEvidence(_) => hold(proceeds, || "without evidence".to_owned()),
        Judgement::Fail { .. } => Err("a failed check".to_owned()),
    }
}

/// The gates before the next step that are not in `yes`: as the documentation says it, not as the machine does.
fn closed_gates(plan: &Plan, world: &World, promoted: bool, yes: u32) -> u32 {
    let next = if promoted {
        plan.whole().unwrap_or(0)
    } else {
        world.state.step + 1
    };
    let to_all = plan.step(next).is_some_and(|step| step.share == Share::WHOLE) && world.state.share < Share::WHOLE;
    let stands = |gate: &Gate| match gate.before {
        Before::Start => !promoted && world.state.step == 0,
        Before::Step => !promoted && world.state.step > 0,
        Before::Promote => to_all,
    };
    let gates = plan.gates.iter().enumerate().filter(|(_, gate)| stands(gate));
    gates.fold(0, |bits, (index, _)| bits | 1 << index) & !yes
}

fn in_force_is_the_state(seen: &Seen<'_>) -> Result<(), String> {
    let (world, state) = (&seen.after.world, &seen.after.world.state);
    let version = world.candidate(seen.files);
    if !state.owns_split() {
        hold(world.ring.1.is_empty(), || {
            format!("{:?} is admitted to what nobody looks after", world.ring.1)
        })?;
        hold(world.mirror.1 == Share::ZERO, || {
            "a mirror that nobody looks after".to_owned()
        })?;
        return hold(state.recorded.is_none(), || {
            "weights of the file are forgotten".to_owned()
        });
    }
    hold(world.shares[version] == state.share, || {
        format!("{} for {}", world.shares[version], state.share)
    })?;
    hold(
        world.ring.1 == state.segments && (world.ring.0 == version || state.segments.is_empty()),
        || format!("{:?} for {:?}", world.ring, state.segments),
    )?;
    hold(
        world.mirror.1 == state.mirror && (world.mirror.0 == version || state.mirror == Share::ZERO),
        || format!("a mirror of {:?} for {}", world.mirror, state.mirror),
    )?;
    hold(state.mirror == Share::ZERO || !state.has_users(), || {
        "a mirror beside users".to_owned()
    })?;
    if matches!(&state.phase, Phase::Paused(reason) if reason.cause == Cause::Weights) {
        return Ok(());
    }
    let Some(step) = seen.plan().step(state.step) else {
        return hold(!state.has_users() && state.mirror == Share::ZERO, || {
            "something before the first step".to_owned()
        });
    };
    hold(state.share >= step.share, || {
        format!("{} in a step of {}", state.share, step.share)
    })?;
    hold(state.mirror >= step.mirror, || {
        format!("a mirror of {} in a step of {}", state.mirror, step.mirror)
    })?;
    hold(
        step.segments.iter().all(|segment| state.segments.contains(segment)),
        || "a ring that is not open".to_owned(),
    )?;
    let whole = step.share == Share::WHOLE;
    hold(state.phase != Phase::Baking || whole, || {
        "bakes without everything".to_owned()
    })?;
    hold(state.phase != Phase::Progressing || !whole, || {
        "has everything and does not bake".to_owned()
    })?;
    hold(
        state.phase != Phase::WaitingApproval || (step.approval && !state.approved),
        || "waits for no approval".to_owned(),
    )
}

fn stable_in_one_command(seen: &Seen<'_>) -> Result<(), String> {
    let world = &seen.after.world;
    for what in [
        What::Event(command(Verb::Rollback)),
        What::Event(Event::Killed(by("bob"))),
    ] {
        let happening = Happening {
            name: "",
            what,
            after_ms: 0,
        };
        let outcome = world.next(seen.advance, seen.files, &happening);
        let version = world.candidate(seen.files);
        let gone = !outcome.world.has_users(version) && outcome.world.mirrored(version) == Share::ZERO;
        hold(gone && refusal(&outcome.effects).is_none(), || {
            format!("{:?} leaves {}", happening.what, outcome.world.effective(version))
        })?;
    }
    Ok(())
}

fn a_restart_changes_nothing(seen: &Seen<'_>) -> Result<(), String> {
    let world = &seen.after.world;
    let mut read = reread(&world.state);
    read.live = world.state.live;
    hold(read == world.state, || "the store forgets".to_owned())?;
    let happening = Happening {
        name: "",
        what: What::Crash,
        after_ms: 5_000,
    };
    let restarted = world.next(seen.advance, seen.files, &happening).world;
    hold(restarted == *world, || format!("{restarted:?}"))
}

fn a_rollback_revokes(seen: &Seen<'_>) -> Result<(), String> {
    let rolled_back = seen.before.state.owns_split() && matches!(seen.after.world.state.phase, Phase::RolledBack(_));
    let effects = &seen.after.effects;
    hold(!rolled_back || effects.contains(&Effect::Revoke), || {
        "cookies stay valid".to_owned()
    })?;
    hold(!rolled_back || toward(effects) == Toward::Stable, || {
        "it waits for a disk".to_owned()
    })
}

fn a_rise_is_durable_first(seen: &Seen<'_>) -> Result<(), String> {
    let by_machine = !matches!(seen.event(), Some(Event::WeightsSet { .. } | Event::Unkilled(_)));
    let rises = by_machine && seen.risen().contains(&seen.before.candidate(seen.files));
    hold(!rises || toward(&seen.after.effects) == Toward::Canary, || {
        format!("{:?}", seen.after.effects)
    })
}

fn a_refusal_changes_nothing(seen: &Seen<'_>) -> Result<(), String> {
    if refusal(&seen.after.effects).is_none() {
        return Ok(());
    }
    let same = seen.after.world == *seen.before && seen.after.effects.len() == 1;
    hold(same, || format!("{:?}", seen.after.effects))
}

fn time_counts_as_it_passed(seen: &Seen<'_>) -> Result<(), String> {
    let (state, diary) = (&seen.after.world.state, &seen.after.world.diary);
    hold(!state.owns_split() || state.elapsed_ms <= diary.held_ms, || {
        format!("{} ms are counted of {} ms", state.elapsed_ms, diary.held_ms)
    })
}

fn weights_of_the_file_wait(seen: &Seen<'_>) -> Result<(), String> {
    let applied = seen
        .after
        .effects
        .iter()
        .filter(|effect| matches!(effect, Effect::ApplyWeights(_)))
        .count();
    let (before, after) = (&seen.before.state, &seen.after.world.state);
    if !before.owns_split() {
        let by_file = matches!(seen.event(), Some(Event::FileWeights(_)));
        return hold(applied == usize::from(by_file), || format!("applied {applied} times"));
    }
    let ended = seen.after.effects.contains(&Effect::ReleaseSplit) || seen.event() == Some(&Event::Removed);
    let due = usize::from(ended && before.recorded.is_some());
    hold(applied == due, || format!("applied {applied} times, {due} are due"))?;
    hold(ended || before.recorded.is_none() || after.recorded.is_some(), || {
        "forgotten".to_owned()
    })
}
