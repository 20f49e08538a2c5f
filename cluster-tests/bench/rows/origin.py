"""An origin that does what the query of a target says, and counts: a process of its own, so that nobody waits for it.

  size     bytes of the body
  delay    milliseconds before the answer begins
  drip     milliseconds over which the body comes
  cache    the value of Cache-Control
  chunked  the length is not said

`/~fetches` says how often each target was asked for.
"""

import asyncio
import collections
import contextlib
import hashlib
import json
import pathlib
import sys
import time
import urllib.parse
import urllib.request

import measure

# A body that comes slowly comes in so many parts.
DRIPS = 20


def target(name, **asked):
    return f"/{name}?{urllib.parse.urlencode(asked)}"


def body(of):
    """What is answered to a target; nobody else is answered the same."""
    size = int(dict(urllib.parse.parse_qsl(of.partition("?")[2])).get("size", 1024))
    seed = hashlib.sha256(of.encode()).hexdigest().encode()
    return (seed * (size // len(seed) + 1))[:size]


class Origin:
    def __init__(self, port):
        self.address = f"127.0.0.1:{port}"

    def fetches(self):
        """How often each target was asked for."""
        with urllib.request.urlopen(f"http://{self.address}/~fetches", timeout=10) as answer:
            return json.load(answer)


@contextlib.contextmanager
def started(stage):
    port = measure.free_port()
    with stage.room("slow-origin") as place:
        argv = script("origin", str(port))
        with measure.running("the slow origin", argv, measure.LOAD_CPU, port, place):
            yield Origin(port)


def script(name, *words):
    """The command that runs a script of this directory."""
    home = pathlib.Path(__file__).resolve().parents[1]
    return ["env", f"PYTHONPATH={home}", sys.executable, "-B", "-m", f"rows.{name}", *words]


async def serve(port):
    fetches = collections.Counter()
    server = await asyncio.start_server(lambda *streams: converse(fetches, *streams), "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


async def converse(fetches, reader, writer):
    """Answers one request after the other, until the proxy has enough."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        while True:
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, asked, _ = lines[0].split(" ")
            if asked == "/~fetches":
                text = json.dumps(fetches).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text) + text)
            else:
                fetches[asked] += 1
                fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
                await answer(asked, method, fields, writer)
            await writer.drain()
    writer.close()


async def answer(asked, method, fields, writer):
    query = dict(urllib.parse.parse_qsl(asked.partition("?")[2]))
    await asyncio.sleep(int(query.get("delay", 0)) / 1000)
    content, tag = body(asked), f'"{hashlib.md5(asked.encode()).hexdigest()}"'
    head = f"Cache-Control: {query.get('cache', 'no-store')}\r\nETag: {tag}\r\nDate: {now()}\r\n"
    if fields.get("if-none-match") == tag:
        return writer.write(f"HTTP/1.1 304 Not Modified\r\n{head}\r\n".encode())
    chunked = "chunked" in query
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(content)}"
    writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n{head}{framing}\r\n\r\n".encode())
    if method == "HEAD":
        return None
    parts = DRIPS if "drip" in query else 1
    size = -(-len(content) // parts)
    for number in range(parts):
        part = content[number * size : (number + 1) * size]
        writer.write(b"%x\r\n%s\r\n" % (len(part), part) if chunked else part)
        await writer.drain()
        await asyncio.sleep(int(query.get("drip", 0)) / 1000 / parts)
    if chunked:
        writer.write(b"0\r\n\r\n")
    return None


def now():
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
