//! Programs that take over, or do not, written in shell: descriptor 0 is the link.

use super::*;
use crate::shared::InForce;
use crate::telemetry::fixture;
use std::fs;
use std::sync::Mutex;

/// Says what it is told to when it is offered everything, and when it is to go.
fn program(on_offered: &str, on_go: &str) -> Program {
    let script = format!(
        "while read line; do case \"$line\" in '\"offered\"') {on_offered};; '{{\"go\":'*) {on_go};; esac; done"
    );
    Program {
        path: "/bin/sh".into(),
        arguments: vec!["-c".into(), script.into()],
    }
}

const READY: &str = "echo '\"ready\"' >&0";
const SERVING: &str = "echo '\"serving\"' >&0";
const SILENCE: &str = "exec sleep 100";

/// How long a program may take that gets ready, on a busy machine; and one that never does.
const PATIENCE: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_millis(300);

/// Keeps what it was asked for, in order.
#[derive(Default)]
struct Kept {
    calls: Mutex<Vec<&'static str>>,
    refuses: bool,
    overruled: bool,
}

#[async_trait]
impl Custody for Kept {
    async fn freeze(&self) -> Result<Option<OwnedFd>, String> {
        self.calls.lock().unwrap().push("freeze");
        if self.refuses {
            return Err("the disk is full".into());
        }
        Ok(Some(fs::File::open("/dev/null").unwrap().into()))
    }

    async fn overruled(&self) {
        if !self.overruled {
            std::future::pending::<()>().await;
        }
    }

    async fn thaw(&self) {
        self.calls.lock().unwrap().push("thaw");
    }
}

struct Old {
    upgrader: Upgrader,
    custody: Arc<Kept>,
    shared: Arc<Shared>,
    stop: watch::Sender<u32>,
    /// Made by [`Old::upgrade`], and ended with the test.
    successor: Option<u32>,
}

impl Old {
    fn new(program: Program, custody: Kept) -> Self {
        Self::waiting(PATIENCE, program, custody)
    }

    fn waiting(upgrade_timeout: Duration, program: Program, custody: Kept) -> Self {
        let mut in_force: InForce = fixture::in_force(1, 1, &[]);
        let limits = &mut Arc::get_mut(&mut in_force.snapshot).unwrap().limits;
        limits.upgrade_timeout = upgrade_timeout;
        let shared = fixture::shared(in_force, 1);
        let custody = Arc::new(custody);
        let (asked, stop) = Asked::by_test();
        let (upgrader, upgrades) = Upgrader::new(Means {
            program: Ok(program),
            sockets: Vec::new(),
            custody: Some(Arc::clone(&custody) as Arc<dyn Custody>),
            shared: Arc::clone(&shared),
            asked,
            manager: Arc::new(Manager::from_environment()),
        });
        tokio::spawn(upgrades.run());
        Self {
            upgrader,
            custody,
            shared,
            stop,
            successor: None,
        }
    }

    async fn upgrade(&mut self) -> Result<u32, String> {
        let made = self.upgrader.upgrade(by()).await;
        self.successor = made.as_ref().ok().map(|upgraded| upgraded.pid);
        made.map(|upgraded| upgraded.pid)
    }

    fn calls(&self) -> Vec<&'static str> {
        self.custody.calls.lock().unwrap().clone()
    }
}

impl Drop for Old {
    fn drop(&mut self) {
        if let Some(pid) = self.successor {
            let pid = pid.to_string();
            assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
        }
    }
}

fn by() -> Origin {
    Origin {
        who: "test".into(),
        from: "test".into(),
        at_ms: 0,
        reason: None,
    }
}

#[tokio::test]
async fn who_serves_is_told_and_asked_from_then_on() {
    let mut old = Old::new(program(READY, SERVING), Kept::default());
    let pid = old.upgrade().await.unwrap();
    old.upgrader.handed_over().await;
    assert_eq!(old.calls(), ["freeze"], "nothing is this process's any more");
    assert_eq!(old.shared.upgrades_failed.load(Ordering::Relaxed), 0);
    let refused = old.upgrader.upgrade(by()).await.unwrap_err();
    assert!(refused.contains(&format!("process {pid} has taken over")), "{refused}");
    assert!(old.upgrader.close().await, "a stop finds that out, too");
}

#[tokio::test]
async fn whatever_goes_wrong_is_told_and_all_is_as_before() {
    let cases = [
        (
            program("exit 3", ""),
            "ended before it was ready (exit status: 3)",
            false,
        ),
        (program(SILENCE, ""), "not ready within 0.3 s", false),
        (program("echo nonsense >&0", ""), "cannot be understood", false),
        (program(SERVING, ""), "said Serving instead of ready", false),
        (
            program("echo '{\"failed\":{\"reason\":\"a.yaml:1:1: no\"}}' >&0", ""),
            "the new process cannot serve: a.yaml:1:1: no",
            false,
        ),
        (
            program(READY, "exit 4"),
            "ended before it was serving (exit status: 4)",
            true,
        ),
        (
            program(READY, "kill -9 $$"),
            "ended before it was serving (signal: 9",
            true,
        ),
    ];
    for (program, expected, frozen) in cases {
        let timeout = if expected.contains("within") { SOON } else { PATIENCE };
        let mut old = Old::waiting(timeout, program, Kept::default());
        let reason = old.upgrade().await.unwrap_err();
        assert!(reason.contains(expected), "{reason:?} is not {expected:?}");
        let calls: &[_] = if frozen { &["freeze", "thaw"] } else { &[] };
        assert_eq!(old.calls(), calls, "{expected}");
        assert_eq!(old.shared.upgrades_failed.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let missing = Program {
        path: "/nowhere/rollgate".into(),
        arguments: Vec::new(),
    };
    let reason = Old::new(missing, Kept::default()).upgrade().await.unwrap_err();
    assert!(
        reason.contains("/nowhere/rollgate cannot be started: No such file"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_state_that_cannot_be_frozen_and_a_kill_switch_go_before_an_upgrade() {
    let refuses = Kept {
        refuses: true,
        ..Kept::default()
    };
    let overruled = Kept {
        overruled: true,
        ..Kept::default()
    };
    for (custody, expected) in [(refuses, "the disk is full"), (overruled, "a kill switch came on")] {
        let mut old = Old::new(program(READY, SILENCE), custody);
        let reason = old.upgrade().await.unwrap_err();
        assert!(reason.contains(expected), "{reason}");
        assert_eq!(old.calls(), ["freeze", "thaw"]);
    }
}

#[tokio::test]
async fn one_at_a_time_and_again_after_a_failure() {
    let directory = tempfile::tempdir().unwrap();
    let (first, over) = (directory.path().join("first"), directory.path().join("over"));
    let only_once = format!(
        "if [ -e {0} ]; then {READY}; else : > {0}; while [ ! -e {1} ]; do sleep 0.01; done; exit 3; fi",
        first.display(),
        over.display()
    );
    let mut old = Old::new(program(&only_once, SERVING), Kept::default());
    let upgrader = old.upgrader.clone();
    let under_way = tokio::spawn(async move { upgrader.upgrade(by()).await });
    while !first.exists() {
        tokio::time::sleep(LOOK).await;
    }
    let refused = old.upgrade().await.unwrap_err();
    assert!(refused.contains("under way already"), "{refused}");
    fs::write(over, "").unwrap();
    assert!(
        under_way
            .await
            .unwrap()
            .unwrap_err()
            .contains("ended before it was ready")
    );
    old.upgrade().await.unwrap();
}

#[tokio::test]
async fn a_stop_interrupts_it_and_none_begins_after() {
    let mut old = Old::new(program(READY, SILENCE), Kept::default());
    let upgrader = old.upgrader.clone();
    let under_way = tokio::spawn(async move { upgrader.upgrade(by()).await });
    while old.calls().is_empty() {
        tokio::time::sleep(LOOK).await;
    }
    old.stop.send_replace(1);
    assert!(!old.upgrader.close().await);
    assert!(under_way.await.unwrap().unwrap_err().contains("asked to stop"));
    assert_eq!(old.calls(), ["freeze", "thaw"]);
    let refused = old.upgrade().await.unwrap_err();
    assert!(refused.contains("stopping"), "{refused}");
}

#[tokio::test]
async fn it_goes_on_when_who_asked_has_gone() {
    let mut old = Old::new(program(READY, SERVING), Kept::default());
    let asking = old.upgrader.upgrade(by());
    assert!(
        tokio::time::timeout(Duration::ZERO, asking).await.is_err(),
        "asked, and not waited for"
    );
    old.upgrader.handed_over().await;
    let State::HandedOver(Upgraded { pid }) = *old.upgrader.state.borrow() else {
        panic!("not handed over");
    };
    old.successor = Some(pid);
}

#[test]
fn a_program_is_known_by_the_path_it_was_started_with() {
    let directory = tempfile::tempdir().unwrap();
    let (release, link) = (directory.path().join("rollgate-1"), directory.path().join("rollgate"));
    fs::write(&release, "").unwrap();
    std::os::unix::fs::symlink(&release, &link).unwrap();
    let search = std::env::join_paths([std::path::Path::new("/nowhere"), directory.path()]).unwrap();
    let started = |named: &OsStr| as_started(named, &search, &release);
    assert_eq!(started(link.as_os_str()), Some(link.clone()), "a link stays one");
    assert_eq!(started("rollgate".as_ref()), Some(link), "found as the shell did");
    assert_eq!(started("other".as_ref()), None);
    assert_eq!(
        started("/bin/sh".as_ref()),
        None,
        "started under the name of another program"
    );
}
