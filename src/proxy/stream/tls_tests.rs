use super::super::{Kind, Stream};
use super::*;
use proptest::prelude::*;
use rustls::pki_types::PrivateKeyDer;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, SupportedProtocolVersion};
use std::cell::Cell;
use std::time::Duration;
use tokio::net::TcpListener;

type Configs = (Arc<ServerConfig>, Arc<ClientConfig>);

fn configs(version: &'static SupportedProtocolVersion) -> Configs {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    server.ticketer = rustls::crypto::ring::Ticketer::new().unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(server), Arc::new(client))
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (connected, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (connected.unwrap(), accepted.unwrap().0)
}

/// Both ends of a connection: the client's, the server's.
async fn pair((server, client): &Configs) -> (Stream, Stream) {
    let (connected, accepted) = sockets().await;
    let (client, server) = tokio::join!(
        connect(connected, client),
        Tls::accept(accepted, Arc::clone(server), b""),
    );
    (client, Stream::tls(server.unwrap()))
}

/// The client's end, its part of the handshake sent without waiting for something to send with it.
async fn connect(tcp: TcpStream, config: &Arc<ClientConfig>) -> Stream {
    let tls = Tls::connect(tcp, Arc::clone(config), "localhost".try_into().unwrap()).await;
    let stream = Stream::tls(tls.unwrap());
    stream.write_all(&mut [], |_| {}).await.unwrap();
    stream
}

async fn send(stream: &Stream, bytes: &[u8]) {
    stream.write_all(&mut [IoSlice::new(bytes)], |_| {}).await.unwrap();
}

/// Exactly `count` bytes, in reads of at most `limit`.
async fn read(stream: &Stream, count: usize, limit: usize) -> Vec<u8> {
    let (mut bytes, mut buffer) = (Vec::new(), Buffer::default());
    while bytes.len() < count {
        let n = stream.fill(&mut buffer, limit.min(count - bytes.len())).await.unwrap();
        assert!(n > 0, "ended after {} bytes", bytes.len());
        bytes.extend_from_slice(buffer.unread());
        buffer.consume(n);
        buffer.release();
    }
    bytes
}

async fn ends(stream: &Stream) -> io::Result<usize> {
    stream.fill(&mut Buffer::default(), 100).await
}

/// Until the kernel has brought something.
async fn arrived(stream: &Stream) {
    let peek = || {
        let socket = stream.0.borrow();
        socket2::SockRef::from(socket.tcp()).peek(&mut [std::mem::MaybeUninit::uninit()])
    };
    while peek().is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 % 251) as u8).collect()
}

#[tokio::test]
async fn bytes_go_both_ways_at_once() {
    for version in [&TLS12, &TLS13] {
        let (client, server) = pair(&configs(version)).await;
        let (up, down) = (payload(3_000_000), payload(2_000_001));
        let (sent, answered) = tokio::join!(
            async {
                let (_, got) = tokio::join!(send(&client, &up), read(&client, down.len(), BUFFER_BYTES));
                got
            },
            async {
                let (_, got) = tokio::join!(send(&server, &down), read(&server, up.len(), 5000));
                got
            },
        );
        assert!(sent == down && answered == up, "{version:?}");
    }
}

#[tokio::test]
async fn a_connection_that_waits_holds_no_buffer() {
    for version in [&TLS12, &TLS13] {
        let (client, server) = pair(&configs(version)).await;
        for _ in 0..3 {
            send(&client, b"question").await;
            assert_eq!(read(&server, 8, 64).await, b"question");
            send(&server, b"answer").await;
            assert_eq!(read(&client, 6, 64).await, b"answer");
        }
        assert!(client.is_quiet() && server.is_quiet_for_sure());
        for stream in [&client, &server] {
            let Kind::Tls(tls) = &*stream.0.borrow() else { panic!() };
            for buffer in [&tls.incoming, &tls.plain, &tls.unsent] {
                assert_eq!(buffer.held(), 0, "{version:?}");
            }
        }
    }
}

#[tokio::test]
async fn tickets_are_no_news_and_data_and_the_end_are() {
    let configs = configs(&TLS13);
    let (client, server) = pair(&configs).await;
    arrived(&client).await;
    assert!(client.is_quiet_for_sure(), "only tickets have come");
    send(&server, b"x").await;
    arrived(&client).await;
    assert!(!client.is_quiet_for_sure());
    assert!(!client.is_quiet(), "it stays so until it is read");
    assert_eq!(read(&client, 1, 1).await, b"x");
    assert!(client.is_quiet_for_sure());
    drop(server);
    arrived(&client).await;
    assert!(!client.is_quiet_for_sure(), "the end is news");
    assert_eq!(ends(&client).await.unwrap(), 0);
    // The second connection resumes the first one's session.
    let (client, _server) = pair(&configs).await;
    let Kind::Tls(tls) = &*client.0.borrow() else { panic!() };
    assert_eq!(tls.common().handshake_kind(), Some(rustls::HandshakeKind::Resumed));
}

#[tokio::test]
async fn an_end_is_told_from_a_cut() {
    for version in [&TLS12, &TLS13] {
        let configs = configs(version);
        let (client, server) = pair(&configs).await;
        send(&server, b"all of it").await;
        drop(server);
        assert_eq!(read(&client, 9, 64).await, b"all of it");
        assert_eq!(ends(&client).await.unwrap(), 0, "a close is an end");

        let (client, server) = pair(&configs).await;
        server.finish().await.unwrap();
        assert_eq!(ends(&client).await.unwrap(), 0);
        send(&client, b"still here").await;
        assert_eq!(read(&server, 10, 64).await, b"still here", "half of it stays open");

        let (client, server) = pair(&configs).await;
        if let Kind::Tls(tls) = &mut *server.0.borrow_mut() {
            tls.says_farewell(false);
        }
        drop(server);
        assert_eq!(ends(&client).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);

        let (client, server) = pair(&configs).await;
        server.reset_on_close();
        drop(server);
        assert_eq!(ends(&client).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn what_the_peer_does_not_take_is_given_back_and_counted_as_it_goes() {
    let (client, server) = pair(&configs(&TLS13)).await;
    let (piece, accepted) = (payload(64 * 1024), Cell::new(0));
    let mut sent = Vec::new();
    let rest = loop {
        let count = |n| accepted.set(accepted.get() + n);
        let rest = server.write_now(&mut [IoSlice::new(&piece)], count).await.unwrap();
        sent.extend_from_slice(&piece);
        if let Some(rest) = rest {
            break rest;
        }
    };
    assert_eq!(accepted.get() as usize + rest.len(), sent.len());
    let steps = Cell::new(0);
    let ((), got) = tokio::join!(
        async {
            server
                .write_all(&mut [IoSlice::new(&rest)], |_| steps.set(steps.get() + 1))
                .await
                .unwrap()
        },
        read(&client, sent.len(), BUFFER_BYTES),
    );
    assert!(got == sent);
    assert!(steps.get() > 0, "the last bytes were waiting, and their going was told");
}

#[tokio::test]
async fn a_peer_that_breaks_the_protocol_is_told_and_left() {
    let (server, _) = configs(&TLS13);
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0],
        &[0xff; 3000],
    ] {
        let (client, accepted) = sockets().await;
        let (accepted, ()) = tokio::join!(Tls::accept(accepted, Arc::clone(&server), b""), async {
            client.try_write(garbage).unwrap();
            // A record that is not whole: its end must be told.
            client.shutdown_write();
        });
        assert!(accepted.is_err());
        let mut alert = [0; 7];
        let mut client = client;
        let read = tokio::io::AsyncReadExt::read_exact(&mut client, &mut alert).await;
        if garbage[0] != 0x16 {
            read.unwrap();
            assert_eq!((alert[0], alert[5]), (21, 2), "a fatal alert");
        }
    }
}

trait ShutdownWrite {
    fn shutdown_write(&self);
}

impl ShutdownWrite for TcpStream {
    fn shutdown_write(&self) {
        socket2::SockRef::from(self)
            .shutdown(std::net::Shutdown::Write)
            .unwrap();
    }
}

/// The other end is rustls' own buffered connection; keys change under the traffic.
#[tokio::test]
async fn keys_may_change_at_any_time() {
    use std::io::Write as _;
    let (server, client) = configs(&TLS13);
    let (connected, accepted) = sockets().await;
    let peer = std::thread::spawn(move || {
        let socket = connected.into_std().unwrap();
        socket.set_nonblocking(false).unwrap();
        let session = rustls::ClientConnection::new(client, "localhost".try_into().unwrap()).unwrap();
        let mut stream = rustls::StreamOwned::new(session, socket);
        let mut echoed = [0; 20_000];
        for round in 0..20_u8 {
            stream.write_all(&[round; 20_000]).unwrap();
            stream.conn.refresh_traffic_keys().unwrap();
            stream.read_exact(&mut echoed).unwrap();
            assert!(echoed.iter().all(|&byte| byte == round));
        }
        stream.conn.send_close_notify();
        stream.flush().unwrap();
    });
    let stream = Stream::tls(Tls::accept(accepted, server, b"").await.unwrap());
    for _ in 0..20 {
        let bytes = read(&stream, 20_000, BUFFER_BYTES).await;
        send(&stream, &bytes).await;
    }
    assert_eq!(ends(&stream).await.unwrap(), 0);
    peer.join().unwrap();
}

#[tokio::test]
async fn what_was_read_before_the_handshake_is_its_beginning() {
    let (server, client) = configs(&TLS13);
    let (connected, mut accepted) = sockets().await;
    let (client, server) = tokio::join!(connect(connected, &client), async {
        let mut early = [0; 100];
        tokio::io::AsyncReadExt::read_exact(&mut accepted, &mut early)
            .await
            .unwrap();
        Tls::accept(accepted, server, &early).await
    });
    let server = Stream::tls(server.unwrap());
    send(&client, b"hello").await;
    assert_eq!(read(&server, 5, 5).await, b"hello");
}

proptest! {
    #[test]
    fn parts_are_taken_in_order_whatever_their_lengths(
        lengths in prop::collection::vec(0_usize..40, 0..6),
        most in 1_usize..30,
    ) {
        let whole = payload(lengths.iter().sum());
        let mut rest = &whole[..];
        let parts: Vec<IoSlice<'_>> = lengths
            .iter()
            .map(|&length| {
                let (part, others) = rest.split_at(length);
                rest = others;
                IoSlice::new(part)
            })
            .collect();
        let (mut left, mut gathered, mut taken) = (Parts { parts: &parts, at: 0 }, Vec::new(), Vec::new());
        loop {
            let piece = left.take(most, &mut gathered);
            if piece.is_empty() {
                break;
            }
            let before_last = taken.len() + piece.len() < whole.len();
            prop_assert!(piece.len() <= most && (piece.len() == most || !before_last), "{} of {most}", piece.len());
            taken.extend_from_slice(piece);
        }
        prop_assert_eq!(taken, whole);
    }
}
