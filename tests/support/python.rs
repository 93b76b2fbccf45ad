//! Programs of Python that tests use: `.ci/setup` installs what `tests/NAME/requirements.txt` lists into a place of its own.

use std::fs;
use std::path::{Path, PathBuf};

/// A program of the environment `name`.
///
/// # Panics
/// When it is not installed, or other packages than are asked for now.
pub fn python_program(name: &str, program: &str) -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty());
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache");
    let place = cache.map_or_else(home, PathBuf::from).join("rollgate").join(name);
    let installed = fs::read_to_string(place.join("requirements.txt")).unwrap_or_default();
    let wanted = fs::read_to_string(python_file(name, "requirements.txt")).unwrap();
    assert!(
        installed == wanted,
        "tests/{name}/requirements.txt is needed for this test: `make test` or `.ci/setup test` installs it into {}",
        place.display()
    );
    place.join("bin").join(program)
}

/// A file beside the list of what `name` needs.
pub fn python_file(name: &str, file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(name)
        .join(file)
}
