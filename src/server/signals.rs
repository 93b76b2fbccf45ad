//! The signals that Rollgate listens to, from before the file is read to the end of the process.

use anyhow::Context;
use nix::sys::signal::Signal;
use std::io;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How often each thing was asked for since the process began: nothing that comes during the start is lost.
#[derive(Clone)]
pub struct Asked {
    /// SIGTERM and SIGINT: stop.
    stops: watch::Receiver<u32>,
    /// SIGHUP: read the file.
    reloads: watch::Receiver<u32>,
    /// SIGUSR2: be replaced by the program as it is now.
    upgrades: watch::Receiver<u32>,
}

impl Asked {
    /// Listens from now on, on a thread that lives as long as the process.
    ///
    /// # Errors
    /// The thread or a handler cannot be had: SIGHUP and SIGUSR2 would end the process.
    pub fn listen() -> anyhow::Result<Self> {
        let (stops_heard, stops) = watch::channel(0);
        let (reloads_heard, reloads) = watch::channel(0);
        let (upgrades_heard, upgrades) = watch::channel(0);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let handlers = || -> io::Result<_> {
            let _here = runtime.enter();
            // Heard so that it does not end the process: a limit of file sizes is a full disk, which writers are told.
            drop(signal(SignalKind::from_raw(Signal::SIGXFSZ as i32))?);
            Ok((
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
                signal(SignalKind::hangup())?,
                signal(SignalKind::user_defined2())?,
            ))
        };
        let (mut terminate, mut interrupt, mut hangup, mut user2) =
            handlers().context("signals cannot be listened to")?;
        let listening = async move {
            loop {
                let heard = tokio::select! {
                    Some(()) = terminate.recv() => &stops_heard,
                    Some(()) = interrupt.recv() => &stops_heard,
                    Some(()) = hangup.recv() => &reloads_heard,
                    Some(()) = user2.recv() => &upgrades_heard,
                    else => return,
                };
                heard.send_modify(|count: &mut u32| *count = count.saturating_add(1));
            }
        };
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || runtime.block_on(listening))
            .context("the thread of signals")?;
        Ok(Self {
            stops,
            reloads,
            upgrades,
        })
    }

    /// No signals, but stops that a test asks for.
    #[cfg(test)]
    pub fn by_test() -> (Self, watch::Sender<u32>) {
        let (stop, stops) = watch::channel(0);
        let (reloads, upgrades) = (stops.clone(), stops.clone());
        let asked = Self {
            stops,
            reloads,
            upgrades,
        };
        (asked, stop)
    }

    /// Waits until it was asked to stop `times` times.
    pub async fn stop(&self, times: u32) {
        if self.stops.clone().wait_for(|&count| count >= times).await.is_err() {
            never_asked().await;
        }
    }

    /// Waits for a reload that was asked for since the last call; several that came together are one.
    pub async fn reload(&mut self) {
        if self.reloads.changed().await.is_err() {
            never_asked().await;
        }
    }

    /// Waits for an upgrade that was asked for since the last call; several that came together are one.
    pub async fn upgrade(&mut self) {
        if self.upgrades.changed().await.is_err() {
            never_asked().await;
        }
    }
}

/// The listening thread has ended.
async fn never_asked() {
    tracing::error!("signals are not listened to any more: stop this process with SIGKILL");
    std::future::pending().await
}
