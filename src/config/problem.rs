//! What is wrong with a file, and where: [`Problem`]; and the place in a file, [`Path`], under which it is found.

use super::yaml::{Node, Value};
use serde::Serialize;
use std::fmt;

/// The most problems kept of one file; further ones are counted.
pub const MAX_PROBLEMS: usize = 500;

/// One thing wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Where in the structure: `services[0].versions[1].weight`; empty for the file as a whole.
    pub path: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What was expected, and what was found.
    pub message: String,
    /// What may have been meant.
    pub suggestion: Option<String>,
}

/// One line, `line:column: path: message (did you mean ...?)`; the name of the file is for the caller to put before.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, " (did you mean `{suggestion}`?)"),
            None => Ok(()),
        }
    }
}

/// A place in the structure of a file, built on the stack while the file is walked.
#[derive(Clone, Copy)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Key(&'a str),
    Index(usize),
}

impl<'a> Path<'a> {
    /// The file as a whole.
    pub const ROOT: Path<'static> = Path {
        parent: None,
        step: Step::Root,
    };

    /// The value under `key`.
    pub fn key<'b>(&'b self, key: &'b str) -> Path<'b>
    where
        'a: 'b,
    {
        Path {
            parent: Some(self),
            step: Step::Key(key),
        }
    }

    /// The element at `index`.
    pub fn index<'b>(&'b self, index: usize) -> Path<'b>
    where
        'a: 'b,
    {
        Path {
            parent: Some(self),
            step: Step::Index(index),
        }
    }

    fn steps(&self) -> Vec<Step<'a>> {
        let mut steps = Vec::new();
        let mut at = Some(self);
        while let Some(path) = at {
            steps.push(path.step);
            at = path.parent;
        }
        steps.reverse();
        steps
    }

    /// The line and column of the value, or of its nearest ancestor that the file holds. `of_key`: of its key instead.
    pub fn position(&self, root: &Node, of_key: bool) -> (usize, usize) {
        let mut node = root;
        let mut position = (root.line, root.column);
        for step in self.steps() {
            let next = match (&node.value, step) {
                (_, Step::Root) => Some((node, position)),
                (Value::Mapping(entries), Step::Key(key)) => entries.iter().find(|e| &*e.key == key).map(|entry| {
                    let value = &entry.node;
                    let at_key = of_key || matches!(value.value, Value::Null);
                    let place = if at_key {
                        (entry.line, entry.column)
                    } else {
                        (value.line, value.column)
                    };
                    (value, place)
                }),
                (Value::Sequence(nodes), Step::Index(index)) => nodes.get(index).map(|n| (n, (n.line, n.column))),
                _ => None,
            };
            let Some((next, place)) = next else { break };
            node = next;
            position = place;
        }
        position
    }
}

impl Path<'_> {
    /// Adds the last step to `text`. Keys that are no names are quoted.
    pub fn extend(&self, text: &mut String) {
        let is_name = |key: &str| {
            key.bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        match self.step {
            Step::Root => {}
            Step::Key(key) if is_name(key) && !key.is_empty() => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(&printable(key));
            }
            Step::Key(key) => text.push_str(&format!("[\"{}\"]", printable(key))),
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        for step in self.steps() {
            Path { parent: None, step }.extend(&mut text);
        }
        f.write_str(&text)
    }
}

/// Problems as they are found.
pub struct Problems<'a> {
    root: &'a Node,
    found: Vec<Problem>,
    dropped: usize,
}

impl<'a> Problems<'a> {
    /// `root`: where positions are looked up; `found`: what is known already.
    pub fn new(root: &'a Node, found: Vec<Problem>) -> Self {
        Self {
            root,
            found,
            dropped: 0,
        }
    }

    /// A problem with the value at `path`.
    pub fn add(&mut self, path: &Path<'_>, message: impl Into<String>) {
        self.push(path, false, message.into(), None);
    }

    /// A problem with the value at `path`, and what may have been meant.
    pub fn add_with(&mut self, path: &Path<'_>, message: impl Into<String>, suggestion: Option<String>) {
        self.push(path, false, message.into(), suggestion);
    }

    /// A problem with the key that ends `path`.
    pub fn add_key(&mut self, path: &Path<'_>, message: impl Into<String>, suggestion: Option<String>) {
        self.push(path, true, message.into(), suggestion);
    }

    fn push(&mut self, path: &Path<'_>, of_key: bool, message: String, suggestion: Option<String>) {
        if self.is_full() {
            self.dropped += 1;
            return;
        }
        let (line, column) = path.position(self.root, of_key);
        self.found.push(Problem {
            path: path.to_string(),
            line,
            column,
            message,
            suggestion,
        });
    }

    /// Whether further problems are only counted.
    pub fn is_full(&self) -> bool {
        self.found.len() >= MAX_PROBLEMS
    }

    /// Whether a problem is known at `path` or below it: what follows from it need not be said too.
    pub fn any_below(&self, path: &Path<'_>) -> bool {
        let prefix = path.to_string();
        self.found.iter().any(|problem| {
            problem.path.strip_prefix(prefix.as_str()).is_some_and(|rest| {
                prefix.is_empty() || rest.is_empty() || rest.starts_with('.') || rest.starts_with('[')
            })
        })
    }

    /// Line and column of the value at `path`.
    pub fn position(&self, path: &Path<'_>) -> (usize, usize) {
        path.position(self.root, false)
    }

    /// Line and column of the key that ends `path`.
    pub fn position_of_key(&self, path: &Path<'_>) -> (usize, usize) {
        path.position(self.root, true)
    }

    /// All problems in the order of the file; empty when there are none.
    pub fn into_sorted(mut self) -> Vec<Problem> {
        self.found.sort_by_key(|problem| (problem.line, problem.column));
        if self.dropped > 0 {
            self.found.push(Problem {
                path: String::new(),
                line: self.root.line,
                column: self.root.column,
                message: format!("and {} more problems", self.dropped),
                suggestion: None,
            });
        }
        self.found
    }
}

/// The candidate nearest to `word`, when it is near enough to have been meant.
pub fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<String> {
    // The distance is quadratic in the length: a very long word is no misspelling.
    if word.is_empty() || word.len() > 64 {
        return None;
    }
    let plain = |text: &str| text.to_ascii_lowercase().replace(['-', '_', ' '], "");
    let typed = plain(word);
    // `v3` and `v2`, `http2` and `http1`: other numbers are other things, not misspellings.
    let letters = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
    let other_number = |candidate: &str| {
        let candidate = plain(candidate);
        candidate != typed && letters(&candidate) == letters(&typed)
    };
    candidates
        .into_iter()
        .filter(|candidate| *candidate != word && candidate.len() <= 64 && !other_number(candidate))
        .map(|candidate| (strsim::damerau_levenshtein(&typed, &plain(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.chars().count().max(typed.chars().count()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate.to_owned())
}

/// A value from the file, for `found ...`: in backticks, or `an empty string`.
pub fn shown(text: &str) -> String {
    if text.is_empty() {
        "an empty string".to_owned()
    } else {
        format!("`{}`", printable(text))
    }
}

/// A value from the file, safe and short enough to be shown: control characters escaped, cut after 60 characters.
pub fn printable(text: &str) -> String {
    printable_up_to(text, 60)
}

/// As [`printable`], cut after `max` characters.
pub fn printable_up_to(text: &str, max: usize) -> String {
    let mut shown = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == max {
            shown.push('…');
            break;
        }
        if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// `a`, `b` or `c`.
pub fn one_of<'c>(words: impl IntoIterator<Item = &'c str>) -> String {
    let words: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => "nothing".to_owned(),
    }
}
