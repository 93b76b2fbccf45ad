//! Every file in `config/` is right.

use rollgate::config::snapshot::LogPath;
use rollgate::control::load::load;
use std::path::{Path, PathBuf};

fn examples() -> std::io::Result<Vec<PathBuf>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut files = std::fs::read_dir(directory)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    Ok(files)
}

#[test]
fn every_example_loads_by_itself_and_would_run() {
    let files = examples().unwrap();
    assert!(files.iter().any(|file| file.ends_with("full.yaml")), "{files:?}");
    for file in files.iter().filter(|file| !file.ends_with("full.yaml")) {
        let snapshot = load(file).unwrap_or_else(|error| panic!("{error}"));
        let refused = snapshot.unsupported.iter().find(|warning| warning.refuses_to_run);
        assert_eq!(refused, None, "{}", file.display());
    }
}

#[test]
fn the_full_example_loads_beside_the_files_it_names() {
    let directory = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/full.yaml");
    let file = directory.path().join("full.yaml");
    std::fs::copy(source, &file).unwrap();

    let error = load(&file).unwrap_err();
    let missing: Vec<&str> = error.problems().iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(
        missing,
        [
            "listeners[1].tls.certificates[0].cert",
            "listeners[1].tls.certificates[0].key",
            "admin.token_file"
        ]
    );

    std::fs::create_dir(directory.path().join("certs")).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(["shop.example.com".to_owned()]).unwrap();
    let certificate = certificate.self_signed(&key).unwrap();
    for (name, text) in [
        ("certs/shop.pem", certificate.pem()),
        ("certs/shop.key", key.serialize_pem()),
        ("admin.token", "a-token-of-sixteen-or-more".to_owned()),
    ] {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let snapshot = load(&file).unwrap_or_else(|error| panic!("{error}"));
    let warned: Vec<&str> = snapshot
        .unsupported
        .iter()
        .map(|warning| warning.path.as_str())
        .collect();
    assert_eq!(warned, ["tracing"]);
}

/// The value of a key of the unit.
fn of_unit<'u>(unit: &'u str, key: &str) -> Option<&'u str> {
    unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
}

#[test]
fn the_unit_of_systemd_fits_its_file() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let unit = std::fs::read_to_string(config.join("rollgate.service")).unwrap();
    let snapshot = load(&config.join("systemd.yaml")).unwrap();
    let stop: u64 = of_unit(&unit, "TimeoutStopSec").unwrap().parse().unwrap();
    assert!(stop > (snapshot.limits.drain_delay + snapshot.limits.drain_timeout).as_secs());
    let descriptors: usize = of_unit(&unit, "LimitNOFILE").unwrap().parse().unwrap();
    assert!((descriptors - 384) / 3 >= snapshot.limits.max_connections);
    // What the file writes to is what the unit makes.
    let directory = |kind: &str, key: &str| Path::new(kind).join(of_unit(&unit, key).unwrap());
    assert_eq!(snapshot.state_dir, directory("/var/lib", "StateDirectory"));
    let socket = snapshot.admin.socket.unwrap();
    assert_eq!(socket.parent().unwrap(), directory("/run", "RuntimeDirectory"));
    let Some(LogPath::File(log)) = snapshot.access_log.map(|log| log.path) else {
        panic!("no access log");
    };
    assert_eq!(log.parent().unwrap(), directory("/var/log", "LogsDirectory"));
    let port = snapshot.listeners[0].address.port();
    assert!(port >= 1024 || of_unit(&unit, "AmbientCapabilities") == Some("CAP_NET_BIND_SERVICE"));
}
