//! People who use what the demo delivers: about 200 requests a second, each of another user.

use axum::http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::sleep;

/// Users at the same time, each on a connection of its own.
const USERS: usize = 20;

/// Between two requests of each.
const PAUSE: Duration = Duration::from_millis(100);

/// What they have seen.
#[derive(Default)]
pub struct Users {
    answers: AtomicU64,
    errors: AtomicU64,
}

type Sender = SendRequest<Empty<Bytes>>;

impl Users {
    /// Begins to ask `proxy`, as soon as it listens, until the process ends.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(proxy: SocketAddr) -> std::io::Result<Arc<Self>> {
        let users = Arc::new(Self::default());
        let seen = Arc::clone(&users);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new()
            .name("demo-users".to_owned())
            .spawn(move || {
                runtime.block_on(async move {
                    let mut tasks = tokio::task::JoinSet::new();
                    for _ in 0..USERS {
                        tasks.spawn(Arc::clone(&seen).use_it(proxy));
                    }
                    tasks.join_all().await;
                });
            })?;
        Ok(users)
    }

    /// Answers that came, and how many of them were errors.
    pub fn seen(&self) -> (u64, u64) {
        (
            self.answers.load(Ordering::Relaxed),
            self.errors.load(Ordering::Relaxed),
        )
    }

    async fn use_it(self: Arc<Self>, proxy: SocketAddr) {
        let mut connection = None;
        loop {
            sleep(PAUSE).await;
            if connection.is_none() {
                connection = connect(proxy).await;
            }
            let Some(sender) = &mut connection else { continue };
            match ask(sender, proxy).await {
                Some(status) => self.count(status),
                None => connection = None,
            }
        }
    }

    fn count(&self, status: StatusCode) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        if !status.is_success() {
            self.errors.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// `None`: it does not listen yet, or not any more.
async fn connect(proxy: SocketAddr) -> Option<Sender> {
    let stream = TcpStream::connect(proxy).await.ok()?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    Some(sender)
}

/// `None`: the connection has ended.
async fn ask(sender: &mut Sender, proxy: SocketAddr) -> Option<StatusCode> {
    let request = Request::get("/")
        .header("host", proxy.to_string())
        .header("x-user-id", fastrand::u64(..).to_string())
        .body(Empty::new())
        .ok()?;
    sender.ready().await.ok()?;
    let answer = sender.send_request(request).await.ok()?;
    let status = answer.status();
    answer.into_body().collect().await.ok()?;
    Some(status)
}
