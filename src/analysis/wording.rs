//! Numbers as an operator reads them.

/// `2.1 %` of 0.021: one decimal, below 0.1 % two digits, and no zeros at the end.
pub fn percent(part: f64) -> String {
    let percent = part * 100.0;
    let decimals = if percent >= 0.1 { 1 } else { 4 };
    format!("{} %", trimmed(percent, decimals))
}

/// `212 ms` of 212,000 microseconds.
pub(super) fn duration(us: f64) -> String {
    match us {
        us if us < 1_000.0 => format!("{us:.0} µs"),
        us if us < 10_000.0 => format!("{} ms", trimmed(us / 1_000.0, 1)),
        us if us < 1_000_000.0 => format!("{:.0} ms", us / 1_000.0),
        us => format!("{} s", trimmed(us / 1_000_000.0, 2)),
    }
}

/// `412` of `ln 412`, as in "412 to 1".
pub(super) fn to_one(log: f64) -> String {
    let times = libm::exp(log);
    match times {
        times if times < 0.1 => "less than 0.1".to_owned(),
        times if times < 10.0 => trimmed(times, 1),
        times if times < 1e9 => format!("{times:.0}"),
        _ => "more than a billion".to_owned(),
    }
}

/// Four digits or so.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    match size {
        size if size >= 1e15 || (size > 0.0 && size < 1e-4) => format!("{value:.3e}"),
        size if size >= 1_000.0 => trimmed(value, 0),
        size if size >= 10.0 => trimmed(value, 2),
        _ => trimmed(value, 4),
    }
}

fn trimmed(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let percents = [
            (0.021, "2.1 %"),
            (140.0 / 27_000.0, "0.5 %"),
            (1.0, "100 %"),
            (0.0, "0 %"),
            (0.000_042, "0.0042 %"),
        ];
        for (part, text) in percents {
            assert_eq!(percent(part), text);
        }
        let durations = [
            (63.0, "63 µs"),
            (1_540.0, "1.5 ms"),
            (212_300.0, "212 ms"),
            (1_240_000.0, "1.24 s"),
        ];
        for (us, text) in durations {
            assert_eq!(duration(us), text);
        }
        let odds = [
            (0.01, "less than 0.1"),
            (0.44, "0.4"),
            (2.0, "2"),
            (412.3, "412"),
            (1e12, "more than a billion"),
        ];
        for (times, text) in odds {
            assert_eq!(to_one(libm::log(times)), text);
        }
        let numbers = [
            (0.1234567, "0.1235"),
            (12.0, "12"),
            (12.345, "12.35"),
            (-1234.5, "-1234"),
            (1e-7, "1.000e-7"),
        ];
        for (value, text) in numbers {
            assert_eq!(number(value), text);
        }
    }
}
