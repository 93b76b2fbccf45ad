//! What happens to a rollout, and what it asks for: [`Event`], [`Effect`].

use super::plan::{Action, Notice};
use super::share::Share;
use super::state::{Reason, Weights};
use std::fmt;

/// The time of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Monotonic milliseconds since the process began. Holds are counted with it.
    pub uptime_ms: u64,
    /// Seconds since the Unix epoch, of a clock that may jump. Freeze windows are looked up with it, nothing else.
    pub unix_s: i64,
}

/// What happens to a rollout.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// At least once a second, at once on a burst of failures, and best before each command: a `promote` goes by the
    /// obstacle of the last look.
    Look(Look),
    Command(Command),
    /// What a gate answered to [`Effect::AskGate`].
    Gate {
        /// Position in the plan.
        gate: usize,
        /// As it was asked.
        window: u64,
        answer: Answer,
    },
    /// The plan comes from a file that was just read: its candidate may be new, its steps and checks edited.
    Loaded,
    /// The plan is that of the file before: the new one has no rollout for the service.
    Removed,
    /// The state was read from the store of a process that ended.
    Restored,
    /// A kill switch holds the service (its own, or that of all).
    Killed(By),
    /// The last one was released.
    Unkilled(By),
    /// A person set the service's weights; the candidate now has `share`.
    WeightsSet {
        share: Share,
        by: By,
    },
    /// The file's weights of the service are others than before.
    FileWeights(Weights),
    /// Another service of its train: see [`super::advance_train`].
    Train(Companion),
}

/// What is known at this moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Look {
    /// [`super::State::window`] when the judgement was made: one of another window is not looked at.
    pub window: u64,
    pub judgement: Judgement,
    /// Failed requests of the candidate in this rollout.
    pub failures: u64,
    /// What forbids traffic for the candidate now, in a sentence: no healthy endpoint, a state that cannot be made durable.
    /// It holds until the next look.
    pub obstacle: Option<String>,
}

/// All verdicts on the candidate as one.
#[derive(Debug, Clone, PartialEq)]
pub enum Judgement {
    /// Every check passes; or there are none.
    Pass,
    /// A check fails. Where several do, the most severe action comes first: [`Action::Rollback`], step back, pause.
    Fail { action: Action, sentence: String },
    /// At least one check has no verdict yet, or its number could not be had. Says which.
    NoEvidence(String),
}

/// A command of a person (or a script of theirs).
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    pub verb: Verb,
    pub by: By,
}

/// As in `rollgate rollout VERB SERVICE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    Start,
    Pause,
    Resume,
    Approve,
    Promote,
    Rollback,
    Retry,
}

impl Verb {
    pub const ALL: [Self; 7] = [
        Self::Start,
        Self::Pause,
        Self::Resume,
        Self::Approve,
        Self::Promote,
        Self::Rollback,
        Self::Retry,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Approve => "approve",
            Self::Promote => "promote",
            Self::Rollback => "rollback",
            Self::Retry => "retry",
        }
    }

    /// The verb of that word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.word() == word)
    }
}

/// Who, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By {
    pub who: String,
    pub why: Option<String>,
}

/// `by ada: errors on the phone`
impl fmt::Display for By {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "by {}", self.who)?;
        self.why.as_ref().map_or(Ok(()), |why| write!(out, ": {why}"))
    }
}

/// What a gate says.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Yes,
    /// In a sentence.
    No(String),
    /// It could not be asked, or answered something else: not a yes, and not a failure of the candidate.
    Error(String),
}

/// What the other services of a train did.
#[derive(Debug, Clone, PartialEq)]
pub enum Companion {
    /// All are ready: on to the next step.
    Depart,
    /// `service` was rolled back.
    RolledBack { service: Box<str>, reason: Reason },
    /// `service` went back to `step`.
    SteppedBack { service: Box<str>, step: u32 },
}

/// Whether a change gives users to the candidate, or takes them from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Toward {
    /// Do it first, write it afterwards: it must work when nothing else does.
    Stable,
    /// Make it durable first; if that fails, do nothing of it and keep the old state.
    Canary,
}

/// What a rollout asks for, in this order. Carried out whole: see [`toward`].
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// The weights in force are those from before: remember them for [`super::at_share`].
    TakeSplit,
    /// The candidate's share. What is so already is said again where that matters.
    SetShare {
        candidate: Box<str>,
        share: Share,
        toward: Toward,
    },
    /// Segments by name, instead of those before, that are admitted to the candidate; none: nobody.
    Admit {
        candidate: Box<str>,
        segments: Vec<Box<str>>,
        toward: Toward,
    },
    /// How many of the requests that stable answers are copied for the candidate from now on; zero: none.
    Mirror {
        candidate: Box<str>,
        share: Share,
        toward: Toward,
    },
    /// All affinity cookies of the service are void.
    Revoke,
    /// The rollout no longer decides the split: what is in force stays until somebody sets it.
    ReleaseSplit,
    /// Weights of the file that are in force from now on.
    ApplyWeights(Weights),
    /// Evidence begins anew; judgements from now on are about `window`.
    ResetEvidence { scope: Scope, window: u64 },
    /// Ask the gate at this position of the plan; the answer comes back with `window`.
    AskGate { gate: usize, window: u64 },
    /// For the receivers of the plan, and for the audit log.
    Notify { notice: Notice, sentence: String },
    /// For the audit log.
    Report(String),
    /// The command changed nothing: why, and what can be done instead (HTTP 409, exit code 3).
    Refused(String),
}

/// How much evidence begins anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// That of the step: whether enough was seen at this share. Comparisons go on, so that looking at each step anew does
    /// not multiply false alarms.
    Step,
    /// That of the checks, comparisons included: what spoke against the candidate was acted upon, or a person knew better.
    /// The count of failures for the guard goes on.
    Checks,
    /// All of it, the count of failures too: another rollout begins.
    Rollout,
}

/// Whether the effects of one event are to be made durable first. A share that falls never waits; but for that, what gives
/// anything does, and so do weights of the file, which may.
pub fn toward(effects: &[Effect]) -> Toward {
    let falls = effects.iter().any(|effect| {
        matches!(
            effect,
            Effect::SetShare {
                toward: Toward::Stable,
                ..
            }
        )
    });
    let gives = effects.iter().any(|effect| match effect {
        Effect::SetShare { toward, .. } | Effect::Admit { toward, .. } | Effect::Mirror { toward, .. } => {
            *toward == Toward::Canary
        }
        Effect::ApplyWeights(_) => !falls,
        _ => false,
    });
    if gives { Toward::Canary } else { Toward::Stable }
}

/// Why a command was refused; `None`: it was not.
pub fn refusal(effects: &[Effect]) -> Option<&str> {
    effects.iter().find_map(|effect| match effect {
        Effect::Refused(why) => Some(why.as_str()),
        _ => None,
    })
}
