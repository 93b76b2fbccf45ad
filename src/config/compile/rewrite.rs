//! Header rules, another host, another path: those of a service and of each of its versions, made one.

use super::{Context, MAX_HEADER_RULES, text};
use crate::config::decode::{List, Map};
use crate::config::problem::{Path, nearest, printable, shown};
use crate::config::schema::{self, HeaderRules};
use crate::http1::{CertPiece, FieldEdits, Piece, Rewrite, field_owner};
use std::collections::HashMap;

/// A part of a value, before it is known which version it is for.
#[derive(Clone)]
enum Part {
    Ready(Piece),
    Service,
    Version,
}

const VARIABLES: [&str; 9] = [
    "client_ip",
    "host",
    "scheme",
    "request_id",
    "service",
    "version",
    "client_cert_verify",
    "client_cert_subject_cn",
    "client_cert_san",
];

fn variable(name: &str) -> Option<Part> {
    Some(match name {
        "client_ip" => Part::Ready(Piece::ClientIp),
        "host" => Part::Ready(Piece::Host),
        "scheme" => Part::Ready(Piece::Scheme),
        "request_id" => Part::Ready(Piece::RequestId),
        "client_cert_verify" => Part::Ready(Piece::ClientCert(CertPiece::Verify)),
        "client_cert_subject_cn" => Part::Ready(Piece::ClientCert(CertPiece::SubjectCn)),
        "client_cert_san" => Part::Ready(Piece::ClientCert(CertPiece::San)),
        "service" => Part::Service,
        "version" => Part::Version,
        _ => return None,
    })
}

/// The first variable in `text` as rules of headers write it: `${host}`.
pub(super) fn written_variable(text: &str) -> Option<String> {
    let written = VARIABLES.iter().map(|name| format!("${{{name}}}"));
    written.into_iter().find(|variable| text.contains(variable))
}

/// The first variable in `text` as others write it: `$host`.
fn bare_variable(text: &str) -> Option<&'static str> {
    let of_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let begins_with = |after: &str, name: &str| {
        after
            .strip_prefix(name)
            .is_some_and(|rest| !rest.as_bytes().first().is_some_and(of_name))
    };
    let mut after_signs = text.split('$').skip(1);
    after_signs.find_map(|after| VARIABLES.into_iter().find(|name| begins_with(after, name)))
}

/// A line that a rule adds; its name as it is written.
type Line = (String, Vec<Part>);

/// Rules of one level.
#[derive(Default)]
struct Rules {
    /// In lowercase.
    removed: Vec<String>,
    /// Those of `set` first.
    added: Vec<Line>,
    /// How many of `added` are of `set`.
    set: usize,
}

impl Rules {
    /// These rules, and then `more`.
    fn then(&self, more: &Self) -> (Vec<String>, Vec<Line>) {
        let gone = more.gone();
        let stays = |(name, _): &&Line| !gone.contains(&name.to_ascii_lowercase());
        let added = self.added.iter().filter(stays).chain(&more.added).cloned().collect();
        let mut removed = self.gone();
        removed.extend(gone);
        removed.sort_unstable();
        removed.dedup();
        (removed, added)
    }

    /// The names of fields that do not stay as they came, in lowercase.
    fn gone(&self) -> Vec<String> {
        let set = self.added.iter().take(self.set);
        let set = set.map(|(name, _)| name.to_ascii_lowercase());
        self.removed.iter().cloned().chain(set).collect()
    }
}

/// One level: a service, or a version.
struct Level {
    request: Rules,
    response: Rules,
    host: Option<Box<str>>,
    strip_prefix: Option<Box<str>>,
    add_prefix: Option<Box<str>>,
    location: Option<bool>,
}

impl Level {
    fn rewrite(&self, version: &Self, service_name: &str, version_name: &str) -> Rewrite {
        let pieces = |parts: Vec<Part>| {
            let piece = |part| match part {
                Part::Ready(piece) => piece,
                Part::Service => Piece::Text(service_name.into()),
                Part::Version => Piece::Text(version_name.into()),
            };
            parts.into_iter().map(piece).collect()
        };
        let edits = |outer: &Rules, inner: &Rules| {
            let (removed, added) = outer.then(inner);
            let added = added.into_iter().map(|(name, parts)| (name, pieces(parts)));
            FieldEdits::new(removed, added.collect())
        };
        Rewrite {
            request: edits(&self.request, &version.request),
            response: edits(&self.response, &version.response),
            host: version.host.clone().or_else(|| self.host.clone()),
            strip_prefix: version.strip_prefix.clone().or_else(|| self.strip_prefix.clone()),
            add_prefix: version.add_prefix.clone().or_else(|| self.add_prefix.clone()),
            keep_locations: version.location.or(self.location) == Some(false),
        }
    }
}

impl Context<'_> {
    /// What is rewritten for each version; `None` for one without rules.
    pub(super) fn rewrites(
        &mut self,
        service: &schema::Service,
        versions: &List<schema::Version>,
        path: &Path<'_>,
    ) -> Option<Box<[Option<Rewrite>]>> {
        let outer = self.level(
            &service.rewrite,
            &service.request_headers,
            &service.response_headers,
            path,
        );
        let versions_path = path.key("versions");
        let inner = versions.compile(|index, version| {
            let here = versions_path.index(index);
            let level = self.level(
                &version.rewrite,
                &version.request_headers,
                &version.response_headers,
                &here,
            );
            Some((level?, version.name.get()?.clone()))
        });
        let (outer, service_name) = (outer?, service.name.get()?);
        let made = inner?.into_iter().map(|(level, name)| {
            let rewrite = outer.rewrite(&level, service_name, &name);
            (!rewrite.is_empty()).then_some(rewrite)
        });
        Some(made.collect())
    }

    fn level(
        &mut self,
        rewrite: &schema::Rewrite,
        request: &HeaderRules,
        response: &HeaderRules,
        path: &Path<'_>,
    ) -> Option<Level> {
        let here = path.key("rewrite");
        let host = rewrite.host.as_ref().map(|host| self.new_host(host, &here.key("host")));
        let strip = rewrite
            .strip_prefix
            .as_ref()
            .map(|prefix| self.prefix(prefix, &here.key("strip_prefix")));
        let add = rewrite
            .add_prefix
            .as_ref()
            .map(|prefix| self.prefix(prefix, &here.key("add_prefix")));
        let request = self.header_rules(request, false, &path.key("request_headers"));
        let response = self.header_rules(response, true, &path.key("response_headers"));
        Some(Level {
            request: request?,
            response: response?,
            host: option(host)?,
            strip_prefix: option(strip)?,
            add_prefix: option(add)?,
            location: rewrite.location,
        })
    }

    fn new_host(&mut self, host: &str, path: &Path<'_>) -> Option<Box<str>> {
        if text::host_and_port(host).is_some() {
            return Some(host.into());
        }
        let message = format!("expected a host, with or without a port, found {}", shown(host));
        self.problems.add(path, message);
        None
    }

    /// Without slashes at its end.
    fn prefix(&mut self, prefix: &str, path: &Path<'_>) -> Option<Box<str>> {
        let prefix = self.route_path(prefix, path)?.trim_end_matches('/');
        if prefix.is_empty() {
            self.problems
                .add(path, "`/` changes nothing: expected a longer path, or the key left out");
            return None;
        }
        Some(prefix.into())
    }

    fn header_rules(&mut self, rules: &HeaderRules, of_answers: bool, path: &Path<'_>) -> Option<Rules> {
        let mut taken: HashMap<String, String> = HashMap::new();
        let remove = path.key("remove");
        let removed = self
            .count(&rules.remove, 0, MAX_HEADER_RULES, "headers", &remove)
            .then(|| {
                rules.remove.compile(|index, name| {
                    let here = remove.index(index);
                    self.rule_name(name, of_answers, &mut taken, &here)
                })
            });
        let set = self.lines(&rules.set, of_answers, &mut taken, &path.key("set"));
        let add = self.lines(&rules.add, of_answers, &mut taken, &path.key("add"));
        let (mut added, more) = (set?, add?);
        if !of_answers && !self.believes_nobody(&more, &path.key("add")) {
            return None;
        }
        let set = added.len();
        added.extend(more);
        Some(Rules {
            removed: removed.flatten()?.into(),
            added,
            set,
        })
    }

    /// Whether none of these lines, beside which the client's own stay, tells who the client is.
    fn believes_nobody(&mut self, added: &[Line], path: &Path<'_>) -> bool {
        let tells = |parts: &[Part]| {
            let is_told = |part: &Part| matches!(part, Part::Ready(Piece::ClientCert(_)));
            parts.iter().any(is_told)
        };
        let mut right = true;
        for (name, _) in added.iter().filter(|(_, parts)| tells(parts)) {
            let message =
                "what a client sends itself would stand beside what its certificate says: expected it in `set`";
            self.problems.add(&path.key(name), message);
            right = false;
        }
        right
    }

    fn lines(
        &mut self,
        lines: &Map<String>,
        of_answers: bool,
        taken: &mut HashMap<String, String>,
        path: &Path<'_>,
    ) -> Option<Vec<Line>> {
        if lines.len() > MAX_HEADER_RULES {
            let message = format!("expected at most {MAX_HEADER_RULES} headers, found {}", lines.len());
            self.problems.add(path, message);
            return None;
        }
        let compiled: Vec<Option<Line>> = lines
            .iter()
            .map(|(name, value)| {
                let here = path.key(name);
                let known = self.rule_name(name, of_answers, taken, &here);
                let value = self.value(value?, &here);
                known.and(Some((name.to_owned(), value?)))
            })
            .collect();
        compiled.into_iter().collect()
    }

    /// A name that a rule may touch, and no other does, in lowercase.
    fn rule_name(
        &mut self,
        name: &str,
        of_answers: bool,
        taken: &mut HashMap<String, String>,
        path: &Path<'_>,
    ) -> Option<String> {
        let lower = self.header_name(name, path)?;
        if let Some(why) = field_owner(name, of_answers) {
            let message = format!("`{}` cannot be changed: {why}", printable(name));
            self.problems.add(path, message);
            return None;
        }
        if let Some(first) = taken.insert(lower.to_string(), path.to_string()) {
            let message = format!(
                "`{}` is there already: {first}; expected one of `add`, `set` (whatever it was before) and `remove`",
                printable(name)
            );
            self.problems.add(path, message);
            return None;
        }
        Some(lower.into())
    }

    fn value(&mut self, value: &str, path: &Path<'_>) -> Option<Vec<Part>> {
        if !value.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte)) || value.trim() != value {
            let message = format!(
                "expected visible ASCII, without space at its ends, found {}",
                shown(value)
            );
            self.problems.add(path, message);
            return None;
        }
        if let Some(name) = bare_variable(value) {
            self.warn(
                path,
                format!("`${name}` is sent as it stands: did you mean `${{{name}}}`?"),
            );
        }
        let mut parts = Vec::new();
        let mut rest = value;
        while let Some((before, after)) = rest.split_once("${") {
            let Some((name, after)) = after.split_once('}') else {
                self.problems.add(path, "`${` without its `}`");
                return None;
            };
            let Some(part) = variable(name) else {
                let message = format!(
                    "there is no variable `${{{}}}`: expected one of {}",
                    printable(name),
                    VARIABLES.map(|name| format!("`${{{name}}}`")).join(", ")
                );
                let meant = nearest(name, VARIABLES).map(|name| format!("${{{name}}}"));
                self.problems.add_with(path, message, meant);
                return None;
            };
            parts.extend([Part::Ready(Piece::Text(before.into())), part]);
            rest = after;
        }
        parts.push(Part::Ready(Piece::Text(rest.into())));
        Some(parts)
    }
}

/// `None`: something is wrong; inside: what is written, if anything is.
fn option<T>(written: Option<Option<T>>) -> Option<Option<T>> {
    match written {
        None => Some(None),
        Some(right) => right.map(Some),
    }
}
