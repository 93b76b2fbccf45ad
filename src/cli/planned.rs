//! What `plan` and `simulate` have in common: whose plan they are about, and what is assumed of the service.

use super::client::Request;
use super::context::{Context, Proxy};
use super::failure::Failure;
use crate::admin::api;
use crate::analysis::{Check, Latencies, Limits, Test, percent};
use crate::config::problem::nearest;
use crate::config::units::UnitError;
use crate::config::{self, Snapshot, units};
use crate::control::load;
use crate::rollout::{Plan, Share, about};
use crate::routing::Role;
use std::path::Path;
use std::time::Duration;

/// The most requests a second.
const MAX_RATE: f64 = 10_000_000.0;
/// A p99 is so many times the median, where nothing else is said: as [`Latencies`] with a spread of 0.5.
const P99_TO_P50: f64 = 3.2;

/// Whose plan.
#[derive(Debug, clap::Args)]
pub struct Subject {
    /// A configuration file; what is none is a service of the running proxy
    #[arg(value_name = "FILE|SERVICE")]
    target: String,
    /// The service of the file, where several have a rollout
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    #[command(flatten)]
    pub proxy: Proxy,
}

/// A plan, and the version that its candidate is to replace.
#[derive(Debug)]
pub struct Planned {
    pub plan: Plan,
    pub stable: Box<str>,
}

impl Subject {
    /// The plans of the file, or of the service; at least one.
    ///
    /// # Errors
    /// The file cannot be loaded or the proxy asked, or there is no such service, or no rollout.
    pub fn plans(&self, context: &Context) -> Result<Vec<Planned>, Failure> {
        let looks_like_a_file =
            self.target.contains('/') || [".yaml", ".yml"].iter().any(|end| self.target.ends_with(end));
        if looks_like_a_file || Path::new(&self.target).exists() {
            let snapshot = load::check(Path::new(&self.target)).map_err(|error| Failure::failed(error.to_string()))?;
            return plans(snapshot, self.service.as_deref(), &self.target);
        }
        if self.service.is_some() {
            return Err(Failure::usage(format!(
                "--service goes with a file, and there is no file {:?}",
                self.target
            )));
        }
        let client = context.client(&self.proxy.reach, self.proxy.config.as_deref())?;
        let config: api::Config = client.call(&Request::get("/v1/config"))?.parse()?;
        let base = Path::new(&config.file).parent().unwrap_or(Path::new(""));
        let snapshot = config::parse(&config.text, base).map_err(|_| {
            Failure::failed("the proxy's configuration is not understood by this version of the program")
        })?;
        plans(snapshot, Some(&self.target), "the configuration in force")
    }
}

fn plans(snapshot: Snapshot, only: Option<&str>, place: &str) -> Result<Vec<Planned>, Failure> {
    let policies = &snapshot.policy.services;
    let names = || policies.iter().map(|service| &*service.name);
    if let Some(name) = only.filter(|only| !names().any(|name| name == *only)) {
        let failure = Failure::failed(format!("no service of {place} is called `{name}`"));
        return Err(match nearest(name, names()) {
            Some(similar) => failure.help(format!("did you mean `{similar}`?")),
            None => failure,
        });
    }
    let wanted = policies
        .iter()
        .zip(snapshot.services)
        .filter(|(policy, _)| only.is_none_or(|only| *policy.name == *only));
    let planned = wanted.filter_map(|(policy, service)| {
        let stable = policy.versions.iter().find(|version| version.role == Role::Stable)?;
        Some(Planned {
            plan: service.rollout?,
            stable: stable.name.clone(),
        })
    });
    let planned: Vec<Planned> = planned.collect();
    if planned.is_empty() {
        let whose = only.map_or("no service has".to_owned(), |name| format!("`{name}` has no"));
        let rollout = if only.is_some() { "`rollout`" } else { "a `rollout`" };
        return Err(Failure::failed(format!(
            "{place}: {whose} {rollout}: there is nothing to plan"
        )));
    }
    Ok(planned)
}

/// What is taken for granted of a service.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Assumptions {
    /// The part of stable's requests that fail
    #[arg(long, value_name = "SHARE", default_value = "0.5%", value_parser = part, help_heading = "Assumptions")]
    pub errors: Share,
    /// What 99 % of stable's requests do not exceed
    #[arg(long, value_name = "DURATION", default_value = "320ms", value_parser = span, help_heading = "Assumptions")]
    p99: Duration,
    /// What half of stable's requests do not exceed; without it the p99 divided by 3.2
    #[arg(long, value_name = "DURATION", value_parser = span, help_heading = "Assumptions")]
    p50: Option<Duration>,
    /// The part of the requests that comes from segments which a step admits
    #[arg(long, value_name = "SHARE", default_value = "1%", value_parser = share, help_heading = "Assumptions")]
    pub in_segments: Share,
    /// The part of the requests that a mirror step may copy: those of its methods
    #[arg(long, value_name = "SHARE", default_value = "100%", value_parser = share, help_heading = "Assumptions")]
    pub copyable: Share,
}

impl Assumptions {
    /// # Errors
    /// The median is not below the p99.
    pub fn latencies(&self) -> Result<Latencies, Failure> {
        let us = |duration: Duration| duration.as_secs_f64() * 1e6;
        let p50 = self.p50.map_or(us(self.p99) / P99_TO_P50, us);
        Latencies::new(p50, us(self.p99)).ok_or_else(|| Failure::usage("expected a --p50 above zero and below --p99"))
    }

    /// `0.5 % errors, p99 320ms, 1 % of the requests in segments`; where `plan` has a mirror step, how many may be copied.
    pub fn words(&self, plan: &Plan) -> String {
        let (p99, in_segments) = (about(self.p99), self.in_segments);
        let words = format!(
            "{} errors, p99 {p99}, {in_segments} of the requests in segments",
            self.errors
        );
        match plan.steps.iter().any(|step| step.mirror > Share::ZERO) {
            true => format!("{words}, {} may be copied", self.copyable),
            false => words,
        }
    }
}

/// As durations of the file.
pub fn span(text: &str) -> Result<Duration, String> {
    units::duration(text).map_err(|error| meant(&error))
}

fn meant(error: &UnitError) -> String {
    match &error.suggestion {
        Some(suggestion) => format!("expected {}; did you mean `{suggestion}`?", error.message),
        None => format!("expected {}", error.message),
    }
}

/// As shares of the file.
pub fn share(text: &str) -> Result<Share, String> {
    let share = units::share(text).map_err(|error| meant(&error))?;
    Ok(Share::from_thousandths(share.thousandths_percent()))
}

/// A share above nothing and below everything.
fn part(text: &str) -> Result<Share, String> {
    let share = share(text)?;
    match share > Share::ZERO && share < Share::WHOLE {
        true => Ok(share),
        false => Err("expected a percentage above 0% and below 100%".to_owned()),
    }
}

/// Requests a second: above 0, at most ten million.
pub fn rate(text: &str) -> Result<f64, String> {
    let rate = units::number(text).filter(|rate| *rate > 0.0 && *rate <= MAX_RATE);
    rate.ok_or_else(|| "expected requests a second, such as `200` or `0.5`".to_owned())
}

/// `error_rate vs stable`, `latency_p99 max 500ms`
pub fn label(check: &Check) -> String {
    let metric = &check.metric;
    match &check.test {
        Test::ErrorsCompared { .. } | Test::LatencyCompared { .. } | Test::MeanCompared { .. } => {
            format!("{metric} vs stable")
        }
        Test::ErrorsAtMost { limit } | Test::MismatchesAtMost { limit } => {
            format!("{metric} max {}", percent(*limit))
        }
        Test::LatencyAtMost { limit_us, .. } => format!("{metric} max {}", about(Duration::from_micros(*limit_us))),
        Test::MeanReported { .. } => format!("{metric} reported"),
        Test::MeanWithin { limits, .. } | Test::OutsideWithin { limits, .. } => format!("{metric}{}", range(*limits)),
    }
}

fn range(limits: Limits) -> String {
    let end = |word: &str, end: Option<f64>| end.map_or(String::new(), |end| format!(" {word} {end}"));
    end("min", limits.min) + &end("max", limits.max)
}

/// Whether what a check goes by is known beforehand: failures and latencies are, an application's numbers and statuses are not.
pub fn is_foretold(test: &Test) -> bool {
    !matches!(
        test,
        Test::MismatchesAtMost { .. }
            | Test::MeanCompared { .. }
            | Test::MeanReported { .. }
            | Test::MeanWithin { .. }
            | Test::OutsideWithin { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_out_of_range_are_refused() {
        for bad in ["0", "-1", "1e3", "x", "10000001", ""] {
            assert!(rate(bad).is_err(), "{bad}");
        }
        assert_eq!(rate("0.5"), Ok(0.5));
        assert!(part("0%").is_err() && part("100%").is_err() && share("100%").is_ok());
        assert_eq!(part("0.5%").map(Share::thousandths_percent), Ok(500));
        let assumed = |p50: u64| Assumptions {
            errors: Share::from_thousandths(500),
            p99: Duration::from_millis(200),
            p50: Some(Duration::from_millis(p50)),
            in_segments: Share::ZERO,
            copyable: Share::WHOLE,
        };
        assert!(assumed(200).latencies().is_err() && assumed(0).latencies().is_err());
        assert!(assumed(199).latencies().is_ok());
    }

    #[test]
    fn checks_have_short_names() {
        let check = |metric: &str, test| {
            label(&Check {
                metric: metric.to_owned(),
                test,
            })
        };
        let limits = Limits {
            min: Some(0.1),
            max: None,
        };
        let fresh_for = Duration::ZERO;
        assert_eq!(
            check("error_rate", Test::ErrorsAtMost { limit: 0.02 }),
            "error_rate max 2 %"
        );
        assert_eq!(
            check("orders", Test::OutsideWithin { limits, fresh_for }),
            "orders min 0.1"
        );
        let slow = Test::LatencyAtMost {
            quantile: 0.99,
            limit_us: 500_000,
        };
        assert_eq!(check("latency_p99", slow), "latency_p99 max 500ms");
    }
}
