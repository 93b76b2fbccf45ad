//! What a command sends, how it shows what came of it, and what it says when there is no answer.

use crate::asking::{
    ask, changed, finished, one_line_of_json, rollgate, run, service, state, status, unreachable, write,
};
use crate::fake::{Asked, Fake, Stream, answer, json, problem};
use crate::support::{Dam, Port};
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

#[test]
fn a_change_is_sent_and_its_outcome_shown() {
    let fake = Fake::unix(|_, stream| write(stream, changed("shop: v1=90 v2=10")));
    let exit = ask(
        &fake,
        &[
            "weights",
            "shop",
            "v1=90",
            "v2=10",
            "--reason",
            "why",
            "--if-generation",
            "7",
        ],
    );
    assert_eq!((exit.code, exit.stderr.as_str()), (Some(0), ""));
    assert_eq!(exit.stdout, "shop: v1=90 v2=10 (generation 8)\n");
    let asked = fake.asked_once();
    assert_eq!(
        (asked.method.as_str(), asked.target.as_str()),
        ("PUT", "/v1/services/shop/weights")
    );
    assert_eq!(asked.json(), json!({"weights": {"v1": 90, "v2": 10}, "reason": "why"}));
    assert_eq!(asked.head.get("if-match"), Some("\"7\""));
    assert_eq!(asked.head.get("content-type"), Some("application/json"));
    assert_eq!(asked.head.get("authorization"), None);
}

#[test]
fn programs_get_the_answer_as_it_is() {
    let body = "{\"generation\": 8,\n \"z\": 1, \"a\": [1.50]}";
    let fake = Fake::saying(200, "application/json", body);
    for arguments in [
        &["reload", "--json"][..],
        &["kill", "--all", "--json"],
        &["upgrade", "--json"],
    ] {
        let exit = ask(&fake, arguments);
        assert_eq!((exit.code, exit.stdout), (Some(0), body.replace('\n', " ") + "\n"));
    }
    let paths: Vec<String> = fake
        .asked()
        .iter()
        .map(|asked| format!("{} {}", asked.method, asked.target))
        .collect();
    assert_eq!(paths, ["POST /v1/config/reload", "PUT /v1/kill", "POST /v1/upgrade"]);
    // Options may stand before the command as well.
    let exit = run(&mut rollgate(&["--json", "--admin", &fake.address, "reload"]));
    assert_eq!((exit.code, exit.stdout), (Some(0), body.replace('\n', " ") + "\n"));
}

#[test]
fn a_refusal_exits_with_3_and_an_error_of_the_proxy_with_1() {
    for (status, code, word) in [
        (400, 3, "refused: "),
        (401, 3, "refused: "),
        (403, 3, "refused: "),
        (404, 3, "refused: "),
        (409, 3, "refused: "),
        (412, 3, "refused: "),
        (422, 3, "refused: "),
        (500, 1, "error: "),
        (503, 1, "error: "),
    ] {
        let fake = Fake::unix(move |_, stream| write(stream, problem(status, "it cannot be", Some("do this"))));
        let exit = ask(&fake, &["rollout", "start", "shop"]);
        assert_eq!((exit.code, exit.stdout.as_str()), (Some(code), ""), "{status}");
        assert!(
            exit.stderr
                .starts_with(&format!("{word}it cannot be\n  help: do this\n")),
            "{}",
            exit.stderr
        );
        let exit = ask(&fake, &["rollout", "start", "shop", "--json"]);
        assert_eq!((exit.code, exit.stderr.as_str()), (Some(code), ""), "{status}");
        assert_eq!(one_line_of_json(&exit.stdout)["status"], status);
    }
}

#[test]
fn sockets_that_lead_nowhere() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let address = |name: &str| format!("unix:{}", path(name).display());
    unreachable(
        &address("absent.sock"),
        &["status"],
        &["no socket at", "absent.sock: is rollgate running here?", "--admin says"],
    );
    drop(std::os::unix::net::UnixListener::bind(path("stale.sock")).unwrap());
    unreachable(
        &address("stale.sock"),
        &["status"],
        &["nobody listens", "has ended", "rollgate run"],
    );
    std::fs::write(path("file.sock"), "").unwrap();
    unreachable(&address("file.sock"), &["status"], &["is not a socket"]);
    unreachable(&address(&"long".repeat(40)), &["status"], &["107 bytes"]);
    let closed = Port::reserved();
    unreachable(
        &format!("http://127.0.0.1:{}", closed.number()),
        &["status"],
        &["nothing listens at http://127.0.0.1"],
    );
    unreachable("http://nowhere.invalid:9900", &["status"], &["nowhere.invalid:9900"]);
}

#[test]
fn a_kill_says_what_else_stops_the_canary() {
    unreachable(
        "unix:/nonexistent/x.sock",
        &["kill", "--all"],
        &["no socket", "`kill: true` in the file"],
    );
    let fake = Fake::saying(503, "application/problem+json", "{}");
    unreachable(&fake.address, &["kill", "shop"], &["`kill: true` in the file"]);
}

#[test]
fn who_may_not_use_the_socket_is_told_who_may() {
    let fake = Fake::unix(state);
    std::fs::set_permissions(fake.directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(fake.socket(), PermissionsExt::from_mode(0o000)).unwrap();
    // The administrator may use any socket, so he asks as somebody else.
    let as_somebody = |command: &mut Command| {
        let is_root = run(Command::new("id").arg("-u")).stdout == "0\n";
        if is_root {
            command.uid(65_534);
        }
        run(command)
    };
    let binary = tempfile::tempdir().unwrap();
    std::fs::set_permissions(binary.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let program = binary.path().join("rollgate");
    // Not by this process: a child of another test, begun meanwhile, would have the program open for writing.
    let copied = Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_rollgate"))
        .arg(&program)
        .status();
    assert!(copied.unwrap().success());
    let ask = || {
        as_somebody(
            Command::new(&program)
                .args(["status", "--admin", &fake.address])
                .current_dir("/"),
        )
    };
    let exit = ask();
    assert_eq!(exit.code, Some(4), "{}", exit.stderr);
    for words in [
        "permission denied",
        "it belongs to",
        "mode 0000",
        "you are",
        "socket_mode: 0660",
    ] {
        assert!(exit.stderr.contains(words), "{words}: {}", exit.stderr);
    }
    std::fs::set_permissions(fake.directory.path(), PermissionsExt::from_mode(0o000)).unwrap();
    let exit = ask();
    std::fs::set_permissions(fake.directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(exit.code, Some(4), "{}", exit.stderr);
    assert!(
        exit.stderr.contains("a directory on the way there is closed to"),
        "{}",
        exit.stderr
    );
}

#[test]
fn what_is_no_admin_api_is_called_so() {
    let html = |status: u16| answer(status, "text/html", "<html>");
    for (says, words) in [
        (html(200), "answers 200 with text/html: that is not the admin API"),
        (html(502), "answers 502 with text/html: that is not the admin API"),
        (answer(404, "text/plain", "no route"), "answers 404 with text/plain"),
        ("SSH-2.0-OpenSSH_9.2p1\r\n".to_owned(), "does not answer in HTTP"),
        (
            "\u{15}\u{3}\u{3}\0\u{2}\u{2}\u{46}".to_owned(),
            "does not answer in HTTP",
        ),
        (String::new(), "closed the connection before the answer was whole"),
        (
            json(&status(7))[..90].to_owned(),
            "closed the connection before the answer was whole",
        ),
    ] {
        let said = says.clone();
        let fake = Fake::tcp(move |_, stream| write(stream, &said));
        unreachable(&fake.address, &["status"], &[words]);
    }
}

#[test]
fn a_change_whose_answer_is_lost_may_have_been_made() {
    let fake = Fake::unix(|_, _| {});
    unreachable(
        &fake.address,
        &["unkill", "shop"],
        &["whether the change was made is not known"],
    );
    let exit = ask(&fake, &["status"]);
    assert!(!exit.stderr.contains("whether the change"), "{}", exit.stderr);
}

#[test]
fn who_waits_for_a_kill_is_told_what_else_there_is() {
    let dam = Dam::default();
    let fake = Fake::unix({
        let dam = dam.clone();
        move |_, stream| {
            dam.wait();
            write(stream, changed("all services: killed"));
        }
    });
    let mut command = rollgate(&["kill", "--all", "--admin", &fake.address]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut noted = String::new();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    while !noted.contains("up to 30 s; without the socket: `kill: true`") {
        assert!(stderr.read_line(&mut noted).unwrap() > 0, "{noted}");
    }
    assert!(noted.contains("no answer of unix:"), "{noted}");
    dam.open();
    let exit = finished(child.wait_with_output().unwrap());
    assert_eq!(
        (exit.code, exit.stdout.as_str()),
        (Some(0), "all services: killed (generation 8)\n")
    );
    // A queue that nobody empties.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("full.sock");
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    socket.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    socket.listen(0).unwrap();
    let waiting = std::os::unix::net::UnixStream::connect(&path).unwrap();
    unreachable(
        &format!("unix:{}", path.display()),
        &["kill", "--all"],
        &["takes no connection within 2 s", "stuck or stopped"],
    );
    drop(waiting);
}

#[test]
fn an_answer_without_end_is_given_up() {
    let fake = Fake::unix(|_, stream| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n";
        let _ = stream.write_all(head.as_bytes());
        while stream.write_all(&[b' '; 65_536]).is_ok() {}
    });
    let exit = ask(&fake, &["status"]);
    assert_eq!(exit.code, Some(1));
    assert!(exit.stderr.contains("is too large"), "{}", exit.stderr);
}

#[test]
fn tokens_are_sent_over_tcp_alone_and_never_shown() {
    let refused = |_: &Asked, stream: &mut dyn Stream| write(stream, problem(401, "no or wrong token", None));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "s3cret\n").unwrap();
    let file = file.to_str().unwrap();
    let tcp = Fake::tcp(refused);
    let exit = ask(&tcp, &["kill", "--all"]);
    assert_eq!(exit.code, Some(3));
    assert!(
        exit.stderr.contains("`--token-file FILE`, ROLLGATE_TOKEN_FILE"),
        "{}",
        exit.stderr
    );
    let exit = ask(&tcp, &["kill", "--all", "--token-file", file]);
    assert_eq!(exit.code, Some(3));
    assert!(
        exit.stderr.contains("the token that was sent is not one"),
        "{}",
        exit.stderr
    );
    assert!(!exit.stderr.contains("s3cret") && !exit.stdout.contains("s3cret"));
    for (name, value) in [("ROLLGATE_TOKEN", "s3cret"), ("ROLLGATE_TOKEN_FILE", file)] {
        run(rollgate(&["status", "--admin", &tcp.address]).env(name, value));
    }
    let sent: Vec<_> = tcp
        .asked()
        .iter()
        .map(|asked| asked.head.get("authorization").map(str::to_owned))
        .collect();
    let bearer = Some("Bearer s3cret".to_owned());
    assert_eq!(sent, [None, bearer.clone(), bearer.clone(), bearer]);
    let port = tcp.address.strip_prefix("http://").unwrap();
    assert!(tcp.asked().iter().all(|asked| asked.head.get("host") == Some(port)));
    let unix = Fake::unix(refused);
    ask(&unix, &["kill", "--all", "--token-file", file]);
    assert_eq!(unix.asked_once().head.get("authorization"), None);
    let exit = ask(&tcp, &["status", "--token-file", "/nonexistent"]);
    assert_eq!(exit.code, Some(1));
    assert!(exit.stderr.contains("/nonexistent cannot be read"), "{}", exit.stderr);
}

#[test]
fn the_proxy_is_found_by_its_file_its_environment_or_its_usual_place() {
    let fake = Fake::unix(state);
    let directory = fake.directory.path();
    let file = directory.join("rollgate.yaml");
    // Half of it is written, and the rest is wrong.
    std::fs::write(&file, "admin: { socket: admin.sock }\nservices:\n  - name: [\n").unwrap();
    let finds = |command: &mut Command| {
        let exit = run(command);
        assert_eq!((exit.code, exit.stderr.as_str()), (Some(0), ""));
    };
    finds(rollgate(&["status", "--config"]).arg(&file));
    finds(rollgate(&["status"]).env("ROLLGATE_CONFIG", &file));
    finds(rollgate(&["status"]).env("ROLLGATE_ADMIN", &fake.address));
    finds(rollgate(&["status", "--admin", "unix:admin.sock"]).current_dir(directory));
    std::fs::create_dir(directory.join("run")).unwrap();
    std::os::unix::fs::symlink(fake.socket(), directory.join("run/rollgate.sock")).unwrap();
    finds(rollgate(&["status"]).current_dir(directory));
    assert_eq!(fake.asked().len(), 5);
    let exit = run(rollgate(&["status"]).current_dir("/"));
    assert_eq!(exit.code, Some(4));
    assert!(
        exit.stderr
            .contains("no socket at run/rollgate.sock nor at /run/rollgate/"),
        "{}",
        exit.stderr
    );
}

#[test]
fn a_wrong_command_line_exits_with_2_and_asks_nobody() {
    let fake = Fake::unix(state);
    for arguments in [
        &["weights", "shop"][..],
        &["weights", "shop", "v1=1", "v1=2"],
        &["kill"],
        &["kill", "shop", "--all"],
        &["rollout", "begin", "shop"],
        &["events", "--follow", "--after", "1", "--limit", "2"],
        &["status", "shop", "search"],
    ] {
        let exit = ask(&fake, arguments);
        assert_eq!((exit.code, exit.stdout.as_str()), (Some(2), ""), "{arguments:?}");
    }
    assert!(fake.asked().is_empty());
    let exit = run(&mut rollgate(&["--admin", &fake.address, "check", "x.yaml"]));
    assert_eq!(exit.code, Some(2));
    assert!(exit.stderr.contains("--admin would do nothing"), "{}", exit.stderr);
    assert_eq!(run(&mut rollgate(&["status", "--admin", "nowhere"])).code, Some(2));
}

#[test]
fn status_of_all_and_of_one() {
    let fake = Fake::unix(state);
    let exit = ask(&fake, &["status"]);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert!(
        exit.stdout.contains("generation 7, ready\n") && exit.stdout.contains("\nsearch "),
        "{}",
        exit.stdout
    );
    assert!(!exit.stdout.contains('\u{1b}'), "colours without a terminal");
    let exit = ask(&fake, &["status", "shop"]);
    assert!(
        exit.stdout.contains("ENDPOINT") && !exit.stdout.contains("search"),
        "{}",
        exit.stdout
    );
    let exit = ask(&fake, &["status", "shpo"]);
    assert_eq!((exit.code, exit.stdout.as_str()), (Some(3), ""));
    assert!(exit.stderr.contains("help: did you mean `shop`?"), "{}", exit.stderr);
    assert_eq!(one_line_of_json(&ask(&fake, &["status", "--json"]).stdout), status(7));
    assert_eq!(
        one_line_of_json(&ask(&fake, &["status", "shop", "--json"]).stdout),
        service("shop")
    );
}
