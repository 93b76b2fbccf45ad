//! Breadth first through every world that can be reached.

use super::invariants::{OF_HAPPENINGS, OF_WORLDS, Seen};
use super::world::{Advance, HOLD_MS, Happening, What, World, files, happenings};
use crate::rollout::fixture::{by, command};
use crate::rollout::*;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};

/// What a search saw.
pub struct Found {
    pub worlds: HashMap<World, usize>,
    pub transitions: usize,
    /// The depth that was searched in full.
    pub depth: usize,
    /// The invariant that does not hold, and how to get there.
    pub violation: Option<(&'static str, String)>,
}

/// Every world that `advance` reaches by at most `depth` of `happenings`, until one violates an invariant.
pub fn search(advance: &Advance<'_>, files: &[Plan], happenings: &[Happening], depth: usize) -> Found {
    let first = World::new(advance, files);
    let mut queue = VecDeque::from([(0, first.clone())]);
    let mut found = Found {
        worlds: HashMap::from([(first, 0)]),
        transitions: 0,
        depth: 0,
        violation: None,
    };
    // By number: the number of the world before, what happened, and the depth.
    let mut ways: Vec<(usize, &'static str, usize)> = vec![(0, "", 0)];
    while let Some((number, before)) = queue.pop_front() {
        found.depth = ways[number].2;
        if found.depth == depth {
            break;
        }
        for happening in happenings {
            let after = before.next(advance, files, happening);
            found.transitions += 1;
            let next = found.worlds.len();
            let entry = found.worlds.entry(after.world.clone());
            let seen = Seen {
                advance,
                files,
                before: &before,
                happening,
                after: &after,
            };
            let of_world = OF_WORLDS.iter().filter(|_| matches!(entry, Entry::Vacant(_)));
            for (name, invariant) in OF_HAPPENINGS.iter().chain(of_world) {
                if let Err(why) = invariant(&seen) {
                    let way = way(&ways, number, happening.name);
                    found.violation = Some((name, format!("{why}, by: {way}")));
                    return found;
                }
            }
            if let Entry::Vacant(entry) = entry {
                entry.insert(next);
                ways.push((number, happening.name, found.depth + 1));
                queue.push_back((next, after.world));
            }
        }
    }
    found
}

fn way(ways: &[(usize, &'static str, usize)], mut at: usize, last: &'static str) -> String {
    let mut names = vec![last];
    while at > 0 {
        names.push(ways[at].1);
        at = ways[at].0;
    }
    names.reverse();
    names.join("; ")
}

/// From each world a person who does the next sensible thing, with a candidate that is good and gates that say yes, gets
/// the candidate delivered: nothing gets stuck.
fn can_be_delivered(worlds: impl IntoIterator<Item = World>, files: &[Plan]) -> Result<(), String> {
    let mut delivered: HashSet<World> = HashSet::new();
    for start in worlds {
        let mut way = vec![start];
        loop {
            let world = &way[way.len() - 1];
            let Some(happening) = next_sensible(world, files).filter(|_| !delivered.contains(world)) else {
                break;
            };
            if way.len() > 100 {
                return Err(format!("stuck: {:?} from {:?}", world, way[0]));
            }
            way.push(world.next(&advance, files, &happening).world);
        }
        delivered.extend(way);
    }
    Ok(())
}

/// `None`: it is delivered.
fn next_sensible(world: &World, files: &[Plan]) -> Option<Happening> {
    let gates = files[world.file].gates.len();
    let closed = (0..gates).find(|gate| world.state.asked_ms.is_some() && world.state.gates_open & 1 << gate == 0);
    let (after_ms, what) = match &world.state.phase {
        Phase::Succeeded => return None,
        _ if world.diary.killed => (0, What::Event(Event::Unkilled(by("ada")))),
        _ if world.clock == 1 => (0, What::Clock(0)),
        Phase::Idle if world.state.candidate.is_none() => (0, What::Save(world.file)),
        Phase::Idle => (0, What::Event(command(Verb::Start))),
        Phase::RolledBack(_) => (0, What::Event(command(Verb::Retry))),
        Phase::Paused(_) => (0, What::Event(command(Verb::Resume))),
        Phase::WaitingApproval => (0, What::Event(command(Verb::Approve))),
        Phase::Progressing | Phase::Baking => match closed {
            Some(gate) => (
                0,
                What::Gate {
                    gate,
                    answer: Answer::Yes,
                    stale: false,
                },
            ),
            None => {
                let judgement = Judgement::Pass;
                (
                    HOLD_MS,
                    What::Look {
                        judgement,
                        obstacle: false,
                        failures: 0,
                        stale: false,
                    },
                )
            }
        },
    };
    Some(Happening {
        name: "",
        what,
        after_ms,
    })
}

/// Those of `all` whose names begin with one of `names`.
fn only(all: Vec<Happening>, names: &[&str]) -> Vec<Happening> {
    all.into_iter()
        .filter(|happening| names.iter().any(|name| happening.name.starts_with(name)))
        .collect()
}

pub fn without_gates(files: Vec<Plan>) -> Vec<Plan> {
    files
        .into_iter()
        .map(|file| Plan {
            gates: Box::default(),
            ..file
        })
        .collect()
}

/// Searches to the end, and from every world on to the delivery.
#[track_caller]
fn holds_everywhere(name: &str, files: &[Plan], happenings: &[Happening], at_least: usize) {
    let found = search(&advance, files, happenings, usize::MAX);
    println!(
        "{name}: {} worlds, {} transitions, depth {}",
        found.worlds.len(),
        found.transitions,
        found.depth
    );
    assert_eq!(found.violation, None);
    assert!(found.worlds.len() >= at_least, "only {} worlds", found.worlds.len());
    can_be_delivered(found.worlds.into_keys(), files).unwrap();
}

const LIFE: [&str; 15] = [
    "pass",
    "no evidence",
    "fail",
    "guard",
    "stale",
    "start",
    "pause",
    "resume",
    "approve",
    "promote",
    "rollback",
    "retry",
    "kill",
    "unkill",
    "crash",
];

#[test]
fn verdicts_commands_kills_and_crashes_in_any_order() {
    for file in 0..3 {
        let files = without_gates(files());
        holds_everywhere(
            &format!("life of file {file}"),
            &files[file..=file],
            &only(happenings(1), &LIFE),
            500,
        );
    }
}

#[test]
fn gates_freezes_obstacles_and_jumps_of_the_clock_in_any_order() {
    let names = [
        "pass",
        "no evidence",
        "fail: pause",
        "gate",
        "start",
        "pause",
        "resume",
        "approve",
        "promote",
        "rollback",
        "retry",
        "crash",
        "clock",
    ];
    holds_everywhere("held back", &files()[..1], &only(happenings(1), &names), 2_000);
}

#[test]
fn edits_candidates_and_weights_in_any_order() {
    let names = [
        "pass at once",
        "pass after",
        "fail: step",
        "start",
        "resume",
        "approve",
        "promote",
        "rollback",
        "weights 7",
        "weights of",
        "removed",
        "save",
        "crash",
    ];
    holds_everywhere("files", &without_gates(files()), &only(happenings(4), &names), 2_000);
}

#[test]
fn everything_at_once_five_deep() {
    let files = files();
    let found = search(&advance, &files, &happenings(files.len()), 5);
    println!(
        "everything: {} worlds, {} transitions, depth {}",
        found.worlds.len(),
        found.transitions,
        found.depth
    );
    assert_eq!(found.violation, None);
    can_be_delivered(found.worlds.into_keys(), &files).unwrap();
}

/// A minute, for who changes the machine: `cargo test --lib to_the_end -- --ignored`.
#[test]
#[ignore = "takes a minute"]
fn everything_with_one_file_to_the_end() {
    holds_everywhere("one file", &files()[..1], &happenings(1), 100_000);
}

/// 1.4 million worlds, 50 million transitions.
#[test]
#[ignore = "takes a quarter of an hour"]
fn everything_with_all_files_to_the_end() {
    let files = files();
    holds_everywhere("all files", &files, &happenings(files.len()), 1_000_000);
}
