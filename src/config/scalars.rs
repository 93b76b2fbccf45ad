//! The scalars of the file: how texts, numbers and units are decoded.

use super::decode::{Decode, Section, a, expected, expected_with};
use super::problem::{Path, Problems, nearest};
use super::units::{self, Share, UnitError};
use super::yaml::{Node, Value};
use std::time::Duration;

/// Bytes of one text of the file.
pub const MAX_TEXT: usize = 4096;

/// The text of a scalar; a number or boolean without quotes is taken as the text it is written as.
impl Decode for String {
    fn decode(node: &Node, path: &Path<'_>, problems: &mut Problems<'_>) -> Option<Self> {
        let Value::Scalar { text, .. } = &node.value else {
            expected(node, path, problems, &a(&Self::kind()));
            return None;
        };
        if text.len() > MAX_TEXT {
            problems.add(
                path,
                format!("a text of {} bytes: at most {MAX_TEXT} are allowed", text.len()),
            );
            return None;
        }
        Some(text.to_string())
    }

    fn kind() -> String {
        "string".to_owned()
    }
}

/// Only `true` and `false`: YAML 1.2 has no other booleans.
impl Decode for bool {
    fn decode(node: &Node, path: &Path<'_>, problems: &mut Problems<'_>) -> Option<Self> {
        let (text, plain) = match &node.value {
            Value::Scalar { text, plain } => (&**text, *plain),
            _ => ("", false),
        };
        match text {
            "true" | "True" | "TRUE" if plain => return Some(true),
            "false" | "False" | "FALSE" if plain => return Some(false),
            _ => {}
        }
        let suggestion = match text.to_ascii_lowercase().as_str() {
            "yes" | "on" | "y" | "1" | "true" => Some("true"),
            "no" | "off" | "n" | "0" | "false" => Some("false"),
            word => ["true", "false"]
                .into_iter()
                .find(|known| nearest(word, [*known]).is_some()),
        };
        expected_with(node, path, problems, &Self::kind(), suggestion.map(str::to_owned));
        None
    }

    fn kind() -> String {
        "`true` or `false`".to_owned()
    }
}

/// A whole number from `MIN` to `MAX`, without quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole<const MIN: u64, const MAX: u64>(pub u64);

impl<const MIN: u64, const MAX: u64> Decode for Whole<MIN, MAX> {
    fn decode(node: &Node, path: &Path<'_>, problems: &mut Problems<'_>) -> Option<Self> {
        let (number, unquoted) = match &node.value {
            Value::Scalar { text, plain } => (units::whole(text, MIN, MAX), *plain),
            _ => (None, true),
        };
        if let (Some(number), true) = (number, unquoted) {
            return Some(Self(number));
        }
        let suggestion = number.map(|number| number.to_string());
        expected_with(node, path, problems, &a(&Self::kind()), suggestion);
        None
    }

    fn kind() -> String {
        format!("whole number from {} to {}", grouped(MIN), grouped(MAX))
    }
}

/// `1000000` as `1,000,000`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A finite decimal number, without quotes.
impl Decode for f64 {
    fn decode(node: &Node, path: &Path<'_>, problems: &mut Problems<'_>) -> Option<Self> {
        let (number, unquoted) = match &node.value {
            Value::Scalar { text, plain } => (units::number(text), *plain),
            _ => (None, true),
        };
        if let (Some(number), true) = (number, unquoted) {
            return Some(number);
        }
        let suggestion = number.map(|number| number.to_string());
        expected_with(node, path, problems, &a(&Self::kind()), suggestion);
        None
    }

    fn kind() -> String {
        "number such as `365` or `0.5`".to_owned()
    }
}

/// A value of a unit; quotes make no difference.
fn unit<T>(
    node: &Node,
    path: &Path<'_>,
    problems: &mut Problems<'_>,
    what: &str,
    parse: impl Fn(&str) -> Result<T, UnitError>,
) -> Option<T> {
    let Value::Scalar { text, .. } = &node.value else {
        expected(node, path, problems, what);
        return None;
    };
    match parse(text) {
        Ok(value) => Some(value),
        Err(UnitError { message, suggestion }) => {
            let suggestion = suggestion.filter(|text| parse(text).is_ok());
            expected_with(node, path, problems, message, suggestion);
            None
        }
    }
}

/// A duration above zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period(pub Duration);

impl Decode for Period {
    fn decode(node: &Node, path: &Path<'_>, problems: &mut Problems<'_>) -> Option<Self> {
        let duration = unit(node, path, problems, units::DURATION, units::duration)?;
        if duration.is_zero() {
            problems.add(path, "expected a duration above zero");
            return None;
        }
        Some(Self(duration))
    }

    fn kind() -> String {
        "duration".to_owned()
    }
}

/// A duration that may be zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delay(pub Duration);

impl Decode for Delay {
    fn decode(node: &Node, path: &Path<'_>, problems: &mut Problems<'_>) -> Option<Self> {
        unit(node, path, problems, units::DURATION, units::duration).map(Self)
    }

    fn kind() -> String {
        "duration".to_owned()
    }
}

/// A duration, or `never`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    Never,
    After(Duration),
}

impl Drain {
    /// `None`: never.
    pub fn after(self) -> Option<Duration> {
        match self {
            Self::Never => None,
            Self::After(duration) => Some(duration),
        }
    }
}

impl Decode for Drain {
    fn decode(node: &Node, path: &Path<'_>, problems: &mut Problems<'_>) -> Option<Self> {
        match &node.value {
            Value::Scalar { text, .. } if &**text == "never" => Some(Self::Never),
            Value::Scalar { text, .. } if nearest(text, ["never"]).is_some() => {
                expected_with(node, path, problems, &a(&Self::kind()), Some("never".to_owned()));
                None
            }
            _ => Delay::decode(node, path, problems).map(|delay| Self::After(delay.0)),
        }
    }

    fn kind() -> String {
        "duration or `never`".to_owned()
    }
}

impl Decode for Share {
    fn decode(node: &Node, path: &Path<'_>, problems: &mut Problems<'_>) -> Option<Self> {
        unit(node, path, problems, units::SHARE, units::share)
    }

    fn kind() -> String {
        "percentage".to_owned()
    }
}

/// Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

impl Decode for Size {
    fn decode(node: &Node, path: &Path<'_>, problems: &mut Problems<'_>) -> Option<Self> {
        unit(node, path, problems, units::SIZE, units::size).map(Self)
    }

    fn kind() -> String {
        "size".to_owned()
    }
}

/// A weight: 0 to 1,000,000.
pub type Weight = Whole<0, { units::MAX_WEIGHT as u64 }>;

/// `auto`, or a number of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    Auto,
    Fixed(usize),
}

impl Decode for Threads {
    fn decode(node: &Node, path: &Path<'_>, problems: &mut Problems<'_>) -> Option<Self> {
        if let Value::Scalar { text, .. } = &node.value {
            if &**text == "auto" {
                return Some(Self::Auto);
            }
            if let Some(number) = units::whole(text, 1, 1024) {
                return Some(Self::Fixed(usize::try_from(number).unwrap_or(1)));
            }
        }
        expected(node, path, problems, &Self::kind());
        None
    }

    fn kind() -> String {
        "`auto` or a number from 1 to 1,024".to_owned()
    }
}

/// `true`, `false`, or the port that requests are redirected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedirectToHttps(pub Option<u16>);

impl Decode for RedirectToHttps {
    fn decode(node: &Node, path: &Path<'_>, problems: &mut Problems<'_>) -> Option<Self> {
        if let Value::Scalar { text, plain: true } = &node.value {
            match &**text {
                "true" => return Some(Self(Some(443))),
                "false" => return Some(Self(None)),
                _ => {}
            }
            if let Some(port) = units::whole(text, 1, 65_535) {
                return Some(Self(u16::try_from(port).ok()));
            }
        }
        expected(node, path, problems, &Self::kind());
        None
    }

    fn kind() -> String {
        "`true`, `false` or a port".to_owned()
    }
}

/// Permission bits in octal: `0600`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode(pub u32);

impl Decode for Mode {
    fn decode(node: &Node, path: &Path<'_>, problems: &mut Problems<'_>) -> Option<Self> {
        if let Value::Scalar { text, .. } = &node.value {
            let digits = text.strip_prefix("0o").unwrap_or(text);
            let octal = (3..=4).contains(&digits.len()) && digits.bytes().all(|b| (b'0'..=b'7').contains(&b));
            if let (true, Ok(mode @ 0..=0o777)) = (octal, u32::from_str_radix(digits, 8)) {
                return Some(Self(mode));
            }
        }
        expected(node, path, problems, &Self::kind());
        None
    }

    fn kind() -> String {
        "octal permission bits such as `0600` or `0660`".to_owned()
    }
}

/// `off`, or the settings of what can be turned off.
#[derive(Debug, Clone, PartialEq)]
pub enum Switch<T> {
    Off,
    On(T),
}

impl<T: Decode> Decode for Switch<T> {
    fn decode(node: &Node, path: &Path<'_>, problems: &mut Problems<'_>) -> Option<Self> {
        match &node.value {
            Value::Scalar { text, .. } if &**text == "off" => Some(Self::Off),
            Value::Mapping(_) => T::decode(node, path, problems).map(Self::On),
            _ => {
                expected(node, path, problems, &Self::kind());
                None
            }
        }
    }

    fn kind() -> String {
        format!("`off` or {}", a(&T::kind()))
    }

    fn describe(place: &str, sections: &mut Vec<Section>) {
        T::describe(place, sections);
    }
}

/// `true` or `false`, or the settings of what can be on.
#[derive(Debug, Clone, PartialEq)]
pub enum OnOff<T> {
    Plain(bool),
    Full(T),
}

impl<T: Decode> Decode for OnOff<T> {
    fn decode(node: &Node, path: &Path<'_>, problems: &mut Problems<'_>) -> Option<Self> {
        match &node.value {
            Value::Scalar { .. } => bool::decode(node, path, problems).map(Self::Plain),
            Value::Mapping(_) => T::decode(node, path, problems).map(Self::Full),
            Value::Sequence(_) | Value::Null => {
                expected(node, path, problems, &Self::kind());
                None
            }
        }
    }

    fn kind() -> String {
        format!("`true`, `false` or {}", a(&T::kind()))
    }

    fn describe(place: &str, sections: &mut Vec<Section>) {
        T::describe(place, sections);
    }
}
