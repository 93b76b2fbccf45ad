//! The properties that the fuzz targets hold, over seeded mutations of their corpora: the same run every time, with plain
//! `cargo test`. `ROLLGATE_MUTATIONS` sets how many mutations of each seed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr
)]

#[path = "fuzz/properties.rs"]
mod properties;

use std::path::Path;

/// xorshift64*: deterministic, no dependency.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        drawn as usize % bound.max(1)
    }
}

/// What smuggling is made of.
const PIECES: [&str; 51] = [
    "\r\n",
    "\n",
    "\r",
    "\r\n\r\n",
    "\n\n",
    " ",
    "\t",
    "\0",
    "\u{b}",
    "\u{7f}",
    "\u{e9}",
    ":",
    ": ",
    " :",
    ",",
    ";",
    "\"",
    "\\",
    "#",
    "?",
    "*",
    "@",
    "[::1]",
    "%0d%0a",
    "/..",
    "//",
    "%2e",
    "0",
    "00",
    "+5",
    "-1",
    "5, 5",
    "0x5",
    "ffffffffffffffff",
    "chunked",
    "gzip, chunked",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding : chunked\r\n",
    "Transfer_Encoding: chunked\r\n",
    "Content-Length: 5\r\n",
    "content-length: 0\r\n",
    "Connection: close\r\n",
    "Connection: Content-Length\r\n",
    "Connection: X-A, TE\r\n",
    "Host: b\r\n",
    "Upgrade: h2c\r\n",
    "Expect: 100-continue\r\n",
    "HTTP/1.0",
    "HTTP/1.1",
    "http://a",
    "0\r\n\r\n",
];

fn mutate(seed: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len() + 1);
        let end = (at + 1 + random.below(12)).min(bytes.len());
        match random.below(7) {
            0 => drop(bytes.splice(at..at, PIECES[random.below(PIECES.len())].bytes())),
            1 => drop(bytes.splice(at..end, PIECES[random.below(PIECES.len())].bytes())),
            2 => drop(bytes.drain(at..end)),
            3 if at < bytes.len() => bytes[at] = random.below(256) as u8,
            4 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            5 => {
                let again = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, again));
            }
            _ => {
                bytes.truncate(at);
                bytes.extend_from_slice(&other[random.below(other.len() + 1)..]);
            }
        }
    }
    bytes
}

fn run(target: &str, property: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/corpus")
        .join(target);
    let mut paths: Vec<_> = std::fs::read_dir(&corpus).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    // What a fuzzer found here has no extension either, and does no harm; there are seeds in any case.
    let seeds: Vec<Vec<u8>> = paths.iter().map(|p| std::fs::read(p).unwrap()).collect();
    assert!(seeds.len() >= 8, "seeds of {target}");
    let rounds = std::env::var("ROLLGATE_MUTATIONS").map_or(600, |n| n.parse().unwrap());
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for seed in &seeds {
        property(seed);
        for _ in 0..rounds {
            let other = &seeds[random.below(seeds.len())];
            let input = mutate(seed, other, &mut random);
            let held = std::panic::catch_unwind(|| property(&input));
            assert!(held.is_ok(), "{target} fails on b\"{}\"", input.escape_ascii());
        }
    }
}

#[test]
fn request_heads() {
    run("request_head", properties::request_head);
}

#[test]
fn response_heads() {
    run("response_head", properties::response_head);
}

#[test]
fn chunks() {
    run("chunk", properties::chunk);
}

#[test]
fn rewrites() {
    run("rewrite", properties::rewrite);
}

#[test]
fn proxy_headers() {
    run("proxy_header", properties::proxy_header);
}
