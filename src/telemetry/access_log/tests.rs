use super::*;
use crate::outcome::{FailureKind, Refusal, Termination};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

fn line() -> Line<'static> {
    Line {
        time: SystemTime::UNIX_EPOCH,
        client_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
        method: "GET",
        host: "shop.example.com",
        path: "/",
        protocol: "HTTP/1.1",
        status: 200,
        service: Some("shop"),
        version: Some("v1"),
        rescued: None,
        reason: Some("weight"),
        rule: None,
        bucket: None,
        endpoint: Some("127.0.0.1:9001"),
        attempts: 1,
        request_bytes: 0,
        response_bytes: 0,
        duration: Duration::from_millis(1),
        upstream_time: None,
        termination: Termination::Ok,
        request_id: "0",
        trace_id: None,
        user_agent: None,
        grpc_status: None,
        failure: None,
        refusal: None,
        error: None,
    }
}

fn log_to(output: impl Into<OwnedFd>, sample: f64, queue: usize) -> (AccessLog, Arc<AtomicU64>) {
    let dropped = Arc::new(AtomicU64::new(0));
    let sink = writer::Sink::stream(File::from(output.into()));
    let log = AccessLog::start(sink, sample, Arc::clone(&dropped), queue).unwrap();
    (log, dropped)
}

fn open(path: &Path) -> AccessLog {
    let spec = snapshot::AccessLog {
        path: snapshot::LogPath::File(path.to_path_buf()),
        sample: 1.0,
    };
    AccessLog::open(&spec, Arc::default()).unwrap()
}

const LONG: Duration = Duration::from_secs(20);

#[test]
fn lines_of_all_shards_are_written_by_the_time_it_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    std::fs::write(&path, "before\n").unwrap();
    let log = open(&path);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let mut shard = log.shard();
            scope.spawn(move || (0..1000).for_each(|_| shard.record(&line())));
        }
    });
    assert!(log.close(LONG));
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 3001);
    assert!(text.starts_with("before\n{"));
}

#[test]
fn a_new_file_is_not_for_everyone() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    assert!(open(&path).close(LONG));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o007, 0);
}

#[test]
fn a_path_that_cannot_be_opened_is_named() {
    let spec = snapshot::AccessLog {
        path: snapshot::LogPath::File(PathBuf::from("/nowhere/access.log")),
        sample: 1.0,
    };
    let error = AccessLog::open(&spec, Arc::default()).err().unwrap();
    assert!(error.to_string().contains("/nowhere/access.log"), "{error}");
}

/// The reader of the pipe does not read: workers go on, and what was not written is what was counted.
#[test]
fn a_stalled_reader_costs_lines_and_never_time() {
    const LINES: u64 = 20_000;
    let (mut reader, output) = std::io::pipe().unwrap();
    let (log, dropped) = log_to(output, 1.0, 4);
    let mut shard = log.shard();
    (0..LINES).for_each(|_| shard.record(&line()));
    shard.flush();
    let lost = dropped.load(Ordering::Relaxed);
    assert!(lost > 0);

    let count = std::thread::spawn(move || BufReader::new(&mut reader).lines().count() as u64);
    assert!(log.close(LONG));
    drop(shard);
    assert_eq!(count.join().unwrap() + lost, LINES);
}

#[test]
fn closing_waits_no_longer_than_it_may() {
    let (reader, output) = std::io::pipe().unwrap();
    let (log, _) = log_to(output, 1.0, 4);
    let mut shard = log.shard();
    (0..20_000).for_each(|_| shard.record(&line()));
    assert!(!log.close(Duration::from_millis(50)));
    drop(reader);
}

#[test]
fn a_closed_pipe_is_counted() {
    let (reader, output) = std::io::pipe().unwrap();
    drop(reader);
    let (log, dropped) = log_to(output, 1.0, 64);
    let mut shard = log.shard();
    (0..100).for_each(|_| shard.record(&line()));
    shard.flush();
    assert!(log.close(LONG));
    assert_eq!(dropped.load(Ordering::Relaxed), 100);
}

#[test]
fn a_full_disk_is_counted() {
    let output = File::options().append(true).open("/dev/full").unwrap();
    let (log, dropped) = log_to(output, 1.0, 64);
    let mut shard = log.shard();
    (0..100).for_each(|_| shard.record(&line()));
    shard.flush();
    assert!(log.close(LONG));
    assert_eq!(dropped.load(Ordering::Relaxed), 100);
}

/// A descriptor that stops taking bytes within a line: the line is lost and counted, the next one is whole.
#[test]
fn a_torn_line_does_not_spoil_the_next() {
    const LINES: u64 = 5_000;
    const O_NONBLOCK: i32 = 0o4000;
    let (mut reader, pipe) = std::io::pipe().unwrap();
    let output = File::options()
        .write(true)
        .custom_flags(O_NONBLOCK)
        .open(format!("/proc/self/fd/{}", pipe.as_raw_fd()))
        .unwrap();
    drop(pipe);
    let (log, dropped) = log_to(output, 1.0, 1024);
    let mut shard = log.shard();
    (0..LINES).for_each(|_| shard.record(&line()));
    shard.flush();
    let wait_until = Instant::now() + LONG;
    while dropped.load(Ordering::Relaxed) == 0 && Instant::now() < wait_until {
        std::thread::sleep(Duration::from_millis(10));
    }
    let received = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    assert!(log.close(LONG));
    let text = received.join().unwrap();
    let (whole, torn): (Vec<_>, Vec<_>) = text
        .lines()
        .partition(|line| serde_json::from_str::<serde_json::Value>(line).is_ok());
    // More than one where the reader, too, stops for a second.
    assert!(!torn.is_empty());
    assert_eq!(whole.len() as u64 + dropped.load(Ordering::Relaxed), LINES);
}

#[test]
fn a_rotated_file_is_opened_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let old = directory.path().join("access.log.1");
    let log = open(&path);
    let mut shard = log.shard();
    shard.record(&line());
    shard.flush();
    let wait_for = |path: &Path, shard: &mut LogShard| {
        let deadline = Instant::now() + LONG;
        while std::fs::metadata(path).map_or(0, |metadata| metadata.len()) == 0 {
            assert!(Instant::now() < deadline, "nothing in {}", path.display());
            std::thread::sleep(Duration::from_millis(50));
            shard.record(&line());
            shard.flush();
        }
    };
    wait_for(&path, &mut shard);
    std::fs::rename(&path, &old).unwrap();
    wait_for(&path, &mut shard);
    std::fs::remove_file(&path).unwrap();
    wait_for(&path, &mut shard);
    assert!(log.close(LONG));
}

#[test]
fn failures_and_refusals_are_always_in_the_sample() {
    let (reader, output) = std::io::pipe().unwrap();
    let (log, _) = log_to(output, 0.0, 64);
    let mut shard = log.shard();
    shard.record(&line());
    let exceptions = [
        Line { status: 500, ..line() },
        Line {
            failure: Some(FailureKind::NoEndpoint),
            ..line()
        },
        Line {
            status: 404,
            refusal: Some(Refusal::NoRoute),
            ..line()
        },
    ];
    exceptions.iter().for_each(|line| shard.record(line));
    drop(shard);
    assert!(log.close(LONG));
    assert_eq!(BufReader::new(reader).lines().count(), exceptions.len());
}

#[test]
fn a_sample_is_the_fraction_it_says() {
    let (_reader, output) = std::io::pipe().unwrap();
    let (log, _) = log_to(output, 0.25, 1);
    let mut shard = log.shard();
    shard.draw = fastrand::Rng::with_seed(7);
    let logged = (0..40_000).filter(|_| shard.is_logged(&line())).count();
    // Four standard deviations of a binomial of 40,000 at 0.25 are 346.
    assert!(logged.abs_diff(10_000) < 346, "{logged}");
}

#[test]
fn a_changed_sample_holds_for_the_next_request() {
    let spec = |sample| snapshot::AccessLog {
        path: snapshot::LogPath::Stdout,
        sample,
    };
    let (_reader, output) = std::io::pipe().unwrap();
    let (log, _) = log_to(output, 1.0, 1);
    let mut shard = log.shard();
    shard.follow(Some(&spec(0.0)));
    assert!(!shard.is_logged(&line()));
    assert!(shard.is_logged(&Line { status: 502, ..line() }));
    shard.follow(None);
    assert!(!shard.is_logged(&line()), "a log that left the file keeps its sample");
    shard.follow(Some(&spec(1.0)));
    assert!(shard.is_logged(&line()));
}
