//! Whether a text seen on disk is one that somebody meant to be there: a pure rule, obeyed by
//! [`super::file_watcher`].
//!
//! A file that is renamed into place is whole the moment it appears. A file written in place passes through every
//! prefix of itself, and a prefix cut at a line end is often valid YAML that nobody wrote. No rule can see the future
//! of a writer that stops halfway, so this one asks for evidence instead:
//!
//! 1. nothing is taken while it still changes, or while its writer holds it open (for 2 s at most);
//! 2. a text that ends where the one in force goes on is refused: it could be a cut. Whoever means it renames a file
//!    into place, sends SIGHUP or runs `rollgate reload`. A block removed from the middle is no cut: the ending is there;
//! 3. a text that loses no name and no address and keeps its ending is taken after 100 ms, everything else after 2 s;
//! 4. a file that ends with the document end marker `...` is never cut: while the one in force has it, the next must.

use std::time::Duration;

/// How long a file renamed into place is left alone, so that a write to it right after is noticed.
pub const ATOMIC_SETTLE: Duration = Duration::from_millis(20);
/// A stream of renames does not put off the next one taken for longer than this.
pub const ATOMIC_PENDING_MAX: Duration = Duration::from_millis(60);
/// How long a file written in place must have kept size, time and content.
pub const STABLE: Duration = Duration::from_millis(100);
/// How long where the new text is unlike the old one in more than values.
pub const CONFIRM: Duration = Duration::from_secs(2);

/// Lines that a shorter text must share with the end of the one in force to count as ending alike.
const ENDING_LINES: usize = 3;

/// How a text got onto the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Renamed over the old one, or a link on the way to it was replaced.
    Atomic,
    /// Written into the file itself, created piece by piece, or noticed without knowing how.
    InPlace,
    /// Somebody asked for it: SIGHUP, `rollgate reload`.
    Explicit,
}

/// A text on disk that is not the last one handed on.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The text of the configuration in force.
    pub in_force: &'a str,
    pub text: &'a str,
    pub how: How,
    /// Time since content, size, modification time and inode were last seen to change.
    pub stable: Duration,
    /// Time since the first change after the last text handed on.
    pub pending: Duration,
    /// A process wrote to the file and has not closed it.
    pub writer_open: bool,
}

/// What to do with a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Take,
    /// Look again after this long, or when the file changes.
    Wait(Duration),
    /// Not without being asked for.
    Refuse(Suspicion),
}

/// Why a text is taken for the beginning of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspicion {
    /// Empty, or nothing but blanks.
    Empty,
    /// The text in force begins with it.
    Beginning,
    /// Its last line is not terminated; that of the text in force is.
    Unterminated,
    /// The text in force ends with `...`, this one does not.
    NoEndMarker,
    /// It stops before the end of the text in force, and has fewer lines, names or addresses.
    Shorter,
}

impl Suspicion {
    /// For the operator: what was seen. The remedy is the same for all of them.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "the file is empty",
            Self::Beginning => "the file is only the beginning of the one in force",
            Self::Unterminated => "the last line of the file has no line end, unlike the one in force",
            Self::NoEndMarker => "the file does not end with `...`, unlike the one in force",
            Self::Shorter => "the file stops before the end of the one in force and lacks lines, names or addresses",
        }
    }
}

/// Judges one candidate. Total and pure; linear in the length of the texts.
pub fn judge(candidate: &Candidate<'_>) -> Verdict {
    match candidate.how {
        How::Explicit => Verdict::Take,
        How::Atomic if candidate.pending >= ATOMIC_PENDING_MAX => Verdict::Take,
        How::Atomic => wait_until(candidate.stable, ATOMIC_SETTLE).unwrap_or(Verdict::Take),
        How::InPlace => judge_in_place(candidate),
    }
}

fn judge_in_place(candidate: &Candidate<'_>) -> Verdict {
    let needed = if candidate.writer_open { CONFIRM } else { STABLE };
    if let Some(wait) = wait_until(candidate.stable, needed) {
        return wait;
    }
    let (old, new) = (candidate.in_force, candidate.text);
    if old == new {
        return Verdict::Take;
    }
    if let Some(suspicion) = cut_by_its_bytes(old, new) {
        return Verdict::Refuse(suspicion);
    }
    let comparison = Comparison::of(old, new);
    if comparison.looks_cut() {
        return Verdict::Refuse(Suspicion::Shorter);
    }
    let needed = if comparison.keeps_everything() { STABLE } else { CONFIRM };
    wait_until(candidate.stable, needed).unwrap_or(Verdict::Take)
}

/// `None` once `stable` has reached `needed`.
fn wait_until(stable: Duration, needed: Duration) -> Option<Verdict> {
    let rest = needed.saturating_sub(stable);
    (!rest.is_zero()).then_some(Verdict::Wait(rest))
}

fn cut_by_its_bytes(old: &str, new: &str) -> Option<Suspicion> {
    if new.trim().is_empty() {
        return Some(Suspicion::Empty);
    }
    if old.starts_with(new) {
        return Some(Suspicion::Beginning);
    }
    if old.ends_with('\n') && !new.ends_with('\n') {
        return Some(Suspicion::Unterminated);
    }
    if !old.ends_with('\n') && last_line(old).starts_with(last_line(new)) && last_line(old) != last_line(new) {
        return Some(Suspicion::Beginning);
    }
    if ends_with_marker(old) && !ends_with_marker(new) {
        return Some(Suspicion::NoEndMarker);
    }
    None
}

fn last_line(text: &str) -> &str {
    text.rsplit('\n').next().unwrap_or(text)
}

fn ends_with_marker(text: &str) -> bool {
    text.trim_end().rsplit('\n').next().is_some_and(|line| line == "...")
}

/// What a new text keeps of an old one.
struct Comparison {
    fewer_lines: bool,
    fewer_names: bool,
    /// Every name and address of the old one is in the new one, as often.
    names_kept: bool,
    /// Lines that both end with.
    ending: usize,
    /// The most lines of the new text's end that also stand in the old one before its end.
    ending_elsewhere: usize,
    only_values_differ: bool,
}

impl Comparison {
    fn of(old: &str, new: &str) -> Self {
        let old_lines: Vec<&str> = old.split_inclusive('\n').collect();
        let new_lines: Vec<&str> = new.split_inclusive('\n').collect();
        let (ending, ending_elsewhere) = endings(&old_lines, &new_lines);
        let old_names = Identities::of(&old_lines);
        let new_names = Identities::of(&new_lines);
        Self {
            fewer_lines: new_lines.len() < old_lines.len(),
            fewer_names: new_names.names.len() < old_names.names.len()
                || new_names.addresses.len() < old_names.addresses.len(),
            names_kept: old_names.all_in(&new_names),
            ending,
            ending_elsewhere,
            only_values_differ: old_lines.len() == new_lines.len()
                && old_lines.iter().zip(&new_lines).all(|(a, b)| differ_in_values(a, b)),
        }
    }

    fn ends_alike(&self, lines: usize) -> bool {
        self.ending >= lines && self.ending > self.ending_elsewhere
    }

    fn looks_cut(&self) -> bool {
        (self.fewer_lines || self.fewer_names) && !self.ends_alike(ENDING_LINES)
    }

    /// Nothing is lost: only values changed, or lines were added before the ending.
    fn keeps_everything(&self) -> bool {
        self.only_values_differ || (!self.fewer_lines && self.names_kept && self.ends_alike(1))
    }
}

/// How many lines `old` and `new` have in common at their ends, and the longest run of lines at the end of `new` that
/// ends at another line of `old`. Z-algorithm on the reversed lines (Gusfield, Algorithms on Strings, 1.4).
fn endings(old: &[&str], new: &[&str]) -> (usize, usize) {
    let lines: Vec<Option<&str>> = (new.iter().rev().map(|line| Some(*line)))
        .chain([None])
        .chain(old.iter().rev().map(|line| Some(*line)))
        .collect();
    let mut run = vec![0_usize; lines.len()];
    let (mut left, mut right) = (0, 0);
    for at in 1..lines.len() {
        let known = run.get(at.wrapping_sub(left)).copied().unwrap_or(0);
        let mut length = if at < right { known.min(right - at) } else { 0 };
        while at + length < lines.len() && lines.get(length) == lines.get(at + length) {
            length += 1;
        }
        if at + length > right {
            (left, right) = (at, at + length);
        }
        if let Some(slot) = run.get_mut(at) {
            *slot = length;
        }
    }
    let mut of_old = run.into_iter().skip(new.len() + 1);
    let ending = of_old.next().unwrap_or(0);
    (ending, of_old.max().unwrap_or(0))
}

/// The names and addresses in a text, sorted.
struct Identities<'a> {
    names: Vec<&'a str>,
    addresses: Vec<&'a str>,
}

impl<'a> Identities<'a> {
    fn of(lines: &[&'a str]) -> Self {
        let (mut names, mut addresses) = (Vec::new(), Vec::new());
        for line in lines.iter().filter(|line| !line.trim_start().starts_with('#')) {
            let mut after_name = false;
            for word in line
                .split(|c: char| c.is_whitespace() || "[]{},\"'".contains(c))
                .filter(|w| !w.is_empty())
            {
                if after_name {
                    names.push(word);
                } else if is_address(word) {
                    addresses.push(word);
                }
                after_name = word == "name:";
            }
        }
        names.sort_unstable();
        addresses.sort_unstable();
        Self { names, addresses }
    }

    fn all_in(&self, other: &Self) -> bool {
        is_sub_multiset(&self.names, &other.names) && is_sub_multiset(&self.addresses, &other.addresses)
    }
}

fn is_address(word: &str) -> bool {
    word.rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

/// Both sorted.
fn is_sub_multiset(small: &[&str], large: &[&str]) -> bool {
    let mut rest = large.iter();
    small
        .iter()
        .all(|word| rest.by_ref().find(|other| *other >= word) == Some(word))
}

/// Whether two lines are equal but for numbers with their units, standing alone (`95`, `25%`, `500ms`); a digit in an
/// address or a name is part of it.
fn differ_in_values(a: &str, b: &str) -> bool {
    a == b || words(a).eq(words(b))
}

/// The words of a line and what stands between them, values replaced by one sign.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let is_between = |c: char| c.is_whitespace() || "[]{},".contains(c);
    let mut names_next = false;
    line.split_inclusive(is_between).flat_map(move |piece| {
        let word = piece.trim_end_matches(is_between);
        let between = piece.get(word.len()..).unwrap_or("");
        let masked = if is_value(word) && !names_next { "#" } else { word };
        if !word.is_empty() {
            names_next = word == "name:";
        }
        [masked, between]
    })
}

fn is_value(word: &str) -> bool {
    let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == '%');
    let number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    number && word.len() - digits.len() <= 3
}

#[cfg(test)]
#[path = "file_rule_tests.rs"]
mod tests;
