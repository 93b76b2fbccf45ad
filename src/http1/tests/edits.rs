//! Heads changed by rules.

use super::*;
use crate::routing::ClientCert;
use proptest::prelude::*;

fn text(value: &str) -> Vec<Piece> {
    vec![Piece::Text(value.into())]
}

fn edits(removed: &[&str], added: &[(&str, Vec<Piece>)]) -> FieldEdits {
    let added = added.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
    FieldEdits::new(removed.iter().map(|&name| name.to_owned()), added.collect())
}

fn facts() -> PieceFacts<'static> {
    PieceFacts {
        client_ip: "::ffff:192.0.2.7".parse().unwrap(),
        host: "shop.example:8080",
        https: true,
        request_id: "id-7",
        client_cert: None,
    }
}

fn forwarded(bytes: &str, rules: &Rewrite) -> String {
    let head = accepted(bytes.as_bytes());
    let mut out = Vec::new();
    let add = RequestAdditions {
        rewrite: Some((rules, facts())),
        ..additions()
    };
    write_request(&mut out, &head, bytes.as_bytes(), &add);
    assert_eq!(lint_request(&out), Ok(out.len()), "{}", String::from_utf8_lossy(&out));
    String::from_utf8(out).unwrap()
}

fn target(sent: &str, strip: &str, add: &str) -> String {
    let some = |text: &str| (!text.is_empty()).then(|| text.into());
    let rules = Rewrite {
        strip_prefix: some(strip),
        add_prefix: some(add),
        ..Rewrite::default()
    };
    let method = if sent.starts_with('/') { "GET" } else { "OPTIONS" };
    let out = forwarded(&format!("{method} {sent} HTTP/1.1\r\nHost: a\r\n\r\n"), &rules);
    out.split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn fields_are_removed_set_and_added() {
    let rules = Rewrite {
        request: edits(
            &["x-secret", "x-user"],
            &[
                ("X-User", text("gate")),
                (
                    "X-Where",
                    vec![
                        Piece::Text("at ".into()),
                        Piece::ClientIp,
                        Piece::Text(" by ".into()),
                        Piece::Scheme,
                    ],
                ),
                ("x-all", vec![Piece::Host, Piece::Text("|".into()), Piece::RequestId]),
            ],
        ),
        host: Some("inside:81".into()),
        ..Rewrite::default()
    };
    let sent = "GET / HTTP/1.1\r\nHost: shop.example:8080\r\nAccept: a\r\nX_SECRET: 1\r\nx-user: me\r\nX-User: you\r\nX-Users: \
                all\r\nX-Secret:  2\r\nx-all: mine\r\n\r\n";
    let out = forwarded(sent, &rules);
    let expected = "GET / HTTP/1.1\r\nHost: inside:81\r\nAccept: a\r\nX-Users: all\r\nx-all: mine\r\nX-User: gate\r\nX-Where: at \
                    192.0.2.7 by https\r\nx-all: shop.example:8080|id-7\r\n";
    assert_eq!(out.get(..expected.len()), Some(expected), "{out}");
    assert!(out.contains("\r\nX-Forwarded-Host: shop.example:8080\r\n"), "{out}");
}

/// The lines of a head forwarded with what `cert` says, those with `X-Cert`.
fn told_of(cert: Option<&ClientCert>) -> Vec<String> {
    let rules = Rewrite {
        request: edits(
            &["x-cert-cn", "x-cert-san", "x-cert-verify", "x-cert-all"],
            &[
                (
                    "X-Cert-CN",
                    vec![Piece::Text("".into()), Piece::ClientCert(CertPiece::SubjectCn)],
                ),
                (
                    "X-Cert-San",
                    vec![Piece::ClientCert(CertPiece::San), Piece::Text("".into())],
                ),
                ("X-Cert-Verify", vec![Piece::ClientCert(CertPiece::Verify)]),
                (
                    "X-Cert-All",
                    vec![
                        Piece::Text("cn=".into()),
                        Piece::ClientCert(CertPiece::SubjectCn),
                        Piece::Text(";".into()),
                    ],
                ),
            ],
        ),
        ..Rewrite::default()
    };
    let sent = "GET / HTTP/1.1\r\nHost: a\r\nx-cert-cn: root\r\nX_CERT_CN: root\r\nX-Cert-Verify: SUCCESS\r\nx_cert_san: \
                root\r\n\r\n";
    let head = accepted(sent.as_bytes());
    let facts = PieceFacts {
        client_cert: cert,
        ..facts()
    };
    let add = RequestAdditions {
        rewrite: Some((&rules, facts)),
        ..additions()
    };
    let mut out = Vec::new();
    write_request(&mut out, &head, sent.as_bytes(), &add);
    assert_eq!(lint_request(&out), Ok(out.len()), "{}", String::from_utf8_lossy(&out));
    let is_ours = |line: &String| line.to_ascii_lowercase().replace('_', "-").starts_with("x-cert");
    lines(&out).into_iter().filter(is_ours).collect()
}

fn cert(cn: Option<&str>, san: &[&str]) -> ClientCert {
    ClientCert {
        subject_cn: cn.map(Into::into),
        san: san.iter().map(|&name| name.into()).collect(),
    }
}

#[test]
fn endpoints_are_told_who_the_client_is_and_nobody_else_can_say_so() {
    assert_eq!(told_of(None), ["X-Cert-Verify: NONE", "X-Cert-All: cn=;"]);
    assert_eq!(
        told_of(Some(&cert(None, &[]))),
        ["X-Cert-Verify: SUCCESS", "X-Cert-All: cn=;"]
    );
    assert_eq!(
        told_of(Some(&cert(Some("Ada Lovelace"), &["ada@example.com", "spiffe://a/b"]))),
        [
            "X-Cert-CN: Ada Lovelace",
            "X-Cert-San: ada@example.com,spiffe://a/b",
            "X-Cert-Verify: SUCCESS",
            "X-Cert-All: cn=Ada Lovelace;"
        ]
    );
    let odd = cert(Some(" B\u{fc}ro\r\nX-Cert-Evil: 1 "), &["a,b", "100%", "\0", " ", ""]);
    assert_eq!(
        told_of(Some(&odd)),
        [
            "X-Cert-CN: %20B%C3%BCro%0D%0AX-Cert-Evil: 1%20",
            "X-Cert-San: a%2Cb,100%25,%00,%20,",
            "X-Cert-Verify: SUCCESS",
            "X-Cert-All: cn=%20B%C3%BCro%0D%0AX-Cert-Evil: 1%20;"
        ]
    );
}

#[test]
fn of_very_many_names_as_many_are_told_as_there_is_room_for() {
    let long = "n".repeat(3_000);
    let told = told_of(Some(&cert(Some(&"c".repeat(9_000)), &[&long, &long, &long])));
    assert_eq!(
        told,
        [
            format!("X-Cert-San: {long},{long}").as_str(),
            "X-Cert-Verify: SUCCESS",
            "X-Cert-All: cn=;"
        ]
    );
}

proptest! {
    #[test]
    fn no_name_breaks_a_head_or_looks_like_another(one in ".{0,20}", other in ".{0,20}") {
        let (a, b) = (told_of(Some(&cert(Some(&one), &[&one]))), told_of(Some(&cert(Some(&other), &[&other]))));
        prop_assert_eq!(one == other, a == b);
    }
}

#[test]
fn answers_are_changed_and_interim_ones_are_not() {
    let fields = edits(
        &["server", "strict-transport-security"],
        &[
            ("Strict-Transport-Security", text("max-age=1")),
            ("X-By", vec![Piece::Scheme]),
        ],
    );
    let answer = |bytes: &str| {
        let head = parse_response(
            bytes.as_bytes(),
            MethodKind::Get,
            Upgrading::default(),
            &HeadLimits::default(),
            &mut HeadParser::new(),
        );
        let head = head.unwrap().unwrap();
        let mut out = Vec::new();
        let add = ResponseAdditions {
            hsts: Some("max-age=9"),
            edits: Some(Edits {
                fields: &fields,
                facts: facts(),
                moved: None,
            }),
            ..response_additions(head.forward_framing(Version::Http11))
        };
        write_response(&mut out, &head, bytes.as_bytes(), &add);
        lines(&out)
    };
    let out = answer(
        "HTTP/1.1 200 OK\r\nServer: me\r\nX-By: it\r\nStrict-Transport-Security: max-age=5\r\nContent-Length: 0\r\n\r\n",
    );
    assert_eq!(
        out,
        [
            "X-By: it",
            "Strict-Transport-Security: max-age=1",
            "X-By: https",
            "Content-Length: 0",
            "Via: 1.1 rollgate"
        ]
    );
    let out = answer("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    assert_eq!(out, ["Link: </a>", "Via: 1.1 rollgate"]);
}

#[test]
fn prefixes_are_whole_segments() {
    for (sent, strip, add, expected) in [
        ("/a/b?x=/a", "/a", "", "/b?x=/a"),
        ("/a", "/a", "", "/"),
        ("/a?x", "/a", "", "/?x"),
        ("/a/", "/a", "", "/"),
        ("/ab", "/a", "", "/ab"),
        ("/b/a", "/a", "", "/b/a"),
        ("/a/b/c", "/a/b", "/x/y", "/x/y/c"),
        ("/a/b", "/a/b", "/x", "/x"),
        ("/other?q", "/a", "/x", "/x/other?q"),
        ("/", "", "/x", "/x/"),
        ("/?q", "", "/x", "/x/?q"),
        ("*", "/a", "/x", "*"),
        ("/%61/b", "/a", "", "/b"),
        ("//a///b/?x=//", "/a", "", "/b/?x=//"),
        ("//c/%62", "/a", "", "//c/%62"),
        ("//c/%62%2f", "/a", "/x", "/x/c/b%2F"),
    ] {
        assert_eq!(target(sent, strip, add), expected, "{sent} -{strip} +{add}");
    }
    let rules = Rewrite {
        add_prefix: Some("/x".into()),
        ..Rewrite::default()
    };
    let out = forwarded("GET http://a?q HTTP/1.1\r\nHost: a\r\n\r\n", &rules);
    assert!(out.starts_with("GET /x/?q HTTP/1.1\r\n"), "{out}");
}

#[test]
fn what_frames_a_message_or_is_ours_has_an_owner() {
    for name in [
        "Host",
        "connection",
        "Keep-Alive",
        "Transfer-Encoding",
        "content-length",
        "TE",
        "Upgrade",
        "Trailer",
        "Via",
        "Proxy-Authorization",
        "X-Rollgate-Version",
        "x-rollgate-anything",
        "content_length",
        "X_Rollgate_Version",
    ] {
        assert!(
            field_owner(name, false).is_some() && field_owner(name, true).is_some(),
            "{name}"
        );
    }
    for name in [
        "X-Forwarded-For",
        "Forwarded",
        "x-request-id",
        "traceparent",
        "Expect",
        "Sec-WebSocket-Key",
    ] {
        assert!(
            field_owner(name, false).is_some() && field_owner(name, true).is_none(),
            "{name}"
        );
    }
    for name in [
        "X-Real-IP",
        "X-Forwarded-Prefix",
        "Authorization",
        "Set-Cookie",
        "Strict-Transport-Security",
    ] {
        assert_eq!(
            (field_owner(name, false), field_owner(name, true)),
            (None, None),
            "{name}"
        );
    }
    assert!(field_owner("Date", true).is_some() && field_owner("Date", false).is_none());
}

proptest::proptest! {
    #[test]
    fn a_stripped_and_added_prefix_gives_the_path_back(path in "/([a-c]{1,2}/){0,3}[a-c]{0,2}", prefix in "(/[a-c]{1,2}){1,2}") {
        let given = target(&target(&path, "", &prefix), &prefix, "");
        proptest::prop_assert_eq!(given, path);
    }
}

#[test]
fn endpoints_are_told_the_prefix_that_was_stripped() {
    let rules = |request| Rewrite {
        request,
        strip_prefix: Some("/a/b".into()),
        ..Rewrite::default()
    };
    let plain = rules(FieldEdits::default());
    let told = |path: &str, fields: &str, peer_trusted, rules: &Rewrite| {
        let bytes = format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let head = accepted(bytes.as_bytes());
        let mut out = Vec::new();
        let add = RequestAdditions {
            rewrite: Some((rules, facts())),
            peer_trusted,
            ..additions()
        };
        write_request(&mut out, &head, bytes.as_bytes(), &add);
        assert_eq!(lint_request(&out), Ok(out.len()));
        let is_prefix = |line: &String| line.to_ascii_lowercase().starts_with("x-forwarded-prefix:");
        lines(&out).into_iter().filter(is_prefix).collect::<Vec<_>>().join("; ")
    };
    let ours = "X-Forwarded-Prefix: /a/b";
    for (path, fields, trusted, expected) in [
        ("/a/b/c", "", false, ours),
        ("/%61//b", "", false, ours),
        ("/a/c", "", false, ""),
        ("/a/b", "X-Forwarded-Prefix: /evil\r\n", false, ours),
        ("/a/c", "X-Forwarded-Prefix: /evil\r\n", false, ""),
        (
            "/a/b",
            "x-forwarded-prefix: /out/\r\n",
            true,
            "X-Forwarded-Prefix: /out/a/b",
        ),
        ("/a/b", "X-Forwarded-Prefix: /\r\n", true, ours),
        ("/a/b", "X-Forwarded-Prefix: http://x\r\n", true, ours),
        (
            "/a/b",
            "X-Forwarded-Prefix: /x, /y\r\nX-Forwarded-Prefix: /z\r\n",
            true,
            ours,
        ),
        ("/a/c", "X-Forwarded-Prefix: /out\r\n", true, "X-Forwarded-Prefix: /out"),
    ] {
        assert_eq!(told(path, fields, trusted, &plain), expected, "{path} {fields}");
    }
    let sets = rules(edits(&[], &[]));
    assert_eq!(told("/a/b", "", false, &sets), ours);
    let removes = rules(edits(&["X-Forwarded-Prefix"], &[]));
    assert_eq!(told("/a/b", "X-Forwarded-Prefix: /out\r\n", true, &removes), "");
    let own = rules(edits(&["x-forwarded-prefix"], &[("x-forwarded-prefix", text("/own"))]));
    assert_eq!(told("/a/b", "", false, &own), "x-forwarded-prefix: /own");
}

#[test]
fn addresses_in_answers_are_led_back() {
    let bytes = "HTTP/1.1 201 Created\r\nLocation: http://in/i/a\r\nETag: x\r\ncontent-location:/i/b?c\r\nLocation: \
                 /elsewhere\r\nX-Location: /i/a\r\nContent-Length: 0\r\n\r\n";
    let answer = |fields: &FieldEdits, moved| {
        let limits = HeadLimits::default();
        let head = parse_response(
            bytes.as_bytes(),
            MethodKind::Get,
            Upgrading::default(),
            &limits,
            &mut HeadParser::new(),
        );
        let head = head.unwrap().unwrap();
        let mut out = Vec::new();
        let add = ResponseAdditions {
            edits: Some(Edits {
                fields,
                facts: facts(),
                moved,
            }),
            via: false,
            ..response_additions(head.forward_framing(Version::Http11))
        };
        write_response(&mut out, &head, bytes.as_bytes(), &add);
        lines(&out)
    };
    let moved = Moved {
        host: Some("in"),
        port: None,
        stripped: "/s",
        added: "/i",
    };
    let none = FieldEdits::default();
    let led = [
        "ETag: x",
        "X-Location: /i/a",
        "Location: https://shop.example:8080/s/a",
        "content-location: /s/b?c",
    ];
    assert_eq!(answer(&none, Some(moved)).get(..4), Some(&led.map(str::to_owned)[..]));
    assert!(answer(&none, None).contains(&"Location: http://in/i/a".to_owned()));
    let removes = edits(&["location"], &[]);
    let left = answer(&removes, Some(moved));
    assert!(
        !left.iter().any(|line| line.starts_with("Location")) && left.contains(&led[3].to_owned()),
        "{left:?}"
    );
}
