//! The command line, run as the real binary against a scripted admin API.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "cli/answers.rs"]
mod answers;
#[path = "cli/asking.rs"]
mod asking;
#[path = "cli/fake.rs"]
mod fake;
#[path = "cli/following.rs"]
mod following;
#[path = "cli/planning.rs"]
mod planning;
mod support;

use asking::{one_line_of_json, rollgate, run};
use serde_json::json;
use std::path::Path;

#[test]
fn completions_and_manual_pages_know_every_command() {
    let commands = [
        "run",
        "demo",
        "check",
        "status",
        "weights",
        "kill",
        "unkill",
        "rollout",
        "events",
        "explain",
        "plan",
        "simulate",
        "reload",
        "upgrade",
        "completions",
        "man",
    ];
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let exit = run(&mut rollgate(&["completions", shell]));
        assert_eq!(exit.code, Some(0));
        assert!(commands.iter().all(|command| exit.stdout.contains(command)), "{shell}");
        assert!(exit.stdout.contains("if-generation"), "{shell}");
    }
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("man1");
    let exit = run(rollgate(&["man", "--out"]).arg(&out));
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    for command in commands {
        let page = std::fs::read_to_string(out.join(format!("rollgate-{command}.1"))).unwrap();
        assert!(page.contains(".SH SYNOPSIS") && page.contains(".SH NOTES"), "{command}");
    }
    assert_eq!(exit.stdout.lines().count(), commands.len() + 1);
    assert!(exit.stdout.lines().all(|path| Path::new(path).is_file()));
    let page = run(&mut rollgate(&["man"])).stdout;
    assert_eq!(page, std::fs::read_to_string(out.join("rollgate.1")).unwrap());
    assert!(page.contains("Exit codes"));
    assert_eq!(run(&mut rollgate(&["man", "--out", "/proc/nowhere"])).code, Some(1));
}

#[test]
fn the_log_of_the_process_can_be_json() {
    for arguments in [
        &["run", "--json", "--config", "/nonexistent.yaml"][..],
        &["--json", "demo", "--config", "/nonexistent.yaml"],
    ] {
        let exit = run(&mut rollgate(arguments));
        assert_eq!(exit.code, Some(1));
        let line = one_line_of_json(&exit.stderr);
        assert_eq!(
            (
                &line["level"],
                line["message"].as_str().map(|text| text.contains("/nonexistent.yaml"))
            ),
            (&json!("ERROR"), Some(true))
        );
    }
}

/// The help of every command, as it is shown.
#[test]
fn help_texts() {
    let help = |arguments: &[&str]| {
        let exit = run(rollgate(&[arguments, &["--help"]].concat()).env("COLUMNS", "100"));
        assert_eq!(exit.code, Some(0));
        format!(
            "$ rollgate {}--help\n{}",
            arguments.iter().map(|word| format!("{word} ")).collect::<String>(),
            exit.stdout
        )
    };
    let commands = [
        "run",
        "demo",
        "check",
        "status",
        "weights",
        "kill",
        "unkill",
        "rollout",
        "events",
        "explain",
        "plan",
        "simulate",
        "reload",
        "upgrade",
        "completions",
        "man",
    ];
    let texts: Vec<String> = std::iter::once(help(&[]))
        .chain(commands.map(|command| help(&[command])))
        .collect();
    insta::assert_snapshot!("help", texts.join("\n"));
}
