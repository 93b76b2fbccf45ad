//! Numbers that an application writes into the head of its answer for the proxy alone.

use super::ResponseHead;
use super::field::Kind;
use super::head::{slice, text};

/// Bytes of a number.
const MAX_BYTES: usize = 32;
/// What is larger is no measurement; it would drown all others in a sum of squares.
const MAX_SIZE: f64 = 1e15;

impl ResponseHead {
    /// Takes the numbers in the fields called `names` (lowercase), read from `buf`, in their order: `None` where there is
    /// no such field, or more than one, or no decimal number of at most 32 bytes and 10^15 in it. None of these fields
    /// is forwarded, whatever is in it. Without names it does not allocate.
    pub fn take_numbers<'n>(
        &mut self,
        buf: &[u8],
        names: impl ExactSizeIterator<Item = &'n str> + Clone,
    ) -> Box<[Option<f64>]> {
        let mut numbers = vec![None; names.len()];
        let mut seen = vec![false; names.len()];
        for field in &mut self.index.0 {
            let name = text(buf, field.name);
            let slots = numbers.iter_mut().zip(&mut seen).zip(names.clone());
            let mut called = slots.filter(|(_, wanted)| name.eq_ignore_ascii_case(wanted)).peekable();
            if called.peek().is_some() && field.kind == Kind::Other {
                field.kind = Kind::Rollgate;
            }
            for ((number, seen), _) in called {
                *number = if *seen { None } else { decimal(slice(buf, field.value)) };
                *seen = true;
            }
        }
        numbers.into()
    }
}

/// `12`, `-0.5`, `1.2e3`; no `inf`, no `nan`.
fn decimal(value: &[u8]) -> Option<f64> {
    let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
    if value.len() > MAX_BYTES || !value.iter().all(is_part) {
        return None;
    }
    let number: f64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    (number.abs() <= MAX_SIZE).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::super::{
        Framing, HeadLimits, HeadParser, MethodKind, ResponseAdditions, Upgrading, Version, parse_response,
        write_response,
    };
    use super::*;
    use proptest::prelude::*;

    const NAMES: [&str; 3] = ["x-orders", "x-rollgate-value", "date"];

    /// The numbers in an answer with these lines, and the fields of it that are forwarded.
    fn taken(lines: &str) -> ([Option<f64>; 3], String) {
        let head = format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: 0\r\n\r\n");
        let buf = head.as_bytes();
        let parsed = parse_response(
            buf,
            MethodKind::Get,
            Upgrading::default(),
            &HeadLimits::default(),
            &mut HeadParser::new(),
        );
        let mut parsed = parsed.unwrap().unwrap();
        let numbers = parsed.take_numbers(buf, NAMES.into_iter());
        let mut out = Vec::new();
        let additions = ResponseAdditions {
            client: Version::Http11,
            close: false,
            keep_alive_10: false,
            set_cookie: None,
            version: None,
            framing: Framing::None,
            date: None,
            hsts: None,
            via: false,
            upgrading: Upgrading::default(),
            edits: None,
        };
        write_response(&mut out, &parsed, buf, &additions);
        let out = String::from_utf8(out).unwrap();
        let lines = out
            .lines()
            .skip(1)
            .filter(|line| !line.is_empty() && !line.starts_with("Content-Length"));
        let numbers = numbers.as_ref().try_into().unwrap();
        (numbers, lines.map(|line| format!("{line}\n")).collect())
    }

    #[test]
    fn numbers_are_taken_and_not_forwarded() {
        assert_eq!(
            taken("X-Orders: 1\r\nx-rollgate-value: -12.5\r\nx-orders-more: 2\r\n"),
            ([Some(1.0), Some(-12.5), None], "x-orders-more: 2\n".to_owned())
        );
        assert_eq!(taken("a: b\r\n"), ([None; 3], "a: b\n".to_owned()));
        // What the proxy itself knows of stays.
        let date = "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n";
        assert_eq!(taken(date), ([None; 3], date.replace('\r', "")));
    }

    #[test]
    fn what_is_no_number_counts_as_nothing_and_is_not_forwarded_either() {
        for value in [
            "",
            "x",
            "nan",
            "inf",
            "-infinity",
            "1e400",
            "1e16",
            "1,5",
            "1 2",
            "0x10",
            "--1",
            "e",
            "1e",
            "+",
            "000000000000000000000000000000001",
            "\u{663}",
        ] {
            assert_eq!(
                taken(&format!("x-orders: {value}\r\n")),
                ([None; 3], String::new()),
                "{value:?}"
            );
        }
        for (value, number) in [
            ("1e3", 1_000.0),
            (" 7 ", 7.0),
            ("+.5", 0.5),
            ("-0", 0.0),
            ("1e-400", 0.0),
        ] {
            assert_eq!(taken(&format!("x-orders: {value}\r\n")).0[0], Some(number), "{value:?}");
        }
        for twice in [
            "x-orders: 1\r\nx-orders: 1\r\n",
            "x-orders: 1\r\nX-Orders: x\r\nx-orders: 3\r\n",
        ] {
            assert_eq!(taken(twice), ([None; 3], String::new()));
        }
    }

    proptest! {
        #[test]
        fn any_value_is_a_bounded_number_or_nothing_and_stays_here(value in "[ -~]{0,40}") {
            let (numbers, forwarded) = taken(&format!("x-orders: {value}\r\n"));
            prop_assert_eq!(forwarded, "");
            prop_assert!(numbers[0].is_none_or(|number| number.abs() <= MAX_SIZE));
        }

        #[test]
        fn numbers_come_as_they_were_written(number in -1e15..1e15) {
            prop_assert_eq!(taken(&format!("x-orders: {number:e}\r\n")).0[0], Some(number));
        }
    }
}
