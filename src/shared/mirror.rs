//! What is counted of copies: apart from the golden signals of their version. Evidence of them, in a rollout's mirror step, is
//! [`super::Evidence`].

use super::cell::Cell;
use super::stats::{Ended, VersionStats};
use crate::outcome::{Comparison, Outcome, Uncopied};
use std::sync::OnceLock;

/// Of one service's mirror; kept while the service and the version that gets the copies stay. As for [`VersionStats`],
/// `thread` is always the number of the calling thread.
pub struct MirrorStats {
    /// The name of the version that gets the copies.
    pub version: Box<str>,
    /// Durations are until the first byte of the answer.
    pub copies: VersionStats,
    /// Of the same requests, as they were answered; durations likewise.
    pub originals: VersionStats,
    threads: Box<[OnceLock<Box<Counts>>]>,
}

/// Written by one thread.
#[repr(align(128))]
#[derive(Default)]
struct Counts {
    uncopied: [Cell; Uncopied::ALL.len()],
    compared: [Cell; Comparison::ALL.len()],
}

impl MirrorStats {
    /// Room for `threads` threads, numbered from 0 (at least one).
    pub fn new(version: &str, threads: usize) -> Self {
        Self {
            version: version.into(),
            copies: VersionStats::new(threads),
            originals: VersionStats::new(threads),
            threads: (0..threads.max(1)).map(|_| OnceLock::new()).collect(),
        }
    }

    fn counts(&self, thread: usize) -> Option<&Counts> {
        Some(self.threads.get(thread)?.get_or_init(Box::default))
    }

    /// A request was not copied.
    pub fn uncopied(&self, thread: usize, why: Uncopied) {
        if let Some(cell) = self.counts(thread).and_then(|counts| counts.uncopied.get(why.index())) {
            cell.add(1);
        }
    }

    /// A copy begins. Followed by one [`Self::ended`].
    pub fn begin(&self, thread: usize) {
        self.copies.begin(thread);
    }

    /// The copy has ended. What it came to; one that the proxy itself broke off (`ClientAbort`) is not compared.
    pub fn ended(&self, thread: usize, original: &Ended, copy: &Ended) -> Option<Comparison> {
        self.copies.end(thread, copy);
        if copy.outcome == Outcome::ClientAbort {
            return None;
        }
        self.originals.begin(thread);
        self.originals.end(thread, original);
        let side = |ended: &Ended| {
            let failed = matches!(ended.outcome, Outcome::Failure(_));
            ((ended.status, ended.grpc_status), failed)
        };
        let result = Comparison::of(side(original), side(copy));
        if let Some(cell) = self
            .counts(thread)
            .and_then(|counts| counts.compared.get(result.index()))
        {
            cell.add(1);
        }
        Some(result)
    }

    /// Requests that were not copied for this reason.
    pub fn uncopied_total(&self, why: Uncopied) -> u64 {
        self.sum(|counts| counts.uncopied.get(why.index()))
    }

    /// Pairs of original and copy that came to this.
    pub fn compared_total(&self, result: Comparison) -> u64 {
        self.sum(|counts| counts.compared.get(result.index()))
    }

    fn sum(&self, cell: impl Fn(&Counts) -> Option<&Cell>) -> u64 {
        let counts = self.threads.iter().filter_map(OnceLock::get);
        counts.filter_map(|counts| cell(counts)).map(Cell::get).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::FailureKind;
    use std::time::Duration;

    fn ended(status: u16, outcome: Outcome) -> Ended {
        Ended {
            status,
            grpc_status: None,
            outcome,
            duration: Duration::from_millis(3),
            upgraded: false,
        }
    }

    #[test]
    fn each_pair_has_one_result_and_a_copy_broken_off_has_none() {
        const FAILED: Outcome = Outcome::Failure(FailureKind::Status5xx);
        let stats = MirrorStats::new("v2", 2);
        let pairs = [
            ((200, Outcome::Success), (200, Outcome::Success), Some(Comparison::Same)),
            (
                (200, Outcome::Success),
                (404, Outcome::Success),
                Some(Comparison::Status),
            ),
            ((200, Outcome::Success), (500, FAILED), Some(Comparison::Failed)),
            ((502, FAILED), (200, Outcome::Success), Some(Comparison::OriginalFailed)),
            ((500, FAILED), (500, FAILED), Some(Comparison::Same)),
            ((500, FAILED), (502, FAILED), Some(Comparison::Status)),
            ((200, Outcome::Success), (503, Outcome::ClientAbort), None),
        ];
        for (index, (original, copy, expected)) in pairs.into_iter().enumerate() {
            let before = Comparison::ALL.map(|result| stats.compared_total(result));
            let thread = index % 2;
            stats.begin(thread);
            stats.ended(thread, &ended(original.0, original.1), &ended(copy.0, copy.1));
            let after = Comparison::ALL.map(|result| stats.compared_total(result));
            let raised: Vec<_> = Comparison::ALL
                .into_iter()
                .filter(|result| after[result.index()] > before[result.index()])
                .collect();
            assert_eq!(
                raised,
                expected.into_iter().collect::<Vec<_>>(),
                "{original:?} {copy:?}"
            );
        }
        assert_eq!((stats.copies.totals().ended(), stats.copies.in_flight()), (7, 0));
        assert_eq!(stats.originals.totals().ended(), 6);
    }

    #[test]
    fn what_was_not_copied_is_counted_by_reason_over_threads() {
        let stats = MirrorStats::new("v2", 2);
        stats.uncopied(0, Uncopied::Body);
        stats.uncopied(1, Uncopied::Body);
        stats.uncopied(1, Uncopied::Killed);
        assert_eq!(
            Uncopied::ALL.map(|why| stats.uncopied_total(why)),
            [0, 2, 0, 1, 0, 0, 0]
        );
    }
}
