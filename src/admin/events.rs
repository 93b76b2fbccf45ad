//! The audit log: read in pages, or followed as server-sent events
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use super::api::Events;
use super::connection::{Following, Link};
use super::problem::{ApiError, Kind, answer};
use super::reading::json;
use super::{Admin, stopped};
use crate::control::event_log::Event;
use async_trait::async_trait;
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use hyper::body::Frame;
use serde::Deserialize;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use utoipa::IntoParams;

/// Where the state and the audit log are kept for good.
#[async_trait]
pub trait Kept: Send + Sync {
    /// Why something of it is not on the disk yet; `None`: everything is.
    fn not_durable(&self) -> Option<String>;

    /// The events after number `after`, oldest first, at most `limit`; fewer, if that is easier, but none only if there are
    /// none.
    ///
    /// # Errors
    /// Why they cannot be read.
    async fn events(&self, after: u64, limit: usize) -> Result<Vec<Event>, String>;
}

/// Events of a page, unless it is said how many, and the most.
const PAGE: usize = 100;
const MAX_PAGE: usize = 1000;

/// The highest number an event may have: what every client can hold.
const MAX_NUMBER: u64 = i64::MAX as u64;

/// How long the history is waited for.
const HISTORY_PATIENCE: Duration = Duration::from_secs(10);

/// How long a follower may take nothing.
const FOLLOWER_PATIENCE: Duration = Duration::from_secs(30);

/// Events that wait for a follower.
const QUEUE: usize = 16;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Asked {
    /// Events after this number.
    #[serde(default)]
    #[param(default = 0, maximum = 9223372036854775807_u64)]
    after: u64,
    /// How many at most.
    #[param(default = 100, minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// Events of this service alone.
    service: Option<String>,
}

/// What happened, and who did it. With `Accept: text/event-stream` the answer goes on as more happens: `id` is the
/// number, `event` the type, `data` the event as JSON; `Last-Event-ID` goes before `after`.
#[utoipa::path(get, path = "/v1/events", tag = "events",
    params(Asked, super::document::LastEventId),
    responses(
        (status = 200, description = "Oldest first.", content(
            (Events = "application/json"), (String = "text/event-stream"),
        )),
    ),
)]
pub async fn events(
    State(admin): State<Arc<Admin>>,
    Extension(link): Extension<Arc<Link>>,
    asked: Result<Query<Asked>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Query(asked) = asked.map_err(|rejection| bad(rejection.body_text()))?;
    let limit = asked.limit.unwrap_or(PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(bad(format!("`limit` is 1 to {MAX_PAGE}, found {limit}")));
    }
    if asked.after > MAX_NUMBER {
        return Err(bad(format!("`after` is at most {MAX_NUMBER}")));
    }
    let last_id = last_event_id(&headers)?;
    if wants_stream(&headers) {
        return follow(admin, &link, last_id.unwrap_or(asked.after), asked.service);
    }
    let page = page(&admin, asked.after, limit, asked.service.as_deref()).await?;
    Ok(json(&Events {
        events: page.iter().map(|event| Event::clone(event)).collect(),
        last: admin.events.last_seq(),
    }))
}

fn bad(detail: String) -> ApiError {
    ApiError::new(
        Kind::BadRequest,
        detail,
        "As in `/v1/events?after=120&limit=100&service=checkout`.",
    )
}

fn wants_stream(headers: &HeaderMap) -> bool {
    let mut fields = headers.get_all(ACCEPT).iter().filter_map(|field| field.to_str().ok());
    fields.any(|field| {
        let mut types = field
            .split(',')
            .map(|one| one.split(';').next().unwrap_or_default().trim());
        types.any(|one| one.eq_ignore_ascii_case("text/event-stream"))
    })
}

/// At most `limit` events of `service` (of all: `None`) after `after`, oldest first. The log is looked through to its end
/// if need be.
async fn page(admin: &Admin, after: u64, limit: usize, service: Option<&str>) -> Result<Vec<Arc<Event>>, ApiError> {
    let (mut after, last) = (after, admin.events.last_seq());
    let mut found = Vec::new();
    while found.len() < limit && after < last {
        let some = some_after(admin, after).await?;
        let Some(end) = some.last().map(|event| event.seq) else {
            break;
        };
        let of_service = |event: &Arc<Event>| service.is_none_or(|name| event.service.as_deref() == Some(name));
        found.extend(some.into_iter().filter(of_service).take(limit - found.len()));
        after = end.max(after + 1);
    }
    Ok(found)
}

/// Some events after `after`, oldest first; none only if there are none.
async fn some_after(admin: &Admin, after: u64) -> Result<Vec<Arc<Event>>, ApiError> {
    if let Some(kept) = admin.events.after(after, MAX_PAGE) {
        return Ok(kept);
    }
    let reading = timeout(HISTORY_PATIENCE, admin.kept.events(after, MAX_PAGE));
    let read = reading
        .await
        .unwrap_or_else(|_| Err("the disk does not answer".to_owned()));
    match read {
        // They were given up: the log begins with what is in memory.
        Ok(none) if none.is_empty() => Ok(admin.events.kept(MAX_PAGE)),
        Ok(some) => Ok(some.into_iter().map(Arc::new).collect()),
        Err(why) => Err(ApiError::new(
            Kind::History,
            format!("Events after {after} cannot be read: {why}"),
            "The latest ones are in memory: ask for those after a higher number.",
        )),
    }
}

/// What a follower has that begins again.
fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(id) = headers.get("last-event-id") else {
        return Ok(None);
    };
    let number = id
        .to_str()
        .ok()
        .and_then(|id| id.parse().ok())
        .filter(|id| *id <= MAX_NUMBER);
    let bad = || bad("`Last-Event-ID` is no number of an event".to_owned());
    number.map(Some).ok_or_else(bad)
}

fn follow(admin: Arc<Admin>, link: &Arc<Link>, after: u64, service: Option<String>) -> Result<Response, ApiError> {
    let following = link.follow().ok_or_else(|| {
        ApiError::new(
            Kind::Busy,
            "Too many follow the events already.",
            "Ask for pages: `/v1/events?after=…`.",
        )
    })?;
    let (sender, frames) = mpsc::channel(QUEUE);
    // A log that was begun anew has lower numbers: what comes is told all the same.
    let after = after.min(admin.events.last_seq());
    tokio::spawn(tell(admin, sender, after, service));
    let body = Body::new(Frames {
        frames,
        _following: following,
    });
    Ok(answer(StatusCode::OK, "text/event-stream", body))
}

/// Tells events after `after` until the follower or this process has gone.
async fn tell(admin: Arc<Admin>, to: mpsc::Sender<Bytes>, mut after: u64, service: Option<String>) {
    let mut stop = admin.stop.clone();
    let mut bell = admin.events.follow();
    let send = async |text: String| {
        timeout(FOLLOWER_PATIENCE, to.send(text.into()))
            .await
            .is_ok_and(|sent| sent.is_ok())
    };
    // The follower knows at once that it is one.
    if !send(": following\n\n".to_owned()).await {
        return;
    }
    loop {
        let last = *bell.borrow_and_update();
        while after < last {
            let some = match some_after(&admin, after).await {
                Ok(some) if !some.is_empty() => some,
                // It asks again, from where it is.
                _ => return,
            };
            for event in some {
                after = event.seq;
                if service.is_some() && event.service != service {
                    continue;
                }
                if !send(frame(&event)).await {
                    return;
                }
            }
        }
        tokio::select! {
            changed = bell.changed() => if changed.is_err() { return },
            () = sleep(admin.limits.heartbeat) => if !send(":\n\n".to_owned()).await { return },
            () = stopped(&mut stop) => return,
            () = to.closed() => return,
        }
    }
}

/// JSON has no line breaks in it.
fn frame(event: &Event) -> String {
    let data = serde_json::to_string(event).unwrap_or_default();
    format!("id: {}\nevent: {}\ndata: {data}\n\n", event.seq, event.kind.word())
}

/// The body of who follows.
struct Frames {
    frames: mpsc::Receiver<Bytes>,
    _following: Following,
}

impl hyper::body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.frames
            .poll_recv(context)
            .map(|frame| frame.map(|data| Ok(Frame::data(data))))
    }
}
