//! `rollgate simulate FILE`: the plan of a rollout carried out in virtual time, by the machine and the judge that carry out
//! real ones, against traffic that is made up or recorded.

mod court;
pub mod dice;
mod fault;
mod progress;
mod recording;
mod report;

use super::context::Context;
use super::failure::Failure;
use super::planned::{Assumptions, Planned, Subject, is_foretold, label, rate, share, span};
use super::print::{self, WARNING};
use super::table::safe;
use crate::analysis::Latencies;
use crate::rollout::simulate::{Scenario, Transcript, simulate};
use crate::rollout::{LONGEST_GAP, Plan, Share};
use court::Court;
use dice::{Atoms, Dice};
use fault::{Fault, Profile};
use progress::Progress;
use recording::Recording;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// A Tuesday noon.
const BEGINS: &str = "2026-03-03T12:00:00Z";
const MAX_RUNS: u64 = 100_000;
const MAX_FAULTS: usize = 64;
const DAY: Duration = Duration::from_secs(86_400);
/// A plan whose holds are longer than this is judged less often, lest it take minutes.
const LONG: Duration = Duration::from_secs(2 * 86_400);

/// The arguments of `rollgate simulate`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    subject: Subject,
    /// Requests a second of the service, all versions together
    #[arg(long, value_name = "N", value_parser = rate, required_unless_present = "recorded", help_heading = "Traffic")]
    rps: Option<f64>,
    /// A daily wave: so much more at 15:00 UTC, and so much less at 03:00
    #[arg(long, value_name = "SHARE", default_value = "0%", value_parser = share, help_heading = "Traffic")]
    wave: Share,
    /// Recorded counts instead: a CSV or JSON file, see below
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rps", "wave", "fault"], help_heading = "Traffic")]
    recorded: Option<PathBuf>,
    /// What goes wrong, and when; may be given again, see below
    #[arg(long, value_name = "FAULT", help_heading = "Traffic")]
    fault: Vec<Fault>,
    #[command(flatten)]
    assumptions: Assumptions,
    /// How long after it is asked for somebody approves, or `never`
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = patience)]
    approve_after: Patience,
    /// When it begins: freeze windows and the daily wave go by it
    #[arg(long, value_name = "TIME", default_value = BEGINS)]
    begins: jiff::Timestamp,
    /// When it ends at the latest; without it ten times the holds of the plan, but a day at least
    #[arg(long, value_name = "DURATION", value_parser = span)]
    limit: Option<Duration>,
    /// The first seed: the same seed, the same draws
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// So many runs, each with the next seed: how often it ends how
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=MAX_RUNS))]
    runs: u64,
}

pub const AFTER_HELP: &str = "\
Examples:
  rollgate simulate rollgate.yaml --rps 200
  rollgate simulate rollgate.yaml --rps 200 --fault errors=5x@10m
  rollgate simulate rollgate.yaml --rps 50 --wave 60% --fault latency=1.5x@20m-40m --fault both:errors=3%@1h
  rollgate simulate rollgate.yaml --rps 50 --fault errors=2x@0s --runs 500
  rollgate simulate rollgate.yaml --recorded counts.csv

A fault is [candidate:|stable:|both:]CHANGE[,CHANGE]@FROM[-UNTIL], of the candidate where nothing else is said. A CHANGE is \
errors=5x (times as many as usual), errors=3% (so many) or latency=1.5x (times as long as usual); FROM and UNTIL count from \
the beginning. Where several faults are about the same, the last one counts.

Recorded counts are lines of `second,version,requests,failures,latency_ms`, with that line first, or a JSON array of objects \
with these keys. Seconds count from 0; a version of another name than the candidate's counts as stable; latency_ms, a typical \
one, may be absent. Each second has as many requests as were recorded of all versions, split as the plan splits them, and \
each version fails and is slow as it was. It ends with the recording.

Gates say yes. Checks of an application's own numbers, of Prometheus and of statuses are left out. Nothing is sent anywhere.";

/// `None`: never.
#[derive(Debug, Clone, Copy)]
struct Patience(Option<Duration>);

fn patience(text: &str) -> Result<Patience, String> {
    match text {
        "never" => Ok(Patience(None)),
        _ => span(text)
            .map(|span| Patience(Some(span)))
            .map_err(|error| format!("{error}, or `never`")),
    }
}

impl Arguments {
    pub fn run(&self, context: &Context) -> ExitCode {
        let json = context.json(&self.subject.proxy.reach);
        print::finish(self.answer(context, json), json)
    }

    fn answer(&self, context: &Context, json: bool) -> Result<String, Failure> {
        let latencies = self.assumptions.latencies()?;
        let mut planned = self.only(self.subject.plans(context)?)?;
        let left_out = leave_out_unknown(&mut planned.plan);
        if !json && !left_out.is_empty() {
            let left_out = safe(&left_out.join(", "));
            print::note(&format!(
                "{WARNING}left out:{WARNING:#} {left_out}: such numbers are not simulated\n"
            ));
        }
        let scenario = self.scenario(&planned, &latencies)?;
        let transcripts = self.transcripts(&planned, &scenario, &latencies);
        Ok(match (transcripts.as_slice(), json) {
            ([one], false) => safe_lines(&one.to_string()),
            ([one], true) => report::one_json(&planned.plan, one, self.seed, &left_out),
            (many, false) => report::many(&planned.plan, many),
            (many, true) => report::many_json(&planned.plan, many, self.seed, &left_out),
        })
    }

    fn only(&self, mut plans: Vec<Planned>) -> Result<Planned, Failure> {
        match (plans.pop(), plans.as_slice()) {
            (Some(one), []) => Ok(one),
            (last, more) => {
                let names = more
                    .iter()
                    .chain(&last)
                    .map(|planned| format!("`{}`", planned.plan.service));
                let names: Vec<String> = names.collect();
                Err(
                    Failure::usage(format!("several services have a rollout: {}", names.join(", ")))
                        .help("`--service NAME` says which; a train is simulated service by service"),
                )
            }
        }
    }

    fn scenario(&self, planned: &Planned, latencies: &Latencies) -> Result<Scenario, Failure> {
        let holds: Duration = planned.plan.steps.iter().map(|step| step.hold).sum();
        let mut limit = self.limit.unwrap_or((holds * 10).max(DAY));
        let begins_unix_s = self.begins.as_second();
        let traffic = match (&self.recorded, self.rps) {
            (Some(file), _) => {
                let recording = Recording::read(file)?;
                limit = limit.min(recording.length());
                recording.traffic(&planned.plan.candidate, latencies)
            }
            (None, rps) => {
                if self.fault.len() > MAX_FAULTS {
                    return Err(Failure::usage(format!("expected at most {MAX_FAULTS} faults")));
                }
                Profile {
                    rate: rps.unwrap_or_default(),
                    wave: self.wave.fraction(),
                    begins_unix_s,
                    error_rate: self.assumptions.errors.fraction(),
                }
                .traffic(&self.fault, limit)
            }
        };
        Ok(Scenario {
            begins_unix_s,
            every: if holds > LONG {
                LONGEST_GAP
            } else {
                Duration::from_secs(1)
            },
            limit,
            traffic,
            in_segments: self.assumptions.in_segments,
            copyable: self.assumptions.copyable,
            events: Vec::new(),
            approves_after: self.approve_after.0,
        })
    }

    fn transcripts(&self, planned: &Planned, scenario: &Scenario, latencies: &Latencies) -> Vec<Transcript> {
        let atoms = Atoms::new(latencies);
        let mut progress = Progress::new(self.runs, scenario.limit);
        let run = |number: u64| {
            let seed = self.seed.wrapping_add(number);
            // Two streams, so that a plan with another check has the same failures.
            let (mut counts, latencies) = (Dice::new(seed), Dice::new(!seed));
            progress.begins(number);
            let mut court = Court::new(planned, &atoms, latencies, &mut progress);
            simulate(&planned.plan, scenario, &mut court, &mut counts)
        };
        let transcripts = (0..self.runs).map(run).collect();
        progress.end();
        transcripts
    }
}

/// Removes the checks whose numbers nobody can make up, and returns what they are called.
fn leave_out_unknown(plan: &mut Plan) -> Vec<String> {
    let checks = std::mem::take(&mut plan.analysis.checks).into_vec();
    let (kept, left_out): (Vec<_>, Vec<_>) = checks.into_iter().partition(|planned| is_foretold(&planned.check.test));
    plan.analysis.checks = kept.into();
    left_out.iter().map(|planned| label(&planned.check)).collect()
}

fn safe_lines(text: &str) -> String {
    text.lines().map(|line| safe(line) + "\n").collect()
}

#[cfg(test)]
mod tests;
