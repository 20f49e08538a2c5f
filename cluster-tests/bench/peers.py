"""The proxies that are compared: for each the configuration that an operator who wants speed would write, on one CPU.

A peer is a function (place, origin, front) -> argv. `place` is a directory of its own, `origin` is "host:port", `front`
says what is listened on: port, certificate and key when it is TLS, and whether answers are cached. None = cannot do it.
"""

import dataclasses
import os
import pathlib
import re
import shutil
import subprocess


@dataclasses.dataclass(frozen=True)
class Front:
    port: int
    cached: bool
    chain: str = ""
    key: str = ""
    # Hosts with five routes each beside the one that is asked: of Shoal only.
    hosts: int = 0
    # nginx lets one request fill at a time, and the others look every 500 ms whether it has.
    lock: bool = True
    # What the cache may take of memory.
    room_mib: int = 256
    # And of disk, as Shoal's flag says it; empty = what is usual.
    disk: str = ""

    @property
    def tls(self):
        return bool(self.chain)

    @property
    def url(self):
        return f"https://localhost:{self.port}" if self.tls else f"http://127.0.0.1:{self.port}"


def nginx_config(place, server, http=""):
    scratch = " ".join(
        f"{kind}_temp_path {place}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = place / "nginx.conf"
    config.write_text(
        f"daemon off; worker_processes 1; pid {place}/pid; error_log {place}/errors;\n"
        "events { worker_connections 19000; }\n"
        "http { access_log off; sendfile on; tcp_nodelay on; open_file_cache max=1000 inactive=10m;\n"
        f"  keepalive_timeout 10m; keepalive_requests 100000000; {scratch} {http}\n"
        f"  server {{ {server} }}\n}}\n"
    )
    return ["nginx", "-p", str(place), "-c", str(config)]


def origin(place, port, root):
    return nginx_config(
        place,
        f"listen 127.0.0.1:{port} backlog=4096; root {root}; add_header Cache-Control 'public, max-age=3600';"
        # As many objects of 1 KiB as anybody asks for.
        " location /many/ { try_files /1k =404; } location = /requests { stub_status; }",
    )


def nginx(place, origin, front):
    http = f"upstream o {{ server {origin}; keepalive 256; keepalive_requests 100000000; }}"
    listen = f"listen 127.0.0.1:{front.port} backlog=4096"
    if front.tls:
        listen += " ssl http2"
        http += f" ssl_certificate {front.chain}; ssl_certificate_key {front.key};"
    location = 'proxy_pass http://o; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;'
    if front.cached:
        zone, files = max(32, front.room_mib // 16), 2 * front.room_mib
        http += f" proxy_cache_path {place}/objects levels=1:2 keys_zone=objects:{zone}m max_size={files}m;"
        location += " proxy_cache objects; proxy_cache_use_stale updating; proxy_cache_background_update on;"
        location += " proxy_cache_lock on;" if front.lock else ""
    return nginx_config(place, f"{listen}; location / {{ {location} }}", http)


def haproxy(place, origin, front):
    bind = f"bind 127.0.0.1:{front.port}"
    if front.tls:
        both = place / "both.pem"
        both.write_text(pathlib.Path(front.chain).read_text() + pathlib.Path(front.key).read_text())
        bind += f" ssl crt {both} alpn h2,http/1.1"
    cache, use = "", ""
    if front.cached:
        cache = f"cache objects\n  total-max-size {front.room_mib}\n  max-object-size 2000000\n  max-age 3600\n"
        use = "  http-request cache-use objects\n  http-response cache-store objects\n"
    config = place / "haproxy.cfg"
    config.write_text(
        f"global\n  nbthread 1\n  maxconn 12000\n  no strict-limits\n{cache}"
        "defaults\n  mode http\n  timeout connect 3s\n  timeout client 10m\n  timeout server 10m\n  http-reuse always\n"
        f"frontend in\n  {bind}\n{use}  default_backend out\n"
        f"backend out\n  server one {origin} pool-max-conn 256\n"
    )
    return ["haproxy", "-db", "-f", str(config)]


def varnish(place, origin, front):
    if front.tls:
        return None
    host, port = origin.split(":")
    program = f'vcl 4.1;\nbackend one {{ .host = "{host}"; .port = "{port}"; }}\n'
    if not front.cached:
        program += "sub vcl_recv { return (pass); }\n"
    config = place / "site.vcl"
    config.write_text(program)
    argv = ["varnishd", "-F", "-n", str(place / "work"), "-f", str(config), "-s", f"malloc,{front.room_mib}m"]
    return argv + ["-a", f"127.0.0.1:{front.port}", "-p", "thread_pools=1", "-p", "thread_pool_min=100", "-p", "timeout_idle=600"]


def caddy(place, origin, front):
    if front.cached:
        return None
    tls = f"tls {front.chain} {front.key}" if front.tls else ""
    config = place / "Caddyfile"
    config.write_text(
        f"{{\n  admin off\n  auto_https off\n}}\n{front.url} {{\n  {tls}\n"
        f"  reverse_proxy {origin} {{\n    transport http {{\n      keepalive_idle_conns_per_host 256\n    }}\n  }}\n}}\n"
    )
    setting = ["env", "GOMAXPROCS=1", f"XDG_DATA_HOME={place}", f"XDG_CONFIG_HOME={place}"]
    return [*setting, "caddy", "run", "--config", str(config), "--adapter", "caddyfile"]


def shoal(place, origin, front, free_port):
    listener = f'address: "127.0.0.1:{front.port}", protocol: http'
    certificates = ""
    if front.tls:
        listener += "s, certificates: [bench]"
        certificates = f'certificates: {{ bench: {{ chain_file: "{front.chain}", key_file: "{front.key}" }} }}\n'
    site = place / "site.yaml"
    others = "".join(
        f"  r{host}-{path}: {{ hosts: [h{host}.example], path_prefix: /{path}/, upstream: origin }}\n"
        for host in range(front.hosts)
        for path in range(5)
    )
    site.write_text(
        f"listeners: {{ web: {{ {listener} }} }}\n{certificates}"
        f"routes:\n  all: {{ path_prefix: /, upstream: origin{', cache: {}' if front.cached else ''} }}\n{others}"
        f'upstreams: {{ origin: {{ endpoints: ["{origin}"] }} }}\n'
    )
    argv = [shoal_binary(), "run", "--data-dir", str(place / "data"), "--workers", "1", "--apply", str(site)]
    argv += ["--cache-memory", f"{front.room_mib}MiB", "--drain-delay", "0s"]
    argv += ["--cache-disk", front.disk] if front.disk and has_disk() else []
    for flag in ("--cluster-addr", "--admin-addr", "--ops-addr"):
        argv += [flag, f"127.0.0.1:{free_port()}"]
    return argv


def has_disk():
    """This Shoal keeps objects on disk, too."""
    run = subprocess.run([shoal_binary(), "run", "--help"], capture_output=True, text=True)
    return "--cache-disk " in run.stdout


def shoal_binary():
    built = pathlib.Path(__file__).resolve().parents[2] / "target" / "dist" / "shoal"
    return os.environ.get("SHOAL_BIN", str(built))


PROGRAMS = {
    "shoal": shoal_binary(),
    "nginx": "nginx",
    "haproxy": "haproxy",
    "varnish": "varnishd",
    "caddy": "caddy",
    "etcd": "etcd",
}
ARGV = {"shoal": shoal, "nginx": nginx, "haproxy": haproxy, "varnish": varnish, "caddy": caddy}
VERSION = {
    "shoal": ["version"],
    "nginx": ["-v"],
    "haproxy": ["-v"],
    "varnish": ["-V"],
    "caddy": ["version"],
    "etcd": ["--version"],
}


def installed(name):
    return shutil.which(PROGRAMS[name]) is not None


def version(name):
    run = subprocess.run([PROGRAMS[name], *VERSION[name]], capture_output=True, text=True)
    found = re.search(r"\d+\.\d+[\w.+-]*", run.stdout + run.stderr)
    return f"{name} {found.group() if found else 'of unknown version'}"
