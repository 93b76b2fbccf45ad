use super::*;
use std::io::Write;
use std::os::unix::fs::symlink;

/// How long an event may take that must come: long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long most events may take: what is said of all of them on a machine that is not busy.
const SEEN_WITHIN: Duration = Duration::from_secs(2);
/// How many times as long as a file settles, on this machine now, its event may take: 120 ms where nothing else runs, the
/// watcher's part of the 250 ms between an atomic write and the first request routed the new way.
const ATOMIC_WITHIN_SETTLES: u32 = 6;

fn config(weight: usize) -> String {
    format!(
        "services:\n  - name: shop\n    weight: {weight}\n    pool:\n      - 127.0.0.1:9001\n    fallback: stable\n"
    )
}

struct Bench {
    directory: tempfile::TempDir,
    path: PathBuf,
    watcher: FileWatcher,
    events: mpsc::Receiver<FileEvent>,
}

impl Bench {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rollgate.yaml");
        fs::write(&path, config(0)).unwrap();
        Self::watching(directory, path)
    }

    fn watching(directory: tempfile::TempDir, path: PathBuf) -> Self {
        let (watcher, events) = FileWatcher::spawn(&path, fs::read_to_string(&path).unwrap().into()).unwrap();
        let mut bench = Self {
            directory,
            path,
            watcher,
            events,
        };
        // One explicit reload: its answer says that the watch is set.
        bench.watcher.reload();
        bench.expect(&config(0));
        bench
    }

    /// The next event, which must come.
    fn event(&mut self) -> FileEvent {
        self.next(PATIENCE).expect("an event comes")
    }

    /// Events up to the first that is `wanted`.
    fn until(&mut self, wanted: impl Fn(&FileEvent) -> bool) -> FileEvent {
        loop {
            let event = self.event();
            if wanted(&event) {
                return event;
            }
        }
    }

    /// The next event.
    fn next(&mut self, within: Duration) -> Option<FileEvent> {
        let deadline = Instant::now() + within;
        loop {
            match self.events.try_recv() {
                Ok(event) => return Some(event),
                Err(mpsc::error::TryRecvError::Disconnected) => panic!("the watcher ended"),
                Err(mpsc::error::TryRecvError::Empty) if Instant::now() > deadline => return None,
                Err(mpsc::error::TryRecvError::Empty) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// Takes the next event, which brings `text`, as the owner of the configuration would: the last text is in force.
    fn expect(&mut self, text: &str) -> How {
        match self.event() {
            FileEvent::Changed { text: seen, how } if &*seen == text => {
                // Not by `set_in_force`, at which the thread looks: it could see the next change before it has heard of it,
                // and not know how it was made.
                *lock(&self.watcher.in_force) = seen;
                how
            }
            other => panic!("instead of {text:?}: {other:?}"),
        }
    }

    /// As [`Self::expect`] of what `change` leaves, in the middle of which there is no whole file. What is said of that moment
    /// is no surprise if it was a long one: this thread was held up.
    fn expect_after(&mut self, change: impl FnOnce(&Path), text: &str) {
        let began = Instant::now();
        change(&self.path);
        if began.elapsed() < super::super::file_rule::STABLE / 2 {
            self.expect(text);
        } else {
            let whole = |event: &FileEvent| matches!(event, FileEvent::Changed { text: seen, .. } if &**seen == text);
            self.until(whole);
            *lock(&self.watcher.in_force) = text.into();
        }
    }

    fn rename_over(&self, text: &str) {
        let other = self.directory.path().join("new");
        fs::write(&other, text).unwrap();
        fs::rename(other, &self.path).unwrap();
    }
}

/// A busy machine may hold up some of them.
fn median(mut took: Vec<Duration>) -> Duration {
    took.sort_unstable();
    took[took.len() / 2]
}

/// What another thread needs to wait for as long as a file settles, and to tell this one.
fn settle() -> Duration {
    let start = Instant::now();
    let settling = std::thread::spawn(|| std::thread::sleep(super::super::file_rule::ATOMIC_SETTLE));
    settling.join().unwrap();
    start.elapsed()
}

/// Each change was seen about as soon as this machine, as busy as it was, could settle.
fn assert_soon(took: Vec<Duration>, settles: Vec<Duration>) {
    let (took, settle) = (median(took), median(settles));
    assert!(
        took < settle * ATOMIC_WITHIN_SETTLES,
        "{took:?}, and {settle:?} to settle"
    );
}

#[test]
fn fifty_renames_are_each_seen_whole_and_soon() {
    let mut bench = Bench::start();
    let (mut took, mut settles) = (Vec::new(), Vec::new());
    for weight in 1..=50 {
        let start = Instant::now();
        bench.rename_over(&config(weight));
        assert_eq!(bench.expect(&config(weight)), How::Atomic);
        took.push(start.elapsed());
        settles.push(settle());
    }
    assert_soon(took, settles);
}

#[test]
fn a_storm_of_renames_ends_with_the_last_one_and_does_not_starve_those_before() {
    let mut bench = Bench::start();
    let start = Instant::now();
    let (mut weight, mut seen) = (0, 0);
    while seen < 10 {
        weight += 1;
        bench.rename_over(&config(weight));
        if bench.next(Duration::from_millis(8)).is_some() {
            seen += 1;
        }
        assert!(start.elapsed() < PATIENCE, "{seen} of {weight}");
    }
    let last = config(weight);
    bench.rename_over(&config(weight + 1));
    bench.rename_over(&last);
    bench.watcher.reload();
    loop {
        match bench.event() {
            FileEvent::Changed {
                text,
                how: How::Explicit,
            } => break assert_eq!(&*text, last),
            FileEvent::Changed { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn twenty_writes_in_place_are_each_seen_when_they_have_rested() {
    let mut bench = Bench::start();
    let mut took = Vec::new();
    for weight in 1..=20 {
        let start = Instant::now();
        fs::write(&bench.path, config(weight)).unwrap();
        assert_eq!(bench.expect(&config(weight)), How::InPlace);
        took.push(start.elapsed());
    }
    assert!(
        took.iter().all(|took| *took >= super::super::file_rule::STABLE),
        "{took:?}"
    );
    assert!(median(took) < SEEN_WITHIN / 2);
}

#[test]
fn a_file_written_byte_by_byte_changes_nothing_before_it_is_whole() {
    let mut bench = Bench::start();
    let text = config(77);
    let mut file = File::create(&bench.path).unwrap();
    for byte in text.bytes() {
        file.write_all(&[byte]).unwrap();
        assert_eq!(bench.next(Duration::from_millis(3)), None);
    }
    drop(file);
    assert_eq!(bench.expect(&text), How::InPlace);
}

#[test]
fn a_writer_that_stops_halfway_with_the_file_closed_is_withheld_until_it_goes_on() {
    let mut bench = Bench::start();
    let text = config(5);
    for cut in [
        0,
        text.find("    pool").unwrap(),
        text.find("    fallback").unwrap(),
        text.len() - 1,
    ] {
        fs::write(&bench.path, &text[..cut]).unwrap();
        let event = bench.event();
        assert!(matches!(event, FileEvent::Withheld { .. }), "{cut}: {event:?}");
        fs::write(&bench.path, config(cut + 1000)).unwrap();
        bench.expect(&config(cut + 1000));
    }
    fs::write(&bench.path, &text[..30]).unwrap();
    assert!(matches!(bench.event(), FileEvent::Withheld { .. }));
    bench.watcher.reload();
    assert_eq!(bench.expect(&text[..30]), How::Explicit);
}

#[test]
fn what_is_in_force_decides_anew_on_a_text_that_was_withheld() {
    let mut bench = Bench::start();
    let text = config(0);
    let half = &text[..text.find("    pool").unwrap()];
    fs::write(&bench.path, half).unwrap();
    assert!(matches!(bench.event(), FileEvent::Withheld { .. }));
    bench.watcher.set_in_force(half.into());
    assert_eq!(bench.expect(half), How::InPlace);
}

#[test]
fn kubernetes_swaps_are_seen_each() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().to_path_buf();
    let generation = |n: usize| {
        let name = format!("..gen{n}");
        fs::create_dir(root.join(&name)).unwrap();
        fs::write(root.join(&name).join("rollgate.yaml"), config(n)).unwrap();
        symlink(&name, root.join("..data_tmp")).unwrap();
        fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
        if n > 0 {
            fs::remove_dir_all(root.join(format!("..gen{}", n - 1))).unwrap();
        }
    };
    generation(0);
    symlink("..data/rollgate.yaml", root.join("rollgate.yaml")).unwrap();
    let mut bench = Bench::watching(directory, root.join("rollgate.yaml"));
    let (mut took, mut settles) = (Vec::new(), Vec::new());
    for n in 1..=50 {
        let start = Instant::now();
        generation(n);
        assert_eq!(bench.expect(&config(n)), How::Atomic);
        took.push(start.elapsed());
        settles.push(settle());
    }
    assert_soon(took, settles);
}

#[test]
fn a_link_into_another_directory_is_followed_and_re_pointed() {
    let (directory, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = directory.path().join("rollgate.yaml");
    let target = |name: &str, weight| {
        fs::write(elsewhere.path().join("tmp"), config(weight)).unwrap();
        fs::rename(elsewhere.path().join("tmp"), elsewhere.path().join(name)).unwrap();
    };
    target("a", 0);
    symlink(elsewhere.path().join("a"), &path).unwrap();
    let mut bench = Bench::watching(directory, path);
    target("a", 1);
    assert_eq!(bench.expect(&config(1)), How::Atomic);
    target("b", 2);
    symlink(elsewhere.path().join("b"), bench.directory.path().join("link")).unwrap();
    fs::rename(bench.directory.path().join("link"), &bench.path).unwrap();
    assert_eq!(bench.expect(&config(2)), How::Atomic);
    target("b", 3);
    assert_eq!(bench.expect(&config(3)), How::Atomic);
}

#[test]
fn an_editors_save_by_unlink_and_create_is_seen_and_no_trouble() {
    let mut bench = Bench::start();
    for weight in 1..=10 {
        let save = |path: &Path| {
            fs::remove_file(path).unwrap();
            fs::write(path, config(weight)).unwrap();
        };
        bench.expect_after(save, &config(weight));
    }
}

#[test]
fn a_file_that_is_gone_is_told_once_and_its_return_too() {
    let mut bench = Bench::start();
    for round in 0..2 {
        fs::remove_file(&bench.path).unwrap();
        assert!(matches!(bench.event(), FileEvent::Unreadable { .. }));
        assert_eq!(bench.next(POLL_TROUBLED * 3), None, "told more than once");
        bench.rename_over(&config(round));
        bench.expect(&config(round));
    }
    bench.rename_over(&config(0));
    bench.expect(&config(0));
    fs::remove_file(&bench.path).unwrap();
    assert!(matches!(bench.event(), FileEvent::Unreadable { .. }));
    bench.rename_over(&config(0));
    bench.expect(&config(0));
}

#[test]
fn a_directory_that_is_replaced_with_all_its_files_is_watched_again() {
    let directory = tempfile::tempdir().unwrap();
    let inner = directory.path().join("etc");
    fs::create_dir(&inner).unwrap();
    fs::write(inner.join("rollgate.yaml"), config(0)).unwrap();
    let mut bench = Bench::watching(directory, inner.join("rollgate.yaml"));
    fs::remove_dir_all(&inner).unwrap();
    assert!(matches!(bench.event(), FileEvent::Unreadable { .. }));
    let make = |path: &Path| {
        fs::create_dir(&inner).unwrap();
        fs::write(path, config(1)).unwrap();
    };
    bench.expect_after(make, &config(1));
    bench.rename_over(&config(2));
    assert_eq!(
        bench.expect(&config(2)),
        How::Atomic,
        "events work in the new directory"
    );
}

#[test]
fn what_is_not_text_is_unreadable_and_too_much_of_it_is_bounded() {
    let mut bench = Bench::start();
    fs::write(&bench.path, [b'a', 0xff, b'b']).unwrap();
    assert_eq!(
        bench.event(),
        FileEvent::Unreadable {
            error: "not UTF-8 at byte 1".into()
        }
    );
    // That nothing is there between two of them is told if it lasts.
    fs::remove_file(&bench.path).unwrap();
    fs::create_dir(&bench.path).unwrap();
    bench.watcher.reload();
    bench.until(|event| matches!(event, FileEvent::Unreadable { error } if error.contains("regular")));
    let large = "#é\n".repeat(1 << 20);
    fs::write(bench.directory.path().join("new"), &large).unwrap();
    fs::remove_dir(&bench.path).unwrap();
    fs::rename(bench.directory.path().join("new"), &bench.path).unwrap();
    match bench.until(|event| matches!(event, FileEvent::Changed { .. })) {
        FileEvent::Changed { text, .. } => assert!(text.len() > 1 << 20 && text.len() <= (1 << 20) + 4),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_touched_file_is_no_change_and_an_explicit_reload_of_the_same_text_is_answered() {
    let mut bench = Bench::start();
    fs::write(&bench.path, config(0)).unwrap();
    assert_eq!(bench.next(Duration::from_millis(400)), None);
    bench.watcher.reload();
    assert_eq!(bench.expect(&config(0)), How::Explicit);
}

#[test]
fn the_thread_ends_with_its_handle() {
    let bench = Bench::start();
    let Bench {
        watcher,
        mut events,
        directory: _directory,
        ..
    } = bench;
    drop(watcher);
    let deadline = Instant::now() + PATIENCE;
    while events.try_recv() != Err(mpsc::error::TryRecvError::Disconnected) {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_pipe_at_the_path_does_not_hold_the_watcher_up() {
    let mut bench = Bench::start();
    let pipe = bench.directory.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    fs::rename(pipe, &bench.path).unwrap();
    let event = bench.event();
    assert!(
        matches!(&event, FileEvent::Unreadable { error } if error.contains("regular")),
        "{event:?}"
    );
    bench.rename_over(&config(1));
    bench.expect(&config(1));
}

#[test]
fn a_rename_of_the_same_text_does_not_vouch_for_the_write_after_it() {
    let (sender, _events) = mpsc::channel(EVENTS_MAX);
    let (text, path) = (Arc::<str>::from(config(1)), PathBuf::from("/nowhere/rollgate.yaml"));
    let in_force = Arc::new(Mutex::new(Arc::clone(&text)));
    let mut watch = Watch::new(path, Arc::default(), Arc::clone(&text), in_force, sender);
    watch.hear(&Raised {
        change: Some(How::Atomic),
        ..Raised::default()
    });
    assert_eq!(watch.step_text(text, false).0, None);
    std::thread::sleep(super::super::file_rule::ATOMIC_SETTLE * 2);
    let half = config(1).split_at(20).0.into();
    let event = watch.step_text(half, false).0;
    assert!(!matches!(event, Some(FileEvent::Changed { .. })), "{event:?}");
}
