//! When the weights move: [`advance`] turns a [`Plan`], a [`State`], an [`Event`] and the time into the next state and the
//! [`Effect`]s that carry it out. [`advance_train`] does it for services that are delivered together, [`simulate::simulate`]
//! for whole rollouts in virtual time.
//!
//! # Whose the split is
//!
//! From [`Effect::TakeSplit`] to [`Effect::ReleaseSplit`] the rollout decides the service's split
//! ([`State::owns_split`]). The weights in force at the first are those that [`at_share`] works from: it changes the
//! candidate's weight and leaves the others as they are to each other. Weights of the file are recorded meanwhile
//! ([`Event::FileWeights`]) and come with [`Effect::ApplyWeights`] after the end; after a rollback without those of the
//! candidate. Weights that a person sets pause it ([`Event::WeightsSet`]); a resume gives the candidate nothing: the rollout
//! goes on from the step that gives no more than what is in force.
//!
//! # Evidence and steps
//!
//! The judge is `analysis`; its findings come as one [`Judgement`] ([`Analysis::judgement`]) with each [`Event::Look`], and it
//! is told when evidence begins anew ([`Scope`]). There are two views of it:
//!
//! - that of the step, for whether enough was seen at this share: it begins anew with each step entered;
//! - that of the rollout, for whether the candidate is worse: it goes on from step to step, so that looking at every step
//!   does not multiply false alarms. It begins anew with a new rollout, after a step back, and when a person resumes or
//!   promotes what a failed check had paused.
//!
//! The failures that the guard counts are those since the rollout began; only a new rollout forgets them. Each beginning
//! gets a number ([`State::window`]): a judgement or an answer of a gate that is about another window is not
//! looked at, so nothing moves on a verdict from before.
//!
//! # Durable first, or at once
//!
//! [`toward`] says of the effects of an event whether they wait for the disk (they give the candidate something), or
//! come first and are written after (a rollback, a kill, a pause). A process that ends between a rollback and its
//! record finds the state from before it, with its evidence, and judges that again.

mod commands;
mod event;
#[cfg(test)]
mod fixture;
pub mod forecast;
mod freeze;
mod judging;
mod machine;
mod moves;
mod plan;
mod query;
mod share;
pub mod simulate;
mod state;
mod train;
mod words;

pub use event::{
    Answer, By, Command, Companion, Effect, Event, Judgement, Look, Now, Scope, Toward, Verb, refusal, toward,
};
pub use freeze::{Freeze, FreezeError, frozen};
pub use machine::{LONGEST_GAP, advance};
pub use plan::{
    Action, Analysis, Before, CheckPlan, Gate, HeaderMetric, MAX_GATES, MAX_METRICS, Notice, Notify, OnNoEvidence,
    Plan, Query, Receiver, Start, Step, Url,
};
pub use query::{FRESH_FOR, VARIABLES, Variables, filled};
pub use share::{Share, at_share, share_of};
pub use state::{Cause, Live, Phase, Reason, State, Wait, Weights};
pub use train::advance_train;
pub use words::{about, duration, exposure, standing};

#[cfg(test)]
mod tests;
