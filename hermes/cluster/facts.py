"""What is a node like? One look, in one go, that leaves nothing behind there.

The script is for any Python 3, however old: that it is too old is one of the answers.
"""

from __future__ import annotations

import json
import shlex
import time
from typing import NamedTuple

import msgspec

from hermes.cluster.conf import Node
from hermes.cluster.remote import HELPERS, folder_of, session
from hermes.cluster.ssh import Shell, quoted
from hermes.errors import NodeError

LOOKING = 60.0
"""Seconds that the look may take."""

CONNECTING = 4
"""Seconds that a node tries to reach the broker's address."""

_SCRIPT = r"""
import json, os, platform, shutil, socket, sys, tempfile, threading, time
sys.dont_write_bytecode = True
asked = json.loads(sys.argv[1])
facts = {"time": time.time(), "python": list(sys.version_info[:3]), "machine": platform.machine()}
facts["system"] = platform.system()

def tell(name, look):
    try:
        facts[name] = look()
    except Exception as error:
        facts[name] = None
        facts[name + "_error"] = "%s: %s" % (type(error).__name__, error)

folder = os.path.abspath(os.path.expanduser(asked["folder"]))
place = folder
while not os.path.exists(place):
    place = os.path.dirname(place)

def writable():
    handle, path = tempfile.mkstemp(dir=place, prefix=".hermes-look-")
    os.close(handle)
    os.unlink(path)
    return True

def memory():
    with open("/proc/meminfo") as file:
        lines = dict(line.split(":", 1) for line in file)
    return int(lines.get("MemAvailable", lines["MemFree"]).split()[0]) * 1024

def module(name):
    import importlib.util
    return importlib.util.find_spec(name) is not None

def pip():
    if module("pip"):
        return "pip"
    return "ensurepip" if module("ensurepip") else ""

def hermes():
    import glob
    place = "venv/lib/python*/site-packages/hermes_edge-*.dist-info"
    found = glob.glob(os.path.join(folder, place))
    return os.path.basename(found[0])[12:-10] if found else ""

def reach():
    host, port = asked["broker"]
    connection = socket.create_connection((host, port), timeout=asked["patience"])
    if not asked["listening"]:
        connection.close()
        return ""
    connection.settimeout(asked["patience"])
    said = b""
    while len(said) < 16:
        piece = connection.recv(16 - len(said))
        if not piece:
            break
        said += piece
    connection.close()
    return said.decode("ascii", "replace")

def index():
    try:
        from pip._internal.configuration import Configuration
        from pip._internal.models.index import PyPI
        from urllib.parse import urlsplit
        from urllib.request import getproxies
        kept = Configuration(isolated=False)
        kept.load()
    except Exception:
        return ""

    def said(key):
        for place in (":env:", "install", "global"):
            try:
                return kept.get_value(place + "." + key)
            except Exception:
                pass

    if getproxies() or said("proxy") or said("find-links") or said("no-index"):
        return ""
    place = urlsplit(said("index-url") or PyPI.simple_url)
    port = place.port or (80 if place.scheme == "http" else 443)
    if not place.hostname:
        return ""
    came = []

    def connect():
        try:
            socket.create_connection((place.hostname, port), timeout=3).close()
            came.append("")
        except Exception as error:
            came.append(str(error))

    thread = threading.Thread(target=connect)
    thread.daemon = True
    thread.start()
    thread.join(asked["patience"])  # a name may take longer
    why = came[0] if came else "timed out"
    if why:
        raise OSError("%s: %s" % (place.hostname, why))
    return place.hostname

tell("free", lambda: shutil.disk_usage(place).free)
tell("writable", writable)
tell("memory", memory)
tell("venv", lambda: module("venv"))
tell("pip", pip)
tell("hermes", hermes)
tell("modules", lambda: [name for name in asked["modules"] if module(name)])
if asked["broker"]:
    tell("reach", reach)
if asked["index"]:
    tell("index", index)
print("FACTS" + json.dumps(facts))
"""


class Question(NamedTuple):
    """What is asked of every node beside the usual."""

    broker: tuple[str, int] | None
    """Which address it is to reach; None: none is known."""
    listening: bool
    """Whether what listens there is ours, and says a word by which it is known."""
    fetches: bool = False
    """Whether it is to reach its package index, where it will install from there."""


class Facts(msgspec.Struct, frozen=True):
    """What was found."""

    time: float
    python: tuple[int, ...]
    machine: str
    system: str
    free: int | None = None
    """Bytes on the disk of its folder ..."""
    free_error: str = ""
    writable: bool | None = None
    writable_error: str = ""
    memory: int | None = None
    """Bytes."""
    venv: bool | None = None
    pip: str | None = None
    """`pip`, `ensurepip`, or nothing that installs."""
    hermes: str | None = None
    """The version that is installed; empty for none."""
    modules: tuple[str, ...] | None = None
    """Those of the modules that were asked for which its own Python has."""
    reach: str | None = None
    """What the broker's address said; None: it could not be reached, or was not asked."""
    reach_error: str = ""
    index: str | None = None
    """The host of its package index, if it was reached; empty, if that could not be tried."""
    index_error: str = ""


class Look(NamedTuple):
    """A node, as it was found."""

    facts: Facts | None
    """None: it has no Python that runs."""
    python_said: str
    """Then what it said instead."""
    offset: float
    """Seconds by which its clock is ahead of ours ..."""
    doubt: float
    """... and by how much that may be wrong."""
    tmux: bool
    worker: str
    """`ours`, `other` or nothing."""
    ours: bool
    """Whether its folder is one of ours, or can become one."""


def look(shell: Shell, node: Node, question: Question, modules: tuple[str, ...]) -> Look:
    """Look at it. Raises `NodeError`."""
    asked = json.dumps(
        {
            "folder": node.folder,
            "broker": question.broker,
            "listening": question.listening,
            "index": question.fetches and node.packages != "system",
            "patience": CONNECTING,
            "modules": modules,
        }
    )
    began = time.time()
    said = shell.run(_command(node, asked), timeout=LOOKING)
    ended = time.time()
    lines = said.out.splitlines()
    told = next((line[5:] for line in lines if line.startswith("FACTS")), None)
    words = {line for line in lines if line.startswith("IS ")}
    facts, offset = None, 0.0
    if told is not None:
        try:
            facts = msgspec.json.decode(told, type=Facts)
        except msgspec.DecodeError as error:
            raise NodeError(f"it answers strangely: {error}", where=node.name) from None
        offset = facts.time - (began + ended) / 2
    return Look(
        facts,
        "" if facts is not None else said.last,
        offset,
        (ended - began) / 2,
        "IS tmux" in words,
        "ours" if "IS running" in words else "other" if "IS another" in words else "",
        "IS foreign" not in words,
    )


def _command(node: Node, asked: str) -> str:
    at = folder_of(node)
    name = shlex.quote(f"worker.*--name {node.name}( |$)")
    taken = f"tmux has-session -t ={session(node)} 2>/dev/null" if node.tmux else "false"
    return f"""\
{HELPERS}
command -v tmux >/dev/null && echo 'IS tmux'
if runs {at}/worker.pid; then echo 'IS running'
elif ps -eo args 2>/dev/null | grep -E {name} | grep -v grep >/dev/null; then echo 'IS another'
elif {taken}; then echo 'IS another'; fi
if [ -e {at} ] && [ ! -f {at}/.hermes-node ] && [ -n "$(ls -A {at})" ]; then
  echo 'IS foreign'
fi
{quoted(node.python)} - {shlex.quote(asked)} <<'END-OF-SCRIPT'
{_SCRIPT}
END-OF-SCRIPT"""
