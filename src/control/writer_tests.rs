use super::*;
use crate::control::assembly::LOOKUP_BOUND;
use crate::control::commands::Commander;
use crate::control::cookie_key::Keeper;
use crate::control::event_log::{Event, EventLog};
use crate::control::file_rule::How;
use crate::control::load;
use crate::control::records::Keep;
use crate::control::resolver::Resolver;
use crate::runtime::{Refusal, Scope, Weights};
use std::collections::BTreeMap;
use std::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant as Virtual, sleep, timeout};

/// A disk that does as it is told; what is on it survives the writer.
#[derive(Clone, Default)]
pub(super) struct Disk(Arc<Mutex<OnDisk>>);

#[derive(Default)]
struct OnDisk {
    state: State,
    events: BTreeMap<u64, Arc<Event>>,
    /// What was handed over and is not there.
    newest: Option<Arc<State>>,
    queue: Vec<Arc<Event>>,
    /// Refuses everything.
    broken: bool,
    /// Time until a write is there.
    takes: Duration,
}

impl Disk {
    pub(super) fn set(&self, broken: bool, takes: Duration) {
        let mut disk = self.0.lock().unwrap();
        (disk.broken, disk.takes) = (broken, takes);
    }

    fn state(&self) -> State {
        self.0.lock().unwrap().state.clone()
    }

    /// Writes what is handed over, if it works.
    fn flush(&self) -> Result<(), String> {
        let mut disk = self.0.lock().unwrap();
        if disk.broken {
            return Err("the disk is full".to_owned());
        }
        if let Some(state) = disk.newest.take() {
            disk.state = State::clone(&state);
        }
        for event in std::mem::take(&mut disk.queue) {
            disk.events.insert(event.seq, event);
        }
        Ok(())
    }
}

impl Keep for Disk {
    fn save(&self, state: Arc<State>, events: Vec<Arc<Event>>) -> Saving {
        let takes = {
            let mut disk = self.0.lock().unwrap();
            disk.newest = Some(state);
            disk.queue.extend(events);
            disk.takes
        };
        let disk = self.clone();
        let writing = tokio::spawn(async move {
            sleep(takes).await;
            disk.flush()
        });
        Box::pin(async move { writing.await.unwrap() })
    }

    fn not_durable(&self) -> Option<String> {
        self.0
            .lock()
            .unwrap()
            .newest
            .is_some()
            .then(|| "the disk is full".to_owned())
    }
}

fn text(weights: &str, kill: bool) -> Arc<str> {
    let (v1, v2) = weights.split_once('/').unwrap();
    format!(
        "listeners: [{{ address: \"127.0.0.1:0\" }}]\nservices:\n  - name: s\n    kill: {kill}\n    versions:\n      - {{ name: \
         v1, weight: {v1}, pool: {{ endpoints: [\"127.0.0.1:1\"] }} }}\n      - {{ name: v2, weight: {v2}, pool: {{ \
         endpoints: [\"127.0.0.1:1\"] }} }}\n"
    )
    .into()
}

/// A writer at work, on files that the test sends and a disk of its own.
pub(super) struct Bench {
    pub(super) shared: Arc<Shared>,
    files: mpsc::Sender<FileEvent>,
    pub(super) commander: Commander,
    pub(super) disk: Disk,
    log: Arc<EventLog>,
    pub(super) asked: mpsc::Receiver<crate::runtime::Ask>,
    task: JoinHandle<Infallible>,
    directory: tempfile::TempDir,
}

impl Bench {
    pub(super) async fn begin(file: Arc<str>, disk: Disk) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rollgate.yaml");
        std::fs::write(&path, &*file).unwrap();
        let started = Arc::new(load::load(&path).unwrap());
        let mut assembly = Assembly::new(1, Arc::new(Resolver::new()), Keeper::new().unwrap());
        let last_seq = disk.0.lock().unwrap().events.keys().last().copied().unwrap_or(0);
        let now = crate::rollout::Now {
            uptime_ms: 0,
            unix_s: 0,
        };
        let change = runtime::apply(&disk.state(), &started, &Command::Restore, &by("file"), now).unwrap();
        let state = Arc::new(change.state);
        let first = assembly
            .next(Arc::clone(&started), Arc::clone(&state), None, LOOKUP_BOUND)
            .await;
        let shared = Arc::new(Shared::new(first, 1));
        shared.reload.lock().unwrap().text = Arc::clone(&file);
        let (files, events) = mpsc::channel(1);
        let (commander, orders) = Commander::new();
        let log = Arc::new(EventLog::new(Vec::new(), last_seq));
        let (asks, asked) = mpsc::channel(100);
        let writer = Writer {
            shared: Arc::clone(&shared),
            assembly,
            health: Arc::new(HealthChecker::new(Arc::clone(&shared))),
            watcher: FileWatcher::spawn(&path, file).unwrap().0,
            path,
            started,
            events,
            orders,
            records: Records::new(state, Arc::new(disk.clone()), Arc::clone(&log)),
            reading: Reading::default(),
            rollouts: Rollouts::new(asks),
        };
        Self {
            shared,
            files,
            commander,
            disk,
            log,
            asked,
            task: tokio::spawn(writer.run()),
            directory,
        }
    }

    async fn new() -> Self {
        Self::begin(text("90/10", false), Disk::default()).await
    }

    /// The process is gone at once, and another begins on what is on the disk and in the file.
    pub(super) async fn crash(self, file: Arc<str>) -> Self {
        self.task.abort();
        // What had not reached the disk never does.
        let on_disk = {
            let mut disk = self.disk.0.lock().unwrap();
            disk.newest = None;
            disk.queue.clear();
            std::mem::take(&mut *disk)
        };
        Self::begin(file, Disk(Arc::new(Mutex::new(on_disk)))).await
    }

    pub(super) async fn order(&self, command: Command) -> Result<Done, NotDone> {
        self.commander.submit(Order::Change(command), by("ada"), None).await
    }

    async fn file(&self, text: Arc<str>) {
        let event = FileEvent::Changed { text, how: How::Atomic };
        self.files.send(event).await.unwrap();
        // Virtual time stands while the text is compiled.
        sleep(Duration::from_millis(10)).await;
    }

    fn live(&self) -> crate::routing::ServiceTraffic {
        self.shared.load().traffic.services[0].clone()
    }

    pub(super) fn weights(&self) -> Vec<u32> {
        self.live().split.weights().to_vec()
    }

    pub(super) fn generation(&self) -> u64 {
        self.shared.load().generation
    }

    fn told(&self) -> Vec<String> {
        let events = self.log.after(0, 1000).unwrap();
        events.iter().map(|event| event.text.clone()).collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn by(who: &str) -> Origin {
    Origin {
        who: who.to_owned(),
        from: "unix".to_owned(),
        at_ms: 0,
        reason: None,
    }
}

fn weights(v1: u32, v2: u32) -> Command {
    let weights: Weights = [("v1".to_owned(), v1), ("v2".to_owned(), v2)].into();
    Command::Weights {
        service: "s".to_owned(),
        weights,
    }
}

pub(super) fn kill() -> Command {
    Command::Kill(Scope::Service("s".to_owned()))
}

pub(super) fn unkill() -> Command {
    Command::Unkill(Scope::Service("s".to_owned()))
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn the_last_text_of_a_source_that_flapped_is_taken_when_it_has_rested() {
    let bench = Bench::new().await;
    for weights in ["-1/1", "2/1", "-1/1", "3/1"] {
        bench.file(text(weights, false)).await;
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(
        bench.generation(),
        2,
        "three changes of verdict: the fourth text is held"
    );
    sleep(Duration::from_secs(40)).await;
    bench.file(text("4/1", false)).await;
    sleep(Duration::from_secs(50)).await;
    assert_eq!(bench.generation(), 2, "it has not rested for long enough");
    assert!(bench.shared.reload.lock().unwrap().error.is_some());
    sleep(Duration::from_secs(20)).await;
    assert_eq!(bench.generation(), 3);
    assert!(bench.shared.reload.lock().unwrap().error.is_none());
    bench.file(text("5/1", false)).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.generation(), 4, "it begins anew");
}

#[tokio::test(start_paused = true)]
async fn an_answer_comes_after_the_change_is_in_force_and_on_the_disk() {
    let bench = Bench::new().await;
    bench.disk.set(false, Duration::from_millis(5));
    let done = bench.order(weights(50, 50)).await.unwrap();
    assert_eq!(
        (bench.weights(), done.generation, done.changed),
        (vec![50, 50], 2, true)
    );
    assert_eq!(done.not_durable, None);
    assert_eq!(
        runtime::traffic(&bench.disk.state(), &bench.shared.load().snapshot).services[0]
            .split
            .weights(),
        [50, 50]
    );
    let again = bench.order(weights(50, 50)).await.unwrap();
    assert_eq!((again.changed, again.generation), (false, 2));
    let stale = bench
        .commander
        .submit(Order::Change(weights(1, 1)), by("ada"), Some(1))
        .await;
    assert!(matches!(
        stale,
        Err(NotDone::Stale {
            expected: 1,
            current: 2
        })
    ));
    assert_eq!(bench.told(), ["s: v1=50 v2=50 (was v1=90 v2=10)"]);
}

#[tokio::test(start_paused = true)]
async fn with_a_broken_disk_a_kill_works_and_says_so_and_a_canary_gets_nothing_more() {
    let bench = Bench::new().await;
    bench.disk.set(true, Duration::ZERO);
    let refused = bench.order(weights(50, 50)).await;
    assert!(
        matches!(&refused, Err(NotDone::NotDurable(why)) if why.contains("full")),
        "{refused:?}"
    );
    assert_eq!((bench.weights(), bench.generation()), (vec![90, 10], 1));
    let less = bench.order(weights(95, 5)).await.unwrap();
    assert!(less.not_durable.unwrap().contains("full"));
    let killed = bench.order(kill()).await.unwrap();
    assert!(killed.not_durable.unwrap().contains("full"));
    assert!(bench.live().killed);
    assert!(matches!(bench.order(unkill()).await, Err(NotDone::NotDurable(_))));
    assert!(bench.live().killed);
    // It works again: what is there is the state as it is, and none of what was refused.
    bench.disk.set(false, Duration::ZERO);
    bench.disk.flush().unwrap();
    assert!(bench.disk.state().service("s").unwrap().kill.is_some());
    assert_eq!(bench.disk.state().service("s").unwrap().weights()["v2"], 5);
    assert!(bench.told()[0].starts_with("not carried out: "), "{:?}", bench.told());
}

#[tokio::test(start_paused = true)]
async fn a_kill_waits_for_no_disk_and_overtakes_what_waits_for_it() {
    let bench = Bench::new().await;
    bench.order(kill()).await.unwrap();
    bench.disk.set(false, HOUR);
    let (unkilled, killed) = tokio::join!(bench.order(unkill()), async {
        sleep(Duration::from_millis(100)).await;
        let asked = Virtual::now();
        let done = bench.order(kill()).await;
        assert!(
            asked.elapsed() < Duration::from_millis(1100),
            "an answer waits a second for the disk at most"
        );
        done
    });
    assert!(
        matches!(unkilled, Err(NotDone::NotDurable(_) | NotDone::Overtaken)),
        "{unkilled:?}"
    );
    assert!(!killed.unwrap().changed, "it was killed already");
    assert!(bench.live().killed);
    bench.disk.flush().unwrap();
    assert!(bench.disk.state().service("s").unwrap().kill.is_some());
}

#[tokio::test(start_paused = true)]
async fn weights_that_wait_for_a_slow_disk_are_off_when_a_kill_comes() {
    let bench = Bench::new().await;
    bench.disk.set(false, Duration::from_millis(500));
    let (set, killed) = tokio::join!(bench.order(weights(50, 50)), async {
        sleep(Duration::from_millis(100)).await;
        bench.order(kill()).await
    });
    assert!(matches!(set, Err(NotDone::Overtaken)), "{set:?}");
    assert_eq!(killed.unwrap().not_durable, None);
    let live = bench.live();
    assert_eq!((live.killed, live.split.weights()), (true, &[90, 10][..]));
    sleep(Duration::from_secs(2)).await;
    assert_eq!(bench.disk.state().service("s").unwrap().weights()["v2"], 10);
    let told = bench.told();
    assert!(told[0].starts_with("not carried out"), "{told:?}");
    assert!(told[1].contains("killed"), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reload_is_answered_with_what_came_of_it() {
    let bench = Bench::new().await;
    let reload = || bench.commander.submit(Order::Reload, by("ada"), None);
    let path = bench.directory.path().join("rollgate.yaml");
    std::fs::write(&path, &*text("70/30", false)).unwrap();
    // The watcher of this bench has no way to the writer: the test passes on what it would say.
    let (done, ()) = tokio::join!(reload(), async {
        sleep(Duration::from_millis(1)).await;
        let event = FileEvent::Changed {
            text: text("70/30", false),
            how: How::Explicit,
        };
        bench.files.send(event).await.unwrap();
    });
    let done = done.unwrap();
    assert_eq!((done.changed, bench.weights()), (true, vec![70, 30]));
    assert!(
        bench.told().iter().any(|line| line.contains("services changed: s")),
        "{:?}",
        bench.told()
    );
    let (refused, ()) = tokio::join!(reload(), async {
        sleep(Duration::from_millis(1)).await;
        let event = FileEvent::Changed {
            text: text("70/-3", false),
            how: How::Explicit,
        };
        bench.files.send(event).await.unwrap();
    });
    assert!(matches!(refused, Err(NotDone::File(_))), "{refused:?}");
    assert_eq!(bench.weights(), [70, 30]);
    // What is in force already makes nobody's knowledge stale.
    let (again, ()) = tokio::join!(reload(), async {
        sleep(Duration::from_millis(1)).await;
        let event = FileEvent::Changed {
            text: text("70/30", false),
            how: How::Explicit,
        };
        bench.files.send(event).await.unwrap();
    });
    let again = again.unwrap();
    assert_eq!((again.changed, again.generation), (false, done.generation));
    assert_eq!(bench.shared.load().generation, done.generation);
}

#[tokio::test(start_paused = true)]
async fn a_change_for_all_services_names_the_evidence_of_each() {
    let bench = Bench::new().await;
    bench.order(Command::Kill(Scope::All)).await.unwrap();
    bench.order(Command::Unkill(Scope::All)).await.unwrap();
    bench.file(text("70/30", false)).await;
    let events = bench.log.after(0, 1000).unwrap();
    let of_all: Vec<_> = events.iter().filter(|event| event.service.is_none()).collect();
    assert_eq!(of_all.len(), 3, "{events:?}");
    for event in of_all {
        assert_eq!(event.evidence["s"]["v2"]["requests"], 0, "{event:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn while_another_process_takes_over_only_a_kill_is_in_force_and_rings() {
    let bench = Bench::new().await;
    bench.commander.freeze().await;
    assert!(matches!(bench.order(weights(50, 50)).await, Err(NotDone::Stopping(_))));
    bench.file(text("1/1", false)).await;
    assert_eq!(bench.weights(), [90, 10]);
    let (killed, ()) = tokio::join!(bench.order(kill()), async {
        bench.commander.overruled().await;
        assert!(bench.live().killed);
        sleep(Duration::from_secs(5)).await;
        bench.commander.thaw().await;
    });
    assert_eq!(killed.unwrap().not_durable, None);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.weights(), [1, 1], "the file is looked at again");
    assert!(bench.live().killed);
}

/// What should be in force, as far as the answers say.
#[derive(Clone, Debug)]
struct Model {
    file: (u32, u32, bool),
    /// Weights that may be in force: those of the file, those set, and those whose fate is not known.
    weights: Vec<Vec<u32>>,
    /// Whether the command's latch is on; `None`: a crash left that open.
    latched: Option<bool>,
    /// The same, on the disk.
    kept_latch: Option<bool>,
    kept_weights: Vec<Vec<u32>>,
}

impl Model {
    fn answered(&mut self, command: &Command, outcome: &Result<Done, NotDone>) {
        let durable = matches!(outcome, Ok(Done { not_durable: None, .. }));
        match (command, outcome) {
            (Command::Kill(_), Ok(_)) => self.latched = Some(true),
            (Command::Unkill(_), Ok(_)) => self.latched = Some(false),
            (Command::Weights { weights, .. }, Ok(_)) => self.weights = vec![weights.values().copied().collect()],
            // It may be on the disk until something else gets there.
            (Command::Unkill(_), Err(NotDone::NotDurable(_) | NotDone::Overtaken)) => self.kept_latch = None,
            (Command::Weights { weights, .. }, Err(NotDone::NotDurable(_) | NotDone::Overtaken)) => {
                self.kept_weights.push(weights.values().copied().collect());
            }
            _ => {}
        }
        if durable {
            self.kept_latch = self.latched;
            self.kept_weights = self.weights.clone();
        } else if outcome.is_ok() {
            // It may get there by itself.
            self.kept_weights.extend(self.weights.clone());
            self.kept_latch = if self.kept_latch == self.latched {
                self.latched
            } else {
                None
            };
        }
    }
}

/// Random files, orders, disks and crashes: a killed service sends nothing to its canary, weights in force are those that
/// somebody set, and what was answered as durable is there after a crash.
#[tokio::test(start_paused = true)]
async fn seeded_histories_keep_the_invariants() {
    for seed in 0..60 {
        history(seed).await;
    }
}

async fn history(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut model = Model {
        file: (90, 10, false),
        weights: vec![vec![90, 10]],
        latched: Some(false),
        kept_latch: Some(false),
        kept_weights: vec![vec![90, 10]],
    };
    let text_of = |(v1, v2, kill): (u32, u32, bool)| text(&format!("{v1}/{v2}"), kill);
    let mut bench = Bench::new().await;
    for step in 0..40 {
        match random.u32(0..10) {
            0 => bench
                .disk
                .set(random.bool(), Duration::from_millis(random.u64(0..1500))),
            1 | 2 => {
                let old = model.file;
                model.file = (random.u32(1..4), random.u32(0..3), random.u32(0..4) == 0);
                bench.file(text_of(model.file)).await;
                if (old.0, old.1) != (model.file.0, model.file.1) {
                    model.weights = vec![vec![model.file.0, model.file.1]];
                }
                // After a crash the file is loaded again: it wins over what was kept under another file.
                model.kept_weights.extend(model.weights.clone());
            }
            3 => {
                // The disk may yet have written what it was given: let it, or not.
                if random.bool() {
                    sleep(Duration::from_secs(5)).await;
                }
                let caught_up = bench.disk.0.lock().unwrap().newest.is_none();
                bench = bench.crash(text_of(model.file)).await;
                if !caught_up {
                    model.weights = model.kept_weights.clone();
                    model.weights.push(vec![model.file.0, model.file.1]);
                    model.latched = model.kept_latch;
                }
            }
            4 => {
                // An order toward the canary, and a kill on its heels.
                let command = if random.bool() {
                    unkill()
                } else {
                    weights(random.u32(1..5), random.u32(1..5))
                };
                let delay = Duration::from_millis(random.u64(0..300));
                let (first, second) = tokio::join!(bench.order(command.clone()), async {
                    sleep(delay).await;
                    bench.order(kill()).await
                });
                let mut both = [(command, first), (kill(), second)];
                both.sort_by_key(|(_, outcome)| outcome.as_ref().map_or(0, |done| done.generation));
                both.iter()
                    .for_each(|(command, outcome)| model.answered(command, outcome));
            }
            _ => {
                let command = match random.u32(0..4) {
                    0 => kill(),
                    1 => unkill(),
                    _ => weights(random.u32(0..5), random.u32(0..5)),
                };
                let outcome = timeout(Duration::from_secs(5), bench.order(command.clone()))
                    .await
                    .unwrap();
                if let Err(NotDone::Refused(refusal)) = &outcome {
                    let known = matches!(refusal, Refusal::NoWeight | Refusal::KilledByFile { .. });
                    assert!(known, "{refusal:?}");
                }
                model.answered(&command, &outcome);
            }
        }
        let live = bench.live();
        let label = format!("seed {seed}, step {step}: {model:?}, {live:?}");
        if model.file.2 || model.latched == Some(true) {
            assert!(live.killed, "{label}");
        } else if model.latched == Some(false) {
            assert!(!live.killed, "{label}");
        }
        assert!(model.weights.contains(&live.split.weights().to_vec()), "{label}");
        if model.weights.len() > 1 {
            model.weights = vec![live.split.weights().to_vec()];
        }
        if model.latched.is_none() && !model.file.2 {
            model.latched = Some(live.killed);
        }
    }
    // Left alone with a good disk, everything gets there.
    bench.disk.set(false, Duration::ZERO);
    bench.order(kill()).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    bench.disk.flush().unwrap();
    let snapshot = Arc::clone(&bench.shared.load().snapshot);
    let kept = runtime::traffic(&bench.disk.state(), &snapshot);
    let (kept, live) = (&kept.services[0], bench.live());
    assert_eq!(
        (kept.killed, kept.epoch, &kept.split),
        (live.killed, live.epoch, &live.split),
        "seed {seed}"
    );
}
