//! Several services that are delivered together: [`advance_train`].

use super::event::{Companion, Effect, Event, Now, Verb, refusal};
use super::machine::{advance, is_ready};
use super::plan::Plan;
use super::share::Share;
use super::state::{Phase, State};

/// [`advance`] for the services of a train: `members` are all of them (as many as the file allows, 16), and the event happens
/// to the one at `to`. The result is in the order of the members.
///
/// - Members under way go on to the next step at the same instant: when each of those that are least far could go on alone.
///   One that is ahead, because another began later, waits. One that is not under way (its rollout was never started, or
///   ended) holds nobody back.
/// - When one is rolled back, for whatever reason, all that are under way are; when one goes back a step, those
///   that are further follow.
/// - A command to one is a command to all that it makes sense for. It is refused when the one it was given to refuses it;
///   `promote` when any does. Those that are promoted wait for each other; where one cannot follow any more (a check paused it),
///   none is.
/// - A member that is paused by a check or by weights holds the others where they are.
///
/// An event to a member that does not exist changes nothing.
pub fn advance_train(members: Vec<(&Plan, State)>, to: usize, event: Event, now: Now) -> Vec<(State, Vec<Effect>)> {
    let mut train = Train {
        members: members
            .into_iter()
            .map(|(plan, state)| Member {
                plan,
                state,
                effects: Vec::new(),
            })
            .collect(),
        now,
    };
    let before: Vec<Standing> = train.members.iter().map(Member::standing).collect();
    match event {
        Event::Command(command) => train.command(to, &Event::Command(command.clone()), command.verb),
        event => train.happen(to, event),
    }
    train.follow(&before);
    train.depart();
    train
        .members
        .into_iter()
        .map(|member| (member.state, member.effects))
        .collect()
}

struct Train<'p> {
    members: Vec<Member<'p>>,
    now: Now,
}

struct Member<'p> {
    plan: &'p Plan,
    state: State,
    effects: Vec<Effect>,
}

/// What the others follow.
struct Standing {
    under_way: bool,
    step_backs: u32,
}

impl Member<'_> {
    fn standing(&self) -> Standing {
        Standing {
            under_way: self.state.owns_split(),
            step_backs: self.state.step_backs,
        }
    }

    fn happen(&mut self, event: Event, now: Now) {
        let (state, effects) = advance(self.plan, std::mem::take(&mut self.state), event, now);
        self.state = state;
        self.effects.extend(effects);
    }

    fn give_up_promote(&mut self) {
        if std::mem::take(&mut self.state.promoting) {
            let service = &self.plan.service;
            let sentence = format!("{service}: the promote is given up, as not all of its train follow");
            self.effects.push(Effect::Report(sentence));
        }
    }
}

impl Train<'_> {
    fn happen(&mut self, to: usize, event: Event) {
        if let Some(member) = self.members.get_mut(to) {
            member.happen(event, self.now);
        }
    }

    fn command(&mut self, to: usize, event: &Event, verb: Verb) {
        let answers: Vec<(State, Vec<Effect>)> = self
            .members
            .iter()
            .map(|member| advance(member.plan, member.state.clone(), event.clone(), self.now))
            .collect();
        let Some(own) = answers.get(to) else { return };
        // One that has everything has nothing to be promoted to.
        let rising = |member: &Member<'_>| member.state.owns_split() && member.state.share < Share::WHOLE;
        let others = answers.iter().zip(&self.members).filter(|(_, member)| rising(member));
        let refused = match verb {
            Verb::Promote => others
                .map(|((_, effects), _)| effects)
                .chain([&own.1])
                .find_map(|effects| refusal(effects)),
            _ => refusal(&own.1),
        };
        if let Some(why) = refused {
            let why = Effect::Refused(why.to_owned());
            if let Some(member) = self.members.get_mut(to) {
                member.effects.push(why);
            }
            return;
        }
        for (index, (member, (state, effects))) in self.members.iter_mut().zip(answers).enumerate() {
            // A rollback makes sense for anything; those that are not under way are left as they are.
            let concerned = index == to || verb != Verb::Rollback || member.state.owns_split();
            if concerned && refusal(&effects).is_none() {
                (member.state, member.effects) = (state, effects);
            }
        }
    }

    /// Takes the others back with those that went back. Who can only go back by being rolled back takes all with it.
    fn follow(&mut self, before: &[Standing]) {
        let stepped = self
            .members
            .iter()
            .zip(before)
            .find(|(member, before)| member.state.step_backs > before.step_backs);
        if let Some((member, _)) = stepped {
            let (service, step) = (member.plan.service.clone(), member.state.step);
            self.tell(&Companion::SteppedBack { service, step });
        }
        let lost = self
            .members
            .iter()
            .zip(before)
            .find_map(|(member, before)| match &member.state.phase {
                Phase::RolledBack(reason) if before.under_way => Some((member.plan.service.clone(), reason.clone())),
                _ => None,
            });
        if let Some((service, reason)) = lost {
            self.tell(&Companion::RolledBack { service, reason });
        }
    }

    /// Tells the members under way; the one that it is about knows.
    fn tell(&mut self, news: &Companion) {
        let of = match news {
            Companion::RolledBack { service, .. } | Companion::SteppedBack { service, .. } => Some(service.clone()),
            Companion::Depart => None,
        };
        for member in &mut self.members {
            if member.state.owns_split() && Some(&member.plan.service) != of.as_ref() {
                member.happen(Event::Train(news.clone()), self.now);
            }
        }
    }

    /// Those that are least far go on when all of them can; those that are promoted, when all are.
    fn depart(&mut self) {
        let rising = |member: &&mut Member<'_>| member.state.owns_split() && member.state.share < Share::WHOLE;
        let promoted = self
            .members
            .iter_mut()
            .filter(rising)
            .filter(|member| member.state.promoting)
            .count();
        if promoted > 0 && promoted < self.members.iter_mut().filter(rising).count() {
            self.members.iter_mut().for_each(Member::give_up_promote);
        }
        let promoting = self.members.iter().any(|member| member.state.promoting);
        let least = self
            .members
            .iter()
            .filter(|member| member.state.owns_split())
            .map(|member| member.state.step)
            .min();
        let goes = |member: &Member<'_>| match promoting {
            true => member.state.promoting,
            false => member.state.owns_split() && Some(member.state.step) == least,
        };
        let going: Vec<&mut Member<'_>> = self.members.iter_mut().filter(|member| goes(member)).collect();
        if going.iter().all(|member| is_ready(&member.state, self.now)) {
            for member in going {
                member.happen(Event::Train(Companion::Depart), self.now);
            }
        }
    }
}

#[cfg(test)]
#[path = "train_tests.rs"]
mod tests;
