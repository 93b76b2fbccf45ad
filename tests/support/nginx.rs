//! A real nginx on a free port.

use super::{PATIENCE, Port, eventually};
use std::fs;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

pub struct Nginx {
    child: Child,
    port: Port,
    directory: TempDir,
}

impl Nginx {
    /// Answers every request with `name`, in `x-served-by` and as the body; serves files below `/files/`.
    ///
    /// # Panics
    /// When nginx is not installed or does not start.
    pub fn named(name: &str) -> Self {
        Self::listening(name, "", tempfile::tempdir().unwrap())
    }

    /// As [`Self::named`], with `how` behind its `listen` (as `http2`) and what else is needed for it in its directory.
    pub fn listening(name: &str, how: &str, directory: TempDir) -> Self {
        let at = directory.path();
        let reserved = Port::reserved();
        let port = reserved.number();
        fs::create_dir(at.join("files")).unwrap();
        let config = format!(
            "daemon off; master_process off; pid {at}/nginx.pid; error_log {at}/error.log info;\n\
             events {{ worker_connections 1024; }}\n\
             http {{\n access_log {at}/access.log; keepalive_requests 100000; client_max_body_size 0;\n\
             client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi;\n\
             uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;\n\
             server {{ listen 127.0.0.1:{port} {how};\n\
             location / {{ add_header x-served-by {name} always; return 200 '{name}\\n'; }}\n\
             location /gzip/ {{ alias {at}/files/; default_type text/html; gzip on; }}\n\
             location /files/ {{ root {at}; add_header x-served-by {name} always; }} }} }}\n",
            at = at.display()
        );
        fs::write(at.join("nginx.conf"), config).unwrap();
        let child = Command::new("nginx")
            .env(
                "PATH",
                format!(
                    "{}:/usr/sbin:/usr/local/sbin",
                    std::env::var("PATH").unwrap_or_default()
                ),
            )
            .arg("-p")
            .arg(at)
            .arg("-c")
            .arg(at.join("nginx.conf"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("nginx is needed for this test ({error}); `make test` installs it"));
        let mut nginx = Self {
            child,
            port: reserved,
            directory,
        };
        eventually(PATIENCE, "nginx listens", || {
            if let Some(status) = nginx.child.try_wait().unwrap() {
                let log = fs::read_to_string(nginx.directory.path().join("error.log")).unwrap_or_default();
                panic!("nginx ended: {status}\n{log}");
            }
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        nginx
    }

    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// A file below `/files/`.
    pub fn put_file(&self, name: &str, content: &[u8]) {
        let file = self.directory.path().join("files").join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
    }

    /// Requests that came in this version, as `HTTP/2.0`.
    pub fn served_over(&self, version: &str) -> usize {
        let log = fs::read_to_string(self.directory.path().join("access.log")).unwrap_or_default();
        log.lines()
            .filter(|line| line.contains(&format!(" {version}\"")))
            .count()
    }

    /// Lines of its access log.
    pub fn served(&self) -> usize {
        fs::read_to_string(self.directory.path().join("access.log"))
            .unwrap_or_default()
            .lines()
            .count()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
