"""Three nodes of Shoal on one machine, each on addresses of its own."""

import contextlib
import dataclasses
import json
import os
import pathlib
import random
import signal
import subprocess

import measure
import peers
from rows import client, origin

NODES = 3
# For one to answer, and for all to have found each other.
START_S, SETTLE_S = 20, 60
LOOPBACK = "127.77"
# Lines of a node's log that are shown when something goes wrong.
COMPLAINTS = 8


@dataclasses.dataclass
class Node:
    name: str
    ip: str
    ports: dict
    place: pathlib.Path
    process: subprocess.Popen = None

    @property
    def http(self):
        return self.ip, self.ports["http"]

    @property
    def socket(self):
        return str(self.place / "data" / "admin.sock")

    def argv(self, *more):
        at = lambda port: f"{self.ip}:{self.ports[port]}"
        argv = [peers.shoal_binary(), "run", "--data-dir", str(self.place / "data"), "--name", self.name]
        argv += ["--cluster-addr", at("cluster"), "--admin-addr", at("admin"), "--ops-addr", at("ops")]
        argv += ["--listen-ip", self.ip, "--workers", "1", "--drain-delay", "0s", "--drain-timeout", "1s"]
        return argv + list(more)

    def verb(self, *words, before=()):
        """What the operator's command prints; nothing when it fails. `before` goes before it."""
        argv = [*before, peers.shoal_binary(), "--socket", self.socket, *words]
        run = subprocess.run(argv, capture_output=True, text=True, timeout=START_S)
        return run.stdout.strip() if run.returncode == 0 else ""

    def status(self):
        return json.loads(self.verb("-o", "json", "status") or "{}")

    def complaints(self):
        """The last of what it warned of."""
        lines = (self.place / "output").read_text().splitlines()
        warned = [line for line in lines if " WARN " in line or " ERROR " in line]
        return "\n".join(f"{self.name}: {line}" for line in warned[-COMPLAINTS:])

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def site(listen, origin_address):
    return (
        f'listeners: {{ web: {{ address: "{listen}", protocol: http }} }}\n'
        "routes:\n  all: { path_prefix: /, upstream: origin, cache: {} }\n"
        f'upstreams: {{ origin: {{ endpoints: ["{origin_address}"] }} }}\n'
    )


@contextlib.contextmanager
def started(stage, label, origin_address, is_warm=True, count=NODES, cpu=measure.ANY_CPU):
    """Nodes on `cpu` that serve hits; with an origin that is not there they cannot show it."""
    with contextlib.ExitStack() as stack:
        nodes = planned(stack.enter_context(stage.room(label)))[:count]
        assembled(stack, nodes, origin_address, cpu=cpu)
        for node in nodes if is_warm else []:
            measure.wait_for(f"{node.name} serves hits", START_S, lambda: serves_hits(node))
        try:
            yield nodes
        except Exception as error:
            raise RuntimeError(f"{error}\n" + "\n".join(node.complaints() for node in nodes)) from error


def planned(place):
    """Nodes that have addresses and do not run yet."""
    block = random.randrange(1, 255)
    ports = {name: measure.free_port() for name in ("http", "cluster", "admin", "ops")}
    return [Node(f"n{n}", f"{LOOPBACK}.{block}.{n}", ports, place / f"n{n}") for n in range(1, NODES + 1)]


def assembled(stack, nodes, origin_address, into=lambda node: [], cpu=measure.ANY_CPU):
    """Starts the nodes one by one and waits until all count on each other; `into(node)` goes before their commands."""
    first = nodes[0]
    site_file = first.place.parent / "site.yaml"
    site_file.write_text(site(f":{first.ports['http']}", origin_address))
    join = ["--apply", str(site_file)]
    for node in nodes:
        node.place.mkdir()
        argv = into(node) + node.argv(*join)
        node.process = stack.enter_context(measure.started(argv, cpu, node.place))
        if node is first:
            measure.wait_for("the first node answers", START_S, lambda: node.verb("status"))
            token = node.verb("token", "create", "--uses", str(len(nodes)))
            join = ["--join", f"{node.ip}:{node.ports['cluster']}", "--token", token]
    for node in nodes:
        measure.wait_for(f"{node.name} counts on all", SETTLE_S, lambda: counts_on_all(node, len(nodes)))


def counts_on_all(node, count):
    if node.process.poll() is not None:
        raise RuntimeError(f"{node.name} ended: {(node.place / 'output').read_text()[-2000:]}")
    status = node.status()
    members = status.get("nodes", [])
    voting = sum(member["role"] in ("leader", "voter") for member in members)
    alive = sum(member["state"] == "alive" for member in members)
    return status.get("quorum") is True and alive == count and voting == count


def serves_hits(node):
    wanted = origin.target(f"warm-{node.name}", cache="max-age=3600")
    with client.Connection(node.http) as connection:
        return "; hit" in [connection.ask(wanted), connection.ask(wanted)][1].fields.get("cache-status", "")
