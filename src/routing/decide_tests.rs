use super::super::request::tests::{Lines, request};
use super::*;
use crate::routing::{Destination, HashName, HostPattern, KeySource, Operator, PathPattern, Route, Source};
use proptest::prelude::*;
use std::cell::Cell;

const STABLE: VersionId = VersionId(0);
const CANARY: VersionId = VersionId(1);
const NOW: u64 = 1_800_000_000;
const TTL: u64 = 1_000;

/// Facts that count how often they are asked for.
struct World {
    now_s: u64,
    turn: Cell<u64>,
    rule_turn: Cell<u64>,
    ids: Cell<u128>,
    /// Versions without a usable endpoint.
    dead: Vec<VersionId>,
    key: CookieKey,
}

impl World {
    fn new() -> Self {
        Self {
            now_s: NOW,
            turn: Cell::new(0),
            rule_turn: Cell::new(0),
            ids: Cell::new(0),
            dead: Vec::new(),
            key: CookieKey::new(&[1; 32]),
        }
    }

    fn later(&self, seconds: u64) -> Self {
        Self {
            now_s: self.now_s + seconds,
            ids: self.ids.clone(),
            ..Self::new()
        }
    }
}

impl Facts for World {
    fn now_s(&self) -> u64 {
        self.now_s
    }

    fn turn(&self, _: ServiceId, rule: Option<u32>) -> u64 {
        let turn = if rule.is_some() { &self.rule_turn } else { &self.turn };
        turn.replace(turn.get() + 1)
    }

    fn usable(&self, _: ServiceId, version: VersionId) -> bool {
        !self.dead.contains(&version)
    }

    fn cookie_key(&self) -> &CookieKey {
        &self.key
    }

    fn fresh_id(&self) -> u128 {
        self.ids.set(self.ids.get() + 1);
        self.ids.get()
    }
}

fn header(name: &str, value: &str) -> Condition {
    Condition::Test {
        source: Source::Header(name.into()),
        operator: Operator::Equals(value.into()),
    }
}

fn affinity() -> Affinity {
    Affinity {
        key: [KeySource::Header("x-user-id".into())].into(),
        salt: "checkout".into(),
        hash: HashName::Rollgate1,
        cookie: None,
        keep: false,
    }
}

fn with_cookie(keep: bool) -> Option<Affinity> {
    let cookie = Some(CookieSpec {
        name: "rollgate".into(),
        ttl_s: TTL,
    });
    Some(Affinity {
        cookie,
        keep,
        ..affinity()
    })
}

/// One service, `checkout`, at every host, with a stable version and `canaries` canaries.
fn policy(canaries: usize, affinity: Option<Affinity>, rules: Vec<Rule>) -> Policy {
    let version = |index| Version {
        name: format!("v{}", index + 1).into(),
        role: if index == 0 { Role::Stable } else { Role::Canary },
    };
    Policy {
        routes: RouteTable::new(vec![Route {
            host: HostPattern::Any,
            path: PathPattern::Prefix("/".into()),
            methods: [].into(),
            to: Destination::Service(ServiceId(0)),
        }]),
        segments: [("staff", "yes"), ("office", "tokyo")]
            .map(|(name, value)| Segment {
                name: name.into(),
                when: header(&format!("x-{name}"), value),
            })
            .into(),
        services: [Service {
            name: "checkout".into(),
            versions: (0..=canaries).map(version).collect(),
            stable: STABLE,
            affinity,
            rules: rules.into(),
            fallback: Fallback::Stable,
        }]
        .into(),
    }
}

fn traffic(weights: &[u32]) -> Traffic {
    let live = ServiceTraffic {
        split: Split::new(weights).unwrap(),
        killed: false,
        epoch: 1,
        ring: None,
        mirror: None,
    };
    Traffic {
        killed: false,
        services: [live].into(),
    }
}

fn rule(name: &str, when: Condition, target: Target) -> Rule {
    Rule {
        name: name.into(),
        when,
        from: None,
        target,
    }
}

fn ask(policy: &Policy, traffic: &Traffic, lines: &[(&str, &str)], world: &World) -> Decision {
    decide(policy, traffic, &request(&Lines::of(lines)), world)
        .decision()
        .unwrap()
}

fn cookie_of(decision: &Decision) -> String {
    let set = decision.set_cookie.as_ref().expect("a cookie is set");
    format!("rollgate={}", str::from_utf8(set.value()).unwrap())
}

fn text(policy: &Policy, decision: &Decision) -> String {
    decision.reason.text(&policy.services[0]).to_string()
}

#[test]
fn no_route_is_no_decision() {
    let world = World::new();
    let fields = Lines::default();
    assert_eq!(
        decide(&Policy::default(), &Traffic::default(), &request(&fields), &world),
        Routed::Nowhere
    );
    let policy = policy(1, None, vec![]);
    assert_eq!(
        decide_in(ServiceId(1), &policy, &traffic(&[1, 1]), &request(&fields), &world),
        None
    );
}

#[test]
fn each_step_comes_before_the_next() {
    let rules = vec![rule("forced", header("x-version", "v2"), Target::Version(CANARY))];
    let policy = policy(1, with_cookie(true), rules);
    let world = World::new();
    let all = traffic(&[1, 99]);
    let user = ("x-user-id", "alice");
    let first = ask(&policy, &all, &[user], &world);
    assert_eq!((first.version, first.reason), (Some(CANARY), Reason::Bucket));
    assert!(first.bucket.is_some_and(|bucket| bucket < 99_000));
    let cookie = cookie_of(&first);
    let lines = [
        user,
        ("x-version", "v2"),
        ("x-staff", "yes"),
        ("cookie", cookie.as_str()),
    ];

    let mut ring = traffic(&[1, 99]);
    ring.services[0].ring = Some((CANARY, [SegmentId(0)].into()));
    for (lines, expected) in [(&lines[..], "rule:forced"), (&lines[..1], "bucket")] {
        assert_eq!(text(&policy, &ask(&policy, &ring, lines, &world)), expected);
    }
    assert_eq!(
        text(&policy, &ask(&policy, &ring, &[user, lines[2], lines[3]], &world)),
        "ring"
    );
    assert_eq!(text(&policy, &ask(&policy, &ring, &[user, lines[3]], &world)), "kept");

    for all_services in [true, false] {
        let mut killed = ring.services.clone();
        killed[0].killed = !all_services;
        let killed = Traffic {
            killed: all_services,
            services: killed,
        };
        let decision = ask(&policy, &killed, &lines, &world);
        let plain = Decision::plain(ServiceId(0), STABLE, Reason::Killed);
        let route = Some(RouteId(0));
        assert_eq!(decision, Decision { route, ..plain });
        assert_eq!(text(&policy, &decision), "killed");
    }
}

#[test]
fn rules_in_order_and_only_from_their_segment() {
    let mut rules = vec![
        rule("forced", header("x-version", "v2"), Target::Version(CANARY)),
        rule("second", header("x-version", "v2"), Target::Version(STABLE)),
    ];
    rules[0].from = Some(SegmentId(1));
    let policy = policy(1, None, rules);
    let (live, world) = (traffic(&[1, 0]), World::new());
    let outside = ask(&policy, &live, &[("x-version", "v2")], &world);
    assert_eq!((outside.chosen, outside.reason), (STABLE, Reason::Rule(1)));
    let office = ask(&policy, &live, &[("x-version", "v2"), ("x-office", "tokyo")], &world);
    // Also a version of weight 0: that is what such rules are for.
    assert_eq!((office.chosen, office.reason), (CANARY, Reason::Rule(0)));
    assert_eq!(office.set_cookie, None);
    assert_eq!(world.turn.get(), 0);
}

#[test]
fn a_rules_split_uses_the_bucket_or_the_turn() {
    let japan = |affinity| {
        let half = Target::Split(Split::new([1, 1]).unwrap());
        policy(1, affinity, vec![rule("japan", header("cf-ipcountry", "JP"), half)])
    };
    let live = traffic(&[1, 0]);
    let japanese = ("cf-ipcountry", "JP");
    let (with_key, world) = (japan(Some(affinity())), World::new());
    for user in ["a", "b", "c", "d"] {
        let decision = ask(&with_key, &live, &[japanese, ("x-user-id", user)], &world);
        let bucket = HashName::Rollgate1.bucket("checkout", user.as_bytes());
        assert_eq!(decision.chosen, if bucket < 50_000 { CANARY } else { STABLE });
        assert_eq!((decision.reason, decision.bucket), (Reason::Rule(0), Some(bucket)));
    }
    assert_eq!(world.turn.get(), 0);
    let canaries = (0..1_000)
        .filter(|_| ask(&with_key, &live, &[japanese], &world).chosen == CANARY)
        .count();
    assert!(canaries.abs_diff(500) <= 3, "{canaries}");
    // Of its own sequence: the service's split stays exact beside it.
    assert_eq!((world.rule_turn.get(), world.turn.get()), (1_000, 0));

    // The cookie's id makes it sticky, and the rule admits nobody for longer.
    let with_cookie = japan(with_cookie(true));
    for _ in 0..20 {
        let first = ask(&with_cookie, &live, &[japanese], &world);
        assert_eq!(first.set_cookie.as_ref().unwrap().kept, None);
        let again = ask(&with_cookie, &live, &[japanese, ("cookie", &cookie_of(&first))], &world);
        assert_eq!(
            (again.chosen, again.bucket, again.set_cookie),
            (first.chosen, first.bucket, None)
        );
    }
}

#[test]
fn requests_without_a_key_go_by_weight_and_exactly() {
    for affinity in [None, Some(affinity())] {
        let (policy, live, world) = (policy(1, affinity, vec![]), traffic(&[95, 5]), World::new());
        let decisions: Vec<Decision> = (0..10_000).map(|_| ask(&policy, &live, &[], &world)).collect();
        let canaries = decisions
            .iter()
            .filter(|decision| decision.version == Some(CANARY))
            .count();
        assert!(canaries.abs_diff(500) <= 3, "{canaries}");
        assert!(
            decisions
                .iter()
                .all(|decision| decision.reason == Reason::Weight && decision.bucket.is_none())
        );
        assert_eq!(world.turn.get(), 10_000, "one turn a request");
    }
}

#[test]
fn fallback() {
    let mut policy = policy(1, with_cookie(true), vec![]);
    let user = [("x-user-id", "alice")];
    let all = traffic(&[0, 1]);
    let mut world = World::new();
    world.dead = vec![CANARY, STABLE];
    let decision = ask(&policy, &all, &user, &world);
    assert_eq!(
        (decision.chosen, decision.version, decision.reason),
        (CANARY, Some(STABLE), Reason::Fallback)
    );
    assert_eq!(
        decision.set_cookie, None,
        "who was not served by the canary was not admitted"
    );
    policy.services[0].fallback = Fallback::Fail;
    let decision = ask(&policy, &all, &user, &world);
    assert_eq!(
        (decision.chosen, decision.version, decision.reason),
        (CANARY, None, Reason::Fallback)
    );
    assert_eq!(text(&policy, &decision), "fallback");
    let decision = ask(&policy, &traffic(&[1, 0]), &user, &world);
    assert_eq!(
        (decision.version, decision.reason),
        (Some(STABLE), Reason::Bucket),
        "stable is always used"
    );
}

#[test]
fn a_fallback_does_not_forget_who_was_kept() {
    let (policy, mut world) = (policy(1, with_cookie(true), vec![]), World::new());
    let cookie = cookie_of(&ask(&policy, &traffic(&[1, 99]), &[("x-user-id", "alice")], &world));
    let lines = [("x-user-id", "alice"), ("cookie", cookie.as_str())];
    world.dead = vec![CANARY];
    let decision = ask(&policy, &traffic(&[99, 1]), &lines, &world);
    assert_eq!(
        (decision.version, decision.reason, decision.set_cookie),
        (Some(STABLE), Reason::Fallback, None)
    );
}

#[test]
fn who_has_no_key_gets_an_id() {
    let (policy, live, world) = (policy(1, with_cookie(false), vec![]), traffic(&[1, 1]), World::new());
    let (mut canaries, mut firsts) = (0, Vec::new());
    for _ in 0..200 {
        let first = ask(&policy, &live, &[], &world);
        let set = first.set_cookie.as_ref().unwrap();
        let bucket = HashName::Rollgate1.bucket("checkout", format!("{:032x}", set.id).as_bytes());
        assert_eq!(
            (first.reason, first.bucket, set.kept),
            (Reason::Bucket, Some(bucket), None)
        );
        canaries += usize::from(first.chosen == CANARY);
        firsts.push(first);
    }
    assert!((60..=140).contains(&canaries), "{canaries}");
    assert_eq!((world.ids.get(), world.turn.get()), (200, 0));
    for first in &firsts {
        let again = ask(&policy, &live, &[("cookie", &cookie_of(first))], &world);
        assert_eq!(
            (again.chosen, again.bucket, again.set_cookie),
            (first.chosen, first.bucket, None)
        );
    }
    assert_eq!(world.ids.get(), 200);
    // Who has a key is left alone.
    assert_eq!(ask(&policy, &live, &[("x-user-id", "alice")], &world).set_cookie, None);
    // A forged one is replaced, and nothing of it comes back.
    let forged = ask(
        &policy,
        &live,
        &[("cookie", &format!("rollgate={}", "A".repeat(92)))],
        &world,
    );
    assert_eq!(forged.set_cookie.as_ref().unwrap().id, 201);
}

#[test]
fn cookies_are_renewed_in_their_second_half() {
    let (policy, live, world) = (policy(1, with_cookie(true), vec![]), traffic(&[1, 1]), World::new());
    let user = ("x-user-id", "alice");
    for (key, weights) in [(None, [1, 1]), (Some(user), [0, 1])] {
        let first = ask(
            &policy,
            &traffic(&weights),
            &key.map_or(vec![], |key| vec![key]),
            &world,
        );
        let cookie = cookie_of(&first);
        let mut lines = vec![("cookie", cookie.as_str())];
        lines.extend(key);
        let renewed = |after| ask(&policy, &live, &lines, &world.later(after));
        assert_eq!(renewed(TTL / 2).set_cookie, None);
        let second = renewed(TTL / 2 + 1);
        let (old, new) = (first.set_cookie.unwrap(), second.set_cookie.unwrap());
        assert_eq!((old.id, old.kept), (new.id, new.kept));
        assert_ne!(old.value(), new.value());
    }
}

#[test]
fn kept_while_the_share_falls_and_not_longer() {
    let (policy, world) = (policy(2, with_cookie(true), vec![]), World::new());
    let user = ("x-user-id", "alice");
    let first = ask(&policy, &traffic(&[0, 1, 0]), &[user], &world);
    assert_eq!(first.set_cookie.as_ref().unwrap().kept, Some(CANARY));
    let cookie = cookie_of(&first);
    let lines = [user, ("cookie", cookie.as_str())];
    let kept = |live: &Traffic, lines: &[(&str, &str)]| ask(&policy, live, lines, &world);

    let few = kept(&traffic(&[999_999, 1, 0]), &lines);
    assert_eq!(
        (few.version, few.reason, few.bucket, few.set_cookie),
        (Some(CANARY), Reason::Kept, Some(74_783), None)
    );
    // Zero means zero, and the cookie forgets.
    let none = kept(&traffic(&[1, 0, 0]), &lines);
    assert_eq!((none.version, none.reason), (Some(STABLE), Reason::Bucket));
    let forgotten = cookie_of(&none);
    assert_eq!(none.set_cookie.unwrap().kept, None);
    let after = kept(&traffic(&[999_999, 1, 0]), &[user, ("cookie", &forgotten)]);
    assert_eq!((after.version, after.set_cookie), (Some(STABLE), None));
    // A rollback bumps the epoch.
    let mut rolled_back = traffic(&[999_999, 1, 0]);
    rolled_back.services[0].epoch = 2;
    assert_eq!(kept(&rolled_back, &lines).reason, Reason::Bucket);
    // Another user's cookie is nobody's.
    let bob = kept(&traffic(&[999_999, 1, 0]), &[("x-user-id", "bob"), lines[1]]);
    assert_eq!(
        (bob.version, bob.reason, bob.set_cookie),
        (Some(STABLE), Reason::Bucket, None)
    );
}

#[test]
fn kept_by_name_and_only_in_a_canary() {
    let world = World::new();
    let user = ("x-user-id", "alice");
    let mut policy = policy(2, with_cookie(true), vec![]);
    let cookie = cookie_of(&ask(&policy, &traffic(&[0, 1, 0]), &[user], &world));
    let lines = [user, ("cookie", cookie.as_str())];
    let live = traffic(&[999_998, 1, 1]);
    let versions = &mut policy.services[0].versions;
    versions.swap(1, 2);
    let moved = ask(&policy, &live, &lines, &world);
    assert_eq!((moved.version, moved.reason), (Some(VersionId(2)), Reason::Kept));
    policy.services[0].versions[2].name = "v9".into();
    let removed = ask(&policy, &live, &lines, &world);
    assert_eq!((removed.version, removed.reason), (Some(STABLE), Reason::Bucket));
    // The canary has become stable.
    policy.services[0].versions[0].name = "v2".into();
    assert_eq!(ask(&policy, &live, &lines, &world).reason, Reason::Bucket);
}

#[test]
fn without_keep_nobody_is_kept() {
    let world = World::new();
    let keeping = policy(1, with_cookie(true), vec![]);
    let first = ask(&keeping, &traffic(&[0, 1]), &[], &world);
    assert_eq!(first.set_cookie.as_ref().unwrap().kept, Some(CANARY));
    let plain = policy(1, with_cookie(false), vec![]);
    let decision = ask(&plain, &traffic(&[1, 0]), &[("cookie", &cookie_of(&first))], &world);
    assert_eq!((decision.version, decision.reason), (Some(STABLE), Reason::Bucket));
    let set = decision.set_cookie.unwrap();
    assert_eq!((set.id, set.kept), (first.set_cookie.unwrap().id, None));
}

#[test]
fn traffic_that_does_not_fit_the_policy_goes_to_stable() {
    let (policy, world) = (policy(1, None, vec![]), World::new());
    let decision = ask(&policy, &Traffic::default(), &[], &world);
    assert_eq!(decision.version, Some(STABLE));
    let too_many = ask(&policy, &traffic(&[0, 0, 0, 1]), &[], &world);
    assert_eq!((too_many.chosen, too_many.version), (STABLE, Some(STABLE)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Through the whole of `decide`, with and without keep: a user's version changes into the risen one only.
    #[test]
    fn a_users_version_changes_only_into_the_risen_one(
        weights in prop::collection::vec(1u32..1000, 2..=10),
        rising: prop::sample::Index,
        steps in prop::collection::vec(0u32..500, 1..8),
        keep: bool,
        user in "[a-z0-9]{0,8}",
    ) {
        let rising = rising.index(weights.len());
        let policy = policy(weights.len() - 1, with_cookie(keep), vec![]);
        let world = World::new();
        let mut weights = weights;
        let mut cookie = String::new();
        let mut last: Option<VersionId> = None;
        for step in steps {
            weights[rising] += step;
            let decision = ask(&policy, &traffic(&weights), &[("x-user-id", &user), ("cookie", &cookie)], &world);
            if decision.set_cookie.is_some() {
                cookie = cookie_of(&decision);
            }
            if let Some(last) = last {
                prop_assert!(decision.chosen == last || decision.chosen.0 as usize == rising);
            }
            last = Some(decision.chosen);
        }
    }

    #[test]
    fn total(
        lines in prop::collection::vec((
            prop::sample::select(vec!["cookie", "x-user-id", "x-staff", "cf-ipcountry"]),
            prop::collection::vec(any::<u8>(), 0..120),
        ), 0..4),
        weights in prop::collection::vec(any::<u32>(), 0..5),
        stable in 0u32..4,
        fail: bool,
        now_s: u64,
    ) {
        let rules = vec![
            rule("lost", header("x-staff", "a"), Target::Version(VersionId(77))),
            rule("split", Condition::Segment(SegmentId(9)), Target::Split(Split::new([0, 0, 0, 0, 1]).unwrap())),
        ];
        let mut policy = policy(2, with_cookie(true), rules);
        policy.services[0].stable = VersionId(stable);
        policy.services[0].fallback = if fail { Fallback::Fail } else { Fallback::Stable };
        let Some(split) = Split::new(weights) else { return Ok(()) };
        let ring = Some((VersionId(50), [SegmentId(0), SegmentId(3)].into()));
        let live = ServiceTraffic { split, killed: false, epoch: 0, ring, mirror: None };
        let world = World { now_s, dead: vec![VersionId(1)], ..World::new() };
        let fields = Lines(lines.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
        let traffic = Traffic { killed: false, services: [live].into() };
        let routed = decide(&policy, &traffic, &request(&fields), &world);
        prop_assert!(matches!(routed, Routed::Service(_)));
    }
}
