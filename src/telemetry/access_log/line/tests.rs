use super::*;
use proptest::prelude::*;
use serde_json::Value;

fn full<'a>() -> Line<'a> {
    Line {
        time: UNIX_EPOCH + Duration::from_millis(1_782_907_200_042),
        client_ip: "::ffff:192.0.2.7".parse().unwrap(),
        method: "GET",
        host: "shop.example.com",
        path: "/checkout?item=1",
        protocol: "HTTP/1.1",
        status: 502,
        service: Some("checkout"),
        version: Some("v2"),
        rescued: None,
        reason: Some("rule"),
        rule: Some("beta"),
        bucket: Some(99_999),
        endpoint: Some("127.0.0.1:9003"),
        attempts: 2,
        request_bytes: 0,
        response_bytes: 1_234_567,
        duration: Duration::from_micros(12_005),
        upstream_time: Some(Duration::from_micros(999)),
        termination: Termination::UpstreamReset,
        request_id: "5f0c",
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736"),
        user_agent: Some(b"curl/8"),
        grpc_status: Some(14),
        failure: Some(FailureKind::Reset),
        refusal: None,
        error: None,
    }
}

fn written(line: &Line<'_>) -> String {
    let mut out = Vec::new();
    line.write(&mut out, &mut Clock::default());
    String::from_utf8(out).unwrap()
}

#[test]
fn a_line_shows_all_there_is() {
    insta::assert_snapshot!(written(&full()));
}

#[test]
fn a_refused_request_shows_what_is_known() {
    let refused = Line {
        client_ip: "2001:db8::1".parse().unwrap(),
        method: "",
        host: "",
        path: "",
        status: 400,
        service: None,
        version: None,
        rescued: None,
        reason: None,
        rule: None,
        bucket: None,
        endpoint: None,
        attempts: 0,
        upstream_time: None,
        termination: Termination::Refused,
        trace_id: None,
        user_agent: None,
        failure: None,
        grpc_status: None,
        refusal: Some(Refusal::BadRequest),
        ..full()
    };
    insta::assert_snapshot!(written(&refused));
}

#[test]
fn what_could_deceive_a_reader_is_escaped() {
    let line = Line {
        path: "/\r\n{\"x\":1}\t\\\u{1b}[2J\u{7f}\u{9b}\u{2028}é",
        user_agent: Some(b"a\xff\xfeb\xe2\x82"),
        ..full()
    };
    let text = written(&line);
    assert!(
        text.contains(r#""path":"/\r\n{\"x\":1}\t\\\u001b[2J\u007f\u009b\u2028é""#),
        "{text}"
    );
    assert!(text.contains("\"user_agent\":\"a\u{fffd}\u{fffd}b\u{fffd}\""), "{text}");
}

#[test]
fn what_is_too_long_is_cut_between_characters_and_marked() {
    let agent = "é".repeat(300);
    let value: Value = serde_json::from_str(&written(&Line {
        path: &"x".repeat(5000),
        user_agent: Some(format!("a{agent}").as_bytes()),
        ..full()
    }))
    .unwrap();
    assert_eq!(value["path"].as_str().unwrap(), format!("{}…", "x".repeat(MAX_PATH)));
    assert_eq!(
        value["user_agent"].as_str().unwrap(),
        format!("a{}…", "é".repeat(255)),
        "the 256th begins at byte 511"
    );
}

#[test]
fn what_just_fits_is_not_cut() {
    let agent = "u".repeat(MAX_USER_AGENT);
    let value: Value = serde_json::from_str(&written(&Line {
        user_agent: Some(agent.as_bytes()),
        ..full()
    }))
    .unwrap();
    assert_eq!(value["user_agent"], agent);
}

#[test]
fn dates_are_those_of_the_calendar() {
    // From date(1): `date -u -d @SECONDS +%FT%TZ`.
    let cases = [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_400, "2000-02-29T00:00:00.000Z"),
        (951_868_799, "2000-02-29T23:59:59.000Z"),
        (1_709_164_800, "2024-02-29T00:00:00.000Z"),
        (4_107_542_399, "2100-02-28T23:59:59.000Z"),
        (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        (253_402_300_799, "9999-12-31T23:59:59.000Z"),
        (253_402_300_800, "9999-12-31T23:59:59.000Z"),
    ];
    let mut clock = Clock::default();
    for (second, expected) in cases {
        let mut out = Vec::new();
        clock.write(&mut out, UNIX_EPOCH + Duration::from_secs(second));
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}

#[test]
fn a_time_before_the_epoch_is_the_epoch() {
    let mut out = Vec::new();
    Clock::default().write(&mut out, UNIX_EPOCH - Duration::from_millis(1500));
    assert_eq!(out, b"1970-01-01T00:00:00.000Z");
}

proptest! {
    /// Any bytes in any field: one line, valid JSON, printable, bounded, and short valid text comes back as it was.
    #[test]
    fn a_request_is_one_line_of_json(
        path in any::<String>(),
        id in any::<String>(),
        agent in prop::collection::vec(any::<u8>(), 0..700),
        noise in "[\\x00-\\x1f\"\\\\\u{80}-\u{9f}é\u{10ffff}]{0,300}",
        us in any::<u64>(),
        time_ms in any::<u32>(),
    ) {
        let line = Line {
            time: UNIX_EPOCH + Duration::from_millis(u64::from(time_ms) * 1000),
            method: &noise,
            host: &noise,
            path: &path,
            rule: Some(&noise),
            endpoint: Some(&path),
            request_id: &id,
            trace_id: Some(&noise),
            user_agent: Some(&agent),
            duration: Duration::from_micros(us),
            request_bytes: us,
            ..full()
        };
        let text = written(&line);
        let body = text.strip_suffix('\n').unwrap();
        let printable = !body.chars().any(|c| c.is_control() || c == '\u{2028}' || c == '\u{2029}');
        prop_assert!(printable);
        prop_assert!(text.len() < 32 * 1024);
        let value: Value = serde_json::from_str(body).unwrap();
        prop_assert_eq!(value["request_bytes"].as_u64(), Some(us));
        if path.len() <= MAX_PATH {
            prop_assert_eq!(value["path"].as_str(), Some(path.as_str()));
        }
        if agent.len() <= MAX_USER_AGENT {
            let expected = String::from_utf8_lossy(&agent);
            prop_assert_eq!(value["user_agent"].as_str(), Some(expected.as_ref()));
        }
    }
}
