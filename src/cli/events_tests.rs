use super::*;
use crate::cli::print::plain;
use serde_json::json;

fn raw(value: serde_json::Value) -> Raw {
    serde_json::value::to_raw_value(&value).unwrap()
}

fn event(seq: u64, kind: &str, reason: Option<&str>) -> Raw {
    raw(json!({
        "seq": seq, "time": "2026-07-01T09:00:00.000Z", "type": kind, "service": "shop", "who": "ada (uid 1000)",
        "from": "unix", "reason": reason, "before": null, "after": null,
        "text": "shop: v1=90 v2=10 (was v1=95 v2=5)", "generation": 3, "evidence": null,
    }))
}

#[test]
fn lines_for_people() {
    let events = [
        event(9, "weights", None),
        event(1_234_567, "reload_failed", Some("try\nit")),
        raw(json!({"seq": 10, "type": "from_the_future"})),
    ];
    let text: String = std::iter::once(headings())
        .chain(events.iter().map(|event| rendered(event)))
        .collect();
    insta::assert_snapshot!("lines", plain(&text));
}

#[test]
fn questions() {
    assert_eq!(path(0, None, None), "/v1/events?after=0");
    assert_eq!(
        path(7, Some(5), Some("a&b")),
        "/v1/events?after=7&limit=5&service=a%26b"
    );
}
