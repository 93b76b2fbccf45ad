//! The last messages that the data plane refused to take for HTTP, for who has to find out why.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// Messages kept; a new one takes the place of the oldest.
pub const KEPT: usize = 16;

/// A request or an answer that was refused as a message. (A request that no route takes is a message like any other: it
/// is in the access log.)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    pub at: SystemTime,
    /// An endpoint's answer; otherwise a client's request.
    pub is_answer: bool,
    /// The client's address, or the endpoint as in the file.
    pub from: String,
    /// `reason` of `rollgate_refusals_total`, or `kind` of `rollgate_request_failures_total`.
    pub reason: &'static str,
    /// What the client was answered.
    pub status: u16,
    /// What is wrong, in a sentence.
    pub why: String,
    /// What came, escaped; no value in it that may be secret (see [`crate::http1::excerpt`]).
    pub head: Vec<String>,
}

/// See the module.
#[derive(Default)]
pub struct RejectedLog(Mutex<VecDeque<Arc<Rejected>>>);

impl RejectedLog {
    /// Keeps what `make` gives, or nothing while another thread is at it: who serves requests never waits here.
    pub fn keep(&self, make: impl FnOnce() -> Rejected) {
        if let Ok(mut kept) = self.0.try_lock() {
            if kept.len() == KEPT {
                kept.pop_front();
            }
            kept.push_back(Arc::new(make()));
        }
    }

    /// Oldest first.
    pub fn latest(&self) -> Vec<Arc<Rejected>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(status: u16) -> Rejected {
        Rejected {
            at: SystemTime::UNIX_EPOCH,
            is_answer: false,
            from: "192.0.2.1".to_owned(),
            reason: "bad_request",
            status,
            why: String::new(),
            head: Vec::new(),
        }
    }

    #[test]
    fn the_last_are_kept_and_nobody_waits() {
        let log = RejectedLog::default();
        for status in 400..440 {
            log.keep(|| rejected(status));
        }
        let statuses: Vec<u16> = log.latest().iter().map(|one| one.status).collect();
        assert_eq!(statuses, (424..440).collect::<Vec<_>>());
        let _held = log.0.lock().unwrap();
        log.keep(|| unreachable!("another thread holds it"));
    }
}
