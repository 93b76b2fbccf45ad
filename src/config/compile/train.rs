//! Trains: services whose rollouts name each other.

use super::Context;
use crate::config::decode::List;
use crate::config::problem::{Path, nearest, printable};
use crate::config::{schema, snapshot};
use crate::routing;
use std::collections::HashMap;

/// The most services that one names as the others of its train.
const MAX_OTHERS: usize = 15;
/// The most services among which one that may have been meant is looked for.
const MAX_SEARCHED: usize = 500;

/// What is known of all services while trains are put together.
struct Services<'a> {
    /// Positions by name.
    names: &'a HashMap<&'a str, usize>,
    /// By position: whether it is rolled out.
    rolled_out: Vec<bool>,
    /// By position: the service that names its train.
    taken: HashMap<usize, usize>,
    path: &'a Path<'a>,
}

impl Context<'_> {
    /// Puts into each plan of `compiled` (empty, where something is wrong already) the other services of its train.
    /// `names`: the positions of services by name.
    pub(super) fn trains(
        &mut self,
        services: &List<schema::Service>,
        names: &HashMap<&str, usize>,
        compiled: &mut [(routing::Service, snapshot::Service)],
        path: &Path<'_>,
    ) {
        let mut rolled_out = vec![false; services.len()];
        for (index, service) in services.iter() {
            if let Some(slot) = rolled_out.get_mut(index) {
                *slot = service.rollout.is_some();
            }
        }
        let mut known = Services {
            names,
            rolled_out,
            taken: HashMap::new(),
            path,
        };
        for (index, service) in services.iter() {
            let Some(rollout) = service.rollout.as_ref().filter(|rollout| !rollout.with.is_empty()) else {
                continue;
            };
            let here = path.index(index);
            let here = here.key("rollout");
            let here = here.key("with");
            self.count(&rollout.with, 0, MAX_OTHERS, "services", &here);
            if let Some(&first) = known.taken.get(&index) {
                self.in_another_train(path, first, &here);
                continue;
            }
            known.taken.insert(index, index);
            let mut members = vec![index];
            for (position, name) in rollout.with.iter() {
                members.extend(self.other(index, name, &mut known, &here.index(position)));
            }
            self.same_steps(&members, compiled, &here);
            put_in(&members, compiled);
        }
    }

    /// The position of the service called `name`, if it may be in the train of that at `index`; else a problem.
    fn other(&mut self, index: usize, name: &str, known: &mut Services<'_>, here: &Path<'_>) -> Option<usize> {
        let Some(&other) = known.names.get(name) else {
            let message = format!("there is no service `{}`", printable(name));
            // Among ten thousand names, for each of many wrong ones, a search would take long.
            let few = known.names.len() <= MAX_SEARCHED;
            let suggestion = few.then(|| nearest(name, known.names.keys().copied()));
            self.problems.add_with(here, message, suggestion.flatten());
            return None;
        };
        if other == index {
            self.problems
                .add(here, "a service is in its own train: expected other services");
            return None;
        }
        if known.rolled_out.get(other) != Some(&true) {
            let message = format!("`{name}` has no `rollout`: expected services that are rolled out");
            self.problems.add(here, message);
            return None;
        }
        match known.taken.insert(other, index) {
            None => return Some(other),
            Some(first) if first == index => self.problems.add(here, format!("`{name}` is there twice")),
            Some(first) => {
                known.taken.insert(other, first);
                self.in_another_train(known.path, first, here);
            }
        }
        None
    }

    fn in_another_train(&mut self, path: &Path<'_>, first: usize, here: &Path<'_>) {
        let named = path.index(first);
        let named = named.key("rollout");
        let message = format!(
            "it is in a train already: {}: expected one service to name the others",
            named.key("with")
        );
        self.problems.add(here, message);
    }

    fn same_steps(&mut self, members: &[usize], compiled: &[(routing::Service, snapshot::Service)], here: &Path<'_>) {
        let mut steps = members.iter().filter_map(|&member| {
            let (policy, service) = compiled.get(member)?;
            Some((&policy.name, service.rollout.as_ref()?.steps.len()))
        });
        let Some((first, count)) = steps.next() else { return };
        for (other, others) in steps.filter(|(_, others)| *others != count) {
            let message = format!(
                "a train of different lengths: `{first}` has {count} steps and `{other}` has {others}, the last to 100 % included"
            );
            self.problems.add(here, message);
        }
    }
}

fn put_in(members: &[usize], compiled: &mut [(routing::Service, snapshot::Service)]) {
    let name = |member: &usize| compiled.get(*member).map(|(policy, _)| policy.name.clone());
    let names: Vec<Option<Box<str>>> = members.iter().map(name).collect();
    for (place, member) in members.iter().enumerate() {
        let others = names.iter().enumerate().filter(|(other, _)| *other != place);
        let others = others.filter_map(|(_, name)| name.clone()).collect();
        let plan = compiled
            .get_mut(*member)
            .and_then(|(_, service)| service.rollout.as_mut());
        if let Some(plan) = plan {
            plan.with = others;
        }
    }
}
