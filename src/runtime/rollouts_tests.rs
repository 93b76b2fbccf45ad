use super::*;
use crate::analysis::Arm;
use crate::config;
use crate::rollout::{Cause, Verb};
use crate::runtime::{Change, Command, Latch, ROLLOUT, Refusal, apply, moves_toward_canary, traffic};
use proptest::prelude::*;
use std::path::Path;

const STEPS: &str = "[{ segments: [staff], hold: 10s }, { share: 10%, hold: 10s }, { share: 50%, hold: 10s, approval: true \
                     }, { share: 100%, hold: 10s }]";

/// A file with a rollout of the last of `versions` (the first is stable).
fn file(versions: &[(&str, u32)], more: &str) -> config::Snapshot {
    let mut text =
        "listeners: [{ address: \"127.0.0.1:0\" }]\nsegments: { staff: { header: x-staff, exists: true } }\n\
                    services:\n  - name: shop\n    versions:\n"
            .to_owned();
    for (index, (name, weight)) in versions.iter().enumerate() {
        let role = if index == 0 { "stable" } else { "canary" };
        text += &format!(
            "      - {{ name: {name}, role: {role}, weight: {weight}, pool: {{ endpoints: [\"127.0.0.1:1\"] }} }}\n"
        );
    }
    config::parse(&(text + more), Path::new("")).unwrap()
}

fn plan_of(candidate: &str) -> String {
    format!(
        "    rollout:\n      candidate: {candidate}\n      steps: {STEPS}\n      analysis:\n        min_requests: 10\n        \
         warmup: 0s\n        checks: [{{ metric: error_rate, compared_to: stable, tolerance: 10%, on_fail: rollback }}]\n\
         \x20     guard: {{ max_failures: 50 }}\n"
    )
}

fn with_plan() -> config::Snapshot {
    file(&[("v1", 95), ("v2", 5)], &plan_of("v2"))
}

/// A state, its file, and time that goes on.
struct World {
    state: State,
    file: config::Snapshot,
    ms: u64,
    asks: Vec<Ask>,
    said: Vec<String>,
}

impl World {
    fn begin(file: config::Snapshot) -> Self {
        let mut world = Self {
            state: State::default(),
            file,
            ms: 1_000,
            asks: Vec::new(),
            said: Vec::new(),
        };
        world.command(Command::Restore).unwrap();
        world
    }

    /// Until the candidate has this share.
    fn at(share: f64) -> Self {
        let mut world = Self::begin(with_plan());
        for _ in 0..100 {
            if (world.share() - share).abs() < 0.001 {
                return world;
            }
            world.look(0);
            if world.machine().phase == Phase::WaitingApproval {
                world.verb(Verb::Approve).unwrap();
            }
        }
        panic!("never at {share}: {:?}", world.machine());
    }

    fn command(&mut self, command: Command) -> Result<Change, Refusal> {
        let now = Now {
            uptime_ms: self.ms,
            unix_s: 0,
        };
        let change = apply(&self.state, &self.file, &command, &by("ada"), now)?;
        self.state = change.state.clone();
        self.asks = change.asks.clone();
        self.said
            .extend(change.happened.iter().map(|happened| happened.text.clone()));
        Ok(change)
    }

    fn load(&mut self, file: config::Snapshot) -> Change {
        self.file = file;
        self.command(Command::Load).unwrap()
    }

    fn verb(&mut self, verb: Verb) -> Result<Change, Refusal> {
        self.steer("shop", Steer::Verb(verb))
    }

    fn weights(&mut self, v1: u32, v2: u32) -> Result<Change, Refusal> {
        self.command(Command::Weights {
            service: "shop".to_owned(),
            weights: [("v1".to_owned(), v1), ("v2".to_owned(), v2)].into(),
        })
    }

    /// A second with 100 requests of each version, of which so many of the candidate's fail.
    fn look(&mut self, bad: u64) -> Change {
        self.try_look(bad).unwrap()
    }

    fn try_look(&mut self, bad: u64) -> Result<Change, Refusal> {
        self.look_at("shop", bad)
    }

    fn look_at(&mut self, service: &str, bad: u64) -> Result<Change, Refusal> {
        self.ms += 1_000;
        let seen = Seen {
            candidate: observed(100, bad),
            stable: observed(100, 0),
            failures: bad,
            elapsed: Duration::from_secs(1),
            ..Seen::default()
        };
        self.steer(service, Steer::Look(Box::new(seen)))
    }

    fn steer(&mut self, service: &str, steer: Steer) -> Result<Change, Refusal> {
        let service = service.to_owned();
        self.command(Command::Rollout { service, steer })
    }

    fn see(&mut self, seen: Seen) -> Change {
        self.steer("shop", Steer::Look(Box::new(seen))).unwrap()
    }

    fn restart(&mut self) {
        let services = self.state.services.iter().map(|(name, service)| {
            let text = serde_json::to_string(&**service).unwrap();
            (Arc::clone(name), Arc::new(serde_json::from_str(&text).unwrap()))
        });
        self.state = State {
            services: services.collect(),
            ..self.state.clone()
        };
        self.ms = 5_000;
        self.command(Command::Restore).unwrap();
    }

    fn live(&self) -> crate::routing::ServiceTraffic {
        traffic(&self.state, &self.file).services[0].clone()
    }

    /// What the version called `v2` gets, in percent, killed or not.
    fn share(&self) -> f64 {
        let service = &self.file.policy.services[0];
        let index = service.versions.iter().position(|version| &*version.name == "v2");
        index.map_or(0.0, |index| self.live().split.share_percent(index))
    }

    fn machine(&self) -> rollout::State {
        let service = self.state.service("shop").unwrap();
        service
            .rollout
            .as_ref()
            .map(|rollout| rollout.machine.clone())
            .unwrap_or_default()
    }

    fn cause(&self) -> Option<Cause> {
        self.machine().phase.reason().map(|reason| reason.cause)
    }

    fn notices(&self) -> Vec<Notice> {
        let notice = |ask: &Ask| match ask {
            Ask::Notify { notice, .. } => Some(*notice),
            Ask::Gate { .. } => None,
        };
        self.asks.iter().filter_map(notice).collect()
    }
}

fn observed(requests: u64, bad: u64) -> Observed {
    Observed {
        requests: Arm {
            begun: requests,
            ended: requests,
            bad,
        },
        ..Observed::default()
    }
}

fn by(who: &str) -> Origin {
    Origin {
        who: who.to_owned(),
        from: "unix".to_owned(),
        at_ms: 1,
        reason: None,
    }
}

#[test]
fn a_good_candidate_is_led_to_everything() {
    let mut world = World::begin(with_plan());
    assert_eq!(
        (world.share(), world.notices()),
        (0.0, vec![Notice::Start]),
        "its weight of the file is the rollout's to give"
    );
    let before = traffic(&world.state, &world.file);
    world.look(0);
    assert_eq!(world.machine().step, 1);
    assert_eq!(world.live().ring.unwrap().1.len(), 1, "the first step is a ring");
    assert!(
        moves_toward_canary(&world.file, &before, &traffic(&world.state, &world.file)),
        "who is admitted is given something"
    );
    let mut world = World::at(100.0);
    assert_eq!(world.machine().phase, Phase::Baking);
    for _ in 0..20 {
        world.look(0);
    }
    assert_eq!((world.machine().phase, world.share()), (Phase::Succeeded, 100.0));
    assert_eq!(
        world.state.service("shop").unwrap().set.as_ref().unwrap().by.who,
        ROLLOUT
    );
    assert!(
        world.said.iter().any(|said| said == "shop: v2 is delivered"),
        "{:?}",
        world.said
    );
    // Nobody owns the split any more.
    world.weights(100, 0).unwrap();
    assert_eq!(world.share(), 0.0);
}

#[test]
fn a_bad_candidate_is_rolled_back_with_the_reason_in_plain_words() {
    let mut world = World::at(10.0);
    let epoch = world.live().epoch;
    let change = world.look(40);
    assert_eq!((world.share(), world.cause()), (0.0, Some(Cause::Check)));
    assert_eq!((world.live().epoch, world.live().ring), (epoch + 1, None));
    assert_eq!(world.notices(), [Notice::Rollback]);
    let happened = change
        .happened
        .iter()
        .find(|happened| happened.kind == EventKind::Rollback)
        .unwrap();
    assert!(
        happened.text.contains("v2 fails") && happened.text.contains("evidence"),
        "{}",
        happened.text
    );
    assert_eq!(
        (happened.before["phase"].as_str(), happened.after["phase"].as_str()),
        (Some("progressing"), Some("rolled_back"))
    );
    for _ in 0..5 {
        world.look(0);
    }
    assert_eq!(world.share(), 0.0);
    world.verb(Verb::Retry).unwrap();
    assert_eq!(world.machine().attempt, 2);
    world.look(0);
    assert_eq!(world.machine().step, 1, "with evidence of its own");
}

/// What stable served before the candidate had anything is no comparison for what fails afterwards.
#[test]
fn a_burst_right_after_a_step_is_not_held_against_requests_of_before() {
    let mut world = World::begin(with_plan());
    let mut look = |seen: Seen| {
        world.ms += 1_000;
        world.see(seen);
        (world.machine().phase, world.share())
    };
    // In the ring the split sends nothing to the candidate.
    let ring = Seen {
        forced: observed(20, 0),
        stable: observed(1_000, 0),
        elapsed: Duration::from_secs(1),
        ..Seen::default()
    };
    let reached = (0..30).any(|_| look(ring.clone()).1 > 0.0);
    assert!(reached);
    // Everything fails from now on, in both versions, as the share has it: that is not the candidate's fault, and no time to
    // go on.
    for second in 0..20 {
        let broken = Seen {
            candidate: observed(2, 2),
            stable: observed(18, 18),
            burst: second % 2 == 0,
            ..Seen::default()
        };
        assert_eq!(look(broken), (Phase::Progressing, 10.0));
    }
}

/// Each failure may bring a look, so that no look sees many requests.
#[test]
fn nothing_goes_on_while_both_break_however_often_is_looked() {
    let mut world = World::at(10.0);
    for look in 0..400 {
        world.ms += 100;
        let tick = look % 10 == 9;
        let seen = Seen {
            candidate: observed(u64::from(look % 5 == 0), u64::from(look % 5 == 0)),
            stable: observed(2, 2),
            burst: !tick,
            elapsed: Duration::from_secs(u64::from(tick)),
            ..Seen::default()
        };
        world.see(seen);
    }
    assert_eq!((world.machine().phase, world.share()), (Phase::Progressing, 10.0));
}

#[test]
fn the_guard_counts_whoever_sent_them() {
    let mut world = World::at(10.0);
    let seen = Seen {
        failures: 50,
        ..Seen::default()
    };
    world.see(seen);
    assert_eq!((world.share(), world.cause()), (0.0, Some(Cause::Guard)));
}

#[test]
fn weights_of_the_file_wait_for_the_end() {
    let mut world = World::at(10.0);
    world.load(file(&[("v1", 60), ("v2", 40)], &plan_of("v2")));
    assert!((world.share() - 10.0).abs() < 0.001);
    assert!(
        world.said.iter().any(|said| said.contains("recorded")),
        "{:?}",
        world.said
    );
    world.verb(Verb::Rollback).unwrap();
    assert_eq!(world.share(), 0.0, "without those of the candidate");
    // A file that says something else again is the last change.
    world.load(file(&[("v1", 70), ("v2", 30)], &plan_of("v2")));
    assert_eq!(world.share(), 30.0);
}

#[test]
fn weights_of_a_command_pause_it_first() {
    let mut world = World::at(10.0);
    let said = world.weights(80, 20).unwrap().text;
    assert_eq!(
        said,
        "shop: v1=80 v2=20 (was v1=90 v2=10); its rollout is paused: `rollgate rollout resume shop` goes on"
    );
    assert_eq!((world.share(), world.cause()), (20.0, Some(Cause::Weights)));
    assert_eq!(world.notices(), [Notice::Pause]);
    // A version that joins has nothing, and what the person set stays.
    world.load(file(&[("v1", 95), ("v3", 0), ("v2", 5)], &plan_of("v2")));
    assert_eq!(world.live().split.weights(), [80, 0, 20]);
    world.restart();
    assert_eq!(world.live().split.weights(), [80, 0, 20]);
    world.verb(Verb::Resume).unwrap();
    assert!(
        (world.share() - 10.0).abs() < 0.001,
        "back to what its step gives: {}",
        world.share()
    );
}

#[test]
fn a_restart_goes_on_in_its_step_with_its_evidence() {
    let mut world = World::at(50.0);
    world.look(2);
    let before = world.state.service("shop").unwrap().rollout.clone().unwrap();
    world.restart();
    let after = world.state.service("shop").unwrap().rollout.clone().unwrap();
    assert_eq!((&after.judge, after.failures), (&before.judge, before.failures));
    assert_eq!(
        (after.machine.step, after.machine.elapsed_ms),
        (before.machine.step, before.machine.elapsed_ms)
    );
    assert!((world.share() - 50.0).abs() < 0.001);
    world.look(40);
    assert_eq!(world.cause(), Some(Cause::Check));
}

#[test]
fn an_edited_hold_goes_on_and_another_candidate_begins_anew() {
    let mut world = World::at(10.0);
    let edited = plan_of("v2").replace("share: 10%, hold: 10s", "share: 10%, hold: 5h");
    world.load(file(&[("v1", 95), ("v2", 5)], &edited));
    assert_eq!((world.machine().step, world.machine().attempt), (2, 1));
    assert!((world.share() - 10.0).abs() < 0.001);
    world.load(file(&[("v1", 95), ("v2", 0), ("v3", 5)], &plan_of("v3")));
    assert_eq!(
        (world.machine().candidate.as_deref(), world.machine().attempt),
        (Some("v3"), 2)
    );
    assert_eq!(world.live().split.weights()[2], 0);
    world.look(0);
    assert_eq!(world.machine().step, 1);
}

#[test]
fn a_plan_that_leaves_the_file_leaves_the_weights() {
    let mut world = World::at(10.0);
    world.load(file(&[("v1", 95), ("v2", 5)], ""));
    assert!((world.share() - 10.0).abs() < 0.001);
    assert_eq!((world.machine().phase, world.live().ring), (Phase::Idle, None));
    assert!(matches!(world.verb(Verb::Pause), Err(Refusal::NoRollout { .. })));
    world.load(file(&[("v1", 50), ("v2", 50)], ""));
    assert_eq!(world.share(), 50.0);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut world = World::at(10.0);
    let refused = world.verb(Verb::Start).unwrap_err();
    assert!(refused.to_string().contains("one rollout at a time"), "{refused}");
    let unknown = world.steer("shpo", Steer::Verb(Verb::Start));
    assert!(matches!(unknown, Err(Refusal::UnknownService { .. })));
}

#[test]
fn a_train_goes_on_together_and_back_together() {
    let version = "pool: { endpoints: [\"127.0.0.1:1\"] }";
    let service = |name: &str, with: &str| {
        format!(
            "  - name: {name}\n    routes: [{{ path_prefix: /{name} }}]\n    versions:\n      - {{ name: v1, weight: 95, {version} }}\n\
             \x20     - {{ name: v2, weight: 5, {version} }}\n{}{with}",
            plan_of("v2")
        )
    };
    let text = format!(
        "listeners: [{{ address: \"127.0.0.1:0\" }}]\nsegments: {{ staff: {{ header: x-staff, exists: true }} }}\nservices:\n{}{}",
        service("shop", "      with: [cart]\n"),
        service("cart", "")
    );
    let mut world = World::begin(config::parse(&text, Path::new("")).unwrap());
    let steps = |world: &World| {
        ["shop", "cart"].map(|name| {
            world
                .state
                .service(name)
                .unwrap()
                .rollout
                .as_ref()
                .unwrap()
                .machine
                .step
        })
    };
    // Alone, none of them goes on.
    world.look(0);
    assert_eq!(steps(&world), [0, 0]);
    for _ in 0..60 {
        world.look(0);
        world.look_at("cart", 0).unwrap();
        let [shop, cart] = steps(&world);
        assert_eq!(shop, cart);
        if shop == 2 {
            break;
        }
    }
    assert_eq!(steps(&world), [2, 2]);
    let change = world.look_at("cart", 40).unwrap();
    let live = traffic(&world.state, &world.file);
    assert!(live.services.iter().all(|service| service.split.weight(1) == 0));
    let told: Vec<_> = change
        .happened
        .iter()
        .filter(|happened| happened.kind == EventKind::Rollback)
        .collect();
    assert_eq!(told.len(), 2);
    assert!(
        told.iter()
            .any(|told| told.text.contains("cart of its train was rolled back")),
        "{told:?}"
    );
}

#[derive(Debug, Clone)]
enum Act {
    Look(u64),
    Verb(Verb),
    Weights(u32, u32),
    Kill,
    Unkill,
    Load(usize),
    Restart,
}

fn an_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => prop_oneof![4 => Just(0), 1 => Just(40)].prop_map(Act::Look),
        3 => proptest::sample::select(Verb::ALL.to_vec()).prop_map(Act::Verb),
        1 => (0..3_u32, 0..3_u32).prop_map(|(v1, v2)| Act::Weights(v1, v2)),
        1 => Just(Act::Kill),
        2 => Just(Act::Unkill),
        1 => (0..5_usize).prop_map(Act::Load),
        1 => Just(Act::Restart),
    ]
}

proptest! {
    /// Whatever happens: a rollout that was rolled back gives its candidate nothing until a person or a file does; what is
    /// in force names every version; nobody is admitted without a rollout; no epoch falls; a restart changes nothing in force.
    #[test]
    fn nothing_comes_back_by_itself(acts in proptest::collection::vec(an_act(), 1..60)) {
        let files = || [
            with_plan(),
            file(&[("v1", 60), ("v2", 40)], &plan_of("v2")),
            file(&[("v1", 95), ("v3", 1), ("v2", 4)], &plan_of("v2")),
            file(&[("v1", 95), ("v2", 5), ("v3", 5)], &plan_of("v3")),
            file(&[("v1", 95), ("v2", 5)], ""),
        ];
        let mut world = World::begin(with_plan());
        let mut convicted: Option<Box<str>> = None;
        let index_of = |world: &World, name: &str| {
            world.file.policy.services[0].versions.iter().position(|version| &*version.name == name)
        };
        for act in acts {
            let before = world.live();
            let by_person = !matches!(act, Act::Look(_) | Act::Restart | Act::Kill | Act::Unkill | Act::Verb(Verb::Pause));
            match act {
                Act::Look(bad) => drop(world.try_look(bad)),
                Act::Verb(verb) => drop(world.verb(verb)),
                Act::Weights(v1, v2) => drop(world.weights(v1, v2)),
                Act::Kill => drop(world.command(Command::Kill(crate::runtime::Scope::All))),
                Act::Unkill => drop(world.command(Command::Unkill(crate::runtime::Scope::All))),
                Act::Load(number) => drop(world.load(files().into_iter().nth(number).unwrap())),
                Act::Restart => {
                    world.restart();
                    prop_assert_eq!(&world.live(), &before);
                }
            }
            let live = world.live();
            prop_assert!(live.epoch >= before.epoch);
            prop_assert_eq!(live.split.weights().len(), world.file.policy.services[0].versions.len());
            let machine = world.machine();
            prop_assert!(live.ring.is_none() || machine.owns_split());
            if machine.owns_split() && machine.phase.reason().is_none_or(|reason| reason.cause != Cause::Weights) {
                let candidate = machine.candidate.clone().unwrap();
                let given = index_of(&world, &candidate).map(|index| live.split.share_percent(index));
                // Weights that a person set give a share to the nearest thousandth.
                let off = given.map(|given| (given - machine.share.fraction() * 100.0).abs());
                prop_assert!(off.is_some_and(|off| off <= 0.001), "{:?} of {:?}", given, machine);
            }
            if by_person {
                convicted = None;
            }
            if matches!(machine.phase, Phase::RolledBack(_)) && !matches!(act, Act::Weights(..) | Act::Load(_)) && !by_person {
                convicted = machine.candidate.clone();
            }
            if let Some(index) = convicted.as_ref().and_then(|name| index_of(&world, name))
                && matches!(act, Act::Look(_) | Act::Kill)
                && before.split.weight(index) == 0
            {
                prop_assert_eq!(live.split.weight(index), 0, "{:?}", act);
            }
        }
    }
}

#[test]
fn a_latch_set_before_there_was_a_rollout_holds_it() {
    let mut world = World::begin(file(&[("v1", 95), ("v2", 5)], ""));
    world.command(Command::Kill(crate::runtime::Scope::All)).unwrap();
    assert_eq!(
        world.state.kill.as_ref().map(|Latch { by }| by.who.as_str()),
        Some("ada")
    );
    world.load(with_plan());
    for _ in 0..5 {
        world.look(0);
    }
    assert_eq!((world.machine().step, world.share()), (0, 0.0));
    world.command(Command::Unkill(crate::runtime::Scope::All)).unwrap();
    world.look(0);
    assert_eq!(world.machine().step, 1);
}

#[path = "mirror_tests.rs"]
mod mirror;

#[path = "kill_tests.rs"]
mod kill;
