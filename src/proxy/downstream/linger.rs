//! Closing so that the answer arrives: bytes that come in after a close make the kernel reset the connection, and a
//! reset may overtake the answer (RFC 9112 section 9.6).

use super::{Client, Link};
use crate::proxy::body::BodyReader;
use crate::proxy::buffer::{BUFFER_BYTES, Buffer};
use crate::proxy::deadlines::Slot;
use crate::proxy::stream::Stream;
use std::time::Duration;

/// How long a closing connection is read on.
const LINGER: Duration = Duration::from_secs(2);

/// How often [`took_the_answer`] looks.
const LOOK: Duration = Duration::from_millis(10);

/// Bytes read and dropped before patience ends.
const LINGER_BYTES: usize = 4 * 1024 * 1024;

/// Says that nothing more comes, then reads until the client says so too, within bounds.
pub async fn close(stream: &Stream, slot: &Slot, input: &mut Buffer) {
    if stream.finish().await.is_err() {
        return;
    }
    slot.clear_total();
    slot.set_phase(LINGER);
    // Past the deadline the connection just closes.
    let _ = slot.guard(drain(stream, input)).await;
}

async fn drain(stream: &Stream, input: &mut Buffer) {
    let mut dropped = 0;
    while dropped < LINGER_BYTES {
        input.consume(input.unread().len());
        input.release();
        match stream.fill(input, BUFFER_BYTES).await {
            Ok(n) if n > 0 => dropped += n,
            _ => return,
        }
    }
}

/// Reads what a client still sends of a request that is answered, within bounds: a stream that is reset at once, as it may be
/// (RFC 9113 section 8.1), takes the answer away from clients (curl) that have not looked at it yet.
pub async fn read_on(slot: &Slot, body: &mut BodyReader<'_>) {
    slot.clear_total();
    slot.set_phase(LINGER);
    // Past the deadline the stream is reset.
    let _ = slot.guard(drop_rest(body)).await;
}

async fn drop_rest(body: &mut BodyReader<'_>) {
    let mut dropped = 0;
    while dropped < LINGER_BYTES {
        match body.next().await {
            Ok(Some(piece)) => dropped += piece.len(),
            _ => return,
        }
    }
}

/// Whether a client that had finished sending before its answer took that answer: one that had gone altogether resets
/// the connection when the answer reaches it. Waits for the kernel's word, which comes within a round trip.
pub async fn took_the_answer(client: &Client) -> bool {
    let Link::Wire(stream) = &client.link else {
        // A stream that was reset has told so already.
        return true;
    };
    if stream.finish().await.is_err() {
        return false;
    }
    let mut waited = Duration::ZERO;
    while waited < LINGER {
        let over = stream.is_over();
        if stream.take_error().is_some() {
            return false;
        }
        if over {
            return true;
        }
        // Rare enough for a timer of its own.
        tokio::time::sleep(LOOK).await;
        waited += LOOK;
    }
    // A slow link that has not confirmed by then gets the benefit of the doubt.
    true
}
