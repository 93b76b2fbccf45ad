//! Queries of checks: their variables ([`filled`]), and for how long an answer counts.

use std::time::Duration;

/// An answer counts for so many times the time between two queries: two may fail or come late.
pub const FRESH_FOR: u32 = 3;

/// What `{{service}}`, `{{candidate}}`, `{{stable}}` and `{{interval}}` in a query stand for.
#[derive(Debug, Clone, Copy)]
pub struct Variables<'v> {
    pub service: &'v str,
    pub candidate: &'v str,
    pub stable: &'v str,
    /// The time between two queries; in whole seconds, at least one, as a query has them: `30s`.
    pub interval: Duration,
}

/// Their names.
pub const VARIABLES: [&str; 4] = ["service", "candidate", "stable", "interval"];

/// `query` with the values of its variables, which may have spaces inside their braces. A query language has no use for
/// two braces in a row.
///
/// # Errors
/// What stands there in place of a variable, with its braces; the rest of the query, where they are not closed.
pub fn filled(query: &str, variables: Variables<'_>) -> Result<String, String> {
    let mut filled = String::with_capacity(query.len());
    let mut rest = query;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").ok_or_else(|| format!("{{{{{after}"))?;
        filled.push_str(before);
        match name.trim() {
            "service" => filled.push_str(variables.service),
            "candidate" => filled.push_str(variables.candidate),
            "stable" => filled.push_str(variables.stable),
            "interval" => filled.push_str(&format!("{}s", variables.interval.as_secs().max(1))),
            _ => return Err(format!("{{{{{name}}}}}")),
        }
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: Variables<'_> = Variables {
        service: "checkout",
        candidate: "v2",
        stable: "v1",
        interval: Duration::from_secs(90),
    };

    #[test]
    fn variables_are_replaced_and_everything_else_stays() {
        for (query, expected) in [
            ("up", "up"),
            ("", ""),
            (
                "sum(rate(errors{service=\"{{service}}\",version=~\"{{ candidate }}|{{stable}}\"}[{{interval}}]))",
                "sum(rate(errors{service=\"checkout\",version=~\"v2|v1\"}[90s]))",
            ),
            ("a{b=\"}}\"}", "a{b=\"}}\"}"),
        ] {
            assert_eq!(filled(query, VALUES).unwrap(), expected);
        }
        let often = Variables {
            interval: Duration::from_millis(200),
            ..VALUES
        };
        assert_eq!(filled("{{interval}}", often).unwrap(), "1s");
    }

    #[test]
    fn each_name_is_known_and_no_other() {
        for name in VARIABLES {
            assert!(filled(&format!("{{{{{name}}}}}"), VALUES).is_ok(), "{name}");
        }
        assert_eq!(filled("a {{ namespace }} b", VALUES).unwrap_err(), "{{ namespace }}");
        assert_eq!(filled("a {{}} b", VALUES).unwrap_err(), "{{}}");
        assert_eq!(filled("a {{service b", VALUES).unwrap_err(), "{{service b");
    }
}
