//! Against gates that answer in every way they can, and one that behaves as Flagger's load tester does.

use super::*;
use crate::control::fixture::{PATIENCE, Receiver, Reply, nobody, status, with_header};
use serde_json::json;
use std::time::Duration;
use tokio::time::timeout;

fn gate(before: Before, webhook: Url) -> Gate {
    Gate { before, webhook }
}

fn question(gate: usize, window: u64) -> Question {
    Question {
        service: "checkout".into(),
        candidate: "v2".into(),
        gate,
        window,
        attempt: 3,
        step: 2,
        share: Share::from_thousandths(12_500),
    }
}

/// The next answers, once there are any.
async fn next(gates: &Gates) -> Vec<Answered> {
    timeout(PATIENCE, gates.answered()).await.expect("an answer comes");
    gates.answers()
}

async fn answer_to(gates: &Gates, webhook: Url) -> Answer {
    gates.ask(&gate(Before::Step, webhook), question(0, 1));
    let [answered] = &next(gates).await[..] else {
        panic!("one answer to one question");
    };
    answered.answer.clone()
}

#[tokio::test]
async fn a_gate_is_asked_as_flagger_asks() {
    let receiver = Receiver::new(status("200 OK", "")).await;
    let gates = Gates::new(HttpClient::new());
    for (index, (before, phase, word)) in [
        (Before::Start, "Waiting", "start"),
        (Before::Step, "Progressing", "step"),
        (Before::Promote, "Progressing", "promote"),
    ]
    .into_iter()
    .enumerate()
    {
        gates.ask(&gate(before, receiver.url("/gate/check")), question(index, 7));
        let expected = Answered {
            service: "checkout".into(),
            gate: index,
            window: 7,
            answer: Answer::Yes,
        };
        assert_eq!(next(&gates).await, [expected]);
        let received = &receiver.received()[index];
        assert_eq!(received.line, "POST /gate/check HTTP/1.1");
        assert_eq!(received.header("content-type"), Some("application/json"));
        let told = received.json();
        let checksum = told["checksum"].as_str().unwrap();
        assert!(checksum.len() == 16 && checksum.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let metadata = json!({ "before": word, "candidate": "v2", "attempt": "3", "step": "2", "share": "12.5" });
        let payload = json!({
            "name": "checkout", "namespace": "rollgate", "phase": phase, "checksum": checksum, "metadata": metadata
        });
        assert_eq!(told, payload);
    }
}

#[test]
fn the_checksum_is_of_one_attempt_of_one_candidate() {
    let one = checksum(&question(0, 1));
    let later = Question {
        step: 3,
        window: 9,
        gate: 4,
        share: Share::WHOLE,
        ..question(0, 1)
    };
    assert_eq!(checksum(&later), one);
    let change: [fn(&mut Question); 3] = [
        |question| question.service = "cart".into(),
        |question| question.candidate = "v3".into(),
        |question| question.attempt = 4,
    ];
    for change in change {
        let mut other = question(0, 1);
        change(&mut other);
        assert_ne!(checksum(&other), one, "{other:?}");
    }
}

#[tokio::test]
async fn only_a_success_is_a_yes_and_only_a_refusal_is_a_no() {
    let receiver = Receiver::new(Reply::Silence).await;
    let gates = Gates::new(HttpClient::new());
    let yes = ["200 OK", "202 Accepted", "204 No Content"];
    let no = ["400 Bad Request", "403 Forbidden", "404 Not Found"];
    let neither = [
        "408 Request Timeout",
        "429 Too Many Requests",
        "500 Oh",
        "503 Service Unavailable",
    ];
    for line in yes {
        receiver.reply(status(line, ""));
        assert_eq!(answer_to(&gates, receiver.url("/")).await, Answer::Yes, "{line}");
    }
    for line in no {
        receiver.reply(status(line, "not while\nit is Friday"));
        let said = format!("not while it is Friday ({})", &line[..3]);
        assert_eq!(answer_to(&gates, receiver.url("/")).await, Answer::No(said));
    }
    for line in neither {
        receiver.reply(status(line, ""));
        let said = format!("it answers {}", &line[..3]);
        assert_eq!(answer_to(&gates, receiver.url("/")).await, Answer::Error(said));
    }
    receiver.reply(with_header("302 Found", "location: /yes", ""));
    let said = "it answers 302; redirects are not followed".to_owned();
    assert_eq!(answer_to(&gates, receiver.url("/")).await, Answer::Error(said));
}

#[tokio::test]
async fn a_gate_that_does_not_answer_is_no_yes() {
    let receiver = Receiver::new(Reply::Silence).await;
    let (patient, hasty) = (Gates::new(HttpClient::new()), Gates::new(HttpClient::hasty()));
    let nobody = nobody();
    let Answer::Error(said) = answer_to(&patient, nobody.url("/")).await else {
        panic!("nobody has answered");
    };
    assert!(said.starts_with("no connection: "), "{said}");
    let cut = Reply::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nye".to_vec());
    for (gates, reply, said) in [
        (&hasty, Reply::Silence, "no answer within 0.3 s"),
        (&hasty, Reply::Trickle, "no answer within 0.3 s"),
        (&patient, Reply::Endless, "the answer is larger than 64 KiB"),
        (&patient, cut, "no valid answer: "),
    ] {
        receiver.reply(reply);
        let Answer::Error(told) = answer_to(gates, receiver.url("/")).await else {
            panic!("half a yes is none");
        };
        assert!(told.starts_with(said), "{told}");
    }
}

#[tokio::test]
async fn who_asks_does_not_wait_and_the_same_is_not_asked_twice_at_once() {
    let slow = Reply::Slow(Duration::from_millis(200), b"HTTP/1.1 200 OK\r\n\r\n".to_vec());
    let receiver = Receiver::new(slow).await;
    let gates = Gates::new(HttpClient::new());
    let gate = gate(Before::Promote, receiver.url("/"));
    for _ in 0..100 {
        gates.ask(&gate, question(0, 1));
        gates.ask(&gate, question(1, 1));
    }
    // Nothing else has run on this thread meanwhile: nobody can have answered.
    assert_eq!((receiver.received().len(), gates.answers()), (0, Vec::new()));
    let mut answers = next(&gates).await;
    if answers.len() < 2 {
        answers.extend(next(&gates).await);
    }
    answers.sort_by_key(|answered| answered.gate);
    let positions: Vec<_> = answers.iter().map(|answered| answered.gate).collect();
    assert_eq!(positions, [0, 1]);
    assert_eq!(receiver.received().len(), 2);
    // Another time it is asked again.
    gates.ask(&gate, question(0, 1));
    assert_eq!(next(&gates).await.len(), 1);
    assert_eq!(receiver.received().len(), 3);
}

#[tokio::test]
async fn a_later_question_ends_the_earlier_one() {
    let receiver = Receiver::new(Reply::Silence).await;
    let gates = Gates::new(HttpClient::new());
    let gate = gate(Before::Step, receiver.url("/"));
    gates.ask(&gate, question(0, 1));
    receiver.after(1).await;
    receiver.reply(status("200 OK", ""));
    gates.ask(&gate, question(0, 2));
    let answers = next(&gates).await;
    assert_eq!(answers.iter().map(|answered| answered.window).collect::<Vec<_>>(), [2]);
    assert!(gates.desk.inner().asked.is_empty());
}

#[tokio::test]
async fn an_answer_that_was_not_fetched_does_not_outlive_the_next_question() {
    let receiver = Receiver::new(status("200 OK", "")).await;
    let gates = Gates::new(HttpClient::new());
    let gate = gate(Before::Step, receiver.url("/"));
    gates.ask(&gate, question(0, 1));
    timeout(PATIENCE, gates.answered()).await.unwrap();
    receiver.reply(status("403 Forbidden", ""));
    gates.ask(&gate, question(0, 2));
    let answers = next(&gates).await;
    assert_eq!(answers.len(), 1);
    assert_eq!(
        (answers[0].window, &answers[0].answer),
        (2, &Answer::No("it answers 403".to_owned()))
    );
}

/// <https://github.com/fluxcd/flagger/blob/main/pkg/loadtester/gate.go>: `check` says 200 for a gate that is open and 403 for
/// one that is closed, by the name and namespace of the payload.
#[tokio::test]
async fn a_gate_of_flaggers_load_tester_opens_and_closes() {
    let receiver = Receiver::new(status("403 Forbidden", "")).await;
    let gates = Gates::new(HttpClient::new());
    let no = Answer::No("it answers 403".to_owned());
    assert_eq!(answer_to(&gates, receiver.url("/gate/check")).await, no);
    receiver.reply(status("200 OK", ""));
    assert_eq!(answer_to(&gates, receiver.url("/gate/check")).await, Answer::Yes);
    for received in receiver.received() {
        let told = received.json();
        assert_eq!(
            (&told["name"], &told["namespace"]),
            (&json!("checkout"), &json!("rollgate"))
        );
    }
}
