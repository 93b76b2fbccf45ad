//! The properties that the fuzz targets of texts hold, over their seeds: each whole, each beginning of it, and each with
//! one byte replaced by what means something in YAML or in a cookie.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "fuzz/text_properties.rs"]
mod properties;

use std::path::Path;

fn run(target: &str, property: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/corpus")
        .join(target);
    let mut seeds = 0;
    for entry in std::fs::read_dir(&corpus).unwrap() {
        let seed = std::fs::read(entry.unwrap().path()).unwrap();
        seeds += 1;
        property(&seed);
        for at in 0..seed.len() {
            property(&seed[..at]);
            for byte in *b"\n\t :-[{&*\"'#;=\xff\0" {
                let mut changed = seed.clone();
                changed[at] = byte;
                let held = std::panic::catch_unwind(|| property(&changed));
                assert!(held.is_ok(), "{target} fails on b\"{}\"", changed.escape_ascii());
            }
        }
    }
    assert!(seeds >= 4, "seeds of {target}");
}

#[test]
fn configurations() {
    run("config", properties::config);
}

#[test]
fn cookies() {
    run("cookie", properties::cookie);
}
