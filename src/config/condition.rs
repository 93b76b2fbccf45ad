//! The parts of the schema that are not plain mappings: conditions, endpoints, sources of a user's key.

use super::decode::{Decode, Fields, List, Row, Section, a, expected};
use super::problem::{Path, Problems, one_of};
use super::schema::{Endpoint, EndpointText, KeySource};
use super::yaml::{Node, Value};

/// A condition as it is written.
#[derive(Debug, Clone, PartialEq)]
pub enum Condition {
    Test {
        source: Source,
        /// Of the header, cookie, query parameter or part of the certificate.
        name: String,
        operator: Operator,
    },
    /// What is said of the certificate that the client has shown: all of it has to hold. At least one is there.
    ClientCert {
        subject_cn: Option<Operator>,
        san: Option<Operator>,
    },
    ClientIp(List<String>),
    Segment(String),
    Any(List<Condition>),
    All(List<Condition>),
    Not(Box<Condition>),
}

/// Which part of the request a test looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Header,
    Cookie,
    Query,
    ClientCert,
}

/// How a value is tested.
#[derive(Debug, Clone, PartialEq)]
pub enum Operator {
    Equals(String),
    In(List<String>),
    StartsWith(String),
    EndsWith(String),
    Contains(String),
    Matches(String),
    Exists(bool),
    GreaterThan(f64),
    LessThan(f64),
}

/// What stands under `client_cert`.
enum CertText {
    /// The part that the operator beside it tests.
    Part(String),
    Parts {
        subject_cn: Option<Operator>,
        san: Option<Operator>,
    },
}

/// A condition of a rule, with the segment whose clients alone count.
#[derive(Debug, Clone, PartialEq)]
pub struct Guarded {
    pub from: Option<String>,
    /// `None` only when its problem has been reported.
    pub condition: Option<Condition>,
}

const SUBJECTS: [&str; 9] = [
    "header",
    "cookie",
    "query",
    "client_cert",
    "client_ip",
    "segment",
    "any",
    "all",
    "not",
];
const OPERATORS: [&str; 9] = [
    "equals",
    "in",
    "starts_with",
    "ends_with",
    "contains",
    "matches",
    "exists",
    "greater_than",
    "less_than",
];
const CONDITION_KEYS: [&str; 18] = [
    "header",
    "cookie",
    "query",
    "client_cert",
    "client_ip",
    "segment",
    "any",
    "all",
    "not",
    "equals",
    "in",
    "starts_with",
    "ends_with",
    "contains",
    "matches",
    "exists",
    "greater_than",
    "less_than",
];
const GUARDED_KEYS: [&str; 19] = [
    "header",
    "cookie",
    "query",
    "client_cert",
    "client_ip",
    "segment",
    "any",
    "all",
    "not",
    "equals",
    "in",
    "starts_with",
    "ends_with",
    "contains",
    "matches",
    "exists",
    "greater_than",
    "less_than",
    "from",
];

const KIND: &str = "condition";

impl Decode for Condition {
    fn decode(node: &Node, path: &Path<'_>, problems: &mut Problems<'_>) -> Option<Self> {
        let fields = Fields::open(node, path, problems, KIND, &CONDITION_KEYS)?;
        condition(&fields, path, problems)
    }

    fn kind() -> String {
        KIND.to_owned()
    }

    fn describe(place: &str, sections: &mut Vec<Section>) {
        describe(place, sections);
    }
}

impl Decode for Guarded {
    fn decode(node: &Node, path: &Path<'_>, problems: &mut Problems<'_>) -> Option<Self> {
        let fields = Fields::open(node, path, problems, KIND, &GUARDED_KEYS)?;
        let from = fields.take("from", path, problems);
        let condition = condition(&fields, path, problems);
        Some(Self { from, condition })
    }

    fn kind() -> String {
        KIND.to_owned()
    }
}

/// The one key of `known` that the mapping has; else a problem.
fn exactly_one<'n>(
    fields: &Fields<'n>,
    known: &[&'static str],
    what: &str,
    path: &Path<'_>,
    problems: &mut Problems<'_>,
) -> Option<&'n str> {
    let found: Vec<&str> = fields.keys().filter(|key| known.contains(key)).collect();
    match found.as_slice() {
        [one] => return Some(one),
        // An unknown key has been reported, and is likely to be the one that is missing here.
        [] if problems.any_below(path) => {}
        [] => problems.add(
            path,
            format!("{what} is missing: expected {}", one_of(known.iter().copied())),
        ),
        several => {
            let message = format!(
                "{} are given: expected only one of them",
                one_of(several.iter().copied()).replace(" or ", " and ")
            );
            problems.add(path, message);
        }
    }
    None
}

fn condition(fields: &Fields<'_>, path: &Path<'_>, problems: &mut Problems<'_>) -> Option<Condition> {
    let subject = exactly_one(fields, &SUBJECTS, "what the condition looks at", path, problems)?;
    let source = match subject {
        "header" => Some(Source::Header),
        "cookie" => Some(Source::Cookie),
        "query" => Some(Source::Query),
        "client_cert" => Some(Source::ClientCert),
        _ => None,
    };
    if source.is_none() {
        for key in fields.keys().filter(|key| OPERATORS.contains(key)) {
            let message = format!("`{key}` is for `header`, `cookie`, `query` and `client_cert`, not for `{subject}`");
            problems.add_key(&path.key(key), message, None);
        }
    }
    match subject {
        "header" => test(fields, "header", Source::Header, path, problems),
        "cookie" => test(fields, "cookie", Source::Cookie, path, problems),
        "query" => test(fields, "query", Source::Query, path, problems),
        "client_cert" => client_cert(fields, path, problems),
        "client_ip" => fields
            .take::<Option<List<String>>>("client_ip", path, problems)
            .map(Condition::ClientIp),
        "segment" => fields
            .take::<Option<String>>("segment", path, problems)
            .map(Condition::Segment),
        "any" => fields
            .take::<Option<List<Condition>>>("any", path, problems)
            .map(Condition::Any),
        "all" => fields
            .take::<Option<List<Condition>>>("all", path, problems)
            .map(Condition::All),
        _ => fields
            .take::<Option<Condition>>("not", path, problems)
            .map(|inner| Condition::Not(Box::new(inner))),
    }
}

fn test(
    fields: &Fields<'_>,
    key: &'static str,
    source: Source,
    path: &Path<'_>,
    problems: &mut Problems<'_>,
) -> Option<Condition> {
    let name = fields.take::<Option<String>>(key, path, problems);
    let operator = operator(fields, path, problems);
    Some(Condition::Test {
        source,
        name: name?,
        operator: operator?,
    })
}

fn client_cert(fields: &Fields<'_>, path: &Path<'_>, problems: &mut Problems<'_>) -> Option<Condition> {
    match fields.take::<Option<CertText>>("client_cert", path, problems)? {
        CertText::Part(name) => Some(Condition::Test {
            source: Source::ClientCert,
            name,
            operator: operator(fields, path, problems)?,
        }),
        CertText::Parts { subject_cn, san } => {
            for key in fields.keys().filter(|key| OPERATORS.contains(key)) {
                let message = format!(
                    "`{key}` stands beside `client_cert: subject_cn` or `client_cert: san`, or in what it tests: \
                     `client_cert: {{ subject_cn: {{ {key}: ... }} }}`"
                );
                problems.add_key(&path.key(key), message, None);
            }
            Some(Condition::ClientCert { subject_cn, san })
        }
    }
}

impl Decode for CertText {
    fn decode(node: &Node, path: &Path<'_>, problems: &mut Problems<'_>) -> Option<Self> {
        match &node.value {
            Value::Scalar { .. } => return String::decode(node, path, problems).map(Self::Part),
            Value::Mapping(_) => {}
            _ => {
                expected(node, path, problems, &Self::kind());
                return None;
            }
        }
        let fields = Fields::open(node, path, problems, "client certificate", &["subject_cn", "san"])?;
        let subject_cn = fields.take("subject_cn", path, problems);
        let san = fields.take("san", path, problems);
        if fields.keys().next().is_none() {
            problems.add(
                path,
                "what is tested is missing: expected `subject_cn` or `san`, or both",
            );
        }
        Some(Self::Parts { subject_cn, san })
    }

    fn kind() -> String {
        "`subject_cn`, `san` or a mapping of them".to_owned()
    }
}

/// As the value of what it tests: a text is what that has to be.
impl Decode for Operator {
    fn decode(node: &Node, path: &Path<'_>, problems: &mut Problems<'_>) -> Option<Self> {
        match &node.value {
            Value::Scalar { .. } => String::decode(node, path, problems).map(Self::Equals),
            Value::Mapping(_) => {
                let fields = Fields::open(node, path, problems, "operator", &OPERATORS)?;
                operator(&fields, path, problems)
            }
            _ => {
                expected(node, path, problems, &a(&Self::kind()));
                None
            }
        }
    }

    fn kind() -> String {
        "string, or a mapping of one operator".to_owned()
    }
}

fn operator(fields: &Fields<'_>, path: &Path<'_>, problems: &mut Problems<'_>) -> Option<Operator> {
    let text = |key, problems: &mut Problems<'_>| fields.take::<Option<String>>(key, path, problems);
    Some(
        match exactly_one(fields, &OPERATORS, "how the value is tested", path, problems)? {
            "equals" => Operator::Equals(text("equals", problems)?),
            "in" => Operator::In(fields.take::<Option<List<String>>>("in", path, problems)?),
            "starts_with" => Operator::StartsWith(text("starts_with", problems)?),
            "ends_with" => Operator::EndsWith(text("ends_with", problems)?),
            "contains" => Operator::Contains(text("contains", problems)?),
            "matches" => Operator::Matches(text("matches", problems)?),
            "exists" => Operator::Exists(fields.take::<Option<bool>>("exists", path, problems)?),
            "greater_than" => Operator::GreaterThan(fields.take::<Option<f64>>("greater_than", path, problems)?),
            _ => Operator::LessThan(fields.take::<Option<f64>>("less_than", path, problems)?),
        },
    )
}

/// The section of the reference: conditions have no fixed set of keys, so it is written here.
fn describe(place: &str, sections: &mut Vec<Section>) {
    let row = |key, kind: &str, doc: &str| Row {
        key,
        kind: kind.to_owned(),
        required: false,
        default: None,
        doc: doc.to_owned(),
    };
    let rows = vec![
        row(
            "header",
            "string",
            "Tests the header of this name; of several lines, any that passes is enough.",
        ),
        row("cookie", "string", "Tests the cookie of this name."),
        row("query", "string", "Tests the query parameter of this name."),
        row(
            "client_cert",
            "`subject_cn`, `san` or a mapping of them",
            "Tests the certificate the client has shown in the TLS handshake: the common name of its subject, or its alternative \
             names (DNS names, email addresses, URIs, IP addresses), of which any that passes is enough. It is verified: see \
             `client_ca`. As a mapping each part has its value, or its operator, inside, and all have to pass: \
             `client_cert: { subject_cn: ops }`, `client_cert: { subject_cn: ops, san: { ends_with: \"@example.com\" } }`; \
             otherwise the operator stands beside it: `client_cert: subject_cn, equals: ops`. DNS names are compared without \
             regard to case.",
        ),
        row(
            "client_ip",
            "list of strings",
            "The client's address is in one of these addresses or networks (CIDR).",
        ),
        row("segment", "string", "The condition of that name in `segments`."),
        row("any", "list of conditions", "At least one holds."),
        row("all", "list of conditions", "Every one holds."),
        row("not", "condition", "It does not hold."),
        row("equals", "string", "Operator: the value is this one."),
        row("in", "list of strings", "Operator: the value is one of these."),
        row("starts_with", "string", "Operator: the value begins with this."),
        row("ends_with", "string", "Operator: the value ends with this."),
        row("contains", "string", "Operator: the value has this in it."),
        row(
            "matches",
            "regular expression",
            "Operator: the expression is found in the value; `^` and `$` tie it to the ends. In time linear in the value.",
        ),
        row(
            "exists",
            "`true` or `false`",
            "Operator: the value is there, or is not.",
        ),
        row(
            "greater_than",
            "number",
            "Operator: the value is a number above this one.",
        ),
        row("less_than", "number", "Operator: the value is a number below this one."),
    ];
    sections.push(Section {
        place: place.to_owned(),
        doc: "A condition has exactly one of `header`, `cookie`, `query`, `client_cert`, `client_ip`, `segment`, `any`, `all` \
              and `not`; the first four have exactly one operator beside it, unless `client_cert` is a mapping. A value that is absent passes only `exists: false`. One \
              condition holds at most 1,000, on 64 levels, those of the segments it names included."
            .to_owned(),
        rows,
    });
}

impl Decode for EndpointText {
    fn decode(node: &Node, path: &Path<'_>, problems: &mut Problems<'_>) -> Option<Self> {
        match &node.value {
            Value::Mapping(_) => Endpoint::decode(node, path, problems).map(Self::Full),
            Value::Scalar { .. } => String::decode(node, path, problems).map(Self::Address),
            _ => {
                expected(node, path, problems, &a(&Self::kind()));
                None
            }
        }
    }

    fn kind() -> String {
        "endpoint".to_owned()
    }

    fn describe(place: &str, sections: &mut Vec<Section>) {
        Endpoint::describe(place, sections);
    }
}

impl Decode for KeySource {
    fn decode(node: &Node, path: &Path<'_>, problems: &mut Problems<'_>) -> Option<Self> {
        match &node.value {
            Value::Scalar { text, .. } if &**text == "client_ip" => Some(Self::ClientIp),
            Value::Mapping(_) => {
                let fields = Fields::open(node, path, problems, "source of the key", &["header", "cookie"])?;
                let known = ["header", "cookie"];
                match exactly_one(&fields, &known, "the source of the key", path, problems)? {
                    "header" => fields
                        .take::<Option<String>>("header", path, problems)
                        .map(Self::Header),
                    _ => fields
                        .take::<Option<String>>("cookie", path, problems)
                        .map(Self::Cookie),
                }
            }
            _ => {
                expected(node, path, problems, &Self::kind());
                None
            }
        }
    }

    fn kind() -> String {
        "`{ header: name }`, `{ cookie: name }` or `client_ip`".to_owned()
    }
}
