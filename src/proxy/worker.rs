//! What one thread of the data plane owns: nothing here is shared with another thread, so nothing is locked.

use super::deadlines::{Deadlines, TICK};
use super::upstream::IdlePool;
use crate::routing::{CookieKey, Facts, ServiceId, VersionId};
use crate::shared::{InForce, RetryBudget, ServiceInForce, Shared, ThreadStats, VersionInForce};
use crate::telemetry::LogShard;
use arc_swap::ArcSwap;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Ticks between two sweeps of idle upstream connections.
const SWEEP_TICKS: u32 = 10;

/// What is in force, with what this thread keeps beside it.
pub struct Local {
    pub in_force: Arc<InForce>,
    /// By service and version.
    budgets: Box<[Box<[RefCell<RetryBudget>]>]>,
}

impl Local {
    pub fn service(&self, service: ServiceId) -> Option<&ServiceInForce> {
        self.in_force.services.get(service.0 as usize)
    }

    pub fn version(&self, service: ServiceId, version: VersionId) -> Option<&VersionInForce> {
        self.service(service)?.versions.get(version.0 as usize)
    }

    pub fn budget(&self, service: ServiceId, version: VersionId) -> Option<&RefCell<RetryBudget>> {
        self.budgets.get(service.0 as usize)?.get(version.0 as usize)
    }

    /// A pool that stays keeps its budget: reloads do not refill it.
    fn new(in_force: Arc<InForce>, previous: Option<&Local>) -> Self {
        let carried = |pool| {
            let previous = previous?;
            for (service, budgets) in previous.in_force.services.iter().zip(&previous.budgets) {
                for (version, budget) in service.versions.iter().zip(budgets) {
                    if Arc::ptr_eq(&version.pool, pool) {
                        return Some(std::mem::take(&mut *budget.borrow_mut()));
                    }
                }
            }
            None
        };
        let budgets = in_force
            .services
            .iter()
            .map(|service| {
                let budget = |version: &VersionInForce| RefCell::new(carried(&version.pool).unwrap_or_default());
                service.versions.iter().map(budget).collect()
            })
            .collect();
        Self { in_force, budgets }
    }
}

/// One thread of the data plane.
pub struct Worker {
    pub index: usize,
    pub shared: Arc<Shared>,
    local: RefCell<Rc<Local>>,
    cache: RefCell<arc_swap::Cache<Arc<SharedSlot>, Arc<InForce>>>,
    pub deadlines: Rc<Deadlines>,
    pub idle: RefCell<IdlePool>,
    random: RefCell<fastrand::Rng>,
    pub log: RefCell<Option<LogShard>>,
    date: RefCell<String>,
    ticks: Cell<u32>,
    draining: Cell<bool>,
}

/// The slot of [`Shared`], owned: what `arc_swap::Cache` wants to hold.
struct SharedSlot(Arc<Shared>);

impl std::ops::Deref for SharedSlot {
    type Target = ArcSwap<InForce>;

    fn deref(&self) -> &Self::Target {
        self.0.slot()
    }
}
