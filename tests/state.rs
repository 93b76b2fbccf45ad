//! What outlives the process, with the real binary: one process a directory, files that are damaged, disks that are full.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::fs;
use std::path::Path;
use support::{Config, Gate, PATIENCE, Service, Upstream, eventually};
use tempfile::TempDir;

/// All traffic to the canary, so that what is killed is seen; the state in a directory of the test.
struct Site {
    v1: Upstream,
    v2: Upstream,
    state: TempDir,
}

impl Site {
    fn new() -> Self {
        Self {
            v1: Upstream::named("v1"),
            v2: Upstream::named("v2"),
            state: tempfile::tempdir().unwrap(),
        }
    }

    fn config(&self) -> String {
        Config::with(Service::split(self.v1.port(), 0, self.v2.port(), 100))
            .top(&format!("state_dir: {}", self.state.path().display()))
            .text()
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.state.path().join(name)
    }
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_second_process_of_a_directory_refuses_and_the_first_goes_on() {
    let site = Site::new();
    let mut first = Gate::start(&site.config());
    let refused = Gate::try_start(&site.config()).err().unwrap();
    assert_eq!(refused.code, Some(1));
    let told = format!("is in use by process {}", first.pid());
    assert!(refused.stderr.contains(&told), "{}", refused.stderr);
    assert!(refused.stderr.contains(site.state.path().to_str().unwrap()));
    assert!(first.is_running());
    // A kill -9 leaves nothing that keeps the next one out.
    first.signal("KILL");
    first.wait(PATIENCE);
    drop(Gate::start(&site.config()));
}

#[test]
fn an_orderly_end_leaves_one_file_to_copy() {
    let site = Site::new();
    let mut gate = Gate::start(&site.config());
    gate.signal("TERM");
    assert_eq!(gate.wait(PATIENCE).code, Some(0));
    assert_eq!(names(site.state.path()), ["lock", "state.db"]);
}

#[test]
fn a_damaged_state_is_refused_and_the_way_out_sends_everything_to_stable() {
    let site = Site::new();
    fs::write(site.path("state.db"), "garbage").unwrap();
    let refused = Gate::try_start(&site.config()).err().unwrap();
    assert_eq!(refused.code, Some(1));
    for part in [
        "state.db cannot be used",
        "not a SQLite database",
        "rollgate run --recover-state",
    ] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
    assert_eq!(fs::read_to_string(site.path("state.db")).unwrap(), "garbage");

    let mut gate = Gate::try_start_with(&site.config(), "", &["--recover-state"]).unwrap();
    assert_eq!(gate.get("/", &[]).served_by(), "v1");
    gate.expect_metric("rollgate_kill_switch", &[("service", "shop")], 1.0);
    let aside = names(site.state.path())
        .into_iter()
        .find(|name| name.starts_with("state.db.unreadable-"));
    assert_eq!(fs::read_to_string(site.path(&aside.unwrap())).unwrap(), "garbage");
    gate.signal("KILL");
    gate.wait(PATIENCE);
    // Without the flag, too: only a person ends it.
    let gate = Gate::start(&site.config());
    assert_eq!(gate.get("/", &[]).served_by(), "v1");
}

#[test]
fn the_flag_does_nothing_to_a_state_that_can_be_read() {
    let site = Site::new();
    drop(Gate::start(&site.config()));
    let gate = Gate::try_start_with(&site.config(), "", &["--recover-state"]).unwrap();
    assert_eq!(gate.get("/", &[]).served_by(), "v2");
    assert!(!names(site.state.path()).iter().any(|name| name.contains("unreadable")));
}

#[test]
fn a_disk_that_takes_nothing_stops_no_traffic_and_is_told() {
    let site = Site::new();
    let mut gate = Gate::try_start_with(&site.config(), "ulimit -f 0;", &[]).unwrap();
    for _ in 0..20 {
        assert_eq!(gate.get("/", &[]).served_by(), "v2");
    }
    eventually(PATIENCE, "the log says so", || {
        gate.log().contains("the state is not durable")
    });
    gate.signal("TERM");
    let exit = gate.wait(PATIENCE);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert!(exit.stderr.contains("the last changes are lost"), "{}", exit.stderr);
    // And nothing that could be mistaken for a state.
    drop(Gate::start(&site.config()));
}
