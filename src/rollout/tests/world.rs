//! A small world around the machine: one service, the files that its operator may save, what is in force, and a diary kept
//! by somebody who does not trust the machine.

use crate::rollout::fixture::{approved, by, command, fail, gate, mirror, no_evidence, plan, ring, step, with_ring};
use crate::rollout::*;
use std::time::Duration;

/// The machine under test.
pub type Advance<'m> = dyn Fn(&Plan, State, Event, Now) -> (State, Vec<Effect>) + 'm;

/// Every hold; also the unit in which time passes.
pub const HOLD_MS: u64 = 10_000;
/// From here on it makes no difference how long a step has been in force.
const LONG_MS: u64 = 2 * HOLD_MS;
/// What the numbers of states are replaced by, so that worlds that differ in nothing else are the same.
const WINDOW: u64 = 100;
const UPTIME_MS: u64 = 1_000_000;
/// 2026-03-03 12:00 UTC, a Tuesday, and the Saturday after.
const CLOCKS: [i64; 2] = [1_772_539_200, 1_772_884_800];
/// The versions that may be candidates.
pub const VERSIONS: [&str; 2] = ["v2", "v3"];

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    /// Which of the files is in force.
    pub file: usize,
    pub state: State,
    /// What each of [`VERSIONS`] has, kill switches aside.
    pub shares: [Share; 2],
    /// Who is admitted to which version.
    pub ring: (usize, Vec<Box<str>>),
    /// How much is copied for which version.
    pub mirror: (usize, Share),
    /// Which of [`CLOCKS`] the wall clock shows.
    pub clock: usize,
    pub diary: Diary,
}

/// What was true according to events alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Diary {
    /// By version: rolled back, and no person has acted since.
    pub rolled_back: [bool; 2],
    pub killed: bool,
    /// How long the step was in force while the rollout was not paused.
    pub held_ms: u64,
    pub approved: bool,
    pub promoted: bool,
    /// Gates that said yes to a question of this step.
    pub yes: u32,
    pub obstacle: bool,
}

/// What can happen, by a name for traces.
#[derive(Debug, Clone)]
pub struct Happening {
    pub name: &'static str,
    pub what: What,
    /// Uptime that goes by before it.
    pub after_ms: u64,
}

#[derive(Debug, Clone)]
pub enum What {
    /// `stale`: of a window that is over.
    Look {
        judgement: Judgement,
        obstacle: bool,
        failures: u64,
        stale: bool,
    },
    Gate {
        gate: usize,
        answer: Answer,
        stale: bool,
    },
    Event(Event),
    /// This file is saved.
    Save(usize),
    /// kill -9, and a start from the durable state.
    Crash,
    /// The wall clock shows this of [`CLOCKS`].
    Clock(usize),
}

/// What came of it.
pub struct Outcome {
    pub world: World,
    pub effects: Vec<Effect>,
}

impl World {
    /// The first file was just read.
    pub fn new(advance: &Advance<'_>, files: &[Plan]) -> Self {
        let world = Self {
            file: 0,
            state: State::default(),
            // As in the file: the canary has 5 %.
            shares: [Share::from_thousandths(5_000), Share::ZERO],
            ring: (0, Vec::new()),
            mirror: (0, Share::ZERO),
            clock: 0,
            diary: Diary::default(),
        };
        let loaded = Happening {
            name: "load",
            what: What::Save(0),
            after_ms: 0,
        };
        world.next(advance, files, &loaded).world
    }

    /// The position of the candidate in [`VERSIONS`].
    pub fn candidate(&self, files: &[Plan]) -> usize {
        position(Some(
            self.state.candidate.as_deref().unwrap_or(&files[self.file].candidate),
        ))
    }

    /// What a version really has.
    pub fn effective(&self, version: usize) -> Share {
        if self.diary.killed {
            Share::ZERO
        } else {
            self.shares[version]
        }
    }

    /// Who really is admitted to a version.
    pub fn admitted(&self, version: usize) -> &[Box<str>] {
        if self.diary.killed || self.ring.0 != version {
            &[]
        } else {
            &self.ring.1
        }
    }

    /// How much really is copied for a version.
    pub fn mirrored(&self, version: usize) -> Share {
        if self.diary.killed || self.mirror.0 != version {
            Share::ZERO
        } else {
            self.mirror.1
        }
    }

    /// Whether anybody really gets a version.
    pub fn has_users(&self, version: usize) -> bool {
        self.effective(version) > Share::ZERO || !self.admitted(version).is_empty()
    }

    pub fn now(&self, after_ms: u64) -> Now {
        Now {
            uptime_ms: UPTIME_MS + after_ms,
            unix_s: CLOCKS[self.clock],
        }
    }

    pub fn next(&self, advance: &Advance<'_>, files: &[Plan], happening: &Happening) -> Outcome {
        let mut world = self.clone();
        let mut file = &files[world.file];
        let event = match &happening.what {
            What::Look {
                judgement,
                obstacle,
                failures,
                stale,
            } => Event::Look(Look {
                window: world.state.window - u64::from(*stale),
                judgement: judgement.clone(),
                failures: *failures,
                obstacle: obstacle.then(|| "no endpoint".to_owned()),
            }),
            What::Gate { gate, answer, stale } => Event::Gate {
                gate: *gate,
                window: world.state.window - u64::from(*stale),
                answer: answer.clone(),
            },
            What::Event(event) => event.clone(),
            What::Save(saved) => {
                world.file = *saved;
                file = &files[*saved];
                Event::Loaded
            }
            What::Crash => {
                world.state = reread(&world.state);
                Event::Restored
            }
            What::Clock(shown) => {
                world.clock = *shown;
                return Outcome {
                    world,
                    effects: Vec::new(),
                };
            }
        };
        let before = world.state.clone();
        let (state, effects) = advance(file, before.clone(), event, world.now(happening.after_ms));
        world.state = state;
        for effect in &effects {
            world.carry_out(effect);
        }
        world.write_diary(happening, &before, &effects);
        world.state = plain(world.state);
        Outcome { world, effects }
    }

    /// What the writer does.
    pub fn carry_out(&mut self, effect: &Effect) {
        match effect {
            Effect::SetShare { candidate, share, .. } => self.shares[position(Some(candidate))] = *share,
            Effect::Admit {
                candidate, segments, ..
            } => self.ring = (position(Some(candidate)), segments.clone()),
            Effect::Mirror { candidate, share, .. } => self.mirror = (position(Some(candidate)), *share),
            Effect::ApplyWeights(weights) => {
                let all: Vec<u32> = weights.values().copied().collect();
                for (version, share) in self.shares.iter_mut().enumerate() {
                    let index = weights.keys().position(|name| name == VERSIONS[version]);
                    *share = share_of(&all, index.unwrap_or(usize::MAX));
                }
            }
            _ => {}
        }
    }

    fn write_diary(&mut self, happening: &Happening, before: &State, effects: &[Effect]) {
        let done = refusal(effects).is_none();
        let diary = &mut self.diary;
        if before.is_advancing() && done && !matches!(happening.what, What::Crash) {
            diary.held_ms = LONG_MS.min(diary.held_ms + happening.after_ms.min(HOLD_MS));
        }
        match &happening.what {
            What::Look { obstacle, .. } if before.owns_split() => diary.obstacle = *obstacle,
            What::Gate {
                gate,
                answer: Answer::Yes,
                stale: false,
            } if before.is_advancing() => diary.yes |= 1 << gate,
            What::Event(Event::Killed(_)) => {
                let already = std::mem::replace(&mut diary.killed, true);
                let begun = before.step > 0 || before.share > Share::ZERO;
                let is_over = before.owns_split() && (begun || !already);
                diary.rolled_back[position(before.candidate.as_deref())] |= is_over;
            }
            What::Event(Event::Unkilled(_)) => diary.killed = false,
            What::Event(Event::Command(command)) if done => match command.verb {
                Verb::Approve => diary.approved = true,
                Verb::Promote => (diary.promoted, diary.rolled_back) = (true, [false; 2]),
                Verb::Start | Verb::Retry | Verb::Resume => diary.rolled_back = [false; 2],
                Verb::Pause | Verb::Rollback => {}
            },
            What::Event(Event::WeightsSet { share, .. }) => {
                diary.rolled_back = [false; 2];
                self.shares[position(before.candidate.as_deref())] = *share;
            }
            What::Event(Event::FileWeights(_)) | What::Save(_) => diary.rolled_back = [false; 2],
            _ => {}
        }
        if let What::Save(_) = &happening.what {
            diary.yes = 0;
        }
        let entered = effects
            .iter()
            .any(|effect| matches!(effect, Effect::ResetEvidence { .. }));
        self.diary.obstacle |= self.state.attempt != before.attempt;
        if self.state.step != before.step || self.state.attempt != before.attempt || entered {
            self.diary = Diary {
                held_ms: 0,
                approved: false,
                promoted: self.diary.promoted,
                yes: 0,
                ..self.diary.clone()
            };
        }
        // A promote that no longer waits has happened, or was given up.
        self.diary.promoted &= self.state.promoting;
        if let Phase::RolledBack(_) = self.state.phase {
            let version = position(self.state.candidate.as_deref());
            let by_now = matches!(before.phase, Phase::RolledBack(_))
                && !matches!(&happening.what, What::Event(Event::Command(command)) if command.verb == Verb::Rollback);
            if !by_now {
                self.diary.rolled_back[version] = true;
            }
        }
    }
}

fn position(name: Option<&str>) -> usize {
    VERSIONS.iter().position(|version| Some(*version) == name).unwrap_or(0)
}

/// Through the store.
pub fn reread(state: &State) -> State {
    serde_json::from_str(&serde_json::to_string(state).unwrap()).unwrap()
}

/// Without what makes no difference to what can happen next.
fn plain(mut state: State) -> State {
    let since_asked = state.asked_ms.map(|asked| (state.elapsed_ms - asked).min(HOLD_MS));
    state.elapsed_ms = state.elapsed_ms.min(LONG_MS);
    state.asked_ms = since_asked.map(|since| state.elapsed_ms.saturating_sub(since));
    state.window = WINDOW;
    state.attempt = 1;
    state.step_backs = state.step_backs.min(3);
    state.wait = Wait::Look;
    state.gate_said = None;
    state.obstacle = state.obstacle.map(|_| "".into());
    state.live.seen_ms = Some(UPTIME_MS);
    state.live.ready_ms = None;
    if let Phase::Paused(reason) | Phase::RolledBack(reason) = &mut state.phase {
        reason.text = "".into();
    }
    state
}

/// The files: a ring, an approval, gates, a freeze and the guard; an edit of it that goes on without evidence; one
/// that does not, and begins with a mirror; another candidate, by itself.
pub fn files() -> Vec<Plan> {
    let stays = |step| with_ring(&["staff"], step);
    let mut first = plan(vec![
        ring(&["staff"], 10),
        approved(stays(step(10_000, 10))),
        stays(step(100_000, 10)),
    ]);
    first.gates = [gate(Before::Step), gate(Before::Promote)].into();
    first.freeze = [Freeze::parse("Sat 00:00-Mon 00:00 UTC").unwrap()].into();
    let analysis = |on_no_evidence| Analysis {
        on_no_evidence,
        max_hold: Some(Duration::from_millis(LONG_MS)),
        ..first.analysis.clone()
    };
    let edited = Plan {
        steps: [step(5_000, 10), step(20_000, 10), step(100_000, 10)].into(),
        gates: Box::default(),
        analysis: analysis(OnNoEvidence::Proceed),
        ..first.clone()
    };
    let strict = Plan {
        steps: [mirror(20_000, 10), step(10_000, 10), approved(step(100_000, 10))].into(),
        gates: [gate(Before::Start)].into(),
        freeze: Box::default(),
        analysis: analysis(OnNoEvidence::Rollback),
        ..first.clone()
    };
    let other = Plan {
        candidate: "v3".into(),
        start: Start::Automatic,
        steps: [step(50_000, 10), step(100_000, 10)].into(),
        gates: Box::default(),
        ..first.clone()
    };
    vec![first, edited, strict, other]
}

/// All that can happen, saving any of `files` included.
pub fn happenings(files: usize) -> Vec<Happening> {
    let mut all = Vec::new();
    let mut add = |name, after_ms, what| all.push(Happening { name, what, after_ms });
    let look = |judgement, obstacle, failures| What::Look {
        judgement,
        obstacle,
        failures,
        stale: false,
    };
    add("pass", HOLD_MS, look(Judgement::Pass, false, 0));
    add("pass at once", 0, look(Judgement::Pass, false, 0));
    add(
        "pass after an hour that nobody saw",
        3_600_000,
        look(Judgement::Pass, false, 0),
    );
    add("pass, but no endpoint", HOLD_MS, look(Judgement::Pass, true, 0));
    add("no evidence", HOLD_MS, look(no_evidence(), false, 0));
    add("fail: roll back", 0, look(fail(Action::Rollback), false, 0));
    add("fail: pause", 0, look(fail(Action::Pause), false, 0));
    add("fail: step back", 0, look(fail(Action::StepBack), false, 0));
    add("guard", 0, look(Judgement::Pass, false, 50));
    add(
        "stale pass",
        HOLD_MS,
        What::Look {
            judgement: Judgement::Pass,
            obstacle: false,
            failures: 0,
            stale: true,
        },
    );
    for verb in Verb::ALL {
        add(verb.word(), 0, What::Event(command(verb)));
    }
    for (name, gate, answer, stale) in [
        ("gate 0: yes", 0, Answer::Yes, false),
        ("gate 1: yes", 1, Answer::Yes, false),
        ("gate 0: no", 0, Answer::No(String::new()), false),
        ("gate 1: error", 1, Answer::Error(String::new()), false),
        ("gate 0: yes to an old question", 0, Answer::Yes, true),
    ] {
        add(name, 0, What::Gate { gate, answer, stale });
    }
    add("kill", 0, What::Event(Event::Killed(by("bob"))));
    add("unkill", 0, What::Event(Event::Unkilled(by("bob"))));
    for (name, thousandths) in [("weights 0 %", 0), ("weights 7 %", 7_000), ("weights 100 %", 100_000)] {
        add(
            name,
            0,
            What::Event(Event::WeightsSet {
                share: Share::from_thousandths(thousandths),
                by: by("bob"),
            }),
        );
    }
    let weights = Weights::from([("v1".to_owned(), 97), ("v2".to_owned(), 3)]);
    add("weights of the file", 0, What::Event(Event::FileWeights(weights)));
    add("removed from the file", 0, What::Event(Event::Removed));
    for (name, file) in ["save file 0", "save file 1", "save file 2", "save file 3"]
        .into_iter()
        .zip(0..files)
    {
        add(name, 0, What::Save(file));
    }
    add("crash", 0, What::Crash);
    add("clock: Tuesday", 0, What::Clock(0));
    add("clock: Saturday", 0, What::Clock(1));
    all
}
