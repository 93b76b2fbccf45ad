//! The page of `/metrics`: built anew for each scrape from what is in force, so that the series of a version that
//! left are gone with it, and no label value comes from a request.

mod family;
mod mirrors;
mod rollouts;

use super::{Process, ShareWindow, endpoints};
use crate::config::snapshot;
use crate::outcome::{FailureKind, Handshake, OwnAnswerKind, Refusal, Termination};
use crate::routing::{Role, Service};
use crate::shared::{InForce, NotificationEnd, ServiceInForce, ServiceLimits, Shared, ThreadStats, VersionInForce};
use family::{Family, single};
use prometheus::TextEncoder;
use prometheus::proto::MetricFamily;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

/// The media type of [`render`]'s text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The whole page, in the Prometheus text format 0.0.4.
///
/// # Errors
/// When the encoder refuses a family; none that is built here.
pub fn render(shared: &Shared, window: &ShareWindow, process: &Process) -> prometheus::Result<String> {
    let in_force = shared.load();
    let mut page = Vec::new();
    let now_ms = u64::try_from(shared.uptime().as_millis()).unwrap_or(u64::MAX);
    versions(&mut page, &in_force, window, now_ms);
    rollouts::rollouts(&mut page, &in_force);
    mirrors::mirrors(&mut page, &in_force);
    configuration(&mut page, &in_force, shared);
    certificates(&mut page, shared);
    threads(&mut page, shared);
    notifications(&mut page, shared);
    this_process(&mut page, process);
    TextEncoder::new().encode_to_string(&page)
}

/// The families that have a sample for each version.
struct Versions {
    requests: Family,
    durations: Family,
    failures: Family,
    rescues: Family,
    in_flight: Family,
    target: Family,
    observed: Family,
    healthy: Family,
    killed: Family,
    limited: Family,
}

impl Versions {
    fn new() -> Self {
        Self {
            requests: Family::counter(
                "rollgate_requests_total",
                "Requests ended, by status code; 499: the client left.",
            ),
            durations: Family::histogram(
                "rollgate_request_duration_seconds",
                "From the request's head to the end of its answer; without upgraded connections and event streams.",
            ),
            failures: Family::counter(
                "rollgate_request_failures_total",
                "Failures charged to the version, by kind; also those that another version then answered.",
            ),
            rescues: Family::counter(
                "rollgate_rescues_total",
                "Failed requests of the canary that stable was asked to answer instead.",
            ),
            in_flight: Family::gauge("rollgate_requests_in_flight", "Requests begun and not ended."),
            target: Family::gauge(
                "rollgate_version_share_target",
                "Share the version is to get of requests that no rule decides, in percent, 0 to 100; stable has 100 under a kill switch.",
            ),
            observed: Family::gauge(
                "rollgate_version_share_observed",
                "Share the version got of the service's requests of the last 60 s, in percent, 0 to 100; absent without requests.",
            ),
            healthy: Family::gauge(
                "rollgate_endpoint_healthy",
                "1 if the endpoint may get requests, 0 if its probes fail or it is ejected.",
            ),
            killed: Family::gauge(
                "rollgate_kill_switch",
                "1 if everything goes to stable by the service's kill switch or the one for all.",
            ),
            limited: Family::counter(
                "rollgate_requests_limited_total",
                "Requests turned away by a limit of the service, or of the version named; no version had part in them.",
            ),
        }
    }

    fn finish(self) -> impl Iterator<Item = MetricFamily> {
        [
            self.requests,
            self.durations,
            self.failures,
            self.rescues,
            self.in_flight,
            self.target,
            self.observed,
            self.healthy,
            self.killed,
            self.limited,
        ]
        .into_iter()
        .filter_map(Family::finish)
    }
}

fn versions(page: &mut Vec<MetricFamily>, in_force: &InForce, window: &ShareWindow, now_ms: u64) {
    let mut families = Versions::new();
    let policies = &in_force.snapshot.policy.services;
    for (index, (policy, live)) in policies.iter().zip(&*in_force.services).enumerate() {
        let killed = f64::from(u8::from(in_force.is_killed(index)));
        families.killed.push(&[("service", &policy.name)], killed);
        if let Some(settings) = in_force.snapshot.services.get(index) {
            limited(&mut families.limited, policy, &settings.limits, &live.limits);
        }
        let target = |version| in_force.share_target(index, version);
        shares(&mut families, policy, live, target, window);
        for (version, live) in policy.versions.iter().zip(&live.versions) {
            let labels = [
                ("service", policy.name.as_ref()),
                ("version", version.name.as_ref()),
                ("role", role(version.role)),
            ];
            signals(&mut families, labels, live);
            for endpoint in endpoints(&live.pool, now_ms) {
                families.healthy.push(
                    &[labels[0], labels[1], ("endpoint", endpoint.label)],
                    f64::from(u8::from(endpoint.healthy)),
                );
            }
        }
    }
    page.extend(families.finish());
}

/// Of the limits that the file has.
fn limited(family: &mut Family, policy: &Service, settings: &snapshot::ServiceLimits, live: &ServiceLimits) {
    let service = ("service", policy.name.as_ref());
    let mut push = |version: &str, limit: &str, count: u64| {
        family.push(&[service, ("version", version), ("limit", limit)], count as f64);
    };
    if !settings.rates.is_empty() {
        push("", "rate", live.rates.rejected());
    }
    if !settings.keys_in_flight.is_empty() {
        push("", "in_flight_per_key", live.rejected_by_key());
    }
    if settings.max_in_flight.is_some() {
        push("", "in_flight", live.in_flight.rejected());
    }
    for (index, version) in policy.versions.iter().enumerate() {
        let (Some(settings), Some(live)) = (settings.of_version(index), live.version(index)) else {
            continue;
        };
        if !settings.rates.is_empty() {
            push(&version.name, "rate", live.rates.rejected());
        }
        if settings.max_in_flight.is_some() {
            push(&version.name, "in_flight", live.in_flight.rejected());
        }
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Stable => "stable",
        Role::Canary => "canary",
    }
}

/// What every series of a version begins with.
type VersionLabels<'a> = [(&'static str, &'a str); 3];

fn signals(families: &mut Versions, labels: VersionLabels<'_>, live: &VersionInForce) {
    let totals = live.stats.totals();
    let [service, version, role] = labels;
    for (code, count) in totals.codes() {
        let code = code.to_string();
        families
            .requests
            .push(&[service, version, role, ("code", &code)], count as f64);
    }
    if totals.other_codes > 0 {
        families
            .requests
            .push(&[service, version, role, ("code", "other")], totals.other_codes as f64);
    }
    families.durations.push_durations(&labels, &totals);
    for kind in FailureKind::ALL {
        families.failures.push(
            &[service, version, role, ("kind", kind.as_str())],
            totals.failed(kind) as f64,
        );
    }
    if role != ("role", self::role(Role::Stable)) {
        families.rescues.push(&[service, version], totals.rescues as f64);
    }
    families.in_flight.push(&labels, totals.in_flight as f64);
}

fn shares(
    families: &mut Versions,
    policy: &Service,
    live: &ServiceInForce,
    target: impl Fn(usize) -> f64,
    window: &ShareWindow,
) {
    let requests: Vec<u64> = live
        .versions
        .iter()
        .map(|version| window.requests(&version.stats))
        .collect();
    let total: u64 = requests.iter().sum();
    for ((index, version), requests) in policy.versions.iter().enumerate().zip(requests) {
        let labels = [("service", policy.name.as_ref()), ("version", version.name.as_ref())];
        families.target.push(&labels, target(index));
        if total > 0 {
            families.observed.push(&labels, requests as f64 * 100.0 / total as f64);
        }
    }
}

fn configuration(page: &mut Vec<MetricFamily>, in_force: &InForce, shared: &Shared) {
    let reload = shared.reload.lock().unwrap_or_else(PoisonError::into_inner).clone();
    page.extend(single(
        Family::gauge("rollgate_config_generation", "Number of the configuration in force."),
        in_force.generation as f64,
    ));
    page.extend(single(
        Family::gauge(
            "rollgate_config_last_reload_successful",
            "1 if the file on disk is in force, 0 if its last load failed and the one before stays.",
        ),
        f64::from(u8::from(reload.error.is_none())),
    ));
    if reload.last_success_s > 0 {
        page.extend(single(
            Family::gauge(
                "rollgate_config_last_reload_success_timestamp_seconds",
                "When a file was last put in force, in seconds since the Unix epoch.",
            ),
            reload.last_success_s as f64,
        ));
    }
    let mut reloads = Family::counter("rollgate_config_reloads_total", "Loads of the file, by result.");
    reloads.push(&[("result", "success")], reload.succeeded as f64);
    reloads.push(&[("result", "failure")], reload.failed as f64);
    page.extend(reloads.finish());
}

fn certificates(page: &mut Vec<MetricFamily>, shared: &Shared) {
    let certificates = shared
        .certificates
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_s = now.map_or(0.0, |since| since.as_secs_f64());
    let mut expiry = Family::gauge(
        "rollgate_certificate_expiry_seconds",
        "Time until the first certificate of the file expires, in seconds; negative once it has.",
    );
    let mut loaded = Family::gauge(
        "rollgate_certificate_last_load_successful",
        "1 if the file on disk is in use, 0 if its last load failed and the one before stays.",
    );
    for certificate in &certificates {
        let label = [("certificate", &*certificate.file)];
        if let Some(expires_s) = certificate.expires_s {
            expiry.push(&label, expires_s as f64 - now_s);
        }
        loaded.push(&label, f64::from(u8::from(certificate.error.is_none())));
    }
    page.extend(expiry.finish());
    page.extend(loaded.finish());
}

fn threads(page: &mut Vec<MetricFamily>, shared: &Shared) {
    let sum =
        |count: &dyn Fn(&ThreadStats) -> u64| shared.threads.iter().map(|thread| count(thread)).sum::<u64>() as f64;
    let mut refusals = Family::counter(
        "rollgate_refusals_total",
        "Requests and connections refused by the proxy itself, by reason.",
    );
    for refusal in Refusal::ALL {
        refusals.push(&[("reason", refusal.as_str())], sum(&|thread| thread.refusals(refusal)));
    }
    page.extend(refusals.finish());
    let mut terminations = Family::counter(
        "rollgate_terminations_total",
        "Requests ended, by who ended them and when.",
    );
    for termination in Termination::ALL {
        terminations.push(
            &[("code", termination.as_str())],
            sum(&|thread| thread.terminations(termination)),
        );
    }
    page.extend(terminations.finish());
    let mut handshakes = Family::counter(
        "rollgate_tls_handshakes_total",
        "TLS handshakes with clients that ended, by how.",
    );
    for handshake in Handshake::ALL {
        handshakes.push(
            &[("result", handshake.as_str())],
            sum(&|thread| thread.handshakes(handshake)),
        );
    }
    page.extend(handshakes.finish());
    let mut own_answers = Family::counter(
        "rollgate_own_answers_total",
        "Requests that the proxy answered by itself as the file says, by kind; no version had part in them.",
    );
    for kind in OwnAnswerKind::ALL {
        own_answers.push(&[("kind", kind.as_str())], sum(&|thread| thread.own_answers(kind)));
    }
    page.extend(own_answers.finish());
    let open: i64 = shared.threads.iter().map(|thread| thread.connections()).sum();
    let singles = [
        (
            Family::counter(
                "rollgate_upgrades_failed_total",
                "Upgrades that came to nothing: this process went on serving.",
            ),
            shared.upgrades_failed.load(Ordering::Relaxed) as f64,
        ),
        (
            Family::gauge("rollgate_connections", "Downstream connections open."),
            open as f64,
        ),
        (
            Family::counter("rollgate_connections_total", "Downstream connections accepted."),
            sum(&ThreadStats::connections_total),
        ),
        (
            Family::counter("rollgate_retries_total", "Attempts on a further endpoint."),
            sum(&ThreadStats::retries),
        ),
        (
            Family::counter("rollgate_panics_total", "Requests whose handling panicked."),
            sum(&ThreadStats::panics),
        ),
        (
            Family::counter(
                "rollgate_access_log_dropped_total",
                "Lines of the access log that were not written.",
            ),
            shared.log_dropped.load(Ordering::Relaxed) as f64,
        ),
    ];
    page.extend(singles.into_iter().filter_map(|(family, value)| single(family, value)));
}

fn notifications(page: &mut Vec<MetricFamily>, shared: &Shared) {
    let notifications = &shared.notifications;
    let mut ended = Family::counter(
        "rollgate_notifications_total",
        "Notifications for one receiver that wait no more, by how they ended.",
    );
    for end in NotificationEnd::ALL {
        ended.push(&[("end", end.as_str())], notifications.ended(end) as f64);
    }
    page.extend(ended.finish());
    page.extend(single(
        Family::gauge(
            "rollgate_notifications_waiting",
            "Notifications that wait for their receivers.",
        ),
        notifications.waiting() as f64,
    ));
}

fn this_process(page: &mut Vec<MetricFamily>, process: &Process) {
    let mut build = Family::gauge("rollgate_build_info", "Always 1; which build runs.");
    build.push(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    page.extend(build.finish());
    let count = |value: Option<u64>| value.map(|value| value as f64);
    let singles = [
        (
            Family::counter(
                "process_cpu_seconds_total",
                "User and system CPU time spent, in seconds.",
            ),
            process.cpu_seconds,
        ),
        (
            Family::gauge("process_resident_memory_bytes", "Resident memory."),
            count(process.resident_bytes),
        ),
        (
            Family::gauge("process_virtual_memory_bytes", "Virtual memory."),
            count(process.virtual_bytes),
        ),
        (
            Family::gauge("process_open_fds", "Open file descriptors."),
            count(process.open_fds),
        ),
        (
            Family::gauge("process_max_fds", "Most file descriptors the process may open."),
            count(process.max_fds),
        ),
        (
            Family::gauge(
                "process_start_time_seconds",
                "When the process began, in seconds since the Unix epoch.",
            ),
            process.start_time_s,
        ),
    ];
    page.extend(singles.into_iter().filter_map(|(family, value)| single(family, value?)));
}

#[cfg(test)]
mod tests;
