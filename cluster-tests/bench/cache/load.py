"""Very many different objects, each asked for once."""

import random
import re
import tempfile
import urllib.request

import measure
from rows import client

CONNECTIONS = 32
# wrk itself would go on for as long as it was told.
SCRIPT = """
local asked, answered, wrong, first, count = 0, 0, 0, %d, %d
request = function()
  local n = first + asked %% count
  asked = asked + 1
  return "GET /many/" .. n .. " HTTP/1.1\\r\\nHost: bench.example\\r\\n\\r\\n"
end
response = function(status)
  answered = answered + 1
  if status ~= 200 then wrong = wrong + 1 end
  if answered >= count then
    io.write("wrong: ", wrong, "\\n")
    os.exit(0)
  end
end
"""
# Of which it is looked at whether they are still there.
SAMPLE = 4000


def path(n):
    return f"/many/{n}"


def ask_for(url, first, count, patience_s=900):
    """How many answers were wrong, to requests for `count` objects from `first` on."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT % (first, count))
        script.flush()
        argv = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{patience_s}s", "--timeout", "10s", "-s", script.name, url]
        found = re.search(r"^wrong: (\d+)", measure.pinned(argv, patience_s + 30), re.M)
    if not found:
        raise TimeoutError(f"{count} objects took more than {patience_s} s")
    return int(found.group(1))


def missing(url, origin, first, count):
    """(the share of these objects that the origin is asked for again, how many of those looked at are not the right ones)"""
    with urllib.request.urlopen(f"http://{origin}/1k", timeout=10) as answer:
        content = answer.read()
    host, port = url.removeprefix("http://").split(":")
    asked_before = requests(origin)
    with client.Connection((host, int(port))) as connection:
        sample = random.sample(range(first, first + count), min(SAMPLE, count))
        answers = (connection.ask(path(n)) for n in sample)
        wrong = sum(answer.status != 200 or answer.body != content for answer in answers)
    # What asks for the figure is counted as well.
    return (requests(origin) - asked_before - 1) / len(sample), wrong


def head_size(origin, n):
    """How many bytes the fields and the URL of an object are, as written, without what is said of a connection."""
    host, port = origin.split(":")
    with client.Connection((host, int(port))) as connection:
        fields = connection.ask(path(n)).fields
    lines = sum(len(f"{name}: {value}\r\n") for name, value in fields.items() if name != "connection")
    return lines + len(f"http://{client.HOST}{path(n)}")


def requests(origin):
    """How many requests the origin has answered."""
    with urllib.request.urlopen(f"http://{origin}/requests", timeout=10) as answer:
        return int(answer.read().split(b"\n")[2].split()[2])
