//! What Prometheus may answer, from the wire. A real server is in tests/prometheus.rs.

use super::*;
use crate::control::fixture::{Receiver, Reply, nobody, status};
use serde_json::json;

/// The time that the answers below are about.
const NOW_S: f64 = 1_784_000_000.25;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs_f64(NOW_S)
}

async fn answered(reply: Reply) -> Result<f64, String> {
    answered_to(&HttpClient::new(), reply).await
}

async fn answered_to(client: &HttpClient, reply: Reply) -> Result<f64, String> {
    let receiver = Receiver::new(reply).await;
    query(client, &receiver.url("/secret"), "up", now()).await
}

async fn result(kind: &str, result: Value) -> Result<f64, String> {
    let body = json!({ "status": "success", "data": { "resultType": kind, "result": result } });
    answered(status("200 OK", &body.to_string())).await
}

#[tokio::test]
async fn one_sample_or_a_scalar_is_a_number() {
    let sample = json!({ "metric": { "job": "shop" }, "value": [NOW_S, "0.125"] });
    assert_eq!(result("vector", json!([sample])).await, Ok(0.125));
    for (text, number) in [("12", 12.0), ("-3.5e-7", -3.5e-7), ("0", 0.0), ("1e+300", 1e300)] {
        assert_eq!(result("scalar", json!([NOW_S, text])).await, Ok(number));
    }
}

#[tokio::test]
async fn anything_else_is_no_number_and_says_what_it_is() {
    let sample = |text: &str| json!({ "metric": {}, "value": [NOW_S, text] });
    for (kind, of, why) in [
        ("vector", json!([]), "no data: the query gives no sample"),
        (
            "vector",
            json!([sample("1"), sample("2"), sample("3")]),
            "the query gives 3 samples: expected one, as from `sum(…)` or with more labels",
        ),
        (
            "vector",
            json!([sample("NaN")]),
            "the query gives NaN: a division by zero?",
        ),
        (
            "vector",
            json!([sample("+Inf")]),
            "the query gives +Inf: a division by zero?",
        ),
        (
            "scalar",
            json!([NOW_S, "-Inf"]),
            "the query gives -Inf: a division by zero?",
        ),
        (
            "vector",
            json!([sample("many")]),
            "the query gives `many`, and no number",
        ),
        (
            "vector",
            json!([{ "metric": {}, "histogram": [NOW_S, {}] }]),
            "the query gives a histogram, and no number",
        ),
        ("string", json!([NOW_S, "5"]), "the query gives text, and no number"),
        (
            "matrix",
            json!([]),
            "the query gives a range: expected one number, as from `rate(…)` or `avg_over_time(…)`",
        ),
        ("streams", json!([]), "the query gives a `streams`, and no number"),
    ] {
        assert_eq!(result(kind, of).await.unwrap_err(), why);
    }
    for odd in [json!({}), json!([1]), json!("5")] {
        let why = result("scalar", odd).await.unwrap_err();
        assert!(why.starts_with("its answer makes no sense: "), "{why}");
    }
}

#[tokio::test]
async fn an_answer_about_another_time_is_none() {
    for (off_s, is_number) in [
        (0.0, true),
        (-299.0, true),
        (299.0, true),
        (-301.0, false),
        (301.0, false),
    ] {
        let told = result("scalar", json!([NOW_S + off_s, "1"])).await;
        assert_eq!(told.is_ok(), is_number, "{off_s}: {told:?}");
    }
    let why = result("scalar", json!([NOW_S - 7200.0, "1"])).await.unwrap_err();
    let expected = "the answer is about a time 7200 s from now: is there a cache in between, or a clock wrong?";
    assert_eq!(why, expected);
}

#[tokio::test]
async fn what_the_server_finds_wrong_is_told_without_the_address() {
    let wrong = json!({ "status": "error", "errorType": "bad_data", "error": "parse error: unexpected end of input" });
    for line in [
        "400 Bad Request",
        "422 Unprocessable Entity",
        "503 Service Unavailable",
        "200 OK",
    ] {
        let why = answered(status(line, &wrong.to_string())).await.unwrap_err();
        assert_eq!(why, "Prometheus says: parse error: unexpected end of input");
    }
    for (reply, why) in [
        (
            status("502 Bad Gateway", "<html>oh"),
            "it answers 502, and no JSON of Prometheus",
        ),
        (
            status("404 Not Found", "404 page /secret not found"),
            "it answers 404, and no JSON of Prometheus: 404 page /… not found",
        ),
        (status("200 OK", "{}"), "it answers 200, and no JSON of Prometheus: {}"),
        (
            status("200 OK", "{\"status\":\"success\"}"),
            "Prometheus says: its status is `success`",
        ),
        (Reply::Endless, "the answer is larger than 64 KiB"),
    ] {
        assert_eq!(answered(reply).await.unwrap_err(), why);
    }
    let why = answered_to(&HttpClient::hasty(), Reply::Silence).await.unwrap_err();
    assert_eq!(why, "no answer within 0.3 s");
    let nobody = nobody();
    let why = query(&HttpClient::new(), &nobody.url("/secret"), "up", now()).await;
    let why = why.unwrap_err();
    assert!(why.starts_with("no connection: ") && !why.contains("secret"), "{why}");
}

#[test]
fn the_query_is_below_the_address_and_survives_it() {
    let query = "sum(rate(a{b=\"c+d&e\"}[5m])) / 2 # ä";
    let encoded = "sum%28rate%28a%7Bb%3D%22c%2Bd%26e%22%7D%5B5m%5D%29%29%20%2F%202%20%23%20%C3%A4";
    for (url, expected) in [
        ("http://h:9090", "http://h:9090/api/v1/query?query="),
        ("http://h:9090/", "http://h:9090/api/v1/query?query="),
        ("https://u:p@h/prom//", "https://u:p@h/prom/api/v1/query?query="),
        ("http://h/prom?tenant=a", "http://h/prom/api/v1/query?tenant=a&query="),
        ("http://h/#top", "http://h/api/v1/query?query="),
        ("http://h?", "http://h/api/v1/query?query="),
    ] {
        assert_eq!(endpoint(&Url::new(url), query).secret(), format!("{expected}{encoded}"));
    }
}
