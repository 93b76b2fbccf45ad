//! Between a plan and the judge: its rules, and its findings as one judgement.

use super::event::Judgement;
use super::plan::{Action, Analysis};
use crate::analysis::{Finding, Rules, Verdict};

impl Analysis {
    /// What the judge goes by.
    pub fn rules(&self) -> Rules {
        Rules {
            confidence: self.confidence.fraction(),
            min_requests: self.min_requests,
            checks: self.checks.iter().map(|planned| planned.check.clone()).collect(),
        }
    }

    /// The findings of the judge, in the order of the checks, as one judgement. Of several failed checks the one whose
    /// action takes the most from the candidate decides, of equals the first. A finding that is missing is no evidence.
    pub fn judgement(&self, findings: &[Finding]) -> Judgement {
        let mut failed: Option<(Action, &str)> = None;
        let mut missing: Vec<&str> = Vec::new();
        for (index, planned) in self.checks.iter().enumerate() {
            let (verdict, reason) = match findings.get(index) {
                Some(finding) => (finding.verdict, finding.reason.as_str()),
                None => (Verdict::NoEvidence, "nothing was found yet"),
            };
            match verdict {
                Verdict::Pass => {}
                Verdict::NoEvidence | Verdict::Error => missing.push(reason),
                Verdict::Fail if failed.is_none_or(|(action, _)| severity(planned.on_fail) > severity(action)) => {
                    failed = Some((planned.on_fail, reason));
                }
                Verdict::Fail => {}
            }
        }
        if let Some((action, reason)) = failed {
            let sentence = reason.to_owned();
            return Judgement::Fail { action, sentence };
        }
        match missing.as_slice() {
            [] => Judgement::Pass,
            [one] => Judgement::NoEvidence((*one).to_owned()),
            [first, more @ ..] => Judgement::NoEvidence(format!("{first} (and {} more)", more.len())),
        }
    }
}

/// What a failed check takes from the candidate, in order.
fn severity(action: Action) -> u8 {
    match action {
        Action::Pause => 0,
        Action::StepBack => 1,
        Action::Rollback => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::small_plan;
    use super::super::{CheckPlan, Share};
    use super::*;
    use crate::analysis::{Check, Judge, Names, Observed, Test, Window};

    fn analysis(actions: &[Action]) -> Analysis {
        let check = |on_fail: &Action| CheckPlan {
            check: Check {
                metric: "error_rate".to_owned(),
                test: Test::ErrorsAtMost { limit: 0.02 },
            },
            on_fail: *on_fail,
            prometheus: None,
        };
        Analysis {
            checks: actions.iter().map(check).collect(),
            ..small_plan().analysis
        }
    }

    fn finding(verdict: Verdict, reason: &str) -> Finding {
        Finding {
            metric: "error_rate".to_owned(),
            verdict,
            reason: reason.to_owned(),
            candidate: None,
            stable: None,
            evidence: None,
            needed: None,
        }
    }

    #[test]
    fn the_worst_of_the_findings_decides() {
        use Action::{Pause, Rollback, StepBack};
        use Verdict::{Error, Fail, NoEvidence, Pass};
        let judged = |actions: &[Action], verdicts: &[Verdict]| {
            let findings: Vec<Finding> = verdicts
                .iter()
                .zip(["a", "b", "c"])
                .map(|(verdict, reason)| finding(*verdict, reason))
                .collect();
            analysis(actions).judgement(&findings)
        };
        let fail = |action, sentence: &str| Judgement::Fail {
            action,
            sentence: sentence.to_owned(),
        };
        let missing = |text: &str| Judgement::NoEvidence(text.to_owned());
        assert_eq!(judged(&[], &[]), Judgement::Pass);
        assert_eq!(judged(&[Pause, Rollback], &[Pass, Pass]), Judgement::Pass);
        assert_eq!(judged(&[Pause, Rollback], &[Pass, NoEvidence]), missing("b"));
        assert_eq!(
            judged(&[Pause, Rollback, Pause], &[Error, Pass, NoEvidence]),
            missing("a (and 1 more)")
        );
        assert_eq!(judged(&[Pause, Rollback], &[Pass]), missing("nothing was found yet"));
        assert_eq!(judged(&[Pause, Rollback], &[Fail, NoEvidence]), fail(Pause, "a"));
        assert_eq!(
            judged(&[Pause, StepBack, Rollback], &[Fail, Fail, Fail]),
            fail(Rollback, "c")
        );
        assert_eq!(
            judged(&[Pause, StepBack, Rollback], &[Fail, Fail, Pass]),
            fail(StepBack, "b")
        );
        assert_eq!(judged(&[Rollback, Rollback], &[Fail, Fail]), fail(Rollback, "a"));
    }

    #[test]
    fn the_judge_finds_by_the_rules_of_the_plan() {
        let analysis = Analysis {
            confidence: Share::from_thousandths(95_000),
            ..analysis(&[Action::Rollback])
        };
        assert!((analysis.rules().confidence - 0.95).abs() < 1e-12);
        let mut judge = Judge::new(analysis.rules());
        let names = Names {
            candidate: "v2",
            stable: "v1",
        };
        assert!(matches!(
            analysis.judgement(&judge.findings(names)),
            Judgement::NoEvidence(_)
        ));
        let mut bad = Observed::default();
        (bad.requests.begun, bad.requests.ended, bad.requests.bad) = (50, 50, 50);
        let nothing = Observed::default();
        judge.burst(&Window {
            candidate: &bad,
            forced: &nothing,
            stable: &nothing,
            share: 0.1,
            warming: false,
            mirrored: false,
        });
        let judgement = analysis.judgement(&judge.findings(names));
        assert!(
            matches!(&judgement, Judgement::Fail { action: Action::Rollback, sentence } if sentence.contains("50/50")),
            "{judgement:?}"
        );
    }
}
