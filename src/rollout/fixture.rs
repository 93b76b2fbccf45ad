//! Plans and events for tests.

use super::*;
use std::time::Duration;

pub fn step(thousandths: u32, hold_s: u64) -> Step {
    Step {
        share: Share::from_thousandths(thousandths),
        segments: Box::default(),
        mirror: Share::ZERO,
        hold: Duration::from_secs(hold_s),
        approval: false,
    }
}

pub fn ring(segments: &[&str], hold_s: u64) -> Step {
    Step {
        segments: segments.iter().map(|&name| name.into()).collect(),
        ..step(0, hold_s)
    }
}

pub fn mirror(thousandths: u32, hold_s: u64) -> Step {
    Step {
        mirror: Share::from_thousandths(thousandths),
        ..step(0, hold_s)
    }
}

pub fn with_ring(segments: &[&str], step: Step) -> Step {
    Step {
        segments: ring(segments, 0).segments,
        ..step
    }
}

pub fn approved(step: Step) -> Step {
    Step { approval: true, ..step }
}

/// `checkout`, from v1 to v2: without checks of its own, as judgements come from the test.
pub fn plan(steps: Vec<Step>) -> Plan {
    Plan {
        service: "checkout".into(),
        candidate: "v2".into(),
        start: Start::Manual,
        steps: steps.into(),
        analysis: Analysis {
            warmup: Duration::ZERO,
            min_requests: 200,
            confidence: Share::from_thousandths(99_000),
            on_no_evidence: OnNoEvidence::Hold,
            max_hold: None,
            metrics: Box::default(),
            checks: Box::default(),
        },
        max_failures: Some(50),
        gates: Box::default(),
        notify: Box::default(),
        freeze: Box::default(),
        with: Box::default(),
    }
}

/// A ring that stays, 10 % with an approval, and a bake, each with a hold of 10 s.
pub fn small_plan() -> Plan {
    let stays = |step| with_ring(&["staff"], step);
    plan(vec![
        ring(&["staff"], 10),
        approved(stays(step(10_000, 10))),
        stays(step(100_000, 10)),
    ])
}

pub fn gate(before: Before) -> Gate {
    Gate {
        before,
        webhook: Url::new("http://gate.example/check"),
    }
}

pub fn by(who: &str) -> By {
    By {
        who: who.to_owned(),
        why: None,
    }
}

pub fn command(verb: Verb) -> Event {
    Event::Command(Command { verb, by: by("ada") })
}

pub fn fail(action: Action) -> Judgement {
    Judgement::Fail {
        action,
        sentence: "v2 fails 2.1 % (63/3000) against 0.5 % (140/27000)".to_owned(),
    }
}

pub fn no_evidence() -> Judgement {
    Judgement::NoEvidence("v2 has had 3 of the 200 requests needed".to_owned())
}

/// A rollout that a test leads, and what it asked for last.
pub struct Led {
    pub plan: Plan,
    pub state: State,
    pub now: Now,
    pub effects: Vec<Effect>,
    /// Every sentence it said.
    pub said: Vec<String>,
}

impl Led {
    /// With the plan loaded.
    pub fn new(plan: Plan) -> Self {
        let mut led = Self {
            plan,
            state: State::default(),
            // 2026-03-03, a Tuesday, 12:00 UTC.
            now: Now {
                uptime_ms: 1_000,
                unix_s: 1_772_539_200,
            },
            effects: Vec::new(),
            said: Vec::new(),
        };
        led.happen(Event::Loaded);
        led
    }

    /// Begun, and in its first step.
    pub fn begun(plan: Plan) -> Self {
        let mut led = Self::new(plan);
        led.command(Verb::Start);
        led.pass();
        assert_eq!(led.state.step, 1, "{:?}", led.state);
        led
    }

    /// Begun, and then led to `step` by passing checks and approvals.
    pub fn at(plan: Plan, step: u32) -> Self {
        let mut led = Self::begun(plan);
        for _ in 0..200 {
            if led.state.step == step {
                return led;
            }
            led.after(10, Judgement::Pass);
            if led.state.phase == Phase::WaitingApproval {
                led.command(Verb::Approve);
            }
        }
        panic!("step {step} is not reached: {:?}", led.state);
    }

    pub fn happen(&mut self, event: Event) -> &[Effect] {
        let (state, effects) = advance(&self.plan, self.state.clone(), event, self.now);
        self.state = state;
        self.said.extend(effects.iter().filter_map(|effect| match effect {
            Effect::Report(sentence) | Effect::Notify { sentence, .. } | Effect::Refused(sentence) => {
                Some(sentence.clone())
            }
            _ => None,
        }));
        self.effects = effects;
        &self.effects
    }

    pub fn command(&mut self, verb: Verb) -> &[Effect] {
        self.happen(command(verb))
    }

    pub fn look(&self, judgement: Judgement) -> Event {
        Event::Look(Look {
            window: self.state.window,
            judgement,
            failures: 0,
            obstacle: None,
        })
    }

    /// A look at this moment.
    pub fn judged(&mut self, judgement: Judgement) -> &[Effect] {
        let look = self.look(judgement);
        self.happen(look)
    }

    pub fn pass(&mut self) -> &[Effect] {
        self.judged(Judgement::Pass)
    }

    /// A look after some seconds (all clocks agree), at most [`LONGEST_GAP`] of which count.
    pub fn after(&mut self, seconds: u64, judgement: Judgement) -> &[Effect] {
        self.now.uptime_ms += seconds * 1_000;
        self.now.unix_s += i64::try_from(seconds).unwrap();
        self.judged(judgement)
    }

    pub fn refusal(&self) -> Option<&str> {
        refusal(&self.effects)
    }

    pub fn share(&self) -> u32 {
        self.state.share.thousandths_percent()
    }

    pub fn last_said(&self) -> &str {
        self.said.last().map_or("", String::as_str)
    }
}
