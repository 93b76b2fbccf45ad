mod bad_input;
mod bad_limits;
mod bad_services;
mod certificates;
mod changes;
mod meaning;
mod plans;
mod robustness;
mod variables;

use super::{Problem, Snapshot, parse};
use std::path::Path;

/// The example of the contract, which uses every key.
const FULL: &str = include_str!("../../../config/full.yaml");

const LISTENERS: &str = "listeners:\n  - address: 127.0.0.1:8080\n";

/// A file with one service, `shop`, with a stable `v1` and a canary `v2`, and `more` keys of that service, each line
/// indented by four.
fn with_service(more: &str) -> String {
    format!(
        "{LISTENERS}services:\n  - name: shop\n    versions:\n      - {{ name: v1, pool: {{ endpoints: [\"127.0.0.1:9001\"] \
         }} }}\n      - {{ name: v2, pool: {{ endpoints: [\"127.0.0.1:9002\"] }} }}\n{more}"
    )
}

/// A file with one service whose versions are `versions`, one flow mapping each, without their pools.
fn with_versions(versions: &[&str]) -> String {
    let lines: String = versions
        .iter()
        .zip(9001..)
        .map(|(version, port)| format!("      - {{ {version}, pool: {{ endpoints: [\"127.0.0.1:{port}\"] }} }}\n"))
        .collect();
    format!("{LISTENERS}services:\n  - name: shop\n    versions:\n{lines}")
}

/// A file with one service of one version with this pool.
fn with_pool(pool: &str) -> String {
    format!("{LISTENERS}services:\n  - name: shop\n    versions:\n      - {{ name: v1, pool: {pool} }}\n")
}

/// A valid file with `more` keys at its top.
fn with_top(more: &str) -> String {
    with_service(more)
}

/// A valid file whose listener has these keys, too.
fn with_listener(keys: &str) -> String {
    with_service("").replacen("8080\n", &format!("8080\n    {keys}\n"), 1)
}

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
    format!("{LISTENERS}services:\n{services}")
}

fn parsed(text: &str) -> Result<Snapshot, Vec<Problem>> {
    parse(text, Path::new("/etc/rollgate"))
}

fn valid(text: &str) -> Snapshot {
    parsed(text).unwrap_or_else(|problems| panic!("{}\n{text}", rendered(&problems)))
}

fn rendered(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}
