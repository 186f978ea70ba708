"""What do `hermes broker start`, `stop` and `status` do, and how does a program own a broker?"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from hermes.broker import apache, embedded
from hermes.broker.admission import forget_access, tell_access
from hermes.broker.places import Wanted, settled, state_folder
from hermes.broker.process import Plan, end, identity, launch, reap, remove, wait_ready
from hermes.broker.secured import Secure
from hermes.errors import RunError, UsageError
from hermes.transport.access import Access

Kind = Literal["embedded", "apache"]

_READY = {"embedded": 10.0, "apache": 60.0}
"""Seconds until a broker must answer."""

_GRACE = {"embedded": 0.3, "apache": 20.0}
"""Seconds to end in order. The embedded broker has nothing to save, and may take 5 s over it."""

_UNREADY = {"embedded": 0.3, "apache": 2.0}
"""Seconds to end for one that never answered: nobody waits for what it would put in order."""


class Running(msgspec.Struct, frozen=True):
    """A broker that was started detached, as noted in the state folder."""

    kind: str
    address: str
    """HOST:PORT for clients on this machine."""
    advertised: str
    """HOST:PORT that clients are told."""
    port: int
    pid: int
    born: str
    """What tells its process from a later one of the same number."""
    data: str | None
    """Folder of its records; None in memory."""
    log: str
    """File with its output."""
    secrets: str | None = None
    """The folder of its secrets; None: it is not secure."""
    listen: str = ""
    """The address that it listens at; empty in a note of an older Hermes."""
    remove: tuple[str, ...] = ()
    """As in its `Plan`."""

    def alive(self) -> bool:
        """Whether that very process runs."""
        return identity(self.pid) == self.born


def start(
    kind: Kind = "embedded",
    port: int = 9092,
    listen: str = "127.0.0.1",
    advertise: str | None = None,
    data: Path | None = None,
    secure: Secure | None = None,
) -> Running:
    """Start a broker that goes on without us; returns when it answers. Port 0: any free one.
    Of a `secure` one, this machine's configuration says afterwards how to get in.

    Raises `UsageError` (port taken, a program is missing, bad address), `BrokerUnreachable` with
    the end of its output if it dies at its start.
    """
    wanted = settled(Wanted(port, listen, advertise, data))
    with _usable(_brokers()):
        return _start(kind, wanted, secure)


@contextlib.contextmanager
def _usable(folder: Path) -> Iterator[None]:
    """A place that cannot be written is the user's to mend, or to change."""
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"the folder of brokers that run cannot be used: {error.strerror or error}",
            where=str(error.filename or folder),
            remedy="Make room there or make it writable, or choose another with HERMES_STATE=DIR.",
        ) from None


def _start(kind: Kind, wanted: Wanted, secure: Secure | None) -> Running:
    home = _home(wanted.port)
    home.mkdir(parents=True, exist_ok=True)
    secure = secure.placed(home) if secure is not None else None
    plan = _plan(kind, wanted, home, secure)
    output = home / "broker.log"
    output.unlink(missing_ok=True)
    process, grace = launch(plan, output, child=False), _UNREADY[kind]
    try:
        wait_ready(plan, process, output, _READY[kind])
        grace = _GRACE[kind]
        running = _running(kind, wanted, plan, process.pid, output, secure)
        tell_access(wanted, plan.access, secure)
        _note(running)
    except BaseException:  # nobody would find a broker that is noted nowhere
        end(process.pid, patience=grace, process=process)
        remove(plan.remove)
        raise
    process.returncode = 0  # it is not ours to wait for: no ResourceWarning for a daemon
    return running


def _running(
    kind: Kind, wanted: Wanted, plan: Plan, pid: int, output: Path, secure: Secure | None
) -> Running:
    return Running(
        kind=kind,
        address=str(plan.address),
        advertised=str(wanted.advertised),
        port=wanted.port,
        pid=pid,
        born=identity(pid) or "",
        data=str(plan.data) if plan.data else None,
        log=str(output),
        secrets=str(secure.folder) if secure is not None else None,
        listen=wanted.listen,
        remove=plan.remove,
    )


def running_at(broker: str) -> Running | None:
    """The broker at HOST:PORT, if it was started on this machine."""
    for one in status():
        if broker in (one.address, one.advertised, f"localhost:{one.port}"):
            return one
    return None


def status() -> list[Running]:
    """The brokers that `start` left running, by port; notes of ones that are gone are removed."""
    found = []
    for note in sorted(_brokers().glob("*/broker.json")):
        running = _read(note)
        if running is not None and running.alive():
            found.append(running)
        else:
            if running is not None:
                remove(running.remove)
            with contextlib.suppress(OSError):  # it says nothing that is true any more
                note.unlink(missing_ok=True)
    return sorted(found, key=lambda running: running.port)


def stop(port: int | None = None) -> Running:
    """Stop the broker at `port`, or the only one that runs. Its data stay.

    Raises `RunError` if there is none, or several and no port was given.
    """
    running = [one for one in status() if port in (None, one.port)]
    if not running:
        at = f" at port {port}" if port else ""
        raise RunError(
            f"no broker that Hermes started runs{at}",
            remedy="See which do: hermes broker status; start one: hermes broker start",
        )
    if len(running) > 1:
        ports = ", ".join(str(one.port) for one in running)
        raise RunError(f"several brokers run, at ports {ports}", remedy="Say which: --port P")
    (chosen,) = running
    _reap_or_end(chosen)
    if chosen.secrets is not None:
        forget_access([chosen.address, chosen.advertised])
    with contextlib.suppress(OSError):
        (_home(chosen.port) / "broker.json").unlink(missing_ok=True)
    return chosen


class Child:
    """A broker that is our child: it ends with `stop`, with the `with` block, and (on Linux) when
    the thread that started it is gone, however that happened.

    Its files lie in a temporary folder, except for `data`, where given: those stay.
    """

    def __init__(
        self,
        kind: Kind = "embedded",
        port: int = 0,
        listen: str = "127.0.0.1",
        advertise: str | None = None,
        data: Path | None = None,
        secure: Secure | None = None,
    ) -> None:
        """Starts it and waits until it answers; raises as `start` does. How to get in at a
        `secure` one is in `access`, and not written to this machine's configuration."""
        wanted = settled(Wanted(port, listen, advertise, data))
        self.kind: Kind = kind
        self.port = wanted.port
        self._home = Path(tempfile.mkdtemp(prefix="hermes-broker-"))
        self.log = self._home / "broker.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._remove: tuple[str, ...] = ()
        self._grace = _UNREADY[kind]
        try:
            placed = secure.placed(self._home) if secure is not None else None
            plan = _plan(kind, wanted, self._home, placed)
            self._remove = plan.remove
            self._process = launch(plan, self.log, child=True)
            wait_ready(plan, self._process, self.log, _READY[kind])
            self._grace = _GRACE[kind]
        except BaseException:
            self.stop()
            raise
        self.address = str(plan.address)
        self.access = plan.access or Access()
        self.pid = self._process.pid

    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """End it at once, as a power cut would (its page cache survives)."""
        if self._process is not None:
            self._process.kill()
            reap(self._process)
            remove(self._remove)

    def stop(self) -> None:
        """End it in order and remove its temporary files; may be called more than once."""
        if self._process is not None:
            if self._process.poll() is None:
                end(self._process.pid, patience=self._grace, process=self._process)
            reap(self._process)
            remove(self._remove)
        shutil.rmtree(self._home, ignore_errors=True)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _plan(kind: Kind, wanted: Wanted, home: Path, secure: Secure | None) -> Plan:
    if kind == "embedded":
        if secure is not None:
            raise UsageError(
                "the embedded broker lets everyone in: it knows neither TLS nor users",
                where="--secure",
                remedy="--kind apache",
            )
        return embedded.plan(wanted)
    if kind == "apache":
        return apache.plan(wanted, home, secure)
    raise UsageError(f"{kind!r} is no kind of broker", remedy="--kind embedded or --kind apache")


def _brokers() -> Path:
    return state_folder() / "brokers"


def _home(port: int) -> Path:
    return _brokers() / str(port)


def _note(running: Running) -> None:
    note = _home(running.port) / "broker.json"
    draft = note.with_suffix(".draft")
    draft.write_bytes(msgspec.json.encode(running))
    draft.replace(note)


def _read(note: Path) -> Running | None:
    try:
        return msgspec.json.decode(note.read_bytes(), type=Running)
    except (OSError, msgspec.DecodeError):
        return None


def _reap_or_end(running: Running) -> None:
    end(running.pid, patience=_GRACE.get(running.kind, 20.0))
    remove(running.remove)
    with contextlib.suppress(ChildProcessError):  # only if this very process started it
        os.waitpid(running.pid, os.WNOHANG)
