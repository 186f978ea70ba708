"""What is a master started with, and what does it tell whoever looks on?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from hermes.job import Job
from hermes.machine.state import MasterState
from hermes.messages import JobSource, LedgerRecord, LogLine
from hermes.policy.presets import Settings
from hermes.runtime.folder import RunFolder
from hermes.runtime.watch import OUTAGE

if TYPE_CHECKING:
    from hermes.machine.events import Opened
    from hermes.messages import DataPublished
    from hermes.perform.store import Store
    from hermes.runtime.storage import Meter, StorageWatch
    from hermes.train import Batch
    from hermes.values import Tensors


class MasterOptions(NamedTuple):
    """What a master is started with."""

    run: str
    source: JobSource
    job: Job
    settings: Settings
    seed: int
    expect: int
    key: bytes
    folder: RunFolder
    cache: Path
    ask: Callable[[], bool] | None = None
    """Asked before model and data are sent; False stops the run."""
    patience: float = OUTAGE
    """Seconds that the broker may be away."""
    threads: int | None = 1
    """To evaluate with, where the framework can be told (see `Share`) ..."""
    names: Path | None = None
    """... and the names of workers on this machine."""
    begin: Callable[[MasterOptions], Beginning] | None = None
    """What a run begins with that was opened before, or that is forked from another one; None: a
    new one, with the job's data."""
    again: bool = False
    """The run was led before: its topics are there."""


class Beginning(Protocol):
    """What a master needs beside the ledger. Each is asked for when it is needed."""

    def tried(self) -> Batch | None:
        """A first batch, once all was seen to fit; None where all data stay with the workers.
        Raises `JobError`."""
        ...

    @property
    def model_bytes(self) -> int:
        """Of a version."""
        ...

    def opened(self, *, trims: bool) -> Opened:
        """What the machine is told at first."""
        ...

    def storage(self, meter: Meter, steps: tuple[float, ...]) -> StorageWatch:
        """Whoever holds the run to its limit; `steps`: seconds of a step, by worker."""
        ...

    def oddities(self) -> list[str]:
        """What is odd about the data, for people."""
        ...

    def send_data(self, store: Store, sent: Callable[[int, int], None]) -> DataPublished:
        """Send job and data; `sent` is told of the blocks sent, and of all."""
        ...

    def take_weights(self) -> Tensors:
        """The first model; asked for once."""
        ...

    def take_state(self) -> Tensors:
        """What the master holds beside the first model, of a fork: its parent's momentum; empty
        for nothing. Asked for once."""
        ...


class Vitals(NamedTuple):
    """What the ledger does not say of a run, just now."""

    used: int = 0
    """Bytes that the run has at its broker ..."""
    limit: int = 0
    """... and may have; 0: no limit, or not known."""
    traffic: Mapping[str, tuple[int, ...]] = {}
    """Bytes moved so far by process, as in `MasterBeat`."""
    away: float = 0.0
    """Seconds for which the broker has not answered."""
    silent: float = 0.0
    """Seconds for which nothing was heard of the master, by somebody who is not the master."""


class Listener(Protocol):
    """Whoever shows how the run goes. Called from the master's thread only."""

    def opened(self, vitals: Callable[[], Vitals]) -> None:
        """The run is ours; `vitals` may be asked from any thread."""

    def took(self, record: LedgerRecord) -> None:
        """A record that counts, from the first one on."""

    def uploading(self, sent: int, total: int) -> None:
        """Blocks of the dataset that are in the log."""

    def ready(self) -> None:
        """Workers may come."""

    def changed(self, state: MasterState, now: int) -> None:
        """The state after a turn; `now` in nanoseconds of run time."""

    def line(self, line: LogLine) -> None:
        """A line of the central log; may be called from another thread."""
