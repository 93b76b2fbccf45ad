use super::*;
use crate::cli::print::plain;
use clap::Parser;
use hyper::header::IF_MATCH;
use serde_json::{Value, json};

#[derive(Debug, Parser)]
enum Cli {
    Weights(Weights),
    Kill(Kill),
    Unkill(Kill),
    Rollout(Rollout),
    Reload(Process),
}

/// The request that a command line becomes; its kind of error if it is none.
fn request(line: &str) -> Result<Request, String> {
    let words = ["rollgate"].into_iter().chain(line.split(' '));
    match Cli::try_parse_from(words).map_err(|error| error.kind().to_string())? {
        Cli::Weights(weights) => weights.request().map_err(|failure| failure.detail),
        Cli::Kill(kill) => Ok(kill.kill_request()),
        Cli::Unkill(kill) => Ok(kill.unkill_request()),
        Cli::Rollout(rollout) => Ok(rollout.request()),
        Cli::Reload(process) => Ok(process.request("/v1/config/reload")),
    }
}

#[test]
fn each_command_is_one_request() {
    for (line, method, path, body) in [
        (
            "weights shop v1=90 v2=10 --reason why",
            Method::PUT,
            "/v1/services/shop/weights",
            json!({"weights": {"v1": 90, "v2": 10}, "reason": "why"}),
        ),
        (
            "weights shop v1=1",
            Method::PUT,
            "/v1/services/shop/weights",
            json!({"weights": {"v1": 1}}),
        ),
        (
            "kill shop -r bad",
            Method::PUT,
            "/v1/services/shop/kill",
            json!({"reason": "bad"}),
        ),
        (
            "kill a/b",
            Method::PUT,
            "/v1/services/a%2Fb/kill",
            json!({"reason": "no reason given"}),
        ),
        (
            "kill --all",
            Method::PUT,
            "/v1/kill",
            json!({"reason": "no reason given"}),
        ),
        ("unkill --all", Method::DELETE, "/v1/kill", json!({})),
        ("unkill shop", Method::DELETE, "/v1/services/shop/kill", json!({})),
        ("reload", Method::POST, "/v1/config/reload", json!({})),
    ] {
        let request = request(line).unwrap();
        assert_eq!((&request.method, request.path.as_str()), (&method, path), "{line}");
        let sent: Value = serde_json::from_str(&request.body.unwrap()).unwrap();
        assert_eq!(sent, body, "{line}");
        assert_eq!(request.headers, [], "{line}");
    }
    for verb in ["start", "pause", "resume", "approve", "promote", "rollback", "retry"] {
        let request = request(&format!("rollout {verb} shop")).unwrap();
        assert_eq!(request.method, Method::POST);
        assert_eq!(request.path, format!("/v1/services/shop/rollout/{verb}"));
    }
}

#[test]
fn a_generation_is_a_condition() {
    for line in [
        "weights shop v1=1",
        "kill shop",
        "unkill shop",
        "rollout start shop",
        "reload",
    ] {
        let request = request(&format!("{line} --if-generation 12")).unwrap();
        assert_eq!(request.headers, [(IF_MATCH, "\"12\"".to_owned())], "{line}");
    }
}

#[test]
fn what_makes_no_sense_is_not_sent() {
    for line in [
        "weights shop",
        "weights shop v1",
        "weights shop =1",
        "weights shop v1=-1",
        "weights shop v1=10%",
        "weights shop v1=1 v1=2",
        "kill",
        "kill shop --all",
        "unkill",
        "rollout shop start",
        "rollout start",
    ] {
        assert!(request(line).is_err(), "{line}");
    }
}

#[test]
fn who_kills_is_told_soon_what_else_there_is() {
    assert_eq!(request("kill --all").unwrap().meanwhile, Some(WITHOUT_SOCKET));
    assert_eq!(request("unkill --all").unwrap().meanwhile, None);
}

fn shown(changed: &Value) -> String {
    let answer = Answer {
        body: changed.to_string(),
    };
    plain(&rendered(&answer).unwrap())
}

#[test]
fn what_came_of_it() {
    let all = json!({"generation": 12, "changed": true, "message": "shop: killed", "durable": true});
    assert_eq!(shown(&all), "shop: killed (generation 12)\n");
    let nothing = json!({"generation": 12, "changed": false, "message": "shop: not killed", "durable": true});
    assert_eq!(shown(&nothing), "shop: not killed (generation 12, nothing changed)\n");
    let lacking = json!({"generation": 1, "changed": true, "message": "the file is in force", "durable": false,
                         "not_durable": "disk full", "restart_required": ["threads", "admin.socket"]});
    assert_eq!(
        shown(&lacking),
        "the file is in force (generation 1)\nwarning: it holds, but would not survive a crash yet: disk full\nwarning: \
         only after a restart: threads, admin.socket\n"
    );
}
