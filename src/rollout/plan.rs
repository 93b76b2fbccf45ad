//! What the file says of a rollout, compiled: [`Plan`].

use super::freeze::Freeze;
use super::share::Share;
use crate::analysis;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// The plan by which a version of a service is delivered.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub service: Box<str>,
    /// The version to deliver.
    pub candidate: Box<str>,
    pub start: Start,
    /// Never empty (one that is counts as nothing to do). Shares never fall from one to the next, and the last is 100 %.
    /// Steps with a mirror come before those that admit anybody.
    pub steps: Box<[Step]>,
    pub analysis: Analysis,
    /// Failed requests of the candidate after which it is rolled back, whatever the statistics say.
    pub max_failures: Option<u64>,
    /// At most [`MAX_GATES`].
    pub gates: Box<[Gate]>,
    pub notify: Box<[Notify]>,
    /// When nothing advances by itself.
    pub freeze: Box<[Freeze]>,
    /// The other services of its train; empty: it goes alone.
    pub with: Box<[Box<str>]>,
}

/// The most gates of a plan.
pub const MAX_GATES: usize = 16;

impl Plan {
    /// What is left of a plan that is in no file any more: there is nothing to do by it.
    pub fn departed(service: &str, candidate: &str) -> Self {
        Self {
            service: service.into(),
            candidate: candidate.into(),
            start: Start::Manual,
            steps: Box::default(),
            analysis: Analysis {
                warmup: Duration::ZERO,
                min_requests: 0,
                confidence: Share::WHOLE,
                on_no_evidence: OnNoEvidence::Hold,
                max_hold: None,
                metrics: Box::default(),
                checks: Box::default(),
            },
            max_failures: None,
            gates: Box::default(),
            notify: Box::default(),
            freeze: Box::default(),
            with: Box::default(),
        }
    }

    /// The step called `number`, from 1.
    pub fn step(&self, number: u32) -> Option<&Step> {
        let index = usize::try_from(number.checked_sub(1)?).ok()?;
        self.steps.get(index)
    }

    /// How many steps there are.
    pub fn last(&self) -> u32 {
        u32::try_from(self.steps.len()).unwrap_or(u32::MAX)
    }

    /// The first step that gives the candidate everything.
    pub(super) fn whole(&self) -> Option<u32> {
        (1..)
            .zip(&self.steps)
            .find(|(_, step)| step.share == Share::WHOLE)
            .map(|(number, _)| number)
    }
}

/// One entry of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The candidate's share.
    pub share: Share,
    /// Names of the segments that are admitted whatever the share (a ring).
    pub segments: Box<[Box<str>]>,
    /// How many of the requests that stable answers are copied for the candidate (a mirror step). Not zero: it has no share,
    /// and nobody is admitted.
    pub mirror: Share,
    /// How long the step lasts at least.
    pub hold: Duration,
    /// Whether somebody must approve before the next step.
    pub approval: bool,
}

/// How a rollout begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// By itself, when a candidate of a new name appears.
    Automatic,
    Manual,
}

/// How the candidate is judged. The machine acts on verdicts; what they are made of is for the judge.
#[derive(Debug, Clone, PartialEq)]
pub struct Analysis {
    /// The time after a step begins in which latency does not count.
    pub warmup: Duration,
    /// Requests of the candidate in a step without which there is no verdict.
    pub min_requests: u64,
    /// Of 100 rollouts of a version identical to stable, how many are not rolled back.
    pub confidence: Share,
    pub on_no_evidence: OnNoEvidence,
    /// How long a step waits for evidence, from its beginning, but not less than its hold. `None`: with
    /// [`OnNoEvidence::Hold`] for ever, else its hold.
    pub max_hold: Option<Duration>,
    /// The application's own numbers: at most [`MAX_METRICS`], in the order of [`analysis::Observed::values`].
    pub metrics: Box<[HeaderMetric]>,
    /// Those of the file, and then a report for each metric that none of them asks for.
    pub checks: Box<[CheckPlan]>,
}

/// What happens to a step that waited long enough for evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnNoEvidence {
    Hold,
    Proceed,
    Rollback,
}

/// One condition, and what follows where it does not hold.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckPlan {
    pub check: analysis::Check,
    /// Of no meaning for a [report](analysis::Test::is_report).
    pub on_fail: Action,
    /// Where the number comes from, when it is not the proxy's own: the test is then [`analysis::Test::OutsideWithin`].
    pub prometheus: Option<Query>,
}

/// The most numbers of an application that are read from its answers.
pub const MAX_METRICS: usize = 8;

/// A number that the application writes into a header of its answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderMetric {
    pub name: Box<str>,
    /// In lowercase.
    pub from_header: Box<str>,
    pub worse: analysis::Worse,
}

/// A number that a Prometheus server has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    pub url: Url,
    pub query: Box<str>,
    /// Time between two questions.
    pub every: Duration,
}

/// What a failed check does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Rollback,
    Pause,
    StepBack,
}

/// Somebody who is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    pub before: Before,
    pub webhook: Url,
}

/// What a gate holds back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// The first step.
    Start,
    /// Each later one.
    Step,
    /// The step that gives the candidate everything.
    Promote,
}

/// Somebody who is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notify {
    pub to: Receiver,
    /// `None`: of everything.
    pub events: Option<Box<[Notice]>>,
}

/// In which form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Receiver {
    Slack(Url),
    Webhook(Url),
}

/// What a notification is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    Start,
    Step,
    Approval,
    Pause,
    Resume,
    /// The candidate gets everything.
    Promote,
    /// The bake is over: it is delivered.
    Success,
    Rollback,
    Kill,
}

impl Notice {
    /// As the file names it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Step => "step",
            Self::Approval => "approval",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Promote => "promote",
            Self::Success => "success",
            Self::Rollback => "rollback",
            Self::Kill => "kill",
        }
    }
}

/// An address that may hold a secret (those of Slack do): shown without its path and query.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(Box<str>);

impl Url {
    pub fn new(url: &str) -> Self {
        Self(url.into())
    }

    /// The whole of it, for who calls it.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

/// `https://hooks.slack.example/…`
impl fmt::Display for Url {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.0.find("://").map_or(0, |end| end + "://".len());
        let (scheme, rest) = self.0.split_at(scheme);
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.rsplit('@').next().unwrap_or_default();
        let more = if authority.len() < rest.len() { "/…" } else { "" };
        write!(out, "{scheme}{host}{more}")
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_secrets() {
        for (url, shown) in [
            (
                "https://hooks.slack.example/services/T0/B0/secret",
                "https://hooks.slack.example/…",
            ),
            (
                "http://user:secret@127.0.0.1:7000?token=secret",
                "http://127.0.0.1:7000/…",
            ),
            ("http://127.0.0.1:7000", "http://127.0.0.1:7000"),
            ("hooks.slack.example/services/secret", "hooks.slack.example/…"),
            ("user:secret@127.0.0.1:7000", "127.0.0.1:7000"),
        ] {
            assert_eq!(Url::new(url).to_string(), shown);
            assert_eq!(format!("{:?}", Url::new(url)), shown);
            assert_eq!(Url::new(url).secret(), url);
        }
    }
}
