"""Three members of etcd on one machine, as they come out of the box."""

import base64
import contextlib
import http.client
import json
import time

import measure

# For one to answer.
START_S = 20


class Member:
    """A connection to a member, over the JSON that it takes beside gRPC."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_S)

    def put(self, key, value):
        """Seconds until it has acknowledged."""
        text = {name: base64.b64encode(said.encode()).decode() for name, said in (("key", key), ("value", value))}
        since = time.monotonic()
        self.connection.request("POST", "/v3/kv/put", json.dumps(text))
        answer = self.connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"etcd answered {answer.status}")
        return time.monotonic() - since

    def answers(self):
        try:
            return self.put("ready", "yes") >= 0
        except (OSError, http.client.HTTPException, RuntimeError):
            self.connection.close()
            return False


@contextlib.contextmanager
def started(stage, label):
    ports = [(measure.free_port(), measure.free_port()) for _ in range(3)]
    cluster = ",".join(f"m{n}=http://127.0.0.1:{peer}" for n, (_, peer) in enumerate(ports))
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(stage.room(label))
        for n, (client, peer) in enumerate(ports):
            own = place / f"m{n}"
            own.mkdir()
            at = lambda port: f"http://127.0.0.1:{port}"
            argv = ["etcd", "--name", f"m{n}", "--data-dir", str(own / "data"), "--initial-cluster", cluster]
            argv += ["--listen-client-urls", at(client), "--advertise-client-urls", at(client)]
            argv += ["--listen-peer-urls", at(peer), "--initial-advertise-peer-urls", at(peer)]
            stack.enter_context(measure.started(argv, measure.ANY_CPU, own))
        members = [Member(client) for client, _ in ports]
        for n, member in enumerate(members):
            measure.wait_for(f"member {n} of etcd answers", START_S, member.answers)
        yield members
