//! `rollgate demo`.

use super::client::{Client, Request, segment};
use super::context::{Context, Reach};
use super::print::{self, HEADING};
use super::run::{DEFAULT_FILTER, start_log};
use super::table::safe;
use crate::config::Snapshot;
use crate::control::event_log::Event;
use crate::control::load;
use crate::demo::{Bug, Users};
use crate::runtime::EventKind;
use crate::{demo, server};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

/// How often the demo looks at what has happened.
const LOOK: Duration = Duration::from_millis(200);

/// The step in which the candidate breaks.
const BREAKS_IN: u32 = 2;

/// What is logged beside the demo's own words.
const FILTER: &str = "warn,h2=error,pingora_runtime=error,rustls=error";

/// Runs the demo until Ctrl-C. `json`: its log is for programs.
pub fn run(config: Option<PathBuf>, json: bool, context: &Context) -> ExitCode {
    let _log = start_log(json, if json { DEFAULT_FILTER } else { FILTER });
    match start(config, json, context) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => super::run::report(&error),
    }
}

fn start(config: Option<PathBuf>, json: bool, context: &Context) -> anyhow::Result<()> {
    let config = demo::config_file(config)?;
    let snapshot = load::load(&config)?;
    if let Some(refused) = load::refused(&config, &snapshot) {
        anyhow::bail!(refused);
    }
    let bug = demo::start_upstreams(&snapshot)?;
    demo::try_listen(&snapshot)?;
    demo::forget(&snapshot)?;
    print::print(&demo::instructions(&snapshot, &config));
    if let (Some(listener), true) = (snapshot.listeners.first(), demo::is_rolled_out(&snapshot)) {
        let users = Users::start(listener.address)?;
        if let (false, Ok(client)) = (json, context.client(&Reach::default(), Some(&config))) {
            let mut story = Story::new(client, bug, users, &config, good_for(&snapshot));
            thread::Builder::new()
                .name("demo-story".to_owned())
                .spawn(move || story.tell())?;
        }
    }
    server::run(&config, false)
}

/// Less than half of the step in which it breaks.
fn good_for(snapshot: &Snapshot) -> Duration {
    let plan = snapshot.plans().next();
    let step = plan.and_then(|plan| plan.step(BREAKS_IN));
    step.map_or(Duration::ZERO, |step| step.hold * 2 / 5)
}

/// `GET /v1/events`
#[derive(Deserialize)]
struct Page {
    events: Vec<Event>,
}

/// A rollout in which the candidate breaks, told as it happens.
struct Story {
    client: Client,
    bug: Bug,
    users: Arc<Users>,
    config: String,
    began: Instant,
    /// The number of the last event told.
    told: u64,
    /// How long the candidate is in that step before it breaks.
    good_for: Duration,
    breaks_at: Option<Instant>,
    has_broken: bool,
}

impl Story {
    fn new(client: Client, bug: Bug, users: Arc<Users>, config: &Path, good_for: Duration) -> Self {
        Self {
            good_for,
            client,
            bug,
            users,
            config: config.display().to_string(),
            began: Instant::now(),
            told: 0,
            breaks_at: None,
            has_broken: false,
        }
    }

    /// Until the process ends.
    fn tell(&mut self) {
        loop {
            sleep(LOOK);
            for event in self.news() {
                self.told = event.seq;
                if event.service.is_some() {
                    self.line(&safe(&event.text));
                    self.follow(&event);
                }
            }
            if self.breaks_at.take_if(|at| *at <= Instant::now()).is_some() {
                self.has_broken = true;
                self.bug.set(true);
                self.line("(v2 now has a bug: two of five of its requests fail)");
            }
        }
    }

    /// Empty while the proxy does not answer yet.
    fn news(&self) -> Vec<Event> {
        let request = Request::get(format!("/v1/events?after={}", self.told));
        let page = self.client.call(&request).and_then(|answer| answer.parse::<Page>());
        page.map(|page| page.events).unwrap_or_default()
    }

    fn follow(&mut self, event: &Event) {
        match event.kind {
            EventKind::Step if !self.has_broken && event.after.get("step") == Some(&BREAKS_IN.into()) => {
                self.breaks_at = Some(Instant::now() + self.good_for);
            }
            EventKind::Rollback => self.over(event.service.as_deref().unwrap_or_default()),
            _ => {}
        }
    }

    /// Caught and reverted: what it meant, and what can be done now.
    fn over(&mut self, service: &str) {
        self.bug.set(false);
        self.breaks_at = None;
        let (answers, errors) = self.users.seen();
        let program = std::env::current_exe().map_or_else(|_| "rollgate".to_owned(), |path| path.display().to_string());
        let text = format!(
            "\n{HEADING}Caught and reverted.{HEADING:#} The users have had {answers} answers so far, {errors} of them errors: \
             what v2 failed, v1 answered.\nv2 is mended. Try it again:\n    {program} rollout retry {} --config {}\n\n",
            segment(service),
            self.config
        );
        print::print(&text);
    }

    fn line(&self, text: &str) {
        print::print(&format!("{:>4} s  {text}\n", self.began.elapsed().as_secs()));
    }
}
