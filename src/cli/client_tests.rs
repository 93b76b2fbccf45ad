use super::*;

fn client(place: &str) -> Client {
    Client {
        found: Found {
            place: place.parse().unwrap(),
            said_by: "--admin".to_owned(),
            token_file: None,
            note: None,
        },
        token: None,
    }
}

fn judge_at(place: &str, status: u16, content_type: &str, body: &str) -> Result<Answer, Failure> {
    judged(
        StatusCode::from_u16(status).unwrap(),
        content_type,
        body.to_owned(),
        &client(place),
    )
}

fn judge(status: u16, content_type: &str, body: &str) -> Result<Answer, Failure> {
    judge_at("http://127.0.0.1:9900", status, content_type, body)
}

#[test]
fn only_the_api_is_believed() {
    assert_eq!(judge(200, "application/json", "{}").unwrap().body, "{}");
    for (status, content_type, body) in [
        (200, "text/html", "<html>"),
        (404, "text/plain", "no route"),
        (502, "", ""),
        (404, "application/problem+json", "{}"),
        (403, "application/json", "{}"),
    ] {
        let failure = judge(status, content_type, body).unwrap_err();
        assert_eq!(failure.exit, Exit::Unreachable, "{content_type}");
        assert!(failure.detail.contains("not the admin API"), "{failure:?}");
        assert!(failure.detail.contains(&status.to_string()), "{failure:?}");
    }
}

#[test]
fn what_to_do_about_a_missing_permission() {
    let problem_at = |place: &str, status: u16| {
        let body = format!(r#"{{"type":"about:blank","title":"T","status":{status},"detail":"no"}}"#);
        judge_at(place, status, "application/problem+json", &body).unwrap_err()
    };
    let problem = |status: u16| problem_at("http://127.0.0.1:9900", status);
    assert_eq!(problem_at("unix:/run/x.sock", 403).help, Vec::<String>::new());
    assert!(problem(401).help[0].contains("--token-file"));
    let body = r#"{"type":"urn:rollgate:problem:not-found","title":"T","status":404,"detail":"no","help":"see"}"#;
    let unknown = judge(404, "application/problem+json", body).unwrap_err();
    assert!(
        unknown.help.len() == 1 && unknown.help[0].contains("does not know this command"),
        "{unknown:?}"
    );
    assert!(problem(403).help[0].contains("the socket"));
    assert_eq!(problem(409).help, Vec::<String>::new());
    assert!(problem(404).is_not_found() && !problem(409).is_not_found());
    assert_eq!(
        [401, 403, 409, 412, 422].map(|status| problem(status).exit),
        [Exit::Refused; 5]
    );
}

#[test]
fn an_answer_that_is_not_understood_is_a_failure() {
    let answer = Answer { body: "[1]".to_owned() };
    let failure = answer.parse::<crate::admin::api::Changed>().unwrap_err();
    assert_eq!(failure.exit, Exit::Failed);
    assert!(failure.help[0].contains("another version"), "{failure:?}");
}

#[test]
fn names_stay_inside_their_segment() {
    assert_eq!(segment("checkout-v1.2_x~"), "checkout-v1.2_x~");
    assert_eq!(segment("../a b?c#é"), "..%2Fa%20b%3Fc%23%C3%A9");
}

#[test]
fn a_silent_proxy_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("silent.sock");
    // It takes connections, in the kernel's queue, and reads nothing.
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let client = client(&format!("unix:{}", path.display()));
    let request = Request::send(Method::PUT, "/v1/kill", &serde_json::json!({})).within(Duration::from_millis(20));
    let failure = client.call(&request).unwrap_err();
    assert_eq!(failure.exit, Exit::Unreachable);
    assert!(failure.detail.contains("does not answer within 0 s"), "{failure:?}");
    assert!(
        failure.help.iter().any(|help| help.contains("is not known")),
        "{failure:?}"
    );
}
