//! HTTP/1.1 connections of clients: one request after the other, each in its own time limits.

use super::{Client, Next, Rest, http2, linger};
use crate::http1::{HeadError, HeadLimits, MethodKind, RequestBody, RequestHead, parse_request};
use crate::http2::PREFACE;
use crate::outcome::Refusal;
use crate::proxy::body::{BodyReader, Framing};
use crate::proxy::buffer::{Buffer, HeadBytes};
use crate::proxy::exchange::{self, Unread};
use crate::proxy::stream::Stream;

/// What arrived on a connection.
enum Arrival {
    Head(RequestHead, HeadBytes),
    Refused(Refusal, String),
    /// The client speaks HTTP/2 and knows that we do.
    Http2,
    /// The client has gone between requests, has been idle too long (without a single byte of a request nobody waits for an
    /// answer: browsers open connections in advance), or the process is stopping.
    Over,
}

/// Serves a connection to its end; `input` is what was read of it already.
#[expect(clippy::manual_async_fn, reason = "an `async fn` holds its arguments twice")]
pub fn serve(client: Client, mut input: Buffer) -> impl Future<Output = ()> {
    async move {
        let agreed = client.link.stream().is_some_and(Stream::agreed_on_http2);
        if agreed || serve_requests(&client, &mut input).await == Then::Http2 {
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
    loop {
        let next = match arrival(client, input).await {
            Arrival::Over => return Then::Close,
            Arrival::Http2 => return Then::Http2,
            Arrival::Head(head, bytes) => {
                client.asked.set(true);
                // Boxed: a connection that waits does not hold the room of an exchange, and the exchanges of a
                // thread use the same few blocks again, warm in its cache.
                let next = Box::pin(serve_one(client, &head, &bytes, input)).await;
                client.worker.recycle(head);
                next
            }
            Arrival::Refused(refusal, why) => {
                let unread = Unread {
                    bytes: input.unread(),
                    head_only: MethodKind::begun_in(input.unread()) == MethodKind::Head,
                    is_grpc: false,
                };
                Box::pin(exchange::refuse_unread(client, refusal, &why, &unread)).await
            }
        };
        match next {
            Next::KeepAlive => {}
            Next::Linger => {
                if let Some(stream) = client.link.stream() {
                    Box::pin(linger::close(stream, &client.slot, input)).await;
                }
                return Then::Close;
            }
            Next::Close => return Then::Close,
        }
    }
}

async fn serve_one(client: &Client, head: &RequestHead, bytes: &[u8], input: &mut Buffer) -> Next {
    let framing = match head.body {
        RequestBody::None => Framing::Done,
        RequestBody::Length(bytes) => Framing::length(bytes),
        RequestBody::Chunked => Framing::chunked(client.worker.local().in_force.snapshot.limits.heads()),
    };
    let Some(stream) = client.link.stream() else {
        return Next::Close;
    };
    exchange::run(client, head, bytes, &mut BodyReader::wire(stream, input, framing)).await
}

/// The next head, or why there is none. A new connection's first head is due at once; a kept-alive one may rest first.
async fn arrival(client: &Client, input: &mut Buffer) -> Arrival {
    let first = !client.asked.get();
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
        match client.rest(patience).await {
            Rest::Readable => {}
            Rest::Late | Rest::Closing => return Arrival::Over,
        }
    }
    if !first {
        client.slot.set_phase(limits.header_timeout);
    }
    let head_limits = limits.heads();
    // Behind TLS both have agreed on what is spoken.
    let may_be_preface = first && !client.link.is_tls();
    match client
        .slot
        .guard(head(client, input, &head_limits, may_be_preface))
        .await
    {
        Ok(arrival) => arrival,
        Err(_) if input.is_empty() => Arrival::Over,
        Err(_) => refused(
            Refusal::RequestTimeout,
            "the head did not arrive within limits.header_timeout",
        ),
    }
}

async fn head(client: &Client, input: &mut Buffer, limits: &HeadLimits, may_be_preface: bool) -> Arrival {
    let mut parser = client.worker.head_parser();
    loop {
        if may_be_preface && input.unread().starts_with(PREFACE) {
            return Arrival::Http2;
        }
        // As long as it may become the preface, it is no request.
        if !(may_be_preface && PREFACE.starts_with(input.unread())) {
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
        match client.fill(input, limits.bytes).await {
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
    use crate::proxy::downstream::Link;
    use crate::proxy::worker::Worker;
    use crate::telemetry::fixture;
    use std::net::Ipv4Addr;
    use std::rc::Rc;
    use std::sync::Arc;
    use tokio::net::TcpStream;

    fn client(worker: &Rc<Worker>, tcp: TcpStream) -> Client {
        Client {
            worker: Rc::clone(worker),
            link: Link::Wire(Stream::new(tcp)),
            peer: (Ipv4Addr::LOCALHOST, 1).into(),
            destination: None,
            certificate: None,
            listener: 0,
            slot: worker.deadlines.slot(),
            since: worker.recently(),
            asked: std::cell::Cell::new(false),
            answering: std::cell::Cell::new(false),
        }
    }

    /// What an idle connection costs is this future and what the kernel keeps: a state that grows shows here.
    #[tokio::test]
    async fn a_waiting_connection_is_small() {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = fixture::shared(fixture::in_force(1, 1, &[]), 1);
        let worker = Worker::new(0, Arc::clone(&shared), Arc::clone(&shared.threads[0]), None, 16);
        let exchange = {
            let head = parse_request(
                b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
                &HeadLimits::default(),
                &mut worker.head_parser(),
            );
            let head = head.unwrap().unwrap();
            let client = client(&worker, TcpStream::connect(address).await.unwrap());
            std::mem::size_of_val(&serve_one(&client, &head, b"", &mut Buffer::default()))
        };
        assert!(exchange <= 3 * 1024 + 128, "{exchange} bytes while a request is served");
        let client = client(&worker, TcpStream::connect(address).await.unwrap());
        let future = serve(client, Buffer::default());
        let bytes = std::mem::size_of_val(&future);
        assert!(bytes <= 1056, "{bytes} bytes");
    }
}
