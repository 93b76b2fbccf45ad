//! `docs/configuration.md` says what the schema says. Regenerate it with `UPDATE_DOCS=1`.

use std::path::Path;

#[test]
fn the_committed_reference_is_that_of_the_schema() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let generated = rollgate::config::reference::markdown();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&file, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    let differs = committed.lines().zip(generated.lines()).find(|(a, b)| a != b);
    assert!(
        committed == generated,
        "docs/configuration.md is not that of the schema (UPDATE_DOCS=1 writes it); first difference: {differs:?}"
    );
}
