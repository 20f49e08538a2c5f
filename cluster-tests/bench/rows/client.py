"""Clients that note when the first and the last byte of an answer came, and whether it was the right one."""

import dataclasses
import selectors
import socket
import time

from rows import origin

HOST = "bench.example"
# Nobody waits longer for anything.
PATIENCE_S = 30


@dataclasses.dataclass(frozen=True)
class Ask:
    # (host, port)
    address: tuple
    target: str
    # From the beginning of the play.
    at_ms: float = 0


@dataclasses.dataclass
class Answer:
    # 0 = there was none.
    status: int = 0
    fields: dict = dataclasses.field(default_factory=dict)
    body: bytes = b""
    # From the request to the first byte of the body, and to the last one.
    first_ms: float = PATIENCE_S * 1000
    total_ms: float = PATIENCE_S * 1000
    is_whole: bool = False

    def is_right(self, target):
        return self.is_whole and self.status == 200 and self.body == origin.body(target)


def play(asks, actions=()):
    """The answers to all `asks`, each on a connection of its own; `actions` are (at_ms, what to call) meanwhile."""
    script = [(ask.at_ms, number, ask) for number, ask in enumerate(asks)]
    script = sorted(script + [(at_ms, -1, act) for at_ms, act in actions], key=lambda item: item[:2], reverse=True)
    # Connected before it begins: what is measured is the answer. Those of later are connected then.
    early = {number: connect(ask) for at_ms, number, ask in script if number >= 0 and at_ms == 0}
    exchanges = {}
    with selectors.DefaultSelector() as selector:
        begin = time.monotonic()
        while script or selector.get_map():
            now = time.monotonic()
            while script and script[-1][0] <= (now - begin) * 1000:
                _, number, what = script.pop()
                if number < 0:
                    what()
                    continue
                exchanges[number] = exchange = Exchange(what, early.get(number) or connect(what))
                if exchange.connection:
                    selector.register(exchange.connection, selectors.EVENT_READ, exchange)
            pause = script[-1][0] / 1000 - (now - begin) if script else 1
            for key, _ in selector.select(max(pause, 0)):
                if key.data.read():
                    selector.unregister(key.fileobj)
                    key.fileobj.close()
            if now - begin > PATIENCE_S:
                break
        for key in list(selector.get_map().values()):
            key.fileobj.close()
    return [exchanges[number].answer if number in exchanges else Answer() for number in range(len(asks))]


def connect(ask, source=None):
    try:
        connection = socket.create_connection(ask.address, 2, source)
    except OSError:
        return None
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class Exchange:
    """A request that was sent, and as much of its answer as is there."""

    def __init__(self, ask, connection, closes=True):
        self.answer, self.connection, self.received, self.body_at = Answer(), connection, bytearray(), None
        self.since = time.monotonic()
        end = "Connection: close\r\n" if closes else ""
        try:
            if connection:
                connection.sendall(f"GET {ask.target} HTTP/1.1\r\nHost: {HOST}\r\n{end}\r\n".encode())
        except OSError:
            self.connection = None

    def read(self):
        """Takes what has come; True = nothing more will."""
        try:
            some = self.connection.recv(262_144)
        except OSError:
            some = b""
        self.received += some
        now_ms = (time.monotonic() - self.since) * 1000
        if self.body_at is None and b"\r\n\r\n" in self.received:
            self.read_head()
        if self.body_at is None:
            return not some
        if self.answer.first_ms > now_ms and len(self.received) > self.body_at:
            self.answer.first_ms = now_ms
        if self.read_body(is_end=not some):
            self.answer.total_ms, self.answer.is_whole = now_ms, True
        return self.answer.is_whole or not some

    def read_head(self):
        self.body_at = self.received.index(b"\r\n\r\n") + 4
        lines = bytes(self.received[: self.body_at]).decode("latin-1").split("\r\n")
        self.answer.status = int(lines[0].split(" ")[1])
        fields = (line.partition(":") for line in lines[1:] if line)
        self.answer.fields = {name.lower(): value.strip() for name, _, value in fields}

    def read_body(self, is_end):
        """True = it is whole."""
        rest = self.received[self.body_at :]
        if "content-length" in self.answer.fields:
            self.answer.body = bytes(rest)
            return len(rest) >= int(self.answer.fields["content-length"])
        if self.answer.fields.get("transfer-encoding") == "chunked":
            if not rest.endswith(b"0\r\n\r\n"):
                return False
            self.answer.body = joined(bytes(rest))
            return True
        self.answer.body = bytes(rest)
        return is_end


def joined(chunks):
    """What chunks carry."""
    body = b""
    while True:
        size, _, rest = chunks.partition(b"\r\n")
        length = int(size.split(b";")[0], 16)
        if length == 0:
            return body
        body, chunks = body + rest[:length], rest[length + 2 :]


class Connection:
    """One connection, for one request after the other; `source` is the address it comes from."""

    def __init__(self, address, source=None):
        self.address, self.source, self.connection = address, source, None

    def ask(self, target):
        ask = Ask(self.address, target)
        self.connection = self.connection or connect(ask, self.source)
        if not self.connection:
            return Answer()
        self.connection.settimeout(PATIENCE_S)
        exchange = Exchange(ask, self.connection, closes=False)
        while exchange.connection and not exchange.read():
            pass
        if not exchange.answer.is_whole or exchange.answer.fields.get("connection") == "close":
            self.close()
        return exchange.answer

    def close(self):
        if self.connection:
            self.connection.close()
        self.connection = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
