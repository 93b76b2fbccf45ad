//! `kill -9` at any instant: a child saves one state after another and says so through a pipe; it is killed; what is found
//! is the last state it said, or a later one.

use super::*;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

const ROUNDS: usize = 50;

/// The child's directory. Without it, it is an ordinary run of the tests.
const DIRECTORY: &str = "ROLLGATE_TEST_STATE_DIR";

#[test]
#[ignore = "the child of the test below"]
fn child() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let (store, restored) = open(Path::new(&directory));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let first = restored.last_seq + 1;
    for seq in first.. {
        let number = u32::try_from(seq).unwrap();
        let saving = store.save(state(number), vec![event(seq)]);
        runtime.block_on(saving).unwrap();
        // One write of a few bytes: whole in the pipe, or not there.
        std::io::stdout()
            .write_all(format!("saved {seq}\n").as_bytes())
            .unwrap();
    }
}

fn start(directory: &Path) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "control::store::tests::crash::child",
            "--ignored",
            "--nocapture",
        ])
        .env(DIRECTORY, directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    (child, output)
}

/// The number that a line of the child says. On a machine of one core the first one stands behind the name of the test.
fn saved(line: &str) -> Option<u64> {
    line.rsplit_once("saved ")?.1.trim_end().parse().ok()
}

#[test]
fn after_a_kill_at_any_instant_the_state_is_the_last_that_was_answered_or_a_later_one() {
    let directory = tempfile::tempdir().unwrap();
    let (mut last, mut later, mut draws) = (0, 0, fastrand::Rng::new());
    for round in 1..=ROUNDS {
        let (mut child, mut output) = start(directory.path());
        // It runs.
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        if round % 2 == 0 {
            // It has opened the state, however long that takes here.
            while saved(&line).is_none() {
                line.clear();
                assert!(output.read_line(&mut line).unwrap() > 0, "it has ended");
            }
        }
        // From before it has opened the state to a dozen changes later.
        thread::sleep(Duration::from_micros(draws.u64(..60_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        let answered = std::iter::once(line)
            .chain(output.lines().map_while(Result::ok))
            .filter_map(|line| saved(&line))
            .last();
        last = answered.unwrap_or(last);
        let restored = found(directory.path());
        let reached = restored.last_seq;
        assert!(
            reached == last || reached == last + 1,
            "round {round}: {reached} was found, {last} was answered"
        );
        if reached > 0 {
            assert_eq!(u64::from(weight(&restored.state)), reached, "round {round}");
            assert_eq!(restored.events.last().unwrap().seq, reached, "round {round}");
        }
        later += usize::from(reached > last);
        last = reached;
    }
    assert!(last > 0, "nothing was ever saved");
    println!("{last} changes, {later} of {ROUNDS} kills came between the disk and the answer");
}
