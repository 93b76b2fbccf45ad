//! The judge of real rollouts, shown a simulated one: [`Court`].

use super::dice::{Atoms, Dice};
use super::progress::Progress;
use crate::analysis::{Arm, Histogram, Judge, Names, Observed, Test, Window};
use crate::cli::planned::Planned;
use crate::rollout::simulate::{self, Slice};
use crate::rollout::{Judgement, Plan, Scope};

pub struct Court<'c> {
    judge: Judge,
    names: Names<'c>,
    atoms: &'c Atoms,
    dice: Dice,
    /// Whether any check looks at latencies: drawing them is most of the cost.
    with_latencies: bool,
    progress: &'c mut Progress,
}

impl<'c> Court<'c> {
    pub fn new(planned: &'c Planned, atoms: &'c Atoms, dice: Dice, progress: &'c mut Progress) -> Self {
        let mut checks = planned.plan.analysis.checks.iter();
        Self {
            judge: Judge::new(planned.plan.analysis.rules()),
            names: Names {
                candidate: &planned.plan.candidate,
                stable: &planned.stable,
            },
            atoms,
            dice,
            with_latencies: checks.any(|planned| {
                matches!(
                    planned.check.test,
                    Test::LatencyCompared { .. } | Test::LatencyAtMost { .. }
                )
            }),
            progress,
        }
    }

    fn observed(&mut self, arm: &simulate::Arm) -> Observed {
        let mut durations = Histogram::default();
        if self.with_latencies {
            self.atoms
                .draw(&mut self.dice, arm.requests, arm.behaviour.slowness, &mut durations);
        }
        Observed {
            requests: Arm {
                begun: arm.requests,
                ended: arm.requests,
                bad: arm.failures,
            },
            mismatched: 0,
            durations,
            values: Vec::new(),
        }
    }
}

impl simulate::Judge for Court<'_> {
    fn reset(&mut self, scope: Scope) {
        match scope {
            Scope::Step => self.judge.begin_step(),
            Scope::Checks | Scope::Rollout => self.judge = Judge::new(self.judge.rules().clone()),
        }
    }

    fn judge(&mut self, plan: &Plan, slice: &Slice) -> Judgement {
        self.progress.is_at(slice.at);
        let pairs = slice.pairs;
        let (candidate, stable, share) = match pairs {
            Some(pairs) => (pairs.copies, pairs.originals, Window::SHARE_OF_PAIRS),
            None => (slice.candidate, slice.stable, slice.share.fraction()),
        };
        let (candidate, forced) = (self.observed(&candidate), self.observed(&slice.ring));
        let stable = self.observed(&stable);
        let window = Window {
            candidate: &candidate,
            forced: &forced,
            stable: &stable,
            share,
            warming: slice.in_step <= plan.analysis.warmup,
            mirrored: pairs.is_some(),
        };
        self.judge.tick(&window, slice.length);
        plan.analysis.judgement(&self.judge.findings(self.names))
    }
}
