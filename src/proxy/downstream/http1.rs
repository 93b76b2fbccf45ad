//! HTTP/1.1 connections of clients: one request after the other, each in its own time limits.

use super::{Client, Link, Next, http2, linger};
use crate::http1::{HeadError, HeadLimits, RequestBody, RequestHead, parse_request};
use crate::http2::PREFACE;
use crate::outcome::Refusal;
use crate::proxy::body::{BodyReader, Framing};
use crate::proxy::buffer::{Buffer, HeadBytes};
use crate::proxy::exchange;
use crate::proxy::stream::Stream;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

/// What arrived on a connection.
enum Arrival {
    Head(RequestHead, HeadBytes),
    Refused(Refusal, String),
    /// The client speaks HTTP/2 and knows that we do.
    Http2,
    /// The client has gone between requests, has been idle too long, or the process is stopping.
    Over,
}

/// Serves a connection to its end.
#[expect(clippy::manual_async_fn, reason = "an `async fn` holds its arguments twice")]
pub fn serve(client: Client) -> impl Future<Output = ()> {
    async move {
        let mut input = Buffer::default();
        if serve_requests(&client, &mut input).await == Then::Http2 {
            Box::pin(http2::serve(client, input)).await;
        }
    }
}

#[derive(PartialEq, Eq)]
enum Then {
    Close,
    Http2,
}

async fn serve_requests(client: &Client, input: &mut Buffer) -> Then {
    let Link::Wire(stream) = &client.link else {
        return Then::Close;
    };
    let mut first = true;
    loop {
        let next = match arrival(client, stream, input, first).await {
            Arrival::Over => return Then::Close,
            Arrival::Http2 => return Then::Http2,
            Arrival::Head(head, bytes) => {
                // Boxed: a connection that waits does not hold the room of an exchange, and the exchanges of a
                // thread use the same few blocks again, warm in its cache.
                let next = Box::pin(serve_one(client, stream, &head, &bytes, input)).await;
                client.worker.recycle(head);
                next
            }
            Arrival::Refused(refusal, why) => Box::pin(exchange::refuse_unread(client, refusal, &why)).await,
        };
        match next {
            Next::KeepAlive => first = false,
            Next::Linger => {
                Box::pin(linger::close(stream, &client.slot, input)).await;
                return Then::Close;
            }
            Next::Close => return Then::Close,
        }
    }
}

async fn serve_one(client: &Client, stream: &Stream, head: &RequestHead, bytes: &[u8], input: &mut Buffer) -> Next {
    let framing = match head.body {
        RequestBody::None => Framing::Done,
        RequestBody::Length(bytes) => Framing::length(bytes),
        RequestBody::Chunked => Framing::chunked(),
    };
    exchange::run(client, head, bytes, &mut BodyReader::wire(stream, input, framing)).await
}

/// The next head, or why there is none. A new connection's first head is due at once; a kept-alive one may rest first.
async fn arrival(client: &Client, stream: &Stream, input: &mut Buffer, first: bool) -> Arrival {
    let local = client.worker.local();
    let limits = &local.in_force.snapshot.limits;
    client.slot.clear_total();
    if input.is_empty() {
        input.release();
        let patience = if first {
            limits.header_timeout
        } else {
            limits.keepalive_timeout
        };
        match idle(client, stream, patience).await {
            Idle::Readable => {}
            Idle::Late if first => return refused(Refusal::RequestTimeout, "no request came"),
            Idle::Late | Idle::Closing => return Arrival::Over,
        }
    }
    if !first {
        client.slot.set_phase(limits.header_timeout);
    }
    let head_limits = HeadLimits {
        bytes: limits.max_head,
        ..HeadLimits::default()
    };
    match client
        .slot
        .guard(head(client, stream, input, &head_limits, first))
        .await
    {
        Ok(arrival) => arrival,
        Err(_) => refused(
            Refusal::RequestTimeout,
            "the head did not arrive within limits.header_timeout",
        ),
    }
}

enum Idle {
    Readable,
    Late,
    Closing,
}

/// Waits without a buffer.
async fn idle(client: &Client, stream: &Stream, patience: Duration) -> Idle {
    client.slot.set_phase(patience);
    let readable = poll_fn(|context| {
        if stream.poll_readable(context).is_ready() {
            return Poll::Ready(Idle::Readable);
        }
        if !client.worker.is_closing() {
            return Poll::Pending;
        }
        // What is in the kernel already was sent in good faith.
        Poll::Ready(if stream.is_quiet_for_sure() {
            Idle::Closing
        } else {
            Idle::Readable
        })
    });
    client.slot.guard(readable).await.unwrap_or(Idle::Late)
}

/// `first`: this may as well be the preface of HTTP/2.
async fn head(client: &Client, stream: &Stream, input: &mut Buffer, limits: &HeadLimits, first: bool) -> Arrival {
    let mut parser = client.worker.head_parser();
    loop {
        if first && input.unread().starts_with(PREFACE) {
            return Arrival::Http2;
        }
        // As long as it may become the preface, it is no request.
        if !(first && PREFACE.starts_with(input.unread())) {
            match parse_request(input.unread(), limits, &mut parser) {
                Ok(Some(head)) => {
                    let bytes = HeadBytes::copy_of(input.unread().get(..head.len).unwrap_or_default());
                    input.consume(head.len);
                    return Arrival::Head(head, bytes);
                }
                Ok(None) => {}
                Err(error) => return broken(&error),
            }
        }
        match stream.fill(input, limits.bytes).await {
            Ok(n) if n > 0 => {}
            // Nothing begun, nothing lost; a head that was begun was left by its client: nobody waits for an answer.
            _ => return Arrival::Over,
        }
    }
}

fn broken(error: &HeadError) -> Arrival {
    refused(error.status(), &error.to_string())
}

fn refused(refusal: Refusal, why: &str) -> Arrival {
    Arrival::Refused(refusal, why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::stream::Stream;
    use crate::proxy::worker::Worker;
    use crate::telemetry::fixture;
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;

    /// What an idle connection costs is this future and what the kernel keeps: a state that grows shows here.
    #[tokio::test]
    async fn a_waiting_connection_is_small() {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let tcp = tokio::net::TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let shared = fixture::shared(fixture::in_force(1, 1, &[]), 1);
        let worker = Worker::new(0, Arc::clone(&shared), Arc::clone(&shared.threads[0]), None, 16);
        let slot = worker.deadlines.slot();
        let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let exchange = {
            let head = parse_request(
                b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
                &HeadLimits::default(),
                &mut worker.head_parser(),
            );
            let (head, tcp) = (head.unwrap().unwrap(), tokio::net::TcpSocket::new_v4().unwrap());
            let tcp = tcp.connect(listener.local_addr().unwrap()).await.unwrap();
            let client = Client {
                worker: std::rc::Rc::clone(&worker),
                link: Link::Wire(Stream::new(tcp)),
                peer,
                slot: worker.deadlines.slot(),
                since: worker.recently(),
                answering: std::cell::Cell::new(false),
            };
            let Link::Wire(stream) = &client.link else {
                unreachable!()
            };
            std::mem::size_of_val(&serve_one(&client, stream, &head, b"", &mut Buffer::default()))
        };
        assert!(exchange <= 3 * 1024, "{exchange} bytes while a request is served");
        let future = serve(Client {
            worker,
            link: Link::Wire(Stream::new(tcp)),
            peer,
            slot,
            since: std::time::Instant::now(),
            answering: std::cell::Cell::new(false),
        });
        let bytes = std::mem::size_of_val(&future);
        assert!(bytes <= 1024, "{bytes} bytes");
    }
}
