//! Live counters: one shard a thread, written by that thread alone, summed by whoever reads.
//!
//! A cell is raised by a relaxed load and a relaxed store: no locked instruction, no lock, no cache line that two
//! threads write. What the single writer buys is paid by a rule: `thread` is always the number of the calling thread.
//! Two threads under one number would lose counts, never more than that.

use super::cell::{Cell, Level};
use super::durations::Durations;
use crate::analysis::Histogram;
use crate::outcome::{FailureKind, Handshake, Outcome, OwnAnswerKind, Refusal, Termination};
use std::sync::OnceLock;
use std::time::Duration;

/// How a request ended, for the counters.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// The status sent, or 499 for a client that left.
    pub status: u16,
    /// The `grpc-status` of a call of gRPC.
    pub grpc_status: Option<u32>,
    pub outcome: Outcome,
    pub duration: Duration,
    /// Upgraded connections count, their duration does not.
    pub upgraded: bool,
}

/// Upper bounds of the duration buckets in microseconds, 1 ms to 60 s; what is longer is in one more.
pub const DURATION_BOUNDS_US: [u64; 15] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 30_000_000, 60_000_000,
];

const BUCKETS: usize = DURATION_BOUNDS_US.len() + 1;
const KINDS: usize = FailureKind::ALL.len();

/// The status codes that have a cell of their own in every shard: the IANA registry, and 499.
const COMMON_CODES: [u16; 63] = [
    100, 101, 102, 103, 104, 200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 307, 308,
    400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 421, 422, 423, 424, 425,
    426, 428, 429, 431, 451, 499, 500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511,
];

/// First status code with a cell.
const FIRST_CODE: u16 = 100;
/// Status codes that HTTP has: 100 to 599.
const CODES: usize = 500;
/// In [`SLOT_OF_CODE`]: not a common code.
const RARE: u8 = u8::MAX;

/// Position in [`COMMON_CODES`] of the code 100 + index.
static SLOT_OF_CODE: [u8; CODES] = slots();

#[allow(clippy::indexing_slicing)] // evaluated by the compiler: a wrong index does not build
const fn slots() -> [u8; CODES] {
    let mut table = [RARE; CODES];
    let mut slot = 0;
    while slot < COMMON_CODES.len() {
        table[(COMMON_CODES[slot] - FIRST_CODE) as usize] = slot as u8;
        slot += 1;
    }
    table
}

/// What one thread counts of one version: about 1.2 KB, and 0.3 KB for each octave of durations that occurs; allocated when
/// the thread first serves the version.
#[repr(align(128))]
struct Shard {
    begun: Cell,
    in_flight: Level,
    /// Microseconds: nanoseconds would wrap within weeks of ten thousand long requests at a time.
    duration_sum_us: Cell,
    buckets: [Cell; BUCKETS],
    fine: Durations,
    failures: [Cell; KINDS],
    rescues: Cell,
    /// Parallel to [`COMMON_CODES`].
    common: [Cell; COMMON_CODES.len()],
    /// By code from 100; allocated by the first code outside the registry, which an upstream may invent.
    rare: OnceLock<Box<[Cell]>>,
    /// Statuses that are not HTTP's (below 100, above 599).
    other: Cell,
}

impl Shard {
    fn new() -> Self {
        Self {
            begun: Cell::default(),
            in_flight: Level::default(),
            duration_sum_us: Cell::default(),
            buckets: std::array::from_fn(|_| Cell::default()),
            fine: Durations::default(),
            failures: std::array::from_fn(|_| Cell::default()),
            rescues: Cell::default(),
            common: std::array::from_fn(|_| Cell::default()),
            rare: OnceLock::new(),
            other: Cell::default(),
        }
    }

    #[inline]
    fn code(&self, status: u16) {
        let offset = usize::from(status.wrapping_sub(FIRST_CODE));
        let cell = match SLOT_OF_CODE.get(offset) {
            Some(&RARE) => self.rare_codes().get(offset),
            Some(&slot) => self.common.get(usize::from(slot)),
            None => None,
        };
        cell.unwrap_or(&self.other).add(1);
    }

    #[cold]
    fn rare_codes(&self) -> &[Cell] {
        self.rare.get_or_init(|| (0..CODES).map(|_| Cell::default()).collect())
    }

    #[inline]
    fn failure(&self, kind: FailureKind) {
        if let Some(cell) = self.failures.get(kind.index()) {
            cell.add(1);
        }
    }

    #[inline]
    fn duration(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = DURATION_BOUNDS_US.partition_point(|&bound| bound < us);
        if let Some(cell) = self.buckets.get(bucket) {
            cell.add(1);
        }
        self.duration_sum_us.add(us);
        self.fine.record(us);
    }
}

/// The golden signals of one version. Kept, with all counts, as long as service, version and role stay.
pub struct VersionStats {
    shards: Box<[OnceLock<Box<Shard>>]>,
}

impl VersionStats {
    /// Room for `threads` threads, numbered from 0 (at least one).
    pub fn new(threads: usize) -> Self {
        Self {
            shards: (0..threads.max(1)).map(|_| OnceLock::new()).collect(),
        }
    }

    /// `None`, and the event uncounted, for a thread there is no room for: a mistake of the caller.
    #[inline]
    fn shard(&self, thread: usize) -> Option<&Shard> {
        debug_assert!(thread < self.shards.len(), "thread {thread} of {}", self.shards.len());
        let slot = self.shards.get(thread)?;
        Some(slot.get_or_init(|| Box::new(Shard::new())))
    }

    fn written(&self) -> impl Iterator<Item = &Shard> {
        self.shards.iter().filter_map(|slot| slot.get().map(Box::as_ref))
    }

    /// A request begins on this version. Each begin is followed by one [`Self::end`] on the same value and thread.
    #[inline]
    pub fn begin(&self, thread: usize) {
        if let Some(shard) = self.shard(thread) {
            shard.begun.add(1);
            shard.in_flight.add(1);
        }
    }

    /// The request ended: one less in flight, its status counted, its failure if it is one, and its duration unless
    /// it was upgraded.
    #[inline]
    pub fn end(&self, thread: usize, ended: &Ended) {
        let Some(shard) = self.shard(thread) else { return };
        shard.in_flight.add(-1);
        shard.code(ended.status);
        if let Outcome::Failure(kind) = ended.outcome {
            shard.failure(kind);
        }
        if !ended.upgraded {
            shard.duration(ended.duration);
        }
    }

    /// A failure of this version in a request that another version served, or none did.
    pub fn charge(&self, thread: usize, kind: FailureKind) {
        if let Some(shard) = self.shard(thread) {
            shard.failure(kind);
        }
    }

    /// A request that failed on this version, and has ended there, goes to stable.
    pub fn rescued(&self, thread: usize) {
        if let Some(shard) = self.shard(thread) {
            shard.rescues.add(1);
        }
    }

    /// Requests begun and not ended.
    pub fn in_flight(&self) -> i64 {
        self.written().map(|shard| shard.in_flight.get()).sum()
    }

    /// Requests begun since the version appeared. Cheaper than [`Self::totals`].
    pub fn begun(&self) -> u64 {
        self.written().fold(0, |sum, shard| sum.wrapping_add(shard.begun.get()))
    }

    /// Failures charged, of every kind.
    pub fn failed(&self) -> u64 {
        let shard = |shard: &Shard| {
            shard
                .failures
                .iter()
                .fold(0, |sum: u64, cell| sum.wrapping_add(cell.get()))
        };
        self.written().fold(0, |sum, one| sum.wrapping_add(shard(one)))
    }

    /// Durations since the version appeared, to within 1 %. (Cells wrap at 2^32.)
    pub fn histogram(&self) -> Histogram {
        let mut histogram = Histogram::default();
        for shard in self.written() {
            shard.fine.add_to(&mut histogram);
        }
        histogram
    }

    /// All counts, summed over the threads. Threads go on counting meanwhile: sums of a moment, each exact to within
    /// the requests that ended during the call.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for shard in self.written() {
            totals.add(shard);
        }
        totals
    }
}

/// The counts of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Totals {
    pub begun: u64,
    pub in_flight: i64,
    /// Requests ended, by status 100 + index.
    codes: Box<[u64; CODES]>,
    /// Requests ended with a status that HTTP does not have.
    pub other_codes: u64,
    /// Parallel to [`FailureKind::ALL`].
    pub failures: [u64; KINDS],
    /// Failed requests that stable was asked to answer instead.
    pub rescues: u64,
    /// Requests by duration: not cumulative, parallel to [`DURATION_BOUNDS_US`], then those longer.
    pub durations: [u64; BUCKETS],
    /// Microseconds.
    pub duration_sum_us: u64,
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            begun: 0,
            in_flight: 0,
            codes: Box::new([0; CODES]),
            other_codes: 0,
            failures: [0; KINDS],
            rescues: 0,
            durations: [0; BUCKETS],
            duration_sum_us: 0,
        }
    }
}

impl Totals {
    fn add(&mut self, shard: &Shard) {
        self.begun = self.begun.wrapping_add(shard.begun.get());
        self.in_flight += shard.in_flight.get();
        for (&code, cell) in COMMON_CODES.iter().zip(&shard.common) {
            if let Some(sum) = self.codes.get_mut(usize::from(code - FIRST_CODE)) {
                *sum = sum.wrapping_add(cell.get());
            }
        }
        if let Some(rare) = shard.rare.get() {
            add_cells(self.codes.iter_mut(), rare);
        }
        self.other_codes = self.other_codes.wrapping_add(shard.other.get());
        add_cells(self.failures.iter_mut(), &shard.failures);
        self.rescues = self.rescues.wrapping_add(shard.rescues.get());
        add_cells(self.durations.iter_mut(), &shard.buckets);
        self.duration_sum_us = self.duration_sum_us.wrapping_add(shard.duration_sum_us.get());
    }

    /// The statuses that occurred with their counts, ascending.
    pub fn codes(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        (FIRST_CODE..)
            .zip(self.codes.iter().copied())
            .filter(|&(_, count)| count > 0)
    }

    /// Requests that ended.
    pub fn ended(&self) -> u64 {
        self.codes
            .iter()
            .fold(self.other_codes, |sum, &count| sum.wrapping_add(count))
    }

    /// Failures charged of this kind.
    pub fn failed(&self, kind: FailureKind) -> u64 {
        self.failures.get(kind.index()).copied().unwrap_or(0)
    }

    /// Failures of every kind.
    pub fn all_failed(&self) -> u64 {
        self.failures.iter().sum()
    }
}

fn add_cells<'a>(sums: impl Iterator<Item = &'a mut u64>, cells: &[Cell]) {
    for (sum, cell) in sums.zip(cells) {
        *sum = sum.wrapping_add(cell.get());
    }
}

/// What one worker thread counts beside versions. Only that thread calls the methods that count.
#[repr(align(128))]
pub struct ThreadStats {
    open: Level,
    opened: Cell,
    retries: Cell,
    panics: Cell,
    refusals: [Cell; Refusal::ALL.len()],
    terminations: [Cell; Termination::ALL.len()],
    handshakes: [Cell; Handshake::ALL.len()],
    own_answers: [Cell; OwnAnswerKind::ALL.len()],
}

impl Default for ThreadStats {
    fn default() -> Self {
        Self {
            open: Level::default(),
            opened: Cell::default(),
            retries: Cell::default(),
            panics: Cell::default(),
            refusals: std::array::from_fn(|_| Cell::default()),
            terminations: std::array::from_fn(|_| Cell::default()),
            handshakes: std::array::from_fn(|_| Cell::default()),
            own_answers: std::array::from_fn(|_| Cell::default()),
        }
    }
}

impl ThreadStats {
    /// A downstream connection was accepted.
    pub fn connection_opened(&self) {
        self.open.add(1);
        self.opened.add(1);
    }

    /// The connection is closed: once for each [`Self::connection_opened`].
    pub fn connection_closed(&self) {
        self.open.add(-1);
    }

    /// A request, or a connection, was refused by the proxy itself.
    pub fn refused(&self, refusal: Refusal) {
        if let Some(cell) = self.refusals.get(refusal.index()) {
            cell.add(1);
        }
    }

    /// A request was tried on one more endpoint.
    pub fn retried(&self) {
        self.retries.add(1);
    }

    /// A request's handling panicked and was answered 500.
    pub fn panicked(&self) {
        self.panics.add(1);
    }

    /// A request ended, refused ones included: once for each line of an unsampled access log.
    pub fn terminated(&self, termination: Termination) {
        if let Some(cell) = self.terminations.get(termination.index()) {
            cell.add(1);
        }
    }

    /// The proxy has answered by itself, as the file says.
    pub fn answered_itself(&self, kind: OwnAnswerKind) {
        if let Some(cell) = self.own_answers.get(kind.index()) {
            cell.add(1);
        }
    }

    /// Requests that the proxy answered this way.
    pub fn own_answers(&self, kind: OwnAnswerKind) -> u64 {
        self.own_answers.get(kind.index()).map_or(0, Cell::get)
    }

    /// A TLS handshake with a client has ended.
    pub fn shook_hands(&self, handshake: Handshake) {
        if let Some(cell) = self.handshakes.get(handshake.index()) {
            cell.add(1);
        }
    }

    /// TLS handshakes that ended this way.
    pub fn handshakes(&self, handshake: Handshake) -> u64 {
        self.handshakes.get(handshake.index()).map_or(0, Cell::get)
    }

    /// Downstream connections open now.
    pub fn connections(&self) -> i64 {
        self.open.get()
    }

    /// Downstream connections accepted since the process began.
    pub fn connections_total(&self) -> u64 {
        self.opened.get()
    }

    /// Refusals for this reason.
    pub fn refusals(&self, refusal: Refusal) -> u64 {
        self.refusals.get(refusal.index()).map_or(0, Cell::get)
    }

    /// Requests that ended this way.
    pub fn terminations(&self, termination: Termination) -> u64 {
        self.terminations.get(termination.index()).map_or(0, Cell::get)
    }

    /// Attempts beyond the first.
    pub fn retries(&self) -> u64 {
        self.retries.get()
    }

    /// Panics caught.
    pub fn panics(&self) -> u64 {
        self.panics.get()
    }
}

#[cfg(test)]
mod tests;
