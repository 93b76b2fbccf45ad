//! Holds the map of the house (`src/lib.rs`): which room may name which, and words that have no place in a room.
//! A drift fails here, with the file and the line.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::Path;

/// Without I/O, clock, randomness, logging and async.
const PURE: [&str; 11] = [
    "config",
    "routing",
    "explain",
    "balancing",
    "http1",
    "http2",
    "opening",
    "outcome",
    "analysis",
    "rollout",
    "runtime",
];

/// What each room may name beside itself; a room that is not here does not exist.
const ARROWS: [(&str, &[&str]); 21] = [
    ("outcome", &[]),
    ("routing", &[]),
    ("explain", &["routing"]),
    ("balancing", &[]),
    // Refusals are its errors, and its fields are what routing looks at.
    ("http1", &["outcome", "routing"]),
    // Its heads are read and written as text of http1.
    ("http2", &["http1"]),
    ("opening", &[]),
    ("analysis", &["outcome"]),
    ("rollout", &["analysis"]),
    // The form of the PROXY header that a pool sends is a setting, and so are the rules that rewrite heads, and rates.
    (
        "config",
        &[
            "outcome",
            "routing",
            "balancing",
            "http1",
            "opening",
            "analysis",
            "rollout",
        ],
    ),
    ("runtime", &["config", "routing", "analysis", "rollout"]),
    ("shared", &PURE),
    (
        "telemetry",
        &[
            "shared",
            "config",
            "routing",
            "balancing",
            "http1",
            "outcome",
            "analysis",
            "rollout",
            "runtime",
        ],
    ),
    (
        "proxy",
        &[
            "telemetry",
            "shared",
            "config",
            "routing",
            "balancing",
            "http1",
            "http2",
            "opening",
            "outcome",
        ],
    ),
    (
        "control",
        &[
            "telemetry",
            "shared",
            "config",
            "routing",
            "balancing",
            "http1",
            "http2",
            "opening",
            "outcome",
            "analysis",
            "rollout",
            "runtime",
        ],
    ),
    (
        "admin",
        &[
            "control",
            "telemetry",
            "shared",
            "config",
            "routing",
            "explain",
            "outcome",
            "analysis",
            "rollout",
            "runtime",
        ],
    ),
    (
        "server",
        &[
            "admin",
            "control",
            "proxy",
            "telemetry",
            "shared",
            "config",
            "routing",
            "outcome",
            "runtime",
        ],
    ),
    (
        "demo",
        &[
            "server",
            "admin",
            "control",
            "telemetry",
            "shared",
            "config",
            "routing",
            "outcome",
        ],
    ),
    (
        "cli",
        &[
            "demo",
            "server",
            "admin",
            "control",
            "telemetry",
            "shared",
            "config",
            "routing",
            "explain",
            "outcome",
            "analysis",
            "rollout",
            "runtime",
            "http1",
        ],
    ),
    ("lib", &[]),
    ("main", &["cli", "server", "demo"]),
];

/// Words of I/O, clock, randomness, logging and async.
const IMPURE: [&str; 28] = [
    "Instant::now",
    "Timestamp::now",
    "Zoned::now",
    "SystemTime::now",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "std::os",
    "File::open",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixListener",
    "ToSocketAddrs",
    "socket2",
    "tokio",
    "async ",
    ".await",
    "tracing::",
    "println!",
    "print!",
    "fastrand",
    "rand::",
    "SystemRandom",
    "arc_swap",
    "notify::",
];

/// Lints of the house that code outside tests may not switch off.
const NEVER_ALLOWED: [&str; 8] = [
    "unwrap_used",
    "expect_used",
    "clippy::panic",
    "clippy::todo",
    "unimplemented",
    "dbg_macro",
    "unsafe_code",
    "await_holding_lock",
];
/// Lints that may be switched off where the reason stands beside, in the attribute or as a comment on its line.
const ALLOWED_WITH_REASON: [&str; 3] = ["indexing_slicing", "print_stdout", "print_stderr"];

const LINES_MAX: usize = 600;

#[test]
fn the_sources_keep_to_the_map() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 20, "only {} files found", files.len());
    let mut faults = Vec::new();
    for path in files {
        let source = fs::read_to_string(&path).unwrap();
        let relative = path.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
        faults.extend(scan(&relative, &source));
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

fn collect(directory: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Every fault of one file, given by its path below `src/`.
fn scan(path: &str, source: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let lines = source.lines().count();
    if lines > LINES_MAX {
        faults.push(format!(
            "{path}: {lines} lines, more than {LINES_MAX}: split it by meaning"
        ));
    }
    let code = without_comments_and_texts(source);
    let code = if is_test_file(path) { "" } else { without_tests(&code) };
    let room = path.split('/').next().unwrap_or(path).trim_end_matches(".rs");
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == room) else {
        faults.push(format!("{path}: the room {room} is not on the map"));
        return faults;
    };
    for (at, named) in rooms_named(path, code) {
        if named != room && !allowed.contains(&named.as_str()) && room != "lib" {
            faults.push(format!("{path}:{}: {room} may not name {named}", line_of(code, at)));
        }
    }
    let mut forbid = |word: &str, why: &str| {
        for at in words(code, word) {
            faults.push(format!("{path}:{}: `{word}`: {why}", line_of(code, at)));
        }
    };
    if PURE.contains(&room) {
        IMPURE
            .iter()
            .for_each(|word| forbid(word, "a pure room gets facts as arguments and gives values back"));
    }
    if !matches!(room, "proxy" | "server") {
        forbid("pingora", "only proxy/ and server.rs know it");
    }
    forbid("pingora_proxy", "it is an oracle for tests, not part of the product");
    if !path.starts_with("control/writer") && path != "shared/mod.rs" {
        forbid(".publish(", "control::writer is the only writer");
    }
    lint_switches(path, source, code, &mut faults);
    faults
}

fn lint_switches(path: &str, source: &str, code: &str, faults: &mut Vec<String>) {
    for open in ["allow(", "expect("] {
        for at in words(code, open) {
            let before = code[..at].trim_end();
            if !(before.ends_with('[') || before.ends_with(',')) || !code[at..].contains(']') {
                continue;
            }
            let attribute = &code[at..at + code[at..].find(']').unwrap()];
            let never = NEVER_ALLOWED.iter().find(|lint| attribute.contains(*lint));
            let line = source.lines().nth(line_of(code, at) - 1).unwrap_or_default();
            let explained = attribute.contains("reason") || line.contains("// ");
            let unexplained = ALLOWED_WITH_REASON
                .iter()
                .find(|lint| attribute.contains(*lint) && !explained);
            if let Some(lint) = never.or(unexplained) {
                faults.push(format!("{path}:{}: `{lint}` is switched off", line_of(code, at)));
            }
        }
    }
}

fn is_test_file(path: &str) -> bool {
    path.ends_with("_tests.rs")
        || path.ends_with("/tests.rs")
        || path.contains("/tests/")
        || path.ends_with("/fixture.rs")
}

/// Up to the tests, which end a file; a `mod tests;` before other code cuts nothing.
fn without_tests(code: &str) -> &str {
    let inline = code.match_indices("#[cfg(test)]").find(|(at, _)| {
        let rest = &code[*at..];
        rest.split_once("mod ").is_some_and(|(before, after)| {
            before.lines().count() <= 4
                && after
                    .split_once(['{', ';'])
                    .is_some_and(|(name, _)| after[name.len()..].starts_with('{'))
        })
    });
    inline.map_or(code, |(at, _)| &code[..at])
}

fn line_of(code: &str, at: usize) -> usize {
    code[..at].matches('\n').count() + 1
}

/// Where `word` stands, not as part of a longer identifier.
fn words(code: &str, word: &str) -> Vec<usize> {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let starts_like_one = part(word.chars().next());
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(|at| !(starts_like_one && part(code[..*at].chars().next_back())))
        .collect()
}

/// Rooms named through `crate::`, or through enough `super::` to reach the crate.
fn rooms_named(path: &str, code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for crate_name in ["crate::", "rollgate::"] {
        for at in words(code, crate_name) {
            found.extend(
                first_names(&code[at + crate_name.len()..])
                    .into_iter()
                    .map(|name| (at, name)),
            );
        }
    }
    let stem = path.trim_end_matches(".rs").trim_end_matches("/mod");
    let climb = "super::".repeat(if stem == "lib" || stem == "main" {
        0
    } else {
        stem.split('/').count()
    });
    if !climb.is_empty() {
        for at in words(code, &climb) {
            found.extend(
                first_names(&code[at + climb.len()..])
                    .into_iter()
                    .map(|name| (at, name)),
            );
        }
    }
    let is_room = |name: &str| ARROWS.iter().any(|(room, _)| *room == name);
    found.retain(|(_, name)| is_room(name));
    found
}

/// `a` of `a::b`, or `a` and `c` of `{a::b, c::{d, e}}`.
fn first_names(rest: &str) -> Vec<String> {
    let name_at = |text: &str| -> String { text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
    if !rest.starts_with('{') {
        return vec![name_at(rest)];
    }
    let (mut depth, mut names, mut start) = (0, Vec::new(), true);
    for (at, c) in rest.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' => start = true,
            c if start && depth == 1 && !c.is_whitespace() => {
                names.push(name_at(&rest[at..]));
                start = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

/// The source with comments, strings and characters blanked; lines stay where they are.
fn without_comments_and_texts(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut code = String::with_capacity(source.len());
    let mut at = 0;
    let is = |at: usize, text: &str| text.chars().enumerate().all(|(n, c)| chars.get(at + n) == Some(&c));
    let blank = |code: &mut String, from: usize, to: usize| {
        code.extend(chars[from..to].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
    };
    while at < chars.len() {
        let end = if is(at, "//") {
            (at..chars.len()).find(|n| chars[*n] == '\n').unwrap_or(chars.len())
        } else if is(at, "/*") {
            (at + 2..chars.len())
                .find(|n| is(*n, "*/"))
                .map_or(chars.len(), |n| n + 2)
        } else if chars[at] == 'r'
            && (is(at, "r\"") || is(at, "r#"))
            && !at
                .checked_sub(1)
                .is_some_and(|n| chars[n].is_alphanumeric() && chars[n] != 'b')
        {
            let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
            let close = format!("\"{}", "#".repeat(hashes));
            if chars.get(at + 1 + hashes) == Some(&'"') {
                (at + 2 + hashes..chars.len())
                    .find(|n| is(*n, &close))
                    .map_or(chars.len(), |n| n + 1 + hashes)
            } else {
                at
            }
        } else if chars[at] == '"' {
            let mut n = at + 1;
            while n < chars.len() && chars[n] != '"' {
                n += if chars[n] == '\\' { 2 } else { 1 };
            }
            (n + 1).min(chars.len())
        } else if chars[at] == '\'' && (is(at + 1, "\\") || chars.get(at + 2) == Some(&'\'')) {
            let from = if is(at + 1, "\\") { at + 3 } else { at + 2 };
            (from..chars.len())
                .find(|n| chars[*n] == '\'')
                .map_or(chars.len(), |n| n + 1)
        } else {
            at
        };
        if end == at {
            code.push(chars[at]);
            at += 1;
        } else {
            blank(&mut code, at, end);
            at = end;
        }
    }
    code
}

// ---- the scanner can fail ----

fn faulty(path: &str, source: &str) -> bool {
    !scan(path, source).is_empty()
}

#[test]
fn forbidden_arrows_are_found_however_they_are_written() {
    for (path, source) in [
        ("routing/split.rs", "use crate::config::Snapshot;"),
        (
            "routing/split.rs",
            "use crate::{routing::Split, shared::{Pool, Shared}};",
        ),
        ("routing/split.rs", "fn f() { super::super::shared::Shared::new() }"),
        ("proxy/exchange.rs", "use crate::control::writer;"),
        ("control/writer.rs", "use super::super::proxy;"),
        ("control/mod.rs", "use super::proxy;"),
        ("telemetry/metrics/mod.rs", "use crate::admin::routes;"),
        ("attic/mod.rs", ""),
    ] {
        assert!(faulty(path, source), "{path}: {source}");
    }
    for (path, source) in [
        ("config/compile.rs", "use crate::routing::{Policy, Split};"),
        ("proxy/exchange.rs", "use crate::{http1, shared::Shared};"),
        ("control/writer.rs", "use super::load;"),
        ("main.rs", "fn main() { rollgate::cli::main() }"),
        (
            "routing/split.rs",
            "// as crate::control does\nlet a = \"crate::proxy::x\";",
        ),
        (
            "routing/split.rs",
            "#[cfg(test)]\nmod tests {\n use crate::config::Snapshot;\n}",
        ),
        ("routing/split_tests.rs", "use crate::config::Snapshot;"),
    ] {
        assert_eq!(scan(path, source), Vec::<String>::new(), "{path}: {source}");
    }
}

#[test]
fn forbidden_words_are_found_and_comments_texts_and_tests_are_not_code() {
    for (path, source) in [
        ("http1/head.rs", "let now = std::time::Instant::now();"),
        ("outcome.rs", "use std::net::TcpStream;"),
        ("routing/decide.rs", "async fn f() {}"),
        ("balancing/picker.rs", "let draw = fastrand::u64(..);"),
        ("config/compile.rs", "tracing::info!(\"x\");"),
        ("config/compile/mod.rs", "let c = '\"'; println!(\"x\");"),
        ("control/writer.rs", "use pingora_core::server::Server;"),
        ("proxy/accept.rs", "use pingora_proxy::HttpProxy;"),
        ("admin/routes.rs", "shared.publish(next);"),
        ("proxy/relay.rs", "#[allow(clippy::unwrap_used)]"),
        ("proxy/relay.rs", "#![allow(dead_code, clippy::expect_used)]"),
        ("proxy/relay.rs", "#[cfg_attr(all(), allow(clippy::indexing_slicing))]"),
        ("proxy/relay.rs", &"\n".repeat(LINES_MAX + 1)),
        ("routing/mod.rs", "#[cfg(test)]\nmod tests;\nuse tokio::net;"),
    ] {
        assert!(faulty(path, source), "{path}: {source}");
    }
    for (path, source) in [
        (
            "http1/head.rs",
            "// Instant::now is for the shell\nuse std::net::{IpAddr, SocketAddr};",
        ),
        (
            "http1/head.rs",
            "/* tokio */ let a = r#\"println!(\"x\")\"#; let b = \"a\\\"tokio\"; let c: &'static str = b;",
        ),
        ("http1/head.rs", "let operand = brand::x;"),
        (
            "http1/head.rs",
            "#[cfg(test)]\nmod tests {\n fn f() { Instant::now(); }\n}",
        ),
        ("proxy/accept.rs", "use pingora_core::server::Server;"),
        ("control/writer.rs", "self.shared.publish(next);"),
        (
            "cli/print.rs",
            "#![allow(clippy::print_stdout, reason = \"the answer to a command\")]",
        ),
        ("outcome.rs", "value.expect(\"a sum\")"),
        (
            "outcome.rs",
            "#[allow(clippy::indexing_slicing)] // evaluated by the compiler",
        ),
    ] {
        assert_eq!(scan(path, source), Vec::<String>::new(), "{path}: {source}");
    }
}
