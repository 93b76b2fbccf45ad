//! What comes before the first request of a connection: a PROXY protocol header, a TLS handshake, where its listener asks
//! for them. Both together within `limits.header_timeout`.

use super::buffer::{BUFFER_BYTES, Buffer};
use super::downstream::{Client, Link, Rest};
use super::headers::hex_id;
use super::record::log_unread;
use super::stream::{Stream, Tls};
use super::worker::Worker;
use crate::http1::Version;
use crate::opening::{Addresses, MAX_HEADER_BYTES, parse_proxy_header, read_certificate};
use crate::outcome::{Handshake, Refusal};
use crate::routing::ClientCert;
use crate::shared::ServerTls;
use rustls::{AlertDescription, CertificateError, CommonState, HandshakeKind};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

/// What a listener asks of connections before their first request.
pub struct Formalities {
    pub proxy_header: bool,
    pub tls: Option<Arc<ServerTls>>,
}

/// Opens a connection: the client as it really is, and what was read already of what follows. `None`: it is over.
pub async fn open(mut client: Client, formalities: Formalities) -> Option<(Client, Buffer)> {
    let mut input = Buffer::default();
    let patience = client.worker.local().in_force.snapshot.limits.header_timeout;
    // Who only looks whether a port is open says nothing, and is told of nowhere.
    let Rest::Readable = client.rest(patience).await else {
        return None;
    };
    if formalities.proxy_header {
        let told = client.slot.guard(proxy_header(&client, &mut input)).await;
        let late = || "the PROXY header did not arrive within limits.header_timeout".to_owned();
        match told.unwrap_or_else(|_| Err((!input.is_empty()).then(late))) {
            Ok(Some(addresses)) => {
                let source = addresses.source;
                client.peer = SocketAddr::new(source.ip().to_canonical(), source.port());
                client.destination = Some(Rc::new(addresses.destination));
            }
            Ok(None) => {}
            Err(why) => {
                if let Some(why) = why {
                    refuse(&client, &why);
                }
                return None;
            }
        }
    }
    if let Some(tls) = formalities.tls {
        client = shake_hands(client, &mut input, &tls).await?;
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
        Version::Http11,
        Refusal::ProxyHeader,
        std::str::from_utf8(&request_id).unwrap_or_default(),
        None,
    );
    if worker.may_warn() {
        tracing::warn!(
            peer = %client.peer,
            "{why}: closed, since listeners[{}] has `proxy_protocol: true` (at most one such line a second)",
            client.listener
        );
    }
}

/// The client behind TLS, with what it has shown of itself. `input`: what was read of the handshake already.
async fn shake_hands(client: Client, input: &mut Buffer, tls: &ServerTls) -> Option<Client> {
    if input.is_empty() {
        let came = client.slot.guard(client.fill(input, BUFFER_BYTES)).await;
        let Ok(Ok(1..)) = came else { return None };
    }
    let Client {
        worker,
        link: Link::Wire(stream),
        peer,
        destination,
        listener,
        slot,
        since,
        asked,
        answering,
        ..
    } = client
    else {
        return None;
    };
    let (Some(tcp), Some(config)) = (stream.into_plain(), tls.load()) else {
        worker.stats.shook_hands(Handshake::Failed);
        return None;
    };
    let accepted = slot.guard(Tls::accept(tcp, config, input.unread())).await;
    input.consume(input.unread().len());
    let tls = match accepted {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => {
            worker.stats.shook_hands(Handshake::Failed);
            tell_of_failure(&worker, peer, listener, &error);
            return None;
        }
        Err(_) => {
            worker.stats.shook_hands(Handshake::Late);
            return None;
        }
    };
    worker.stats.shook_hands(match tls.common().handshake_kind() {
        Some(HandshakeKind::Resumed) => Handshake::Resumed,
        _ => Handshake::Full,
    });
    Some(Client {
        certificate: shown(tls.common()),
        link: Link::Wire(Stream::tls(tls)),
        worker,
        peer,
        destination,
        listener,
        slot,
        since,
        asked,
        answering,
    })
}

/// What an operator can do something about is logged; whoever only knocks at the port is not worth a line.
fn tell_of_failure(worker: &Worker, peer: SocketAddr, listener: usize, error: &io::Error) {
    let what = error.get_ref().and_then(|inner| inner.downcast_ref()).and_then(meaning);
    match what {
        Some(what) if worker.may_warn() => tracing::warn!(
            %peer,
            %error,
            "listeners[{listener}]: no TLS with a client: {what} (at most one such line a second)"
        ),
        _ => tracing::debug!(%peer, %error, "a TLS handshake failed"),
    }
}

/// What a failed handshake says of certificates and settings; `None`: nothing.
fn meaning(error: &rustls::Error) -> Option<&'static str> {
    use AlertDescription as Alert;
    use rustls::Error;
    Some(match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "nobody in `client_ca` vouches for the certificate it has shown"
        }
        Error::InvalidCertificate(_) => "the certificate it has shown is refused",
        Error::NoCertificatesPresented => "it has shown no certificate, and `client_auth` is `required`",
        Error::PeerIncompatible(_) | Error::General(_) => {
            "it speaks no version, or knows no algorithm, that is spoken here"
        }
        Error::AlertReceived(
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA,
        ) => "it does not trust the certificate it was shown",
        Error::AlertReceived(Alert::ProtocolVersion | Alert::HandshakeFailure) => {
            "it does not accept a version or an algorithm that is spoken here"
        }
        _ => return None,
    })
}

/// The certificate that the client has shown, verified.
fn shown(session: &CommonState) -> Option<Rc<ClientCert>> {
    let leaf = session.peer_certificates()?.first()?;
    let certificate = read_certificate(leaf).ok()?;
    Some(Rc::new(ClientCert {
        subject_cn: certificate.subject_cn.map(Into::into),
        san: certificate.san.into_iter().map(Into::into).collect(),
    }))
}
