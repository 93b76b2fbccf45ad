//! When the endpoint of a connection is asked for a sign of life (PING), and when it is taken for dead.
//!
//! Servers of gRPC count what they are asked: one PING in 5 minutes is allowed, the third that comes sooner ends the
//! connection (GOAWAY, ENHANCE_YOUR_CALM), and HEADERS or DATA that they send wipe the slate (gRFC A8, "Server-side
//! Connection Management"; the defaults of the C core, Go and Java). So the first PING of a silence may come soon, and a
//! further one only after an answer has gone on, or late.

use std::time::{Duration, Instant};

/// A connection on which requests wait is asked for a sign of life after so much silence, and given up after so much more.
const QUIET: Duration = Duration::from_secs(10);
const NO_PONG: Duration = Duration::from_secs(5);

/// From one PING to the next, where no answer has gone on between them: the 5 minutes, and what the first may have been late.
const FORGIVEN: Duration = Duration::from_secs(330);

/// What is known of one connection.
///
/// A frame of an answer that was on its way when a PING went out counts as if it were behind it. That costs one of the two
/// strikes at most: the next frame, without which there is no further PING so soon, was sent after it and wipes it away.
#[derive(Debug, Default)]
pub struct Liveness {
    /// The last PING, as long as no answer has gone on since.
    held_against_us: Option<Instant>,
    /// Nothing has come since it.
    unanswered: bool,
}

impl Liveness {
    /// Something has come in. `answers`: HEADERS or DATA are among it.
    pub fn heard(&mut self, answers: bool) {
        self.unanswered = false;
        if answers {
            self.held_against_us = None;
        }
    }

    /// How much silence from now on is enough to [ask](Self::ask).
    pub fn patience(&self, now: Instant) -> Duration {
        match self.held_against_us {
            _ if self.unanswered => NO_PONG,
            Some(asked) => QUIET.max(FORGIVEN.saturating_sub(now.saturating_duration_since(asked))),
            None => QUIET,
        }
    }

    /// The patience is over: a PING is to be sent; `false`: one was, in vain.
    pub fn ask(&mut self, now: Instant) -> bool {
        self.held_against_us = Some(now);
        !std::mem::replace(&mut self.unanswered, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const ALLOWED: Duration = Duration::from_secs(300);

    /// How servers of gRPC count: the C core and Go from PING to PING, the first of them free; Java from the last PING that
    /// was allowed, or from when the connection began.
    struct Server {
        /// Nothing that comes sooner is allowed.
        java: bool,
        began: Instant,
        last: Option<Instant>,
        strikes: u32,
    }

    impl Server {
        fn new(java: bool, now: Instant) -> Self {
            Self {
                java,
                began: now,
                last: None,
                strikes: 0,
            }
        }

        fn answers(&mut self) {
            (self.last, self.strikes) = (None, 0);
        }

        fn pinged(&mut self, now: Instant) {
            let from = self.last.or(self.java.then_some(self.began));
            let is_allowed = from.is_none_or(|from| now - from >= ALLOWED);
            self.strikes += u32::from(!is_allowed);
            if is_allowed || !self.java {
                self.last = Some(now);
            }
        }
    }

    #[derive(Default)]
    struct Traffic {
        /// The server sends a part of an answer every so many seconds, or none.
        answers: Option<u32>,
        /// And something else: window updates.
        others: Option<u32>,
        /// Streams wait for so many seconds, then there is none for as many.
        waits: Option<u32>,
        /// Seconds that everything takes to arrive.
        latency: u32,
    }

    fn is_due(every: Option<u32>, second: u32) -> bool {
        every.is_some_and(|every| second.is_multiple_of(every))
    }

    /// Three hours on one connection, of which a server takes no offence: how many PINGs it gets.
    fn pings(traffic: &Traffic, java: bool) -> usize {
        let began = Instant::now();
        let mut server = Server::new(java, began);
        let mut liveness = Liveness::default();
        let (mut on_their_way_there, mut on_their_way_here) = (Vec::new(), Vec::new());
        let (mut pings, mut due, mut waited) = (0, None, false);
        for second in 1..10_800 {
            let now = began + SECOND * second;
            while on_their_way_there.first().is_some_and(|at| *at <= second) {
                on_their_way_there.remove(0);
                server.pinged(now);
                assert!(server.strikes < 3, "{second} s, Java {java}");
                on_their_way_here.push((second + traffic.latency, false));
            }
            if is_due(traffic.answers, second) {
                server.answers();
                on_their_way_here.push((second + traffic.latency, true));
            } else if is_due(traffic.others, second) {
                on_their_way_here.push((second + traffic.latency, false));
            }
            let mut heard = false;
            while on_their_way_here.first().is_some_and(|(at, _)| *at <= second) {
                liveness.heard(on_their_way_here.remove(0).1);
                heard = true;
            }
            let waits = traffic.waits.is_none_or(|period| (second / period).is_multiple_of(2));
            if waits && (heard || !waited) {
                due = Some(now + liveness.patience(now));
            }
            waited = waits;
            if waits && due.is_some_and(|due| now >= due) {
                assert!(liveness.ask(now), "{second} s: it lives");
                due = Some(now + liveness.patience(now));
                pings += 1;
                on_their_way_there.push(second + traffic.latency);
            }
        }
        pings
    }

    #[test]
    fn no_server_of_grpc_takes_offence() {
        let often = (1..700).step_by(13).map(Some).chain([None]);
        let all = often.flat_map(|answers| [None, Some(3)].map(|others| (answers, others)));
        let all = all.flat_map(|sent| [None, Some(7), Some(20)].map(|waits| (sent, waits)));
        for ((answers, others), waits) in all {
            for latency in [0, 2] {
                let traffic = Traffic {
                    answers,
                    others,
                    waits,
                    latency,
                };
                pings(&traffic, false);
                pings(&traffic, true);
            }
        }
    }

    #[test]
    fn silence_is_asked_once_soon_and_then_rarely() {
        assert_eq!(pings(&Traffic::default(), false), 33);
        let traffic = Traffic {
            answers: Some(60),
            ..Traffic::default()
        };
        assert_eq!(pings(&traffic, false), 180, "once in each silence");
        let traffic = Traffic {
            answers: Some(5),
            ..Traffic::default()
        };
        assert_eq!(pings(&traffic, false), 0);
    }

    #[test]
    fn what_says_nothing_is_dead_whoever_waits_for_it() {
        let began = Instant::now();
        let mut liveness = Liveness::default();
        assert_eq!(liveness.patience(began), QUIET);
        assert!(liveness.ask(began + QUIET));
        // Also for a stream that begins only now: the question stands.
        assert_eq!(liveness.patience(began + QUIET), NO_PONG);
        assert!(!liveness.ask(began + QUIET + NO_PONG));
    }

    #[test]
    fn an_answer_that_goes_on_makes_the_next_silence_a_first_one() {
        let began = Instant::now();
        let mut liveness = Liveness::default();
        assert!(liveness.ask(began));
        liveness.heard(false);
        assert_eq!(liveness.patience(began), FORGIVEN);
        assert_eq!(liveness.patience(began + SECOND * 30), SECOND * 300);
        assert_eq!(liveness.patience(began + SECOND * 3_000), QUIET);
        liveness.heard(true);
        assert_eq!(liveness.patience(began), QUIET);
    }
}
