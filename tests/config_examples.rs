//! Every file in `config/` is right.

use rollgate::analysis::Latencies;
use rollgate::config::snapshot::LogPath;
use rollgate::control::load::load;
use rollgate::rollout::Share;
use rollgate::rollout::forecast::{Assumed, Of, forecast};
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
            "listeners[1].tls.client_ca",
            "admin.token_file"
        ]
    );

    std::fs::create_dir(directory.path().join("certs")).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(["shop.example.com".to_owned()]).unwrap();
    let certificate = certificate.self_signed(&key).unwrap();
    for (name, text) in [
        ("certs/shop.pem", certificate.pem()),
        ("certs/clients.pem", certificate.pem()),
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

/// Requests a second, the part of them that fails, and thousandths of a percent that come from segments: what each plan
/// is made for.
const PLANS: [(&str, f64, f64, u32); 7] = [
    ("canary.yaml", 200.0, 0.000_5, 0),
    ("rings.yaml", 100.0, 0.000_2, 5_000),
    ("blue-green.yaml", 200.0, 0.005, 100),
    ("dark-launch.yaml", 200.0, 0.005, 0),
    ("ab-test.yaml", 50.0, 0.005, 0),
    ("emergency.yaml", 50.0, 0.005, 0),
    ("conservative.yaml", 20.0, 0.000_5, 1_000),
];

#[test]
fn plans_of_rollouts_are_worth_something() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    for (file, rate, error_rate, in_segments) in PLANS {
        let snapshot = load(&config.join(file)).unwrap_or_else(|error| panic!("{error}"));
        let plan = snapshot.services[0].rollout.as_ref().unwrap();
        let forecast = forecast(
            plan,
            &Assumed {
                rate,
                error_rate,
                latencies: Latencies::new(100_000.0, 320_000.0).unwrap(),
                in_segments: Share::from_thousandths(in_segments),
                copyable: Share::WHOLE,
            },
        );
        if file == "ab-test.yaml" {
            let mut checks = plan.analysis.checks.iter();
            assert!(checks.all(|planned| planned.check.test.is_report()) && plan.analysis.checks.len() == 1);
            assert_eq!(forecast.warnings.len(), 1, "{:?}", forecast.warnings);
            continue;
        }
        assert_eq!(forecast.warnings, Vec::<String>::new(), "{file}");
        // What is broken altogether is found in every step.
        for step in &forecast.steps {
            let times = step.times(Of::Errors).unwrap_or_else(|| panic!("{file}: {step:?}"));
            assert!(times * error_rate < 0.12, "{file}: {step:?}");
        }
    }
    let lasts = |file: &str| -> u64 {
        let snapshot = load(&config.join(file)).unwrap();
        let steps = &snapshot.services[0].rollout.as_ref().unwrap().steps;
        steps.iter().map(|step| step.hold.as_secs()).sum()
    };
    assert_eq!(
        (lasts("emergency.yaml"), lasts("conservative.yaml")),
        (30 * 60, 21 * 86_400)
    );
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
