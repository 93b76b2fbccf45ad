//! The units of the file: durations, shares, sizes, weights. Each is exact: what cannot be held exactly is refused.

use std::time::Duration;

/// The longest duration: ten years of 365 days.
pub const MAX_DURATION: Duration = Duration::from_secs(3650 * 86_400);
/// The largest size: 1 PiB.
pub const MAX_SIZE: u64 = 1 << 50;
/// The largest weight.
pub const MAX_WEIGHT: u32 = 1_000_000;

/// A percentage, in thousandths of a percent: 0 to 100,000. One thousandth is one bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share(u32);

impl Share {
    pub const ZERO: Self = Self(0);
    pub const WHOLE: Self = Self(100_000);

    /// 0 to 100,000.
    pub fn thousandths_percent(self) -> u32 {
        self.0
    }

    /// 0.0 to 1.0.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 100_000.0
    }
}

/// Why a text is not in the unit expected, and the text that may have been meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitError {
    pub message: &'static str,
    pub suggestion: Option<String>,
}

impl UnitError {
    fn new(message: &'static str) -> Self {
        Self {
            message,
            suggestion: None,
        }
    }

    fn suggesting(message: &'static str, suggestion: String) -> Self {
        Self {
            message,
            suggestion: Some(suggestion),
        }
    }
}

/// A decimal number without sign or exponent, as billionths, and the text after it. At most 9 decimals.
fn decimal(text: &str) -> Option<(u128, &str)> {
    const BILLION: u128 = 1_000_000_000;
    let end_of_digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (whole, rest) = text.split_at_checked(end_of_digits(text))?;
    // 19 digits are below 10^19: with the billionths, far below the bound of u128.
    if whole.is_empty() || whole.len() > 19 {
        return None;
    }
    let billionths = whole.parse::<u128>().ok()?.checked_mul(BILLION)?;
    let Some(after_dot) = rest.strip_prefix('.') else {
        return Some((billionths, rest));
    };
    let (decimals, rest) = after_dot.split_at_checked(end_of_digits(after_dot))?;
    if decimals.is_empty() || decimals.len() > 9 {
        return None;
    }
    let part = format!("{decimals:0<9}").parse::<u128>().ok()?;
    Some((billionths.checked_add(part)?, rest))
}

/// What a duration looks like.
pub const DURATION: &str = "a duration such as `500ms`, `30s`, `10m`, `2h` or `30d`";

/// `500ms`, `1.5s`, `10m`, `2h`, `30d`: zero to [`MAX_DURATION`], in whole milliseconds.
///
/// # Errors
/// Another form, a missing or unknown unit, finer than a millisecond, or out of range.
pub fn duration(text: &str) -> Result<Duration, UnitError> {
    let Some((billionths, unit)) = decimal(text) else {
        return Err(UnitError::new(DURATION));
    };
    let unit_ms: u128 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" if billionths == 0 => return Err(UnitError::suggesting("a duration with its unit", "0s".to_owned())),
        "" => {
            return Err(UnitError::suggesting(
                "a duration with its unit (`ms`, `s`, `m`, `h` or `d`)",
                format!("{text}s"),
            ));
        }
        _ => return Err(UnitError::new(DURATION)),
    };
    let product = billionths.checked_mul(unit_ms).ok_or(UnitError::new(DURATION))?;
    if product % 1_000_000_000 != 0 {
        return Err(UnitError::new("a duration in whole milliseconds"));
    }
    let duration = u64::try_from(product / 1_000_000_000).map(Duration::from_millis);
    match duration {
        Ok(duration) if duration <= MAX_DURATION => Ok(duration),
        _ => Err(UnitError::new("a duration of at most `3650d`")),
    }
}

/// What a share looks like.
pub const SHARE: &str = "a percentage from `0%` to `100%`, such as `25%` or `0.1%`";

/// `0%` to `100%`, in steps of `0.001%`.
///
/// # Errors
/// Another form, no `%`, finer than 0.001 %, or above 100 %.
pub fn share(text: &str) -> Result<Share, UnitError> {
    let Some((billionths, unit)) = decimal(text) else {
        return Err(UnitError::new(SHARE));
    };
    match unit.trim_start_matches(' ') {
        "%" => {}
        "" => return Err(UnitError::suggesting("a percentage with its `%`", format!("{text}%"))),
        _ => return Err(UnitError::new(SHARE)),
    }
    if billionths % 1_000_000 != 0 {
        return Err(UnitError::new("a percentage in steps of `0.001%`"));
    }
    match u32::try_from(billionths / 1_000_000) {
        Ok(thousandths) if thousandths <= 100_000 => Ok(Share(thousandths)),
        _ => Err(UnitError::new(SHARE)),
    }
}

/// What a size looks like.
pub const SIZE: &str = "a size such as `512B`, `64KiB`, `64MiB` or `1GiB` (`KB`, `MB`, `GB` are powers of ten)";

/// `512B`, `64KiB`, `1.5MiB`, `10MB`: whole bytes, up to [`MAX_SIZE`].
///
/// # Errors
/// Another form, a missing or unknown unit, parts of a byte, or out of range.
pub fn size(text: &str) -> Result<u64, UnitError> {
    let Some((billionths, unit)) = decimal(text) else {
        return Err(UnitError::new(SIZE));
    };
    let unit_bytes: u128 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return Err(size_without_unit(text, unit)),
    };
    let product = billionths.checked_mul(unit_bytes).ok_or(UnitError::new(SIZE))?;
    if product % 1_000_000_000 != 0 {
        return Err(UnitError::new("a size in whole bytes"));
    }
    match u64::try_from(product / 1_000_000_000) {
        Ok(bytes) if bytes <= MAX_SIZE => Ok(bytes),
        _ => Err(UnitError::new("a size of at most `1024TiB`")),
    }
}

fn size_without_unit(text: &str, unit: &str) -> UnitError {
    let number = text.strip_suffix(unit).unwrap_or(text);
    let meant = match unit {
        "" | "b" => "B",
        "k" | "K" | "kb" | "Ki" | "kib" => "KiB",
        "m" | "M" | "mb" | "Mi" | "mib" => "MiB",
        "g" | "G" | "gb" | "Gi" | "gib" => "GiB",
        _ => return UnitError::new(SIZE),
    };
    UnitError::suggesting(SIZE, format!("{number}{meant}"))
}

/// A whole number from `min` to `max`: digits only, no sign, no exponent, no separators.
pub fn whole(text: &str, min: u64, max: u64) -> Option<u64> {
    if text.is_empty() || text.len() > 19 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|number| (min..=max).contains(number))
}

/// A finite decimal number, with a sign and decimals but no exponent.
pub fn number(text: &str) -> Option<f64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (_, rest) = decimal(digits)?;
    if !rest.is_empty() {
        return None;
    }
    text.parse::<f64>().ok().filter(|number| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_exact_and_need_a_unit() {
        let cases = [
            ("0s", 0),
            ("500ms", 500),
            ("1.5s", 1_500),
            ("0.001s", 1),
            ("30s", 30_000),
            ("10m", 600_000),
            ("2h", 7_200_000),
            ("30d", 2_592_000_000),
            ("3650d", 315_360_000_000),
        ];
        for (text, ms) in cases {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in [
            "",
            "s",
            "-1s",
            "+1s",
            "1",
            "1x",
            "1 s",
            "1e3s",
            "NaN",
            "infs",
            "0.5ms",
            ".5s",
            "1.s",
            "1,5s",
            "3651d",
            "99999999999999999999s",
            "9999999999999999999d",
            "1s ",
            "٣s",
            "1S",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(duration("10").unwrap_err().suggestion.as_deref(), Some("10s"));
    }

    #[test]
    fn shares_go_down_to_a_thousandth_of_a_percent() {
        for (text, thousandths) in [
            ("0%", 0),
            ("0.001%", 1),
            ("0.1%", 100),
            ("1 %", 1_000),
            ("33.333%", 33_333),
            ("100%", 100_000),
        ] {
            assert_eq!(share(text).map(Share::thousandths_percent), Ok(thousandths), "{text}");
        }
        for text in [
            "",
            "%",
            "-1%",
            "100.001%",
            "0.0001%",
            "NaN%",
            "1e1%",
            "50",
            "0.5",
            "99999999999999999999%",
        ] {
            assert!(share(text).is_err(), "{text}");
        }
        assert_eq!(share("10").unwrap_err().suggestion.as_deref(), Some("10%"));
    }

    #[test]
    fn sizes_know_both_families_of_units() {
        for (text, bytes) in [
            ("0B", 0),
            ("512B", 512),
            ("64KiB", 65_536),
            ("1.5KiB", 1_536),
            ("64MiB", 67_108_864),
            ("1GiB", 1 << 30),
            ("10MB", 10_000_000),
            ("10kB", 10_000),
            ("1024TiB", MAX_SIZE),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "64",
            "64K",
            "-1B",
            "0.5B",
            "1025TiB",
            "9999999999999999999GiB",
            "1e3B",
            "NaN",
            "64KiB ",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
        assert_eq!(size("64m").unwrap_err().suggestion.as_deref(), Some("64MiB"));
    }

    #[test]
    fn numbers_are_plain_decimals() {
        assert_eq!(number("365"), Some(365.0));
        assert_eq!(number("-1.5"), Some(-1.5));
        for text in ["", "-", "NaN", "inf", "1e3", "0x10", "1_000", "--1", "1."] {
            assert_eq!(number(text), None, "{text}");
        }
        assert_eq!(whole("1000000", 0, 1_000_000), Some(1_000_000));
        for text in [
            "",
            "-1",
            "+1",
            "1.0",
            "1000001",
            "1e3",
            "18446744073709551616",
            "NaN",
            "0x1",
        ] {
            assert_eq!(whole(text, 0, 1_000_000), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}") {
            let _ = (duration(&text), share(&text), size(&text), number(&text), whole(&text, 0, 9));
        }

        #[test]
        fn no_number_panics(text in "[0-9]{0,25}(\\.[0-9]{0,12})?(ms|s|m|h|d|%|B|KiB|TiB|)") {
            let _ = (duration(&text), share(&text), size(&text), number(&text), whole(&text, 0, 9));
        }

        #[test]
        fn milliseconds_survive(ms in 0u64..=315_360_000_000) {
            prop_assert_eq!(duration(&format!("{ms}ms")), Ok(Duration::from_millis(ms)));
        }
    }
}
