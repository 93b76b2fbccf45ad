//! What is said of limits that are wrong, word by word.

use super::bad_input::report;
use super::*;

#[test]
fn limits_of_services() {
    let with = |text: &str| with_service(&format!("    {text}\n"));
    let rates = |text: &str| with(&format!("rate_limits: [{text}]"));
    let cases = [
        (
            "rates",
            rates(
                "{ per: 1s }, { requests: 0 }, { requests: 1, per: 25h }, { requests: 1, burst: 0 }, { requests: 2, per: 0s }",
            ),
        ),
        (
            "keys",
            rates("{ requests: 1, key: [] }, { requests: 1, key: [{ header: \"a b\" }] }, { requests: 1, key: [ip] }"),
        ),
        (
            "too many keys",
            rates(
                "{ requests: 1, key: [client_ip], max_keys: 9000000 }, { requests: 2, key: [client_ip], max_keys: 9000000 }",
            ),
        ),
        ("too many rates", rates(&"{ requests: 1 }, ".repeat(17))),
        (
            "the same rate twice",
            rates(
                "{ requests: 5 }, { requests: 5, key: [client_ip] }, { requests: 5, key: [client_ip, { cookie: a }] }, { requests: 5, per: 1s, burst: 5 }",
            ),
        ),
        (
            "too many keys in flight",
            with("max_in_flight_per_key: [{ requests: 1, key: [client_ip], max_keys: 9000000 }]").replace(
                "{ name: v1, ",
                "{ name: v1, rate_limits: [{ requests: 1, key: [client_ip], max_keys: 2000000 }], ",
            ),
        ),
        ("in flight", with("max_in_flight: 0")),
        (
            "in flight of keys",
            with(
                "max_in_flight_per_key: [{ key: [client_ip] }, { requests: 1 }, { requests: 0, key: [client_ip] }, { requests: 1, key: [] }, { \
                 requests: 2, key: [client_ip, { cookie: a }] }, { requests: 3, key: [client_ip, { cookie: a }] }]",
            ),
        ),
        (
            "rates of a version",
            with_versions(&["name: v1, rate_limits: [{ requests: 0 }, { per: 1s }]"]),
        ),
        (
            "in flight of a version",
            with_versions(&["name: v1, max_in_flight: many"]),
        ),
    ];
    insta::assert_snapshot!(report(&cases));
}
