//! `rollgate plan` and `rollgate simulate`, which need no proxy.

use crate::asking::{one_line_of_json, rollgate, run};
use serde_json::Value;
use std::path::Path;
use tempfile::TempDir;

const PLAN: &str = r#"listeners: [{ address: "127.0.0.1:8080" }]
segments: { staff: { header: x-user-email, ends_with: "@example.com" } }
services:
  - name: checkout
    routes: [{ host: shop.example.com }]
    versions:
      - { name: v1, role: stable, weight: 100, pool: { endpoints: ["127.0.0.1:9001"] } }
      - { name: v2, role: canary, weight: 0, pool: { endpoints: ["127.0.0.1:9002"] } }
    rollout:
      steps:
        - { segments: [staff], hold: 10m }
        - { share: 1%,  hold: 5m }
        - { share: 10%, hold: 10m }
        - { share: 50%, hold: 30m, approval: true }
        - { share: 100%, hold: 1h }
      analysis:
        min_requests: 200
        checks:
          - { metric: error_rate,  compared_to: stable, tolerance: 10%, on_fail: rollback }
          - { metric: latency_p99, compared_to: stable, tolerance: 20%, on_fail: pause }
          - { metric: error_rate,  max: 2%, on_fail: rollback }
          - { metric: conversion,  min: 10%, prometheus: { url: "http://127.0.0.1:9090", query: "x", every: 30s } }
"#;

const SECOND: &str = r#"  - name: cart
    routes: [{ host: cart.example.com }]
    versions:
      - { name: v7, role: stable, weight: 100, pool: { endpoints: ["127.0.0.1:9003"] } }
      - { name: v8, role: canary, weight: 0, pool: { endpoints: ["127.0.0.1:9004"] } }
    rollout:
      steps: [{ share: 50%, hold: 10m }, { share: 100%, hold: 10m }]
      guard: { max_failures: 50 }
  - name: plain
    routes: [{ host: www.example.com }]
    versions: [{ name: v1, pool: { endpoints: ["127.0.0.1:9005"] } }]
"#;

fn directory(config: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("shop.yaml"), config).unwrap();
    directory
}

fn told(directory: &Path, arguments: &[&str]) -> String {
    let exit = run(rollgate(arguments).current_dir(directory));
    assert_eq!(exit.code, Some(0), "{arguments:?}: {}", exit.stderr);
    match exit.stderr.as_str() {
        "" => exit.stdout,
        noted => format!("{noted}{}", exit.stdout),
    }
}

fn json(directory: &Path, arguments: &[&str]) -> Value {
    one_line_of_json(&told(directory, &[arguments, &["--json"]].concat()))
}

#[test]
fn a_plan_says_what_each_step_can_find() {
    let directory = directory(PLAN);
    let plan = |arguments: &[&str]| told(directory.path(), &[&["plan", "shop.yaml"], arguments].concat());
    insta::assert_snapshot!("plan", plan(&["--rps", "200"]));
    insta::assert_snapshot!(
        "plan_of_little_traffic",
        plan(&[
            "--rps",
            "0.5",
            "--errors",
            "3%",
            "--p99",
            "150ms",
            "--in-segments",
            "0%"
        ])
    );
    let forecast = json(directory.path(), &["plan", "shop.yaml", "--rps", "200"]);
    let step = &forecast["services"][0]["steps"][2];
    assert_eq!((&step["hold_s"], &step["lasts_s"]), (&600.0.into(), &600.0.into()));
    let check = &step["checks"][0];
    assert_eq!(check["condition"], "error_rate vs stable");
    let times = check["finds_times"].as_f64().unwrap();
    assert!((1.5..2.5).contains(&times), "{times}");
    assert!((check["finds_error_rate"].as_f64().unwrap() - times * 0.005).abs() < 1e-12);
    let doubling = check["twice_takes_s"].as_f64().unwrap();
    assert!((60.0..1_200.0).contains(&doubling), "{doubling}");
}

#[test]
fn all_services_of_a_file_or_one() {
    let directory = directory(&format!("{PLAN}{SECOND}"));
    let names = |arguments: &[&str]| {
        let plan = json(
            directory.path(),
            &[&["plan", "shop.yaml", "--rps", "9"], arguments].concat(),
        );
        let services = plan["services"].as_array().unwrap().clone();
        services
            .iter()
            .map(|service| service["service"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&[]), ["checkout", "cart"]);
    assert_eq!(names(&["--service", "cart"]), ["cart"]);
    let wrong = |arguments: &[&str]| {
        let exit = run(rollgate(arguments).current_dir(directory.path()));
        assert_eq!(exit.stdout, "");
        (exit.code, exit.stderr)
    };
    for (arguments, code, said) in [
        (
            &["plan", "shop.yaml", "--rps", "9", "--service", "crat"][..],
            1,
            "did you mean `cart`?",
        ),
        (
            &["plan", "shop.yaml", "--rps", "9", "--service", "plain"],
            1,
            "`plain` has no `rollout`",
        ),
        (&["plan", "none.yaml", "--rps", "9"], 1, "none.yaml: No such file"),
        (&["plan", "shop.yaml"], 2, "--rps"),
        (&["plan", "shop.yaml", "--rps", "0"], 2, "expected requests a second"),
        (&["plan", "shop.yaml", "--rps", "9", "--p50", "1s"], 2, "below --p99"),
        (&["plan", "nowhere", "--rps", "9"], 4, "run/rollgate.sock"),
        (
            &["plan", "nowhere", "--rps", "9", "--service", "cart"],
            2,
            "no file \"nowhere\"",
        ),
        (
            &["simulate", "shop.yaml", "--rps", "9"],
            2,
            "several services have a rollout: `checkout`, `cart`",
        ),
        (&["simulate", "shop.yaml"], 2, "--rps"),
        (
            &["simulate", "shop.yaml", "--rps", "9", "--fault", "errors@1m"],
            2,
            "expected [candidate:|stable:|both:]",
        ),
        (
            &["simulate", "shop.yaml", "--rps", "9", "--recorded", "x"],
            2,
            "cannot be used with",
        ),
        (
            &["simulate", "shop.yaml", "--service", "cart", "--recorded", "x"],
            1,
            "x: No such file",
        ),
    ] {
        let (exit, stderr) = wrong(arguments);
        assert_eq!(exit, Some(code), "{arguments:?}: {stderr}");
        assert!(stderr.contains(said), "{arguments:?}: {stderr}");
    }
}

#[test]
fn a_simulation_is_a_transcript_and_the_same_for_the_same_seed() {
    let directory = directory(PLAN);
    let simulate = |arguments: &[&str]| told(directory.path(), &[&["simulate", "shop.yaml"], arguments].concat());
    insta::assert_snapshot!("simulate_a_good_candidate", simulate(&["--rps", "100"]));
    let bad = ["--rps", "100", "--fault", "errors=5x@17m"];
    let transcript = simulate(&bad);
    insta::assert_snapshot!("simulate_a_bad_candidate", transcript);
    assert_eq!(simulate(&bad), transcript);
    assert_ne!(simulate(&[&bad[..], &["--seed", "2"]].concat()), transcript);
    insta::assert_snapshot!(
        "simulate_a_slow_one",
        simulate(&["--rps", "100", "--fault", "latency=1.5x@17m-40m", "--wave", "50%"])
    );
    insta::assert_snapshot!(
        "simulate_without_approval",
        simulate(&["--rps", "100", "--approve-after", "never"])
    );
    insta::assert_snapshot!(
        "simulate_runs",
        simulate(&["--rps", "20", "--fault", "errors=4x@16m", "--runs", "10"])
    );
    let one = json(directory.path(), &[&["simulate", "shop.yaml"], &bad[..]].concat());
    assert_eq!(
        (&one["phase"], &one["outcome"]),
        (&"rolled_back".into(), &"rolled back by a check".into())
    );
    assert!(one["reason"].as_str().unwrap().contains("against"), "{one}");
    assert_eq!(one["checks_left_out"], serde_json::json!(["conversion min 0.1"]));
    let took = one["took_s"].as_f64().unwrap();
    assert!((1_020.0..1_500.0).contains(&took), "{took}");
}

#[test]
fn recorded_counts_are_replayed() {
    let directory = directory(PLAN);
    // Two hours in which the candidate begins to fail after twenty minutes.
    let second = |second: u32| {
        let failures = if second < 1_200 { 0 } else { 3 };
        format!("{second},v1,90,0,100\n{second},v2,10,{failures},100\n")
    };
    let rows: String = (0..7_200).map(second).collect();
    let file = directory.path().join("counts.csv");
    std::fs::write(file, format!("second,version,requests,failures,latency_ms\n{rows}")).unwrap();
    let arguments = ["simulate", "shop.yaml", "--recorded", "counts.csv"];
    let replayed = json(directory.path(), &arguments);
    assert_eq!(replayed["phase"], "rolled_back", "{replayed}");
    let took = replayed["took_s"].as_f64().unwrap();
    assert!((1_200.0..1_230.0).contains(&took), "{took}");
    assert_eq!(replayed["requests"]["stable"]["failures"], 0);
    // With the recording it ends.
    let short = ["simulate", "shop.yaml", "--recorded", "short.csv"];
    std::fs::write(
        directory.path().join("short.csv"),
        "second,version,requests,failures\n59,v1,1,0\n",
    )
    .unwrap();
    assert_eq!(json(directory.path(), &short)["took_s"], 60.0);
}
