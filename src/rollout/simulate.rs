//! A plan carried out in virtual time: [`simulate`] runs the machine against traffic that a [`Scenario`] makes up and a
//! [`Judge`] that somebody brings, and tells what happened as a [`Transcript`].

use super::event::{Answer, By, Command, Effect, Event, Judgement, Look, Now, Scope, Verb, refusal};
use super::machine::{LONGEST_GAP, advance, millis};
use super::plan::Plan;
use super::share::Share;
use super::state::{Phase, State};
use super::words;
use std::fmt;
use std::time::Duration;

/// The most lines of a transcript; what happens after them is counted.
const MAX_LINES: usize = 10_000;
/// The longest simulation: a year.
const MAX_TIME: Duration = Duration::from_secs(366 * 86_400);

/// What is simulated. All times are since the beginning.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Seconds since the Unix epoch at the beginning, for freeze windows.
    pub begins_unix_s: i64,
    /// How often the candidate is judged: more than zero, at most [`LONGEST_GAP`].
    pub every: Duration,
    /// When it ends at the latest; at most a year.
    pub limit: Duration,
    /// In order of time. There is none before the first.
    pub traffic: Vec<Traffic>,
    /// The part of the requests that comes from segments a step may admit.
    pub in_segments: Share,
    /// The part of the requests that a mirror step may copy: those of its methods.
    pub copyable: Share,
    /// What happens to the rollout, in order of time.
    pub events: Vec<(Duration, Event)>,
    /// How long after it is asked for a person approves. `None`: never.
    pub approves_after: Option<Duration>,
}

/// What comes in, and how it is served, from a time on.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Traffic {
    pub from: Duration,
    /// Requests a second of the service.
    pub rate: f64,
    pub stable: Behaviour,
    pub candidate: Behaviour,
}

/// How a version serves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Behaviour {
    /// The part of the requests that fail, 0.0 to 1.0.
    pub error_rate: f64,
    /// How many times as long as usual a request takes.
    pub slowness: f64,
}

/// Nothing fails, and all is as fast as usual.
impl Default for Behaviour {
    fn default() -> Self {
        Self {
            error_rate: 0.0,
            slowness: 1.0,
        }
    }
}

/// The traffic of one version in one slice.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Arm {
    pub requests: u64,
    pub failures: u64,
    pub behaviour: Behaviour,
}

/// A stretch of time between two looks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slice {
    /// When it begins.
    pub at: Duration,
    pub length: Duration,
    /// The candidate's share all the time.
    pub share: Share,
    /// How long the step has been in force when it ends.
    pub in_step: Duration,
    pub stable: Arm,
    /// What the split sent to the candidate.
    pub candidate: Arm,
    /// What an admitted segment sent to it.
    pub ring: Arm,
    /// Of a mirror step: the requests to stable that were copied (they are in [`Slice::stable`], too), and their copies.
    pub pairs: Option<Pairs>,
}

/// Requests and their copies, as many of these as of those.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pairs {
    pub originals: Arm,
    pub copies: Arm,
}

/// Who says how the candidate does.
pub trait Judge {
    /// Evidence begins anew.
    fn reset(&mut self, scope: Scope);
    /// What is said after `slice`.
    fn judge(&mut self, plan: &Plan, slice: &Slice) -> Judgement;
}

/// How means become counts. A pure room has no dice of its own.
pub trait Draws {
    /// A count whose mean is `mean`. `of`: which of the counts of a slice, from 0.
    fn count(&mut self, of: usize, mean: f64) -> u64;
    /// How many of `all` requests fail, each with the probability `chance`, 0.0 to 1.0. `of`: as before.
    fn failures(&mut self, of: usize, all: u64, chance: f64) -> u64;
}

/// No dice: each count is as near its mean as whole numbers allow, over all slices.
#[derive(Debug, Clone, Copy, Default)]
pub struct Steady {
    left: [f64; 9],
}

impl Draws for Steady {
    fn count(&mut self, of: usize, mean: f64) -> u64 {
        let Some(left) = self.left.get_mut(of) else { return 0 };
        let due = *left + mean.max(0.0);
        let count = due.floor();
        *left = due - count;
        count as u64
    }

    fn failures(&mut self, of: usize, all: u64, chance: f64) -> u64 {
        self.count(of, all as f64 * chance).min(all)
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Transcript {
    pub lines: Vec<Line>,
    /// Lines beyond the bound.
    pub left_out: usize,
    /// The state at the end.
    pub state: State,
    /// How it stood at the end, in words.
    pub standing: String,
    pub took: Duration,
    /// The most the candidate had.
    pub highest: Share,
    pub stable: Arm,
    /// All of its requests.
    pub candidate: Arm,
    /// Copies that it had.
    pub copies: Arm,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub at: Duration,
    pub text: String,
}

/// Carries out `plan`, started by hand unless it starts by itself, until it has ended, nothing can happen any more without a
/// person whom the scenario does not have, or the limit is reached.
pub fn simulate(plan: &Plan, scenario: &Scenario, judge: &mut dyn Judge, draws: &mut dyn Draws) -> Transcript {
    let mut run = Run {
        plan,
        scenario,
        judge,
        draws,
        at: Duration::ZERO,
        waits_since: None,
        next_event: 0,
        transcript: Transcript {
            lines: Vec::new(),
            left_out: 0,
            state: State::default(),
            standing: String::new(),
            took: Duration::ZERO,
            highest: Share::ZERO,
            stable: Arm::default(),
            candidate: Arm::default(),
            copies: Arm::default(),
        },
    };
    run.happen(Event::Loaded);
    if run.transcript.state.phase == Phase::Idle {
        run.command(Verb::Start, "the simulation");
    }
    let every = scenario.every.clamp(Duration::from_millis(1), LONGEST_GAP);
    let limit = scenario.limit.min(MAX_TIME);
    while run.at < limit && !run.is_over() {
        run.step(every);
    }
    run.transcript.took = run.at;
    run.transcript.standing = words::standing(plan, &run.transcript.state);
    run.transcript
}

struct Run<'s> {
    plan: &'s Plan,
    scenario: &'s Scenario,
    judge: &'s mut dyn Judge,
    draws: &'s mut dyn Draws,
    at: Duration,
    /// Since when an approval is asked for.
    waits_since: Option<Duration>,
    next_event: usize,
    transcript: Transcript,
}

impl Run<'_> {
    /// One slice of traffic, a look at it, and what people do then.
    fn step(&mut self, length: Duration) {
        let slice = self.slice(length);
        self.at = self.at.saturating_add(length);
        let slice = Slice {
            in_step: Duration::from_millis(self.transcript.state.elapsed_ms).saturating_add(length),
            ..slice
        };
        if self.transcript.state.owns_split() {
            let judgement = self.judge.judge(self.plan, &slice);
            let look = Look {
                window: self.transcript.state.window,
                judgement,
                failures: self.transcript.candidate.failures,
                obstacle: None,
            };
            self.happen(Event::Look(look));
        }
        self.people();
    }

    fn people(&mut self) {
        while let Some((at, event)) = self.scenario.events.get(self.next_event) {
            if *at > self.at {
                break;
            }
            self.next_event += 1;
            self.happen(event.clone());
        }
        if self.transcript.state.phase != Phase::WaitingApproval {
            self.waits_since = None;
            return;
        }
        let since = *self.waits_since.get_or_insert(self.at);
        if self
            .scenario
            .approves_after
            .is_some_and(|after| self.at.saturating_sub(since) >= after)
        {
            self.command(Verb::Approve, "somebody");
        }
    }

    fn command(&mut self, verb: Verb, who: &str) {
        let by = By {
            who: who.to_owned(),
            why: None,
        };
        self.happen(Event::Command(Command { verb, by }));
    }

    fn happen(&mut self, event: Event) {
        let seconds = i64::try_from(self.at.as_secs()).unwrap_or(i64::MAX);
        let now = Now {
            uptime_ms: millis(self.at),
            unix_s: self.scenario.begins_unix_s.saturating_add(seconds),
        };
        let (state, effects) = advance(self.plan, std::mem::take(&mut self.transcript.state), event, now);
        self.transcript.highest = self.transcript.highest.max(state.share);
        self.transcript.state = state;
        let mut asked = Vec::new();
        for effect in &effects {
            match effect {
                Effect::ResetEvidence { scope, .. } => {
                    self.judge.reset(*scope);
                    if *scope == Scope::Rollout {
                        self.transcript.candidate.failures = 0;
                    }
                }
                Effect::AskGate { gate, window } => asked.push((*gate, *window)),
                Effect::Notify { sentence, .. } | Effect::Report(sentence) => self.say(sentence.clone()),
                _ => {}
            }
        }
        if let Some(why) = refusal(&effects) {
            self.say(format!("refused: {why}"));
        }
        for (gate, window) in asked {
            let answer = Answer::Yes;
            self.happen(Event::Gate { gate, window, answer });
        }
    }

    fn say(&mut self, text: String) {
        if self.transcript.lines.len() < MAX_LINES {
            self.transcript.lines.push(Line { at: self.at, text });
        } else {
            self.transcript.left_out += 1;
        }
    }

    /// Whether nothing can happen any more.
    fn is_over(&self) -> bool {
        let alone = self.next_event >= self.scenario.events.len();
        match self.transcript.state.phase {
            Phase::WaitingApproval => alone && self.scenario.approves_after.is_none(),
            Phase::Progressing | Phase::Baking => false,
            Phase::Idle | Phase::Paused(_) | Phase::Succeeded | Phase::RolledBack(_) => alone,
        }
    }

    // ---- traffic ----

    fn slice(&mut self, length: Duration) -> Slice {
        let state = &self.transcript.state;
        let share = if state.killed { Share::ZERO } else { state.share };
        let ring = if state.killed || state.segments.is_empty() {
            Share::ZERO
        } else {
            self.scenario.in_segments
        };
        let begun = self.scenario.traffic.partition_point(|traffic| traffic.from <= self.at);
        let now = begun.checked_sub(1).and_then(|last| self.scenario.traffic.get(last));
        let now = now.copied().unwrap_or_default();
        let all = now.rate.max(0.0) * length.as_secs_f64();
        let split = all * (1.0 - ring.fraction());
        let of_stable = split * (1.0 - share.fraction());
        let mirror = if state.killed { Share::ZERO } else { state.mirror };
        let copied = of_stable * mirror.fraction() * self.scenario.copyable.fraction();
        let pairs = (mirror > Share::ZERO).then(|| self.pairs(copied, now));
        let mut stable = self.arm(0, of_stable - copied, now.stable);
        if let Some(pairs) = pairs {
            stable.requests += pairs.originals.requests;
            stable.failures += pairs.originals.failures;
            self.transcript.copies.requests += pairs.copies.requests;
            self.transcript.copies.failures += pairs.copies.failures;
        }
        let candidate = self.arm(2, split * share.fraction(), now.candidate);
        let ring = self.arm(4, all * ring.fraction(), now.candidate);
        self.transcript.stable.requests += stable.requests;
        self.transcript.stable.failures += stable.failures;
        self.transcript.candidate.requests += candidate.requests + ring.requests;
        self.transcript.candidate.failures += candidate.failures + ring.failures;
        Slice {
            at: self.at,
            length,
            share,
            in_step: Duration::ZERO,
            stable,
            candidate,
            ring,
            pairs,
        }
    }

    /// A request and its copy fail independently of each other.
    fn pairs(&mut self, mean: f64, now: Traffic) -> Pairs {
        let originals = self.arm(6, mean, now.stable);
        let copies = Arm {
            requests: originals.requests,
            failures: self.failures(8, originals.requests, now.candidate),
            behaviour: now.candidate,
        };
        Pairs { originals, copies }
    }

    /// The counts numbered `first` and the one after: requests, and failures among them.
    fn arm(&mut self, first: usize, mean: f64, behaviour: Behaviour) -> Arm {
        let requests = self.draws.count(first, mean);
        Arm {
            requests,
            failures: self.failures(first + 1, requests, behaviour),
            behaviour,
        }
    }

    fn failures(&mut self, of: usize, requests: u64, behaviour: Behaviour) -> u64 {
        self.draws.failures(of, requests, behaviour.error_rate.clamp(0.0, 1.0))
    }
}

/// `2d 01:00:05`
struct Clock(Duration);

impl fmt::Display for Clock {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        if seconds >= 86_400 {
            write!(out, "{}d ", seconds / 86_400)?;
        }
        write!(
            out,
            "{:02}:{:02}:{:02}",
            seconds / 3_600 % 24,
            seconds / 60 % 60,
            seconds % 60
        )
    }
}

/// A line for each thing that happened, and how it ended.
impl fmt::Display for Transcript {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            writeln!(out, "{:>12}  {}", Clock(line.at).to_string(), line.text)?;
        }
        if self.left_out > 0 {
            writeln!(out, "{:>12}  and {} more lines", "", self.left_out)?;
        }
        let candidate = self.state.candidate.as_deref().unwrap_or("nobody");
        writeln!(out, "{}: {candidate} is {}", Clock(self.took), self.standing)?;
        writeln!(
            out,
            "{candidate} had {} of {} requests and at most {} of the traffic; {} of its requests failed, {} of the others",
            self.candidate.requests,
            self.candidate.requests + self.stable.requests,
            self.highest,
            self.candidate.failures,
            self.stable.failures
        )?;
        if self.copies.requests > 0 {
            writeln!(
                out,
                "before, it had {} copies of requests, which no user waited for; {} of them failed",
                self.copies.requests, self.copies.failures
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "simulate_tests.rs"]
mod tests;
