"""A whole run in threads of this process, over the log in memory: a master and its workers as they
are, without a broker."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hermes.cli.trouble import exit_code_of
from hermes.errors import HermesError
from hermes.jobfile import build
from hermes.machine.state import MasterState
from hermes.messages import JobSource, LogLine
from hermes.policy.presets import resolve
from hermes.runtime.folder import RunFolder
from hermes.runtime.master import MasterOptions, MasterProcess
from hermes.runtime.worker import Farewell, WorkerOptions, WorkerProcess
from hermes.transport.memory import MemoryLog

KEY = b"k" * 32

ALONE = """
import numpy as np
import hermes
from hermes import nn

def data():
    rng = np.random.default_rng(0)
    y = np.arange(400) % 2
    x = (rng.normal(size=(400, 4)) + y[:, None]).astype(np.float32)
    return x, y

job = hermes.Job(
    model=lambda: nn.Sequential(nn.Linear(4, 2)),
    data=data,
    batch=16,
    optimizer=lambda params: nn.SGD(params, lr=0.1),
    loss=nn.CrossEntropy(),
)
"""
"""A job that needs no file beside it."""


class Crew:
    """One run; `see_through` starts it and waits for its end."""

    def __init__(self, folder: Path, text: str, strategy: str = "bsp", **settings: Any) -> None:
        """Settings with __ for the dot."""
        self.log = MemoryLog()
        self.folder = RunFolder(folder, "r")
        self.lines: list[LogLine] = []
        self.result: dict[str, Any] = {}
        self.error: HermesError | None = None
        self.farewells: dict[str, Farewell | HermesError] = {}
        keys = {key.replace("__", "."): value for key, value in settings.items()}
        job = build(text, "job.py")
        self._options = MasterOptions(
            "r",
            JobSource("job.py", text, ()),
            job,
            resolve(strategy, [job.settings(), keys]),
            0,
            1,
            KEY,
            self.folder,
            folder / "cache",
        )
        self._work = folder

    def prepare(self) -> None:
        """What the master looks at before anything is sent."""
        self.master().prepare()

    def master(self) -> MasterProcess:
        """Whoever is to lead the run, and tells this crew."""
        return MasterProcess(self.log, self._options, self)

    def see_through(self, workers: int, *others: Callable[[], None]) -> Crew:
        """Start master and workers, and wait until all have ended. `others` take part, too, each
        in a thread of its own."""
        expect = workers + len(others)
        master = MasterProcess(self.log, self._options._replace(expect=expect), self)
        threads = [threading.Thread(target=self._lead, args=(master,), daemon=True)]
        for index in range(workers):
            name = f"worker-{index + 1}"
            threads.append(threading.Thread(target=self._serve, args=(name,), daemon=True))
        threads += [threading.Thread(target=other, daemon=True) for other in others]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(50)
            assert not thread.is_alive(), self.said()
        return self

    def said(self) -> str:
        """The central log, as lines."""
        return "\n".join(f"{line.source}: {line.text}" for line in self.lines)

    def _lead(self, master: MasterProcess) -> None:
        try:
            self.result = dict(master.run())
        except HermesError as error:
            self.error = error

    def _serve(self, name: str) -> None:
        work = self._work
        wanted = WorkerOptions(
            self.folder.run, name, KEY, work / "outbox", work / "cache", patience=30.0
        )
        try:
            self.farewells[name] = WorkerProcess(self.log, wanted, lambda _text: None).run()
        except HermesError as error:
            self.farewells[name] = error

    # --- listening ------------------------------------------------------------------------------

    def opened(self, vitals: object) -> None:
        """Nothing."""

    def took(self, record: object) -> None:
        """Nothing."""

    def uploading(self, sent: int, total: int) -> None:
        """Nothing."""

    def ready(self) -> None:
        """Nothing."""

    def changed(self, state: MasterState, now: int) -> None:
        """Nothing."""

    def line(self, line: LogLine) -> None:
        """Keep it."""
        self.lines.append(line)


def told(error: HermesError | None, capsys: Any) -> tuple[int, str]:
    """Exit code and text, as the command would end with this error."""
    assert error is not None
    capsys.readouterr()
    code = exit_code_of(error)
    return code, str(capsys.readouterr().err)
