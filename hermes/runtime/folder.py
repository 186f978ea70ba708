"""Where do a run's files lie? `OUT/runs/<run>/`, and `OUT/runs/latest`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from hermes.broker.process import identity
from hermes.errors import RunError, RunFailed, UsageError
from hermes.runtime.at_once import write_at_once
from hermes.runtime.logs import utc_now

if TYPE_CHECKING:
    from hermes.machine.state import MasterState

KEPT = 8
"""Nonces of masters that have ended, at most."""

LATEST = "latest"
"""The name in `runs/` that points at the newest run."""


class RunNote(msgspec.Struct, frozen=True):
    """`run.json`: what `status`, `stop` and `logs` on this machine need to know."""

    run: str
    broker: str
    pid: int
    """Of the master."""
    born: str
    """What tells its process from a later one of the same number."""
    started: str
    """ISO 8601, UTC."""
    workers: dict[str, int] = {}
    """Pids of the workers that this process started."""
    nonce: str = ""
    """With which the master claims the run: what tells it from one that came later."""
    own_broker: bool = False
    """Whether the broker is a child of the master's process, and ends with it."""
    simulated: bool = False
    """Whether it went under virtual time, without a broker (`broker` is then empty)."""
    before: tuple[str, ...] = ()
    """Nonces of masters that had ended when this one began: the last of them that came to claim the
    run is in force until this one does."""


def note_of(
    run: str, broker: str, workers: dict[str, int] | None = None, *, own_broker: bool = False
) -> RunNote:
    """What `run.json` says of a master that is this process."""
    pid = os.getpid()
    born, now = identity(pid) or "", utc_now()
    return RunNote(run, broker, pid, born, now, workers or {}, "", own_broker)


def dead_workers(note: RunNote | None) -> tuple[str, ...]:
    """Names of the workers that the noted process started on this machine, and whose process is
    gone; none where the note may be of another machine, or of before a restart of this one."""
    boot = (identity(os.getpid()) or "").partition(" ")[0]
    if note is None or "-" not in boot or note.born.partition(" ")[0] != boot:
        return ()  # only Linux tells one start of a machine from another
    return tuple(name for name, pid in note.workers.items() if identity(pid) is None)


class _Told(msgspec.Struct, frozen=True):
    """What `result.json` says, as far as it tells one stop from another."""

    status: str
    version: int | None


class RunFolder:
    """The files of one run. `create` makes the folder; reading needs nothing made."""

    def __init__(self, out: Path, run: str) -> None:
        self.run = run
        self.runs = (out / "runs").absolute()
        self.path = self.runs / run
        self.central_log = self.path / "central.log"
        self.result = self.path / "result.json"
        self.model = self.path / "model.safetensors"
        self.best = self.path / "best.safetensors"
        self.architecture = self.path / "architecture.json"
        """Of a model of Keras: its layers, for `hermes export --format keras`."""
        self.picture = self.path / "curves.png"
        self.report = self.path / "report.html"
        self.log = self.path / "log"
        self.ledger = self.log / "ledger.records"
        self.quarantine = self.log / "quarantine.jsonl"
        self.blocks = self.log / "blocks"
        self.note = self.path / "run.json"
        self.work = self.path / "work"
        self.topics = self.path / "topics"
        """All that lay in the topics of a simulated run, where that was kept."""

    def check(self) -> None:
        """Raise `UsageError` where the folder cannot be made; makes nothing."""
        check_place(self.path, "the run's folder cannot be made", "--out DIR")

    def create(self) -> None:
        """Make the folder, and point `latest` at it. Raises `UsageError` naming the path."""
        try:
            self.log.mkdir(parents=True, exist_ok=True)
            self.work.mkdir(exist_ok=True)
            self.become_latest()
        except OSError as error:
            raise UsageError(
                f"the run's folder cannot be made: {error.strerror or error}",
                where=str(self.path),
                remedy="Choose another place with --out DIR.",
            ) from None

    def become_latest(self) -> None:
        """Point `runs/latest` at this run. Raises `OSError`."""
        spare = self.runs / f".{LATEST}-{os.getpid()}"
        spare.unlink(missing_ok=True)
        spare.symlink_to(self.run)
        spare.replace(self.runs / LATEST)

    def write(self, path: Path, data: bytes | bytearray) -> None:
        """Replace a file at once: nobody ever reads half of it. Raises `RunFailed`."""
        try:
            write_at_once(path, data)
        except OSError as error:
            raise RunFailed(
                f"this file cannot be written: {error.strerror or error}",
                where=str(path),
                remedy="Make room there, or choose another place with --out DIR.",
            ) from None

    def note_blocks(self, digests: Iterable[str]) -> None:
        """Write down which cached blocks the run uses, for `hermes clean`."""
        self.write(self.blocks, "".join(f"{digest}\n" for digest in digests).encode())

    def take_note(self, note: RunNote) -> None:
        """Write `run.json`."""
        last = self.read_note()
        if last is not None and identity(last.pid) != last.born:
            nonces = (*last.before, *([last.nonce] if last.nonce else []))
            note = replace(note, before=nonces[-KEPT:])
        self.write(self.note, msgspec.json.format(msgspec.json.encode(note), indent=2))

    def read_note(self) -> RunNote | None:
        """`run.json`; None where there is none, or it is not ours."""
        try:
            return msgspec.json.decode(self.note.read_bytes(), type=RunNote)
        except (OSError, msgspec.DecodeError):
            return None

    def tells_of(self, state: MasterState) -> bool:
        """Whether `result.json` is that of the stop that this state has."""
        try:
            told = msgspec.json.decode(self.result.read_bytes(), type=_Told)
        except (OSError, msgspec.DecodeError):
            return False
        version = state.newest.version if state.newest is not None else None
        return (told.status, told.version) == (state.status, version)

    def dead_workers(self) -> tuple[str, ...]:
        """Names of the workers that `run.json` tells of, and that are known to be dead."""
        return dead_workers(self.read_note())

    def paths(self) -> dict[str, str | None]:
        """The `paths` of `result.json`: absolute, None for what was not written."""
        files = {
            "folder": self.path,
            "log": self.log,
            "central_log": self.central_log,
            "result": self.result,
            "model": self.model,
            "best": self.best,
            "report": self.report,
            "picture": self.picture,
        }
        return {name: str(path) if path.exists() else None for name, path in files.items()}


def check_place(path: Path, what: str, flag: str) -> None:
    """Raise `UsageError` where this folder cannot be made or written; makes nothing."""
    above = path
    while not above.exists():
        above = above.parent
    if not above.is_dir():
        why = f"{above} is no folder"
    elif not os.access(above, os.W_OK | os.X_OK):
        why = f"{above} cannot be written"
    else:
        return
    raise UsageError(
        f"{what}: {why}",
        where=str(path),
        remedy=f"Make it writable, or choose another place with {flag}.",
    )


def existing(path: Path) -> Path:
    """The nearest folder above that is there: for files without a name, which leave nothing."""
    while not path.is_dir():
        path = path.parent
    return path


def saved_runs(out: Path) -> list[RunFolder]:
    """The runs under `out`, newest first."""
    try:
        found = [p for p in (out / "runs").iterdir() if p.is_dir() and not p.is_symlink()]
    except OSError:
        return []
    found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    return [RunFolder(out, path.name) for path in found]


def find_run(out: Path, run: str | None) -> RunFolder:
    """This run's folder, or the newest. Raises `RunError` where there is none."""
    runs = saved_runs(out)
    if run is None:
        if runs:
            return runs[0]
        raise RunError(
            "there is no run here",
            where=str((out / "runs").absolute()),
            remedy="Name another folder with --out DIR, or start one: hermes run JOB.py",
        )
    for folder in runs:
        if folder.run == run:
            return folder
    known = ", ".join(folder.run for folder in runs[:5]) or "none"
    raise RunError(
        f"there is no run {run!r}",
        where=str((out / "runs").absolute()),
        remedy=f"Runs here: {known}. Name a broker with --broker, or a folder with --out.",
    )
