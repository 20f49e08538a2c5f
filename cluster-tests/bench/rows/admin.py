"""Calls of a node's admin service, over its socket: gRPC by hand, since starting the operator's command takes longer
than what is measured."""

import os
import socket
import struct
import time

import idle

# In HPACK's table of names.
PATH, AUTHORITY, CONTENT_TYPE = 4, 1, 31
SERVICE = "/shoal.admin.v1.AdminService/"
# Fields of PurgeRequest, and a value of AckState.
URL, HOST, REQUEST_ID = 1, 3, 10
WAIT_COMPLETE = bytes([7 << 3, 1])
APPLIED = 1
# Fields of ApplyRequest.
SITE, APPLY_ID = 1, 6
PATIENCE_S = 30


class Admin:
    """A connection to the socket of a node."""

    def __init__(self, path):
        # A socket's path is short; where the temporary directory lies is not for us to say.
        directory = os.open(os.path.dirname(path), os.O_PATH)
        try:
            self.connection = socket.socket(socket.AF_UNIX)
            self.connection.settimeout(PATIENCE_S)
            self.connection.connect(f"/proc/self/fd/{directory}/{os.path.basename(path)}")
        finally:
            os.close(directory)
        self.pending, self.stream = b"", -1
        self.connection.sendall(idle.PREFACE + idle.frame(idle.SETTINGS, 0, 0))

    def purge(self, scope, what):
        """(seconds until every live node had acknowledged, states of the nodes, how many were not waited for)"""
        named = f"bench-{os.getpid()}-{time.monotonic_ns()}"
        since = time.monotonic()
        fields = self.call("Purge", text_field(scope, what) + WAIT_COMPLETE + text_field(REQUEST_ID, named))
        took = time.monotonic() - since
        states = [dict(fields_of(value)).get(3, 0) for number, value in fields if number == 2]
        return took, states, sum(number == 4 for number, _ in fields)

    def apply(self, site):
        """The same for a change of the site, JSON laid over what is there; of fewer bytes than a connection takes at once."""
        named = f"bench-{os.getpid()}-{time.monotonic_ns()}"
        since = time.monotonic()
        fields = self.call("Apply", text_field(SITE, site) + text_field(APPLY_ID, named))
        took = time.monotonic() - since
        states = [dict(fields_of(value)).get(3, 0) for number, value in fields if number == 3]
        return took, states, sum(number == 6 for number, _ in fields)

    def copies(self, url):
        """How many of the owners of an object hold it."""
        fields = self.call("CacheLocate", text_field(1, url))
        locations = [dict(fields_of(value)) for number, value in fields if number == 2]
        return sum(location.get(3) != b"none" and location.get(4) == b"held" for location in locations)

    def call(self, method, asked):
        """The fields of the answer."""
        self.stream += 2
        head = b"\x83\x86" + literal(PATH, SERVICE + method) + literal(AUTHORITY, "localhost")
        head += literal(CONTENT_TYPE, "application/grpc") + b"\x00" + text("te") + text("trailers")
        message = b"\x00" + struct.pack(">I", len(asked)) + asked
        self.connection.sendall(
            idle.frame(idle.HEADERS, idle.END_HEADERS, self.stream, head)
            + idle.frame(idle.DATA, idle.END_STREAM, self.stream, message)
        )
        answer = self.answer()
        if len(answer) < 5:
            raise RuntimeError(f"{method} was refused: is there a quorum?")
        return list(fields_of(answer[5:]))

    def answer(self):
        """The data of the stream that is open."""
        data = b""
        while True:
            kind, flags, stream, payload = self.frame()
            if kind in (idle.SETTINGS, idle.PING) and not flags & idle.ACK:
                echo = payload if kind == idle.PING else b""
                self.connection.sendall(idle.frame(kind, idle.ACK, 0, echo))
            elif kind in (idle.GOAWAY, idle.RST_STREAM):
                raise ConnectionError("the node ended the call")
            elif kind == idle.DATA and stream == self.stream:
                data += payload
            if stream == self.stream and kind in (idle.DATA, idle.HEADERS) and flags & idle.END_STREAM:
                return data

    def frame(self):
        """The next one: kind, flags, stream, payload."""
        while len(self.pending) < 9 or len(self.pending) < 9 + int.from_bytes(self.pending[:3], "big"):
            self.pending += idle.some(self.connection)
        length, kind, flags = int.from_bytes(self.pending[:3], "big"), self.pending[3], self.pending[4]
        stream, payload = struct.unpack(">I", self.pending[5:9])[0], self.pending[9 : 9 + length]
        self.pending = self.pending[9 + length :]
        return kind, flags, stream, payload

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()


def text(words):
    return bytes([len(words)]) + words.encode()


def literal(index, words):
    """A header field whose name is in HPACK's table, not to be remembered."""
    # The index has four bits; 15 and more go on in the next byte.
    name = bytes([index]) if index < 15 else bytes([15, index - 15])
    return name + text(words)


def text_field(number, words):
    """A string field of a protobuf message."""
    content, length = words.encode(), b""
    left = len(content)
    while left > 0x7F:
        length, left = length + bytes([left & 0x7F | 0x80]), left >> 7
    return bytes([number << 3 | 2]) + length + bytes([left]) + content


def fields_of(message):
    """(number, value) of each field of a protobuf message."""
    at = 0
    while at < len(message):
        tag, at = varint(message, at)
        if tag & 7 == 0:
            value, at = varint(message, at)
        else:
            length, at = varint(message, at)
            value, at = message[at : at + length], at + length
        yield tag >> 3, value


def varint(message, at):
    value = shift = 0
    while True:
        byte = message[at]
        value, at, shift = value | (byte & 0x7F) << shift, at + 1, shift + 7
        if byte < 0x80:
            return value, at
