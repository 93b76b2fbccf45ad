//! Conditions on a request: header, cookie, query, client_ip, segment, any/all/not.

use super::{ClientCert, RequestView, Segment, SegmentId};
use ipnet::IpNet;
use regex::Regex;

/// A condition, compiled. The depth is bounded when it is compiled, and segments are free of cycles.
#[derive(Debug, Clone)]
pub enum Condition {
    Test { source: Source, operator: Operator },
    ClientIp(Box<[IpNet]>),
    Segment(SegmentId),
    Any(Box<[Condition]>),
    All(Box<[Condition]>),
    Not(Box<Condition>),
}

/// Where a tested value comes from. Names of headers are lowercase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Any field line of that name: one that satisfies is enough. A line is not split at commas.
    Header(Box<str>),
    /// The first cookie of that name.
    Cookie(Box<str>),
    /// The first parameter of that name, decoded.
    Query(Box<str>),
    /// Of the certificate that the client has shown. Of several values one that satisfies is enough.
    ClientCert(ClientCertPart),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertPart {
    SubjectCn,
    San,
}

/// How a value is tested. An absent value satisfies only `Exists(false)`.
///
/// Values are bytes and are compared as such, with regard to case.
#[derive(Debug, Clone)]
pub enum Operator {
    Equals(Box<str>),
    In(Box<[Box<str>]>),
    StartsWith(Box<str>),
    EndsWith(Box<str>),
    Contains(Box<str>),
    /// Anywhere in the value, unless anchored. A value that is not UTF-8 does not match.
    Matches(Regex),
    Exists(bool),
    /// Above this number. Only a finite decimal number counts (`12`, `-0.5`, `1e3`), without spaces.
    GreaterThan(f64),
    /// Below this number; as [`Operator::GreaterThan`].
    LessThan(f64),
}

/// How deep conditions may nest, through segments too. Deeper ones are not satisfied: see [`Condition::matches`].
pub const MAX_CONDITION_DEPTH: u32 = 64;

/// How many conditions are looked at for one answer: segments used many times over could otherwise multiply.
pub const MAX_CONDITION_STEPS: u32 = 10_000;

impl Condition {
    /// Whether `request` satisfies this. Total: an unknown segment is satisfied by nobody, and where evaluation would
    /// pass [`MAX_CONDITION_DEPTH`] or [`MAX_CONDITION_STEPS`] (which a compiled file never does) the whole condition
    /// counts as not satisfied, whatever `not` stands around it.
    pub fn matches(&self, request: &RequestView<'_>, segments: &[Segment]) -> bool {
        let mut steps = MAX_CONDITION_STEPS;
        self.evaluate(request, segments, MAX_CONDITION_DEPTH, &mut steps) == Some(true)
    }

    /// `None`: out of depth or steps.
    fn evaluate(&self, request: &RequestView<'_>, segments: &[Segment], depth: u32, steps: &mut u32) -> Option<bool> {
        *steps = steps.checked_sub(1)?;
        let below = depth.checked_sub(1)?;
        Some(match self {
            Self::Test { source, operator } => source.satisfies(request, operator),
            Self::ClientIp(networks) => {
                let client = request.canonical_client_ip();
                networks.iter().any(|network| network.contains(&client))
            }
            Self::Segment(id) => match segments.get(id.0 as usize) {
                Some(segment) => segment.when.evaluate(request, segments, below, steps)?,
                None => false,
            },
            Self::Any(conditions) => {
                for condition in conditions {
                    if condition.evaluate(request, segments, below, steps)? {
                        return Some(true);
                    }
                }
                false
            }
            Self::All(conditions) => {
                for condition in conditions {
                    if !condition.evaluate(request, segments, below, steps)? {
                        return Some(false);
                    }
                }
                true
            }
            Self::Not(condition) => !condition.evaluate(request, segments, below, steps)?,
        })
    }
}

impl Source {
    fn satisfies(&self, request: &RequestView<'_>, operator: &Operator) -> bool {
        match self {
            Self::Header(name) => {
                let mut present = false;
                let held = request.fields.any(name, &mut |value| {
                    present = true;
                    operator.holds(value)
                });
                held || (!present && operator.holds_absent())
            }
            Self::Cookie(name) => match request.cookie(name) {
                Some(value) => operator.holds(value),
                None => operator.holds_absent(),
            },
            Self::Query(name) => match request.query_parameter(name) {
                Some(value) => operator.holds(&value),
                None => operator.holds_absent(),
            },
            Self::ClientCert(part) => {
                let mut values = request.client_cert.into_iter().flat_map(|cert| cert.values(*part));
                let holds = |value: &str| match part {
                    ClientCertPart::San if is_dns_name(value) => operator.holds_without_case(value),
                    _ => operator.holds(value.as_bytes()),
                };
                match values.next() {
                    Some(first) => std::iter::once(first).chain(values).any(holds),
                    None => operator.holds_absent(),
                }
            }
        }
    }
}

impl ClientCert {
    fn values(&self, part: ClientCertPart) -> impl Iterator<Item = &str> {
        let (cn, san) = match part {
            ClientCertPart::SubjectCn => (self.subject_cn.as_deref(), &[][..]),
            ClientCertPart::San => (None, &*self.san),
        };
        cn.into_iter().chain(san.iter().map(|name| &**name))
    }
}

/// Whether an alternative name is none of the other kinds: they have an `@` (email addresses) or a `:` (URIs, IPv6).
fn is_dns_name(name: &str) -> bool {
    !name.contains(['@', ':'])
}

impl Operator {
    /// As [`Self::holds`], where capitals make no difference (RFC 4343). Expressions and numbers have their own way.
    fn holds_without_case(&self, value: &str) -> bool {
        let same = |part: &[u8], expected: &str| part.eq_ignore_ascii_case(expected.as_bytes());
        let bytes = value.as_bytes();
        match self {
            Self::Equals(expected) => same(bytes, expected),
            Self::In(expected) => expected.iter().any(|one| same(bytes, one)),
            Self::StartsWith(start) => bytes.get(..start.len()).is_some_and(|part| same(part, start)),
            Self::EndsWith(end) => {
                let from = bytes.len().checked_sub(end.len());
                from.and_then(|from| bytes.get(from..))
                    .is_some_and(|part| same(part, end))
            }
            Self::Contains(part) => {
                memchr::memmem::find(&bytes.to_ascii_lowercase(), &part.as_bytes().to_ascii_lowercase()).is_some()
            }
            Self::Matches(_) | Self::Exists(_) | Self::GreaterThan(_) | Self::LessThan(_) => self.holds(bytes),
        }
    }

    fn holds(&self, value: &[u8]) -> bool {
        match self {
            Self::Equals(expected) => value == expected.as_bytes(),
            Self::In(expected) => expected.iter().any(|one| value == one.as_bytes()),
            Self::StartsWith(start) => value.starts_with(start.as_bytes()),
            Self::EndsWith(end) => value.ends_with(end.as_bytes()),
            Self::Contains(part) => memchr::memmem::find(value, part.as_bytes()).is_some(),
            Self::Matches(pattern) => str::from_utf8(value).is_ok_and(|text| pattern.is_match(text)),
            Self::Exists(present) => *present,
            Self::GreaterThan(limit) => number(value).is_some_and(|value| value > *limit),
            Self::LessThan(limit) => number(value).is_some_and(|value| value < *limit),
        }
    }

    fn holds_absent(&self) -> bool {
        matches!(self, Self::Exists(false))
    }
}

/// A finite decimal number. `inf`, `nan` and what overflows are none.
fn number(value: &[u8]) -> Option<f64> {
    let text = str::from_utf8(value).ok()?;
    let digits_only = text
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
    let number: f64 = text.parse().ok().filter(|_| digits_only)?;
    number.is_finite().then_some(number)
}

#[cfg(test)]
mod tests {
    use super::super::request::tests::{Lines, request};
    use super::*;

    fn header(name: &str, operator: Operator) -> Condition {
        Condition::Test {
            source: Source::Header(name.into()),
            operator,
        }
    }

    fn holds(value: Option<&[u8]>, operator: &Operator) -> bool {
        let fields = Lines(
            value
                .map(|value| ("X-Test".to_owned(), value.to_vec()))
                .into_iter()
                .collect(),
        );
        header("x-test", operator.clone()).matches(&request(&fields), &[])
    }

    fn every_operator() -> Vec<Operator> {
        vec![
            Operator::Equals("v2".into()),
            Operator::In(["v1".into(), "v2".into()].into()),
            Operator::StartsWith("v".into()),
            Operator::EndsWith("2".into()),
            Operator::Contains("".into()),
            Operator::Matches(Regex::new("^v[0-9]$").unwrap()),
            Operator::Exists(true),
            Operator::GreaterThan(-1e9),
            Operator::LessThan(1e9),
        ]
    }

    #[test]
    fn operators() {
        let pass =
            |value: &str, operator: Operator| assert!(holds(Some(value.as_bytes()), &operator), "{value} {operator:?}");
        let fail = |value: &str, operator: Operator| {
            assert!(!holds(Some(value.as_bytes()), &operator), "{value} {operator:?}")
        };
        for operator in every_operator().into_iter().take(7) {
            pass("v2", operator);
        }
        fail("V2", Operator::Equals("v2".into()));
        fail("v3", Operator::In(["v1".into(), "v2".into()].into()));
        fail("av", Operator::StartsWith("v".into()));
        fail("2v", Operator::EndsWith("2".into()));
        fail("abc", Operator::Contains("ac".into()));
        pass("xv2x", Operator::Matches(Regex::new("v[0-9]").unwrap()));
        fail("xv2x", Operator::Matches(Regex::new("^v[0-9]").unwrap()));
        fail("v2", Operator::Exists(false));
        pass("", Operator::Exists(true));
        pass("", Operator::Equals("".into()));
    }

    #[test]
    fn numbers_are_strict() {
        for value in ["366", "365.5", "+366", "3.66e2", "1e300"] {
            assert!(holds(Some(value.as_bytes()), &Operator::GreaterThan(365.0)), "{value}");
            assert!(!holds(Some(value.as_bytes()), &Operator::LessThan(365.0)), "{value}");
        }
        for value in ["365", "365.0"] {
            assert!(!holds(Some(value.as_bytes()), &Operator::GreaterThan(365.0)), "{value}");
            assert!(!holds(Some(value.as_bytes()), &Operator::LessThan(365.0)), "{value}");
        }
        for value in [
            "", "inf", "infinity", "nan", "NaN", "1e999", " 366", "366 ", "0x16f", "3_66", "1,000", "e", "-",
        ] {
            assert!(!holds(Some(value.as_bytes()), &Operator::GreaterThan(-1.0)), "{value}");
            assert!(!holds(Some(value.as_bytes()), &Operator::LessThan(1e308)), "{value}");
        }
    }

    #[test]
    fn absent_satisfies_only_exists_false() {
        for operator in every_operator() {
            assert!(!holds(None, &operator), "{operator:?}");
        }
        assert!(holds(None, &Operator::Exists(false)));
        let fields = Lines::default();
        for source in [Source::Cookie("a".into()), Source::Query("a".into())] {
            for operator in every_operator() {
                let condition = Condition::Test {
                    source: source.clone(),
                    operator,
                };
                assert!(!condition.matches(&request(&fields), &[]), "{condition:?}");
            }
            let absent = Condition::Test {
                source,
                operator: Operator::Exists(false),
            };
            assert!(absent.matches(&request(&fields), &[]));
        }
    }

    #[test]
    fn bytes_that_are_not_utf_8() {
        let value: Option<&[u8]> = Some(b"v\xff2");
        assert!(holds(value, &Operator::StartsWith("v".into())));
        assert!(holds(value, &Operator::EndsWith("2".into())));
        assert!(!holds(value, &Operator::Matches(Regex::new("v").unwrap())));
        assert!(!holds(value, &Operator::GreaterThan(-1.0)));
    }

    #[test]
    fn any_line_of_a_header_is_enough() {
        let fields = Lines::of(&[("x-test", "a"), ("X-Other", "z"), ("x-test", "b")]);
        let view = request(&fields);
        for (value, expected) in [("a", true), ("b", true), ("z", false), ("a, b", false)] {
            assert_eq!(
                header("x-test", Operator::Equals(value.into())).matches(&view, &[]),
                expected,
                "{value}"
            );
        }
        assert!(!header("x-test", Operator::Exists(false)).matches(&view, &[]));
    }

    #[test]
    fn certificates_that_clients_have_shown() {
        let fields = Lines::default();
        let cert = ClientCert {
            subject_cn: Some("ops".into()),
            san: ["ops@example.com".into(), "spiffe://example.com/ops".into()].into(),
        };
        let shown = RequestView {
            client_cert: Some(&cert),
            ..request(&fields)
        };
        let test = |part, operator| Condition::Test {
            source: Source::ClientCert(part),
            operator,
        };
        let (cn, san) = (ClientCertPart::SubjectCn, ClientCertPart::San);
        assert!(test(cn, Operator::Equals("ops".into())).matches(&shown, &[]));
        assert!(!test(cn, Operator::EndsWith("@example.com".into())).matches(&shown, &[]));
        for name in ["ops@example.com", "spiffe://example.com/ops"] {
            assert!(test(san, Operator::Equals(name.into())).matches(&shown, &[]));
        }
        assert!(!test(san, Operator::Equals("ops".into())).matches(&shown, &[]));
        // Names of hosts have no case; the parts of an address do.
        let hosts = ClientCert {
            subject_cn: Some("Ops".into()),
            san: ["Shop.Example.COM".into(), "Ops@example.com".into()].into(),
        };
        let shown = RequestView {
            client_cert: Some(&hosts),
            ..shown
        };
        for operator in [
            Operator::Equals("shop.example.com".into()),
            Operator::Equals("SHOP.example.com".into()),
            Operator::In(["a".into(), "shop.example.Com".into()].into()),
            Operator::StartsWith("shop.".into()),
            Operator::EndsWith(".Example.com".into()),
            Operator::Contains("EXAMPLE".into()),
            Operator::Matches(Regex::new("(?i)^shop[.]example[.]com$").unwrap()),
        ] {
            assert!(test(san, operator.clone()).matches(&shown, &[]), "{operator:?}");
            assert!(!test(cn, operator.clone()).matches(&shown, &[]), "{operator:?}");
        }
        for operator in [
            Operator::Equals("ops@example.com".into()),
            Operator::StartsWith("ops".into()),
            Operator::EndsWith("xshop.example.com".into()),
            Operator::StartsWith("shop.example.com.au".into()),
            Operator::Contains("exampel".into()),
        ] {
            assert!(!test(san, operator.clone()).matches(&shown, &[]), "{operator:?}");
        }
        assert!(!test(cn, Operator::Equals("ops".into())).matches(&shown, &[]));
        let nameless = ClientCert::default();
        for client_cert in [None, Some(&nameless)] {
            let view = RequestView { client_cert, ..shown };
            for part in [cn, san] {
                assert!(
                    every_operator()
                        .into_iter()
                        .all(|operator| !test(part, operator).matches(&view, &[]))
                );
                assert!(test(part, Operator::Exists(false)).matches(&view, &[]));
            }
        }
    }

    #[test]
    fn cookies_and_parameters() {
        let fields = Lines::of(&[("cookie", "beta=1; beta=0")]);
        let view = RequestView {
            query: "beta=a%2Bb",
            ..request(&fields)
        };
        let test = |source, value: &str| Condition::Test {
            source,
            operator: Operator::Equals(value.into()),
        };
        assert!(test(Source::Cookie("beta".into()), "1").matches(&view, &[]));
        assert!(
            !test(Source::Cookie("beta".into()), "0").matches(&view, &[]),
            "the first one counts"
        );
        assert!(test(Source::Query("beta".into()), "a+b").matches(&view, &[]));
    }

    #[test]
    fn addresses() {
        let fields = Lines::default();
        let networks = |list: &[&str]| Condition::ClientIp(list.iter().map(|net| net.parse().unwrap()).collect());
        let from = |address: &str| RequestView {
            client_ip: address.parse().unwrap(),
            ..request(&fields)
        };
        let office = networks(&["10.1.0.0/16", "2001:db8::/32"]);
        for (address, expected) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("10.2.0.1", false),
            ("2001:db8::1", true),
            ("2001:db9::1", false),
        ] {
            assert_eq!(office.matches(&from(address), &[]), expected, "{address}");
        }
        assert!(!networks(&[]).matches(&from("10.1.2.3"), &[]));
    }

    #[test]
    fn combinations() {
        let fields = Lines::default();
        let view = request(&fields);
        let (yes, no) = (Condition::All([].into()), Condition::Any([].into()));
        let segments = [
            Segment {
                name: "yes".into(),
                when: yes.clone(),
            },
            Segment {
                name: "no".into(),
                when: no.clone(),
            },
        ];
        let check =
            |condition: Condition, expected| assert_eq!(condition.matches(&view, &segments), expected, "{condition:?}");
        check(yes.clone(), true);
        check(no.clone(), false);
        check(Condition::Not(Box::new(no.clone())), true);
        check(Condition::Any([no.clone(), yes.clone()].into()), true);
        check(Condition::All([yes.clone(), no.clone()].into()), false);
        check(Condition::Segment(SegmentId(0)), true);
        check(Condition::Segment(SegmentId(1)), false);
        check(Condition::Segment(SegmentId(2)), false);
    }

    #[test]
    fn what_a_compiler_would_refuse_is_not_satisfied() {
        let fields = Lines::default();
        let view = request(&fields);
        let circle = [Segment {
            name: "circle".into(),
            when: Condition::Not(Box::new(Condition::Segment(SegmentId(0)))),
        }];
        assert!(!Condition::Segment(SegmentId(0)).matches(&view, &circle));
        assert!(!Condition::Not(Box::new(Condition::Segment(SegmentId(0)))).matches(&view, &circle));
        // Each segment uses the one before it twice: 2^40 evaluations if nothing bounded them.
        let twice = |id| Condition::All([Condition::Segment(SegmentId(id)), Condition::Segment(SegmentId(id))].into());
        let bomb: Vec<Segment> = (0..40)
            .map(|id| Segment {
                name: "bomb".into(),
                when: if id == 0 {
                    Condition::All([].into())
                } else {
                    twice(id - 1)
                },
            })
            .collect();
        assert!(!twice(39).matches(&view, &bomb));
        assert!(twice(5).matches(&view, &bomb));
    }
}
