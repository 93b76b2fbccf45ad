//! Aligned tables, and figures as their cells. Text from the proxy passes [`safe`] before a terminal sees it.

use super::print::PLAIN;
use crate::config::problem::printable_up_to;
use anstyle::Style;
use unicode_width::UnicodeWidthStr;

/// What stands where there is no data.
pub const NOTHING: &str = "-";
/// Characters of one text of the proxy that are shown.
const TEXT_MAX: usize = 2000;

/// On which side the cells of a column stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Left,
    Right,
}

#[derive(Debug, Clone)]
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            style: PLAIN,
        }
    }

    pub fn styled(text: impl Into<String>, style: Style) -> Self {
        Self {
            text: text.into(),
            style,
        }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

/// Rows under headings, as wide as they need to be.
#[derive(Debug)]
pub struct Table {
    columns: Vec<(&'static str, Side)>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub fn new(columns: &[(&'static str, Side)]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row of as many cells as there are columns.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// One line for the headings and each row, two blanks between columns, none at the end of a line.
    pub fn render(&self) -> String {
        let headings: Vec<Cell> = self
            .columns
            .iter()
            .map(|(heading, _)| Cell::styled(*heading, super::print::HEADING))
            .collect();
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|column| {
                let cells = std::iter::once(&headings)
                    .chain(&self.rows)
                    .filter_map(|row| row.get(column));
                cells.map(|cell| cell.text.width()).max().unwrap_or(0)
            })
            .collect();
        let sides: Vec<Side> = self.columns.iter().map(|(_, side)| *side).collect();
        std::iter::once(&headings)
            .chain(&self.rows)
            .map(|row| line(row, &widths, &sides))
            .collect()
    }
}

/// The cells at these widths, and a line break. A cell that is wider pushes the rest of its line.
pub fn line(row: &[Cell], widths: &[usize], sides: &[Side]) -> String {
    let mut text = String::new();
    let mut owed = 0;
    for ((cell, width), side) in row.iter().zip(widths).zip(sides) {
        let room = width.saturating_sub(cell.text.width());
        let (before, after) = match side {
            Side::Left => (0, room),
            Side::Right => (room, 0),
        };
        text.push_str(&" ".repeat(owed + before));
        let style = cell.style;
        text.push_str(&format!("{style}{}{style:#}", cell.text));
        owed = after + 2;
    }
    text.push('\n');
    text
}

/// A text of the proxy as a terminal may show it: on one line, control characters escaped, of bounded length.
pub fn safe(text: &str) -> String {
    printable_up_to(text, TEXT_MAX)
}

/// A percentage with two digits after the point; what is there but rounds to nothing is `<0.01`.
pub fn percent(value: Option<f64>) -> String {
    match value {
        Some(value) if value > 0.0 && value < 0.005 => "<0.01".to_owned(),
        Some(value) => format!("{value:.2}"),
        None => NOTHING.to_owned(),
    }
}

/// A rate or a number of milliseconds with one digit after the point.
pub fn tenths(value: Option<f64>) -> String {
    value.map_or(NOTHING.to_owned(), |value| format!("{value:.1}"))
}

/// `3 d 4 h`, `5 min 6 s`: the two largest units.
pub fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::print::{BAD, plain};

    #[test]
    fn columns_are_aligned_by_what_is_seen() {
        let mut table = Table::new(&[("NAME", Side::Left), ("RATE /s", Side::Right), ("WHO", Side::Left)]);
        table.row([Cell::new("a"), Cell::styled("1.0", BAD), Cell::new("ada")]);
        table.row([Cell::new("日本"), Cell::new("12345678.9"), Cell::new("é")]);
        let text = table.render();
        assert_eq!(
            plain(&text),
            "NAME     RATE /s  WHO\na            1.0  ada\n日本  12345678.9  é\n"
        );
        assert!(text.contains("\u{1b}[31m1.0\u{1b}[0m"), "{text:?}");
    }

    #[test]
    fn figures() {
        assert_eq!(
            [None, Some(0.0), Some(0.004), Some(0.005), Some(33.3333), Some(100.0)].map(percent),
            ["-", "0.00", "<0.01", "0.01", "33.33", "100.00"]
        );
        assert_eq!([None, Some(0.04), Some(1234.56)].map(tenths), ["-", "0.0", "1234.6"]);
        assert_eq!(
            [0, 59, 61, 3_599, 3_660, 86_399, 90_000].map(duration),
            [
                "0 s",
                "59 s",
                "1 min 1 s",
                "59 min 59 s",
                "1 h 1 min",
                "23 h 59 min",
                "1 d 1 h"
            ]
        );
    }

    #[test]
    fn nothing_of_a_text_reaches_the_terminal_as_a_command() {
        assert_eq!(safe("a\u{1b}[2Jb\nc"), "a\\u{1b}[2Jb\\nc");
        assert!(safe(&"x".repeat(1 << 20)).len() < 3000);
    }
}
