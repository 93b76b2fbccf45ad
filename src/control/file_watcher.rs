//! Tells when the configuration file has a new text that [`super::file_rule`] lets through.
//!
//! The file is watched by its directory, and by the directory of every link on the way to it, so that a rename over
//! it, an editor's save and a Kubernetes `..data` swap are seen; a poll covers lost watches and file systems without
//! events. What counts is the content: a touched file is no change. Everything happens on one thread of its own.

use super::file_rule::{Candidate, How, Verdict, judge};
use super::stamp::Stamp;
use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Bytes of the file that are read at most; a text longer than 1 MiB is handed on so that its loader can refuse it.
const READ_MAX: u64 = (1 << 20) + 4;
/// How often the file is looked at without any event.
const POLL: Duration = Duration::from_secs(5);
/// How often while the file cannot be read or a directory cannot be watched.
const POLL_TROUBLED: Duration = Duration::from_millis(500);
/// How long a file may be gone before that is worth an event: an editor's save removes it for a moment.
const GONE_FOR: Duration = Duration::from_secs(1);
/// Links followed on the way to the file (as the kernel does), and events that may wait for the consumer.
const LINKS_MAX: usize = 40;
const EVENTS_MAX: usize = 4;

/// Something the owner of the configuration should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileEvent {
    /// The file has this text. After trouble it may be the text in force.
    Changed { text: Arc<str>, how: How },
    /// The file cannot be read, or is no text. Told once for each state.
    Unreadable { error: String },
    /// The file has a new text that looks like the beginning of another: not taken unless asked for. Told once a text.
    Withheld { reason: String },
}

/// A running watch; it ends when this is dropped.
pub struct FileWatcher {
    signals: Arc<Signals>,
    in_force: Arc<Mutex<Arc<str>>>,
}

impl FileWatcher {
    /// Watches `path`, whose text was `in_force` when it was loaded. Events come through a bounded channel; a slow
    /// receiver gets the latest state, not every one between.
    ///
    /// # Errors
    /// When the working directory is unknown or no thread can be started. A file or directory that cannot be watched
    /// is no error: it is polled.
    pub fn spawn(path: &Path, in_force: Arc<str>) -> io::Result<(Self, mpsc::Receiver<FileEvent>)> {
        let path = std::path::absolute(path)?;
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        let signals = Arc::new(Signals::default());
        let handle = Self {
            signals: Arc::clone(&signals),
            in_force: Arc::new(Mutex::new(Arc::clone(&in_force))),
        };
        let watch = Watch::new(path, signals, in_force, Arc::clone(&handle.in_force), sender);
        std::thread::Builder::new()
            .name("config-watch".into())
            .spawn(move || watch.run())?;
        Ok((handle, receiver))
    }

    /// Reads the file now and hands its text on whatever it is: SIGHUP, `rollgate reload`. Answered by a `Changed`
    /// with [`How::Explicit`] or an `Unreadable`.
    pub fn reload(&self) {
        self.signals.raise(|raised| raised.explicit = true);
    }

    /// Says that `text` is now the configuration in force: what later texts are compared with.
    pub fn set_in_force(&self, text: Arc<str>) {
        *lock(&self.in_force) = text;
        self.signals.raise(|_| {});
    }
}

impl Drop for FileWatcher {
    fn drop(&mut self) {
        self.signals.raise(|raised| raised.stop = true);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What happened since the thread last looked.
#[derive(Debug, Default)]
struct Raised {
    awake: bool,
    stop: bool,
    explicit: bool,
    /// Events were lost, or a watched directory went away: every watch is set anew.
    lost: bool,
    /// The last change of the file itself, where one was seen.
    change: Option<How>,
    /// Whether the file's writer has it open, where that was seen to change.
    writer_open: Option<bool>,
}

#[derive(Default)]
struct Signals {
    raised: Mutex<Raised>,
    bell: Condvar,
    watched: Mutex<Names>,
}

/// The directories watched, and the paths in them that matter.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Names {
    directories: BTreeSet<PathBuf>,
    files: BTreeSet<PathBuf>,
}

impl Signals {
    fn raise(&self, change: impl FnOnce(&mut Raised)) {
        let mut raised = lock(&self.raised);
        change(&mut raised);
        raised.awake = true;
        drop(raised);
        self.bell.notify_one();
    }

    /// Waits for a signal, at most until `deadline`.
    fn wait(&self, deadline: Instant) -> Raised {
        let mut raised = lock(&self.raised);
        while !raised.awake {
            let rest = deadline.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                break;
            }
            raised = self
                .bell
                .wait_timeout(raised, rest)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        std::mem::take(&mut raised)
    }

    /// Called by the watching library, for everything that happens in the directories.
    fn note(&self, event: notify::Result<Event>) {
        let Ok(event) = event else {
            return self.raise(|raised| raised.lost = true);
        };
        if event.need_rescan() {
            return self.raise(|raised| raised.lost = true);
        }
        let names = lock(&self.watched);
        // Of a rename with both its names, the last path is where the file is now.
        let Some(path) = event.paths.last() else { return };
        let (file, directory) = (names.files.contains(path), names.directories.contains(path));
        let left = event.paths.first().is_some_and(|path| names.files.contains(path));
        drop(names);
        if directory
            && matches!(
                event.kind,
                EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_))
            )
        {
            return self.raise(|raised| raised.lost = true);
        }
        if !file {
            if left {
                self.raise(|_| {});
            }
            return;
        }
        match event.kind {
            EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both)) => self.raise(|raised| {
                raised.change = Some(How::Atomic);
                raised.writer_open = Some(false);
            }),
            EventKind::Modify(ModifyKind::Data(_)) => self.raise(|raised| {
                raised.change = Some(How::InPlace);
                raised.writer_open = Some(true);
            }),
            EventKind::Create(_) => self.raise(|raised| raised.change = Some(How::InPlace)),
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
                self.raise(|raised| raised.writer_open = Some(false));
            }
            EventKind::Access(_) => {}
            _ => self.raise(|_| {}),
        }
    }
}

/// What was found when the file was last looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    Text {
        stamp: Stamp,
        text: Arc<str>,
    },
    /// It changed while it was being read.
    Moving,
    Error(String),
}

/// Opens and reads the file, following links.
fn look(path: &Path) -> Found {
    let read = || -> io::Result<Found> {
        // Before it is opened: opening a pipe waits for its writer.
        if !fs::metadata(path)?.is_file() {
            return Ok(Found::Error("not a regular file".into()));
        }
        let file = File::open(path)?;
        let before = file.metadata()?;
        if !before.is_file() {
            return Ok(Found::Error("not a regular file".into()));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(before.len().min(READ_MAX)).unwrap_or(0));
        (&file).take(READ_MAX).read_to_end(&mut bytes)?;
        // The name may mean another file by now: what it means is what counts.
        if Stamp::of(&fs::metadata(path)?) != Stamp::of(&before) {
            return Ok(Found::Moving);
        }
        Ok(match into_text(bytes) {
            Ok(text) => Found::Text {
                stamp: Stamp::of(&before),
                text: text.into(),
            },
            Err(error) => Found::Error(error),
        })
    };
    read().unwrap_or_else(|error| Found::Error(error.to_string()))
}

fn into_text(bytes: Vec<u8>) -> Result<String, String> {
    let full = bytes.len() as u64 == READ_MAX;
    String::from_utf8(bytes).or_else(|error| {
        let valid = error.utf8_error().valid_up_to();
        // The bound on reading may have cut the last character; the text stays too long to be loaded.
        if !(full && error.utf8_error().error_len().is_none()) {
            return Err(format!("not UTF-8 at byte {valid}"));
        }
        let mut bytes = error.into_bytes();
        bytes.truncate(valid);
        String::from_utf8(bytes).map_err(|error| error.to_string())
    })
}

/// The thread's own state.
struct Watch {
    path: PathBuf,
    signals: Arc<Signals>,
    events: mpsc::Sender<FileEvent>,
    in_force: Arc<Mutex<Arc<str>>>,
    directories: Directories,
    found: Found,
    /// When `found` was first seen as it is.
    since: Instant,
    how: How,
    writer_open: bool,
    /// The last text handed on, and when the first change after it was seen.
    told: Arc<str>,
    pending_since: Option<Instant>,
    trouble: Trouble,
}

/// What the consumer was last told instead of a text.
#[derive(Debug, PartialEq, Eq)]
enum Trouble {
    None,
    Unreadable(String),
    Withheld(Arc<str>),
}

impl Watch {
    fn new(
        path: PathBuf,
        signals: Arc<Signals>,
        told: Arc<str>,
        in_force: Arc<Mutex<Arc<str>>>,
        events: mpsc::Sender<FileEvent>,
    ) -> Self {
        Self {
            path,
            signals,
            events,
            in_force,
            directories: Directories::default(),
            found: Found::Moving,
            since: Instant::now(),
            how: How::InPlace,
            writer_open: false,
            told,
            pending_since: None,
            trouble: Trouble::None,
        }
    }

    fn run(mut self) {
        let mut raised = Raised {
            lost: true,
            ..Raised::default()
        };
        loop {
            if raised.stop || self.events.is_closed() {
                return;
            }
            // Before the look: what changes after the look is then heard of.
            self.directories.follow(&self.path, raised.lost, &self.signals);
            self.hear(&raised);
            self.observe();
            let (event, wait) = self.step(raised.explicit);
            if let Some(event) = event
                && self.events.blocking_send(event).is_err()
            {
                return;
            }
            raised = self.signals.wait(Instant::now() + wait);
        }
    }

    fn hear(&mut self, raised: &Raised) {
        if let Some(how) = raised.change {
            self.how = how;
        }
        if let Some(open) = raised.writer_open {
            self.writer_open = open;
        }
    }

    fn observe(&mut self) {
        let found = look(&self.path);
        if found != self.found || found == Found::Moving {
            self.found = found;
            self.since = Instant::now();
        }
    }

    /// What to tell, and how long to wait for the next look.
    fn step(&mut self, explicit: bool) -> (Option<FileEvent>, Duration) {
        match self.found.clone() {
            Found::Moving => {
                if explicit {
                    self.signals.raise(|raised| raised.explicit = true);
                }
                (None, Duration::from_millis(5))
            }
            Found::Error(error) => self.step_error(error, explicit),
            Found::Text { text, .. } => self.step_text(text, explicit),
        }
    }

    fn step_error(&mut self, error: String, explicit: bool) -> (Option<FileEvent>, Duration) {
        let trouble = Trouble::Unreadable(error.clone());
        if !explicit {
            if self.trouble == trouble {
                return (None, POLL_TROUBLED);
            }
            let rest = GONE_FOR.saturating_sub(self.since.elapsed());
            if !rest.is_zero() {
                return (None, rest.min(POLL_TROUBLED));
            }
        }
        self.trouble = trouble;
        (Some(FileEvent::Unreadable { error }), POLL_TROUBLED)
    }

    fn step_text(&mut self, text: Arc<str>, explicit: bool) -> (Option<FileEvent>, Duration) {
        let rest = if self.directories.blind { POLL_TROUBLED } else { POLL };
        if !explicit && text == self.told && self.trouble == Trouble::None {
            (self.pending_since, self.how) = (None, How::InPlace);
            return (None, rest);
        }
        let in_force = Arc::clone(&lock(&self.in_force));
        let verdict = judge(&Candidate {
            in_force: &in_force,
            text: &text,
            how: if explicit { How::Explicit } else { self.how },
            stable: self.since.elapsed(),
            pending: self.pending_since.get_or_insert_with(Instant::now).elapsed(),
            writer_open: self.writer_open,
        });
        match verdict {
            Verdict::Wait(wait) => (None, wait),
            Verdict::Take => {
                let how = if explicit { How::Explicit } else { self.how };
                (self.told, self.trouble, self.pending_since) = (Arc::clone(&text), Trouble::None, None);
                // A change that is noticed without being heard of counts as written in place.
                self.how = How::InPlace;
                (Some(FileEvent::Changed { text, how }), rest)
            }
            Verdict::Refuse(suspicion) => {
                self.pending_since = None;
                if self.trouble == Trouble::Withheld(Arc::clone(&text)) {
                    return (None, rest);
                }
                self.trouble = Trouble::Withheld(text);
                let reason = format!(
                    "{}: it may be half written and is not used; to use it as it is, send SIGHUP or run `rollgate reload`, \
                     or rename a complete file over it",
                    suspicion.as_str()
                );
                (Some(FileEvent::Withheld { reason }), rest)
            }
        }
    }
}

/// The watches on directories: those of the file and of every link on the way to it.
#[derive(Default)]
struct Directories {
    watcher: Option<RecommendedWatcher>,
    /// Each watched directory, and which one it was: another of the same name needs another watch.
    watched: BTreeMap<PathBuf, (u64, u64)>,
    /// Something on the way cannot be watched: look more often.
    blind: bool,
}

impl Directories {
    fn follow(&mut self, path: &Path, anew: bool, signals: &Arc<Signals>) {
        let names = names_on_the_way(path);
        if anew || self.watcher.is_none() {
            self.watched.clear();
            let heard = Arc::clone(signals);
            self.watcher = notify::recommended_watcher(move |event| heard.note(event)).ok();
        }
        let Some(watcher) = &mut self.watcher else {
            self.blind = true;
            return;
        };
        if *lock(&signals.watched) != names {
            lock(&signals.watched).clone_from(&names);
        }
        self.blind = false;
        let mut kept = BTreeMap::new();
        for directory in names.directories {
            let Ok(identity) = identity(&directory) else {
                self.blind = true;
                continue;
            };
            let known = self.watched.remove(&directory);
            if known != Some(identity) {
                if known.is_some() {
                    // Fails when the watch went with its directory.
                    watcher.unwatch(&directory).ok();
                }
                if watcher.watch(&directory, RecursiveMode::NonRecursive).is_err() {
                    self.blind = true;
                    continue;
                }
            }
            kept.insert(directory, identity);
        }
        for left in self.watched.keys() {
            watcher.unwatch(left).ok();
        }
        self.watched = kept;
    }
}

fn identity(directory: &Path) -> io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(directory)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Resolves an absolute `path` step by step: every link met on the way, and the file at the end, each with its directory.
fn names_on_the_way(path: &Path) -> Names {
    let mut names = Names::default();
    let mut note = |path: &Path| {
        names.directories.extend(path.parent().map(Path::to_path_buf));
        names.files.insert(path.to_path_buf());
    };
    let mut at = PathBuf::from("/");
    let mut rest: Vec<PathBuf> = steps(path);
    let mut links = 0;
    while let Some(step) = rest.pop() {
        if step.as_os_str() == ".." {
            at.pop();
            continue;
        }
        at.push(step);
        match fs::read_link(&at) {
            Ok(target) if links < LINKS_MAX => {
                links += 1;
                note(&at);
                if target.is_absolute() {
                    at = PathBuf::from("/");
                } else {
                    at.pop();
                }
                rest.extend(steps(&target));
            }
            _ if rest.is_empty() => note(&at),
            _ => {}
        }
    }
    names
}

/// The parts of a path, the first one last.
fn steps(path: &Path) -> Vec<PathBuf> {
    let step = |part: Component<'_>| match part {
        Component::Normal(name) => Some(PathBuf::from(name)),
        Component::ParentDir => Some(PathBuf::from("..")),
        _ => None,
    };
    path.components().rev().filter_map(step).collect()
}

#[cfg(test)]
#[path = "file_watcher_tests.rs"]
mod tests;
