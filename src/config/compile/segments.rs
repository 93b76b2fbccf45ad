//! Segments and conditions: names resolved, cycles found, the cost of one evaluation bounded.

use super::{Context, MAX_LIST, MAX_SEGMENTS, text};
use crate::config::condition as written;
use crate::config::decode::{List, Map};
use crate::config::problem::{Path, nearest, printable, shown};
use crate::routing::{ClientCertPart, Condition, Operator, Segment, SegmentId, Source};
use regex::{Regex, RegexBuilder};

/// The most conditions looked at for one, all inside it and those of the segments it names: without it, segments that
/// name another twice, twenty deep, would cost a million a request. Below what `routing` looks at before it gives up.
pub const MAX_STEPS: usize = 1_000;
/// The most levels of one condition, those of the segments it names included.
pub const MAX_LEVELS: usize = 64;
/// Bytes of one compiled regular expression.
const MAX_REGEX_BYTES: usize = 1 << 20;

/// What evaluating a condition can cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    pub steps: usize,
    pub levels: usize,
}

impl Cost {
    fn is_above_bound(self) -> bool {
        self.steps > MAX_STEPS || self.levels > MAX_LEVELS
    }

    /// One level above `inner`.
    fn around(inner: impl Iterator<Item = Self>) -> Self {
        let inner = inner.fold(Self::default(), |sum, cost| Self {
            steps: sum.steps.saturating_add(cost.steps),
            levels: sum.levels.max(cost.levels),
        });
        Self {
            steps: inner.steps.saturating_add(1),
            levels: inner.levels.saturating_add(1),
        }
    }
}

/// The cost of `condition`; segments that are not known yet cost nothing.
pub fn cost(condition: &Condition, segments: &[Cost]) -> Cost {
    match condition {
        Condition::Test { .. } | Condition::ClientIp(_) => Cost { steps: 1, levels: 1 },
        Condition::Segment(SegmentId(id)) => {
            let index = usize::try_from(*id).unwrap_or(usize::MAX);
            Cost::around(segments.get(index).copied().into_iter())
        }
        Condition::Any(inner) | Condition::All(inner) => Cost::around(inner.iter().map(|inner| cost(inner, segments))),
        Condition::Not(inner) => Cost::around(std::iter::once(cost(inner, segments))),
    }
}

impl Context<'_> {
    pub(super) fn segments(&mut self, segments: &Map<written::Condition>) -> Option<Box<[Segment]>> {
        let path = Path::ROOT.key("segments");
        if segments.len() > MAX_SEGMENTS {
            let message = format!("expected at most {MAX_SEGMENTS} segments, found {}", segments.len());
            self.problems.add(&path, message);
            return None;
        }
        for ((name, _), id) in segments.iter().zip(0..) {
            self.name(name, &path.key(name));
            self.segments.insert(name.to_owned(), SegmentId(id));
        }
        let compiled: Vec<Option<Segment>> = segments
            .iter()
            .map(|(name, condition)| {
                let when = self.condition(condition?, &path.key(name))?;
                Some(Segment {
                    name: name.into(),
                    when,
                })
            })
            .collect();
        self.segment_costs(&compiled, &path);
        compiled.into_iter().collect()
    }

    /// Reports cycles, and notes what each segment costs.
    fn segment_costs(&mut self, segments: &[Option<Segment>], path: &Path<'_>) {
        let named: Vec<Vec<usize>> = segments
            .iter()
            .map(|segment| {
                let mut named = Vec::new();
                if let Some(segment) = segment {
                    segments_named(&segment.when, &mut named);
                }
                named
            })
            .collect();
        let name_of = |index: usize| match segments.get(index) {
            Some(Some(segment)) => &*segment.name,
            _ => "",
        };
        let (order, cycles) = order(&named);
        for cycle in cycles {
            let Some(&first) = cycle.first() else { continue };
            let names: Vec<&str> = cycle.iter().chain([&first]).map(|&index| name_of(index)).collect();
            let message = format!("circular segments: {}", names.join(" -> "));
            self.problems.add(&path.key(name_of(first)), message);
        }
        self.costs = vec![Cost::default(); segments.len()];
        for index in order {
            let Some(Some(segment)) = segments.get(index) else {
                continue;
            };
            let cost = self.bounded_cost(&segment.when, &path.key(&segment.name));
            if let Some(slot) = self.costs.get_mut(index) {
                *slot = cost;
            }
        }
    }

    /// The cost of a condition; a problem and no cost when it is above the bound, so that it is said once.
    pub(super) fn bounded_cost(&mut self, condition: &Condition, path: &Path<'_>) -> Cost {
        let cost = cost(condition, &self.costs);
        if !cost.is_above_bound() {
            return cost;
        }
        let message = format!(
            "too much to evaluate for every request: {} conditions on {} levels with the segments it names, at most \
             {MAX_STEPS} on {MAX_LEVELS}",
            cost.steps, cost.levels
        );
        self.problems.add(path, message);
        Cost::default()
    }

    /// A condition, compiled; every problem in it reported. The recursion is bounded by the depth of the file.
    pub(super) fn condition(&mut self, condition: &written::Condition, path: &Path<'_>) -> Option<Condition> {
        match condition {
            written::Condition::Test { source, name, operator } => {
                let source = self.source(*source, name, path);
                let operator = self.operator(operator, path);
                Some(Condition::Test {
                    source: source?,
                    operator: operator?,
                })
            }
            written::Condition::ClientCert { subject_cn, san } => {
                self.client_cert(subject_cn.as_ref(), san.as_ref(), &path.key("client_cert"))
            }
            written::Condition::ClientIp(networks) => {
                let here = path.key("client_ip");
                if !self.count(networks, 1, MAX_LIST, "networks", &here) {
                    return None;
                }
                self.networks(networks, &here).map(Condition::ClientIp)
            }
            written::Condition::Segment(name) => self.segment(name, &path.key("segment")).map(Condition::Segment),
            written::Condition::Any(inner) => self.conditions(inner, &path.key("any")).map(Condition::Any),
            written::Condition::All(inner) => self.conditions(inner, &path.key("all")).map(Condition::All),
            written::Condition::Not(inner) => {
                let inner = self.condition(inner, &path.key("not"))?;
                Some(Condition::Not(Box::new(inner)))
            }
        }
    }

    fn conditions(&mut self, conditions: &List<written::Condition>, path: &Path<'_>) -> Option<Box<[Condition]>> {
        if !self.count(conditions, 1, MAX_LIST, "conditions", path) {
            return None;
        }
        conditions.compile(|index, condition| self.condition(condition, &path.index(index)))
    }

    /// One test for each part; of several, all have to pass.
    fn client_cert(
        &mut self,
        subject_cn: Option<&written::Operator>,
        san: Option<&written::Operator>,
        path: &Path<'_>,
    ) -> Option<Condition> {
        self.needs_client_ca(path);
        let parts = [
            ("subject_cn", ClientCertPart::SubjectCn, subject_cn),
            ("san", ClientCertPart::San, san),
        ];
        let tests = parts.into_iter().filter_map(|(key, part, operator)| {
            let operator = self.operator(operator?, &path.key(key));
            Some(operator.map(|operator| Condition::Test {
                source: Source::ClientCert(part),
                operator,
            }))
        });
        let mut tests = tests.collect::<Option<Vec<_>>>()?;
        match tests.len() {
            0 | 1 => tests.pop(),
            _ => Some(Condition::All(tests.into())),
        }
    }

    /// Whoever tests certificates wants to see some.
    fn needs_client_ca(&mut self, path: &Path<'_>) {
        if std::mem::take(&mut self.asks_no_client) {
            let message = "no listener has a `client_ca`: no client is asked for a certificate";
            self.warn(path, message.to_owned());
        }
    }

    fn source(&mut self, source: written::Source, name: &str, path: &Path<'_>) -> Option<Source> {
        if source == written::Source::ClientCert {
            self.needs_client_ca(&path.key("client_cert"));
        }
        match source {
            written::Source::Header => self.header_name(name, &path.key("header")).map(Source::Header),
            written::Source::Cookie => self.cookie_name(name, &path.key("cookie")).map(Source::Cookie),
            written::Source::Query if name.is_empty() => {
                self.problems.add(
                    &path.key("query"),
                    "expected the name of a query parameter, found an empty string",
                );
                None
            }
            written::Source::Query => Some(Source::Query(name.into())),
            written::Source::ClientCert => match name {
                "subject_cn" => Some(Source::ClientCert(ClientCertPart::SubjectCn)),
                "san" => Some(Source::ClientCert(ClientCertPart::San)),
                _ => {
                    let message = format!("expected `subject_cn` or `san`, found {}", shown(name));
                    let suggestion = nearest(name, ["subject_cn", "san"]);
                    self.problems.add_with(&path.key("client_cert"), message, suggestion);
                    None
                }
            },
        }
    }

    /// The name of a header field, lowercase; else a problem.
    pub(super) fn header_name(&mut self, name: &str, path: &Path<'_>) -> Option<Box<str>> {
        if text::is_token(name) && name.len() <= 256 {
            return Some(name.to_ascii_lowercase().into());
        }
        let message = format!("expected the name of a header, found {}", shown(name));
        self.problems.add(path, message);
        None
    }

    /// The name of a cookie; else a problem.
    pub(super) fn cookie_name(&mut self, name: &str, path: &Path<'_>) -> Option<Box<str>> {
        if text::is_token(name) && name.len() <= 256 {
            return Some(name.into());
        }
        let message = format!("expected the name of a cookie, found {}", shown(name));
        self.problems.add(path, message);
        None
    }

    fn operator(&mut self, operator: &written::Operator, path: &Path<'_>) -> Option<Operator> {
        let mut part = |key: &str, text: &String| -> Option<Box<str>> {
            if text.is_empty() {
                let message = "an empty string is in every value: use `exists: true`";
                self.problems.add(&path.key(key), message);
                return None;
            }
            Some(text.as_str().into())
        };
        Some(match operator {
            written::Operator::Equals(text) => Operator::Equals(text.as_str().into()),
            written::Operator::StartsWith(text) => Operator::StartsWith(part("starts_with", text)?),
            written::Operator::EndsWith(text) => Operator::EndsWith(part("ends_with", text)?),
            written::Operator::Contains(text) => Operator::Contains(part("contains", text)?),
            written::Operator::In(values) => {
                if !self.count(values, 1, MAX_LIST, "values", &path.key("in")) {
                    return None;
                }
                Operator::In(values.compile(|_, value| Some(value.as_str().into()))?)
            }
            written::Operator::Matches(pattern) => Operator::Matches(self.regex(pattern, &path.key("matches"))?),
            written::Operator::Exists(exists) => Operator::Exists(*exists),
            written::Operator::GreaterThan(number) => Operator::GreaterThan(*number),
            written::Operator::LessThan(number) => Operator::LessThan(*number),
        })
    }

    fn regex(&mut self, pattern: &str, path: &Path<'_>) -> Option<Regex> {
        let compiled = RegexBuilder::new(pattern)
            .size_limit(MAX_REGEX_BYTES)
            .dfa_size_limit(MAX_REGEX_BYTES)
            .nest_limit(50)
            .build();
        match compiled {
            Ok(regex) => Some(regex),
            Err(regex::Error::CompiledTooBig(_)) => {
                let message = format!("the regular expression needs more than {MAX_REGEX_BYTES} bytes when compiled");
                self.problems.add(path, message);
                None
            }
            Err(error) => {
                // The crate's text shows the pattern over several lines; its last line says what is wrong.
                let text = error.to_string();
                let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
                let message = format!(
                    "not a regular expression: {} in `{}`",
                    printable(reason),
                    printable(pattern)
                );
                self.problems.add(path, message);
                None
            }
        }
    }
}

/// The segments that `condition` names.
fn segments_named(condition: &Condition, named: &mut Vec<usize>) {
    match condition {
        Condition::Test { .. } | Condition::ClientIp(_) => {}
        Condition::Segment(SegmentId(id)) => named.extend(usize::try_from(*id)),
        Condition::Any(inner) | Condition::All(inner) => inner.iter().for_each(|inner| segments_named(inner, named)),
        Condition::Not(inner) => segments_named(inner, named),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Visit {
    Not,
    Open,
    Done,
}

/// An order in which every node comes after those it names, and the cycles that stand against it. Without recursion:
/// a chain may be as long as there are segments.
fn order(named: &[Vec<usize>]) -> (Vec<usize>, Vec<Vec<usize>>) {
    let mut visits = vec![Visit::Not; named.len()];
    let (mut order, mut cycles) = (Vec::with_capacity(named.len()), Vec::new());
    for start in 0..named.len() {
        if visits.get(start) != Some(&Visit::Not) {
            continue;
        }
        set(&mut visits, start, Visit::Open);
        let mut stack = vec![(start, 0)];
        while let Some((node, next)) = stack.last_mut() {
            let node = *node;
            let Some(&child) = named.get(node).and_then(|children| children.get(*next)) else {
                set(&mut visits, node, Visit::Done);
                order.push(node);
                stack.pop();
                continue;
            };
            *next += 1;
            match visits.get(child) {
                Some(Visit::Not) => {
                    set(&mut visits, child, Visit::Open);
                    stack.push((child, 0));
                }
                Some(Visit::Open) => {
                    let cycle: Vec<usize> = stack
                        .iter()
                        .map(|(node, _)| *node)
                        .skip_while(|node| *node != child)
                        .collect();
                    if !cycles.contains(&cycle) && cycles.len() < MAX_SEGMENTS {
                        cycles.push(cycle);
                    }
                }
                Some(Visit::Done) | None => {}
            }
        }
    }
    (order, cycles)
}

fn set(visits: &mut [Visit], node: usize, visit: Visit) {
    if let Some(slot) = visits.get_mut(node) {
        *slot = visit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_cycle_is_named_once_and_the_rest_is_ordered() {
        let (order, cycles) = order(&[vec![1], vec![2, 2], vec![0], vec![0]]);
        assert_eq!(cycles, [vec![0, 1, 2]]);
        assert_eq!(order.len(), 4);
        let (_, cycles) = super::order(&[vec![0]]);
        assert_eq!(cycles, [vec![0]]);
    }

    #[test]
    fn a_long_chain_needs_no_stack() {
        let named: Vec<Vec<usize>> = (0..200_000).map(|n| vec![n + 1]).collect();
        let (order, cycles) = order(&named);
        assert_eq!((order.len(), cycles.len()), (200_000, 0));
        assert_eq!(order[0], 199_999);
    }

    proptest! {
        #[test]
        fn without_cycles_everything_comes_after_what_it_names(
            named in prop::collection::vec(prop::collection::vec(0usize..30, 0..4), 0..30)
        ) {
            let (order, cycles) = order(&named);
            prop_assert_eq!(order.len(), named.len());
            let position = |node: usize| order.iter().position(|n| *n == node);
            for (node, children) in named.iter().enumerate() {
                for child in children.iter().filter(|child| **child < named.len()) {
                    if position(*child) >= position(node) {
                        prop_assert!(!cycles.is_empty());
                    }
                }
            }
        }
    }
}
