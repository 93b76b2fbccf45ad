//! Recorded counts: per second and version how many requests there were, how many failed, and how long they took.

use crate::analysis::Latencies;
use crate::cli::failure::Failure;
use crate::rollout::simulate::{Behaviour, Traffic};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

/// Bytes of a recording.
const MAX_BYTES: u64 = 64 << 20;
/// The last second of one: a year.
const MAX_SECOND: u64 = 366 * 86_400;
const MAX_REQUESTS: u64 = 10_000_000;
const HEADINGS: [&str; 5] = ["second", "version", "requests", "failures", "latency_ms"];

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    second: u64,
    version: String,
    requests: u64,
    failures: u64,
    #[serde(default)]
    latency_ms: Option<f64>,
}

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    /// In order of seconds.
    rows: Vec<Row>,
}

impl Recording {
    /// # Errors
    /// The file cannot be read, is too large, or is no recording.
    pub fn read(file: &Path) -> Result<Self, Failure> {
        let failed = |why: String| Failure::failed(format!("{}: {why}", file.display()));
        let mut text = String::new();
        let opened = File::open(file).and_then(|opened| opened.take(MAX_BYTES + 1).read_to_string(&mut text));
        opened.map_err(|error| failed(error.to_string()))?;
        if text.len() as u64 > MAX_BYTES {
            return Err(failed(format!("larger than {} MiB", MAX_BYTES >> 20)));
        }
        Self::parse(&text).map_err(failed)
    }

    /// # Errors
    /// It is neither the CSV nor the JSON that a recording is, or says what cannot be.
    fn parse(text: &str) -> Result<Self, String> {
        let mut rows: Vec<Row> = match text.trim_start().starts_with('[') {
            true => serde_json::from_str(text).map_err(|error| error.to_string())?,
            false => csv(text)?,
        };
        if rows.is_empty() {
            return Err("nothing is recorded".to_owned());
        }
        rows.iter().try_for_each(sound)?;
        rows.sort_by_key(|row| row.second);
        Ok(Self { rows })
    }

    /// From its beginning to the end of its last second.
    pub fn length(&self) -> Duration {
        Duration::from_secs(self.rows.last().map_or(0, |row| row.second + 1))
    }

    /// The traffic that was recorded. A version without requests goes on as it did; one that had none yet does as
    /// others do: nothing fails, and all is as fast as `usual`.
    pub fn traffic(&self, candidate: &str, usual: &Latencies) -> Vec<Traffic> {
        let mut seconds: BTreeMap<u64, [Sum; 2]> = BTreeMap::new();
        for row in &self.rows {
            let [stable, of_candidate] = seconds.entry(row.second).or_default();
            let sum = if row.version == candidate { of_candidate } else { stable };
            sum.add(row);
        }
        let mut behaviours = [Behaviour::default(); 2];
        let mut traffic: Vec<Traffic> = Vec::new();
        for (second, sums) in &seconds {
            for (behaviour, sum) in behaviours.iter_mut().zip(sums) {
                sum.shows(usual, behaviour);
            }
            let [stable, candidate] = behaviours;
            let from = Duration::from_secs(*second);
            // A second that is not there had no requests.
            if let Some(last) = traffic.last().filter(|last| last.from + Duration::from_secs(1) < from) {
                let silent = Traffic {
                    from: last.from + Duration::from_secs(1),
                    rate: 0.0,
                    ..*last
                };
                traffic.push(silent);
            }
            traffic.push(Traffic {
                from,
                rate: sums.iter().map(|sum| sum.requests).sum::<u64>() as f64,
                stable,
                candidate,
            });
        }
        traffic
    }
}

/// What was recorded of a version in a second.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    requests: u64,
    failures: u64,
    /// Of those whose latency is known.
    timed: u64,
    latency_ms: f64,
}

impl Sum {
    fn add(&mut self, row: &Row) {
        self.requests = self.requests.saturating_add(row.requests);
        self.failures = self.failures.saturating_add(row.failures);
        if let Some(latency_ms) = row.latency_ms {
            self.timed = self.timed.saturating_add(row.requests);
            self.latency_ms += latency_ms * row.requests as f64;
        }
    }

    fn shows(&self, usual: &Latencies, behaviour: &mut Behaviour) {
        if self.requests > 0 {
            behaviour.error_rate = self.failures as f64 / self.requests as f64;
        }
        if self.timed > 0 {
            behaviour.slowness = self.latency_ms / self.timed as f64 / (usual.quantile_us(0.5) / 1e3);
        }
    }
}

fn sound(row: &Row) -> Result<(), String> {
    let (second, version) = (row.second, &row.version);
    let wrong = if second > MAX_SECOND {
        "expected seconds since the beginning, at most a year"
    } else if row.requests > MAX_REQUESTS {
        "expected at most 10000000 requests in a second"
    } else if row.failures > row.requests {
        "more failures than requests"
    } else if row.latency_ms.is_some_and(|ms| !(ms > 0.0 && ms < 1e9)) {
        "expected a latency above 0 ms"
    } else {
        return Ok(());
    };
    Err(format!("second {second}, version {version:?}: {wrong}"))
}

fn csv(text: &str) -> Result<Vec<Row>, String> {
    let expected = || format!("expected lines of `{}`, that one first", HEADINGS.join(","));
    let mut lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
    let (_, first) = lines.next().ok_or_else(expected)?;
    let headings: Vec<&str> = first.split(',').map(str::trim).collect();
    if headings != HEADINGS && headings != HEADINGS.get(..4).unwrap_or_default() {
        return Err(expected());
    }
    lines
        .map(|(number, line)| row(line, headings.len()).ok_or_else(|| format!("line {number}: {}", expected())))
        .collect()
}

fn row(line: &str, columns: usize) -> Option<Row> {
    let mut cells = line.split(',').map(str::trim);
    let row = Row {
        second: cells.next()?.parse().ok()?,
        version: cells.next().filter(|name| !name.is_empty())?.to_owned(),
        requests: cells.next()?.parse().ok()?,
        failures: cells.next()?.parse().ok()?,
        latency_ms: match (columns, cells.next()) {
            (4, None) | (5, Some("")) => None,
            (5, Some(cell)) => Some(cell.parse().ok()?),
            _ => return None,
        },
    };
    cells.next().is_none().then_some(row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const USUAL_MS: (f64, f64) = (100.0, 320.0);

    fn usual() -> Latencies {
        Latencies::new(USUAL_MS.0 * 1e3, USUAL_MS.1 * 1e3).unwrap()
    }

    #[test]
    fn what_was_recorded_comes_back() {
        let text = "second,version,requests,failures,latency_ms\n\
                    0,v1,90,1,100\n0,v2,10,1,200\n3, v1 , 50,0,\n3,v0,50,1,50\n";
        let recording = Recording::parse(text).unwrap();
        assert_eq!(recording.length(), Duration::from_secs(4));
        let traffic = recording.traffic("v2", &usual());
        let rates: Vec<(u64, f64)> = traffic
            .iter()
            .map(|traffic| (traffic.from.as_secs(), traffic.rate))
            .collect();
        assert_eq!(rates, [(0, 100.0), (1, 0.0), (3, 100.0)]);
        let near = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(near(traffic[0].candidate.error_rate, 0.1) && near(traffic[0].candidate.slowness, 2.0));
        assert!(near(traffic[0].stable.error_rate, 1.0 / 90.0) && near(traffic[0].stable.slowness, 1.0));
        // Both versions that are not the candidate, and a candidate that goes on as it did.
        assert!(near(traffic[2].stable.error_rate, 0.01) && near(traffic[2].stable.slowness, 0.5));
        assert_eq!(traffic[2].candidate, traffic[0].candidate);
        let json = r#"[{"second":3,"version":"v1","requests":50,"failures":0},
                       {"second":0,"version":"v1","requests":90,"failures":1,"latency_ms":100},
                       {"second":0,"version":"v2","requests":10,"failures":1,"latency_ms":200},
                       {"second":3,"version":"v0","requests":50,"failures":1,"latency_ms":50}]"#;
        assert_eq!(Recording::parse(json).unwrap().traffic("v2", &usual()), traffic);
        let short = "second,version,requests,failures\n0,v1,1,0\n";
        assert_eq!(Recording::parse(short).unwrap().rows[0].latency_ms, None);
    }

    #[test]
    fn what_is_no_recording_is_refused_with_its_place() {
        let line = |line: &str| Recording::parse(&format!("{}\n{line}\n", HEADINGS.join(","))).unwrap_err();
        for bad in [
            "0,v1,1",
            "0,v1,1,0",
            "x,v1,1,0,1",
            "0,v1,1,0,1,2",
            "0,,1,0,1",
            "-1,v1,1,0,1",
        ] {
            assert!(line(bad).starts_with("line 2: expected lines of"), "{bad}");
        }
        for (bad, why) in [
            ("0,v1,1,2,1", "second 0, version \"v1\": more failures than requests"),
            ("0,v1,1,0,0", "second 0, version \"v1\": expected a latency above 0 ms"),
            (
                "0,v1,1,0,NaN",
                "second 0, version \"v1\": expected a latency above 0 ms",
            ),
        ] {
            assert_eq!(line(bad), why);
        }
        assert!(line("99999999,v1,1,0,1").ends_with("at most a year"));
        assert!(line("0,v1,99999999,0,1").contains("10000000 requests"));
        for bad in [
            "",
            "\n",
            "a,b\n",
            "[",
            "[{\"second\":0}]",
            "[]",
            "second,version,requests,failures\n",
        ] {
            assert!(Recording::parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_recording_or_refused(text in "[ -~\n]{0,200}") {
            let _ = Recording::parse(&text);
        }

        #[test]
        fn what_is_recorded_is_replayed_in_order_and_whole(
            rows in prop::collection::vec((0_u64..50, 1_u8..4, 0_u64..1_000, 0_u64..1_000), 1..60),
        ) {
            let line = |&(second, version, requests, failures): &(u64, u8, u64, u64)| {
                format!("{second},v{version},{requests},{}\n", failures.min(requests))
            };
            let text: String = rows.iter().map(line).collect();
            let recording = Recording::parse(&format!("second,version,requests,failures\n{text}")).unwrap();
            let traffic = recording.traffic("v2", &usual());
            prop_assert!(traffic.is_sorted_by(|earlier, later| earlier.from < later.from));
            prop_assert!(traffic.last().is_some_and(|last| last.from < recording.length()));
            let replayed: f64 = traffic.iter().map(|traffic| traffic.rate).sum();
            let recorded: u64 = rows.iter().map(|row| row.2).sum();
            prop_assert!((replayed - recorded as f64).abs() < 0.5);
            for traffic in &traffic {
                prop_assert!((0.0..=1.0).contains(&traffic.candidate.error_rate));
                prop_assert!((0.0..=1.0).contains(&traffic.stable.error_rate));
            }
        }
    }
}
