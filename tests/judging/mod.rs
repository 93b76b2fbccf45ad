//! Rollouts of synthetic versions in virtual time, judged by Rollgate and by the rules of others. For `tests/judge.rs` and
//! `benches/judge.rs`.

pub mod rules;
pub mod world;

use rollgate::cli::simulate::dice::Dice;
use rules::Rule;
use world::{World, atoms};

/// A rule, made anew for every run.
pub type NewRule = fn() -> Box<dyn Rule>;

/// What came of many runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    pub runs: u64,
    pub rolled_back: u64,
    /// Until the rollback, of the runs that had one.
    pub median_seconds: Option<f64>,
}

impl Figures {
    /// The part of the runs that were rolled back.
    pub fn share(&self) -> f64 {
        self.rolled_back as f64 / self.runs as f64
    }
}

/// Runs `world` once for each seed, each tick shown to all `rules`.
pub fn judge(world: &World, runs: u64, tick_seconds: f64, rules: &[NewRule]) -> Vec<Figures> {
    let latencies = atoms();
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); rules.len()];
    for seed in 0..runs {
        let mut dice = Dice::new(seed);
        let mut open: Vec<_> = rules.iter().map(|new| new()).enumerate().collect();
        let mut at = 0.0;
        while at < world.seconds && !open.is_empty() {
            let seen = world.tick(&mut dice, &latencies, at, tick_seconds);
            at += tick_seconds;
            open.retain_mut(|(position, rule)| {
                let rolled_back = rule.rolls_back(&seen, at);
                if rolled_back {
                    times[*position].push(at);
                }
                !rolled_back
            });
        }
    }
    times.into_iter().map(|times| figures(runs, times)).collect()
}

fn figures(runs: u64, mut times: Vec<f64>) -> Figures {
    times.sort_by(f64::total_cmp);
    Figures {
        runs,
        rolled_back: times.len() as u64,
        median_seconds: times.get(times.len() / 2).copied(),
    }
}
