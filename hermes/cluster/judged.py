"""What do the facts of a node mean: what is fine, what is worth knowing, what must be mended?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from hermes.cluster import address, entrance
from hermes.cluster.conf import Cluster, Node
from hermes.cluster.facts import Facts, Look, Question
from hermes.cluster.remote import File

Level = Literal["fine", "note", "bad"]

OLDEST = (3, 10)
"""Python that Hermes runs on."""

CLOCK = 600.0
"""Seconds by which a clock may be off before certificates and logs are wrong."""

CLOCK_NOTED = 5.0

ROOM = {"": 400 << 20, "torch": 7 << 30, "keras-tensorflow": 2500 << 20, "keras-torch": 7 << 30}
"""Bytes that an installation takes, with an extra."""
ROOM_ARM = {"": 400 << 20, "torch": 1200 << 20, "keras-tensorflow": 2500 << 20}
"""Where torch comes without the packages of CUDA."""
ROOM_LEFT = 100 << 20
"""Bytes that it needs where all is installed."""

MEMORY = 300 << 20
"""Bytes of memory under which a worker has a hard time."""
RUNS = "runs"
"""Of a worker that `hermes up` has started."""

MODULES = {
    "torch": ("torch",),
    "keras-tensorflow": ("keras", "tensorflow"),
    "keras-torch": ("keras", "torch"),
}
"""Extra -> what it brings."""


class Finding(NamedTuple):
    """One answer."""

    check: str
    level: Level
    text: str
    """In a few words, for a table."""
    what: str = ""
    """In a sentence, where it is more than fine."""
    remedy: str = ""


class Around(NamedTuple):
    """What holds for all nodes while they are looked at."""

    cluster: Cluster
    broker: str
    question: Question
    word: str
    """That our own listener says; empty where a broker is up, or nothing listens."""
    wheels: tuple[File, ...]
    revoked: frozenset[str] = frozenset()
    """Who was locked out at the broker, as far as it is up and tells."""


def modules_of(node: Node) -> tuple[str, ...]:
    """What its extras bring, as Python calls it."""
    return tuple(dict.fromkeys(name for extra in node.extras for name in MODULES.get(extra, ())))


def judged(around: Around, node: Node, seen: Look) -> Iterator[Finding]:
    """The answer to every check of a node that was looked at."""
    if seen.facts is None:
        yield Finding(
            "python",
            "bad",
            "none",
            f"{node.python} does not run: {seen.python_said}",
            "Install Python 3.10 or newer there, or name it: python in conf/config.json.",
        )
    else:
        yield from _python(node, seen.facts)
        yield from _disk(node, seen.facts, ours=seen.ours)
        yield _memory(seen.facts)
        yield _clock(seen)
        yield _packages(around, node, seen.facts)
        if around.question.broker is not None:
            yield _reach(around, node, seen.facts)
        yield _version(seen.facts)
    yield _worker(around, node, seen)
    yield _tmux(node, seen)


def _python(node: Node, facts: Facts) -> Iterator[Finding]:
    text = ".".join(map(str, facts.python[:3]))
    if tuple(facts.python[:2]) < OLDEST:
        yield Finding(
            "python",
            "bad",
            f"{text}: too old",
            f"{node.python} is Python {text}, and Hermes needs 3.10 or newer",
            "Install a newer one there, and name it: python in conf/config.json.",
        )
        return
    if not facts.venv or not facts.pip:
        missing = "venv" if not facts.venv else "pip"
        yield Finding(
            "python",
            "bad",
            f"{text}: no {missing}",
            f"its Python {text} has no module {missing}",
            "There: sudo apt-get install python3-venv",
        )
        return
    yield Finding("python", "fine", text)


def _disk(node: Node, facts: Facts, *, ours: bool) -> Iterator[Finding]:
    if not ours:
        yield Finding(
            "disk",
            "bad",
            "folder taken",
            f"{node.folder} holds things that Hermes has not put there",
            "Name a folder of its own: folder in conf/config.json.",
        )
        return
    if not facts.writable:
        yield Finding(
            "disk",
            "bad",
            "not writable",
            f"{node.folder} cannot be written: {facts.writable_error.partition(': ')[2]}",
            "Name another folder in conf/config.json, or another user; is it mounted read-only?",
        )
        return
    free = facts.free or 0
    text = f"{free / 1e9:.1f} GB free"
    needs = _room(node, facts)
    if free < needs:
        yield Finding(
            "disk",
            "bad",
            text,
            f"its disk has {free / 1e6:.0f} MB free, and what is to be installed needs about "
            f"{needs / 1e6:.0f} MB",
            "Make room there, or name a folder on another disk: folder in conf/config.json.",
        )
        return
    yield Finding("disk", "fine", text)


def _room(node: Node, facts: Facts) -> int:
    if facts.hermes:
        return ROOM_LEFT
    table = ROOM_ARM if facts.machine in ("aarch64", "arm64") else ROOM
    extras = node.extras if node.packages == "venv" else ()
    return max([table[""], *(table.get(extra, table[""]) for extra in extras)])


def _memory(facts: Facts) -> Finding:
    if facts.memory is None:
        return Finding("memory", "fine", "not known")
    text = f"{facts.memory / 1e9:.1f} GB"
    if facts.memory < MEMORY:
        return Finding(
            "memory",
            "note",
            text,
            f"only {facts.memory / 1e6:.0f} MB of its memory are free",
            "End some programs there, or give it swap; small models may do.",
        )
    return Finding("memory", "fine", text)


def _clock(seen: Look) -> Finding:
    off = seen.offset if abs(seen.offset) > seen.doubt else 0.0
    if abs(off) < CLOCK_NOTED:
        return Finding("clock", "fine", f"{seen.offset:+.1f} s" if off else "right")
    text = f"{_span(abs(off))} {'ahead' if off > 0 else 'behind'}"
    return Finding(
        "clock",
        "bad" if abs(off) >= CLOCK else "note",
        text,
        f"its clock is {text} of this machine's",
        "There: sudo timedatectl set-ntp true (certificates and log lines go by the clock).",
    )


def _span(seconds: float) -> str:
    for size, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds:.0f} s"


def _packages(around: Around, node: Node, facts: Facts) -> Finding:
    """Can what it needs be had there?"""
    wanted = modules_of(node)
    if node.packages == "system":
        missing = [name for name in wanted if name not in (facts.modules or ())]
        if missing:
            return Finding(
                "packages",
                "note",
                f"no {missing[0]}",
                f"its system has no {', '.join(missing)}: hermes up will install it",
                'Install it there, or leave it so: "packages": "system" takes what there is.',
            )
        return Finding("packages", "fine", "of the system")
    if around.wheels:
        names = ("numpy", "msgspec", "kafka_python", "safetensors", "crc32c", *wanted)
        missing = [name for name in names if not _fits(around.wheels, name, facts)]
        if missing:
            return Finding(
                "packages",
                "bad",
                f"no wheel of {missing[0]}",
                f"no wheel of {', '.join(missing)} in master.wheels fits its Python "
                f"{facts.python[0]}.{facts.python[1]} on {facts.machine}",
                "Add them, where there is internet: pip download -d FOLDER --only-binary=:all: "
                f"--python-version {facts.python[0]}.{facts.python[1]} "
                f"--platform manylinux_2_28_{facts.machine} {' '.join(missing)}",
            )
        return Finding("packages", "fine", "of master.wheels")
    return _index(facts)


def _index(facts: Facts) -> Finding:
    """Where nothing is sent to it: can it reach what its pip asks?"""
    if not facts.index_error:
        return Finding("packages", "fine", f"of its index{'' if facts.index else ' (not tried)'}")
    why = facts.index_error.partition(": ")[2]
    return Finding(
        "packages",
        "note" if facts.hermes else "bad",
        "index not reached",
        f"no package index can be reached from it ({why})",
        "Does it have a network? Otherwise fill a folder of wheels where there is internet, and "
        'name it: "wheels" in conf/master.json.',
    )


def _fits(wheels: Sequence[File], name: str, facts: Facts) -> bool:
    """Whether one of these wheels is of this name, and for that Python and machine."""
    python = f"cp{facts.python[0]}{facts.python[1]}"
    for file in wheels:
        parts = file.name.removesuffix(".whl").split("-")
        if len(parts) < 5 or parts[0].lower().replace("-", "_") != name:
            continue
        tag, abi, platform = parts[-3], parts[-2], parts[-1]
        right = "py3" in tag.split(".") or abi == "abi3" or python in tag.split(".")
        if right and (platform == "any" or facts.machine in platform):
            return True
    return False


def _version(facts: Facts) -> Finding:
    from importlib.metadata import version

    ours = version("hermes-edge")
    if not facts.hermes:
        return Finding("hermes", "fine", "not yet")
    if facts.hermes != ours:
        return Finding(
            "hermes",
            "note",
            facts.hermes,
            f"it has Hermes {facts.hermes}, this machine {ours}",
            "hermes up brings it to this machine's.",
        )
    return Finding("hermes", "fine", facts.hermes)


def _worker(around: Around, node: Node, seen: Look) -> Finding:
    if node.name in around.revoked:
        return Finding(
            "worker",
            "bad",
            "revoked",
            "it was revoked: the broker does not let it in",
            f"To let it in again: hermes invite {node.name}, then hermes up. Otherwise take it out "
            "of conf/config.json.",
        )
    if seen.worker == "ours":
        return Finding("worker", "fine", RUNS)
    if seen.worker == "other":
        return Finding(
            "worker",
            "bad",
            "another runs",
            f"a worker {node.name}, or a tmux session of its name, runs there that hermes up has "
            f"not started in {node.folder}",
            "End it there, or give this node another name: two of one name shut each other out.",
        )
    return Finding("worker", "fine", "not yet")


def _tmux(node: Node, seen: Look) -> Finding:
    if not node.tmux:
        return Finding("tmux", "fine", "not wanted")
    if seen.tmux:
        return Finding("tmux", "fine", "yes")
    return Finding(
        "tmux",
        "note",
        "no",
        "it has no tmux: the worker will run in the background",
        'There: sudo apt-get install tmux; or "tmux": false in conf/config.json.',
    )


def _reach(around: Around, node: Node, facts: Facts) -> Finding:
    """The classic mistake: the broker tells clients an address that is good only for some."""
    broker = around.broker
    if facts.reach is not None and facts.reach == around.word:
        return Finding("broker", "fine", "reached")
    if facts.reach is not None:
        return Finding(
            "broker",
            "bad",
            "another machine",
            f"the address that workers are told, {broker}, leads to another machine from "
            f"{node.name}",
            _where_to(around.cluster, node),
        )
    why = facts.reach_error.partition(": ")[2] or facts.reach_error
    return Finding(
        "broker",
        "bad",
        "not reached",
        f"the address that workers are told, {broker}, cannot be reached from {node.name} ({why})",
        _where_to(around.cluster, node),
    )


def _where_to(cluster: Cluster, node: Node) -> str:
    from hermes.transport.address import parse_address

    master = cluster.master
    told = parse_address(entrance.told(cluster)).host
    if master.broker != "apache":
        return "That broker must advertise an address that this node can reach, and let it in."
    found = address.towards(node.host, node.port)
    if address.is_loopback(told) and found:
        return (
            f"{told} is every machine's own. Tell them this machine's address in their network: "
            f'"address": "{found}" in conf/master.json.'
        )
    if address.is_loopback(master.listen):
        return '"listen": "0.0.0.0" in conf/master.json: the broker listens for this machine alone.'
    if found and found != told:
        return (
            f'On the way to {node.name} this machine is {found}: "address": "{found}" in '
            "conf/master.json; or a firewall is in between."
        )
    return f"Does a firewall here or there shut port {master.port}? Open it for the nodes."
