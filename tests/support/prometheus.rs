//! A real Prometheus server on a free port.

use super::{Client, PATIENCE, Port, eventually};
use std::fs;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// Scrapes one exporter, every 200 ms. Killed when dropped.
pub struct Prometheus {
    child: Child,
    port: Port,
    directory: TempDir,
}

impl Prometheus {
    /// Scrapes what is at this port of the loopback address and this path.
    ///
    /// # Panics
    /// When Prometheus is not installed or does not start.
    pub fn scraping(port: u16, path: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = format!(
            "global: {{ scrape_interval: 200ms, scrape_timeout: 200ms }}\n\
             scrape_configs:\n  - job_name: shop\n    static_configs: [{{ targets: [\"127.0.0.1:{port}\"] }}]\n\
             \x20   metrics_path: {path}\n"
        );
        fs::write(directory.path().join("prometheus.yml"), config).unwrap();
        let port = Port::reserved();
        let child = start(&directory, port.number());
        let mut prometheus = Self { child, port, directory };
        prometheus.wait();
        prometheus
    }

    /// Its address, as in a configuration.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.number())
    }

    pub fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// At the address where it was, with the data that it had.
    pub fn start_again(&mut self) {
        self.child = start(&self.directory, self.port.number());
        self.wait();
    }

    fn wait(&mut self) {
        eventually(PATIENCE, "Prometheus is ready", || {
            if let Some(status) = self.child.try_wait().unwrap() {
                let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
                panic!("Prometheus ended: {status}\n{log}");
            }
            let port = self.port.number();
            TcpStream::connect(("127.0.0.1", port)).is_ok() && Client::connect(port).get("/-/ready", &[]).status == 200
        });
    }
}

fn start(directory: &TempDir, port: u16) -> Child {
    let at = directory.path();
    let log = fs::File::create(at.join("log")).unwrap();
    Command::new("prometheus")
        .arg(format!("--config.file={}", at.join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", at.join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .current_dir(at)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("Prometheus is needed for this test ({error}); `make test` installs it"))
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
