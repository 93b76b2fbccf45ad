//! How a candidate is judged: analysis and its checks.

use super::Context;
use super::rollout::rollout_share;
use crate::analysis::{Check, Limits, Test, Worse};
use crate::config::decode::{List, Map};
use crate::config::problem::{Path, nearest, printable, shown};
use crate::config::schema;
use crate::config::units;
use crate::rollout::{
    Action, Analysis, CheckPlan, FRESH_FOR, HeaderMetric, MAX_METRICS, OnNoEvidence, Query, Url, VARIABLES, Variables,
    filled,
};
use std::time::Duration;

const MAX_CHECKS: usize = 32;
const OWN_METRICS: [&str; 7] = [
    "error_rate",
    "mismatch_rate",
    "latency_p50",
    "latency_p90",
    "latency_p95",
    "latency_p99",
    "latency_p999",
];

/// The least time between two queries: rollouts are looked at once a second.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// What a check is about.
#[derive(Clone, Copy, PartialEq)]
enum Subject {
    ErrorRate,
    /// Of copies, by their status.
    MismatchRate,
    /// A quantile, above 0.0 and below 1.0.
    Latency(f64),
    /// An application's number: its position.
    Value(usize, Worse),
    /// The answer to a query.
    Query,
}

impl Subject {
    fn is_measured_here(self) -> bool {
        matches!(self, Self::ErrorRate | Self::MismatchRate | Self::Latency(_))
    }
}

/// A metric that the proxy measures itself.
fn own_metric(name: &str) -> Option<Subject> {
    if name == "error_rate" {
        return Some(Subject::ErrorRate);
    }
    if name == "mismatch_rate" {
        return Some(Subject::MismatchRate);
    }
    let quantile = name.strip_prefix("latency_p")?;
    match quantile.len() {
        2 => units::whole(quantile, 1, 99).map(|percent| Subject::Latency(percent as f64 / 100.0)),
        _ if quantile == "999" => Some(Subject::Latency(0.999)),
        _ => None,
    }
}

fn worse(worse: schema::Worse) -> Worse {
    match worse {
        schema::Worse::Lower => Worse::Lower,
        schema::Worse::Higher => Worse::Higher,
    }
}

/// Numbers that no check asks for: how the versions differ in them is reported.
fn reports<'m>(metrics: &'m [HeaderMetric], checks: &'m List<schema::Check>) -> impl Iterator<Item = CheckPlan> + 'm {
    let asked = |name: &str| {
        checks
            .iter()
            .any(|(_, check)| check.metric.get().is_some_and(|metric| metric == name))
    };
    let reported = metrics
        .iter()
        .enumerate()
        .filter(move |(_, metric)| !asked(&metric.name));
    reported.map(|(value, metric)| CheckPlan {
        check: Check {
            metric: metric.name.to_string(),
            test: Test::MeanReported { value },
        },
        on_fail: Action::Pause,
        prometheus: None,
    })
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
        let metrics = self.header_metrics(&analysis.metrics, &path.key("metrics"));
        let checks = analysis
            .checks
            .compile(|index, check| self.check(check, &analysis.metrics, &checks_path.index(index)));
        let (metrics, checks) = (metrics?, checks?);
        let checks = checks.into_iter().chain(reports(&metrics, &analysis.checks)).collect();
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
            metrics,
            checks,
        })
    }

    fn header_metrics(&mut self, metrics: &Map<schema::HeaderMetric>, path: &Path<'_>) -> Option<Box<[HeaderMetric]>> {
        if metrics.len() > MAX_METRICS {
            let message = format!("expected at most {MAX_METRICS} metrics, found {}", metrics.len());
            self.problems.add(path, message);
            return None;
        }
        let compiled: Vec<Option<HeaderMetric>> = metrics
            .iter()
            .map(|(name, metric)| {
                let here = path.key(name);
                if self.name(name, &here) && own_metric(name).is_some() {
                    let message = format!("`{name}` is measured by the proxy itself: expected another name");
                    self.problems.add_key(&here, message, None);
                }
                let metric = metric?;
                let header = metric.from_header.get();
                let header = header.and_then(|header| self.header_name(header, &here.key("from_header")));
                Some(HeaderMetric {
                    name: name.into(),
                    from_header: header?,
                    worse: worse(*metric.worse.get()?),
                })
            })
            .collect();
        compiled.into_iter().collect()
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

    fn check(
        &mut self,
        check: &schema::Check,
        metrics: &Map<schema::HeaderMetric>,
        path: &Path<'_>,
    ) -> Option<CheckPlan> {
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
        let subject = self.subject(check, metrics, path)?;
        let test = self.test(check, subject, path)?;
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

    /// `None`: it is nothing, or something that is wrong where it is defined.
    fn subject(
        &mut self,
        check: &schema::Check,
        metrics: &Map<schema::HeaderMetric>,
        path: &Path<'_>,
    ) -> Option<Subject> {
        let name = check.metric.get()?;
        let here = path.key("metric");
        let defined = metrics.iter().position(|(defined, _)| defined == name);
        let found = match (own_metric(name), defined) {
            (Some(own), _) => own,
            (None, Some(value)) => {
                let metric = metrics.iter().nth(value).and_then(|(_, metric)| metric);
                Subject::Value(value, worse(*metric?.worse.get()?))
            }
            (None, None) if check.prometheus.is_some() => {
                self.name(name, &here);
                return Some(Subject::Query);
            }
            (None, None) => {
                if !self.problems.any_below(&path.key("prometheus")) {
                    let known = OWN_METRICS.into_iter().chain(metrics.iter().map(|(name, _)| name));
                    let suggestion = nearest(name, known);
                    let message = format!(
                        "`{}` is not measured by the proxy: expected `error_rate`, `mismatch_rate`, `latency_p50` to \
                         `latency_p99`, `latency_p999`, a name of `metrics`, or a `prometheus` query",
                        printable(name)
                    );
                    self.problems.add_with(&here, message, suggestion);
                }
                return None;
            }
        };
        if check.prometheus.is_some() {
            let source = if found.is_measured_here() {
                "measured by the proxy itself"
            } else {
                "a name of `metrics`"
            };
            let message = format!("`{}` is {source}: expected another name for a query", printable(name));
            self.problems.add(&here, message);
        }
        Some(found)
    }

    fn test(&mut self, check: &schema::Check, subject: Subject, path: &Path<'_>) -> Option<Test> {
        if subject.is_measured_here() && check.min.is_some() {
            let name = check.metric.get()?;
            let message = format!("`{name}` is better the lower it is: expected `max`");
            self.problems.add(&path.key("min"), message);
        }
        let max = self.limit(subject, check.max.as_deref(), &path.key("max"))?;
        let min = self.limit(subject, check.min.as_deref(), &path.key("min"))?;
        let limits = Limits { min, max };
        let tolerance = check.tolerance.map(|tolerance| tolerance.fraction());
        Some(match (subject, tolerance) {
            (Subject::ErrorRate, Some(tolerance)) => Test::ErrorsCompared { tolerance },
            (Subject::ErrorRate, None) => Test::ErrorsAtMost { limit: max? },
            (Subject::MismatchRate, None) => Test::MismatchesAtMost { limit: max? },
            (Subject::MismatchRate, Some(_)) => {
                let message = "copies are compared to stable by what it is: expected `max`";
                self.problems.add(&path.key("compared_to"), message);
                return None;
            }
            (Subject::Latency(quantile), Some(tolerance)) => Test::LatencyCompared { quantile, tolerance },
            (Subject::Latency(quantile), None) => Test::LatencyAtMost {
                quantile,
                limit_us: (max? * 1e6).round() as u64,
            },
            (Subject::Value(value, worse), Some(tolerance)) => {
                if worse == Worse::Lower && tolerance >= 1.0 {
                    let message = "no number is lower than this allows: expected less than `100%`";
                    self.problems.add(&path.key("tolerance"), message);
                }
                Test::MeanCompared {
                    value,
                    worse,
                    tolerance,
                }
            }
            (Subject::Value(value, _), None) => Test::MeanWithin { value, limits },
            (Subject::Query, _) => Test::OutsideWithin {
                limits,
                fresh_for: check.prometheus.as_ref()?.every.0.saturating_mul(FRESH_FOR),
            },
        })
    }

    /// A limit in the unit of its metric: a part of one, or seconds. The outer `None`: it is wrong; the inner: there is none.
    fn limit(&mut self, subject: Subject, limit: Option<&str>, path: &Path<'_>) -> Option<Option<f64>> {
        let Some(limit) = limit else { return Some(None) };
        let share = |text| units::share(text).map(units::Share::fraction);
        let duration = |text| units::duration(text).map(|duration| duration.as_secs_f64());
        let parsed = match subject {
            Subject::ErrorRate | Subject::MismatchRate => share(limit),
            Subject::Latency(_) => duration(limit),
            Subject::Value(..) | Subject::Query => {
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
