//! After a 101: bytes both ways, until both sides have finished or nothing moves for `timeouts.idle`, or the
//! version it runs on has been revoked.

use super::body::{Accepted, BodyReader, BodyWriter, Coding, Framing};
use super::buffer::{Buffer, HeadBytes};
use super::deadlines::{Expired, Slot};
use super::stream::Stream;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

/// What a tunnel joins.
pub struct Ends<'a> {
    pub client: &'a Stream,
    pub upstream: &'a Stream,
    /// Of the client's connection.
    pub slot: &'a Slot,
    /// Nothing moving for so long ends it.
    pub idle: Duration,
}

/// Joins both connections. Each direction comes with the buffer of what had already been sent, which goes first, and with
/// the count of bytes passed on. The side that finishes is told on; the other may go on until it finishes too. The total
/// deadline of the request does not count here: a tunnel lives while it is used.
///
/// # Errors
/// The limit that ended it. Both connections close when they are dropped.
pub async fn run(
    ends: &Ends<'_>,
    up: (&mut Buffer, Accepted<'_>),
    down: (&mut Buffer, Accepted<'_>),
) -> Result<(), Expired> {
    let slot = ends.slot;
    slot.clear_total();
    slot.set_phase(ends.idle);
    let mut up = pin!(copy(ends, (ends.client, up.0), (ends.upstream, up.1)));
    let mut down = pin!(copy(ends, (ends.upstream, down.0), (ends.client, down.1)));
    let (mut up_done, mut down_done) = (false, false);
    let both = poll_fn(|context| {
        up_done = up_done || up.as_mut().poll(context).is_ready();
        down_done = down_done || down.as_mut().poll(context).is_ready();
        if up_done && down_done {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    });
    slot.guard(both).await
}

/// One direction, to its end or its failure.
async fn copy(ends: &Ends<'_>, (from, buffer): (&Stream, &mut Buffer), (to, passed): (&Stream, Accepted<'_>)) {
    let mut reader = BodyReader::wire(from, buffer, Framing::UntilClose);
    let mut writer = BodyWriter::wire(to, HeadBytes::default(), Coding::Plain, passed);
    while let Ok(Some(_)) = reader.next().await {
        ends.slot.set_phase(ends.idle);
        if writer.pass(&mut reader).await.is_err() {
            break;
        }
    }
    // A peer that is gone cannot be told.
    let _ = to.finish().await;
}
