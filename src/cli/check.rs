//! `rollgate check FILE`: all that is wrong with a file, by the same code that would load it.

use crate::admin::api::Checked;
use crate::config::Snapshot;
use crate::config::snapshot::Unsupported;
use crate::control::load::{LoadError, check};
use serde_json::json;
use std::fmt::Write;
use std::path::Path;

/// The exit code of a file that is right, and of one that is not.
const OK: u8 = 0;
const FAILED: u8 = 1;

/// Checks `file`: the exit code (0 or 1), and what to print, ending in a line break.
pub fn run(file: &Path, json: bool) -> (u8, String) {
    let loaded = check(file);
    let code = if loaded.is_ok() { OK } else { FAILED };
    let text = if json {
        render_json(&loaded)
    } else {
        render(file, &loaded)
    };
    (code, text)
}

/// The outcome for a person: one line a warning and a problem, then one that sums up.
pub fn render(file: &Path, loaded: &Result<Snapshot, LoadError>) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = match loaded {
        Ok(snapshot) => render_ok(&mut text, file, snapshot),
        Err(error @ LoadError::Read { .. }) => writeln!(text, "error: {error}"),
        Err(error @ LoadError::Invalid { problems, .. }) => {
            writeln!(
                text,
                "{error}\n{}: {}",
                file.display(),
                counted(problems.len(), "problem")
            )
        }
    };
    text
}

fn render_ok(text: &mut String, file: &Path, snapshot: &Snapshot) -> std::fmt::Result {
    for warning in &snapshot.unsupported {
        let Unsupported {
            path,
            line,
            column,
            message,
            refuses_to_run,
        } = warning;
        let run = if *refuses_to_run {
            "; `run` refuses the file"
        } else {
            ""
        };
        writeln!(
            text,
            "warning: {}:{line}:{column}: {path}: {message}{run}",
            file.display()
        )?;
    }
    let refusing = snapshot.unsupported.iter().filter(|key| key.refuses_to_run).count();
    let but = match refusing {
        0 => String::new(),
        count => format!(
            "; the file is right, but `run` of this version refuses it for {}",
            counted(count, "key")
        ),
    };
    writeln!(
        text,
        "ok: {}, {}{but}",
        counted(snapshot.services.len(), "service"),
        counted(snapshot.listeners.len(), "listener")
    )
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 {
        format!("1 {what}")
    } else {
        format!("{count} {what}s")
    }
}

/// The outcome for a program: see [`Checked`].
pub fn render_json(loaded: &Result<Snapshot, LoadError>) -> String {
    format!("{}\n", json!(Checked::of(loaded)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use serde_json::Value;

    fn checked(text: &str) -> Result<Snapshot, LoadError> {
        config::parse(text, Path::new("")).map_err(|problems| LoadError::Invalid {
            file: "shop.yaml".into(),
            problems,
            named: Vec::new(),
        })
    }

    const GOOD: &str = "listeners: [{ address: \"127.0.0.1:0\" }]\ntracing: { otlp: \"http://h\" }\nservices:\n  - name: s\n    \
                        versions: [{ name: v1, pool: { endpoints: [\"127.0.0.1:1\"] } }]\n";

    #[test]
    fn a_good_file_is_counted_and_its_warnings_shown() {
        let mut checked = checked(GOOD).unwrap();
        let missing = Unsupported {
            path: "listeners[0].tls.certificates[0].cert".to_owned(),
            line: 1,
            column: 60,
            message: "shop.pem: there is no such file".to_owned(),
            refuses_to_run: true,
        };
        checked.unsupported = checked.unsupported.iter().cloned().chain([missing]).collect();
        let checked = Ok(checked);
        insta::assert_snapshot!("good", render(Path::new("shop.yaml"), &checked));
        insta::assert_snapshot!("good_json", render_json(&checked));
    }

    #[test]
    fn a_bad_file_is_shown_line_by_line() {
        let bad = GOOD.replace("otlp", "oltp").replace("127.0.0.1:1", "127.0.0.1");
        insta::assert_snapshot!("bad", render(Path::new("shop.yaml"), &checked(&bad)));
        insta::assert_snapshot!("bad_json", render_json(&checked(&bad)));
    }

    #[test]
    fn an_absent_file_is_an_error_in_both_forms() {
        let (code, text) = run(Path::new("/nonexistent/shop.yaml"), false);
        assert_eq!(
            (code, text.as_str()),
            (
                1,
                "error: /nonexistent/shop.yaml: No such file or directory (os error 2)\n"
            )
        );
        let (code, text) = run(Path::new("/nonexistent/shop.yaml"), true);
        assert_eq!(code, 1);
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["ok"], false);
        assert_eq!(
            answer["problems"][0]["message"],
            "No such file or directory (os error 2)"
        );
    }
}
