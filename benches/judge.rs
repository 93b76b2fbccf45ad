//! What the judge finds, how soon, and what it costs: `cargo bench --bench judge`.
//!
//! A report with fixed seeds, a few minutes long; `--quick` (and a run as a test) takes some seconds and says less. It
//! fails when a bound is broken:
//!
//! - identical versions, 30 minutes, a confidence of 95 %: at most 5 % of the rollouts are rolled back, at 2, 50 and 1,000
//!   requests a second, with and without a ramp and a drift common to both versions;
//! - a regression is found sooner than by Flagger's rule at threshold 5, wherever that has not ten times the false alarms
//!   (not with `--quick`: too few runs);
//! - and at least as often as written in `AT_LEAST`.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::indexing_slicing)]

#[path = "../tests/judging/mod.rs"]
mod judging;

use judging::rules::{Flagger, NAMES, PeekedZ, Ratio, Rollgate, errors_compared, p99_compared, rules};
use judging::world::{Course, IDENTICAL, ONE, RAMP_WITH_DRIFT, World};
use judging::{Figures, NewRule, judge};
use rollgate::analysis::{Arm, Histogram, Judge, Observed, Power, Traffic, Window, bucket_of};
use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// False alarms of identical versions that a confidence of 95 % allows.
const ALLOWED: f64 = 0.05;
/// Longest p99 in milliseconds that Flagger's rule allows here: a quarter above that of stable.
const FLAGGER_P99_MS: f64 = 400.0;

const ERRORS: [NewRule; 5] = [
    || Box::new(Rollgate::new(rules(0.95, vec![errors_compared()]))),
    || Box::new(Flagger::new(1, FLAGGER_P99_MS)),
    || Box::new(Flagger::new(5, FLAGGER_P99_MS)),
    || Box::new(Ratio::default()),
    || Box::new(PeekedZ::default()),
];
/// The z-test has no quantiles.
const ERRORS_AND_P99: [NewRule; 4] = [
    || Box::new(Rollgate::new(rules(0.95, vec![errors_compared(), p99_compared()]))),
    ERRORS[1],
    ERRORS[2],
    ERRORS[3],
];
const P99: [NewRule; 4] = [
    || Box::new(Rollgate::new(rules(0.95, vec![p99_compared()]))),
    ERRORS[1],
    ERRORS[2],
    ERRORS[3],
];

/// What goes wrong with the candidate, and the part of the rollouts that must be rolled back for it within half an hour
/// at 2, 50 and 1,000 requests a second.
const AT_LEAST: [(&str, Course, f64, [f64; 3]); 4] = [
    ("2x errors", |_| 2.0, 1.0, [0.05, 0.95, 1.0]),
    ("5x errors", |_| 5.0, 1.0, [0.6, 1.0, 1.0]),
    ("20x errors", |_| 20.0, 1.0, [1.0, 1.0, 1.0]),
    ("1.5x latency", ONE, 1.5, [0.3, 1.0, 1.0]),
];
const RATES: [f64; 3] = [2.0, 50.0, 1_000.0];

/// Runs of identical versions, runs of each regression, and the length of a tick without and with latencies.
struct Size {
    identical: u64,
    /// Whether that is enough to tell an order of magnitude between two rates of false alarms.
    tells_orders: bool,
    regressions: u64,
    tick: f64,
    tick_with_latency: f64,
}

const FULL: Size = Size {
    identical: 2_000,
    tells_orders: true,
    regressions: 500,
    tick: 1.0,
    tick_with_latency: 5.0,
};
const QUICK: Size = Size {
    identical: 60,
    tells_orders: false,
    regressions: 30,
    tick: 10.0,
    tick_with_latency: 20.0,
};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |argument: &str| arguments.iter().any(|given| given == argument);
    let size = if has("--bench") && !has("--quick") { FULL } else { QUICK };
    let began = Instant::now();
    let mut broken = Vec::new();
    let errors = identical("errors", &size, size.tick, false, &ERRORS, &mut broken);
    let latency = identical(
        "errors and p99",
        &size,
        size.tick_with_latency,
        true,
        &ERRORS_AND_P99,
        &mut broken,
    );
    regressions(&size, &errors, &latency, &mut broken);
    plan();
    cost();
    println!("\n{:.0} s", began.elapsed().as_secs_f64());
    broken.iter().for_each(|bound| println!("BROKEN: {bound}"));
    if broken.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn headline(title: &str) {
    println!("\n{title}; rolled back, median minutes until then");
    println!(
        "| requests/s | | Rollgate | Flagger, threshold 1 | Flagger, threshold 5 | 1.1 x stable | peeked z-test |"
    );
    println!("|---|---|---|---|---|---|---|");
}

fn row(rate: f64, name: &str, figures: &[Figures]) {
    let cell = |figures: &Figures| match figures.median_seconds {
        Some(seconds) => format!("{:.1} %, {:.1}", figures.share() * 100.0, seconds / 60.0),
        None => "0 %".to_owned(),
    };
    let mut cells: Vec<_> = figures.iter().map(cell).collect();
    cells.resize(ERRORS.len(), "-".to_owned());
    println!("| {rate} | {name} | {} |", cells.join(" | "));
}

/// The figures of the steady world, by rate.
fn identical(
    what: &str,
    size: &Size,
    tick: f64,
    with_latency: bool,
    rules: &[NewRule],
    broken: &mut Vec<String>,
) -> Vec<Vec<Figures>> {
    headline(&format!(
        "Identical versions, {what}, {} runs of 30 minutes at 95 %",
        size.identical
    ));
    let worlds = RATES.map(|rate| {
        let steady = World {
            rate,
            with_latency,
            ..IDENTICAL
        };
        let ramp = World {
            rate,
            with_latency,
            ..RAMP_WITH_DRIFT
        };
        let figures = [("steady", steady), ("ramp and drift", ramp)].map(|(name, world)| {
            let figures = judge(&world, size.identical, tick, rules);
            row(rate, name, &figures);
            if figures[0].share() > ALLOWED {
                broken.push(format!("{what} at {rate}/s, {name}: {:?}", figures[0]));
            }
            figures
        });
        let [steady, _] = figures;
        steady
    });
    worlds.into()
}

fn regressions(size: &Size, errors: &[Vec<Figures>], latency: &[Vec<Figures>], broken: &mut Vec<String>) {
    headline(&format!("Regressions, {} runs each", size.regressions));
    for (name, errors_times, latency_times, at_least) in AT_LEAST {
        let slow = latency_times != 1.0;
        for (position, rate) in RATES.into_iter().enumerate() {
            let world = World {
                rate,
                errors_times,
                latency_times,
                with_latency: slow,
                ..IDENTICAL
            };
            let (tick, rules, identical) = match slow {
                true => (size.tick_with_latency, &P99[..], &latency[position]),
                false => (size.tick, &ERRORS[..], &errors[position]),
            };
            let figures = judge(&world, size.regressions, tick, rules);
            row(rate, name, &figures);
            let (ours, flagger) = (figures[0], figures[2]);
            // As sharp as the number of runs allows: three standard deviations.
            let allowance = 3.0 * (at_least[position] * (1.0 - at_least[position]) / ours.runs as f64).sqrt();
            if ours.share() < at_least[position] - allowance {
                broken.push(format!(
                    "{name} at {rate}/s: {ours:?}, at least {} expected",
                    at_least[position]
                ));
            }
            let comparable = identical[2].share() < 10.0 * identical[0].share().max(1.0 / identical[0].runs as f64);
            let later = match (ours.median_seconds, flagger.median_seconds) {
                (Some(ours), Some(flagger)) => ours > flagger,
                (None, Some(_)) => true,
                _ => false,
            };
            if size.tells_orders && comparable && later {
                broken.push(format!("{name} at {rate}/s: later than Flagger: {ours:?}, {flagger:?}"));
            }
        }
    }
}

/// What `rollgate plan` would say of the same rollouts.
fn plan() {
    println!("\nForetold for half an hour at a share of 10 %, 0.5 % errors, 95 %");
    println!("| requests/s | candidate requests | smallest ratio found | until 2x is found |");
    println!("|---|---|---|---|");
    let hold = Duration::from_secs(1_800);
    for rate in RATES {
        let began = Instant::now();
        let traffic = Traffic {
            rate,
            share: 0.1,
            bad: 0.005,
            tolerance: 0.0,
            needed: 20.0,
        };
        let power = Power::new(traffic).unwrap();
        let ratio = power
            .smallest_found(hold)
            .map_or("none".to_owned(), |ratio| format!("{ratio:.2}"));
        let minutes = power.hold_to_find(2.0).map_or("never".to_owned(), |hold| {
            format!("{:.1} min", hold.as_secs_f64() / 60.0)
        });
        println!(
            "| {rate} | {:.0} | {ratio} | {minutes} | in {:.1?}",
            rate * 0.1 * hold.as_secs_f64(),
            began.elapsed()
        );
    }
}

/// Nanoseconds of what is done for each request, microseconds of what is done each second.
fn cost() {
    let mut durations = Histogram::default();
    let rounds = 2_000_000_u64;
    let began = Instant::now();
    for us in 0..rounds {
        black_box(bucket_of(black_box(us * 37)));
    }
    println!(
        "\nbucket_of: {:.1} ns",
        began.elapsed().as_secs_f64() * 1e9 / rounds as f64
    );
    (0..1_000).for_each(|request| durations.record(50_000 + request * 317));
    let observed = Observed {
        requests: Arm {
            begun: 1_000,
            ended: 1_000,
            bad: 5,
        },
        mismatched: 0,
        durations,
        values: Vec::new(),
    };
    let none = Observed::default();
    let mut judge = Judge::new(rules(0.95, vec![errors_compared(), p99_compared()]));
    let rounds = 2_000;
    let began = Instant::now();
    for _ in 0..rounds {
        let window = Window {
            candidate: &observed,
            forced: &none,
            stable: &observed,
            share: 0.5,
            warming: false,
            mirrored: false,
        };
        judge.tick(&window, Duration::from_secs(1));
        black_box(judge.findings(NAMES));
    }
    println!(
        "a tick and its findings, two checks: {:.1} µs",
        began.elapsed().as_secs_f64() * 1e6 / f64::from(rounds)
    );
    println!("stored: {} bytes", serde_json::to_string(&judge).unwrap().len());
}
