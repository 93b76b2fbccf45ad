//! From a text to a snapshot that can be put in force: everything slow about it, off the writer's
//! task, which must be free for a kill switch at any moment.

use super::assembly::LOOKUP_BOUND;
use super::commands::{Envelope, NotDone};
use super::load::{self, LoadError};
use super::resolver::Resolver;
use super::stamp::Stamp;
use super::tls::{LOOK_EVERY, Look, Stamps, TlsFiles, judge};
use crate::config::Snapshot;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::task::JoinHandle;

/// A text that can be put in force.
pub struct Prepared {
    pub text: Arc<str>,
    pub snapshot: Arc<Snapshot>,
}

/// One load at a time, and what came meanwhile.
#[derive(Default)]
pub struct Loading {
    running: Option<Run>,
    /// The last text that came meanwhile, and who asked for it or for one before it.
    waiting: Option<(Arc<str>, Vec<Envelope>)>,
}

struct Run {
    text: Arc<str>,
    task: JoinHandle<Result<Prepared, NotDone>>,
    asked: Vec<Envelope>,
}

impl Loading {
    /// `text` is to be loaded, unless a later one comes before its turn: who asked is then answered by that one.
    pub fn add(&mut self, text: Arc<str>, asked: Vec<Envelope>) {
        let mut all = self.waiting.take().map(|(_, asked)| asked).unwrap_or_default();
        all.extend(asked);
        self.waiting = Some((text, all));
    }

    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Begins what waits, if nothing is under way.
    pub fn begin(&mut self, path: &Path, resolver: &Arc<Resolver>, tls: &Arc<TlsFiles>) {
        if self.running.is_some() {
            return;
        }
        if let Some((text, asked)) = self.waiting.take() {
            let prepared = prepare(
                path.to_owned(),
                Arc::clone(&text),
                Arc::clone(resolver),
                Arc::clone(tls),
            );
            let task = tokio::spawn(prepared);
            self.running = Some(Run { text, task, asked });
        }
    }

    /// What came of the load under way. Never ready when there is none. Nothing is lost when this is dropped.
    pub async fn finished(&mut self) -> Finished {
        let Some(run) = &mut self.running else {
            return std::future::pending().await;
        };
        let outcome = (&mut run.task).await;
        let outcome = outcome.unwrap_or_else(|error| Err(NotDone::RefusesToRun(format!("loading the file: {error}"))));
        let lacking = Lacking::of(&run.text, &outcome);
        let asked = self.running.take().map(|run| run.asked).unwrap_or_default();
        Finished {
            outcome,
            asked,
            lacking,
        }
    }
}

/// A load that is over.
pub struct Finished {
    pub outcome: Result<Prepared, NotDone>,
    /// Who asked for it; nobody: the watcher did.
    pub asked: Vec<Envelope>,
    pub lacking: Option<Lacking>,
}

/// A text that files it names stand against: certificates are often made after the configuration that wants them. They are
/// looked at until it is dropped.
pub struct Lacking {
    text: Arc<str>,
    looking: JoinHandle<()>,
}

impl Lacking {
    fn of(text: &Arc<str>, outcome: &Result<Prepared, NotDone>) -> Option<Self> {
        let Err(NotDone::File(LoadError::Invalid { file, named, .. })) = outcome else {
            return None;
        };
        let (files, judged): (Vec<PathBuf>, Stamps) = named.iter().cloned().unzip();
        (!files.is_empty()).then(|| Self {
            text: Arc::clone(text),
            looking: tokio::spawn(changed(file.clone(), Arc::clone(text), files.into(), judged)),
        })
    }

    /// The text, once its files are others and have rested. Never ready without one. Nothing is lost when this is dropped.
    pub async fn has_changed(lacking: &mut Option<Self>) -> Arc<str> {
        let Some(one) = lacking else {
            return std::future::pending().await;
        };
        // Broken off is over, too: another try tells.
        let _ = (&mut one.looking).await;
        let text = Arc::clone(&one.text);
        *lacking = None;
        text
    }
}

impl Drop for Lacking {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

/// Until the files are others than those that were judged, and have been for one look, and `text` is still what is in `config`:
/// of another one the watcher tells, which may be about to.
async fn changed(config: PathBuf, text: Arc<str>, files: Arc<[PathBuf]>, judged: Stamps) {
    let mut seen = judged.clone();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let (config, text, files) = (config.clone(), Arc::clone(&text), Arc::clone(&files));
        // On a thread that may wait for a disk.
        let look = move || {
            let now: Stamps = files.iter().map(|file| Stamp::at(file)).collect();
            let is_there = std::fs::read(config).is_ok_and(|bytes| *bytes == *text.as_bytes());
            (now, is_there)
        };
        let Ok((now, is_there)) = tokio::task::spawn_blocking(look).await else {
            return;
        };
        if is_there && judge(&judged, &seen, &now) == Look::Read {
            return;
        }
        seen = now;
    }
}

/// Compiles and checks `text`, and looks up the names that it brings, [`LOOKUP_BOUND`] at the longest.
async fn prepare(
    path: PathBuf,
    text: Arc<str>,
    resolver: Arc<Resolver>,
    tls: Arc<TlsFiles>,
) -> Result<Prepared, NotDone> {
    // A file of ten thousand services is worth milliseconds, and the files it names are on a disk.
    let compiled = tokio::task::spawn_blocking(move || compile(&path, text, &tls)).await;
    let broken = |error| Err(NotDone::RefusesToRun(format!("compiling the file: {error}")));
    let prepared = compiled.unwrap_or_else(broken)?;
    resolver.resolve_all(&prepared.snapshot, LOOKUP_BOUND).await;
    Ok(prepared)
}

fn compile(path: &Path, text: Arc<str>, tls: &TlsFiles) -> Result<Prepared, NotDone> {
    let snapshot = load::compile_beside(path, text.as_bytes(), tls)?;
    match load::refused(path, &snapshot) {
        Some(refused) => Err(NotDone::RefusesToRun(refused)),
        None => Ok(Prepared {
            text,
            snapshot: Arc::new(snapshot),
        }),
    }
}
