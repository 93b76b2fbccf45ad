//! The task of a connection of HTTP/2: moves its frames, tells who waits for room on it, and finds out whether it still lives.

use super::multiplexed::Load;
use crate::proxy::deadlines::Slot;
use crate::proxy::io::Io;
use crate::proxy::worker::Worker;
use bytes::Bytes;
use h2::client;
use h2::{Ping, PingPong};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

/// A connection on which requests wait is asked for a sign of life after so much silence, and given up after so much more.
const QUIET: Duration = Duration::from_secs(10);
const NO_PONG: Duration = Duration::from_secs(5);

/// See the module.
pub struct Driver {
    connection: client::Connection<Io, Bytes>,
    ping: Option<PingPong>,
    worker: Rc<Worker>,
    slot: Slot,
    load: Rc<Load>,
    /// Streams at once that its endpoint takes, as far as who waits for room knows.
    most: usize,
    /// Streams wait, so that silence is watched.
    watched: bool,
    /// A sign of life was asked for.
    asked: bool,
}

impl Driver {
    pub fn new(mut connection: client::Connection<Io, Bytes>, worker: &Rc<Worker>, load: Rc<Load>) -> Self {
        Self {
            ping: connection.ping_pong(),
            most: connection.max_concurrent_send_streams(),
            connection,
            worker: Rc::clone(worker),
            slot: worker.deadlines.slot(),
            load,
            watched: false,
            asked: false,
        }
    }

    /// Until the connection ends. Its streams then hear of it.
    pub async fn run(mut self) {
        poll_fn(|context| self.poll(context)).await;
        self.load.freed.notify_waiters();
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if Pin::new(&mut self.connection).poll(context).is_ready() || self.load.meter.is_flooded(self.worker.recently())
        {
            return Poll::Ready(());
        }
        let most = self.connection.max_concurrent_send_streams();
        if std::mem::replace(&mut self.most, most) != most {
            self.load.freed.notify_waiters();
        }
        // No error: what the endpoint has said before it went is still to be read.
        let _ = self.load.outbox.poll_send(context);
        self.watch(context);
        if self.slot.expired().is_some() && !self.ask(context) {
            return Poll::Ready(());
        }
        self.slot.register(context.waker());
        Poll::Pending
    }

    fn watch(&mut self, context: &mut Context<'_>) {
        let heard = self.load.meter.heard();
        let waits = self.load.streams.get() > 0;
        if heard && let Some(ping) = &mut self.ping {
            // An answer that is not taken is in the way of the next question.
            let _ = ping.poll_pong(context);
        }
        if !waits {
            self.slot.clear_phase();
        } else if heard || !self.watched {
            self.asked = false;
            self.slot.set_phase(QUIET);
        }
        self.watched = waits;
    }

    /// Asks for a sign of life; `false`: that was done, in vain.
    fn ask(&mut self, context: &mut Context<'_>) -> bool {
        if self.asked {
            return false;
        }
        self.asked = true;
        self.slot.set_phase(NO_PONG);
        // Fails while an earlier one is not answered: that answer will do.
        let _ = self.ping.as_mut().map(|ping| ping.send_ping(Ping::opaque()));
        context.waker().wake_by_ref();
        true
    }
}
