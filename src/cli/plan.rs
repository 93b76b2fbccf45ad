//! `rollgate plan FILE|SERVICE --rps N`: what each step of a rollout can find, before anything starts.

use super::context::Context;
use super::failure::Failure;
use super::planned::{Assumptions, Planned, Subject, is_foretold, label, rate};
use super::print::{self, HEADING, WARNING};
use super::table::{Cell, NOTHING, Side, Table, safe};
use crate::analysis::{POWER, percent};
use crate::rollout::forecast::{Assumed, Finds, Forecast, Of, StepForecast, forecast};
use crate::rollout::{Plan, about, duration};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::Duration;

/// The arguments of `rollgate plan`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    subject: Subject,
    /// Requests a second of the service, all versions together
    #[arg(long, value_name = "N", value_parser = rate)]
    rps: f64,
    #[command(flatten)]
    assumptions: Assumptions,
}

impl Arguments {
    pub fn run(&self, context: &Context) -> ExitCode {
        let json = context.json(&self.subject.proxy.reach);
        print::finish(self.answer(context, json), json)
    }

    fn answer(&self, context: &Context, json: bool) -> Result<String, Failure> {
        let assumed = Assumed {
            rate: self.rps,
            error_rate: self.assumptions.errors.fraction(),
            latencies: self.assumptions.latencies()?,
            in_segments: self.assumptions.in_segments,
            copyable: self.assumptions.copyable,
        };
        let plans = self.subject.plans(context)?;
        let outlooks = plans.iter().map(|planned| (planned, forecast(&planned.plan, &assumed)));
        if json {
            let services: Vec<Value> = outlooks
                .map(|(planned, forecast)| as_json(planned, &forecast, &assumed))
                .collect();
            return Ok(format!("{}\n", json!({ "services": services })));
        }
        let texts: Vec<String> = outlooks
            .map(|(planned, forecast)| {
                let words = self.assumptions.words(&planned.plan);
                rendered(planned, &forecast, &assumed, &words)
            })
            .collect();
        Ok(texts.join("\n"))
    }
}

// ---- for people ----

fn rendered(planned: &Planned, forecast: &Forecast, assumed: &Assumed, words: &str) -> String {
    let plan = &planned.plan;
    let (candidate, stable) = (safe(&plan.candidate), safe(&planned.stable));
    let lasts = match forecast.lasts {
        Some(lasts) => format!("{candidate} replaces {stable} in {}{}", about(lasts), not_counted(plan)),
        None => format!("{candidate} never replaces {stable}"),
    };
    let mut text = format!(
        "{HEADING}{}{HEADING:#}: {lasts}, at {} requests/s ({words}, by assumption)\n",
        safe(&plan.service),
        assumed.rate
    );
    let checks = plan.analysis.checks.iter().map(|planned| &planned.check);
    if checks.len() > 0 {
        text += &format!(
            "A check fails when the evidence is {:.0} to 1 (confidence {}). Found: with a chance of {}.\n",
            forecast.needed,
            plan.analysis.confidence,
            percent(POWER)
        );
    }
    text.push('\n');
    text += &steps(planned, forecast, assumed);
    let unforetold: Vec<String> = checks.filter(|check| !is_foretold(&check.test)).map(label).collect();
    if !unforetold.is_empty() {
        text += &format!(
            "\nNot foretold, for it depends on how those numbers vary: {}\n",
            safe(&unforetold.join(", "))
        );
    }
    if !forecast.warnings.is_empty() {
        text.push('\n');
    }
    for warning in &forecast.warnings {
        text += &format!("{WARNING}warning:{WARNING:#} {}\n", safe(warning));
    }
    text
}

fn steps(planned: &Planned, forecast: &Forecast, assumed: &Assumed) -> String {
    let mut table = Table::new(&[
        ("STEP", Side::Right),
        ("CANDIDATE GETS", Side::Left),
        ("HOLD", Side::Right),
        ("LASTS", Side::Right),
        ("REQUESTS", Side::Right),
        ("CHECK", Side::Left),
        ("FINDS FROM", Side::Left),
        ("TWICE TAKES", Side::Right),
    ]);
    for step in &forecast.steps {
        let mut own = Some([
            step.number.to_string(),
            safe(&step.exposure),
            duration(step.hold),
            step.lasts.map_or("for ever".to_owned(), about),
            format!("{:.0}", step.candidate),
        ]);
        let mut row = |cells: [Cell; 3]| {
            let first = own.take().unwrap_or_default().map(Cell::new);
            table.row(first.into_iter().chain(cells));
        };
        for finds in &step.finds {
            let check = planned.plan.analysis.checks.get(finds.check);
            row([
                Cell::new(check.map_or(String::new(), |planned| safe(&label(&planned.check)))),
                least(finds, assumed),
                Cell::new(finds.twice_takes.map_or(NOTHING.to_owned(), about)),
            ]);
        }
        if step.finds.is_empty() {
            row([NOTHING; 3].map(Cell::new));
        }
    }
    table.render()
}

/// `1.8x, 0.92 % errors`, `1.3x as slow`
fn least(finds: &Finds, assumed: &Assumed) -> Cell {
    match (finds.times, finds.of) {
        // A ring or the bake: it is for limits to find something there.
        (None, _) if finds.all_takes.is_none() => Cell::new("not judged"),
        (None, _) => Cell::styled("nothing", WARNING),
        (Some(times), Of::Errors) => Cell::new(format!(
            "{}x, {} errors",
            significant(times),
            two_digits(times * assumed.error_rate)
        )),
        (Some(times), Of::Slowness) => Cell::new(format!("{}x as slow", significant(times))),
    }
}

/// Two digits or three.
fn significant(times: f64) -> String {
    match times < 10.0 {
        true => format!("{times:.2}"),
        false => format!("{times:.0}"),
    }
}

/// A part as a percentage, with the first two digits that are not 0.
fn two_digits(part: f64) -> String {
    let percent = part * 100.0;
    let decimals = 1.0 - libm::floor(libm::log10(percent));
    format!("{percent:.*} %", decimals.clamp(0.0, 6.0) as usize)
}

/// What the time of a plan leaves out.
fn not_counted(plan: &Plan) -> &'static str {
    let approval = plan.steps.iter().any(|step| step.approval);
    match (approval, plan.freeze.is_empty()) {
        (true, false) => " (not counting approvals and freeze windows)",
        (true, true) => " (not counting approvals)",
        (false, false) => " (not counting freeze windows)",
        (false, true) => "",
    }
}

// ---- for programs ----

fn as_json(planned: &Planned, forecast: &Forecast, assumed: &Assumed) -> Value {
    let plan = &planned.plan;
    let steps: Vec<Value> = forecast
        .steps
        .iter()
        .map(|step| step_json(planned, step, assumed))
        .collect();
    json!({
        "service": plan.service,
        "candidate": plan.candidate,
        "stable": planned.stable,
        "assumed": {
            "rate": assumed.rate,
            "error_rate": assumed.error_rate,
            "p99_s": assumed.latencies.quantile_us(0.99) / 1e6,
            "p50_s": assumed.latencies.quantile_us(0.5) / 1e6,
            "in_segments": assumed.in_segments.fraction(),
            "copyable": assumed.copyable.fraction(),
        },
        "confidence": plan.analysis.confidence.fraction(),
        "evidence_needed": forecast.needed,
        "chance": POWER,
        "lasts_s": seconds(forecast.lasts),
        "steps": steps,
        "warnings": forecast.warnings,
    })
}

fn step_json(planned: &Planned, step: &StepForecast, assumed: &Assumed) -> Value {
    let checks = step.finds.iter().map(|finds| {
        let check = planned
            .plan
            .analysis
            .checks
            .get(finds.check)
            .map(|planned| &planned.check);
        let error_rate = match finds.of {
            Of::Errors => finds.times.map(|times| times * assumed.error_rate),
            Of::Slowness => None,
        };
        json!({
            "check": finds.check,
            "metric": check.map(|check| &check.metric),
            "condition": check.map(label),
            "finds_times": finds.times,
            "finds_error_rate": error_rate,
            "twice_takes_s": seconds(finds.twice_takes),
        })
    });
    json!({
        "step": step.number,
        "gives": step.exposure,
        "hold_s": step.hold.as_secs_f64(),
        "evidence_takes_s": seconds(step.evidence_takes),
        "lasts_s": seconds(step.lasts),
        "requests": { "candidate": step.candidate, "stable": step.stable },
        "checks": checks.collect::<Vec<Value>>(),
    })
}

fn seconds(duration: Option<Duration>) -> Option<f64> {
    duration.map(|duration| duration.as_secs_f64())
}
