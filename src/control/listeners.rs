//! Settings of listeners across publications: sockets stay as they were at the start, what they do may change.

use crate::config::Snapshot;
use crate::config::snapshot::Listener;
use crate::control::tls::TlsFiles;
use crate::shared::{InForce, ListenerInForce};
use std::sync::Arc;

/// The listeners of the next publication, one for each socket of the process. A socket finds its settings by its address
/// (first at its own place in the file); one whose address has left the file keeps those it had.
pub fn listeners(snapshot: &Snapshot, previous: Option<&InForce>, tls: &TlsFiles) -> Arc<[ListenerInForce]> {
    let Some(previous) = previous else {
        return snapshot
            .listeners
            .iter()
            .map(|spec| in_force(spec, None, tls))
            .collect();
    };
    let sockets = previous.listeners.iter().enumerate();
    sockets
        .map(|(index, before)| {
            let same = |listener: &&Listener| listener.address == before.spec.address;
            let at_its_place = snapshot.listeners.get(index).filter(same);
            let now = at_its_place.or_else(|| snapshot.listeners.iter().find(same));
            now.map_or_else(|| before.clone(), |spec| in_force(spec, Some(before), tls))
        })
        .collect()
}

fn in_force(spec: &Listener, before: Option<&ListenerInForce>, tls: &TlsFiles) -> ListenerInForce {
    let before = before.and_then(|before| Some((before.spec.tls.as_ref()?, before.tls.as_ref()?)));
    ListenerInForce {
        tls: spec.tls.as_ref().map(|spec| tls.listener(spec, before)),
        spec: spec.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::fixture;

    fn snapshot(listeners: &[(&str, bool)]) -> Snapshot {
        let lines: String = listeners
            .iter()
            .map(|(address, proxy)| format!("  - {{ address: \"{address}\", proxy_protocol: {proxy} }}\n"))
            .collect();
        let text = format!(
            "listeners:\n{lines}services:\n  - name: s\n    versions: [{{ name: v1, pool: {{ endpoints: [\"127.0.0.1:1\"] }} }}]\n"
        );
        crate::config::parse(&text, std::path::Path::new("")).unwrap()
    }

    fn after(first: &[(&str, bool)], then: &[(&str, bool)]) -> Vec<(String, bool)> {
        let mut in_force = fixture::in_force(1, 1, &[]);
        in_force.listeners = listeners(&snapshot(first), None, &TlsFiles::default());
        let next = listeners(&snapshot(then), Some(&in_force), &TlsFiles::default());
        let told = |listener: &ListenerInForce| (listener.spec.address.to_string(), listener.spec.proxy_protocol);
        next.iter().map(told).collect()
    }

    #[test]
    fn a_socket_follows_its_address_and_stays_when_that_has_left() {
        let (a, b, c) = ("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3");
        let expected = |list: &[(&str, bool)]| list.iter().map(|(a, p)| ((*a).to_owned(), *p)).collect::<Vec<_>>();
        let started = [(a, false), (b, true)];
        assert_eq!(
            after(&started, &[(a, true), (b, false)]),
            expected(&[(a, true), (b, false)])
        );
        assert_eq!(
            after(&started, &[(b, false), (a, true)]),
            expected(&[(a, true), (b, false)])
        );
        assert_eq!(
            after(&started, &[(c, true), (a, true)]),
            expected(&[(a, true), (b, true)])
        );
    }

    #[test]
    fn addresses_that_the_kernel_completes_are_told_apart_by_place() {
        let any = "127.0.0.1:0";
        let next = after(&[(any, false), (any, true)], &[(any, true), (any, false)]);
        assert_eq!(next.iter().map(|(_, proxy)| *proxy).collect::<Vec<_>>(), [true, false]);
    }
}
