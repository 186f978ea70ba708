"""What does a simulated run leave? The folder of a run, written as its ledger goes."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from hermes.keras_backend import backend_now
from hermes.messages import LedgerRecord, LogLine
from hermes.runtime.archive import Archive
from hermes.runtime.evaluator import Best
from hermes.runtime.folder import RunFolder, note_of
from hermes.runtime.logs import CentralLog
from hermes.runtime.reporter import Reporter
from hermes.runtime.results import build_result, rewrite, save_models
from hermes.simulate.local import RUN, AtHand
from hermes.transport import names
from hermes.transport.log import Record

if TYPE_CHECKING:
    from collections.abc import Callable

    from hermes.machine.state import MasterState
    from hermes.simulate.driver import Driver
    from hermes.simulate.modelled import ModelledRun

NOWHERE = ""
"""The broker of a run that had none."""

BEGINNING = datetime(1970, 1, 1, tzinfo=timezone.utc)
"""What the central log's times count from: they are virtual."""


class SimulatedFolder:
    """Writes a run's folder; told of each record that counts."""

    def __init__(
        self, folder: RunFolder, run: ModelledRun, driver: Driver, warn: Callable[[str], None]
    ) -> None:
        """Raises `UsageError` where the folder cannot be made, `RunFailed` where it cannot be
        written. `warn` is told where the report cannot be; also from another thread."""
        self.folder, self._run, self._driver = folder, run, driver
        self._began = time.monotonic()
        self._digest = hashlib.sha256()
        folder.create()
        folder.take_note(replace(note_of(folder.run, NOWHERE), simulated=True))
        self._archive, self._lines = Archive(folder.ledger), CentralLog(folder.central_log)
        self._reporter = Reporter(folder, "a simulation", self._traffic, warn)
        driver.heard.append(self._take)
        driver.noted = self._note

    @property
    def state(self) -> MasterState:
        """As the ledger has it."""
        return self._driver.watch.state

    @property
    def real_seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    def _traffic(self) -> dict[str, tuple[int, ...]]:
        assert self._run.charges is not None
        return self._run.charges.flat()

    def _take(self, data: bytes, record: LedgerRecord) -> None:
        self._digest.update(hashlib.sha256(data).digest())
        self._archive.add(Record(names.LEDGER, self.state.authority.offset, data))
        self._reporter.take(record, self.state)

    def _note(self, text: str) -> None:
        at = BEGINNING + timedelta(microseconds=self._driver.queue.now // 1000)
        told = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self._lines.write(LogLine("master", "info", told, text))

    def conclude(self, stopped_at: int) -> dict[str, Any]:
        """Write the models and the result, and return it; `stopped_at`: virtual time of the stop.
        Raises `RunFailed`."""
        state, driver, found = self.state, self._driver, self._run.best
        best = Best(found.version, found.loss, found.accuracy, found.model)
        if state.newest is not None:
            store = AtHand(self._run, driver.log, driver.log.generations)
            best = save_models(self.folder, state, store, best)
        if backend_now() and (architecture := self._run.trainer().architecture()):
            self.folder.write(self.folder.architecture, architecture.encode())
        if state.stopped is not None:
            self._note(f"The run has {state.status}: {state.stopped.code}")
        traffic, storage = self._traffic(), self._storage()
        self._reporter.finish(state, traffic, storage, 0)
        result = build_result(self.folder, state, stopped_at, traffic, best, storage, {})
        loaded = self._run.loaded
        result |= {
            "simulated": True,
            "devices": {"file": loaded.file, "digest": loaded.digest},
            "ledger_digest": self._digest.hexdigest(),
            "real_seconds": round(self.real_seconds, 3),
        }
        rewrite(self.folder, result)
        return result

    def _storage(self) -> dict[str, Any]:
        """What lies in memory at the end, in bytes, by topic."""
        held: Counter[str] = Counter()
        for topic, size in self._driver.log.held(names.prefix_of(RUN)).topics.items():
            name = names.parse(topic)
            held[name.short if name is not None else topic] += size
        return {"limit": None, "used": sum(held.values()), "topics": dict(held), "of": ""}

    def close(self) -> None:
        """No more comes."""
        self._reporter.stop()
        self._archive.close()
        self._lines.close()
