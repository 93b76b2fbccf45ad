//! Ports that are named before somebody listens there.

use socket2::{Domain, Socket, Type};
use std::net::{SocketAddr, TcpListener};

/// A port of the loopback address that the kernel gives to nobody else while this is held. Connections to it are refused
/// until who is told it listens there, by a socket with SO_REUSEADDR, as all servers do.
pub struct Port(Socket);

impl Port {
    pub fn reserved() -> Self {
        Self(bound(0))
    }

    pub fn number(&self) -> u16 {
        self.0.local_addr().unwrap().as_socket().unwrap().port()
    }

    /// A listener there, of this process.
    pub fn listen(&self) -> TcpListener {
        let socket = bound(self.number());
        socket.listen(1024).expect("listen");
        socket.into()
    }
}

fn bound(port: u16) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket
        .bind(&SocketAddr::from(([127, 0, 0, 1], port)).into())
        .expect("bind");
    socket
}

#[test]
fn a_reserved_port_refuses_until_somebody_listens_and_again_after() {
    use std::net::TcpStream;
    let port = Port::reserved();
    let connect = || TcpStream::connect(("127.0.0.1", port.number())).is_ok();
    for _ in 0..3 {
        assert!(!connect());
        let listener = port.listen();
        assert!(connect());
        drop(listener);
    }
    assert!(!connect());
}
