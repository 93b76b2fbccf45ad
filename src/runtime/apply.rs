//! A command and a state give the next state, or a refusal.

use super::rollouts::{Ask, Steering};
use super::state::{FileSplit, FileVersion, Latch, ServiceState, State, WeightsSet};
use super::{Command, EventKind, Happened, Origin, Refusal, Scope, Weights};
use crate::config::Snapshot;
use crate::config::snapshot;
use crate::rollout::{Cause, Now, Phase};
use crate::routing::{Policy, SegmentId, Service, ServiceTraffic, Split, StepMirror, Traffic, VersionId};
use serde_json::{Value, json};
use std::sync::Arc;

/// The most that a weight may be (as in the file).
const MAX_WEIGHT: u32 = 1_000_000;

/// Services that left the file with a kill switch on, of which the state still knows: as many as a file may have.
const MAX_DEPARTED: usize = 10_000;

/// What came of a command.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub state: State,
    /// Empty: everything was as asked for already, or only time went on for a rollout.
    pub happened: Vec<Happened>,
    /// What others have to do about it.
    pub asks: Vec<Ask>,
    /// For the one who asked, in a sentence.
    pub text: String,
}

/// What becomes of `state`, under the file `snapshot`, by `command`, at the time `now`.
///
/// # Errors
/// The command makes no sense, or a latch forbids it: nothing changes.
pub fn apply(state: &State, snapshot: &Snapshot, command: &Command, by: &Origin, now: Now) -> Result<Change, Refusal> {
    let change = match command {
        Command::Load | Command::Restore => load(state, snapshot),
        Command::Weights { service, weights } => set_weights(state, snapshot, service, weights, by),
        Command::Kill(scope) => kill(state, snapshot, scope, by),
        Command::Unkill(scope) => unkill(state, snapshot, scope),
        Command::Rollout { .. } => Ok(unchanged(state, String::new())),
    }?;
    let edited = match command {
        Command::Load | Command::Restore => edited_splits(state, &change.state),
        _ => Vec::new(),
    };
    let mut steering = Steering::new(snapshot, by, now, change.state);
    let mut text = change.text;
    match command {
        Command::Restore => {
            steering.restored();
            steering.loaded(&edited);
        }
        Command::Load => steering.loaded(&edited),
        Command::Weights { service, weights } if !change.happened.is_empty() => {
            text += &steering.weights_set(service, weights);
        }
        Command::Rollout { service, steer } => steering.steer(service, steer)?,
        Command::Weights { .. } | Command::Kill(_) | Command::Unkill(_) => {}
    }
    steering.tell_kills();
    Ok(finished(steering, change.happened, text))
}

/// What the command did comes first, and then what rollouts made of it.
fn finished(steering: Steering<'_>, mut happened: Vec<Happened>, text: String) -> Change {
    let text = match (text.is_empty(), steering.happened.first()) {
        (true, Some(first)) => first.text.clone(),
        (true, None) => "nothing has changed".to_owned(),
        (false, _) => text,
    };
    happened.extend(steering.happened);
    Change {
        state: steering.state,
        happened,
        asks: steering.asks,
        text,
    }
}

/// Services that were known, and of whose split the file says something else.
fn edited_splits(before: &State, after: &State) -> Vec<String> {
    let edited = |(name, after): (&Arc<str>, &Arc<ServiceState>)| {
        let before = before.service(name)?;
        let edited = before.file != after.file && before.is_rolled_out();
        edited.then(|| name.to_string())
    };
    after.services.iter().filter_map(edited).collect()
}

/// What the data plane gets: `state` in the order of `snapshot`. A service of which the state says nothing usable has
/// what the file says.
pub fn traffic(state: &State, snapshot: &Snapshot) -> Traffic {
    let services = snapshot.policy.services.iter().zip(&snapshot.services);
    Traffic {
        killed: state.all_killed(),
        services: services
            .map(|(service, file)| match state.service(&service.name) {
                Some(known) => service_traffic(known, &snapshot.policy, service, file),
                None => ServiceTraffic {
                    split: file.split.clone(),
                    killed: file.killed,
                    epoch: state.floor_epoch,
                    ring: None,
                    mirror: None,
                },
            })
            .collect(),
    }
}

fn service_traffic(
    state: &ServiceState,
    policy: &Policy,
    service: &Service,
    file: &snapshot::Service,
) -> ServiceTraffic {
    let set = state.set.as_ref().and_then(|set| {
        let weight = |version: &crate::routing::Version| set.weights.get(&*version.name).copied();
        let weights: Option<Box<[u32]>> = service.versions.iter().map(weight).collect();
        Split::new(weights?)
    });
    ServiceTraffic {
        split: set.unwrap_or_else(|| file.split.clone()),
        killed: state.is_killed(),
        epoch: state.epoch,
        ring: ring(state, policy, service),
        mirror: mirror(state, service),
    }
}

/// The candidate, while its rollout is under way.
fn candidate(state: &ServiceState, service: &Service) -> Option<VersionId> {
    let machine = &state.rollout.as_ref()?.machine;
    let candidate = machine.candidate.as_ref().filter(|_| machine.owns_split())?;
    let position = service.versions.iter().position(|version| version.name == *candidate)?;
    u32::try_from(position).ok().map(VersionId)
}

fn mirror(state: &ServiceState, service: &Service) -> Option<StepMirror> {
    let machine = &state.rollout.as_ref()?.machine;
    let version = candidate(state, service)?;
    machine.is_mirroring().then(|| StepMirror {
        version,
        share: machine.mirror.thousandths_percent(),
        window: machine.window,
    })
}

/// The segments that the rollout's step admits. One that has left the file admits nobody.
fn ring(state: &ServiceState, policy: &Policy, service: &Service) -> Option<(VersionId, Box<[SegmentId]>)> {
    let machine = &state.rollout.as_ref()?.machine;
    let candidate = candidate(state, service)?;
    let id = |name: &str| {
        let position = policy.segments.iter().position(|segment| *segment.name == *name)?;
        u32::try_from(position).ok().map(SegmentId)
    };
    let segments: Box<[SegmentId]> = machine.segments.iter().filter_map(|name| id(name)).collect();
    (!segments.is_empty()).then_some((candidate, segments))
}

/// Whether some canary of `snapshot` gets more by `after` than by `before`: such a change must be durable before it is in
/// force. (Keeping fewer cookies valid is no such thing.)
pub fn moves_toward_canary(snapshot: &Snapshot, before: &Traffic, after: &Traffic) -> bool {
    let services = snapshot.policy.services.iter().enumerate();
    services.into_iter().any(|(index, service)| {
        let (live_before, live_after) = (before.services.get(index), after.services.get(index));
        if admits_more(live_before, live_after) || mirrors_more(live_before, live_after) {
            return true;
        }
        let shares = |traffic: &Traffic, version: usize| match traffic.services.get(index) {
            Some(live) if !traffic.killed && !live.killed => {
                (u64::from(live.split.weight(version)), total(&live.split))
            }
            _ => (0, 1),
        };
        let canaries = (0..service.versions.len()).filter(|&version| VersionId(version as u32) != service.stable);
        canaries.into_iter().any(|version| {
            let ((before, of_before), (after, of_after)) = (shares(before, version), shares(after, version));
            after * of_before > before * of_after
        })
    })
}

/// Whether a ring admits somebody whom it did not. (A kill switch that is on gives nobody anything, and must be released.)
fn admits_more(before: Option<&ServiceTraffic>, after: Option<&ServiceTraffic>) -> bool {
    let Some((candidate, segments)) = after.and_then(|live| live.ring.as_ref()) else {
        return false;
    };
    let admitted = before
        .and_then(|live| live.ring.as_ref())
        .filter(|(other, _)| other == candidate);
    let known = |segment| admitted.is_some_and(|(_, admitted)| admitted.contains(segment));
    !segments.iter().all(known)
}

/// Whether a version gets more copies, and had no users instead.
fn mirrors_more(before: Option<&ServiceTraffic>, after: Option<&ServiceTraffic>) -> bool {
    let Some(mirror) = after.and_then(|live| live.mirror) else {
        return false;
    };
    let Some(before) = before else { return true };
    let had_users =
        before.ring.is_some() || usize::try_from(mirror.version.0).is_ok_and(|index| before.split.weight(index) > 0);
    let known = before.mirror.filter(|known| known.version == mirror.version);
    !had_users && known.is_none_or(|known| known.share < mirror.share)
}

fn total(split: &Split) -> u64 {
    split.weights().iter().map(|&weight| u64::from(weight)).sum()
}

fn unchanged(state: &State, text: String) -> Change {
    Change {
        state: state.clone(),
        happened: Vec::new(),
        asks: Vec::new(),
        text,
    }
}

fn changed(state: State, kind: EventKind, service: Option<&str>, before: Value, after: Value, text: String) -> Change {
    let happened = Happened {
        kind,
        service: service.map(str::to_owned),
        before,
        after,
        text: text.clone(),
    };
    Change {
        state,
        happened: vec![happened],
        asks: Vec::new(),
        text,
    }
}

/// Takes over what the file says: only where it says something else than it did. A split that a rollout owns stays.
fn load(state: &State, snapshot: &Snapshot) -> Result<Change, Refusal> {
    let mut next = state.clone();
    let mut happened = Vec::new();
    let all_by_file = snapshot.killed && !state.file_kill;
    if snapshot.killed != state.file_kill {
        next.file_kill = snapshot.killed;
        happened.push(killed_by_file(None, snapshot.killed));
    }
    for (service, file) in snapshot.policy.services.iter().zip(&snapshot.services) {
        let split = file_split(service, &file.split);
        let known = state.service(&service.name);
        let same = known.is_some_and(|known| known.file == split && known.file_kill == file.killed);
        if same && !all_by_file {
            continue;
        }
        let was_killed = known.is_some_and(|known| known.file_kill);
        if file.killed != was_killed {
            happened.push(killed_by_file(Some(&service.name), file.killed));
        }
        if let Some(known) = known
            && known.file != split
            && known.file != FileSplit::default()
            && !known.is_rolled_out()
        {
            happened.push(weights_by_file(&service.name, known, &split));
        }
        next.edit(&service.name, |service| {
            if service.file != split {
                if !service.is_rolled_out() {
                    service.set = None;
                }
                service.file = split;
            }
            if all_by_file || (file.killed && !was_killed) {
                service.epoch = service.epoch.wrapping_add(1);
            }
            service.file_kill = file.killed;
        });
    }
    forget_departed(&mut next, snapshot);
    Ok(Change {
        state: next,
        happened,
        asks: Vec::new(),
        text: "the file is in force".to_owned(),
    })
}

fn file_split(service: &Service, split: &Split) -> FileSplit {
    let version = |(index, version): (usize, &crate::routing::Version)| FileVersion {
        name: version.name.to_string(),
        role: version.role,
        weight: split.weight(index),
    };
    FileSplit {
        versions: service.versions.iter().enumerate().map(version).collect(),
    }
}

fn killed_by_file(service: Option<&str>, killed: bool) -> Happened {
    let scope = service.map_or(Scope::All, |name| Scope::Service(name.to_owned()));
    let text = if killed {
        format!("the file kills {scope}: everything goes to stable")
    } else {
        format!("the file no longer kills {scope}")
    };
    Happened {
        kind: if killed { EventKind::Kill } else { EventKind::Unkill },
        service: service.map(str::to_owned),
        before: json!({ "file_kill": !killed }),
        after: json!({ "file_kill": killed }),
        text,
    }
}

fn weights_by_file(service: &str, known: &ServiceState, split: &FileSplit) -> Happened {
    let (before, after) = (known.weights(), split.weights());
    Happened {
        kind: EventKind::Weights,
        service: Some(service.to_owned()),
        text: format!(
            "{service}: {} (was {}), as the file now says",
            shown(&after),
            shown(&before)
        ),
        before: json!({ "weights": before }),
        after: json!({ "weights": after }),
    }
}

/// A service that left is forgotten, but for a kill switch that a command set: only `unkill` releases that.
fn forget_departed(state: &mut State, snapshot: &Snapshot) {
    let here: std::collections::HashSet<&str> = snapshot.policy.services.iter().map(|service| &*service.name).collect();
    let mut floor = state.floor_epoch;
    let mut room = MAX_DEPARTED;
    state.services.retain(|name, service| {
        if here.contains(&**name) {
            return true;
        }
        let stays = service.kill.is_some() && room > 0;
        if stays {
            room -= 1;
            let service = Arc::make_mut(service);
            (service.file, service.file_kill, service.set) = (FileSplit::default(), false, None);
        } else {
            floor = floor.max(service.epoch);
        }
        stays
    });
    state.floor_epoch = floor;
}

pub(super) fn known_service<'s>(snapshot: &'s Snapshot, name: &str) -> Result<&'s Service, Refusal> {
    let services = &snapshot.policy.services;
    services.iter().find(|service| *service.name == *name).ok_or_else(|| {
        let names = services.iter().map(|service| &*service.name);
        Refusal::UnknownService {
            name: name.to_owned(),
            similar: crate::config::problem::nearest(name, names),
        }
    })
}

fn set_weights(
    state: &State,
    snapshot: &Snapshot,
    name: &str,
    weights: &Weights,
    by: &Origin,
) -> Result<Change, Refusal> {
    let service = known_service(snapshot, name)?;
    check_weights(service, weights)?;
    let before = state.service(name).map(ServiceState::weights).unwrap_or_default();
    if *weights == before {
        return Ok(unchanged(
            state,
            format!("{name} has these weights already: {}", shown(weights)),
        ));
    }
    let mut next = state.clone();
    next.edit(name, |service| {
        service.set = Some(WeightsSet {
            weights: weights.clone(),
            by: by.clone(),
        });
    });
    let killed = state.all_killed() || state.service(name).is_some_and(ServiceState::is_killed);
    let but = if killed {
        "; it is killed: this counts once it is not"
    } else {
        ""
    };
    let text = format!("{name}: {} (was {}){but}", shown(weights), shown(&before));
    let (before, after) = (json!({ "weights": before }), json!({ "weights": weights }));
    Ok(changed(next, EventKind::Weights, Some(name), before, after, text))
}

fn check_weights(service: &Service, weights: &Weights) -> Result<(), Refusal> {
    let names = || service.versions.iter().map(|version| version.name.to_string());
    for (version, &weight) in weights {
        if !names().any(|name| name == *version) {
            return Err(Refusal::UnknownVersion {
                service: service.name.to_string(),
                name: version.clone(),
                known: names().collect(),
            });
        }
        if weight > MAX_WEIGHT {
            return Err(Refusal::WeightTooLarge {
                version: version.clone(),
                weight,
            });
        }
    }
    let missing: Vec<String> = names().filter(|name| !weights.contains_key(name)).collect();
    if !missing.is_empty() {
        return Err(Refusal::MissingVersion {
            service: service.name.to_string(),
            missing: missing.join(", "),
        });
    }
    if weights.values().all(|&weight| weight == 0) {
        return Err(Refusal::NoWeight);
    }
    Ok(())
}

/// `v1=90 v2=10`
fn shown(weights: &Weights) -> String {
    let one = |(version, weight): (&String, &u32)| format!("{version}={weight}");
    weights.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn kill(state: &State, snapshot: &Snapshot, scope: &Scope, by: &Origin) -> Result<Change, Refusal> {
    let latched = match scope {
        Scope::All => state.kill.as_ref(),
        Scope::Service(name) => {
            known_service(snapshot, name)?;
            state.service(name).and_then(|service| service.kill.as_ref())
        }
    };
    if let Some(latch) = latched {
        return Ok(unchanged(
            state,
            format!("{scope}: killed already, by {}", latch.by.who),
        ));
    }
    let mut next = state.clone();
    let revoke = |service: &mut ServiceState| service.epoch = service.epoch.wrapping_add(1);
    match scope {
        Scope::All => {
            next.kill = Some(Latch { by: by.clone() });
            for service in next.services.values_mut() {
                revoke(Arc::make_mut(service));
            }
            next.floor_epoch = next.floor_epoch.wrapping_add(1);
        }
        Scope::Service(name) => next.edit(name, |service| {
            service.kill = Some(Latch { by: by.clone() });
            revoke(service);
        }),
    }
    let text = format!("{scope}: killed, everything goes to stable until `unkill`");
    let (before, after) = (json!({ "killed": false }), json!({ "killed": true }));
    Ok(changed(next, EventKind::Kill, name_of(scope), before, after, text))
}

fn name_of(scope: &Scope) -> Option<&str> {
    match scope {
        Scope::All => None,
        Scope::Service(name) => Some(name),
    }
}

fn unkill(state: &State, snapshot: &Snapshot, scope: &Scope) -> Result<Change, Refusal> {
    let (latched, by_file) = match scope {
        Scope::All => (state.kill.is_some(), state.file_kill),
        Scope::Service(name) => {
            let known = state.service(name);
            let latched = known.is_some_and(|service| service.kill.is_some());
            if !latched {
                known_service(snapshot, name)?;
            }
            (latched, known.is_some_and(|service| service.file_kill))
        }
    };
    if by_file {
        return Err(Refusal::KilledByFile { scope: scope.clone() });
    }
    if !latched {
        return match scope {
            Scope::Service(name) if state.all_killed() => Err(Refusal::KilledWithAll { service: name.clone() }),
            _ => Ok(unchanged(state, format!("{scope}: not killed"))),
        };
    }
    let mut next = state.clone();
    match scope {
        Scope::All => next.kill = None,
        Scope::Service(name) => next.edit(name, |service| service.kill = None),
    }
    forget_departed(&mut next, snapshot);
    let text = format!(
        "{scope}: the kill switch is released; {}",
        after_unkill(&next, snapshot, scope)
    );
    let (before, after) = (json!({ "killed": true }), json!({ "killed": false }));
    Ok(changed(next, EventKind::Unkill, name_of(scope), before, after, text))
}

/// What is in force when the switch of `scope` is released.
fn after_unkill(state: &State, snapshot: &Snapshot, scope: &Scope) -> String {
    let concerned = |service: &&Service| name_of(scope).is_none_or(|name| *service.name == *name);
    let services = snapshot.policy.services.iter().filter(concerned);
    let ended = services
        .filter(|service| state.service(&service.name).is_some_and(has_nothing_since_a_kill))
        .count();
    match scope {
        Scope::Service(_) if state.all_killed() => {
            "the switch for all services still sends everything to stable".to_owned()
        }
        Scope::Service(name) if ended > 0 => {
            format!("its rollout was rolled back: `rollgate rollout retry {name}` begins again")
        }
        Scope::All if ended > 0 => format!(
            "the weights from before are in force again, but rollouts were rolled back, and their candidates get nothing \
             ({ended}; `rollgate rollout retry` begins again)"
        ),
        _ => "the weights from before are in force again".to_owned(),
    }
}

/// Whether a kill switch rolled its rollout back, and nobody has given the candidate anything since.
fn has_nothing_since_a_kill(service: &ServiceState) -> bool {
    service.rollout.as_ref().is_some_and(|rollout| {
        let killed = matches!(&rollout.machine.phase, Phase::RolledBack(reason) if reason.cause == Cause::Killed);
        let candidate = rollout.machine.candidate.as_deref().unwrap_or_default();
        killed && service.weights().get(candidate).is_none_or(|&weight| weight == 0)
    })
}
