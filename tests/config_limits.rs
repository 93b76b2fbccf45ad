//! No configuration takes long, however it is meant.

use rollgate::config::parse;
use std::path::Path;
use std::time::{Duration, Instant};

/// `count` services of one version, each with a host of its own.
fn with_many_services(count: usize) -> String {
    let services: String = (0..count)
        .map(|n| {
            format!(
                "- {{name: s{n}, routes: [{{host: h{n}.example}}], versions: [{{name: v, pool: {{endpoints: [\"h:{}\"]}}}}]}}\n",
                n % 65_535 + 1
            )
        })
        .collect();
    format!("listeners: [{{ address: \"127.0.0.1:0\" }}]\nservices:\n{services}")
}

/// As many services as fit, each with a rollout that says `more`.
fn with_many_rollouts(more: &str) -> String {
    let services: String = (0..4_000)
        .map(|n| {
            format!(
                "- {{name: s{n}, routes: [{{host: h{n}.example}}], versions: [{{name: v, pool: {{endpoints: [\"h:1\"]}}}}, {{name: w, pool: \
                 {{endpoints: [\"h:2\"]}}}}], rollout: {{steps: [{{share: 1%, hold: 1s}}], {more}}}}}\n"
            )
        })
        .collect();
    format!("listeners: [{{ address: \"127.0.0.1:0\" }}]\nservices:\n{services}")
}

#[test]
fn a_thousand_services_compile_in_linear_time() {
    let time = |count: usize| {
        let text = with_many_services(count);
        let fastest = (0..3).map(|_| {
            let start = Instant::now();
            assert_eq!(parse(&text, Path::new("")).unwrap().services.len(), count);
            start.elapsed()
        });
        fastest.min().unwrap()
    };
    let (small, large) = (time(500), time(4_000));
    // Eight times the services: quadratic would be sixty-four times.
    assert!(large < small * 32, "500 services: {small:?}, 4,000: {large:?}");
}

#[test]
fn hostile_files_are_refused_quickly() {
    let hostile = [
        "[".repeat(1 << 19),
        "{".repeat(1 << 19),
        "- ".repeat(1 << 19),
        "? ".repeat(1 << 19),
        "a: &a ".repeat(100_000),
        "!a ".repeat(100_000),
        format!("[{}]", "a,".repeat(500_000)),
        format!("{{{}}}", (0..80_000).map(|n| format!("k{n}: 1,")).collect::<String>()),
        "a: &a [&b [&c [&d [&e [&f [&g [&h [x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x]]]]]]]]\n".to_owned()
            + &"k: *a\n".repeat(50_000),
        format!("services: {}", "x".repeat(1_000_000)),
        "\"\\".repeat(300_000),
        "%YAML 1.2\n".repeat(90_000),
        "%TAG ! a\n".repeat(90_000),
        "\n".repeat(1_000_000),
        "#\n".repeat(500_000),
        format!("a: |\n{}", " x\n".repeat(300_000)),
        "a\n".repeat(500_000),
        // Each needs all time zones, or all services, to say what was meant.
        with_many_rollouts("freeze: [0:00-1:00 Xy]"),
        with_many_rollouts("with: [ss]"),
    ];
    for text in hostile {
        let start = Instant::now();
        assert!(parse(&text, Path::new("")).is_err());
        let taken = start.elapsed();
        assert!(taken < Duration::from_secs(10), "{taken:?} for {:?}…", &text[..40]);
    }
}
