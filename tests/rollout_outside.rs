//! Rollouts and who is outside of them, with the real binary: receivers that hang, gates that say no, numbers of a real
//! Prometheus server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use serde_json::Value;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use support::{Config, Gate, Nginx, Operator, PATIENCE, Prometheus, Service, Then, Upstream, eventually};

/// Answers with a status that the test changes; 0: not before it is another.
struct Other {
    upstream: Upstream,
    status: Arc<AtomicU16>,
    /// What it has answered.
    said: Arc<Mutex<Vec<u16>>>,
}

impl Other {
    fn new(status: u16) -> Self {
        let (status, said) = (Arc::new(AtomicU16::new(status)), Arc::default());
        let (answers, told) = (Arc::clone(&status), Arc::<Mutex<Vec<u16>>>::clone(&said));
        let upstream = Upstream::with("other", move |exchange| {
            exchange.read_body();
            let status = loop {
                match answers.load(Ordering::SeqCst) {
                    0 => thread::sleep(Duration::from_millis(5)),
                    status => break status,
                }
            };
            told.lock().unwrap().push(status);
            exchange.answer(status, &[("connection", "close")], b"")
        });
        Self { upstream, status, said }
    }

    fn said(&self) -> Vec<u16> {
        self.said.lock().unwrap().clone()
    }

    fn answers(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// The JSON that it was sent.
    fn told(&self) -> Vec<Value> {
        let requests = self.upstream.requests();
        let whole = requests.iter().filter(|request| request.complete);
        whole
            .map(|request| serde_json::from_slice(&request.body).unwrap())
            .collect()
    }
}

/// Two versions of a service with this rollout, the canary at 0 %.
fn site(v2: &Upstream, v1: &Upstream, rollout: &str) -> Gate {
    let service = Service::split(v1.port(), 100, v2.port(), 0).never_eject().key(rollout);
    Gate::start(&Config::with(service).text())
}

/// Asks 200 times a second until `until` has ended.
fn under_traffic(gate: &Gate, until: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = gate.client();
            while !stop.load(Ordering::Relaxed) {
                client.get("/", &[]);
                thread::sleep(Duration::from_millis(5));
            }
        });
        // A test that fails must not leave its users behind.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(until));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
}

const V2: [(&str, &str); 1] = [("version", "v2")];
const SHARE: &str = "rollgate_version_share_target";

fn share(gate: &Gate) -> f64 {
    gate.metric(SHARE, &V2)
}

#[test]
fn a_rollback_waits_for_no_receiver_and_is_told_when_it_takes_it() {
    let v1 = Upstream::named("v1");
    let v2 = Upstream::fixed("v2", "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n", Then::Keep);
    let hook = Other::new(0);
    let rollout = format!(
        "rollout: {{ steps: [{{ share: 50%, hold: 1h }}, {{ share: 100%, hold: 1s }}], guard: {{ max_failures: 10 }}, analysis: {{ \
         checks: [{{ metric: error_rate, max: 90% }}] }}, notify: [{{ webhook: \"http://127.0.0.1:{}/events\" }}] }}",
        hook.upstream.port()
    );
    let gate = site(&v2, &v1, &rollout);
    eventually(PATIENCE, "the receiver is told of the start", || {
        hook.upstream.count() == 1
    });
    under_traffic(&gate, || {
        eventually(PATIENCE, "the canary has failed", || {
            gate.metric("rollgate_request_failures_total", &V2) >= 10.0
        });
        eventually(PATIENCE, "it is rolled back", || share(&gate) == 0.0);
        // An attempt is given up after 10 s.
        assert_eq!(hook.upstream.count(), 1, "the receiver is still at the start");
    });
    hook.answers(204);
    eventually(PATIENCE, "the rollback is told", || {
        hook.told().last().is_some_and(|told| told["type"] == "rollback")
    });
    let mut told = hook.told();
    told.dedup();
    let last = told.last().unwrap();
    for (key, value) in [("service", "shop"), ("version", "v2"), ("phase", "rolled_back")] {
        assert_eq!(last[key], value, "{last}");
    }
    assert_eq!(told.first().unwrap()["type"], "start", "{told:?}");
    assert_eq!(last["evidence"].as_array().unwrap().len(), 1, "{last}");
    assert!(
        last["generation"].as_u64().unwrap() > told[0]["generation"].as_u64().unwrap(),
        "{told:?}"
    );
}

/// A rollout that begins when `asked` says yes.
fn gated_by(asked: &Other) -> String {
    format!(
        "rollout: {{ steps: [{{ share: 50%, hold: 1h }}, {{ share: 100%, hold: 1s }}], gates: [{{ before: start, webhook: \
         \"http://127.0.0.1:{}/gate/check\" }}] }}",
        asked.upstream.port()
    )
}

#[test]
fn nothing_goes_to_a_canary_before_its_gate_says_yes() {
    let (v1, v2) = (Upstream::named("v1"), Upstream::named("v2"));
    let asked = Other::new(403);
    let gate = site(&v2, &v1, &gated_by(&asked));
    eventually(PATIENCE, "the gate has said no", || asked.said() == [403]);
    let told = &asked.told()[0];
    for (key, value) in [("name", "shop"), ("namespace", "rollgate"), ("phase", "Waiting")] {
        assert_eq!(told[key], value, "{told}");
    }
    gate.expect_metric(SHARE, &V2, 0.0);
    asked.answers(200);
    // It is asked again after 10 s.
    eventually(PATIENCE, "the canary gets its share", || share(&gate) == 50.0);
    assert_eq!(asked.said().last(), Some(&200));
}

#[test]
fn a_kill_ends_what_waits_for_its_gate_and_who_steers_is_told_so() {
    let (v1, v2) = (Upstream::named("v1"), Upstream::named("v2"));
    let asked = Other::new(403);
    let gate = site(&v2, &v1, &gated_by(&asked));
    let operator = Operator::of(&gate);
    eventually(PATIENCE, "the gate has said no", || asked.said() == [403]);
    let kill = "/v1/services/shop/kill";
    // Nobody has looked at it yet when the second one comes.
    for what in ["waiting for its gate", "tried again"] {
        operator.put(kill, "").expect_ok();
        let now = support::rollouts::rollout(&operator);
        assert_eq!(
            (&now["phase"], &now["cause"]),
            (&"rolled_back".into(), &"killed".into()),
            "{what}"
        );
        let released = operator.delete(kill).expect_ok();
        let said = released["message"].as_str().unwrap();
        assert!(said.contains("its rollout was rolled back"), "{said}");
        operator.post("/v1/services/shop/rollout/retry", "").expect_ok();
    }
    let set = operator.weights(80, 20).expect_ok();
    let said = set["message"].as_str().unwrap();
    assert!(said.contains("its rollout is paused"), "{said}");
    assert_eq!(share(&gate), 20.0);
}

#[test]
fn a_number_of_prometheus_that_is_too_low_pauses() {
    let (v1, v2) = (Upstream::named("v1"), Upstream::named("v2"));
    let exporter = Nginx::named("exporter");
    exporter.put_file("metrics", b"orders{version=\"v2\"} 25\n");
    let server = Prometheus::scraping(exporter.port(), "/files/metrics");
    let hook = Other::new(204);
    let rollout = format!(
        "rollout: {{ steps: [{{ share: 50%, hold: 1h }}, {{ share: 100%, hold: 1s }}], analysis: {{ warmup: 0s, min_requests: 10, \
         checks: [{{ metric: orders, min: 20, on_fail: pause, prometheus: {{ url: \"{}\", every: 1s, query: \
         'orders{{version=\"{{{{candidate}}}}\"}}' }} }}] }}, notify: [{{ webhook: \"http://127.0.0.1:{}/events\", events: [pause] }}] }}",
        server.url(),
        hook.upstream.port()
    );
    let gate = site(&v2, &v1, &rollout);
    under_traffic(&gate, || {
        eventually(PATIENCE, "there is traffic", || {
            gate.metric("rollgate_requests_total", &V2) > 50.0
        });
        // 25 is enough.
        thread::sleep(Duration::from_secs(2));
        assert_eq!(hook.upstream.count(), 0, "{:?}", hook.told());
        exporter.put_file("metrics", b"orders{version=\"v2\"} 5\n");
        eventually(PATIENCE, "it is paused", || !hook.told().is_empty());
        assert_eq!(hook.upstream.count(), 1);
    });
    let told = &hook.told()[0];
    assert_eq!(told["phase"], "paused", "{told}");
    assert!(told["reason"].as_str().unwrap().contains("orders is 5"), "{told}");
}
