//! Texts of configuration files.

use std::fmt::Write;

/// A file: one listener and the admin address on ports the kernel picks, and services.
#[derive(Debug, Clone, Default)]
pub struct Config {
    top: String,
    listener: String,
    listeners: Vec<String>,
    limits: Vec<String>,
    services: Vec<Service>,
}

impl Config {
    /// One service `shop` for every request.
    pub fn with(service: Service) -> Self {
        Self {
            services: vec![service],
            ..Self::default()
        }
    }

    pub fn and(mut self, service: Service) -> Self {
        self.services.push(service);
        self
    }

    /// A key of the first listener, as `proxy_protocol: true`.
    pub fn listener(mut self, text: &str) -> Self {
        writeln!(self.listener, "    {text}").unwrap();
        self
    }

    /// One more listener, with this key.
    pub fn and_listener(mut self, text: &str) -> Self {
        self.listeners.push(text.to_owned());
        self
    }

    /// A line (or more) at the top level.
    pub fn top(mut self, text: &str) -> Self {
        writeln!(self.top, "{text}").unwrap();
        self
    }

    /// A key of `limits`, as `max_body: 1KiB`.
    pub fn limit(mut self, text: &str) -> Self {
        self.limits.push(text.to_owned());
        self
    }

    pub fn text(&self) -> String {
        let mut text = String::from("listeners:\n  - address: 127.0.0.1:0\n") + &self.listener;
        for listener in &self.listeners {
            writeln!(text, "  - address: 127.0.0.1:0\n    {listener}").unwrap();
        }
        text += "admin:\n  address: 127.0.0.1:0\n  socket: rollgate.sock\naccess_log: { path: stdout, format: json }\n";
        text += &self.top;
        if !self.limits.is_empty() {
            writeln!(text, "limits: {{ {} }}", self.limits.join(", ")).unwrap();
        }
        text += "services:\n";
        for service in &self.services {
            service.write(&mut text);
        }
        text
    }
}

/// A service of the file.
#[derive(Debug, Clone)]
pub struct Service {
    name: String,
    routes: Vec<String>,
    versions: Vec<(String, &'static str, u32, Vec<u16>, String)>,
    extra: String,
}

impl Service {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            routes: Vec::new(),
            versions: Vec::new(),
            extra: String::new(),
        }
    }

    /// What most tests need: `shop` with a stable `v1` and a canary `v2`, of one endpoint each.
    pub fn split(v1: u16, weight1: u32, v2: u16, weight2: u32) -> Self {
        Self::new("shop")
            .stable("v1", weight1, &[v1])
            .canary("v2", weight2, &[v2])
    }

    /// `shop` with one version.
    pub fn only(port: u16) -> Self {
        Self::new("shop").stable("v1", 100, &[port])
    }

    /// As `host: a, path_prefix: /b`.
    pub fn route(mut self, text: &str) -> Self {
        self.routes.push(text.to_owned());
        self
    }

    pub fn stable(mut self, name: &str, weight: u32, ports: &[u16]) -> Self {
        self.versions
            .push((name.to_owned(), "stable", weight, ports.to_vec(), String::new()));
        self
    }

    pub fn canary(mut self, name: &str, weight: u32, ports: &[u16]) -> Self {
        self.versions
            .push((name.to_owned(), "canary", weight, ports.to_vec(), String::new()));
        self
    }

    /// Keys of the pool of every version so far, as `timeouts: { connect: 1s }`.
    pub fn pools(mut self, text: &str) -> Self {
        for version in &mut self.versions {
            version.4 = format!("{}          {text}\n", version.4);
        }
        self
    }

    /// No endpoint is ever set aside: for tests that want every failure seen.
    pub fn never_eject(self) -> Self {
        self.pools("ejection: { at_most: 0% }")
    }

    /// Lines at the level of the service; written with four blanks before each.
    pub fn key(mut self, text: &str) -> Self {
        for line in text.lines() {
            writeln!(self.extra, "    {line}").unwrap();
        }
        self
    }

    fn write(&self, text: &mut String) {
        writeln!(text, "  - name: {}", self.name).unwrap();
        if !self.routes.is_empty() {
            text.push_str("    routes:\n");
            for route in &self.routes {
                writeln!(text, "      - {{ {route} }}").unwrap();
            }
        }
        text.push_str("    versions:\n");
        for (name, role, weight, ports, pool) in &self.versions {
            let endpoints: Vec<String> = ports.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
            writeln!(
                text,
                "      - name: {name}\n        role: {role}\n        weight: {weight}\n        pool:"
            )
            .unwrap();
            writeln!(text, "          endpoints: [{}]", endpoints.join(", ")).unwrap();
            text.push_str(pool);
        }
        text.push_str(&self.extra);
    }
}
