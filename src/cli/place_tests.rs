use super::*;
use crate::cli::failure::Exit;
use tempfile::TempDir;

fn parsed(text: &str) -> Result<Place, String> {
    text.parse()
}

fn http(host: &str, port: u16) -> Place {
    Place::Http {
        host: host.to_owned(),
        port,
    }
}

/// A directory with `rollgate.yaml` of this text.
fn with_file(text: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rollgate.yaml");
    std::fs::write(&file, text).unwrap();
    (directory, file)
}

fn by_file(text: &str) -> Result<Found, Failure> {
    let (_directory, file) = with_file(text);
    find(None, Some(&file), &Environment::default(), &[])
}

#[test]
fn addresses() {
    for (text, place) in [
        ("unix:run/rollgate.sock", Place::Unix("run/rollgate.sock".into())),
        ("unix:///run/r.sock", Place::Unix("/run/r.sock".into())),
        ("http://127.0.0.1:9900", http("127.0.0.1", 9900)),
        ("http://gate.example:9900/", http("gate.example", 9900)),
        ("http://[::1]:9900", http("::1", 9900)),
        ("http://gate.example", http("gate.example", 80)),
    ] {
        assert_eq!(parsed(text).as_ref(), Ok(&place), "{text}");
        let shown = place.to_string();
        assert_eq!(parsed(&shown), Ok(place), "{shown}");
    }
    for (text, words) in [
        ("unix:", "a path"),
        ("https://127.0.0.1:9900", "TLS"),
        ("127.0.0.1:9900", "`http://127.0.0.1:9900`"),
        ("run/rollgate.sock", "`unix:run/rollgate.sock`"),
        ("http://user:secret@h:1", "nothing else"),
        ("http://h:1/metrics", "nothing else"),
        ("http://h:1/?x", "nothing else"),
        ("http://h:", "HOST:PORT"),
        ("http://", ""),
        ("http://h:99999", ""),
        ("", "unix:PATH"),
    ] {
        let error = parsed(text).unwrap_err();
        assert!(error.contains(words), "{text}: {error}");
    }
}

#[test]
fn what_was_typed_wins_over_the_environment_and_both_over_the_defaults() {
    let (directory, file) = with_file("admin: { socket: of/file.sock }\n");
    let default = directory.path().join("default.sock");
    std::fs::write(&default, "").unwrap();
    let defaults = [Path::new("/nonexistent/rollgate.sock"), default.as_path()];
    let environment = Environment {
        admin: Some("unix:/of/environment.sock".to_owned()),
        config: Some(file.clone()),
        ..Environment::default()
    };
    let only_config = Environment {
        admin: None,
        ..environment.clone()
    };
    let nothing = Environment::default();
    let typed = Place::Unix("typed.sock".into());
    let of_file = directory.path().join("of/file.sock");
    for (admin, config, environment, path, said_by) in [
        (
            Some(&typed),
            Some(&file),
            &environment,
            Path::new("typed.sock"),
            "--admin",
        ),
        (None, Some(&file), &environment, &of_file, "admin.socket of"),
        (
            None,
            None,
            &environment,
            Path::new("/of/environment.sock"),
            "ROLLGATE_ADMIN",
        ),
        (None, None, &only_config, &of_file, "admin.socket of"),
        (None, None, &nothing, &default, "the default"),
    ] {
        let found = find(admin, config.map(PathBuf::as_path), environment, &defaults).unwrap();
        assert_eq!(found.place, Place::Unix(path.to_owned()));
        assert!(found.said_by.starts_with(said_by), "{}", found.said_by);
        assert_eq!(found.note, None);
    }
    let failure = find(None, None, &nothing, &defaults[..1]).unwrap_err();
    assert_eq!(failure.exit, Exit::Unreachable);
    assert!(failure.detail.contains("/nonexistent/rollgate.sock"), "{failure:?}");
    let wrong = Environment {
        admin: Some("gate:1".to_owned()),
        ..Environment::default()
    };
    assert_eq!(find(None, None, &wrong, &[]).unwrap_err().exit, Exit::Usage);
}

#[test]
fn a_file_says_where_its_proxy_is() {
    let (directory, file) = with_file("admin: { address: \"0.0.0.0:9900\", token_file: admin.token }\n");
    let found = find(None, Some(&file), &Environment::default(), &[]).unwrap();
    assert_eq!(found.place, http("127.0.0.1", 9900));
    assert_eq!(found.token_file, Some(directory.path().join("admin.token")));
    assert_eq!(by_file("admin: { address: \"[::]:1\" }").unwrap().place, http("::1", 1));
    assert_eq!(
        by_file("admin: { address: \"192.0.2.1:1\" }").unwrap().place,
        http("192.0.2.1", 1)
    );
    for (text, words) in [
        ("listeners: []\n", "neither"),
        ("admin: [socket]\n", "neither"),
        ("admin: { address: \"127.0.0.1:0\" }\n", "port 0"),
        ("admin: { address: localhost }\n", "not an IP address"),
    ] {
        let failure = by_file(text).unwrap_err();
        assert_eq!(failure.exit, Exit::Failed);
        assert!(failure.detail.contains(words), "{text}: {failure:?}");
    }
    let absent = find(None, Some(Path::new("/nonexistent.yaml")), &Environment::default(), &[]).unwrap_err();
    assert_eq!(absent.exit, Exit::Failed);
    assert!(absent.detail.contains("/nonexistent.yaml: No such file"), "{absent:?}");
}

/// The proxy runs with the last good text, and has to be reached while the file is broken.
#[test]
fn a_broken_file_still_leads_to_its_proxy() {
    for text in [
        "admin: { socket: a.sock, unknown: 1 }\nservices: 5\n",
        "admin:\n  socket: a.sock\nservices:\n  - name: [\n",
        "admin:\n  socket: a.sock\nservices:\n\t- x: 1\n",
        "services: [\nadmin:\n  # where\n\n  socket: a.sock\nlimits: }\n",
    ] {
        let (directory, file) = with_file(text);
        let found = find(None, Some(&file), &Environment::default(), &[]).unwrap();
        assert_eq!(found.place, Place::Unix(directory.path().join("a.sock")), "{text}");
    }
    let (directory, file) = with_file("services: [\nadmin:\n  socket: [\n");
    let default = directory.path().join("default.sock");
    std::fs::write(&default, "").unwrap();
    let found = find(None, Some(&file), &Environment::default(), &[&default]).unwrap();
    assert_eq!(found.place, Place::Unix(default));
    assert!(found.note.unwrap().contains("rollgate.yaml is no YAML"));
    let failure = find(None, Some(&file), &Environment::default(), &[]).unwrap_err();
    assert!(failure.help.iter().any(|help| help.contains("no YAML")), "{failure:?}");
}

#[test]
fn tokens() {
    let directory = tempfile::tempdir().unwrap();
    let written = |name: &str, text: &str| {
        let file = directory.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let of_config = written("config.token", "of-config\n");
    let of_environment = written("environment.token", "of-environment\n");
    let typed = written("typed.token", " typed\r\n");
    let found = Found {
        place: http("127.0.0.1", 1),
        said_by: String::new(),
        token_file: Some(of_config),
        note: None,
    };
    let empty = Environment::default();
    let value = Environment {
        token: Some("of-variable".to_owned()),
        ..Environment::default()
    };
    let both = Environment {
        token_file: Some(of_environment),
        ..value.clone()
    };
    for (file, environment, expected) in [
        (Some(&typed), &both, "Bearer typed"),
        (None, &both, "Bearer of-environment"),
        (None, &value, "Bearer of-variable"),
        (None, &empty, "Bearer of-config"),
    ] {
        let token = token(file.map(PathBuf::as_path), environment, &found).unwrap().unwrap();
        assert_eq!(token.bearer(), expected);
        assert!(!format!("{token:?}").contains("of-"), "{token:?}");
    }
    let unix = Found {
        place: Place::Unix("x".into()),
        ..found.clone()
    };
    assert_eq!(token(Some(&typed), &both, &unix), Ok(None));
    let unreadable = Found {
        token_file: Some("/nonexistent".into()),
        ..found.clone()
    };
    assert_eq!(token(None, &empty, &unreadable), Ok(None));
    for bad in [
        written("empty", "\n"),
        written("words", "two words"),
        written("long", &"x".repeat(MAX_TOKEN_BYTES + 1)),
        "/nonexistent".into(),
    ] {
        let failure = token(Some(&bad), &empty, &found).unwrap_err();
        assert_eq!(failure.exit, Exit::Failed);
        assert!(failure.detail.contains(bad.to_str().unwrap()), "{failure:?}");
    }
}
