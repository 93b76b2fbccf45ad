//! `docs/openapi.json` is what the API says of itself. Regenerate it with `UPDATE_DOCS=1`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;

#[test]
fn the_committed_document_is_that_of_the_code() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    let generated = rollgate::admin::openapi();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&file, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    let differs = committed.lines().zip(generated.lines()).find(|(a, b)| a != b);
    assert!(
        committed == generated,
        "docs/openapi.json is not that of the code (UPDATE_DOCS=1 writes it); first difference: {differs:?}"
    );
}
