"""No wait without a deadline and a name (issue 6): found in the source of every module.

A *wait* is a call that returns only when somebody else does something, and is given no time for it;
a loop that pauses (sleeps, polls) and looks at no clock; or a lock. Each that is left is in `KNOWN`
with its reason: what bounds it, or who ends it. (What a loop calls is not followed: the pause is
then found where it is.)
"""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from hermes.broker import process
from hermes.checkup import elsewhere
from hermes.errors import BrokerUnreachable, JobError, RunFailed
from hermes.transport.flight import Budget
from hermes.transport.log import Receipt
from tests.pure.test_purity import MODULES

KNOWN = {
    # Somebody at a keyboard; Ctrl-C ends it.
    "hermes.cli.clean Asking.may_go: sys.stdin.readline()": "a person answers",
    "hermes.cli.prepare confirm: sys.stdin.readline()": "a person answers",
    "hermes.runtime.observe log_lines: while ... reader.poll()": "--follow: until the run has "
    "ended, or Ctrl-C; without it, what is there",
    "hermes.runtime.observe file_lines: while ... time.sleep()": "--follow: until the master's "
    "process is gone, or Ctrl-C",
    "hermes.cli.on_cluster _wait_for_master: while ... time.sleep()": "hermes wait: until the "
    "master's process is gone, or Ctrl-C",
    # Threads that serve until they are stopped; all are daemons, and `stop` waits with a bound.
    "hermes.cli.onlooker Onlooker._watch: while ... self._over.wait()": "until `_over`",
    "hermes.runtime.beat Beater._beat: while ... self._over.wait()": "until `stop`",
    "hermes.runtime.evaluator Evaluator._judge: self._asked.get()": "until `stop` puts None",
    "hermes.runtime.following Follower._follow: self._calm.pause()": "LOOK seconds at most, and "
    "`leave` alerts it",
    "hermes.runtime.following Follower._follow: while ... self._ear.poll()": "until `leave`",
    "hermes.runtime.hands Hand._work: self._jobs.get()": "until `stop` puts None",
    "hermes.runtime.local mourning.look: while ... over.wait()": "until the block is left",
    "hermes.runtime.storage Asker._serve: while ... self._over.wait()": "until `stop`",
    "hermes.runtime.watch BrokerWatch._watch: while ... self._over.wait()": "until `stop`",
    # A child that is told what to do, and goes when its parent does (its standard input ends).
    "hermes.compare.__main__ _end_of: select.select()": "until its cell ends, or its parent goes",
    "hermes.compare.__main__ _end_of: while ... select.select()": "until its cell ends, or its "
    "parent goes",
    "hermes.simulate.aside Inbox.take: self._changed.wait()": "until its parent has work, or goes",
    "hermes.simulate.aside Inbox.take: while ... self._changed.wait()": "until its parent has "
    "work, or goes",
    # Loops that count.
    "hermes.perform.store Store._stretch: while ... reader.poll()": "TRIES polls of PATIENCE "
    "without a record are an error",
    "hermes.transport.upto records_in: while ... reader.poll()": "SILENCE polls of 1 s "
    "without a record are an error",
    "hermes.runtime.observe last_beat: while ... reader.poll()": "up to an end that is known, or "
    "the first silence",
    "hermes.transport.flight Budget.take: while ... self._changed.wait()": "`patience` without "
    "news is an error",
    # Bounded elsewhere.
    "hermes.cluster.crew on_all: aside.result()": "the broker's start and its answers are bounded, "
    "and nobody else is waited for in there",
    "hermes.cluster.entrance Door.wait: while ... self._known.wait()": "until the broker's start, "
    "which is bounded, has come to an end of either kind; or Ctrl-C",
    "hermes.cluster.knock _answer: server.accept()": "settimeout before its thread starts",
    "hermes.cluster.ssh Shell._once: while ... time.sleep()": "`_look`, in each turn: `timeout`, "
    "or Ctrl-C",
    "hermes.cluster.ssh _Reading.look: self._channel.recv()": "only where something is there to be "
    "taken",
    "hermes.transport.kafka _WideTLS.recv: super().recv()": "the library's sockets never block",
    "hermes.transport.kafka _Wide.recv: super().recv()": "the library's sockets never block",
    "hermes.transport.kafka _Socket.sock_connect: super().sock_connect()": "under the library's "
    "own timeout, given in `limits`",
    "hermes.transport.patience Patience.unless_gone: while ... outcome.get()": "until the work "
    "ends (the library bounds it by `outage`) or the broker is given up",
    "hermes.transport.probe _receive: connection.recv()": "settimeout right before it",
    "hermes.transport.probe _speaks_http: connection.recv()": "settimeout before it",
    # Not waits: they compute.
    "hermes.perform.keeper ChunkKeeper.take: parts.result()": "puts bytes together",
    "hermes.runtime.master MasterProcess._count: self._storage.result()": "a dictionary",
    "hermes.transport.tensors fetch_payload: parts.result()": "puts bytes together",
    # Locks: who holds one does nothing inside that waits for anybody without a bound.
    "hermes.cli.onlooker : with self._lock": "reads or draws; nothing inside waits",
    "hermes.cluster.brought : with self._lock": "writes a small file",
    "hermes.cluster.progress : with self._lock": "reads or prints; nothing inside waits",
    "hermes.runtime.acks : with self._looking": "asks receipts with a timeout of 0",
    "hermes.runtime.storage : with self._lock": "counts",
    "hermes.simulate.ahead : with self._lock": "counts; nothing inside waits but for a process "
    "that has closed its output, and that with a bound",
    "hermes.simulate.aside : with self._changed": "lists; what waits inside lets it go",
    "hermes.transport.counting : with self._lock": "counts",
    "hermes.transport.flight : with self._changed": "counts; what waits inside lets it go",
    "hermes.transport.memory : with self._open().lock": "lists and dictionaries",
    "hermes.transport.memory : with self._open().changed": "lists and dictionaries",
    "hermes.transport.memory : with self._store.changed": "lists; what waits inside lets it go",
    "hermes.transport.kafka : with self._lock": "opens or closes a connection, which the library "
    "bounds by `bootstrap_timeout_ms` or `timeout`, or is done when the broker is given up; or "
    "asks for ends, 10 s",
}
"""Every wait that the rules below find, and why it may stay."""


# --- the rules ----------------------------------------------------------------------------------

ALONE = ("wait", "join", "get", "acquire", "result", "accept", "select")
"""Methods that wait for ever where no argument says for how long. (With one, `join` joins strings
and `get` looks a key up.)"""

ENOUGH = {"wait_for": 2, "select.select": 4, "create_connection": 2}
"""Arguments that make such a wait a bounded one."""

NAMED = ("communicate", "run", "call", "check_output", "check_call", "urlopen")
"""Calls (of `subprocess`, where a module is named) that wait for ever without `timeout=`."""

FOREIGN = (
    "recv", "recv_into", "recvfrom", "sock_connect", "sock_recv", "stdin.read", "stdin.readline",
    "stdout.read", "stdout.readline", "sigwait", "pause", "input",
)  # fmt: skip
"""Calls whose bound, if they have one, lies elsewhere."""

UNLESS = {"flock": "LOCK_NB", "lockf": "LOCK_NB", "waitpid": "WNOHANG"}
"""Calls that wait unless this flag is given."""

PAUSES = ("sleep", "wait", "poll", "fetch", "select")
CLOCKS = ("monotonic", "monotonic_ns", "perf_counter")
LOCKS = ("threading.Lock", "threading.RLock", "threading.Condition", "threading.Semaphore")


class Wait(NamedTuple):
    """One place."""

    module: str
    function: str
    """`Class.method`; "" for a lock, which is told once a module."""
    what: str

    def __str__(self) -> str:
        return f"{self.module} {self.function}: {self.what}"


def _last(name: str) -> str:
    return name.rpartition(".")[2]


SUSPECT = {*ALONE, *NAMED, *UNLESS, *map(_last, ENOUGH), *map(_last, FOREIGN)}


def waits(module: str, source: str) -> Iterator[Wait]:
    """All of a module."""
    tree = ast.parse(source)
    locks = {_last(target) for target in _locks(tree)} if "threading" in source else set()
    yield from _within(module, "", tree, locks)


def _locks(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign | ast.AnnAssign) or not isinstance(node.value, ast.Call):
            continue
        if ast.unparse(node.value.func) in LOCKS:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (ast.unparse(target) for target in targets)


def _within(module: str, function: str, node: ast.AST, locks: set[str]) -> Iterator[Wait]:
    for child in ast.iter_child_nodes(node):
        inner = function
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inner = f"{function}.{child.name}".removeprefix(".")
        elif isinstance(child, ast.Call) and is_unbounded(child):
            yield Wait(module, function, f"{ast.unparse(child.func)}()")
        elif isinstance(child, ast.While) and (pauses := clockless(child)):
            yield Wait(module, function, f"while ... {', '.join(sorted(pauses))}")
        elif isinstance(child, ast.With):
            held = (ast.unparse(item.context_expr) for item in child.items)
            yield from (Wait(module, "", f"with {name}") for name in held if _last(name) in locks)
        yield from _within(module, inner, child, locks)


def is_unbounded(call: ast.Call) -> bool:
    """Whether the call may wait, and is not told for how long."""
    if getattr(call.func, "attr", getattr(call.func, "id", "")) not in SUSPECT:
        return False  # most, without more ado
    name = ast.unparse(call.func)
    given = [one for one in call.args if not _is_none(one)]
    words = {word.arg for word in call.keywords if not _is_none(word.value)}
    if words & {"timeout", "timeout_ms"}:
        return False
    for end, enough in ENOUGH.items():
        if _ends(name, (end,)):
            return len(given) < enough
    if _last(name) in UNLESS:
        return UNLESS[_last(name)] not in ast.unparse(call)
    if _last(name) in ALONE and "." in name:
        return not given and words <= {"block", "blocking"}
    if _last(name) in ("run", "call"):
        return name.startswith("subprocess.")
    return _ends(name, NAMED + FOREIGN)


def clockless(loop: ast.While) -> set[str]:
    """What a loop, its condition included, pauses with; none if it looks at a clock."""
    calls = [node for node in ast.walk(loop) if isinstance(node, ast.Call)]
    names = {ast.unparse(call.func): call for call in calls}
    if any(_ends(name, CLOCKS) for name in names):
        return set()
    return {f"{name}()" for name, call in names.items() if _ends(name, PAUSES) or _is_get(call)}


def _is_get(call: ast.Call) -> bool:
    """From a queue, with a timeout."""
    return _last(ast.unparse(call.func)) == "get" and any(w.arg == "timeout" for w in call.keywords)


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _ends(name: str, ends: tuple[str, ...]) -> bool:
    return any(name == end or name.endswith(f".{end}") for end in ends)


# --- the tests ----------------------------------------------------------------------------------


def test_every_wait_has_a_deadline_or_its_reason() -> None:
    """And no reason is left over from a wait that is gone."""
    found = {str(w) for name, path in MODULES.items() for w in waits(name, path.read_text("utf-8"))}
    assert sorted(found - KNOWN.keys()) == [], "waits without a deadline: mend, or give the reason"
    assert sorted(KNOWN.keys() - found) == [], "these are gone: strike them off the list"


def test_an_acknowledgement_is_not_waited_for_without_end() -> None:
    """`offset()` is called without an argument in many places: its default is a bound."""
    assert inspect.signature(Receipt.offset).parameters["timeout"].default == 60.0


# Deadlines that are over: who waited, for whom, how long.


def test_a_process_that_does_not_end_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "KILLED", 0.01)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as lives:
        with pytest.raises(RunFailed, match=rf"process {lives.pid} has not ended within 0.01 s"):
            process.reap(lives)
        lives.kill()


def test_a_job_that_hangs_another_process_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere, "TRYING", 0.01)
    with pytest.raises(JobError, match=r"not done with 3 steps of it within 0\.01 s"):
        elsewhere._asked(tmp_path, tmp_path)


def test_an_append_does_not_wait_for_ever_for_room() -> None:
    budget = Budget(10, patience=0.01)
    budget.take(10)
    with pytest.raises(BrokerUnreachable, match=r"1 bytes waits for room.* of 10 under way"):
        budget.take(1)
    budget.give(10)
    assert budget.take(10)


PLANTED = [
    "def f(x): x.ready.wait()",
    "def f(x): x.ready.wait(None)",
    "def f(x): x.thread.join(timeout=None)",
    "def f(x): x.queue.get(block=True)",
    "def f(x): x.lock.acquire()",
    "def f(x): return x.submit(y).result()",
    "def f(x): x.changed.wait_for(lambda: x.done)",
    "def f(x): x.process.communicate(b'yes')",
    "def f(x): return subprocess.run(['ls'], check=True)",
    "def f(x): select.select([x], [], [])",
    "def f(x): return socket.create_connection(x)",
    "def f(x): return x.recv(100)",
    "def f(x): return x.accept()",
    "def f(x): fcntl.flock(x, fcntl.LOCK_EX)",
    "def f(x): os.waitpid(x, 0)",
    "def f(x): return sys.stdin.readline()",
    "def f(x): return input('well? ')",
    "def f(x):\n  while True:\n    time.sleep(1)",
    "def f(x):\n  while not x.done:\n    x.reader.poll(1.0)",
    "def f(x):\n  while not x.over.wait(1.0):\n    x.look()",
    "def f(x):\n  while x.on:\n    x.events.get(timeout=1.0)",
    "async def f(x):\n  with x:\n    g(lambda: x.ready.wait())",
    "lock = threading.Lock()\ndef f(x):\n  with lock: pass",
]

HARMLESS = [
    "def f(x): x.ready.wait(3.0)",
    "def f(x): x.thread.join(LEAVING)",
    "def f(x): return ', '.join(x)",
    "def f(x): return x.table.get('key')",
    "def f(x): x.queue.get(timeout=1.0)",
    "def f(x): x.changed.wait_for(lambda: x.done, 5.0)",
    "def f(x): subprocess.run(['ls'], timeout=5)",
    "def f(x): return runner.run(x)",
    "def f(x): select.select([x], [], [], 0.1)",
    "def f(x): fcntl.flock(x, fcntl.LOCK_EX | fcntl.LOCK_NB)",
    "def f(x): os.waitpid(x, os.WNOHANG)",
    "def f(x):\n  while time.monotonic() < x.end:\n    x.reader.poll(1.0)",
    "def f(x):\n  while x.more:\n    x.step()",
    "def f(x):\n  with open(x) as file: file.read()",
]


@pytest.mark.parametrize("source", PLANTED)
def test_a_planted_wait_is_found(source: str) -> None:
    (found,) = waits("planted", source)
    assert found.module == "planted"


@pytest.mark.parametrize("source", HARMLESS)
def test_what_is_bounded_is_let_be(source: str) -> None:
    assert not list(waits("planted", source))
