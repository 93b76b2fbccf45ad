//! How many retries a pool bears: a fifth of its requests, so that a pool in trouble is not buried under repeats.

/// Slots of the window.
const SLOTS: usize = 10;
/// Milliseconds a slot.
const SLOT_MS: u64 = 100;
/// Retries a second that are always allowed.
const FLOOR: u32 = 3;
/// One retry for so many requests.
const REQUESTS_PER_RETRY: u32 = 5;

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    requests: u32,
    retries: u32,
}

/// Over the last second: retries are at most 20 % of requests, or 3 if that is more. For one thread; a pool's bound over
/// all threads is the sum of theirs.
#[derive(Debug, Clone, Default)]
pub struct RetryBudget {
    slots: [Slot; SLOTS],
    /// Number of the newest slot, counted from the clock's zero.
    newest: u64,
}

impl RetryBudget {
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts a request (its first attempt). `now_ms`: milliseconds of a steady clock.
    pub fn request(&mut self, now_ms: u64) {
        if let Some(slot) = self.slot(now_ms) {
            slot.requests = slot.requests.saturating_add(1);
        }
    }

    /// Whether one more attempt is allowed; if so it is counted.
    pub fn try_retry(&mut self, now_ms: u64) -> bool {
        let allowed = self.allows(now_ms);
        if allowed {
            self.count(now_ms);
        }
        allowed
    }

    /// Whether one more attempt would be allowed.
    pub fn allows(&mut self, now_ms: u64) -> bool {
        self.turn(now_ms);
        let (mut requests, mut retries) = (0_u32, 0_u32);
        for slot in &self.slots {
            requests = requests.saturating_add(slot.requests);
            retries = retries.saturating_add(slot.retries);
        }
        retries < FLOOR.max(requests / REQUESTS_PER_RETRY)
    }

    /// Counts an attempt beyond the first.
    pub fn count(&mut self, now_ms: u64) {
        if let Some(slot) = self.slot(now_ms) {
            slot.retries = slot.retries.saturating_add(1);
        }
    }

    fn slot(&mut self, now_ms: u64) -> Option<&mut Slot> {
        self.turn(now_ms);
        self.slots.get_mut((self.newest % SLOTS as u64) as usize)
    }

    /// Empties the slots that time has passed over. A clock that steps back counts in the newest slot.
    fn turn(&mut self, now_ms: u64) {
        let number = now_ms / SLOT_MS;
        for passed in (self.newest..number).take(SLOTS) {
            // At most one whole turn: `passed` names each slot once.
            if let Some(slot) = self.slots.get_mut(((passed + 1) % SLOTS as u64) as usize) {
                *slot = Slot::default();
            }
        }
        self.newest = self.newest.max(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn three_a_second_are_always_allowed() {
        let mut budget = RetryBudget::new();
        budget.request(5_000);
        for second in 5..10 {
            let allowed = (0..10).filter(|_| budget.try_retry(second * 1_000)).count();
            assert_eq!(allowed, 3, "second {second}");
        }
    }

    #[test]
    fn what_is_not_counted_is_allowed_for_ever() {
        let mut budget = RetryBudget::new();
        assert!((0..1000).all(|_| budget.allows(5_000)));
        (0..3).for_each(|_| budget.count(5_000));
        assert!(!budget.allows(5_999));
        assert!(budget.allows(6_000));
    }

    #[test]
    fn a_storm_gets_a_fifth() {
        let mut budget = RetryBudget::new();
        let mut retries = 0;
        for now_ms in 0..10_000 {
            budget.request(now_ms);
            retries += u32::from(budget.try_retry(now_ms));
        }
        assert!((1_900..=2_000).contains(&retries), "{retries}");
    }

    #[test]
    fn the_past_does_not_pay_for_a_burst() {
        let mut budget = RetryBudget::new();
        for now_ms in 0..1_000 {
            budget.request(now_ms);
        }
        assert_eq!(
            (0..500).filter(|_| budget.try_retry(1_850)).count(),
            20,
            "the last slot alone is left"
        );
        assert_eq!((0..500).filter(|_| budget.try_retry(60_000)).count(), 3, "long quiet");
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing_away() {
        let mut budget = RetryBudget::new();
        assert_eq!((0..9).filter(|_| budget.try_retry(10_000)).count(), 3);
        assert_eq!((0..9).filter(|_| budget.try_retry(1_000)).count(), 0);
    }

    proptest! {
        #[test]
        fn never_more_than_the_bound_in_any_second(steps in proptest::collection::vec((0_u64..300, 0_u32..20, 0_u32..20), 1..200)) {
            let mut budget = RetryBudget::new();
            let mut now_ms = 0;
            let mut log: Vec<(u64, u32, u32)> = Vec::new();
            for (pause, requests, tries) in steps {
                now_ms += pause;
                for _ in 0..requests {
                    budget.request(now_ms);
                }
                let retries = (0..tries).filter(|_| budget.try_retry(now_ms)).count() as u32;
                log.push((now_ms, requests, retries));
                let recent = || log.iter().filter(|(at, ..)| at / SLOT_MS + SLOTS as u64 > now_ms / SLOT_MS);
                let asked: u32 = recent().map(|(_, requests, _)| requests).sum();
                let repeated: u32 = recent().map(|(.., retries)| retries).sum();
                // What was allowed earlier may be backed by requests that have left the window since.
                if retries > 0 {
                    prop_assert!(repeated <= FLOOR.max(asked / REQUESTS_PER_RETRY), "{repeated} of {asked}");
                } else if tries > 0 {
                    prop_assert!(repeated >= FLOOR.max(asked / REQUESTS_PER_RETRY), "refused without need");
                }
            }
        }
    }
}
