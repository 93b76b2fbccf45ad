//! Tickets that end with the certificate their client has shown.
//!
//! Who resumes a session shows no certificate anew, and each resumption brings a fresh ticket: without this, one handshake
//! would let a client in for as long as it keeps coming back. Past the certificate's end a ticket counts for nothing, and
//! the full handshake that follows judges what is shown then.

use super::now_s;
use crate::opening::read_certificate;
use rustls::server::ProducesTickets;
use std::sync::Arc;

/// Seals what `sealer` seals, with the end of the certificate in it before it.
#[derive(Debug)]
pub struct Tickets {
    pub sealer: Arc<dyn ProducesTickets>,
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        self.sealer.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.sealer.lifetime()
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        let end_s = end_s(session)?;
        self.sealer.encrypt(&[&end_s.to_be_bytes()[..], session].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let opened = self.sealer.decrypt(ticket)?;
        let (end_s, session) = opened.split_first_chunk()?;
        (now_s() <= i64::from_be_bytes(*end_s)).then(|| session.to_vec())
    }
}

/// When the session's certificate ends, in seconds since the Unix epoch; later than ever without one. `None`: that cannot
/// be told, and there is no ticket.
fn end_s(session: &[u8]) -> Option<i64> {
    match certificate(session)? {
        Some(der) => Some(read_certificate(der).ok()?.not_after_s),
        None => Some(i64::MAX),
    }
}

/// The client's own certificate in a session as rustls 0.23 writes it (`ServerSessionValue` of its `msgs/persist.rs`): the
/// server's name, version, suite, secret, whether that is an extended one, the chain. `None`: it is written otherwise.
fn certificate(session: &[u8]) -> Option<Option<&[u8]>> {
    let rest = match session.split_first()? {
        (0, rest) => rest,
        (1, rest) => behind_short(rest)?,
        _ => return None,
    };
    let rest = behind_short(rest.get(4..)?)?;
    match rest.get(1..)?.split_first()? {
        (0, _) => Some(None),
        (1, chain) => {
            let ([a, b, c], rest) = chain.get(3..)?.split_first_chunk()?;
            let length = u32::from_be_bytes([0, *a, *b, *c]);
            rest.get(..usize::try_from(length).ok()?).map(Some)
        }
        _ => None,
    }
}

/// What follows bytes that have their number, one byte, before them.
fn behind_short(bytes: &[u8]) -> Option<&[u8]> {
    let (&length, rest) = bytes.split_first()?;
    rest.get(usize::from(length)..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair};

    /// A certificate that ends in `seconds` from now.
    fn ending(seconds: i64) -> Vec<u8> {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.not_after =
            (std::time::UNIX_EPOCH + std::time::Duration::from_secs(u64::try_from(now_s() + seconds).unwrap())).into();
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    fn session(name: &[u8], certificate: Option<&[u8]>) -> Vec<u8> {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap().to_be_bytes()[1..].to_vec();
        let chain = certificate.map_or(vec![0], |der| {
            let entry = [&length(der), der].concat();
            [&[1], &length(&entry)[..], &entry].concat()
        });
        [name, &[3, 4, 0x13, 1, 2, 7, 7, 1], &chain, &[0; 20]].concat()
    }

    #[test]
    fn a_ticket_is_good_until_its_certificate_ends() {
        let tickets = Tickets {
            sealer: rustls::crypto::ring::Ticketer::new().unwrap(),
        };
        let again = |certificate: Option<&[u8]>| {
            let session = session(b"\x01\x04shop", certificate);
            let ticket = tickets.encrypt(&session).unwrap();
            tickets.decrypt(&ticket).map(|opened| opened == session)
        };
        assert_eq!(again(None), Some(true));
        assert_eq!(again(Some(&ending(3600))), Some(true));
        assert_eq!(again(Some(&ending(-1))), None);
        assert_eq!(tickets.encrypt(&session(&[0], Some(b"no certificate"))), None);
        assert_eq!(tickets.decrypt(b"nothing of ours"), None);
    }

    #[test]
    fn the_certificate_is_found_with_and_without_a_name() {
        for name in [&b"\x00"[..], b"\x01\x04shop"] {
            assert_eq!(certificate(&session(name, Some(b"leaf"))), Some(Some(&b"leaf"[..])));
            assert_eq!(certificate(&session(name, None)), Some(None));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_decided(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = end_s(&bytes);
        }
    }
}
