//! `rollgate status [SERVICE] [--watch]`: what is in force, what comes of it, and what is wrong.

use super::client::{Client, Request, segment};
use super::context::{Context, Proxy};
use super::failure::{Exit, Failure, one_line};
use super::print::{self, BAD, HEADING, PLAIN, WARNING};
use super::table::{Cell, Side, Table, duration, percent, safe, tenths};
use crate::admin::api::{Kill, RolloutStatus, ServiceStatus, Status, VersionStatus};
use anstyle::Style;

use std::process::ExitCode;
use std::time::Duration;

/// Between two looks of `--watch`.
const EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A service's name: also its endpoints and totals
    service: Option<String>,
    /// Look again every second, until interrupted; with --json, one line for each look
    #[arg(long, short)]
    watch: bool,
    #[command(flatten)]
    proxy: Proxy,
}

impl Arguments {
    pub fn run(&self, context: &Context) -> ExitCode {
        let json = context.json(&self.proxy.reach);
        let client = match context.client(&self.proxy.reach, self.proxy.config.as_deref()) {
            Ok(client) => client,
            Err(failure) => return print::finish(Err(failure), json),
        };
        if self.watch {
            return self.watch(&client, json);
        }
        print::finish(self.look(&client, json), json)
    }

    fn look(&self, client: &Client, json: bool) -> Result<String, Failure> {
        let of_all = Request::get("/v1/status");
        let of_one = self
            .service
            .as_deref()
            .map(|service| Request::get(format!("/v1/services/{}", segment(service))));
        if json {
            return Ok(one_line(&client.call(of_one.as_ref().unwrap_or(&of_all))?.body));
        }
        let service = of_one.map(|request| client.call(&request)?.parse()).transpose()?;
        let mut status: Status = client.call(&of_all)?.parse()?;
        Ok(match service {
            None => rendered(&status),
            Some(service) => {
                status.services = vec![service];
                rendered_service(&status)
            }
        })
    }

    /// Looks until a look is refused, nobody reads any more, or the first one does not reach the proxy.
    fn watch(&self, client: &Client, json: bool) -> ExitCode {
        let screen = !json && print::has_screen();
        let mut seen = false;
        loop {
            let look = match self.look(client, json) {
                Err(failure) if !seen || failure.exit != Exit::Unreachable => return print::finish(Err(failure), json),
                Err(failure) if json => failure.render_json(),
                Err(failure) => failure.render() + "trying again\n",
                Ok(text) => text,
            };
            seen = true;
            let shown = if screen {
                print::screen(&look)
            } else if json {
                print::out(&look)
            } else {
                print::out(&format!("{look}\n"))
            };
            if shown.is_err() {
                return Exit::Done.into();
            }
            std::thread::sleep(EVERY);
        }
    }
}

/// All services: one line each version, and below it what is wrong.
pub fn rendered(status: &Status) -> String {
    let mut table = Table::new(&[&[("SERVICE", Side::Left)], &SIGNALS[..]].concat());
    for service in &status.services {
        for (index, version) in service.versions.iter().enumerate() {
            let name = if index == 0 { safe(&service.name) } else { String::new() };
            table.row(std::iter::once(Cell::new(name)).chain(signals(service, version)));
        }
    }
    format!("{}\n{}{}", head(status), table.render(), below(status))
}

/// The one service in `status`, with its endpoints.
pub fn rendered_service(status: &Status) -> String {
    let mut text = head(status);
    for service in &status.services {
        text += &format!(
            "\n{HEADING}{}{HEADING:#}  weights by {}, ",
            safe(&service.name),
            safe(&service.weights_source)
        );
        text += &format!("epoch {}\n", service.epoch);
        if let Some(rollout) = &service.rollout {
            text += &rollout_lines(rollout);
        }
        let totals = [("REQUESTS", Side::Right), ("FAILURES", Side::Right)];
        let mut versions = Table::new(&[&SIGNALS[..], &totals].concat());
        let mut endpoints = Table::new(&[
            ("ENDPOINT", Side::Left),
            ("VERSION", Side::Left),
            ("HEALTHY", Side::Left),
            ("IN FLIGHT", Side::Right),
        ]);
        for version in &service.versions {
            let totals = [version.requests_total, version.failures_total].map(|total| Cell::new(total.to_string()));
            versions.row(signals(service, version).into_iter().chain(totals));
            for endpoint in &version.endpoints {
                endpoints.row([
                    Cell::new(safe(&endpoint.endpoint)),
                    Cell::new(safe(&version.name)),
                    if endpoint.healthy {
                        Cell::new("yes")
                    } else {
                        Cell::styled("no", BAD)
                    },
                    Cell::new(endpoint.in_flight.to_string()),
                ]);
            }
        }
        text += &format!("\n{}\n{}", versions.render(), endpoints.render());
    }
    text + &below(status)
}

/// `rollgate 0.1.0, pid 7, up 3 d 4 h, generation 12, ready`, and the file.
fn head(status: &Status) -> String {
    let (state, style) = match (status.draining, status.ready) {
        (true, _) => ("draining", WARNING),
        (false, true) => ("ready", PLAIN),
        (false, false) => ("starting", WARNING),
    };
    format!(
        "{HEADING}rollgate {}{HEADING:#}, pid {}, up {}, generation {}, {style}{state}{style:#}\n{} in force since {}\n",
        safe(&status.version),
        status.pid,
        duration(status.uptime_s),
        status.generation,
        safe(&status.config.file),
        safe(&status.config.last_success),
    )
}

/// Of one version; `-` where there is no data.
const SIGNALS: [(&str, Side); 12] = [
    ("VERSION", Side::Left),
    ("ROLE", Side::Left),
    ("SPLIT BY", Side::Left),
    ("WEIGHT", Side::Right),
    ("TARGET %", Side::Right),
    ("OBSERVED %", Side::Right),
    ("RATE /s", Side::Right),
    ("ERRORS %", Side::Right),
    ("P50 ms", Side::Right),
    ("P99 ms", Side::Right),
    ("IN FLIGHT", Side::Right),
    ("HEALTHY", Side::Right),
];

fn signals(service: &ServiceStatus, version: &VersionStatus) -> Vec<Cell> {
    let split_by = if service.killed {
        Cell::styled("killed", BAD)
    } else {
        Cell::new(safe(&service.weights_source))
    };
    let errors = if version.error_rate.is_some_and(|rate| rate > 0.0) {
        WARNING
    } else {
        PLAIN
    };
    let healthy = version.endpoints.iter().filter(|endpoint| endpoint.healthy).count();
    let health = match (healthy, version.endpoints.len()) {
        (healthy, all) if healthy == all => PLAIN,
        (0, _) => BAD,
        _ => WARNING,
    };
    let figure = |text: String, style: Style| Cell::styled(text, style);
    vec![
        Cell::new(safe(&version.name)),
        Cell::new(safe(&version.role)),
        split_by,
        Cell::new(version.weight.to_string()),
        Cell::new(percent(Some(version.share_target))),
        Cell::new(percent(version.share_observed)),
        Cell::new(tenths(Some(version.rate))),
        figure(percent(version.error_rate), errors),
        Cell::new(tenths(version.p50_ms)),
        Cell::new(tenths(version.p99_ms)),
        Cell::new(version.in_flight.to_string()),
        figure(format!("{healthy}/{}", version.endpoints.len()), health),
    ]
}

/// How a rollout stands: a line, and one for each check.
fn rollout_lines(rollout: &RolloutStatus) -> String {
    let mut text = format!("rollout of {}: {}", safe(&rollout.candidate), safe(&rollout.summary));
    if matches!(rollout.phase.as_str(), "progressing" | "baking" | "waiting_approval") {
        let (elapsed, hold) = (rollout.elapsed_s.floor(), rollout.hold_s);
        text += &format!(
            ", {elapsed:.0} s of {hold:.0} s, waits for {}",
            safe(&rollout.waits_for)
        );
    }
    if let Some(obstacle) = &rollout.obstacle {
        text += &format!(" ({})", safe(obstacle));
    }
    text += "\n";
    for check in &rollout.checks {
        text += &format!(
            "  {}: {} ({})\n",
            safe(&check.metric),
            safe(&check.verdict.replace('_', " ")),
            safe(&check.reason)
        );
    }
    text
}

/// What an operator should know: a line each, after an empty one; nothing when all is well.
fn below(status: &Status) -> String {
    let mut warnings = Vec::new();
    if status.draining {
        warnings.push("the process is stopping or being replaced: it takes no changes any more".to_owned());
    }
    if let Some(kill) = &status.kill {
        warnings.push(killed("all services are", kill, "--all"));
    }
    for service in &status.services {
        if let Some(kill) = &service.kill {
            warnings.push(killed(
                &format!("{} is", safe(&service.name)),
                kill,
                &safe(&service.name),
            ));
        }
    }
    if !status.state.durable {
        let error = status.state.error.as_deref().unwrap_or("no reason is known");
        warnings.push(format!(
            "not durable: what is in force would not survive a crash: {} (state directory {})",
            safe(error),
            safe(&status.state.directory)
        ));
    }
    for certificate in &status.certificate_problems {
        warnings.push(format!("{}: {}", safe(&certificate.file), safe(&certificate.problem)));
    }
    if let Some(error) = &status.config.error {
        let lines = error.lines().map(|line| format!("\n  {}", safe(line)));
        warnings.push(format!(
            "the last reload failed, and the file from before it is in force:{}",
            lines.collect::<String>()
        ));
    } else if !status.config.last_reload_successful {
        warnings.push("the last reload failed, and the file from before it is in force".to_owned());
    }
    if !status.config.restart_required.is_empty() {
        let keys: Vec<String> = status.config.restart_required.iter().map(|key| safe(key)).collect();
        warnings.push(format!("only after a restart: {}", keys.join(", ")));
    }
    let lines = warnings
        .iter()
        .map(|warning| format!("{WARNING}warning:{WARNING:#} {warning}\n"));
    let lines: String = lines.collect();
    if lines.is_empty() { lines } else { format!("\n{lines}") }
}

/// As `shop is killed since … by ada: "reason"; …`.
fn killed(whose: &str, kill: &Kill, argument: &str) -> String {
    let mut text = format!("{whose} killed: everything goes to stable");
    if let Some(since) = &kill.since {
        text += &format!(", since {}", safe(since));
    }
    if let Some(who) = &kill.who {
        text += &format!(", by {}", safe(who));
    }
    if let Some(reason) = &kill.reason {
        text += &format!(": {}", safe(reason));
    }
    let release = match kill.source.as_str() {
        "file" => "remove `kill` from the file".to_owned(),
        "both" => format!("`rollgate unkill {argument}` and the file without `kill`"),
        _ => format!("`rollgate unkill {argument}`"),
    };
    format!("{text}. Released by: {release}")
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
