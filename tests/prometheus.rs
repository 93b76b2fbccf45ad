//! The numbers of a check from a real Prometheus server, which scrapes a page of this test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use rollgate::control::http_client::HttpClient;
use rollgate::control::numbers::Numbers;
use rollgate::rollout::Plan;
use std::path::Path;
use std::time::Duration;
use support::{Nginx, PATIENCE, Prometheus};
use tokio::time::{Instant, sleep};

/// A server and what it scrapes: a file that nginx serves.
fn scraping(page: &str) -> (Prometheus, Nginx) {
    let exporter = Nginx::named("exporter");
    exporter.put_file("metrics", page.as_bytes());
    (Prometheus::scraping(exporter.port(), "/files/metrics"), exporter)
}

/// The page of a shop whose candidate sold `candidate` times.
fn sold(candidate: u32) -> String {
    format!(
        "# TYPE orders gauge\norders{{service=\"shop\",version=\"v1\"}} 100\norders{{service=\"shop\",version=\"v2\"}} \
         {candidate}\n"
    )
}

/// The plan of a file with a check for each of `queries`.
fn plan(url: &str, queries: &[&str]) -> Plan {
    let check = |query: &&str| {
        format!(
            "          - {{ metric: orders, min: 1, prometheus: {{ url: \"{url}\", every: 2s, query: '{query}' }} }}\n"
        )
    };
    let checks: String = queries.iter().map(check).collect();
    let text = format!(
        "listeners: [{{ address: \"127.0.0.1:0\" }}]\n\
         services:\n  - name: shop\n    versions:\n      - {{ name: v1, role: stable, pool: {{ endpoints: [\"127.0.0.1:1\"] }} }}\n      \
         - {{ name: v2, role: canary, pool: {{ endpoints: [\"127.0.0.1:1\"] }} }}\n    rollout:\n      steps: [{{ share: 100%, \
         hold: 1m }}]\n      analysis:\n        checks:\n{checks}"
    );
    let snapshot =
        rollgate::config::parse(&text, Path::new("/")).unwrap_or_else(|problems| panic!("{problems:?}\n{text}"));
    snapshot.services[0].rollout.clone().unwrap()
}

/// Follows the plan, as a rollout does, until the check at this position has what `is_it` wants.
async fn until(numbers: &Numbers, plan: &Plan, check: usize, is_it: impl Fn(&Result<f64, String>) -> bool) {
    let until = Instant::now() + PATIENCE;
    loop {
        numbers.follow(plan, "v1", 1);
        let latest = numbers.latest("shop", check);
        if latest.as_ref().is_some_and(&is_it) {
            return;
        }
        assert!(Instant::now() < until, "check {check} has {latest:?}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_check_has_the_number_that_the_server_has_now() {
    let (server, exporter) = scraping(&sold(25));
    let queries = [
        "sum(orders{service=\"{{service}}\",version=\"{{candidate}}\"}) / sum(orders{version=\"{{ stable }}\"})",
        "scalar(orders{version=\"v2\"}) + 0.5",
        "sum(count_over_time(orders{version=\"v2\"}[{{interval}}]))",
    ];
    let plan = plan(&server.url(), &queries);
    let numbers = Numbers::new(HttpClient::new());
    until(&numbers, &plan, 0, |number| *number == Ok(0.25)).await;
    until(&numbers, &plan, 1, |number| *number == Ok(25.5)).await;
    // Scraped each 200 ms, in a range of two seconds, of which a busy machine may miss most.
    until(&numbers, &plan, 2, |number| {
        number.as_ref().is_ok_and(|number| *number >= 3.0)
    })
    .await;
    exporter.put_file("metrics", sold(50).as_bytes());
    until(&numbers, &plan, 0, |number| *number == Ok(0.5)).await;
}

#[tokio::test]
async fn what_is_no_number_is_no_evidence_and_says_why() {
    let (server, _exporter) = scraping(&sold(25));
    let cases = [
        ("nobody_has_this", "no data: the query gives no sample"),
        ("orders", "the query gives 2 samples: expected one"),
        ("sum(orders) * 0 / 0", "the query gives NaN: a division by zero?"),
        ("sum(orders) / 0", "the query gives +Inf: a division by zero?"),
        ("orders[1m]", "the query gives a range: expected one number"),
        ("\"text\"", "the query gives text, and no number"),
        ("sum(orders", "Prometheus says: invalid parameter \"query\": "),
    ];
    let plan = plan(&server.url(), &cases.map(|(query, _)| query));
    let numbers = Numbers::new(HttpClient::new());
    for (check, (_, why)) in cases.iter().enumerate() {
        until(&numbers, &plan, check, |number| {
            number.as_ref().is_err_and(|told| told.starts_with(why))
        })
        .await;
    }
}

#[tokio::test]
async fn a_server_that_is_gone_is_no_evidence_until_it_is_back() {
    let (mut server, _exporter) = scraping(&sold(25));
    let plan = plan(&server.url(), &["sum(orders)"]);
    let numbers = Numbers::new(HttpClient::new());
    until(&numbers, &plan, 0, |number| *number == Ok(125.0)).await;
    server.stop();
    until(&numbers, &plan, 0, |number| {
        number.as_ref().is_err_and(|why| why.starts_with("no connection: "))
    })
    .await;
    server.start_again();
    until(&numbers, &plan, 0, |number| *number == Ok(125.0)).await;
}
