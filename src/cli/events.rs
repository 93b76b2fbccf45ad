//! `rollgate events`: the audit log, as lines for people or as JSON lines; and followed while it grows.

use super::client::{Client, Request, blocking, judged, segment};
use super::context::{Context, Proxy};
use super::failure::{Exit, Failure, one_line};
use super::print::{self, HEADING, WARNING};
use super::sse::Parser;
use super::table::{Cell, Side, line, safe};
use super::trouble::{Trouble, failure};
use crate::control::event_log::Event;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::HeaderName;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// The latest events that are shown when nothing is said of it, and when they are followed.
const LATEST: u64 = 50;
const LATEST_BEFORE_FOLLOWING: u64 = 10;
/// Events of one question.
const PAGE: u64 = 500;
/// Without a byte for so long (the proxy sends comments meanwhile), a stream is dead.
const SILENCE: Duration = Duration::from_secs(60);
/// Between two attempts to follow again.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Goes on with what happens from now, until interrupted
    #[arg(long, short)]
    follow: bool,
    /// Only events after this number; 0: from the first one that is kept
    #[arg(long, value_name = "SEQ")]
    after: Option<u64>,
    /// Only events of this service
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// At most so many: the next ones with --after, otherwise the latest [default: all with --after, 50 without, 10 with
    /// --follow]
    #[arg(long, short = 'n', value_name = "N")]
    limit: Option<u64>,
    #[command(flatten)]
    proxy: Proxy,
}

/// An event as it came.
type Raw = Box<RawValue>;

/// `GET /v1/events`
#[derive(Deserialize)]
struct Page {
    events: Vec<Raw>,
    last: u64,
}

#[derive(Deserialize)]
struct Numbered {
    seq: u64,
}

fn seq(event: &RawValue) -> Result<u64, Failure> {
    let numbered: Result<Numbered, _> = serde_json::from_str(event.get());
    numbered
        .map(|numbered| numbered.seq)
        .map_err(|error| Failure::failed(format!("an event is not understood: {error}: {}", event.get())))
}

impl Arguments {
    pub fn run(&self, context: &Context) -> ExitCode {
        let json = context.json(&self.proxy.reach);
        print::finish(self.shown(context, json).map(|()| String::new()), json)
    }

    fn shown(&self, context: &Context, json: bool) -> Result<(), Failure> {
        if self.follow && self.after.is_some() && self.limit.is_some() {
            return Err(Failure::usage(
                "--follow after a number shows all: leave --after or --limit away",
            ));
        }
        let client = context.client(&self.proxy.reach, self.proxy.config.as_deref())?;
        let log = Log {
            client: &client,
            service: self.service.as_deref(),
        };
        let mut out = Out { json, begun: false };
        let after = match (self.after, self.follow) {
            (Some(after), true) => after,
            (Some(after), false) => return log.forward(after, self.limit, &mut out),
            (None, follow) => {
                let latest = if follow { LATEST_BEFORE_FOLLOWING } else { LATEST };
                let (events, last) = log.latest(self.limit.unwrap_or(latest))?;
                if !out.show(&events) || !follow {
                    return Ok(());
                }
                last
            }
        };
        blocking(log.follow(after, &mut out))
    }
}

/// Where events are shown.
struct Out {
    json: bool,
    /// Whether the headings are there.
    begun: bool,
}

impl Out {
    /// Whether anybody still reads.
    fn show(&mut self, events: &[Raw]) -> bool {
        let mut text = String::new();
        if !self.json && !std::mem::replace(&mut self.begun, true) {
            text += &headings();
        }
        for event in events {
            text += &if self.json {
                one_line(event.get())
            } else {
                rendered(event)
            };
        }
        print::out(&text).is_ok()
    }
}

/// The log of one proxy, or what is about one service in it.
struct Log<'a> {
    client: &'a Client,
    service: Option<&'a str>,
}

impl Log<'_> {
    fn page(&self, after: u64, limit: u64, service: Option<&str>) -> Result<Page, Failure> {
        self.client
            .call(&Request::get(path(after, Some(limit), service)))?
            .parse()
    }

    /// Shows what comes after number `after`: all of it, or the first `limit`.
    fn forward(&self, after: u64, limit: Option<u64>, out: &mut Out) -> Result<(), Failure> {
        let (mut after, mut room) = (after, limit.unwrap_or(u64::MAX));
        while room > 0 {
            let page = self.page(after, room.min(PAGE), self.service)?;
            let Some(last) = page.events.last() else { break };
            after = seq(last)?;
            room = room.saturating_sub(page.events.len() as u64);
            if !out.show(&page.events) {
                break;
            }
        }
        Ok(())
    }

    /// The latest `count` events, oldest first, and the number of the last one there is. Goes back through the log piece by
    /// piece, at most to its beginning.
    fn latest(&self, count: u64) -> Result<(Vec<Raw>, u64), Failure> {
        let bounds = self.page(0, 1, None)?;
        let begin = bounds
            .events
            .first()
            .map_or(Ok(bounds.last), |event| seq(event).map(|seq| seq.saturating_sub(1)))?;
        let mut latest = Vec::new();
        let mut end = bounds.last;
        while end > begin && (latest.len() as u64) < count {
            let start = end.saturating_sub(PAGE).max(begin);
            let mut piece = self.between(start, end)?;
            piece.append(&mut latest);
            latest = piece;
            end = start;
        }
        let superfluous = latest
            .len()
            .saturating_sub(usize::try_from(count).unwrap_or(usize::MAX));
        latest.drain(..superfluous);
        Ok((latest, bounds.last))
    }

    /// The events after number `start`, up to `end`.
    fn between(&self, start: u64, end: u64) -> Result<Vec<Raw>, Failure> {
        let (mut events, mut after) = (Vec::new(), start);
        while after < end {
            let page = self.page(after, end - after, self.service)?;
            let Some(last) = page.events.last() else { break };
            after = seq(last)?;
            for event in page.events {
                if seq(&event)? <= end {
                    events.push(event);
                }
            }
        }
        Ok(events)
    }

    /// Shows what comes after number `after`, until nobody reads any more. A stream that ends is begun again where it ended.
    async fn follow(&self, after: u64, out: &mut Out) -> Result<(), Failure> {
        let (mut after, mut first, mut pause) = (after, true, PAUSE_MIN);
        loop {
            let before = after;
            let ended = self.stream(&mut after, first, out).await;
            let trouble = match ended {
                Ok(()) => return Ok(()),
                Err(Ended::Lost(trouble)) => trouble,
                Err(Ended::NoStream(failure)) if first || failure.exit == Exit::Refused => return Err(failure),
                Err(Ended::NoStream(failure)) => failure.detail,
            };
            first = false;
            if after > before {
                pause = PAUSE_MIN;
            }
            print::note(&format!(
                "{WARNING}note:{WARNING:#} the stream was lost: {}; following again after event {after}\n",
                safe(&trouble)
            ));
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Shows one stream, to its end. `Ok`: nobody reads any more.
    async fn stream(&self, after: &mut u64, first: bool, out: &mut Out) -> Result<(), Ended> {
        let mut request = Request::get(path(*after, None, self.service));
        if !first {
            request = request.header(HeaderName::from_static("last-event-id"), after.to_string());
        }
        let mut body = self.begun(&request).await.map_err(Ended::NoStream)?;
        let mut parser = Parser::default();
        loop {
            let frame = timeout(SILENCE, body.frame())
                .await
                .map_err(|_| Ended::lost("it was silent"))?;
            let frame = frame
                .ok_or_else(|| Ended::lost("the proxy ended it"))?
                .map_err(Ended::lost)?;
            let Some(piece) = frame.data_ref() else { continue };
            for data in parser.push(piece).map_err(Ended::lost)? {
                let event = RawValue::from_string(data).map_err(Ended::lost)?;
                *after = seq(&event).map_err(Ended::NoStream)?;
                if !out.show(&[event]) {
                    return Ok(());
                }
            }
        }
    }

    async fn begun(&self, request: &Request) -> Result<Incoming, Failure> {
        let in_words = |trouble: Trouble| failure(&trouble, &self.client.found, request);
        let response = self.client.respond(request, "text/event-stream").await;
        let response = response.map_err(in_words)?;
        if response.status.is_success() && response.kind == "text/event-stream" {
            return Ok(response.body);
        }
        let (status, kind) = (response.status, response.kind.clone());
        judged(status, &kind, response.text().await.map_err(in_words)?, self.client)?;
        Err(Failure::failed(format!(
            "{} gives no stream of events",
            self.client.found.place
        )))
    }
}

/// How a stream ended.
enum Ended {
    /// It did not begin, or makes no sense.
    NoStream(Failure),
    /// It broke off.
    Lost(String),
}

impl Ended {
    fn lost(why: impl ToString) -> Self {
        Self::Lost(why.to_string())
    }
}

fn path(after: u64, limit: Option<u64>, service: Option<&str>) -> String {
    let mut path = format!("/v1/events?after={after}");
    if let Some(limit) = limit {
        path += &format!("&limit={limit}");
    }
    if let Some(service) = service {
        path += &format!("&service={}", segment(service));
    }
    path
}

/// Wide enough for most; what is wider pushes its line.
const WIDTHS: [usize; 5] = [6, 24, 13, 16, 0];
const SIDES: [Side; 5] = [Side::Right, Side::Left, Side::Left, Side::Left, Side::Left];

fn headings() -> String {
    let heading = |text| Cell::styled(text, HEADING);
    line(&["SEQ", "TIME", "TYPE", "WHO", "WHAT"].map(heading), &WIDTHS, &SIDES)
}

/// One event on a line. One that a newer proxy wrote in a form that is not known here is shown as it is.
fn rendered(raw: &RawValue) -> String {
    let Ok(event) = serde_json::from_str::<Event>(raw.get()) else {
        return safe(raw.get()) + "\n";
    };
    let mut what = safe(&event.text);
    if let Some(reason) = &event.reason {
        what += &format!(". Reason: {}", safe(reason));
    }
    let cells = [
        event.seq.to_string(),
        safe(&event.time),
        event.kind.word().to_owned(),
        safe(&event.who),
        what,
    ];
    line(&cells.map(Cell::new), &WIDTHS, &SIDES)
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
