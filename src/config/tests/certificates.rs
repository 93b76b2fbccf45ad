//! Conditions on the certificates of clients.

use super::*;
use crate::routing::{ClientCertPart, Condition, Source};

#[test]
fn conditions_on_certificates() {
    let text = with_top(
        "segments: { ops: { client_cert: subject_cn, equals: ops }, all: { client_cert: san, exists: true } }\n",
    );
    let segments = valid(&text).policy.segments;
    let source = |index: usize| match &segments[index].when {
        Condition::Test { source, .. } => source.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(source(0), Source::ClientCert(ClientCertPart::SubjectCn));
    assert_eq!(source(1), Source::ClientCert(ClientCertPart::San));
}

#[test]
fn conditions_on_certificates_that_no_listener_asks_for_are_told_once() {
    let segments =
        "segments: { a: { client_cert: subject_cn, equals: ops }, b: { not: { client_cert: { san: ops } } } }\n";
    let warned = valid(&with_top(segments)).unsupported;
    let [warning] = &*warned else { panic!("{warned:?}") };
    assert_eq!(warning.path, "segments.a.client_cert");
    assert!(warning.message.contains("no listener has a `client_ca`") && !warning.refuses_to_run);
    let asking = "8080\n    tls: { certificates: [{ cert: a, key: b }], client_ca: ca.pem }\n";
    let text = with_top(segments).replacen("8080\n", asking, 1);
    assert!(valid(&text).unsupported.is_empty());
}

#[test]
fn conditions_on_certificates_as_a_mapping_are_those_with_the_operator_beside() {
    let condition = |when: &str| {
        let segments = valid(&with_top(&format!("segments: {{ s: {when} }}\n")))
            .policy
            .segments;
        format!("{:?}", segments[0].when)
    };
    for (mapping, beside) in [
        (
            "{ client_cert: { subject_cn: ops } }",
            "{ client_cert: subject_cn, equals: ops }",
        ),
        (
            "{ client_cert: { subject_cn: 7 } }",
            "{ client_cert: subject_cn, equals: 7 }",
        ),
        (
            "{ client_cert: { san: { ends_with: \"@a.test\" } } }",
            "{ client_cert: san, ends_with: \"@a.test\" }",
        ),
        (
            "{ client_cert: { subject_cn: { in: [a, b] } } }",
            "{ client_cert: subject_cn, in: [a, b] }",
        ),
        (
            "{ client_cert: { san: { exists: false }, subject_cn: ops } }",
            "{ all: [{ client_cert: subject_cn, equals: ops }, { client_cert: san, exists: false }] }",
        ),
    ] {
        assert_eq!(condition(mapping), condition(beside), "{mapping}");
    }
}
