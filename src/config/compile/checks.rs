//! How a candidate is judged: analysis and its checks.

use super::Context;
use super::rollout::rollout_share;
use crate::config::problem::{Path, nearest, printable, shown};
use crate::config::schema;
use crate::config::units;
use crate::rollout::{Action, Analysis, Check, Condition, Limit, Metric, OnNoEvidence, Url};

const MAX_CHECKS: usize = 32;
const OWN_METRICS: [&str; 6] = [
    "error_rate",
    "latency_p50",
    "latency_p90",
    "latency_p95",
    "latency_p99",
    "latency_p999",
];

/// A metric that the proxy measures itself.
fn own_metric(name: &str) -> Option<Metric> {
    if name == "error_rate" {
        return Some(Metric::ErrorRate);
    }
    let quantile = name.strip_prefix("latency_p")?;
    let per_mille = match quantile.len() {
        2 => units::whole(quantile, 1, 99)? * 10,
        _ if quantile == "999" => 999,
        _ => return None,
    };
    let per_mille = u16::try_from(per_mille).ok()?;
    Some(Metric::Latency { per_mille })
}

impl Context<'_> {
    pub(super) fn analysis(&mut self, analysis: &schema::Analysis, path: &Path<'_>) -> Option<Analysis> {
        let confidence = analysis.confidence.thousandths_percent();
        if !(50_000..100_000).contains(&confidence) {
            self.problems
                .add(&path.key("confidence"), "expected a percentage from `50%` to `99.999%`");
        }
        let checks_path = path.key("checks");
        self.count(&analysis.checks, 0, MAX_CHECKS, "checks", &checks_path);
        let checks = analysis
            .checks
            .compile(|index, check| self.check(check, &checks_path.index(index)));
        Some(Analysis {
            warmup: analysis.warmup.0,
            min_requests: analysis.min_requests.0,
            confidence: rollout_share(analysis.confidence),
            on_no_evidence: match analysis.on_no_evidence {
                schema::OnNoEvidence::Hold => OnNoEvidence::Hold,
                schema::OnNoEvidence::Proceed => OnNoEvidence::Proceed,
                schema::OnNoEvidence::Rollback => OnNoEvidence::Rollback,
            },
            max_hold: analysis.max_hold.map(|max_hold| max_hold.0),
            checks: checks?,
        })
    }

    fn check(&mut self, check: &schema::Check, path: &Path<'_>) -> Option<Check> {
        if let Some(prometheus) = &check.prometheus {
            let here = path.key("prometheus");
            if let Some(url) = prometheus.url.get() {
                self.url(url, &here.key("url"));
            }
            if prometheus.query.get().is_some_and(|query| query.trim().is_empty()) {
                self.problems
                    .add(&here.key("query"), "expected a query, found an empty string");
            }
        }
        let limited = check.max.is_some() || check.min.is_some();
        let compared = check.compared_to.is_some();
        match (compared, limited) {
            (true, true) => {
                self.problems
                    .add(path, "`compared_to` is given beside a limit: expected only one of them");
            }
            (false, false) if !self.problems.any_below(path) => {
                self.problems.add(
                    path,
                    "a check without a condition: expected `compared_to`, `max` or `min`",
                );
            }
            _ => {}
        }
        if compared != check.tolerance.is_some() && !self.problems.any_below(path) {
            self.problems.add(
                path,
                "`compared_to` and `tolerance` belong together: expected both or neither",
            );
        }
        let (metric, within) = self.metric(check, path)?;
        Some(Check {
            metric,
            condition: match check.tolerance {
                Some(tolerance) => Condition::ComparedToStable {
                    tolerance: rollout_share(tolerance),
                },
                None => within,
            },
            on_fail: match check.on_fail {
                schema::OnFail::Rollback => Action::Rollback,
                schema::OnFail::Pause => Action::Pause,
                schema::OnFail::StepBack => Action::StepBack,
            },
        })
    }

    /// The metric, and its limits.
    fn metric(&mut self, check: &schema::Check, path: &Path<'_>) -> Option<(Metric, Condition)> {
        let name = check.metric.get()?;
        let here = path.key("metric");
        let own = own_metric(name);
        match (&own, &check.prometheus) {
            (None, None) if !self.problems.any_below(&path.key("prometheus")) => {
                let suggestion = nearest(name, OWN_METRICS);
                let message = format!(
                    "`{}` is not measured by the proxy: expected `error_rate`, `latency_p50` to `latency_p99`, \
                     `latency_p999`, or a `prometheus` query",
                    printable(name)
                );
                self.problems.add_with(&here, message, suggestion);
            }
            (Some(_), Some(_)) => {
                let message = format!("`{name}` is measured by the proxy itself: expected another name for a query");
                self.problems.add(&here, message);
            }
            (None, _) => {
                self.name(name, &here);
            }
            (Some(_), None) => {}
        }
        if own.is_some() && check.min.is_some() {
            let message = format!("`{name}` is better the lower it is: expected `max`");
            self.problems.add(&path.key("min"), message);
        }
        let mut limit = |key: &'static str, limit: &Option<String>| match limit {
            Some(limit) => self.limit(own.as_ref(), limit, &path.key(key)).map(Some),
            None => Some(None),
        };
        let (max, min) = (limit("max", &check.max), limit("min", &check.min));
        let metric = match own {
            Some(own) => own,
            None => outside(name, check.prometheus.as_ref()?)?,
        };
        Some((metric, Condition::Within { min: min?, max: max? }))
    }

    /// A limit in the unit of its metric.
    fn limit(&mut self, own: Option<&Metric>, limit: &str, path: &Path<'_>) -> Option<Limit> {
        let share = |text| units::share(text).map(|share| Limit::Share(rollout_share(share)));
        let duration = |text| units::duration(text).map(Limit::Duration);
        let parsed = match own {
            Some(Metric::ErrorRate) => share(limit),
            Some(_) => duration(limit),
            None => {
                let number = units::number(limit).map(Limit::Number);
                let other = || share(limit).or_else(|_| duration(limit));
                number.map_or_else(other, Ok).map_err(|_| units::UnitError {
                    message: "a number, a percentage or a duration",
                    suggestion: None,
                })
            }
        };
        match parsed {
            Ok(limit) => Some(limit),
            Err(error) => {
                let message = format!("expected {}, found {}", error.message, shown(limit));
                self.problems.add_with(path, message, error.suggestion);
                None
            }
        }
    }
}

fn outside(name: &str, prometheus: &schema::Prometheus) -> Option<Metric> {
    Some(Metric::Prometheus {
        name: name.into(),
        url: Url::new(prometheus.url.get()?),
        query: prometheus.query.get()?.as_str().into(),
        every: prometheus.every.0,
    })
}
