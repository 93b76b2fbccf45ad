//! The reference of the file, `docs/configuration.md`, from the schema.

use super::decode::{Decode, Row, Section};
use super::schema::Root;
use std::fmt::Write;

const INTRODUCTION: &str = "# Configuration

<!-- Generated from the schema (src/config). Do not edit: run `UPDATE_DOCS=1 cargo test --test config_reference`. -->

`rollgate run --config rollgate.yaml` reads one YAML 1.2 file; `rollgate check rollgate.yaml` says what is wrong with it,
all at once, each problem with its line, column, path, what was expected, and often what was meant. Run and check use the
same code. A file with a problem is refused whole. [`config/full.yaml`](../config/full.yaml) shows every part; the
smallest file is this:

```yaml
listeners:
  - address: 0.0.0.0:8080
services:
  - name: shop
    versions:
      - { name: v1, pool: { endpoints: [\"127.0.0.1:9001\"] } }
      - { name: v2, pool: { endpoints: [\"127.0.0.1:9002\"] } }
```

## Rules for all keys

- Unknown keys, keys written twice and keys without a value are errors. To use a default, leave the key out.
- **Durations** have a unit: `500ms`, `30s`, `10m`, `2h`, `30d`; decimals down to a millisecond (`1.5s`); at most ten years.
- **Percentages** have a `%`, from `0%` to `100%` in steps of `0.001%`.
- **Sizes** have a unit: `B`, `KiB`, `MiB`, `GiB`, `TiB`, or the powers of ten `kB`, `MB`, `GB`, `TB`.
- **Booleans** are `true` and `false`; `on`, `off`, `yes` and `no` are words like any other, as YAML 1.2 says.
- **Strings** may be written without quotes where YAML allows it: `equals: 1` is the text `1`. Numbers and booleans must
  not be quoted.
- **Names** (of services, versions, rules, segments) have letters, digits, `.`, `_` and `-`, at most 64.
- Relative paths start from the directory of the file.
- Anchors and aliases work; tags (`!...`) and merge keys (`<<`) do not.
- A file has at most 1 MiB, 250,000 values and 64 levels, aliases counted as what they stand for.

Some keys are accepted and checked, and not acted on by this version: `check` warns of each. Where leaving it out would
be unsafe (plain text on a listener that asks for TLS), `run` and a reload refuse the file.
";

/// The text of `docs/configuration.md`.
pub fn markdown() -> String {
    let mut sections = Vec::new();
    Root::describe("", &mut sections);
    let mut text = INTRODUCTION.to_owned();
    for section in &sections {
        // Writing to a string cannot fail.
        let _ = write_section(&mut text, section);
    }
    text
}

fn write_section(text: &mut String, section: &Section) -> std::fmt::Result {
    if section.place.is_empty() {
        writeln!(text, "\n## The file\n\n{}", section.doc)?;
    } else {
        writeln!(text, "\n## `{}`\n\n{}", section.place, section.doc)?;
    }
    writeln!(text, "\n| key | value | default | |\n|---|---|---|---|")?;
    for row in &section.rows {
        let cell = |text: &str| text.replace('|', "\\|");
        writeln!(
            text,
            "| `{}` | {} | {} | {} |",
            row.key,
            cell(&row.kind),
            default(row),
            cell(&row.doc)
        )?;
    }
    Ok(())
}

fn default(row: &Row) -> String {
    match row.default {
        Some("{}") if row.kind.starts_with("mapping of") => "none".to_owned(),
        Some("{}") => "all defaults".to_owned(),
        Some("[]") => "none".to_owned(),
        Some(text) => format!("`{text}`"),
        None if row.required => "**required**".to_owned(),
        None => String::new(),
    }
}

/// Every default of the reference, as `(place, key, text)`: each must be right by itself.
#[cfg(test)]
pub(super) fn defaults() -> Vec<(String, &'static str, &'static str)> {
    let mut sections = Vec::new();
    Root::describe("", &mut sections);
    let of = |section: &Section| {
        let place = section.place.clone();
        section
            .rows
            .iter()
            .filter_map(move |row| Some((place.clone(), row.key, row.default?)))
            .collect::<Vec<_>>()
    };
    sections.iter().flat_map(of).collect()
}
