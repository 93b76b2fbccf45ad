//! What comes before the first request of a connection: a PROXY protocol header, where its listener asks for one.

use super::buffer::Buffer;
use super::downstream::{Client, Rest};
use super::headers::hex_id;
use super::record::log_unread;
use crate::opening::{Addresses, MAX_HEADER_BYTES, parse_proxy_header};
use crate::outcome::Refusal;
use std::net::SocketAddr;

/// Opens a connection, within `limits.header_timeout`: the client with the peer it really has, and what was read already
/// of what follows. `None`: it is over.
pub async fn open(mut client: Client) -> Option<(Client, Buffer)> {
    let mut input = Buffer::default();
    let patience = client.worker.local().in_force.snapshot.limits.header_timeout;
    // Who only looks whether a port is open says nothing, and is told of nowhere.
    let Rest::Readable = client.rest(patience).await else {
        return None;
    };
    let header = client.slot.guard(proxy_header(&client, &mut input)).await;
    let late = || "the PROXY header did not arrive within limits.header_timeout".to_owned();
    match header.unwrap_or_else(|_| Err((!input.is_empty()).then(late))) {
        Ok(Some(addresses)) => {
            let source = addresses.source;
            client.peer = SocketAddr::new(source.ip().to_canonical(), source.port());
            client.destination = Some(Box::new(addresses.destination));
        }
        Ok(None) => {}
        Err(why) => {
            if let Some(why) = why {
                refuse(&client, &why);
            }
            return None;
        }
    }
    input.release();
    Some((client, input))
}

/// The addresses that the header tells, which is then taken off `input`.
///
/// # Errors
/// Why the connection is refused; `None`: its peer has gone.
async fn proxy_header(client: &Client, input: &mut Buffer) -> Result<Option<Addresses>, Option<String>> {
    loop {
        match client.fill(input, MAX_HEADER_BYTES).await {
            Ok(n) if n > 0 => {}
            _ => return Err(None),
        }
        match parse_proxy_header(input.unread()) {
            Ok(None) => {}
            Ok(Some(header)) => {
                input.consume(header.len);
                return Ok(header.addresses);
            }
            Err(error) => return Err(Some(error.to_string())),
        }
    }
}

/// Told, and closed without an answer: who speaks no PROXY protocol may not speak HTTP either.
fn refuse(client: &Client, why: &str) {
    let worker = &client.worker;
    let request_id = hex_id(worker.draw_id());
    log_unread(
        worker,
        client.peer.ip(),
        Refusal::ProxyHeader,
        std::str::from_utf8(&request_id).unwrap_or_default(),
    );
    if worker.may_warn() {
        tracing::warn!(
            peer = %client.peer,
            "{why}: closed, since listeners[{}] has `proxy_protocol: true` (at most one such line a second)",
            client.listener
        );
    }
}
