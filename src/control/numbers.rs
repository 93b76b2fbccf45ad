//! The numbers that other servers have on a candidate, asked for while its rollout is judged.
//!
//! Who reads them does not wait: each query has a task that asks, one question at a time, and the last answer is there to
//! be read. Bound: one task for each query of the file.

use super::http_client::HttpClient;
use super::prometheus_query::query;
use crate::rollout::{FRESH_FOR, Plan, Query, Variables, filled};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// How long after the last [`Numbers::follow`] a service is not asked about any more.
const FOLLOWED_FOR: Duration = Duration::from_secs(5);

/// One for the process.
pub struct Numbers {
    client: HttpClient,
    services: Mutex<HashMap<Box<str>, Followed>>,
}

/// A service that is asked about. Its tasks end with it.
struct Followed {
    window: u64,
    asked: Vec<Asked>,
    /// When it was last followed.
    last: watch::Sender<Instant>,
    _tasks: JoinSet<()>,
}

/// The query of a check.
struct Asked {
    wanted: Wanted,
    reading: watch::Receiver<Option<Reading>>,
}

#[derive(Clone, PartialEq)]
struct Wanted {
    /// Position in the plan.
    check: usize,
    query: Query,
}

struct Reading {
    answer: Result<f64, String>,
    at: Instant,
}

impl Numbers {
    pub fn new(client: HttpClient) -> Self {
        Self {
            client,
            services: Mutex::default(),
        }
    }

    /// Has the queries of the plan's checks asked, at once and then every so often. To be called at least once a second
    /// while the rollout is judged, within tokio's runtime: 5 s after the last call nothing is asked any more. `stable`: the
    /// name of the version, for queries that have it as a variable. `window`: [`crate::rollout::State::window`]; with
    /// another one, or another query, what was known is forgotten and everything is asked for anew.
    pub fn follow(&self, plan: &Plan, stable: &str, window: u64) {
        let wanted = wanted(plan, stable);
        let now = Instant::now();
        let mut services = self.services();
        services.retain(|_, followed| is_live(&followed.last.borrow(), now));
        if let Some(followed) = services.get(&plan.service) {
            let known = followed.asked.iter().map(|asked| &asked.wanted);
            let same = followed.window == window && known.eq(&wanted);
            let keep = |last: &mut Instant| {
                let live = is_live(last, now);
                *last = if live { now } else { *last };
                live
            };
            if same && followed.last.send_if_modified(keep) {
                return;
            }
        }
        services.insert(plan.service.clone(), self.begin(wanted, window, now));
    }

    fn begin(&self, wanted: Vec<Wanted>, window: u64, now: Instant) -> Followed {
        let last = watch::Sender::new(now);
        let mut tasks = JoinSet::new();
        let asked = wanted.into_iter().map(|wanted| {
            let (sender, reading) = watch::channel(None);
            tasks.spawn(ask(self.client.clone(), wanted.query.clone(), last.subscribe(), sender));
            Asked { wanted, reading }
        });
        Followed {
            window,
            asked: asked.collect(),
            last,
            _tasks: tasks,
        }
    }

    /// The last answer to the query of the check at this position. `None`: none has come in this window, or the check has
    /// no query.
    ///
    /// # Errors
    /// Inside: why there is no number, in a sentence (see [`query`]); or the last one is older than three times the time
    /// between two queries.
    pub fn latest(&self, service: &str, check: usize) -> Option<Result<f64, String>> {
        let services = self.services();
        let mut asked = services.get(service)?.asked.iter();
        let asked = asked.find(|asked| asked.wanted.check == check)?;
        let reading = asked.reading.borrow();
        let Reading { answer, at } = reading.as_ref()?;
        let age = at.elapsed();
        if age > asked.wanted.query.every.saturating_mul(FRESH_FOR) {
            return Some(Err(format!("the last answer came {} s ago", age.as_secs())));
        }
        Some(answer.clone())
    }

    fn services(&self) -> MutexGuard<'_, HashMap<Box<str>, Followed>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_live(last: &Instant, now: Instant) -> bool {
    now.saturating_duration_since(*last) <= FOLLOWED_FOR
}

/// The plan's queries, without variables.
fn wanted(plan: &Plan, stable: &str) -> Vec<Wanted> {
    let checks = plan.analysis.checks.iter().enumerate();
    let queries = checks.filter_map(|(check, spec)| Some((check, spec.prometheus.as_ref()?)));
    queries
        .map(|(check, query)| {
            let variables = Variables {
                service: &plan.service,
                candidate: &plan.candidate,
                stable,
                interval: query.every,
            };
            // The file was refused if it had others; Prometheus would say the rest.
            let text = filled(&query.query, variables).map_or_else(|_| query.query.clone(), Box::from);
            let query = Query {
                query: text,
                ..query.clone()
            };
            Wanted { check, query }
        })
        .collect()
}

async fn ask(
    client: HttpClient,
    wanted: Query,
    last: watch::Receiver<Instant>,
    readings: watch::Sender<Option<Reading>>,
) {
    let mut due = Instant::now();
    while is_live(&last.borrow(), Instant::now()) {
        let answer = query(&client, &wanted.url, &wanted.query, SystemTime::now()).await;
        let at = Instant::now();
        readings.send_replace(Some(Reading { answer, at }));
        // A question that took longer than the time between two is not made up for.
        due = (due + wanted.every).max(at);
        sleep_until(due).await;
    }
}

#[cfg(test)]
#[path = "numbers_tests.rs"]
mod tests;
