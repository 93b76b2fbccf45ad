//! Asks gates: others who must say yes before a rollout goes on, in the form of Flagger's `confirm-*` webhooks
//! (<https://docs.flagger.app/usage/webhooks>), so that what answers Flagger answers this.
//!
//! Who asks does not wait: the answer is fetched later. Bound: one question for each gate of the file.

use super::http_client::{HttpClient, Outgoing, first_words};
use crate::rollout::{Answer, Before, Gate, Share, Url};
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use ring::digest::{Context, SHA256};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// In place of a Kubernetes namespace, which there is none: Flagger's load tester keeps a gate by `name.namespace`.
pub const NAMESPACE: &str = "rollgate";

/// What a gate is asked, and told about the rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    pub service: Box<str>,
    pub candidate: Box<str>,
    /// As in [`crate::rollout::Effect::AskGate`]: the gate's position in the plan, and what the answer is about.
    pub gate: usize,
    pub window: u64,
    /// [`crate::rollout::State::attempt`].
    pub attempt: u64,
    /// The step in force, from 1; 0: before the first.
    pub step: u32,
    /// What the candidate has now.
    pub share: Share,
}

/// What a gate said: the fields of [`crate::rollout::Event::Gate`], for a service.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    pub service: Box<str>,
    pub gate: usize,
    pub window: u64,
    pub answer: Answer,
}

/// One for the process.
pub struct Gates {
    client: HttpClient,
    desk: Arc<Desk>,
}

/// Where questions wait for answers, and answers for whoever asked.
#[derive(Default)]
struct Desk {
    inner: Mutex<Inner>,
    bell: Notify,
}

#[derive(Default)]
struct Inner {
    /// Being asked.
    asked: HashMap<Place, Asked>,
    /// Not fetched yet; at most one of each gate.
    answers: HashMap<Place, Answered>,
    last_number: u64,
}

/// A service, and the position of a gate in its plan.
type Place = (Box<str>, usize);

struct Asked {
    /// Tells it from others at the same place.
    number: u64,
    window: u64,
    webhook: Url,
    task: AbortHandle,
}

/// Flagger's `CanaryWebhookPayload`. Its metadata are strings, all of them.
#[derive(Serialize)]
struct Payload<'q> {
    name: &'q str,
    namespace: &'q str,
    phase: &'q str,
    checksum: String,
    metadata: BTreeMap<&'q str, String>,
}

impl Gates {
    pub fn new(client: HttpClient) -> Self {
        Self {
            client,
            desk: Arc::default(),
        }
    }

    /// Begins to ask, and returns at once; the answer is there within 10 s ([`Gates::answers`]). The same question is not
    /// asked a second time while it is being asked; another one of this gate, as of a later window, ends it. To be called
    /// within tokio's runtime.
    ///
    /// - 2xx, with a whole answer, is a yes;
    /// - 4xx is a no, in the words of the answer; but for 408 and 429, which say nothing about the question;
    /// - everything else is no answer. Redirects are not followed.
    pub fn ask(&self, gate: &Gate, question: Question) {
        let place = (question.service.clone(), question.gate);
        let mut inner = self.desk.inner();
        if let Some(asked) = inner.asked.get(&place) {
            if asked.window == question.window && asked.webhook == gate.webhook {
                return;
            }
            asked.task.abort();
        }
        inner.answers.remove(&place);
        inner.last_number += 1;
        let number = inner.last_number;
        let (webhook, window) = (gate.webhook.clone(), question.window);
        let (client, desk, gate) = (self.client.clone(), Arc::clone(&self.desk), gate.clone());
        let asking = tokio::spawn(async move { answer(&client, &gate, &question).await });
        let asked = Asked {
            number,
            window,
            webhook,
            task: asking.abort_handle(),
        };
        inner.asked.insert(place.clone(), asked);
        drop(inner);
        tokio::spawn(async move {
            // What panicked has no answer, and is not asked for ever.
            let answer = asking.await.unwrap_or_else(|error| Answer::Error(error.to_string()));
            desk.take(place, number, answer);
        });
    }

    /// The answers that came since the last call, in no order.
    pub fn answers(&self) -> Vec<Answered> {
        self.desk
            .inner()
            .answers
            .drain()
            .map(|(_, answered)| answered)
            .collect()
    }

    /// Waits until there is an answer, for one who waits.
    pub async fn answered(&self) {
        while self.desk.inner().answers.is_empty() {
            self.desk.bell.notified().await;
        }
    }
}

impl Desk {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Unless it is not asked any more.
    fn take(&self, place: Place, number: u64, answer: Answer) {
        let mut inner = self.inner();
        let waited_for = inner.asked.get(&place).filter(|asked| asked.number == number);
        let Some(window) = waited_for.map(|asked| asked.window) else {
            return;
        };
        inner.asked.remove(&place);
        let (service, gate) = place.clone();
        let answered = Answered {
            service,
            gate,
            window,
            answer,
        };
        inner.answers.insert(place, answered);
        self.bell.notify_one();
    }
}

async fn answer(client: &HttpClient, gate: &Gate, question: &Question) -> Answer {
    let body = match serde_json::to_vec(&payload(gate.before, question)) {
        Ok(body) => body,
        Err(error) => return Answer::Error(error.to_string()),
    };
    let outgoing = Outgoing {
        method: Method::POST,
        url: &gate.webhook,
        headers: &[(CONTENT_TYPE, "application/json")],
        body,
    };
    let answer = client.send(outgoing).await;
    match answer.and_then(|answer| Ok((answer.status, answer.body?))) {
        Ok((status, body)) => judge(status, &body, &gate.webhook),
        Err(failure) => Answer::Error(failure.to_string()),
    }
}

fn payload(before: Before, question: &Question) -> Payload<'_> {
    // What Flagger says in its phases at that moment: a confirm-rollout holds a canary that waits, confirm-traffic-increase
    // and confirm-promotion hold one that makes progress.
    let (phase, before) = match before {
        Before::Start => ("Waiting", "start"),
        Before::Step => ("Progressing", "step"),
        Before::Promote => ("Progressing", "promote"),
    };
    let percent = f64::from(question.share.thousandths_percent()) / 1_000.0;
    let metadata = [
        ("before", before.to_owned()),
        ("candidate", question.candidate.to_string()),
        ("attempt", question.attempt.to_string()),
        ("step", question.step.to_string()),
        ("share", percent.to_string()),
    ];
    Payload {
        name: &question.service,
        namespace: NAMESPACE,
        phase,
        checksum: checksum(question),
        metadata: metadata.into(),
    }
}

/// Tells one attempt to deliver one candidate from all others: 16 hexadecimal digits.
fn checksum(question: &Question) -> String {
    let mut context = Context::new(&SHA256);
    let attempt = question.attempt.to_string();
    for part in [&*question.service, &*question.candidate, &*attempt] {
        context.update(part.as_bytes());
        // No name has one.
        context.update(b"\n");
    }
    let digest = context.finish();
    let beginning = digest.as_ref().iter().take(8);
    beginning.map(|byte| format!("{byte:02x}")).collect()
}

fn judge(status: StatusCode, body: &[u8], url: &Url) -> Answer {
    let why = match &*first_words(body, url) {
        "" => format!("it answers {}", status.as_u16()),
        words => format!("{words} ({})", status.as_u16()),
    };
    match status.as_u16() {
        200..300 => Answer::Yes,
        408 | 429 => Answer::Error(why),
        400..500 => Answer::No(why),
        300..400 => Answer::Error(format!("{why}; redirects are not followed")),
        _ => Answer::Error(why),
    }
}

#[cfg(test)]
#[path = "gates_tests.rs"]
mod tests;
