//! Why a command did not do what was asked, and its exit code.

use super::print::{BAD, HELP};
use super::table::safe;
use crate::admin::api::Problem;
use serde_json::{Value, json};
use std::fmt::Write;
use std::process::ExitCode;

/// Exit codes of all commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Done = 0,
    /// It was tried and went wrong.
    Failed = 1,
    /// The command line makes no sense. Clap exits with the same.
    Usage = 2,
    /// The proxy said no: nothing changed.
    Refused = 3,
    /// There was no answer of the proxy.
    Unreachable = 4,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    pub exit: Exit,
    /// What is wrong, with what and where.
    pub detail: String,
    /// What to do about it, a sentence each.
    pub help: Vec<String>,
    /// The proxy's own word, when it is it that says no.
    pub answer: Option<Box<Answered>>,
}

/// The proxy's own word.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    pub problem: Problem,
    /// As it came.
    pub body: String,
}

impl Failure {
    pub fn new(exit: Exit, detail: impl Into<String>) -> Self {
        Self {
            exit,
            detail: detail.into(),
            help: Vec::new(),
            answer: None,
        }
    }

    pub fn failed(detail: impl Into<String>) -> Self {
        Self::new(Exit::Failed, detail)
    }

    pub fn usage(detail: impl Into<String>) -> Self {
        Self::new(Exit::Usage, detail)
    }

    pub fn unreachable(detail: impl Into<String>) -> Self {
        Self::new(Exit::Unreachable, detail)
    }

    /// Adds a sentence on what to do.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// Replaces what there is on what to do: the proxy speaks to whoever writes HTTP, this to whoever types commands.
    pub fn only_help(mut self, help: impl Into<String>) -> Self {
        self.help.clear();
        self.help(help)
    }

    /// An answer that is an error. 4xx: refused. Otherwise it went wrong on the proxy's side.
    pub fn answered(problem: Problem, body: String) -> Self {
        let exit = match problem.status {
            400..=499 => Exit::Refused,
            _ => Exit::Failed,
        };
        Self {
            help: problem.help.iter().cloned().collect(),
            detail: problem.detail.clone(),
            exit,
            answer: Some(Box::new(Answered { problem, body })),
        }
    }

    /// Whether the proxy has nothing at the path at all, rather than nothing of that name.
    pub fn is_unknown_path(&self) -> bool {
        let problem = self.answer.as_ref().map(|answer| answer.problem.kind.as_str());
        problem == Some("urn:rollgate:problem:not-found")
    }

    /// Whether the proxy knows nothing of what was asked for.
    pub fn is_not_found(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer.problem.status == 404)
    }

    /// For people: what is wrong, each problem of a file, and what to do, a line each.
    pub fn render(&self) -> String {
        let what = match self.exit {
            Exit::Refused => "refused",
            Exit::Unreachable => "cannot reach the proxy",
            _ => "error",
        };
        let mut lines = self.detail.lines();
        let mut text = format!("{BAD}{what}:{BAD:#} {}\n", safe(lines.next().unwrap_or("")));
        // Writing to a string cannot fail.
        for line in lines {
            let _ = writeln!(text, "  {}", safe(line));
        }
        let problems = self.answer.iter().flat_map(|answer| &answer.problem.problems);
        // Those of a file are in the detail already, with its name.
        for line in problems.map(problem_line).filter(|line| !self.detail.contains(line)) {
            let _ = writeln!(text, "  {}", safe(&line));
        }
        for help in &self.help {
            let _ = writeln!(text, "  {HELP}help:{HELP:#} {}", safe(help));
        }
        text
    }

    /// For programs: the proxy's answer as it came, or an object of the same form.
    pub fn render_json(&self) -> String {
        if let Some(answer) = &self.answer {
            return one_line(&answer.body);
        }
        let (word, title) = match self.exit {
            Exit::Unreachable => ("unreachable", "Cannot reach the proxy"),
            Exit::Usage => ("usage", "Wrong usage"),
            _ => ("failed", "Failed"),
        };
        let mut problem = json!({
            "type": format!("urn:rollgate:problem:{word}"),
            "title": title,
            "detail": self.detail,
        });
        if let (false, Some(fields)) = (self.help.is_empty(), problem.as_object_mut()) {
            fields.insert("help".to_owned(), self.help.join("; ").into());
        }
        format!("{problem}\n")
    }
}

/// An answer of the API on one line: JSON has line breaks only where blanks may stand as well.
pub fn one_line(body: &str) -> String {
    body.trim().replace(['\r', '\n'], " ") + "\n"
}

/// As `check` prints a problem, from what `check --json` says of it.
fn problem_line(problem: &Value) -> String {
    let text = |key: &str| problem.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let number = |key: &str| problem.get(key).and_then(Value::as_u64);
    let mut line = match (number("line"), number("column")) {
        (Some(line), Some(column)) => format!("{line}:{column}: "),
        _ => String::new(),
    };
    if let Some(path) = text("path") {
        line += &format!("{path}: ");
    }
    line += text("message").unwrap_or("");
    if let Some(suggestion) = text("suggestion") {
        line += &format!(" (did you mean `{suggestion}`?)");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::print::plain;

    fn problem(status: u16, problems: Vec<Value>) -> Failure {
        let problem = Problem {
            kind: "urn:rollgate:problem:x".to_owned(),
            title: "Title".to_owned(),
            status,
            detail: "no service is called `shpo`".to_owned(),
            help: Some("did you mean `shop`?".to_owned()),
            problems,
        };
        let body = serde_json::to_string_pretty(&problem).unwrap();
        Failure::answered(problem, body)
    }

    #[test]
    fn exit_codes_follow_the_status() {
        for (status, exit) in [
            (400, Exit::Refused),
            (404, Exit::Refused),
            (409, Exit::Refused),
            (412, Exit::Refused),
            (500, Exit::Failed),
            (503, Exit::Failed),
        ] {
            assert_eq!(problem(status, Vec::new()).exit, exit, "{status}");
        }
    }

    #[test]
    fn a_refusal_says_why_and_what_to_do() {
        let bad = json!({"path": "services[0]", "line": 7, "column": 3, "message": "unknown key `nmae`",
                         "suggestion": "name"});
        let unread = json!({"path": "", "line": null, "column": null, "message": "No such file", "suggestion": null});
        let failure = problem(422, vec![bad, unread]).help("second \u{1b}[2J");
        assert_eq!(
            plain(&failure.render()),
            "refused: no service is called `shpo`\n  7:3: services[0]: unknown key `nmae` (did you mean `name`?)\n  No \
             such file\n  help: did you mean `shop`?\n  help: second \\u{1b}[2J\n"
        );
        let detail = "rollgate.yaml:7:3: services[0]: unknown key `nmae` (did you mean `name`?)";
        let told = Failure {
            detail: detail.to_owned(),
            help: Vec::new(),
            ..failure.clone()
        };
        assert_eq!(plain(&told.render()), format!("refused: {detail}\n  No such file\n"));
        let json = failure.render_json();
        assert_eq!(json.matches('\n').count(), 1);
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["status"], 422);
    }

    #[test]
    fn without_an_answer_the_object_has_the_same_form() {
        let failure = Failure::unreachable("no socket at \"x\"").help("a").help("b");
        assert_eq!(
            plain(&failure.render()),
            "cannot reach the proxy: no socket at \"x\"\n  help: a\n  help: b\n"
        );
        let value: Value = serde_json::from_str(&failure.render_json()).unwrap();
        assert_eq!(
            value,
            json!({"type": "urn:rollgate:problem:unreachable", "title": "Cannot reach the proxy",
                   "detail": "no socket at \"x\"", "help": "a; b"})
        );
        assert!(Failure::usage("x").render_json().contains("problem:usage"));
        assert_eq!(plain(&Failure::failed("a\nb").render()), "error: a\n  b\n");
    }
}
