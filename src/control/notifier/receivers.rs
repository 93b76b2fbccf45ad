//! Who is told, by a name that may be written down.

use crate::config::Snapshot;
use crate::rollout::Receiver;
use ring::digest::{Context, SHA256};
use std::collections::HashMap;
use std::sync::Arc;

/// The name of a receiver in the outbox: a digest of its form and address, 32 hexadecimal digits.
pub fn name(receiver: &Receiver) -> Box<str> {
    let (form, url) = match receiver {
        Receiver::Slack(url) => ("slack", url),
        Receiver::Webhook(url) => ("webhook", url),
    };
    let mut context = Context::new(&SHA256);
    for part in [form, url.secret()] {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    let digest = context.finish();
    let half = digest.as_ref().iter().take(16);
    half.map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

/// The receivers of the file in force.
#[derive(Default)]
pub struct Directory {
    of: Option<Arc<Snapshot>>,
    by_name: HashMap<Box<str>, Receiver>,
}

impl Directory {
    /// Reads `snapshot`, unless it was the last one.
    pub fn follow(&mut self, snapshot: &Arc<Snapshot>) {
        if self.of.as_ref().is_some_and(|known| Arc::ptr_eq(known, snapshot)) {
            return;
        }
        let plans = snapshot.services.iter().filter_map(|service| service.rollout.as_ref());
        let receivers = plans.flat_map(|plan| &plan.notify).map(|notify| &notify.to);
        self.by_name = receivers.map(|to| (name(to), to.clone())).collect();
        self.of = Some(Arc::clone(snapshot));
    }

    pub fn find(&self, name: &str) -> Option<Receiver> {
        self.by_name.get(name).cloned()
    }
}
