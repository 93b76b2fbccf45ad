//! The real binary, started, watched and stopped.

use super::{Client, Metrics, PATIENCE, Response, eventually};
use std::fs;
use std::io::{BufRead, BufReader, PipeWriter, Write as _};
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a probe may be late that is answered at all.
const LATE_PROBES: Duration = Duration::from_secs(3);

/// `rollgate run` with a configuration of its own. Killed when dropped.
pub struct Gate {
    child: Child,
    directory: TempDir,
    log: Lines,
    access: Lines,
    ports: Vec<u16>,
    admin: u16,
}

/// How a process ended.
#[derive(Debug)]
pub struct Exit {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// How a new text gets into the configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// A complete file renamed over it.
    Rename,
    /// Truncated and written.
    InPlace,
    /// Removed and created anew, as some editors save.
    Recreate,
}

/// Lines of a pipe, collected by a thread.
struct Lines {
    pipe: PipeWriter,
    collected: Arc<(Mutex<Collected>, Condvar)>,
}

#[derive(Default)]
struct Collected {
    lines: Vec<String>,
    /// How many times [`MARK`] was written, and has come out.
    marks: [usize; 2],
}

/// What a test writes into the pipe itself: all that was written before it comes out before it, however busy the machine is.
const MARK: &[u8] = b"\0\n";

impl Lines {
    fn collect() -> Self {
        let (reader, pipe) = std::io::pipe().unwrap();
        let collected = Arc::default();
        let kept: Arc<(Mutex<Collected>, Condvar)> = Arc::clone(&collected);
        std::thread::spawn(move || {
            let mut reader = BufReader::new(reader);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let mut collected = kept.0.lock().unwrap();
                if line.ends_with(MARK) {
                    // It may stand in the middle of a long line of a process that goes on.
                    line.truncate(line.len() - MARK.len());
                    collected.marks[1] += 1;
                    kept.1.notify_all();
                } else {
                    collected.lines.push(plain(&String::from_utf8_lossy(&line)));
                    line.clear();
                }
            }
        });
        Self { pipe, collected }
    }

    /// For a process to write to.
    fn pipe(&self) -> Stdio {
        self.pipe.try_clone().unwrap().into()
    }

    /// All that has been written so far.
    fn all(&self) -> Vec<String> {
        let (collected, marked) = &*self.collected;
        let mut collected = collected.lock().unwrap();
        collected.marks[0] += 1;
        let wanted = collected.marks[0];
        (&self.pipe).write_all(MARK).unwrap();
        let behind = |collected: &mut Collected| collected.marks[1] < wanted;
        let (collected, waited) = marked.wait_timeout_while(collected, PATIENCE, behind).unwrap();
        assert!(!waited.timed_out(), "the lines of a process are not read");
        collected.lines.clone()
    }

    fn text(&self) -> String {
        self.all().join("\n")
    }
}

/// Without colours and line end.
fn plain(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line.trim_end();
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        text += before;
        rest = after.split_once('m').map_or("", |(_, rest)| rest);
    }
    text + rest
}

/// The port in `…listening address=127.0.0.1:PORT…`.
fn announced(line: &str) -> Option<(bool, u16)> {
    let (before, after) = line.split_once("listening address=")?;
    let address = after.split_whitespace().next()?.trim_matches('"');
    let port = address.rsplit_once(':')?.1.parse().ok()?;
    Some((before.ends_with("admin "), port))
}

/// The binary with these arguments, to its end.
pub fn rollgate(arguments: &[&str]) -> Exit {
    let output = command().args(arguments).output().expect("start rollgate");
    exit(
        output.status,
        String::from_utf8_lossy(&output.stdout).into(),
        String::from_utf8_lossy(&output.stderr).into(),
    )
}

fn command() -> Command {
    plain_environment(Command::new(env!("CARGO_BIN_EXE_rollgate")))
}

fn plain_environment(mut command: Command) -> Command {
    command.env_remove("RUST_LOG").env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

fn exit(status: ExitStatus, stdout: String, stderr: String) -> Exit {
    Exit {
        code: status.code(),
        signal: status.signal(),
        stdout,
        stderr,
    }
}

impl Gate {
    /// Starts it and waits until `/readyz` answers 200.
    ///
    /// # Panics
    /// When it does not get ready.
    pub fn start(config: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), config)
    }

    /// As [`Self::start`], with other files beside the configuration.
    pub fn start_in(directory: TempDir, config: &str) -> Self {
        let path = directory.path().join("rollgate.yaml");
        fs::write(&path, config).unwrap();
        Self::start_at(directory, &path, config).unwrap_or_else(|exit| panic!("rollgate ended: {exit:#?}\n{config}"))
    }

    /// Starts it with a text it may refuse.
    ///
    /// # Errors
    /// How it ended, when it did before it was ready.
    pub fn try_start(config: &str) -> Result<Self, Exit> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rollgate.yaml");
        fs::write(&path, config).unwrap();
        Self::start_at(directory, &path, config)
    }

    /// Starts it on a file that may be a link.
    ///
    /// # Errors
    /// How it ended, when it did before it was ready.
    pub fn start_at(directory: TempDir, path: &Path, config: &str) -> Result<Self, Exit> {
        Self::start_with(command(), directory, path, config, &[])
    }

    /// Starts it by a link `rollgate` beside the configuration, so that a test can turn it to another program; `variables`
    /// are added to the environment.
    ///
    /// # Panics
    /// When it does not get ready.
    pub fn start_by_link(config: &str, variables: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (
            directory.path().join("rollgate.yaml"),
            directory.path().join("rollgate"),
        );
        fs::write(&path, config).unwrap();
        symlink(env!("CARGO_BIN_EXE_rollgate"), &link).unwrap();
        let mut command = plain_environment(Command::new(link));
        command.envs(variables.iter().copied());
        Self::start_with(command, directory, &path, config, &[])
            .unwrap_or_else(|exit| panic!("rollgate ended: {exit:#?}"))
    }

    /// Starts it as the successor of whoever has the other end of `link`.
    ///
    /// # Errors
    /// How it ended, when it did before it was ready.
    pub fn start_successor(config: &str, link: impl Into<Stdio>) -> Result<Self, Exit> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rollgate.yaml");
        fs::write(&path, config).unwrap();
        let mut command = command();
        command.env("ROLLGATE_SUCCESSOR", "1").stdin(link);
        Self::start_with(command, directory, &path, config, &[])
    }

    /// Starts it with further arguments, by a shell that does `first` before.
    ///
    /// # Errors
    /// How it ended, when it did before it was ready.
    pub fn try_start_with(config: &str, first: &str, arguments: &[&str]) -> Result<Self, Exit> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rollgate.yaml");
        fs::write(&path, config).unwrap();
        let rollgate = command();
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &format!("{first} exec \"$0\" \"$@\"")])
            .arg(rollgate.get_program())
            .env_remove("RUST_LOG")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        Self::start_with(shell, directory, &path, config, arguments)
    }

    fn start_with(
        mut command: Command,
        directory: TempDir,
        path: &Path,
        config: &str,
        arguments: &[&str],
    ) -> Result<Self, Exit> {
        let (log, access) = (Lines::collect(), Lines::collect());
        let child = command
            .current_dir(directory.path())
            .args(["run", "--config"])
            .arg(path)
            .args(arguments)
            .stdout(access.pipe())
            .stderr(log.pipe())
            .spawn()
            .expect("start rollgate");
        let mut gate = Self {
            child,
            directory,
            log,
            access,
            ports: Vec::new(),
            admin: 0,
        };
        let listeners = config
            .split("\nadmin:")
            .next()
            .unwrap_or_default()
            .matches("- address:")
            .count();
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = gate.child.try_wait().unwrap() {
                return Err(exit(status, gate.access.text(), gate.log.text()));
            }
            gate.find_ports();
            if gate.ports.len() >= listeners && gate.admin != 0 && gate.is_ready() {
                gate.wait_for_late_probes();
                return Ok(gate);
            }
            assert!(
                Instant::now() < deadline,
                "rollgate does not get ready:\n{}\n{config}",
                gate.log.text()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A start waits for the first probes of endpoints, but not longer than a second, and an endpoint of a canary serves
    /// nobody before its own. Those that are only late are waited for, and those that never answer not for long.
    fn wait_for_late_probes(&self) {
        let all_healthy = || {
            let (metrics, name) = (self.metrics(), "rollgate_endpoint_healthy");
            metrics.sum(name, &[]) as usize == metrics.count(name, &[])
        };
        let until = Instant::now() + LATE_PROBES;
        let late = self.log().contains("some endpoints have not answered a probe yet");
        while late && Instant::now() < until && !all_healthy() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn find_ports(&mut self) {
        self.ports.clear();
        for (admin, port) in self.log.all().iter().filter_map(|line| announced(line)) {
            if admin {
                self.admin = port;
            } else {
                self.ports.push(port);
            }
        }
    }

    /// Whether `/readyz` answers 200.
    pub fn is_ready(&self) -> bool {
        self.admin_get("/readyz").is_some_and(|response| response.status == 200)
    }

    /// `GET` on the admin address; `None` when nothing answers.
    pub fn admin_get(&self, path: &str) -> Option<Response> {
        let stream = std::net::TcpStream::connect(("127.0.0.1", self.admin)).ok()?;
        let host = format!("127.0.0.1:{}", self.admin);
        let fields = [("host", host.as_str()), ("connection", "close")];
        Client::over(stream).try_request("GET", path, &fields, b"").ok()
    }

    /// Ends it at once, if it has not ended, and starts another in the same directory on a file of this text.
    ///
    /// # Panics
    /// When it does not get ready.
    pub fn crash(mut self, config: &str) -> Self {
        self.child.kill().ok();
        self.child.wait().ok();
        let directory = std::mem::replace(&mut self.directory, tempfile::tempdir().unwrap());
        Self::start_in(directory, config)
    }

    /// The port of the first listener.
    pub fn port(&self) -> u16 {
        self.ports[0]
    }

    /// The port of the listener at this position.
    pub fn port_of(&self, listener: usize) -> u16 {
        self.ports[listener]
    }

    pub fn admin_port(&self) -> u16 {
        self.admin
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Those that have taken over so far, the last one last.
    pub fn successors(&self) -> Vec<u32> {
        let pid = |line: &String| {
            line.split_once("another process serves now")?
                .1
                .split_once("pid=")?
                .1
                .parse()
                .ok()
        };
        self.log.all().iter().filter_map(pid).collect()
    }

    /// The process that serves.
    pub fn serving(&self) -> u32 {
        self.successors().last().copied().unwrap_or(self.pid())
    }

    pub fn config_path(&self) -> PathBuf {
        self.directory.path().join("rollgate.yaml")
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn client(&self) -> Client {
        Client::connect(self.port())
    }

    /// One `GET` on a connection of its own.
    pub fn get(&self, path: &str, fields: &[(&str, &str)]) -> Response {
        self.client().get(path, fields)
    }

    pub fn metrics(&self) -> Metrics {
        let response = self.admin_get("/metrics").expect("the admin address answers");
        assert_eq!(response.status, 200);
        Metrics::parse(&response.text())
    }

    /// The sum of a metric over all series with these labels.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.metrics().sum(name, labels)
    }

    /// Waits until a metric is `value`: counters are gathered a moment after the answer.
    pub fn expect_metric(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        let mut last = f64::NAN;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            last = self.metric(name, labels);
            if (last - value).abs() < 1e-9 {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{name}{labels:?} is {last}, not {value}");
    }

    pub fn write_config(&self, text: &str, how: Write) {
        let path = self.config_path();
        match how {
            Write::Rename => {
                let other = self.directory.path().join("rollgate.yaml.new");
                fs::write(&other, text).unwrap();
                fs::rename(other, path).unwrap();
            }
            Write::InPlace => fs::write(path, text).unwrap(),
            Write::Recreate => {
                fs::remove_file(&path).unwrap();
                fs::write(path, text).unwrap();
            }
        }
    }

    /// Points a link at `target`, in one step.
    pub fn relink(&self, target: &Path, link: &Path) {
        let other = self.directory.path().join("link.new");
        symlink(target, &other).unwrap();
        fs::rename(other, link).unwrap();
    }

    /// `HUP`, `TERM`, `KILL`…
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it still runs after `within`.
    pub fn wait(&mut self, within: Duration) -> Exit {
        let mut status = None;
        eventually(within, "rollgate ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        exit(status.unwrap(), self.access.text(), self.log.text())
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// The process's own log.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Lines of the access log so far.
    pub fn access_log_lines(&self) -> Vec<serde_json::Value> {
        let parse = |line: &String| serde_json::from_str(line).unwrap_or_else(|e| panic!("no JSON ({e}): {line}"));
        self.access.all().iter().map(parse).collect()
    }

    /// Waits for a line of the access log of which `wanted` holds.
    pub fn access_line(&self, what: &str, wanted: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let mut found = None;
        eventually(PATIENCE, what, || {
            found = self.access_log_lines().into_iter().find(|line| wanted(line));
            found.is_some()
        });
        found.unwrap()
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }
}

/// Whether the process is there and is no zombie.
pub fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with('Z'))
}

/// Sends a signal to a process of this test.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status();
    assert!(sent.unwrap().success());
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        let ours = self.directory.path().to_str().unwrap();
        for pid in self.successors() {
            // Its number may belong to another process by now.
            let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if command.contains(ours) {
                signal(pid, "KILL");
            }
        }
        if std::thread::panicking() {
            // No second panic.
            let collected = self.log.collected.0.lock();
            let lines = collected.map(|collected| collected.lines.join("\n"));
            eprintln!("log of rollgate:\n{}", lines.unwrap_or_default());
        }
    }
}

#[test]
fn announcements_are_read_with_and_without_colours() {
    let line = "2026-07-01T00:00:00Z \u{1b}[32m INFO\u{1b}[0m listening \u{1b}[3maddress\u{1b}[0m\u{1b}[2m=\u{1b}[0m127.0.0.1:8080\n";
    assert_eq!(announced(&plain(line)), Some((false, 8080)));
    assert_eq!(
        announced("INFO rollgate::server: admin listening address=127.0.0.1:9900 x=1"),
        Some((true, 9900))
    );
    assert_eq!(announced("INFO listening"), None);
}
