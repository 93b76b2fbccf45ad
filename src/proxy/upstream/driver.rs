//! The task of a connection of HTTP/2: moves its frames, tells who waits for room on it, and finds out whether it still lives.

use super::multiplexed::Load;
use crate::http2::Liveness;
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
    liveness: Liveness,
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
            liveness: Liveness::default(),
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
        if heard {
            // An answer that is not taken is in the way of the next question.
            let _ = self.ping.as_mut().map(|ping| ping.poll_pong(context));
            self.liveness.heard(self.load.meter.carried());
        }
        if !waits {
            self.slot.clear_phase();
        } else if heard || !self.watched {
            self.slot.set_phase(self.liveness.patience(self.worker.recently()));
        }
        self.watched = waits;
    }

    /// Asks for a sign of life; `false`: that was done, in vain.
    fn ask(&mut self, context: &mut Context<'_>) -> bool {
        let now = self.worker.recently();
        if !self.liveness.ask(now) {
            return false;
        }
        self.slot.set_phase(self.liveness.patience(now));
        // Fails while an earlier one is not answered: that answer will do.
        let _ = self.ping.as_mut().map(|ping| ping.send_ping(Ping::opaque()));
        context.waker().wake_by_ref();
        true
    }
}
