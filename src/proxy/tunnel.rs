//! After a 101: bytes both ways, until both sides have finished or nothing moves for `timeouts.idle`.

use super::body::{BodyReader, BodyWriter, Coding, Framing};
use super::buffer::Buffer;
use super::downstream::Client;
use super::stream::Stream;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

/// Joins both connections. What either had already sent comes first. The side that finishes is told on; the other may
/// go on until it finishes too. The total deadline of the request does not count here: a tunnel lives while it is used.
pub async fn run(
    client: &Client,
    upstream: &Stream,
    from_client: &mut Buffer,
    from_upstream: &mut Buffer,
    idle: Duration,
) {
    client.slot.clear_total();
    client.slot.set_phase(idle);
    let mut up = pin!(copy(client, &client.stream, from_client, upstream, idle));
    let mut down = pin!(copy(client, upstream, from_upstream, &client.stream, idle));
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
    // An idle tunnel just ends: both connections close when they are dropped.
    let _ = client.slot.guard(both).await;
}

/// One direction, to its end or its failure.
async fn copy(client: &Client, from: &Stream, buffer: &mut Buffer, to: &Stream, idle: Duration) {
    let mut reader = BodyReader::new(from, buffer, Framing::UntilClose);
    let mut writer = BodyWriter::new(to, &[], Coding::Plain);
    while let Ok(Some(piece)) = reader.next().await {
        client.slot.set_phase(idle);
        if writer.write(piece).await.is_err() {
            break;
        }
    }
    // A peer that is gone cannot be told.
    let _ = to.finish().await;
}
