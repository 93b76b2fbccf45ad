//! The families of mirrors: a sample for each service whose file has one.

use super::family::Family;
use crate::outcome::{Comparison, FailureKind, Uncopied};
use crate::shared::{InForce, MirrorStats};
use prometheus::proto::MetricFamily;

struct Mirrors {
    requests: Family,
    failures: Family,
    durations: Family,
    original_durations: Family,
    in_flight: Family,
    compared: Family,
    dropped: Family,
}

impl Mirrors {
    fn new() -> Self {
        Self {
            requests: Family::counter(
                "rollgate_mirror_requests_total",
                "Copies sent that ended, by status code.",
            ),
            failures: Family::counter("rollgate_mirror_request_failures_total", "Copies that failed, by kind."),
            durations: Family::histogram(
                "rollgate_mirror_duration_seconds",
                "Time to the first byte of the answer to a copy.",
            ),
            original_durations: Family::histogram(
                "rollgate_mirror_original_duration_seconds",
                "Of the same requests as they were answered: time to the first byte.",
            ),
            in_flight: Family::gauge("rollgate_mirror_requests_in_flight", "Copies begun and not ended."),
            compared: Family::counter(
                "rollgate_mirror_compared_total",
                "Copies beside their originals: the same status, another status, the copy alone failed, the original alone failed.",
            ),
            dropped: Family::counter(
                "rollgate_mirror_dropped_total",
                "Requests that were not copied, by reason.",
            ),
        }
    }

    fn mirror(&mut self, service: &str, mirror: &MirrorStats) {
        let labels = [("service", service), ("version", &*mirror.version)];
        let [service, version] = labels;
        let copies = mirror.copies.totals();
        for (code, count) in copies.codes() {
            let code = code.to_string();
            self.requests.push(&[service, version, ("code", &code)], count as f64);
        }
        if copies.other_codes > 0 {
            self.requests
                .push(&[service, version, ("code", "other")], copies.other_codes as f64);
        }
        for kind in FailureKind::ALL {
            let label = ("kind", kind.as_str());
            self.failures
                .push(&[service, version, label], copies.failed(kind) as f64);
        }
        self.durations.push_durations(&labels, &copies);
        self.original_durations
            .push_durations(&labels, &mirror.originals.totals());
        self.in_flight.push(&labels, copies.in_flight as f64);
        for result in Comparison::ALL {
            let label = ("result", result.as_str());
            self.compared
                .push(&[service, version, label], mirror.compared_total(result) as f64);
        }
        for reason in Uncopied::ALL {
            let label = ("reason", reason.as_str());
            self.dropped
                .push(&[service, version, label], mirror.uncopied_total(reason) as f64);
        }
    }

    fn finish(self) -> impl Iterator<Item = MetricFamily> {
        [
            self.requests,
            self.failures,
            self.durations,
            self.original_durations,
            self.in_flight,
            self.compared,
            self.dropped,
        ]
        .into_iter()
        .filter_map(Family::finish)
    }
}

pub(super) fn mirrors(page: &mut Vec<MetricFamily>, in_force: &InForce) {
    let mut families = Mirrors::new();
    for (policy, live) in in_force.snapshot.policy.services.iter().zip(&*in_force.services) {
        if let Some(mirror) = &live.mirror {
            families.mirror(&policy.name, mirror);
        }
    }
    page.extend(families.finish());
}
