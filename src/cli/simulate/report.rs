//! What came of the simulated rollouts.

use crate::cli::print::HEADING;
use crate::cli::table::{Cell, NOTHING, Side, Table, safe};
use crate::rollout::simulate::{Arm, Transcript};
use crate::rollout::{Cause, Phase, Plan, about};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// How a run ended, in the order of the table.
fn outcome(phase: &Phase) -> &'static str {
    let rolled_back = |cause: Cause| match cause {
        Cause::Check => "rolled back by a check",
        Cause::Guard => "rolled back by the guard",
        Cause::NoEvidence => "rolled back for want of evidence",
        _ => "rolled back",
    };
    match phase {
        Phase::Succeeded => "delivered",
        Phase::RolledBack(reason) => rolled_back(reason.cause),
        Phase::Paused(_) => "paused",
        Phase::WaitingApproval => "waiting for approval",
        Phase::Idle | Phase::Progressing | Phase::Baking => "not at its end",
    }
}

/// The runs of one outcome.
struct Group {
    runs: usize,
    median_took: Duration,
    median_failures: u64,
}

fn groups(transcripts: &[Transcript]) -> BTreeMap<&'static str, Group> {
    let mut by_outcome: BTreeMap<&str, Vec<&Transcript>> = BTreeMap::new();
    for transcript in transcripts {
        by_outcome
            .entry(outcome(&transcript.state.phase))
            .or_default()
            .push(transcript);
    }
    by_outcome
        .into_iter()
        .map(|(outcome, runs)| {
            let group = Group {
                runs: runs.len(),
                median_took: median(runs.iter().map(|run| run.took)),
                median_failures: median(runs.iter().map(|run| run.candidate.failures)),
            };
            (outcome, group)
        })
        .collect()
}

fn median<T: Ord + Default + Copy>(values: impl Iterator<Item = T>) -> T {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// For people: how often it ended how.
pub fn many(plan: &Plan, transcripts: &[Transcript]) -> String {
    let mut table = Table::new(&[
        ("OUTCOME", Side::Left),
        ("RUNS", Side::Right),
        ("SHARE", Side::Right),
        ("MEDIAN TIME", Side::Right),
        ("MEDIAN FAILURES", Side::Right),
    ]);
    for (outcome, group) in groups(transcripts) {
        table.row(
            [
                outcome.to_owned(),
                group.runs.to_string(),
                format!("{:.1} %", 100.0 * group.runs as f64 / transcripts.len() as f64),
                about(group.median_took),
                group.median_failures.to_string(),
            ]
            .map(Cell::new),
        );
    }
    if transcripts.is_empty() {
        table.row([NOTHING; 5].map(Cell::new));
    }
    let (service, candidate) = (safe(&plan.service), safe(&plan.candidate));
    format!(
        "{HEADING}{service}{HEADING:#}: {candidate} in {} simulated rollouts; failures are those of {candidate}\n\n{}",
        transcripts.len(),
        table.render()
    )
}

/// For programs: as [`many`].
pub fn many_json(plan: &Plan, transcripts: &[Transcript], seed: u64, left_out: &[String]) -> String {
    let outcomes: Vec<Value> = groups(transcripts)
        .into_iter()
        .map(|(outcome, group)| {
            json!({
                "outcome": outcome,
                "runs": group.runs,
                "share": group.runs as f64 / transcripts.len() as f64,
                "median_took_s": group.median_took.as_secs_f64(),
                "median_candidate_failures": group.median_failures,
            })
        })
        .collect();
    let value = json!({
        "service": plan.service,
        "candidate": plan.candidate,
        "seed": seed,
        "runs": transcripts.len(),
        "checks_left_out": left_out,
        "outcomes": outcomes,
    });
    format!("{value}\n")
}

/// For programs: one run, with its transcript.
pub fn one_json(plan: &Plan, transcript: &Transcript, seed: u64, left_out: &[String]) -> String {
    let arm = |arm: &Arm| json!({ "requests": arm.requests, "failures": arm.failures });
    let lines: Vec<Value> = transcript
        .lines
        .iter()
        .map(|line| json!({ "at_s": line.at.as_secs_f64(), "text": line.text }))
        .collect();
    let state = &transcript.state;
    let value = json!({
        "service": plan.service,
        "candidate": plan.candidate,
        "seed": seed,
        "checks_left_out": left_out,
        "lines": lines,
        "lines_left_out": transcript.left_out,
        "phase": state.phase.word(),
        "reason": state.phase.reason().map(|reason| &reason.text),
        "outcome": outcome(&state.phase),
        "standing": transcript.standing,
        "step": state.step,
        "took_s": transcript.took.as_secs_f64(),
        "highest_share": transcript.highest.fraction(),
        "requests": { "candidate": arm(&transcript.candidate), "stable": arm(&transcript.stable) },
        "copies": arm(&transcript.copies),
    });
    format!("{value}\n")
}
