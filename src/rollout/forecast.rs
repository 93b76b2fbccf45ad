//! What a plan can find, before it begins: [`forecast`].

use super::plan::{OnNoEvidence, Plan, Step};
use super::share::Share;
use super::words::{about, duration, exposure};
use crate::analysis::{Latencies, LimitPower, Power, Test, Traffic, Window, percent};
use std::time::Duration;

/// What is taken for granted of a service with two versions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Assumed {
    /// Its requests a second.
    pub rate: f64,
    /// The part of stable's requests that fail: above 0.0, below 1.0.
    pub error_rate: f64,
    pub latencies: Latencies,
    /// The part of the requests that comes from segments a step may admit.
    pub in_segments: Share,
    /// The part of the requests that a mirror step may copy: those of its methods.
    pub copyable: Share,
}

/// What a plan comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Forecast {
    /// How many to one the evidence of a check must be to fail it.
    pub needed: f64,
    pub steps: Vec<StepForecast>,
    /// From the first step to the end of the last, at this traffic. `None`: it comes to no end.
    pub lasts: Option<Duration>,
    /// What should be known before it begins, a sentence each.
    pub warnings: Vec<String>,
}

/// What a step comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct StepForecast {
    /// From 1.
    pub number: u32,
    /// What it gives the candidate, in words.
    pub exposure: String,
    pub hold: Duration,
    /// Until its verdicts have the requests they need. `None`: for ever.
    pub evidence_takes: Option<Duration>,
    /// Until it ends, at the soonest. `None`: it does not, or in a rollback.
    pub lasts: Option<Duration>,
    /// Requests that each version has in the hold; in a mirror step, copies and those that they are copies of.
    pub candidate: f64,
    pub stable: f64,
    /// What the checks find in the hold: those that go by evidence on failures or latencies, in their order.
    pub finds: Vec<Finds>,
}

/// What a check finds with a chance of [`crate::analysis::POWER`].
#[derive(Debug, Clone, PartialEq)]
pub struct Finds {
    /// Position of the check in the plan.
    pub check: usize,
    pub of: Of,
    /// The least that is found within the hold: how many times as often as stable the candidate fails, or how many times
    /// as long its requests take. `None`: not even that all are bad is found.
    pub times: Option<f64>,
    /// How long it takes to find twice as many errors, or that requests take twice as long. `None`: for ever.
    pub twice_takes: Option<Duration>,
    /// How long it takes to find that all are bad. `None`: for ever.
    pub all_takes: Option<Duration>,
}

/// What a check looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    Errors,
    Slowness,
}

impl Of {
    fn nothing(self) -> &'static str {
        match self {
            Self::Errors => "no errors",
            Self::Slowness => "no slowness",
        }
    }

    /// What the worst of candidates does.
    fn every(self) -> &'static str {
        match self {
            Self::Errors => "fails",
            Self::Slowness => "is slow",
        }
    }
}

impl StepForecast {
    /// The least that any check finds.
    pub fn times(&self, of: Of) -> Option<f64> {
        let times = self.of(of).filter_map(|finds| finds.times);
        times.min_by(f64::total_cmp)
    }

    /// The soonest that any check finds twice as many.
    pub fn twice_takes(&self, of: Of) -> Option<Duration> {
        self.of(of).filter_map(|finds| finds.twice_takes).min()
    }

    fn all_takes(&self, of: Of) -> Option<Duration> {
        self.of(of).filter_map(|finds| finds.all_takes).min()
    }

    fn of(&self, of: Of) -> impl Iterator<Item = &Finds> {
        self.finds.iter().filter(move |finds| finds.of == of)
    }
}

/// What `plan` comes to. Takes some milliseconds for each step and check.
pub fn forecast(plan: &Plan, assumed: &Assumed) -> Forecast {
    let outlook = Outlook {
        plan,
        assumed,
        needed: plan.analysis.rules().needed(),
    };
    let mut before = Flow::default();
    let mut steps = Vec::new();
    for (number, step) in (1..).zip(&plan.steps) {
        let forecast = outlook.step(number, step, before);
        let lasts = forecast.lasts.unwrap_or(step.hold);
        before = before.and(outlook.flow(step).times(lasts.as_secs_f64()));
        steps.push(forecast);
    }
    let sum = |sum: Duration, lasts: Option<Duration>| lasts.map(|lasts| sum.saturating_add(lasts));
    Forecast {
        needed: outlook.needed,
        lasts: steps.iter().try_fold(Duration::ZERO, |all, step| sum(all, step.lasts)),
        warnings: outlook.warnings(&steps),
        steps,
    }
}

/// Requests, or requests a second, by what sends them where: those that are judged.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Flow {
    /// To the candidate, by the split, or as copies.
    candidate: f64,
    /// To stable, by the split; of a mirror step, those that are copied.
    stable: f64,
    /// To the candidate, by an admitted segment.
    ring: f64,
}

impl Flow {
    fn and(self, more: Self) -> Self {
        Self {
            candidate: self.candidate + more.candidate,
            stable: self.stable + more.stable,
            ring: self.ring + more.ring,
        }
    }

    fn times(self, times: f64) -> Self {
        Self {
            candidate: self.candidate * times,
            stable: self.stable * times,
            ring: self.ring * times,
        }
    }

    /// All of the candidate's.
    fn all(self) -> f64 {
        self.candidate + self.ring
    }
}

fn is_mirror(step: &Step) -> bool {
    step.mirror > Share::ZERO
}

fn is_comparable(step: &Step) -> bool {
    is_mirror(step) || (step.share > Share::ZERO && step.share < Share::WHOLE)
}

/// The candidate's share of what is compared, 0.0 to 1.0.
fn judged_share(step: &Step) -> f64 {
    match is_mirror(step) {
        true => Window::SHARE_OF_PAIRS,
        false => step.share.fraction(),
    }
}

struct Outlook<'p> {
    plan: &'p Plan,
    assumed: &'p Assumed,
    needed: f64,
}

impl Outlook<'_> {
    /// Requests a second.
    fn flow(&self, step: &Step) -> Flow {
        if is_mirror(step) {
            let copied = self.assumed.rate * self.assumed.copyable.fraction() * step.mirror.fraction();
            return Flow {
                candidate: copied,
                stable: copied,
                ring: 0.0,
            };
        }
        let ring = match step.segments.is_empty() {
            true => 0.0,
            false => self.assumed.in_segments.fraction(),
        };
        let (split, share) = (self.assumed.rate * (1.0 - ring), step.share.fraction());
        Flow {
            candidate: split * share,
            stable: split * (1.0 - share),
            ring: self.assumed.rate * ring,
        }
    }

    /// `before`: the requests of the steps before.
    fn step(&self, number: u32, step: &Step, before: Flow) -> StepForecast {
        let in_hold = self.flow(step).times(step.hold.as_secs_f64());
        let checks = self.plan.analysis.checks.iter().enumerate();
        let evidence_takes = self.evidence_takes(step, before);
        StepForecast {
            number,
            exposure: exposure(step.share, &step.segments, step.mirror),
            hold: step.hold,
            evidence_takes,
            lasts: self.lasts(step, evidence_takes),
            candidate: in_hold.all(),
            stable: in_hold.stable,
            finds: checks
                .filter_map(|(position, planned)| self.finds(position, &planned.check.test, step))
                .collect(),
        }
    }

    /// `None`: it goes by something else.
    fn finds(&self, check: usize, test: &Test, step: &Step) -> Option<Finds> {
        let flow = self.flow(step);
        let compared = |bad: f64, tolerance: f64| {
            Power::new(Traffic {
                rate: flow.candidate + flow.stable,
                share: judged_share(step),
                bad,
                tolerance,
                needed: self.needed,
            })
            .map(Finder::Comparison)
        };
        let limited = |limit: f64| LimitPower::new(flow.all(), limit, self.needed).map(Finder::Limit);
        let (errors, latencies) = (self.assumed.error_rate, self.assumed.latencies);
        let (worse, usual, finder) = match *test {
            Test::ErrorsCompared { tolerance } => (Worse::Errors(errors), errors, compared(errors, tolerance)),
            Test::ErrorsAtMost { limit } => (Worse::Errors(errors), errors, limited(limit)),
            Test::LatencyCompared { quantile, tolerance } => {
                let threshold_us = latencies.quantile_us(quantile) * (1.0 + tolerance);
                // The tolerance is one of time, and in the threshold already.
                let finder = compared(1.0 - quantile, 0.0);
                (Worse::Latency(latencies, threshold_us), 1.0 - quantile, finder)
            }
            Test::LatencyAtMost { quantile, limit_us } => {
                let worse = Worse::Latency(latencies, limit_us as f64);
                (worse, 1.0 - quantile, limited(1.0 - quantile))
            }
            Test::MismatchesAtMost { .. }
            | Test::MeanCompared { .. }
            | Test::MeanReported { .. }
            | Test::MeanWithin { .. }
            | Test::OutsideWithin { .. } => return None,
        };
        let warmup = match worse {
            Worse::Errors(_) => Duration::ZERO,
            Worse::Latency(..) => self.plan.analysis.warmup,
        };
        let takes = |bad: f64| {
            let takes = finder.as_ref()?.hold_to_find(bad, usual)?;
            Some(takes.saturating_add(warmup))
        };
        let finder = finder.as_ref();
        Some(Finds {
            check,
            of: worse.of(),
            times: finder
                .and_then(|finder| finder.smallest_found(usual, step.hold.saturating_sub(warmup)))
                .map(|bad| worse.times(bad)),
            twice_takes: takes(worse.bad(2.0)),
            all_takes: takes(1.0),
        })
    }

    fn lasts(&self, step: &Step, evidence_takes: Option<Duration>) -> Option<Duration> {
        let most = self.max_hold(step);
        match (evidence_takes, self.plan.analysis.on_no_evidence) {
            (Some(takes), OnNoEvidence::Hold) => Some(takes.max(step.hold)),
            (Some(takes), _) if takes <= most => Some(takes.max(step.hold)),
            (_, OnNoEvidence::Proceed) => Some(most),
            (_, OnNoEvidence::Hold | OnNoEvidence::Rollback) => None,
        }
    }

    /// How long a step waits for evidence, unless it does for ever.
    fn max_hold(&self, step: &Step) -> Duration {
        self.plan.analysis.max_hold.unwrap_or(step.hold).max(step.hold)
    }

    /// Until every check has the requests that a verdict needs: see `analysis::Finding`.
    fn evidence_takes(&self, step: &Step, before: Flow) -> Option<Duration> {
        let (flow, share) = (self.flow(step), judged_share(step));
        let least = self.plan.analysis.min_requests as f64;
        let limited = least / flow.all();
        let comparison = match step.share {
            Share::ZERO if !is_mirror(step) => limited,
            Share::WHOLE if before.candidate.min(before.stable) >= least => limited,
            Share::WHOLE => f64::INFINITY,
            _ => {
                let of_stable = least * ((1.0 - share) / share).min(1.0);
                (least / flow.candidate).max(of_stable / flow.stable)
            }
        };
        let warmup = self.plan.analysis.warmup.as_secs_f64();
        let tests = self.plan.analysis.checks.iter().map(|planned| &planned.check.test);
        let needs = tests.map(|test| match test {
            Test::LatencyCompared { .. } if is_comparable(step) => comparison + warmup,
            Test::ErrorsCompared { .. } | Test::LatencyCompared { .. } | Test::MeanCompared { .. } => comparison,
            Test::LatencyAtMost { .. } => limited + warmup,
            Test::MeanReported { .. } => 0.0,
            Test::ErrorsAtMost { .. }
            | Test::MismatchesAtMost { .. }
            | Test::MeanWithin { .. }
            | Test::OutsideWithin { .. } => limited,
        });
        // What takes for ever is no duration.
        Duration::try_from_secs_f64(needs.fold(0.0, f64::max)).ok()
    }

    // ---- in words ----

    fn warnings(&self, steps: &[StepForecast]) -> Vec<String> {
        let mut warnings = Vec::new();
        warnings.extend(self.nothing_is_judged());
        warnings.extend(self.limits_too_low());
        for (step, forecast) in self.plan.steps.iter().zip(steps) {
            warnings.extend(self.finds_nothing(step, forecast));
            warnings.extend(self.waits_for_evidence(step, forecast));
        }
        warnings.extend(self.guard(steps));
        warnings
    }

    fn nothing_is_judged(&self) -> Option<String> {
        let candidate = &self.plan.candidate;
        let mut checks = self.plan.analysis.checks.iter();
        match (
            checks.all(|planned| planned.check.test.is_report()),
            self.plan.max_failures,
        ) {
            (false, _) => None,
            (true, None) => Some(format!(
                "nothing is judged: there are no checks and no `guard`, so {candidate} is delivered however it does"
            )),
            (true, Some(most)) => Some(format!(
                "there are no checks: {candidate} is delivered unless {most} of its requests fail"
            )),
        }
    }

    fn limits_too_low(&self) -> impl Iterator<Item = String> {
        let usual = self.assumed.error_rate;
        let tests = self.plan.analysis.checks.iter().map(|planned| &planned.check.test);
        tests.filter_map(move |test| match *test {
            Test::ErrorsAtMost { limit } if limit <= usual => Some(format!(
                "stable itself fails {} of its requests, by assumption: a candidate as good does not keep to a `max` of {}",
                percent(usual),
                percent(limit)
            )),
            Test::LatencyAtMost { quantile, limit_us } => {
                let usual_us = self.assumed.latencies.quantile_us(quantile);
                (limit_us as f64 <= usual_us).then(|| {
                    format!(
                        "{} of the requests to stable take up to {}, by assumption: a candidate as good does not keep to \
                         a `max` of {}",
                        percent(quantile),
                        about(Duration::from_secs_f64(usual_us / 1e6)),
                        duration(Duration::from_micros(limit_us))
                    )
                })
            }
            _ => None,
        })
    }

    /// Where a step sees nothing of what the plan has checks for.
    fn finds_nothing(&self, step: &Step, forecast: &StepForecast) -> Option<String> {
        let looked_for = |of: &Of| forecast.of(*of).next().is_some();
        let kinds: Vec<Of> = [Of::Errors, Of::Slowness].into_iter().filter(looked_for).collect();
        let missed = kinds.iter().filter(|of| forecast.times(**of).is_none());
        let missed: Vec<Of> = missed.copied().collect();
        let (what, every) = match missed.as_slice() {
            [] => return None,
            [_, _, ..] => ("nothing", "fails or is slow"),
            [one] if kinds.len() == 1 => ("nothing", one.every()),
            [one] => (one.nothing(), one.every()),
        };
        let takes: Option<Vec<Duration>> = missed.iter().map(|of| forecast.all_takes(*of)).collect();
        let takes = takes.and_then(|takes| takes.into_iter().max());
        let (candidate, here) = (&self.plan.candidate, place(forecast));
        Some(match takes {
            _ if step.hold.is_zero() => format!("{here} has no hold: what goes wrong there is not found"),
            Some(takes) => format!(
                "{here} finds {what} in its hold of {}, not even that every request of {candidate} {every}: that takes {}",
                about(step.hold),
                about(takes)
            ),
            None if self.flow(step).all() <= 0.0 => {
                format!("{here} finds {what}: {candidate} has no traffic there")
            }
            None if !is_comparable(step) => format!(
                "{here} finds {what}: there is nothing to compare {candidate} with, and no check has a `max` for it"
            ),
            None => format!("{here} finds {what}: {candidate} has hardly any traffic there"),
        })
    }

    fn waits_for_evidence(&self, step: &Step, forecast: &StepForecast) -> Option<String> {
        let (candidate, here) = (&self.plan.candidate, place(forecast));
        let least = self.plan.analysis.min_requests;
        let most = self.max_hold(step);
        let has = self.flow(step).all() * most.as_secs_f64();
        let in_time = forecast.evidence_takes.is_some_and(|takes| takes <= most);
        match (forecast.evidence_takes, self.plan.analysis.on_no_evidence) {
            // What rounds to the same is not worth a word.
            (Some(takes), _) if takes <= step.hold + step.hold / 20 => None,
            (_, OnNoEvidence::Rollback) if !in_time => Some(format!(
                "{here} rolls {candidate} back after {} for want of evidence: it has had about {has:.0} requests by then, \
                 and a verdict needs {least} and a comparison",
                about(most)
            )),
            (_, OnNoEvidence::Proceed) if !in_time => Some(format!(
                "{here} ends after {} without a verdict: {candidate} has had about {has:.0} requests by then, and one \
                 needs {least} and a comparison",
                about(most)
            )),
            (Some(takes), _) => Some(format!(
                "{here} lasts {} rather than {}, until a verdict has the {least} requests it needs",
                about(takes),
                about(step.hold)
            )),
            (None, _) if step.share == Share::WHOLE => Some(format!(
                "{here} never ends: {candidate} has not had {least} requests to be compared by in the steps before"
            )),
            (None, _) => Some(format!(
                "{here} never ends: {candidate} has no requests there, and a verdict needs {least}"
            )),
        }
    }

    /// Whether failures as usual may be enough for the guard: with a chance of more than 1 in 100.
    fn guard(&self, steps: &[StepForecast]) -> Option<String> {
        let most = self.plan.max_failures?;
        let mut failures = 0.0;
        let reached = self.plan.steps.iter().zip(steps).find(|(step, forecast)| {
            let lasts = forecast.lasts.unwrap_or(forecast.hold).as_secs_f64();
            // What fails of copies hurts nobody.
            let users = if is_mirror(step) { 0.0 } else { self.flow(step).all() };
            failures += users * lasts * self.assumed.error_rate;
            failures + 2.33 * failures.sqrt() >= most as f64
        });
        reached.map(|(_, forecast)| {
            format!(
                "a {} that fails no more than stable has about {failures:.0} failed requests by the end of {}: the guard \
                 of {most} may roll it back",
                self.plan.candidate,
                place(forecast)
            )
        })
    }
}

/// `step 2 (1 %)`
fn place(step: &StepForecast) -> String {
    format!("step {} ({})", step.number, step.exposure)
}

/// In what a candidate is worse.
#[derive(Debug, Clone, Copy)]
enum Worse {
    /// The part of stable's requests that fail.
    Errors(f64),
    /// Those of stable, and the microseconds from which on a request of the candidate is slow.
    Latency(Latencies, f64),
}

impl Worse {
    fn of(self) -> Of {
        match self {
            Self::Errors(_) => Of::Errors,
            Self::Latency(..) => Of::Slowness,
        }
    }

    /// The part of the candidate's requests that is bad when it is so many times as bad as stable.
    fn bad(self, times: f64) -> f64 {
        match self {
            Self::Errors(usual) => (usual * times).min(1.0),
            Self::Latency(latencies, threshold_us) => latencies.above(threshold_us / times),
        }
    }

    /// The inverse; at least 1.
    fn times(self, bad: f64) -> f64 {
        match self {
            Self::Errors(usual) => bad / usual,
            // That all requests are slow is as good as that most are.
            Self::Latency(latencies, threshold_us) => threshold_us / latencies.quantile_us((1.0 - bad).max(0.01)),
        }
        .max(1.0)
    }
}

/// What finds: by the part of the candidate's requests that is bad, where `usual` is that of stable's.
enum Finder {
    Comparison(Power),
    Limit(LimitPower),
}

impl Finder {
    fn smallest_found(&self, usual: f64, hold: Duration) -> Option<f64> {
        match self {
            Self::Comparison(power) => power.smallest_found(hold).map(|times| times * usual),
            Self::Limit(power) => power.smallest_found(hold),
        }
    }

    fn hold_to_find(&self, bad: f64, usual: f64) -> Option<Duration> {
        match self {
            Self::Comparison(power) => power.hold_to_find(bad / usual),
            Self::Limit(power) => power.hold_to_find(bad),
        }
    }
}

#[cfg(test)]
#[path = "forecast_tests.rs"]
mod tests;
