//! A pool's endpoints as the file names them.

use crate::shared::Pool;
use std::collections::{HashMap, HashSet};

/// An endpoint of the file as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointNow<'a> {
    /// As in the file.
    pub label: &'a str,
    /// Whether it may get requests.
    pub healthy: bool,
    /// Requests on it.
    pub in_flight: u64,
}

/// One entry a label of the file, in file order: a name with several addresses is healthy if one of them is, and one
/// that has none yet is not. A label that the file has twice is one entry: a page with a series twice is refused whole.
/// `now_ms`: milliseconds of [`crate::shared::Shared::uptime`].
pub fn endpoints(pool: &Pool, now_ms: u64) -> Vec<EndpointNow<'_>> {
    let labels = pool.spec.endpoints.iter().map(|spec| &*spec.label);
    let live = pool.endpoints.iter().map(|endpoint| EndpointNow {
        label: &endpoint.label,
        healthy: endpoint.usable(now_ms),
        in_flight: u64::from(endpoint.in_flight()),
    });
    by_label(labels, live)
}

fn by_label<'a>(
    labels: impl Iterator<Item = &'a str>,
    live: impl Iterator<Item = EndpointNow<'a>>,
) -> Vec<EndpointNow<'a>> {
    let mut found: HashMap<&str, (bool, u64)> = HashMap::new();
    for endpoint in live {
        let (healthy, in_flight) = found.entry(endpoint.label).or_default();
        *healthy |= endpoint.healthy;
        *in_flight += endpoint.in_flight;
    }
    let mut written = HashSet::new();
    labels
        .filter(|&label| written.insert(label))
        .map(|label| {
            let (healthy, in_flight) = found.get(label).copied().unwrap_or_default();
            EndpointNow {
                label,
                healthy,
                in_flight,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_one_endpoint_however_many_addresses_it_has() {
        let labels = ["a:1", "b:1", "c:1", "d:1", "a:1"];
        let live = [
            ("a:1", false),
            ("a:1", true),
            ("b:1", false),
            ("d:1", true),
            ("gone:1", true),
        ];
        let live = live.map(|(label, healthy)| EndpointNow {
            label,
            healthy,
            in_flight: 2,
        });
        let found: Vec<_> = by_label(labels.into_iter(), live.into_iter())
            .iter()
            .map(|now| (now.label, now.healthy, now.in_flight))
            .collect();
        assert_eq!(
            found,
            [("a:1", true, 4), ("b:1", false, 2), ("c:1", false, 0), ("d:1", true, 2)]
        );
    }
}
