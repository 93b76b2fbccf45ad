//! Made-up traffic: what a fault is, how it is written, and what a profile with faults comes to.

use crate::cli::planned::span;
use crate::config::units;
use crate::rollout::simulate::{Behaviour, Traffic};
use std::str::FromStr;
use std::time::Duration;

/// Between two rates of a daily wave.
const WAVE_EVERY: Duration = Duration::from_secs(900);
/// When it is highest, in seconds of the day.
const WAVE_PEAK_S: f64 = 15.0 * 3_600.0;
const DAY_S: f64 = 86_400.0;
/// How many times as many or as long as usual.
const MAX_TIMES: f64 = 1_000.0;

/// How a version behaves for a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fault {
    of_stable: bool,
    of_candidate: bool,
    errors: Option<Errors>,
    slowness: Option<f64>,
    from: Duration,
    /// `None`: to the end.
    until: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Errors {
    /// As many as usual.
    Times(f64),
    /// The part of the requests.
    Part(f64),
}

const FORM: &str = "expected [candidate:|stable:|both:]CHANGE[,CHANGE]@FROM[-UNTIL], such as `errors=5x@10m`, `latency=1.5x@20m-40m` \
                    or `both:errors=3%@1h`";

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (what, when) = text.split_once('@').ok_or(FORM)?;
        let (of_stable, of_candidate, changes) = match what.split_once(':') {
            None => (false, true, what),
            Some(("candidate", changes)) => (false, true, changes),
            Some(("stable", changes)) => (true, false, changes),
            Some(("both", changes)) => (true, true, changes),
            Some(_) => return Err(FORM.to_owned()),
        };
        let (from, until) = match when.split_once('-') {
            None => (span(when)?, None),
            Some((from, until)) => (span(from)?, Some(span(until)?)),
        };
        if until.is_some_and(|until| until <= from) {
            return Err("expected a fault that ends after it begins".to_owned());
        }
        let mut fault = Self {
            of_stable,
            of_candidate,
            errors: None,
            slowness: None,
            from,
            until,
        };
        for change in changes.split(',') {
            match change.split_once('=') {
                Some(("errors", value)) if fault.errors.is_none() => fault.errors = Some(errors(value)?),
                Some(("latency", value)) if fault.slowness.is_none() => fault.slowness = Some(times(value)?),
                _ => return Err(FORM.to_owned()),
            }
        }
        Ok(fault)
    }
}

fn errors(text: &str) -> Result<Errors, String> {
    match units::share(text) {
        Ok(share) => Ok(Errors::Part(share.fraction())),
        Err(_) => times(text).map(Errors::Times),
    }
}

fn times(text: &str) -> Result<f64, String> {
    let times = text.strip_suffix('x').and_then(units::number);
    let times = times.filter(|times| *times > 0.0 && *times <= MAX_TIMES);
    times.ok_or_else(|| {
        format!("expected `2x` or `1.5x`, at most `{MAX_TIMES}x` (or a percentage of errors), found {text:?}")
    })
}

impl Fault {
    fn is_at(&self, at: Duration) -> bool {
        self.from <= at && self.until.is_none_or(|until| at < until)
    }

    fn apply(&self, usual: Behaviour, behaviour: &mut Behaviour) {
        match self.errors {
            Some(Errors::Times(times)) => behaviour.error_rate = (usual.error_rate * times).min(1.0),
            Some(Errors::Part(part)) => behaviour.error_rate = part,
            None => {}
        }
        behaviour.slowness = self.slowness.unwrap_or(behaviour.slowness);
    }
}

/// What comes in.
#[derive(Debug, Clone, Copy)]
pub struct Profile {
    /// Requests a second, on an average of the day.
    pub rate: f64,
    /// How much more at 15:00 UTC and less at 03:00, 0.0 to 1.0 of it.
    pub wave: f64,
    /// Seconds since the Unix epoch.
    pub begins_unix_s: i64,
    /// The part of the requests that usually fail.
    pub error_rate: f64,
}

impl Profile {
    /// The traffic until `limit`, in order of time.
    pub fn traffic(&self, faults: &[Fault], limit: Duration) -> Vec<Traffic> {
        let mut times = vec![Duration::ZERO];
        times.extend(
            faults
                .iter()
                .flat_map(|fault| [Some(fault.from), fault.until])
                .flatten(),
        );
        if self.wave > 0.0 {
            let waves = u32::try_from(limit.as_secs() / WAVE_EVERY.as_secs()).unwrap_or(u32::MAX);
            times.extend((0..=waves).map(|wave| WAVE_EVERY * wave));
        }
        times.sort_unstable();
        times.dedup();
        times.into_iter().map(|from| self.at(from, faults)).collect()
    }

    fn at(&self, from: Duration, faults: &[Fault]) -> Traffic {
        let usual = Behaviour {
            error_rate: self.error_rate,
            ..Behaviour::default()
        };
        let mut traffic = Traffic {
            from,
            rate: self.rate * (1.0 + self.wave * self.height(from)),
            stable: usual,
            candidate: usual,
        };
        for fault in faults.iter().filter(|fault| fault.is_at(from)) {
            if fault.of_stable {
                fault.apply(usual, &mut traffic.stable);
            }
            if fault.of_candidate {
                fault.apply(usual, &mut traffic.candidate);
            }
        }
        traffic
    }

    /// Of the wave, -1.0 to 1.0.
    fn height(&self, at: Duration) -> f64 {
        let second = self.begins_unix_s as f64 + at.as_secs_f64();
        libm::cos(std::f64::consts::TAU * (second - WAVE_PEAK_S) / DAY_S)
    }
}
