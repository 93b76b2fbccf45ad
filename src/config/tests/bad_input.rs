//! What is said of each kind of bad input, word by word.

use super::*;
use crate::config::parse_bytes;

/// Each case with what is said of it; none may be accepted.
pub(super) fn report(cases: &[(&str, String)]) -> String {
    let mut report = String::new();
    for (title, text) in cases {
        let problems = parsed(text).expect_err(title);
        report.push_str(&format!("# {title}\n{}\n\n", rendered(&problems)));
    }
    report
}

#[test]
fn files_that_are_not_yaml() {
    let bomb = {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..12 {
            let aliases = vec![format!("*a{}", n - 1); 10].join(", ");
            text.push_str(&format!("a{n}: &a{n} [{aliases}]\n"));
        }
        text
    };
    let long_word = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), vec!["*a"; 100].join(", "));
    let cases = [
        ("an empty file", String::new()),
        ("white space and a comment", "\n  # nothing\n\n".to_owned()),
        ("a null document", "---\n~\n".to_owned()),
        ("a word", "rollgate\n".to_owned()),
        ("a list", "- a\n".to_owned()),
        ("a NUL", "listeners:\n  - \0\n".to_owned()),
        ("an open bracket", "listeners: [\n".to_owned()),
        ("an open quote", "listeners: \"a\n".to_owned()),
        ("a tab for indentation", "listeners:\n\t- address: x\n".to_owned()),
        ("bad indentation", "listeners:\n  - a: 1\n   b: 2\n".to_owned()),
        ("two documents", format!("{}---\na: 1\n", with_service(""))),
        ("a tag", "listeners: !!seq []\n".to_owned()),
        ("a list as a key", "? [a]\n: b\n".to_owned()),
        ("an alias to nothing", "listeners: *a\n".to_owned()),
        ("an alias to itself", "listeners: &a [*a]\n".to_owned()),
        ("a billion laughs", bomb),
        ("a long word a hundred times", long_word),
        (
            "a hundred brackets",
            format!("a: {}{}\n", "[".repeat(100), "]".repeat(100)),
        ),
        ("a hundred dashes", format!("a:\n{}x\n", "- ".repeat(100))),
        ("a megabyte and more", format!("# {}\n", "x".repeat(1 << 20))),
        (
            "keys twice",
            format!(
                "{}threads: 1\nforwarded: true\nthreads: 2\nforwarded: true\n",
                with_service("")
            ),
        ),
        ("a merge key", with_service("    <<: { fallback: fail }\n")),
    ];
    insta::assert_snapshot!(report(&cases));
}

#[test]
fn bytes_that_are_not_text() {
    let problems = |bytes: &[u8]| rendered(&parse_bytes(bytes, Path::new("")).expect_err("not text"));
    assert_eq!(
        problems(b"listeners:\n  - \xff\n"),
        "2:5: the file is not text: it holds bytes that are not UTF-8"
    );
    assert_eq!(
        problems(b"\x7fELF\x02\x01\x01\0\0"),
        "1:1: the file is not text: it holds the control character U+007F"
    );
    assert_eq!(
        problems(&vec![b'x'; 50 << 20]),
        "1:1: the file is too large: 52428800 bytes, at most 1048576 are read"
    );
    assert!(parse_bytes(format!("\u{feff}{}", with_service("")).as_bytes(), Path::new("")).is_ok());
    assert!(parse_bytes(with_service("").replace('\n', "\r\n").as_bytes(), Path::new("")).is_ok());
}

#[test]
fn keys_and_values_of_the_wrong_kind() {
    let cases = [
        ("no keys at all", "{}".to_owned()),
        (
            "misspelt keys",
            format!(
                "listener: []\n{}",
                with_service("    fallbck: fail\n").replace("endpoints", "endpoint")
            ),
        ),
        (
            "a key of another place",
            with_pool("{ endpoints: [\"h:1\"], weight: 5 }"),
        ),
        ("keys without a value", with_service("    kill:\n    rules: ~\n")),
        ("an empty entry of a list", with_service("    rules: [~]\n")),
        ("a mapping for a list", with_service("    rules: { name: a }\n")),
        ("a list for a mapping", with_top("limits: [1]\n")),
        (
            "booleans of YAML 1.1",
            with_service("    kill: yes\n").replace("8080\n", "8080\n    proxy_protocol: off\n"),
        ),
        ("a kill switch", with_top("kill: [true]\n")),
        (
            "settings of a kill switch",
            with_service("    kill: { on: yes, drain: nevr, after: 1s }\n"),
        ),
        ("the drain of a kill switch", with_top("kill: { drain: 5 }\n")),
        ("a quoted boolean", with_top("forwarded: \"true\"\n")),
        ("a misspelt word", with_service("    fallback: sable\n")),
        (
            "a word of another case",
            with_pool("{ endpoints: [\"h:1\"], balance: Round-Robin }"),
        ),
        ("threads", with_top("threads: 0\n")),
        ("an access log", with_top("access_log: on\n")),
        (
            "numbers",
            with_top("limits: { max_connections: -1, max_body: 64, max_head: 1KiB }\n"),
        ),
        (
            "durations",
            with_top("limits: { header_timeout: 10, request_timeout: 0s, drain_timeout: 1w, drain_delay: NaN }\n"),
        ),
        ("modes", with_top("admin: { socket_mode: 0999 }\n")),
        ("a sample", with_top("access_log: { sample: 50 }\n")),
        ("more than a whole", with_top("access_log: { sample: 101% }\n")),
        (
            "a very long text",
            with_top(&format!("state_dir: {}\n", "x".repeat(5000))),
        ),
    ];
    insta::assert_snapshot!(report(&cases));
}

#[test]
fn listeners_admin_and_networks() {
    let cases = [
        ("no listeners", with_service("").replace(LISTENERS, "listeners: []\n")),
        (
            "listener addresses",
            with_service("").replace(
                "127.0.0.1:8080",
                "localhost:8080\n  - address: \":80\"\n  - address: 1.2.3.4:65536",
            ),
        ),
        (
            "an address twice",
            with_service("").replace("8080\n", "8080\n  - address: 127.0.0.1:8080\n"),
        ),
        ("admin on a listener", with_top("admin: { address: 127.0.0.1:8080 }\n")),
        (
            "bad admin hosts",
            with_top("admin: { address: 127.0.0.1:1, hosts: [admin.example.com, \"http://a\", \"a:99999\"] }\n"),
        ),
        (
            "bad networks",
            with_top("trusted_proxies: [10.0.0.0/33, 10.0.0, fd00::/8, 10.1.2.3]\n"),
        ),
        (
            "tls without certificates",
            with_service("").replace("8080\n", "8080\n    tls: { certificates: [] }\n"),
        ),
        (
            "tls with half a certificate",
            with_service("").replace("8080\n", "8080\n    tls: { certificates: [{ cert: a.pem }] }\n"),
        ),
        (
            "tls with what contradicts it",
            with_listener(
                "redirect_to_https: true\n    tls: { certificates: [{ cert: a, key: b }], client_auth: optional, hsts: { max_age: \
                 1ms } }",
            ),
        ),
        (
            "certificates required of clients, and nobody to vouch for them",
            with_listener("tls: { certificates: [{ cert: a, key: b }], client_auth: required }"),
        ),
        (
            "tls with words that there are not",
            with_listener(
                "tls: { certificates: [{ cert: a, key: b }], min_version: 1.1, client_ca: c, client_auth: on }",
            ),
        ),
        ("a redirect to nowhere", with_listener("redirect_to_https: 0")),
        (
            "an otlp address without scheme",
            with_top("tracing: { otlp: \"127.0.0.1:4318\", sample: 0% }\n"),
        ),
    ];
    insta::assert_snapshot!(report(&cases));
}

#[test]
fn segments_and_conditions() {
    let segments = |text: &str| with_top(&format!("segments:\n{text}"));
    let rule = |when: &str| with_service(&format!("    rules: [{{ name: r, version: v2, when: {when} }}]\n"));
    let doubling: String = (1..20)
        .map(|n| {
            format!(
                "  s{n}: {{ any: [{{ segment: s{} }}, {{ segment: s{} }}] }}\n",
                n - 1,
                n - 1
            )
        })
        .collect();
    let chain: String = (1..70)
        .map(|n| format!("  s{n}: {{ segment: s{} }}\n", n - 1))
        .collect();
    let cases = [
        (
            "circular segments",
            segments("  a: { segment: b }\n  b: { any: [{ segment: c }] }\n  c: { not: { segment: a } }\n"),
        ),
        ("a segment of itself", segments("  a: { segment: a }\n")),
        (
            "an unknown segment",
            segments("  staff: { header: x, exists: true }\n  a: { segment: staf }\n"),
        ),
        ("an unknown segment in a rule", rule("{ segment: nobody }")),
        ("an unknown from", rule("{ header: x, exists: true, from: nobody }")),
        ("a bad name", segments("  \"my staff\": { header: x, exists: true }\n")),
        (
            "from outside a rule",
            segments("  a: { header: x, exists: true, from: b }\n"),
        ),
        ("a part of no certificate", rule("{ client_cert: { cn: ops } }")),
        ("no part of a certificate", rule("{ client_cert: {} }")),
        ("a list of parts", rule("{ client_cert: [subject_cn] }")),
        ("a part without a value", rule("{ client_cert: { san: } }")),
        ("a part with a list", rule("{ client_cert: { san: [a, b] } }")),
        (
            "an operator beside a mapping",
            rule("{ client_cert: { subject_cn: ops }, equals: x }"),
        ),
        ("a mapping alone beside", rule("{ client_cert: subject_cn }")),
        (
            "two operators in a part",
            rule("{ client_cert: { subject_cn: { equals: a, in: [b] } } }"),
        ),
        (
            "a bad expression in a part",
            rule("{ client_cert: { subject_cn: { matches: \"(\" } } }"),
        ),
        ("two subjects", rule("{ header: x, cookie: y, exists: true }")),
        ("no subject", rule("{ equals: x }")),
        ("a misspelt subject", rule("{ heder: x, equals: y }")),
        ("no operator", rule("{ header: x }")),
        ("two operators", rule("{ header: x, equals: a, exists: true }")),
        (
            "an operator for a segment",
            rule("{ client_ip: [10.0.0.1], equals: a }"),
        ),
        ("bad networks", rule("{ client_ip: [300.0.0.1, 10.0.0.0/99] }")),
        ("one network, not a list", rule("{ client_ip: 10.0.0.1 }")),
        ("a bad header name", rule("{ header: \"x version\", equals: a }")),
        ("a bad regular expression", rule("{ header: x, matches: \"(a\" }")),
        (
            "a huge regular expression",
            rule("{ header: x, matches: \"(\\\\pL{1000}){1000}\" }"),
        ),
        ("not a number", rule("{ header: x, greater_than: NaN }")),
        (
            "empty lists",
            rule("{ any: [{ all: [] }, { header: x, in: [] }, { client_ip: [] }] }"),
        ),
        ("an empty part", rule("{ header: x, contains: \"\" }")),
        ("an empty query name", rule("{ query: \"\", exists: true }")),
        (
            "a doubling chain",
            segments(&format!("  s0: {{ header: x, exists: true }}\n{doubling}")),
        ),
        (
            "a long chain",
            segments(&format!("  s0: {{ header: x, exists: true }}\n{chain}")),
        ),
    ];
    insta::assert_snapshot!(report(&cases));
}

#[test]
fn all_problems_of_a_file_at_once_and_none_that_only_follows() {
    let text = "
listeners:
  - address: 0.0.0.0:99999
threads: many
segments:
  staff: { header: x-user-email, ends_with: [a] }
services:
  - name: checkout
    versions:
      - { name: v1, role: stabel, weight: -5, pool: { endpoints: [\"127.0.0.1:9001\"] } }
      - { role: canary, weight: 0, pool: { endpoints: [\"127.0.0.1\"] } }
    rules:
      - { name: staff, when: { segment: staff }, version: v9 }
      - { name: other, when: { segment: stuff }, split: { v1: x } }
  - name: checkout
    version: []
";
    insta::assert_snapshot!(rendered(&parsed(text).expect_err("many problems")));
}

#[test]
fn a_file_of_nothing_but_problems_is_cut_short() {
    let keys: String = (0..20_000).map(|n| format!("key{n}: 1\n")).collect();
    let problems = parsed(&keys).expect_err("unknown keys");
    assert_eq!(problems.len(), crate::config::problem::MAX_PROBLEMS + 1);
    assert_eq!(
        problems.last().map(|p| p.message.as_str()),
        Some("and 19502 more problems")
    );
}

#[test]
fn counts_are_bounded() {
    let elements = |count: usize, text: &str| vec![text.to_owned(); count].join(", ");
    let endpoints: Vec<String> = (1..=1001).map(|port| format!("\"h:{port}\"")).collect();
    let versions: Vec<String> = (0..65).map(|n| format!("name: v{n}")).collect();
    let versions: Vec<&str> = versions.iter().map(String::as_str).collect();
    let segments: String = (0..1001)
        .map(|n| format!("  s{n}: {{ header: x, exists: true }}\n"))
        .collect();
    let listeners: String = (1..=65)
        .map(|port| format!("  - address: 127.0.0.1:{port}\n"))
        .collect();
    let cases = [
        (
            "endpoints",
            with_pool(&format!("{{ endpoints: [{}] }}", endpoints.join(", "))),
        ),
        ("versions", with_versions(&versions)),
        ("segments", with_top(&format!("segments:\n{segments}"))),
        (
            "listeners",
            with_service("").replace(LISTENERS, &format!("listeners:\n{listeners}")),
        ),
        (
            "rules",
            with_service(&format!(
                "    rules: [{}]\n",
                elements(1001, "{ name: a, version: v1, when: { segment: s } }")
            )),
        ),
        (
            "services",
            format!(
                "{LISTENERS}services: [{}]\n",
                elements(10_001, "{ name: a, versions: [] }")
            ),
        ),
        (
            "routes",
            with_service(&format!("    routes: [{}]\n", elements(10_001, "{ path: /a }"))),
        ),
    ];
    insta::assert_snapshot!(
        cases
            .iter()
            .map(|(title, text)| format!("{title}: {}", parsed(text).expect_err(title)[0]))
            .collect::<Vec<_>>()
            .join("\n")
    );
}
