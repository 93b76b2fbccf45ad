//! How a candidate is judged: analysis and its checks.

use super::Context;
use super::rollout::rollout_share;
use crate::analysis::{Check, Limits, Test};
use crate::config::problem::{Path, nearest, printable, shown};
use crate::config::schema;
use crate::config::units;
use crate::rollout::{Action, Analysis, CheckPlan, FRESH_FOR, OnNoEvidence, Query, Url, VARIABLES, Variables, filled};
use std::time::Duration;

const MAX_CHECKS: usize = 32;
const OWN_METRICS: [&str; 6] = [
    "error_rate",
    "latency_p50",
    "latency_p90",
    "latency_p95",
    "latency_p99",
    "latency_p999",
];

/// The least time between two queries: rollouts are looked at once a second.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// A metric that the proxy measures itself.
#[derive(Clone, Copy, PartialEq)]
enum OwnMetric {
    ErrorRate,
    /// A quantile, above 0.0 and below 1.0.
    Latency(f64),
}

fn own_metric(name: &str) -> Option<OwnMetric> {
    if name == "error_rate" {
        return Some(OwnMetric::ErrorRate);
    }
    let quantile = name.strip_prefix("latency_p")?;
    match quantile.len() {
        2 => units::whole(quantile, 1, 99).map(|percent| OwnMetric::Latency(percent as f64 / 100.0)),
        _ if quantile == "999" => Some(OwnMetric::Latency(0.999)),
        _ => None,
    }
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

    fn prometheus(&mut self, prometheus: &schema::Prometheus, path: &Path<'_>) {
        if let Some(url) = prometheus.url.get() {
            self.url(url, &path.key("url"));
        }
        if let Some(query) = prometheus.query.get() {
            self.query(query, &path.key("query"));
        }
        if prometheus.every.0 < SHORTEST_INTERVAL {
            self.problems
                .add(&path.key("every"), "expected a duration of `1s` or more");
        }
    }

    fn query(&mut self, query: &str, path: &Path<'_>) {
        if query.trim().is_empty() {
            self.problems.add(path, "expected a query, found an empty string");
        }
        let variables = Variables {
            service: "",
            candidate: "",
            stable: "",
            interval: SHORTEST_INTERVAL,
        };
        if let Err(found) = filled(query, variables) {
            let message = format!(
                "expected `{{{{service}}}}`, `{{{{candidate}}}}`, `{{{{stable}}}}` or `{{{{interval}}}}`, found {}",
                shown(&found)
            );
            let name = found.trim_matches(['{', '}', ' ']);
            let suggestion = nearest(name, VARIABLES);
            self.problems.add_with(path, message, suggestion);
        }
    }

    fn check(&mut self, check: &schema::Check, path: &Path<'_>) -> Option<CheckPlan> {
        if let Some(prometheus) = &check.prometheus {
            self.prometheus(prometheus, &path.key("prometheus"));
        }
        let limited = check.max.is_some() || check.min.is_some();
        let compared = check.compared_to.is_some();
        match (compared, limited) {
            (true, false) if check.prometheus.is_some() => {
                let message = "a query has one number and not one of each version: expected `max` or `min`";
                self.problems.add(&path.key("compared_to"), message);
            }
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
        let test = self.test(check, path)?;
        let prometheus = match &check.prometheus {
            Some(prometheus) => Some(Query {
                url: Url::new(prometheus.url.get()?),
                query: prometheus.query.get()?.as_str().into(),
                every: prometheus.every.0,
            }),
            None => None,
        };
        Some(CheckPlan {
            check: Check {
                metric: check.metric.get()?.clone(),
                test,
            },
            prometheus,
            on_fail: match check.on_fail {
                schema::OnFail::Rollback => Action::Rollback,
                schema::OnFail::Pause => Action::Pause,
                schema::OnFail::StepBack => Action::StepBack,
            },
        })
    }

    fn test(&mut self, check: &schema::Check, path: &Path<'_>) -> Option<Test> {
        let name = check.metric.get()?;
        let here = path.key("metric");
        let own = own_metric(name);
        match (own, &check.prometheus) {
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
        let max = self.limit(own, check.max.as_deref(), &path.key("max"))?;
        let min = self.limit(own, check.min.as_deref(), &path.key("min"))?;
        let tolerance = check.tolerance.map(|tolerance| tolerance.fraction());
        Some(match (own, tolerance) {
            (Some(OwnMetric::ErrorRate), Some(tolerance)) => Test::ErrorsCompared { tolerance },
            (Some(OwnMetric::ErrorRate), None) => Test::ErrorsAtMost { limit: max? },
            (Some(OwnMetric::Latency(quantile)), Some(tolerance)) => Test::LatencyCompared { quantile, tolerance },
            (Some(OwnMetric::Latency(quantile)), None) => Test::LatencyAtMost {
                quantile,
                limit_us: (max? * 1e6).round() as u64,
            },
            (None, _) => Test::OutsideWithin {
                limits: Limits { min, max },
                fresh_for: check.prometheus.as_ref()?.every.0.saturating_mul(FRESH_FOR),
            },
        })
    }

    /// A limit in the unit of its metric: a part of one, or seconds. The outer `None`: it is wrong; the inner: there is none.
    fn limit(&mut self, own: Option<OwnMetric>, limit: Option<&str>, path: &Path<'_>) -> Option<Option<f64>> {
        let Some(limit) = limit else { return Some(None) };
        let share = |text| units::share(text).map(units::Share::fraction);
        let duration = |text| units::duration(text).map(|duration| duration.as_secs_f64());
        let parsed = match own {
            Some(OwnMetric::ErrorRate) => share(limit),
            Some(OwnMetric::Latency(_)) => duration(limit),
            None => {
                let other = || share(limit).or_else(|_| duration(limit));
                units::number(limit)
                    .map_or_else(other, Ok)
                    .map_err(|_| units::UnitError {
                        message: "a number, a percentage or a duration",
                        suggestion: None,
                    })
            }
        };
        if let Err(error) = &parsed {
            let message = format!("expected {}, found {}", error.message, shown(limit));
            self.problems.add_with(path, message, error.suggestion.clone());
        }
        parsed.ok().map(Some)
    }
}
