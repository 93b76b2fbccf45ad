//! Text -> [`Snapshot`], or every problem at once.
//!
//! [`yaml`] makes a tree of nodes with their places, `schema` what the file may say, `compile` checks what it means.
//! Nothing here touches the disk: `control::load` reads the file and checks those it names.

mod compile;
mod condition;
mod decode;
pub mod diff;
pub mod problem;
pub mod reference;
mod scalars;
mod schema;
pub mod snapshot;
#[cfg(test)]
mod tests;
pub mod tokens;
pub mod units;
pub mod yaml;

pub use compile::host_and_port;
pub use diff::{Diff, diff};
pub use problem::Problem;
pub use snapshot::Snapshot;

use decode::Decode;
use problem::{Path, Problems};

/// The configuration that `text` holds. Relative paths in it start from `base`, the directory of the file.
///
/// Total: any text gives a snapshot or problems, in time and memory bounded by [`yaml::MAX_FILE_BYTES`] and the other
/// bounds of [`yaml`].
///
/// # Errors
/// Every problem of the text, at least one and at most [`problem::MAX_PROBLEMS`], in the order of the file.
pub fn parse(text: &str, base: &std::path::Path) -> Result<Snapshot, Vec<Problem>> {
    let (tree, duplicates) = yaml::parse(text).map_err(|problem| vec![problem])?;
    let mut problems = Problems::new(&tree, duplicates);
    match schema::Root::decode(&tree, &Path::ROOT, &mut problems) {
        Some(root) => compile::compile(&root, &tree, base, problems),
        None => Err(problems.into_sorted()),
    }
}

/// As [`parse`], of bytes that may not even be text.
///
/// # Errors
/// As [`parse`], and bytes that are not UTF-8.
pub fn parse_bytes(bytes: &[u8], base: &std::path::Path) -> Result<Snapshot, Vec<Problem>> {
    let problem = |line, column, message| {
        Err(vec![Problem {
            path: String::new(),
            line,
            column,
            message,
            suggestion: None,
        }])
    };
    if bytes.len() > yaml::MAX_FILE_BYTES {
        return problem(1, 1, yaml::too_large(bytes.len() as u64));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(text, base),
        Err(error) => {
            let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let text = std::str::from_utf8(valid).unwrap_or_default();
            let line = text.matches('\n').count() + 1;
            let column = text.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            problem(
                line,
                column,
                "the file is not text: it holds bytes that are not UTF-8".to_owned(),
            )
        }
    }
}
