//! Affinity cookies of services that share a host: each would overwrite the other's, and no user would stay.

use super::Context;
use crate::config::problem::Path;
use crate::routing::{Destination, HostPattern, Policy, Route};
use std::collections::HashMap;

/// Who sets a cookie where, by the cookie's name and a host or part of one. The first service stands for all that follow:
/// each of those is told.
#[derive(Default)]
struct Claims<'p> {
    /// Exact hosts.
    exact: HashMap<(&'p str, &'p str), usize>,
    /// Suffixes of wildcards.
    wildcard: HashMap<(&'p str, &'p str), usize>,
    /// Suffixes below which there is a host or a wildcard.
    below: HashMap<(&'p str, &'p str), usize>,
    /// Every host.
    any: HashMap<&'p str, usize>,
    /// At least one host.
    some: HashMap<&'p str, usize>,
}

/// The suffixes of a host behind each of its dots.
fn suffixes(host: &str) -> impl Iterator<Item = &str> {
    host.match_indices('.').filter_map(|(dot, _)| host.get(dot + 1..))
}

impl<'p> Claims<'p> {
    /// Another service whose cookie `name` is set on a host that `pattern` takes, too.
    fn other(&self, name: &'p str, pattern: &'p HostPattern, service: usize) -> Option<usize> {
        let other = |claim: Option<&usize>| claim.copied().filter(|&other| other != service);
        let wider = |host: &'p str| suffixes(host).find_map(|suffix| other(self.wildcard.get(&(name, suffix))));
        let any = || other(self.any.get(name));
        match pattern {
            HostPattern::Any => other(self.some.get(name)),
            HostPattern::Exact(host) => other(self.exact.get(&(name, host)))
                .or_else(|| wider(host))
                .or_else(any),
            HostPattern::Wildcard(suffix) => other(self.wildcard.get(&(name, suffix)))
                .or_else(|| other(self.below.get(&(name, suffix))))
                .or_else(|| wider(suffix))
                .or_else(any),
        }
    }

    fn add(&mut self, name: &'p str, pattern: &'p HostPattern, service: usize) {
        self.some.entry(name).or_insert(service);
        let host: &'p str = match pattern {
            HostPattern::Any => {
                self.any.entry(name).or_insert(service);
                return;
            }
            HostPattern::Exact(host) => {
                self.exact.entry((name, host)).or_insert(service);
                host
            }
            HostPattern::Wildcard(suffix) => {
                self.wildcard.entry((name, suffix)).or_insert(service);
                suffix
            }
        };
        for suffix in suffixes(host) {
            self.below.entry((name, suffix)).or_insert(service);
        }
    }
}

impl Context<'_> {
    /// Reports services that share a host and the name of their affinity cookie.
    pub(super) fn cookies(&mut self, policy: &Policy) {
        let mut claims = Claims::default();
        let mut reported = None;
        for Route { host, to, .. } in policy.routes.routes() {
            let Destination::Service(service) = to else { continue };
            let index = service.0 as usize;
            let Some(spec) = policy
                .services
                .get(index)
                .and_then(|service| service.affinity.as_ref()?.cookie.as_ref())
            else {
                continue;
            };
            if let Some(other) = claims.other(&spec.name, host, index)
                && reported != Some(index)
            {
                reported = Some(index);
                let services = Path::ROOT.key("services");
                let first = services.index(other);
                let (line, _) = self.problems.position(&first);
                let message = format!(
                    "the affinity cookie `{}` is also that of {first} (line {line}) on the same host, and each would \
                     overwrite the other's: give one of them another `cookie.name`",
                    spec.name
                );
                let here = services.index(index);
                self.problems.add(&here.key("affinity"), message);
            }
            claims.add(&spec.name, host, index);
        }
    }
}

#[cfg(test)]
mod tests {
    fn problems(first_host: &str, second_host: &str, second_cookie: &str) -> Vec<String> {
        let service = |name: &str, host: &str, port: u16, cookie: &str| {
            format!(
                "  - name: {name}\n    routes: [{{ host: \"{host}\", path_prefix: /{name} }}]\n    affinity: {{ cookie: {{ \
                 name: {cookie} }} }}\n    versions: [{{ name: v1, role: stable, pool: {{ endpoints: [\"127.0.0.1:{port}\"] \
                 }} }}]\n"
            )
        };
        let text = format!(
            "listeners: [{{ address: 127.0.0.1:8080 }}]\nservices:\n{}{}",
            service("one", first_host, 9001, "rollgate"),
            service("two", second_host, 9002, second_cookie)
        );
        let parsed = crate::config::parse(&text, std::path::Path::new(""));
        parsed
            .err()
            .unwrap_or_default()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn one_cookie_of_two_services_on_a_host_is_a_problem() {
        for (first, second) in [
            ("shop.example.com", "shop.example.com"),
            ("*.example.com", "shop.example.com"),
            ("shop.example.com", "*.example.com"),
            ("*.shop.example.com", "*.example.com"),
            ("*.example.com", "*.shop.example.com"),
        ] {
            let found = problems(first, second, "rollgate");
            assert!(
                found.len() == 1 && found[0].contains("services[1].affinity"),
                "{first} {second}: {found:?}"
            );
            assert!(found[0].contains("services[0]"), "{found:?}");
        }
    }

    #[test]
    fn other_hosts_and_other_names_are_none() {
        assert_eq!(problems("shop.example.com", "blog.example.com", "rollgate"), [""; 0]);
        assert_eq!(problems("*.shop.example.com", "shop.example.com", "rollgate"), [""; 0]);
        assert_eq!(problems("shop.example.com", "shop.example.com", "other"), [""; 0]);
    }
}
