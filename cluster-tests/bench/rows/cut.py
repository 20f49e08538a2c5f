"""Three nodes, one of which can be cut off from the others: by nft, in a network namespace of their own; where that may
not be done, by SIGSTOP, which looks the same from outside."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess

import measure
from rows import cluster, origin

# Of what a node sends: all share one loopback, and the group of its process says which one it was.
GROUP = 7701
# What is dropped on its way out is an error to who sends it; what is dropped on its way in is lost, as on a wire.
BLOCKED = """table ip bench {{
  chain out {{ type filter hook output priority 0; meta skgid {group} meta mark set {group}; }}
  chain in {{
    type filter hook input priority 0;
    meta mark {group} ip daddr != {ip} drop;
    meta mark != {group} ip daddr {ip} drop;
  }}
}}"""
ORIGIN_PORT = 9000
# One of so many objects lies on the node that is asked.
OBJECTS = 20


@contextlib.contextmanager
def started(stage, label):
    """A cluster of which a node can be cut off."""
    with contextlib.ExitStack() as stack:
        # Of nodes that are stopped nothing is asked.
        origin_address = f"127.0.0.1:{ORIGIN_PORT}"
        if not can_part():
            nodes = stack.enter_context(cluster.started(stage, label, origin_address, is_warm=False))
            yield Parted(nodes, stopped, "SIGSTOP")
            return
        place = stack.enter_context(stage.room(label))
        namespace = stack.enter_context(network(place))
        argv = entering(namespace) + origin.script("origin", str(ORIGIN_PORT))
        stack.enter_context(measure.started(argv, measure.ANY_CPU, place))
        nodes = cluster.planned(place)
        groups = {node.name: GROUP + n for n, node in enumerate(nodes)}
        into = lambda node: [*entering(namespace), "setpriv", "--regid", str(groups[node.name]), "--clear-groups"]
        cluster.assembled(stack, nodes, origin_address, into)
        apart = lambda node: blocked(namespace, groups[node.name], node.ip)
        yield Parted(nodes, apart, "nft in a network namespace", into)


@dataclasses.dataclass
class Parted:
    nodes: list
    # (node) -> a context in which it is cut off
    apart: object
    how: str
    # (node) -> what goes before the command of one that asks it while it is; None = nobody can.
    beside: object = None

    @contextlib.contextmanager
    def watched(self, node):
        """A list that is filled when this ends: when the node was asked for an object that it had, and gave it."""
        answers = []
        if not self.beside:
            yield answers
            return
        targets = [origin.target(f"watched/{n}", cache="max-age=3600") for n in range(OBJECTS)]
        argv = self.beside(node) + origin.script("watch", *map(str, node.http), *targets)
        room = node.place / "watch"
        room.mkdir()
        with measure.started(argv, measure.ANY_CPU, room):
            measure.wait_for(f"{node.name} has an object", 20, lambda: (room / "output").stat().st_size)
            yield answers
        answers.extend(float(line) for line in (room / "output").read_text().split())


def can_part():
    """A namespace can be made here, and nft works in it."""
    if not all(shutil.which(program) for program in ("unshare", "nsenter", "setpriv", "ip", "nft")):
        return False
    rules = BLOCKED.format(group=GROUP, ip="127.0.0.1").encode()
    return subprocess.run(["unshare", "-n", "nft", "-f", "-"], input=rules, capture_output=True).returncode == 0


@contextlib.contextmanager
def network(place):
    """The pid of a process that keeps a new network namespace, which goes when it ends."""
    with measure.started(["unshare", "-n", "sleep", "3600"], measure.ANY_CPU, place) as holder:
        comm = pathlib.Path(f"/proc/{holder.pid}/comm")
        measure.wait_for("a network namespace", 5, lambda: comm.read_text() == "sleep\n")
        inside(holder.pid, ["ip", "link", "set", "lo", "up"])
        yield holder.pid


def entering(pid):
    return ["nsenter", "-t", str(pid), "-n", "--"]


def inside(pid, argv, text=""):
    """What a command prints there."""
    run = subprocess.run(entering(pid) + argv, input=text, capture_output=True, text=True)
    if run.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: {run.stderr}")
    return run.stdout


@contextlib.contextmanager
def blocked(namespace, group, ip):
    """Nothing that the node sends arrives, nor anything that it is sent."""
    inside(namespace, ["nft", "-f", "-"], BLOCKED.format(group=group, ip=ip))
    try:
        yield
    finally:
        inside(namespace, ["nft", "delete", "table", "ip", "bench"])


@contextlib.contextmanager
def stopped(node):
    os.killpg(node.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(node.process.pid, signal.SIGCONT)
