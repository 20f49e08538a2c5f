"""Connections that have asked once and then say nothing: what they cost the proxy, by what its memory grows."""

import contextlib
import resource
import socket
import ssl
import struct
import urllib.parse

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
END_STREAM, END_HEADERS, ACK = 1, 4, 1


@contextlib.contextmanager
def http1(url, count):
    """`count` connections of HTTP/1.1, each with one answer behind it; as many are wrong as the value says."""
    parts = urllib.parse.urlsplit(url)
    request = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
    with opened(parts, count, None) as connections:
        yield sum(not answered(connection, request) for connection in connections)


@contextlib.contextmanager
def http2(url, count):
    """The same over TLS, by HTTP/2."""
    parts = urllib.parse.urlsplit(url)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with opened(parts, count, context) as connections:
        yield sum(not answered_h2(connection, parts) for connection in connections)


@contextlib.contextmanager
def opened(parts, count, tls):
    allow_descriptors(count + 100)
    with contextlib.ExitStack() as stack:

        def connect():
            connection = stack.enter_context(socket.create_connection((parts.hostname, parts.port), 20))
            return stack.enter_context(tls.wrap_socket(connection)) if tls else connection

        # One after the other: none is idle in a queue.
        yield (connect() for _ in range(count))


def allow_descriptors(wanted):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))


def answered(connection, request):
    connection.sendall(request)
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += some(connection)
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")), 0)
    while len(body) < length:
        body += some(connection)
    return lines[0].split(b" ")[1] == b"200" and b"connection: close" not in lines


def answered_h2(connection, parts):
    literal = lambda index, text: bytes([index, len(text)]) + text.encode()
    # GET and https are in HPACK's table; path and authority have their names from it.
    head = b"\x82\x87" + literal(0x04, parts.path) + literal(0x01, parts.netloc)
    connection.sendall(PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, END_STREAM | END_HEADERS, 1, head))
    pending, status = b"", None
    while True:
        while len(pending) < 9 or len(pending) < 9 + int.from_bytes(pending[:3], "big"):
            pending += some(connection)
        length, kind, flags = int.from_bytes(pending[:3], "big"), pending[3], pending[4]
        stream, payload = struct.unpack(">I", pending[5:9])[0], pending[9 : 9 + length]
        pending = pending[9 + length :]
        if kind == SETTINGS and not flags & ACK:
            connection.sendall(frame(SETTINGS, ACK, 0))
        elif kind in (GOAWAY, RST_STREAM):
            return False
        elif kind == HEADERS and stream == 1:
            # `:status: 200` is number 8 of HPACK's table; some change the size of theirs first.
            status = payload.lstrip(b"\x20\x3f\xe1\x1f")[:1]
        if stream == 1 and kind in (DATA, HEADERS) and flags & END_STREAM:
            return status == b"\x88"


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def some(connection):
    received = connection.recv(65_536)
    if not received:
        raise ConnectionError("closed by the proxy before it had answered")
    return received
