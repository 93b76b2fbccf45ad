//! Listeners, the access log, limits, admin: what belongs to no service.

use super::{Context, MAX_LIST, MAX_LISTENERS, text, tls};
use crate::config::decode::List;
use crate::config::problem::{Path, shown};
use crate::config::scalars::Switch;
use crate::config::schema::{self, Root};
use crate::config::snapshot::{AccessLog, Admin, AdminHost, Limits, Listener, LogPath};
use crate::config::units::Share;
use ipnet::IpNet;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

impl Context<'_> {
    pub(super) fn listeners(&mut self, root: &Root) -> Option<Box<[Listener]>> {
        let path = Path::ROOT.key("listeners");
        let listeners = root.listeners.get()?;
        if !self.count(listeners, 1, MAX_LISTENERS, "listeners", &path) {
            return None;
        }
        let mut taken: HashMap<SocketAddr, usize> = HashMap::new();
        listeners.compile(|index, listener| {
            let here = path.index(index);
            let tls = self.listener_tls(listener, &here);
            let address_path = here.key("address");
            let address = self.socket_address(listener.address.get()?, &address_path)?;
            if address.port() != 0
                && let Some(first) = taken.insert(address, index)
            {
                let message = format!("listeners[{first}] has the address {address} already");
                self.problems.add(&address_path, message);
                return None;
            }
            Some(Listener {
                address,
                proxy_protocol: listener.proxy_protocol,
                tls: tls?,
                redirect_to_https: listener.redirect_to_https.0,
                hsts: listener.tls.as_ref().and_then(tls::hsts),
            })
        })
    }

    fn socket_address(&mut self, written: &str, path: &Path<'_>) -> Option<SocketAddr> {
        match text::listen_address(written) {
            Ok(address) => Some(address),
            Err((message, suggestion)) => {
                let message = format!("{message}, found {}", shown(written));
                self.problems.add_with(path, message, suggestion);
                None
            }
        }
    }

    /// The outer `None`: something is wrong; the inner: off.
    pub(super) fn access_log(&mut self, root: &Root) -> Option<Option<AccessLog>> {
        let Some(Switch::On(log)) = &root.access_log else {
            return Some(None);
        };
        let here = Path::ROOT.key("access_log");
        let path = match log.path.as_str() {
            "stdout" => LogPath::Stdout,
            "stderr" => LogPath::Stderr,
            file => LogPath::File(self.file_path(file, &here.key("path"))?),
        };
        Some(Some(AccessLog {
            path,
            sample: log.sample.fraction(),
        }))
    }

    pub(super) fn tracing(&mut self, root: &Root) {
        let Some(tracing) = &root.tracing else { return };
        let path = Path::ROOT.key("tracing");
        self.unsupported(&path, "no spans are sent");
        if let Some(url) = tracing.otlp.get() {
            self.url(url, &path.key("otlp"));
        }
        if tracing.sample == Share::ZERO {
            let message = "`0%` traces nothing: leave `tracing` out to turn it off";
            self.problems.add(&path.key("sample"), message);
        }
    }

    /// Networks in CIDR form; a bare address is a network of one.
    pub(super) fn networks(&mut self, networks: &List<String>, path: &Path<'_>) -> Option<Box<[IpNet]>> {
        if !self.count(networks, 0, MAX_LIST, "networks", path) {
            return None;
        }
        networks.compile(|index, written| {
            let network = match written.parse::<IpAddr>() {
                Ok(address) => Some(IpNet::from(address)),
                Err(_) => written.parse::<IpNet>().ok().map(|network| network.trunc()),
            };
            if network.is_none() {
                let message = format!(
                    "expected an IP address or a network such as `10.0.0.0/8` or `fd00::/8`, found {}",
                    shown(written)
                );
                self.problems.add(&path.index(index), message);
            }
            network
        })
    }

    pub(super) fn limits(&mut self, limits: &schema::Limits) -> Option<Limits> {
        let max_head = usize::try_from(limits.max_head.0)
            .ok()
            .filter(|bytes| (4 << 10..=256 << 10).contains(bytes));
        if max_head.is_none() {
            let path = Path::ROOT.key("limits");
            self.problems
                .add(&path.key("max_head"), "expected a size from `4KiB` to `256KiB`");
        }
        Some(Limits {
            max_connections: usize::try_from(limits.max_connections.0).ok()?,
            header_timeout: limits.header_timeout.0,
            request_timeout: limits.request_timeout.0,
            keepalive_timeout: limits.keepalive_timeout.0,
            connection_age: limits.connection_age.0,
            max_streams: u32::try_from(limits.max_streams.0).ok()?,
            max_body: limits.max_body.0,
            max_head: max_head?,
            drain_timeout: limits.drain_timeout.0,
            drain_delay: limits.drain_delay.0,
            upgrade_timeout: limits.upgrade_timeout.0,
        })
    }

    pub(super) fn admin(&mut self, admin: &schema::Admin) -> Option<Admin> {
        let path = Path::ROOT.key("admin");
        let mut complete = true;
        let socket = admin.socket.as_ref().and_then(|socket| {
            let here = path.key("socket");
            let socket = self.file_path(socket, &here);
            complete &= socket.is_some();
            socket
        });
        let token_file = admin.token_file.as_ref().and_then(|file| {
            let file = self.named_file(file, &path.key("token_file"));
            complete &= file.is_some();
            file
        });
        let address = admin.address.as_ref().and_then(|address| {
            let address = self.socket_address(address, &path.key("address"));
            complete &= address.is_some();
            address
        });
        let hosts = self.admin_hosts(&admin.hosts, &path.key("hosts"));
        let admin = Admin {
            address,
            socket,
            socket_mode: admin.socket_mode.0,
            token_file,
            hosts: hosts?,
        };
        complete.then_some(admin)
    }

    fn admin_hosts(&mut self, hosts: &List<String>, path: &Path<'_>) -> Option<Box<[AdminHost]>> {
        if !self.count(hosts, 0, MAX_LIST, "hosts", path) {
            return None;
        }
        hosts.compile(|index, written| {
            let host = text::host_and_port(written);
            if host.is_none() {
                let message = format!(
                    "expected a name or an address as in `Host`, such as `admin.example.com` or `10.0.0.1:9900`, found {}",
                    shown(written)
                );
                self.problems.add(&path.index(index), message);
            }
            let (name, port) = host?;
            Some(AdminHost {
                name: name.into(),
                port,
            })
        })
    }

    /// The admin interface must not be on a listener's address.
    pub(super) fn admin_beside_listeners(&mut self, root: &Root) {
        let parse = |text: &str| text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0);
        let Some(admin) = root.admin.address.as_deref().and_then(parse) else {
            return;
        };
        let Some(listeners) = root.listeners.get() else { return };
        let same = listeners
            .iter()
            .find(|(_, listener)| listener.address.get().and_then(|text| parse(text)) == Some(admin));
        if let Some((index, _)) = same {
            let path = Path::ROOT.key("admin");
            let message = format!("listeners[{index}] has the address {admin} already");
            self.problems.add(&path.key("address"), message);
        }
    }
}
