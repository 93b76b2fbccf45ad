//! What is asked, when, and for how long. A real Prometheus server is in tests/prometheus.rs.

use super::*;
use crate::analysis::{Check, Limits, Test};
use crate::control::fixture::{Receiver, Reply, eventually, status};
use crate::rollout::{Action, Analysis, CheckPlan, OnNoEvidence, Share, Start, Url};
use std::time::UNIX_EPOCH;

const OFTEN: Duration = Duration::from_millis(50);
const SELDOM: Duration = Duration::from_secs(600);

fn scalar(number: &str) -> Reply {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let data = format!("{{\"resultType\":\"scalar\",\"result\":[{now_s},\"{number}\"]}}");
    status("200 OK", &format!("{{\"status\":\"success\",\"data\":{data}}}"))
}

fn check(query: Option<Query>) -> CheckPlan {
    CheckPlan {
        check: Check {
            metric: "conversion".to_owned(),
            test: Test::OutsideWithin {
                limits: Limits {
                    min: Some(0.1),
                    max: None,
                },
                fresh_for: SELDOM,
            },
        },
        on_fail: Action::Rollback,
        prometheus: query,
    }
}

/// A plan of `service` with a check that has no query, then one of each of `queries`.
fn plan(service: &str, url: &Url, queries: &[&str], every: Duration) -> Plan {
    let queries = queries.iter().map(|query| {
        let (url, query) = (url.clone(), (*query).into());
        Some(Query { url, query, every })
    });
    Plan {
        service: service.into(),
        candidate: "v2".into(),
        start: Start::Manual,
        steps: Box::default(),
        analysis: Analysis {
            warmup: Duration::ZERO,
            min_requests: 1,
            confidence: Share::WHOLE,
            on_no_evidence: OnNoEvidence::Hold,
            max_hold: None,
            metrics: Box::default(),
            checks: [None].into_iter().chain(queries).map(check).collect(),
        },
        max_failures: None,
        gates: Box::default(),
        notify: Box::default(),
        freeze: Box::default(),
        with: Box::default(),
    }
}

#[tokio::test]
async fn a_number_is_asked_for_at_once_and_again_and_read_by_the_position_of_its_check() {
    let receiver = Receiver::new(scalar("0.25")).await;
    let numbers = Numbers::new(HttpClient::new());
    let plan = plan("shop", &receiver.url(""), &["a_{{candidate}}_{{stable}}", "b"], OFTEN);
    assert_eq!(numbers.latest("shop", 1), None);
    // As a rollout does: nobody is asked for long on behalf of one that is over.
    let latest = |check| {
        numbers.follow(&plan, "v1", 1);
        numbers.latest("shop", check)
    };
    for check in [1, 2] {
        eventually("a number", || latest(check) == Some(Ok(0.25))).await;
    }
    assert_eq!([0, 3].map(|check| numbers.latest("shop", check)), [None, None]);
    assert_eq!(numbers.latest("cart", 1), None);
    receiver.reply(scalar("0.5"));
    eventually("the next one", || latest(1) == Some(Ok(0.5))).await;
    let asked: Vec<_> = receiver.received().into_iter().map(|received| received.line).collect();
    for query in ["a_v2_v1", "b"] {
        assert!(
            asked.contains(&format!("GET /api/v1/query?query={query} HTTP/1.1")),
            "{asked:?}"
        );
    }
}

#[tokio::test]
async fn to_follow_on_changes_nothing_and_another_window_or_query_begins_anew() {
    let receiver = Receiver::new(scalar("1")).await;
    let numbers = Numbers::new(HttpClient::new());
    let url = receiver.url("");
    let mut plan = plan("shop", &url, &["a"], SELDOM);
    let mut window = 1;
    for (round, change) in ["first", "window", "query"].into_iter().enumerate() {
        match change {
            "window" => window += 1,
            "query" => plan.analysis.checks[1].prometheus.as_mut().unwrap().query = "b".into(),
            _ => {}
        }
        numbers.follow(&plan, "v1", window);
        // What was known before is not known any more.
        assert_eq!(numbers.latest("shop", 1), None, "{change}");
        eventually("a number", || numbers.latest("shop", 1).is_some()).await;
        for _ in 0..10 {
            numbers.follow(&plan, "v1", window);
        }
        assert_eq!(numbers.latest("shop", 1), Some(Ok(1.0)));
        assert_eq!(receiver.received().len(), round + 1, "{change}");
    }
}

#[tokio::test]
async fn services_are_apart() {
    let receiver = Receiver::new(scalar("1")).await;
    let numbers = Numbers::new(HttpClient::new());
    numbers.follow(&plan("shop", &receiver.url("/a"), &["q"], SELDOM), "v1", 1);
    numbers.follow(&plan("cart", &receiver.url("/b"), &["q"], SELDOM), "v1", 1);
    for service in ["shop", "cart"] {
        eventually("a number", || numbers.latest(service, 1).is_some()).await;
    }
    numbers.follow(&plan("cart", &receiver.url("/b"), &["q"], SELDOM), "v1", 2);
    assert_eq!(numbers.latest("shop", 1), Some(Ok(1.0)));
}

#[tokio::test]
async fn no_number_is_a_sentence() {
    let receiver = Receiver::new(scalar("NaN")).await;
    let numbers = Numbers::new(HttpClient::new());
    let plan = plan("shop", &receiver.url(""), &["a"], OFTEN);
    let latest = || {
        numbers.follow(&plan, "v1", 1);
        numbers.latest("shop", 1)
    };
    let says = |why: &str| latest() == Some(Err(why.to_owned()));
    eventually("not a number", || says("the query gives NaN: a division by zero?")).await;
    receiver.reply(Reply::Bytes(b"HTTP/1.1 500 Oh\r\n\r\nbroken".to_vec()));
    eventually("an error", || says("it answers 500, and no JSON of Prometheus: broken")).await;
    receiver.reply(scalar("2"));
    eventually("a number again", || latest() == Some(Ok(2.0))).await;
}

/// In virtual time: what hangs would answer after an hour.
#[tokio::test(start_paused = true)]
async fn an_answer_counts_for_three_times_the_time_between_two_queries() {
    let numbers = Numbers::new(HttpClient::new());
    let plan = plan("shop", &Url::new("http://127.0.0.1:9"), &["a"], Duration::from_secs(10));
    let (sender, reading) = watch::channel(None);
    let at = Instant::now();
    sender.send_replace(Some(Reading { answer: Ok(3.0), at }));
    let asked = wanted(&plan, "v1").into_iter().map(|wanted| {
        let reading = reading.clone();
        Asked { wanted, reading }
    });
    let followed = Followed {
        window: 1,
        asked: asked.collect(),
        last: watch::Sender::new(at),
        _tasks: JoinSet::new(),
    };
    numbers.services().insert("shop".into(), followed);
    tokio::time::advance(Duration::from_secs(30)).await;
    assert_eq!(numbers.latest("shop", 1), Some(Ok(3.0)));
    tokio::time::advance(Duration::from_secs(1)).await;
    let why = "the last answer came 31 s ago".to_owned();
    assert_eq!(numbers.latest("shop", 1), Some(Err(why)));
}

/// In virtual time: nothing of the network.
#[tokio::test(start_paused = true)]
async fn who_is_not_followed_any_more_is_not_asked() {
    let numbers = Numbers::new(HttpClient::new());
    let wrong = Url::new("not an address");
    let shop = plan("shop", &wrong, &["a"], Duration::from_secs(1));
    numbers.follow(&shop, "v1", 1);
    let seconds = async |number: usize| {
        for _ in 0..number {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let last = |numbers: &Numbers| {
        let services = numbers.services();
        let reading = services["shop"].asked[0].reading.borrow();
        reading.as_ref().unwrap().at
    };
    for _ in 0..20 {
        seconds(1).await;
        numbers.follow(&shop, "v1", 1);
    }
    assert!(last(&numbers).elapsed() <= Duration::from_secs(1));
    let followed = Instant::now();
    seconds(20).await;
    assert!(
        last(&numbers) <= followed + FOLLOWED_FOR,
        "asked {:?} ago",
        last(&numbers).elapsed()
    );
    // Another one sweeps; the same one begins anew.
    numbers.follow(&plan("cart", &wrong, &["a"], SELDOM), "v1", 1);
    assert_eq!(numbers.latest("shop", 1), None);
    numbers.follow(&shop, "v1", 1);
    assert_eq!(numbers.latest("shop", 1), None);
    seconds(1).await;
    assert_eq!(
        numbers.latest("shop", 1),
        Some(Err("the address cannot be called".to_owned()))
    );
}
