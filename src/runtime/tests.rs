use super::*;
use crate::config;
use proptest::prelude::*;
use std::path::Path;

/// A file of services with their versions' weights (the first is stable), and kill switches.
fn file(kill: bool, services: &[(&str, bool, &[u32])]) -> config::Snapshot {
    let mut text = format!("listeners: [{{ address: \"127.0.0.1:0\" }}]\nkill: {kill}\nservices:\n");
    for (name, kill, weights) in services {
        text +=
            &format!("  - name: {name}\n    kill: {kill}\n    routes: [{{ path_prefix: /{name} }}]\n    versions:\n");
        for (index, weight) in weights.iter().enumerate() {
            let role = if index == 0 { "stable" } else { "canary" };
            text += &format!(
                "      - {{ name: v{}, role: {role}, weight: {weight}, pool: {{ endpoints: [\"127.0.0.1:1\"] }} }}\n",
                index + 1
            );
        }
    }
    config::parse(&text, Path::new("")).unwrap()
}

fn apply(state: &State, file: &config::Snapshot, command: &Command, by: &Origin) -> Result<Change, Refusal> {
    let now = crate::rollout::Now {
        uptime_ms: 0,
        unix_s: 0,
    };
    super::apply(state, file, command, by, now)
}

fn by(who: &str) -> Origin {
    Origin {
        who: who.to_owned(),
        from: "unix".to_owned(),
        at_ms: 1,
        reason: None,
    }
}

fn weights(pairs: &[(&str, u32)]) -> Weights {
    pairs.iter().map(|&(name, weight)| (name.to_owned(), weight)).collect()
}

fn set(service: &str, pairs: &[(&str, u32)]) -> Command {
    Command::Weights {
        service: service.to_owned(),
        weights: weights(pairs),
    }
}

fn kill(name: &str) -> Command {
    Command::Kill(Scope::Service(name.to_owned()))
}

fn unkill(name: &str) -> Command {
    Command::Unkill(Scope::Service(name.to_owned()))
}

/// The state after `commands` on `file`, which was loaded first.
fn after(file: &config::Snapshot, commands: &[Command]) -> State {
    let mut state = apply(&State::default(), file, &Command::Load, &by("file"))
        .unwrap()
        .state;
    for command in commands {
        state = apply(&state, file, command, &by("ada")).unwrap().state;
    }
    state
}

fn split(state: &State, file: &config::Snapshot) -> Vec<u32> {
    traffic(state, file).services[0].split.weights().to_vec()
}

#[test]
fn a_file_that_leaves_the_weights_alone_leaves_those_of_a_command_alone() {
    let first = file(false, &[("s", false, &[90, 10])]);
    let state = after(&first, &[set("s", &[("v1", 50), ("v2", 50)])]);
    assert_eq!(split(&state, &first), [50, 50]);
    let again = apply(&state, &first, &Command::Load, &by("file")).unwrap();
    assert_eq!((&again.state, again.happened.len()), (&state, 0));
    // Another service comes: nothing of this one.
    let other = file(false, &[("s", false, &[90, 10]), ("t", false, &[1])]);
    let state = apply(&state, &other, &Command::Load, &by("file")).unwrap().state;
    assert_eq!(split(&state, &other), [50, 50]);
    let edited = file(false, &[("s", false, &[80, 20])]);
    let change = apply(&state, &edited, &Command::Load, &by("file")).unwrap();
    assert_eq!(split(&change.state, &edited), [80, 20]);
    assert_eq!(
        change.happened[0].text,
        "s: v1=80 v2=20 (was v1=50 v2=50), as the file now says"
    );
}

#[test]
fn other_versions_are_other_weights() {
    let first = file(false, &[("s", false, &[90, 10])]);
    let state = after(&first, &[set("s", &[("v1", 50), ("v2", 50)])]);
    let third = file(false, &[("s", false, &[90, 10, 0])]);
    let state = apply(&state, &third, &Command::Load, &by("file")).unwrap().state;
    assert_eq!(split(&state, &third), [90, 10, 0]);
}

#[test]
fn kill_and_unkill_give_back_what_was_in_force() {
    let file = file(false, &[("s", false, &[90, 10])]);
    let state = after(&file, &[set("s", &[("v1", 50), ("v2", 50)]), kill("s")]);
    let live = &traffic(&state, &file).services[0];
    assert!(live.killed);
    assert_eq!(live.epoch, 1);
    let again = apply(&state, &file, &kill("s"), &by("bob")).unwrap();
    assert_eq!((again.happened.len(), again.state == state), (0, true));
    let state = apply(&state, &file, &unkill("s"), &by("ada")).unwrap().state;
    let live = &traffic(&state, &file).services[0];
    assert_eq!(
        (live.killed, live.epoch, live.split.weights()),
        (false, 1, &[50, 50][..])
    );
}

#[test]
fn the_switches_of_file_and_command_are_two() {
    let killed = file(false, &[("s", true, &[90, 10])]);
    let free = file(false, &[("s", false, &[90, 10])]);
    let state = after(&killed, &[kill("s")]);
    let refused = apply(&state, &killed, &unkill("s"), &by("ada")).unwrap_err();
    assert!(matches!(refused, Refusal::KilledByFile { .. }), "{refused}");
    let state = apply(&state, &free, &Command::Load, &by("file")).unwrap().state;
    assert!(traffic(&state, &free).services[0].killed, "the command's latch holds");
    let state = apply(&state, &free, &unkill("s"), &by("ada")).unwrap().state;
    assert!(!traffic(&state, &free).services[0].killed);
}

#[test]
fn the_switch_for_all_kills_services_to_come_and_revokes_every_cookie() {
    let first = file(false, &[("s", false, &[90, 10])]);
    let state = after(&first, &[Command::Kill(Scope::All)]);
    let second = file(false, &[("s", false, &[90, 10]), ("t", false, &[1, 1])]);
    let state = apply(&state, &second, &Command::Load, &by("file")).unwrap().state;
    let live = traffic(&state, &second);
    assert!(live.killed);
    assert!(live.services.iter().all(|service| service.epoch == 1));
    let refused = apply(&state, &second, &unkill("t"), &by("ada")).unwrap_err();
    assert!(matches!(refused, Refusal::KilledWithAll { .. }), "{refused}");
}

#[test]
fn a_killed_service_that_leaves_the_file_comes_back_killed() {
    let both = file(false, &[("s", false, &[90, 10]), ("t", false, &[1, 1])]);
    let one = file(false, &[("t", false, &[1, 1])]);
    let state = after(&both, &[kill("s"), kill("t"), unkill("t")]);
    let state = apply(&state, &one, &Command::Load, &by("file")).unwrap().state;
    let back = apply(&state, &both, &Command::Load, &by("file")).unwrap().state;
    assert!(traffic(&back, &both).services[0].killed);
    // It can be released while it is away, and is forgotten then; its epoch is not.
    let state = apply(&state, &one, &unkill("s"), &by("ada")).unwrap().state;
    assert!(state.service("s").is_none());
    let back = apply(&state, &both, &Command::Load, &by("file")).unwrap().state;
    assert_eq!(
        (
            back.service("s").unwrap().epoch,
            traffic(&back, &both).services[0].killed
        ),
        (1, false)
    );
}

#[test]
fn what_makes_no_sense_is_refused() {
    let file = file(false, &[("shop", false, &[90, 10])]);
    let state = after(&file, &[]);
    for (command, words) in [
        (set("shpo", &[("v1", 1)]), "no service is called `shpo`"),
        (kill("x"), "no service"),
        (unkill("x"), "no service"),
        (set("shop", &[("v1", 1), ("v3", 1)]), "has no version `v3`"),
        (set("shop", &[("v2", 50)]), "no weight is given for v1"),
        (set("shop", &[("v1", 0), ("v2", 0)]), "all weights are 0"),
        (set("shop", &[("v1", 1_000_001), ("v2", 0)]), "above 1000000"),
    ] {
        let refusal = apply(&state, &file, &command, &by("ada")).unwrap_err();
        assert!(refusal.to_string().contains(words), "{refusal}");
        assert!(!refusal.help().is_empty());
    }
    let similar = apply(&state, &file, &kill("shpo"), &by("ada")).unwrap_err();
    assert!(similar.help().contains("`shop`"), "{}", similar.help());
}

#[test]
fn what_moves_toward_the_canary() {
    let file = file(false, &[("s", false, &[90, 10])]);
    let base = after(&file, &[]);
    let at = |commands: &[Command]| traffic(&after(&file, commands), &file);
    let from_base = |after: &Traffic| moves_toward_canary(&file, &traffic(&base, &file), after);
    use crate::routing::Traffic;
    assert!(from_base(&at(&[set("s", &[("v1", 80), ("v2", 20)])])));
    assert!(!from_base(&at(&[set("s", &[("v1", 95), ("v2", 5)])])));
    assert!(!from_base(&at(&[set("s", &[("v1", 900), ("v2", 100)])])));
    assert!(!from_base(&at(&[kill("s")])));
    let killed = at(&[kill("s")]);
    assert!(moves_toward_canary(&file, &killed, &at(&[])));
    assert!(!moves_toward_canary(
        &file,
        &killed,
        &at(&[kill("s"), set("s", &[("v1", 0), ("v2", 1)])])
    ));
}

fn a_command() -> impl Strategy<Value = Command> {
    let name = prop_oneof![Just("s"), Just("t")].prop_map(str::to_owned);
    let scope = prop_oneof![Just(Scope::All), name.clone().prop_map(Scope::Service)];
    prop_oneof![
        4 => (name, 0..3u32, 0..3u32).prop_map(|(service, v1, v2)| Command::Weights {
            service,
            weights: weights(&[("v1", v1), ("v2", v2)]),
        }),
        2 => scope.clone().prop_map(Command::Kill),
        2 => scope.prop_map(Command::Unkill),
        3 => Just(Command::Load),
    ]
}

proptest! {
    /// Files, commands and restarts in any order: a killed service sends nothing to a canary, weights in force are those
    /// that the file or a command last set, no epoch falls, and the same history gives the same state.
    #[test]
    fn invariants(history in proptest::collection::vec((a_command(), 0..6usize, any::<bool>()), 1..40)) {
        let files = [
            file(false, &[("s", false, &[90, 10]), ("t", false, &[1, 1])]),
            file(false, &[("s", false, &[80, 20]), ("t", false, &[1, 1])]),
            file(false, &[("s", true, &[90, 10]), ("t", false, &[1, 1])]),
            file(true, &[("s", false, &[90, 10]), ("t", false, &[1, 1])]),
            file(false, &[("t", false, &[1, 1])]),
            file(false, &[("t", false, &[1, 1]), ("s", false, &[90, 10])]),
        ];
        let run = || {
            let mut current = 0;
            let mut state = after(&files[0], &[]);
            // What should be in force: by service, the weights, and whether a command's latch is on.
            let mut asked: BTreeMap<&str, Vec<u32>> = BTreeMap::from([("s", vec![90, 10]), ("t", vec![1, 1])]);
            let mut latched: std::collections::BTreeSet<Scope> = Default::default();
            for (command, number, restart) in &history {
                let before = state.clone();
                if restart == &true {
                    // The process ends and begins: what is stored is all there is, and the file is loaded again.
                    let stored: Vec<(String, String)> = state.services.iter()
                        .map(|(name, service)| (name.to_string(), serde_json::to_string(&**service).unwrap())).collect();
                    let services = stored.into_iter()
                        .map(|(name, text)| (name.into(), std::sync::Arc::new(serde_json::from_str(&text).unwrap()))).collect();
                    state = apply(&State { services, ..state }, &files[current], &Command::Load, &by("file")).unwrap().state;
                    assert_eq!(state, before, "a restart changes nothing");
                }
                let loaded = if *command == Command::Load { *number } else { current };
                let Ok(change) = apply(&state, &files[loaded], command, &by("ada")) else { continue };
                match command {
                    Command::Load => {
                        for service in ["s", "t"] {
                            let text = |file: &config::Snapshot| file.policy.services.iter().zip(&file.services)
                                .find(|(policy, _)| &*policy.name == service)
                                .map(|(_, rest)| rest.split.weights().to_vec());
                            match (text(&files[current]), text(&files[loaded])) {
                                (Some(old), Some(new)) if old != new => { asked.insert(service, new); }
                                (None, Some(new)) => { asked.insert(service, new); }
                                _ => {}
                            }
                        }
                        current = loaded;
                    }
                    Command::Weights { service, weights } => {
                        let name = if service == "s" { "s" } else { "t" };
                        asked.insert(name, vec![weights["v1"], weights["v2"]]);
                    }
                    Command::Kill(scope) => { latched.insert(scope.clone()); }
                    Command::Unkill(scope) => { latched.remove(scope); }
                    Command::Restore | Command::Rollout { .. } => {}
                }
                state = change.state;
                let file = &files[current];
                let live = traffic(&state, file);
                assert_eq!(live.killed, file.killed || latched.contains(&Scope::All));
                for ((policy, rest), live) in file.policy.services.iter().zip(&file.services).zip(&live.services) {
                    let killed = rest.killed || latched.contains(&Scope::Service(policy.name.to_string()));
                    assert_eq!(live.killed, killed, "{}", policy.name);
                    assert_eq!(live.split.weights(), &asked[&*policy.name][..], "{}", policy.name);
                    let old = before.service(&policy.name).map_or(before.floor_epoch, |service| service.epoch);
                    assert!(live.epoch >= old, "{}", policy.name);
                }
            }
            state
        };
        prop_assert_eq!(run(), run());
    }
}
