//! Commands that change something: `weights`, `kill`, `unkill`, `rollout`, `reload`, `upgrade`. Each is one request.

use super::client::{Answer, Request, UPGRADE, segment};
use super::context::{Changing, Context, Proxy};
use super::failure::{Exit, Failure};
use super::print::{self, WARNING};
use super::table::safe;
use crate::admin::api::{Changed, ReasonRequest, WeightsRequest};
use crate::rollout::Verb;
use clap::ValueEnum;
use clap::builder::PossibleValue;
use hyper::Method;
use std::collections::BTreeMap;
use std::process::ExitCode;

/// `rollgate weights`
#[derive(Debug, clap::Args)]
pub struct Weights {
    /// The service's name
    service: String,
    /// A weight for each version: whole numbers, relative to each other
    #[arg(required = true, value_name = "VERSION=WEIGHT", value_parser = weight)]
    weights: Vec<(String, u32)>,
    #[command(flatten)]
    changing: Changing,
    #[command(flatten)]
    proxy: Proxy,
}

fn weight(text: &str) -> Result<(String, u32), String> {
    let (version, weight) = text
        .split_once('=')
        .filter(|(version, _)| !version.is_empty())
        .ok_or("expected VERSION=WEIGHT, such as v2=10")?;
    let weight = weight
        .parse()
        .map_err(|_| format!("{weight:?} is not a weight: expected a whole number, 0 to 1000000"))?;
    Ok((version.to_owned(), weight))
}

impl Weights {
    pub fn run(&self, context: &Context) -> ExitCode {
        match self.request() {
            Ok(request) => context.change(&self.proxy, &request),
            Err(failure) => print::finish(Err(failure), context.json(&self.proxy.reach)),
        }
    }

    /// # Errors
    /// A version is named twice.
    fn request(&self) -> Result<Request, Failure> {
        let mut weights = BTreeMap::new();
        for (version, weight) in &self.weights {
            if weights.insert(version.clone(), *weight).is_some() {
                return Err(Failure::usage(format!("{version} is given two weights")));
            }
        }
        let body = WeightsRequest {
            weights,
            reason: self.changing.reason.clone(),
        };
        let path = format!("/v1/services/{}/weights", segment(&self.service));
        Ok(Request::send(Method::PUT, path, &body).if_generation(self.changing.if_generation))
    }
}

/// `rollgate kill`, `rollgate unkill`
#[derive(Debug, clap::Args)]
#[group(id = "whose", required = true, multiple = false, args = ["service", "all"])]
pub struct Kill {
    /// The service's name
    service: Option<String>,
    /// All services, those to come included
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    changing: Changing,
    #[command(flatten)]
    proxy: Proxy,
}

/// What is recorded of a kill without a reason: nobody in a hurry is asked for one.
const NO_REASON: &str = "no reason given";

/// How a canary is stopped all the same.
const WITHOUT_SOCKET: &str = "without the socket: `kill: true` in the file, at the service or at its top for all; a \
                              running proxy follows within a second";

impl Kill {
    pub fn kill(&self, context: &Context) -> ExitCode {
        let json = context.json(&self.proxy.reach);
        let answer = || {
            context
                .client(&self.proxy.reach, self.proxy.config.as_deref())?
                .call(&self.kill_request())
        };
        let answer = answer().map_err(|failure| match failure.exit {
            Exit::Unreachable => failure.help(WITHOUT_SOCKET),
            _ => failure,
        });
        print::finish(answer.and_then(|answer| answer.shown(json, rendered)), json)
    }

    pub fn unkill(&self, context: &Context) -> ExitCode {
        context.change(&self.proxy, &self.unkill_request())
    }

    fn kill_request(&self) -> Request {
        let reason = self.changing.reason.clone().unwrap_or_else(|| NO_REASON.to_owned());
        Request {
            meanwhile: Some(WITHOUT_SOCKET),
            ..self.request(Method::PUT, Some(reason))
        }
    }

    fn unkill_request(&self) -> Request {
        self.request(Method::DELETE, self.changing.reason.clone())
    }

    fn request(&self, method: Method, reason: Option<String>) -> Request {
        let path = match &self.service {
            Some(service) => format!("/v1/services/{}/kill", segment(service)),
            None => "/v1/kill".to_owned(),
        };
        self.changing.request(method, path, reason)
    }
}

/// What came of a change: a sentence, and what it lacks.
///
/// # Errors
/// The answer is not understood.
pub fn rendered(answer: &Answer) -> Result<String, Failure> {
    let changed: Changed = answer.parse()?;
    let unchanged = if changed.changed { "" } else { ", nothing changed" };
    let mut text = format!(
        "{} (generation {}{unchanged})\n",
        safe(&changed.message),
        changed.generation
    );
    let mut warn = |warning: String| text += &format!("{WARNING}warning:{WARNING:#} {warning}\n");
    if !changed.durable {
        let why = changed.not_durable.as_deref().unwrap_or("no reason is known");
        warn(format!("it holds, but would not survive a crash yet: {}", safe(why)));
    }
    if !changed.restart_required.is_empty() {
        let keys: Vec<String> = changed.restart_required.iter().map(|key| safe(key)).collect();
        warn(format!("only after a restart: {}", keys.join(", ")));
    }
    Ok(text)
}

impl Changing {
    fn request(&self, method: Method, path: impl Into<String>, reason: Option<String>) -> Request {
        Request::send(method, path, &ReasonRequest { reason }).if_generation(self.if_generation)
    }
}

/// `rollgate rollout`
#[derive(Debug, clap::Args)]
pub struct Rollout {
    /// What to do
    #[arg(value_enum)]
    verb: Verb,
    /// The service's name
    service: String,
    #[command(flatten)]
    changing: Changing,
    #[command(flatten)]
    proxy: Proxy,
}

impl ValueEnum for Verb {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Self::Start => "Begins to deliver the candidate",
            Self::Pause => "Stays at the step it is in",
            Self::Resume => "Goes on from where it was paused",
            Self::Approve => "Gives the approval that the step waits for",
            Self::Promote => "To 100 % at once",
            Self::Rollback => "The candidate back to 0 % at once",
            Self::Retry => "Begins again after a rollback",
        };
        Some(PossibleValue::new(self.word()).help(help))
    }
}

impl Rollout {
    pub fn run(&self, context: &Context) -> ExitCode {
        context.change(&self.proxy, &self.request())
    }

    fn request(&self) -> Request {
        let path = format!("/v1/services/{}/rollout/{}", segment(&self.service), self.verb.word());
        self.changing.request(Method::POST, path, self.changing.reason.clone())
    }
}

/// `rollgate reload`, `rollgate upgrade`
#[derive(Debug, clap::Args)]
pub struct Process {
    #[command(flatten)]
    changing: Changing,
    #[command(flatten)]
    proxy: Proxy,
}

impl Process {
    pub fn reload(&self, context: &Context) -> ExitCode {
        context.change(&self.proxy, &self.request("/v1/config/reload"))
    }

    pub fn upgrade(&self, context: &Context) -> ExitCode {
        context.change(&self.proxy, &self.request("/v1/upgrade").within(UPGRADE))
    }

    fn request(&self, path: &str) -> Request {
        self.changing.request(Method::POST, path, self.changing.reason.clone())
    }
}

#[cfg(test)]
#[path = "change_tests.rs"]
mod tests;
