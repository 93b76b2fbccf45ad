//! One service: its versions, split, affinity, rules.

use super::{Context, MAX_KEY_SOURCES, MAX_RULES, MAX_VERSIONS};
use crate::config::condition::Guarded;
use crate::config::decode::{List, Map};
use crate::config::problem::{Path, nearest, printable};
use crate::config::scalars::{Drain, Weight};
use crate::config::schema;
use crate::config::snapshot;
use crate::routing::{
    Affinity, CookieSpec, Fallback, HashName, KeySource, Role, Rule, Service, Split, Target, Version, VersionId,
};
use std::collections::HashMap;

/// The weight of stable, and of canaries, where no version of a service names one.
const DEFAULT_WEIGHTS: (u32, u32) = (100, 0);

/// The versions of a service while it is compiled.
pub(super) struct Versions<'a> {
    /// By position; `None` for one whose name is wrong.
    names: Vec<Option<&'a str>>,
    roles: Vec<Role>,
    /// Whether every name is known: only then is an unknown one an error of its own.
    complete: bool,
}

impl<'a> Versions<'a> {
    fn new(versions: &'a List<schema::Version>) -> Self {
        let named_role = versions.iter().any(|(_, version)| version.role.is_some());
        let mut names = vec![None; versions.len()];
        let mut roles = vec![Role::Canary; versions.len()];
        for (index, version) in versions.iter() {
            let role = match version.role {
                Some(schema::Role::Stable) => Role::Stable,
                Some(schema::Role::Canary) => Role::Canary,
                None if !named_role && index == 0 => Role::Stable,
                None => Role::Canary,
            };
            if let (Some(name), Some(slot)) = (names.get_mut(index), roles.get_mut(index)) {
                *name = version.name.get().map(String::as_str);
                *slot = role;
            }
        }
        let complete = names.iter().all(Option::is_some);
        Self { names, roles, complete }
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| *known == Some(name))
    }

    pub(super) fn role(&self, id: VersionId) -> Option<Role> {
        self.roles.get(usize::try_from(id.0).ok()?).copied()
    }

    /// The name of the canary, where there is one alone.
    pub(super) fn only_canary(&self) -> Option<&'a str> {
        let mut canaries = self
            .names
            .iter()
            .zip(&self.roles)
            .filter(|(_, role)| **role == Role::Canary);
        let only = canaries.next().filter(|_| canaries.next().is_none());
        only.and_then(|(name, _)| *name)
    }

    pub(super) fn canaries(&self) -> usize {
        self.roles.iter().filter(|role| **role == Role::Canary).count()
    }
}

impl Context<'_> {
    /// A service for routing, and the rest of it.
    pub(super) fn service(
        &mut self,
        service: &schema::Service,
        path: &Path<'_>,
    ) -> Option<(Service, snapshot::Service)> {
        let list = service.versions.get()?;
        let versions_path = path.key("versions");
        if !self.count(list, 1, MAX_VERSIONS, "versions", &versions_path) {
            return None;
        }
        let versions = Versions::new(list);
        self.version_names(list, &versions_path);
        let stable = self.stable(list, &versions, &versions_path);
        let split = self.split(list, &versions, &versions_path);
        let pools = list.compile(|index, version| {
            let here = versions_path.index(index);
            self.pool(version.pool.get()?, &here.key("pool"))
        });
        let rewrites = self.rewrites(service, list, path);
        let limits = self.service_limits(service, list, path);
        let upgrades = self.upgrades(&service.upgrades, &path.key("upgrades"));
        let compiled = list.compile(|index, version| {
            Some(Version {
                name: version.name.get()?.as_str().into(),
                role: versions.roles.get(index).copied()?,
            })
        });
        let affinity = self.affinity(service, path);
        let rules = self.rules(&service.rules, &versions, &path.key("rules"));
        let rescue = match &service.rescue {
            Some(rescue) => self.rescue(rescue, &path.key("rescue")).map(Some),
            None => Some(None),
        };
        let mirror = match &service.mirror {
            Some(mirror) => self.mirror(mirror, &versions, &path.key("mirror")).map(Some),
            None => Some(None),
        };
        let rollout = match &service.rollout {
            Some(rollout) => {
                let name = service.name.get().map(String::as_str);
                self.rollout(rollout, name, &versions, &path.key("rollout")).map(Some)
            }
            None => Some(None),
        };
        let mirror = mirror.map(|mirror| {
            let plan = rollout.as_ref().and_then(Option::as_ref);
            self.mirror_with_steps(mirror, plan, &versions, &path.key("mirror"))
        });
        let policy = Service {
            name: service.name.get()?.as_str().into(),
            versions: compiled?,
            stable: stable?,
            affinity: affinity?,
            rules: rules?,
            fallback: match service.fallback {
                schema::Fallback::Stable => Fallback::Stable,
                schema::Fallback::Fail => Fallback::Fail,
            },
        };
        let (killed, kill_drain) = super::kill(&service.kill);
        let rest = snapshot::Service {
            split: split?,
            killed,
            kill_drain: kill_drain.map_or(self.kill_drain, Drain::after),
            expose_version: service.expose_version.unwrap_or(self.expose_version),
            pools: pools?,
            rewrites: rewrites?,
            mirror: mirror?,
            rescue: rescue?,
            limits: limits?,
            upgrades: upgrades?,
            rollout: rollout?,
        };
        Some((policy, rest))
    }

    fn version_names(&mut self, versions: &List<schema::Version>, path: &Path<'_>) {
        let mut names: HashMap<&str, usize> = HashMap::new();
        for (index, version) in versions.iter() {
            let Some(name) = version.name.get() else { continue };
            let here = path.index(index);
            self.name(name, &here.key("name"));
            if let Some(first) = names.insert(name, index) {
                self.taken("version", name, &path.index(first), &here.key("name"));
            }
        }
    }

    /// The one stable version; else a problem.
    fn stable(&mut self, list: &List<schema::Version>, versions: &Versions<'_>, path: &Path<'_>) -> Option<VersionId> {
        let stable: Vec<usize> = (0..)
            .zip(&versions.roles)
            .filter(|(_, role)| **role == Role::Stable)
            .map(|(index, _)| index)
            .collect();
        match stable.as_slice() {
            [one] => return u32::try_from(*one).ok().map(VersionId),
            [] if !list.is_complete() || self.problems.any_below(path) => {}
            [] => self
                .problems
                .add(path, "no version is stable: expected `role: stable` on exactly one"),
            [first, others @ ..] => {
                for other in others {
                    let here = path.index(*other);
                    let message = format!(
                        "a second stable version, after {}: expected exactly one",
                        path.index(*first)
                    );
                    self.problems.add(&here.key("role"), message);
                }
            }
        }
        None
    }

    /// The weights in the file.
    fn split(&mut self, list: &List<schema::Version>, versions: &Versions<'_>, path: &Path<'_>) -> Option<Split> {
        let named = list.iter().any(|(_, version)| version.weight.is_some());
        let weights = list.compile(|index, version| {
            let default = match versions.roles.get(index) {
                Some(Role::Stable) if !named => DEFAULT_WEIGHTS.0,
                _ => DEFAULT_WEIGHTS.1,
            };
            version
                .weight
                .map_or(Some(default), |weight| u32::try_from(weight.0).ok())
        })?;
        let split = Split::new(weights);
        if split.is_none() && !self.problems.any_below(path) {
            self.problems
                .add(path, "all weights are zero: no version would get traffic");
        }
        split
    }

    /// The version called `name`; else a problem.
    pub(super) fn version(&mut self, name: &str, versions: &Versions<'_>, path: &Path<'_>) -> Option<VersionId> {
        let found = versions.position(name).and_then(|index| u32::try_from(index).ok());
        if found.is_none() && versions.complete {
            let suggestion = nearest(name, versions.names.iter().copied().flatten());
            let message = format!("this service has no version `{}`", printable(name));
            self.problems.add_with(path, message, suggestion);
        }
        found.map(VersionId)
    }

    /// The outer `None`: something is wrong; the inner: no affinity.
    fn affinity(&mut self, service: &schema::Service, path: &Path<'_>) -> Option<Option<Affinity>> {
        let Some(affinity) = &service.affinity else {
            return Some(None);
        };
        let path = path.key("affinity");
        if affinity.key.is_empty() && affinity.cookie.is_none() && !affinity.keep && !self.problems.any_below(&path) {
            let message = "knows no user: expected a `key`, a `cookie` or `keep: true`";
            self.problems.add(&path, message);
        }
        let own = affinity.cookie.as_ref().map(|cookie| cookie.name.as_str());
        let key = self.key_sources(&affinity.key, own, &path.key("key"));
        let salt = match (&affinity.salt, service.name.get()) {
            (Some(salt), _) if salt.is_empty() => {
                self.problems
                    .add(&path.key("salt"), "expected a salt of one character or more");
                None
            }
            (Some(salt), _) => Some(salt.as_str()),
            (None, name) => name.map(String::as_str),
        };
        let cookie = self.cookie(affinity, &path.key("cookie"));
        Some(Some(Affinity {
            key: key?,
            salt: salt?.into(),
            hash: match affinity.hash {
                schema::Hash::Rollgate1 => HashName::Rollgate1,
                schema::Hash::Unleash1 => HashName::Unleash1,
                schema::Hash::Flagd2 => HashName::Flagd2,
            },
            cookie: cookie?,
            keep: affinity.keep,
        }))
    }

    /// Where a key comes from. `own`: the cookie that is none of them.
    pub(super) fn key_sources(
        &mut self,
        sources: &List<schema::KeySource>,
        own: Option<&str>,
        path: &Path<'_>,
    ) -> Option<Box<[KeySource]>> {
        if !self.count(sources, 0, MAX_KEY_SOURCES, "sources of the key", path) {
            return None;
        }
        sources.compile(|index, source| {
            let here = path.index(index);
            match source {
                schema::KeySource::Header(name) => self.header_name(name, &here.key("header")).map(KeySource::Header),
                schema::KeySource::Cookie(name) if Some(name.as_str()) == own => {
                    let message = format!(
                        "`{}` is the affinity cookie itself, which is looked at last",
                        printable(name)
                    );
                    self.problems.add(&here.key("cookie"), message);
                    None
                }
                schema::KeySource::Cookie(name) => self.cookie_name(name, &here.key("cookie")).map(KeySource::Cookie),
                schema::KeySource::ClientIp => Some(KeySource::ClientIp),
            }
        })
    }

    /// The outer `None`: something is wrong; the inner: no cookie.
    fn cookie(&mut self, affinity: &schema::Affinity, path: &Path<'_>) -> Option<Option<CookieSpec>> {
        let (name, ttl_s) = match &affinity.cookie {
            Some(cookie) => {
                let name = self.cookie_name(&cookie.name, &path.key("name"));
                if cookie.ttl.0.subsec_nanos() != 0 {
                    self.problems
                        .add(&path.key("ttl"), "expected a duration in whole seconds");
                }
                (name?, cookie.ttl.0.as_secs())
            }
            None if affinity.keep => ("rollgate".into(), 30 * 86_400),
            None => return Some(None),
        };
        Some(Some(CookieSpec { name, ttl_s }))
    }

    fn rules(&mut self, rules: &List<schema::Rule>, versions: &Versions<'_>, path: &Path<'_>) -> Option<Box<[Rule]>> {
        if !self.count(rules, 0, MAX_RULES, "rules", path) {
            return None;
        }
        let mut names: HashMap<&str, usize> = HashMap::new();
        for (index, rule) in rules.iter() {
            let Some(name) = rule.name.get() else { continue };
            let here = path.index(index);
            self.name(name, &here.key("name"));
            if let Some(first) = names.insert(name, index) {
                self.taken("rule", name, &path.index(first), &here.key("name"));
            }
        }
        rules.compile(|index, rule| {
            let here = path.index(index);
            let guarded = rule.when.get().and_then(|when| self.guarded(when, &here.key("when")));
            let target = self.target(rule, versions, &here);
            let (from, when) = guarded?;
            Some(Rule {
                name: rule.name.get()?.as_str().into(),
                when,
                from,
                target: target?,
            })
        })
    }

    fn guarded(
        &mut self,
        guarded: &Guarded,
        path: &Path<'_>,
    ) -> Option<(Option<crate::routing::SegmentId>, crate::routing::Condition)> {
        let from = guarded
            .from
            .as_deref()
            .map(|name| self.segment(name, &path.key("from")));
        let condition = self.condition(guarded.condition.as_ref()?, path)?;
        self.bounded_cost(&condition, path);
        match from {
            None => Some((None, condition)),
            Some(from) => Some((Some(from?), condition)),
        }
    }

    fn target(&mut self, rule: &schema::Rule, versions: &Versions<'_>, path: &Path<'_>) -> Option<Target> {
        match (&rule.version, &rule.split) {
            (Some(name), None) => self.version(name, versions, &path.key("version")).map(Target::Version),
            (None, Some(split)) => self.rule_split(split, versions, &path.key("split")).map(Target::Split),
            (Some(_), Some(_)) => {
                self.problems
                    .add(path, "`version` and `split` are given: expected only one of them");
                None
            }
            (None, None) => {
                if !self.problems.any_below(&path.key("version")) && !self.problems.any_below(&path.key("split")) {
                    self.problems
                        .add(path, "what the rule does is missing: expected `version` or `split`");
                }
                None
            }
        }
    }

    fn rule_split(&mut self, split: &Map<Weight>, versions: &Versions<'_>, path: &Path<'_>) -> Option<Split> {
        if split.len() > MAX_VERSIONS {
            self.problems.add(
                path,
                format!("expected at most {MAX_VERSIONS} versions, found {}", split.len()),
            );
            return None;
        }
        let mut weights = vec![0; versions.names.len()];
        let mut complete = true;
        for (name, weight) in split.iter() {
            let id = self.version(name, versions, &path.key(name));
            let slot = id.and_then(|id| weights.get_mut(usize::try_from(id.0).ok()?));
            match (slot, weight.and_then(|weight| u32::try_from(weight.0).ok())) {
                (Some(slot), Some(weight)) => *slot = weight,
                _ => complete = false,
            }
        }
        if !complete {
            return None;
        }
        let split = Split::new(weights);
        if split.is_none() {
            self.problems
                .add(path, "all weights are zero: no version would get traffic");
        }
        split
    }
}
