//! An upstream that keeps the raw bytes of every message it is sent, and answers what it is told to.

use super::reading::{self, Message, Stop};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What arrived, as one message or the rest of a connection that is none.
#[derive(Debug, Clone)]
pub struct Record {
    pub raw: Vec<u8>,
    /// `None`: it was cut, or is no good message.
    pub message: Option<Message>,
    /// Why it is no good message.
    pub fault: Option<&'static str>,
    /// Which connection it came on.
    pub connection: usize,
}

/// What to send back, and whether to close behind it.
#[derive(Clone)]
pub struct Script {
    pub bytes: Vec<u8>,
    pub close: bool,
}

type Answering = dyn Fn(&Message) -> Script + Send + Sync;

pub struct Recorder {
    port: u16,
    records: Arc<Mutex<Vec<Record>>>,
}

impl Recorder {
    pub fn start(answer: impl Fn(&Message) -> Script + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind a recorder");
        let port = listener.local_addr().unwrap().port();
        let records = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&records);
        let answer: Arc<Answering> = Arc::new(answer);
        std::thread::spawn(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                let (Ok(stream), records, answer) = (stream, Arc::clone(&kept), Arc::clone(&answer)) else {
                    continue;
                };
                std::thread::spawn(move || serve(stream, connection, &records, &*answer));
            }
        });
        Self { port, records }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// What arrived since the last call.
    pub fn take(&self) -> Vec<Record> {
        std::mem::take(&mut self.records.lock().unwrap())
    }
}

fn serve(mut stream: TcpStream, connection: usize, records: &Mutex<Vec<Record>>, answer: &Answering) {
    stream.set_nodelay(true).unwrap();
    let mut held = Vec::new();
    let mut chunk = [0; 16 * 1024];
    let keep = |raw: &[u8], message: Option<Message>, fault: Option<&'static str>| {
        let raw = raw.to_vec();
        records.lock().unwrap().push(Record {
            raw,
            message,
            fault,
            connection,
        });
    };
    loop {
        match reading::request(&held) {
            Ok(message) => {
                keep(&held[..message.len], Some(message.clone()), None);
                held.drain(..message.len);
                let script = answer(&message);
                if stream.write_all(&script.bytes).is_err() {
                    break;
                }
                if script.close || !message.keep_alive {
                    stream.shutdown(Shutdown::Write).ok();
                    // Until the peer closes, too: a close with unread bytes would be a reset.
                    while stream.read(&mut chunk).is_ok_and(|read| read > 0) {}
                    return;
                }
            }
            Err(Stop::Malformed(why)) => {
                // Served all the same: whether to forward it was for the front to decide.
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
                    .ok();
                return keep(&held, None, Some(why));
            }
            Err(Stop::Incomplete) => match stream.read(&mut chunk) {
                Ok(read) if read > 0 => held.extend_from_slice(&chunk[..read]),
                _ => break,
            },
        }
    }
    if !held.is_empty() {
        keep(&held, None, None);
    }
}

/// An answer that repeats what was received, framed as the target's `answer=` asks for.
pub fn echo(message: &Message) -> Script {
    let body = [
        format!("{} {} ", message.method, message.target).as_bytes(),
        &message.body,
    ]
    .concat();
    let asked = message.target.split_once("answer=").map_or("", |(_, how)| how);
    let to_head = message.method == "HEAD";
    let mut bytes = match asked {
        "chunked" => b"HTTP/1.1 200 OK\r\nx-answer: yes\r\ntransfer-encoding: chunked\r\n\r\n".to_vec(),
        "close" => b"HTTP/1.1 200 OK\r\nx-answer: yes\r\nconnection: close\r\n\r\n".to_vec(),
        "204" => b"HTTP/1.1 204 No Content\r\nx-answer: yes\r\n\r\n".to_vec(),
        "304" => b"HTTP/1.1 304 Not Modified\r\nx-answer: yes\r\netag: \"a\"\r\n\r\n".to_vec(),
        _ => {
            let status = if asked == "404" { "404 Not Found" } else { "200 OK" };
            format!(
                "HTTP/1.1 {status}\r\nx-answer: yes\r\ncontent-length: {}\r\n\r\n",
                body.len()
            )
            .into_bytes()
        }
    };
    match asked {
        "204" | "304" => {}
        _ if to_head => {}
        "chunked" => {
            for piece in body.chunks(7) {
                bytes.extend(format!("{:x}\r\n", piece.len()).bytes());
                bytes.extend_from_slice(piece);
                bytes.extend(b"\r\n");
            }
            bytes.extend(b"0\r\n\r\n");
        }
        _ => bytes.extend(body),
    }
    Script {
        bytes,
        close: asked == "close",
    }
}
