"""How does a whole run go on one machine? A broker, a master in this process, worker processes."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from hermes.broker.control import Child
from hermes.broker.process import Plan, launch, reap
from hermes.errors import BrokerUnreachable, UsageError
from hermes.machine.state import MasterState
from hermes.messages import LedgerRecord, LogLine
from hermes.runtime.bounds import cut
from hermes.runtime.folder import note_of
from hermes.runtime.interrupt import on_interrupt
from hermes.runtime.logs import LineSender, utc_now
from hermes.runtime.master import Listener, MasterOptions, MasterProcess
from hermes.runtime.measure import emulated_step, step_seconds
from hermes.runtime.neighbours import cores_here
from hermes.runtime.options import Vitals
from hermes.transport.address import Address
from hermes.transport.kafka import KafkaLog
from hermes.transport.settings import OF_MASTER

SPARE_CORES = 0.5
"""Cores left to master and broker when emulated speeds share this machine."""

LEAVING = 5.0
"""Seconds that workers are given to leave before they are ended."""

GRACE = 1.0
"""Seconds in which a worker's own last message, which says why, may still come by."""

LOOK = 0.2
"""Seconds between two looks at a broker of our own."""

OUTPUTS = 1.0
"""Seconds between two looks at how large the workers' outputs are."""


class LocalOptions(NamedTuple):
    """A run on this machine."""

    master: MasterOptions
    broker: str | None
    """HOST:PORT; None: an embedded broker of our own."""
    workers: int
    speeds: tuple[float, ...] | None
    """Emulated, one a worker; None: as fast as they go."""
    key_file: Path
    threads: int = 1
    patience: float | None = None
    """Seconds that the broker may be away; None: the usual."""
    device: str | None = None
    """Of the workers; None: the job's."""


class Speeds(NamedTuple):
    """What is emulated."""

    asked: tuple[float, ...]
    emulated: tuple[float, ...]
    measured: float
    """Seconds of a step, alone."""
    step_seconds: float
    """Seconds that a step lasts at speed 1."""

    def __str__(self) -> str:
        text = f"A step takes {self.measured * 1e3:.2g} ms here, alone; at speed 1 it lasts "
        text += f"{self.step_seconds * 1e3:.2g} ms. Speeds: "
        text += ", ".join(f"{speed:g}" for speed in self.asked)
        if self.asked != self.emulated:
            share = self.emulated[0] / self.asked[0]
            text += f", all scaled by {share:.2f}: together they ask for more than this machine has"
        return text


def worker_names(count: int) -> list[str]:
    """worker-1, worker-2, ..."""
    return [f"worker-{index + 1}" for index in range(count)]


def fitting_speeds(asked: Sequence[float], measured: float, cores: int) -> Speeds:
    """The speeds, scaled down together where they ask for more than the cores can give."""
    lasts = emulated_step(measured)
    room = max(cores - SPARE_CORES, cores * SPARE_CORES)
    share = min(1.0, room / (sum(asked) * measured / lasts))
    return Speeds(tuple(asked), tuple(speed * share for speed in asked), measured, lasts)


def check_local(options: LocalOptions) -> None:
    """Raise `UsageError` for workers and speeds that cannot be."""
    if options.workers < 1:
        raise UsageError(
            f"{options.workers} workers", where="--workers", remedy="At least 1: --workers N"
        )
    if options.speeds is None:
        return
    if len(options.speeds) != options.workers:
        raise UsageError(
            f"{len(options.speeds)} speeds for {options.workers} workers",
            where="--speeds",
            remedy="Give one speed a worker, or leave --workers out: --speeds 1,1,0.5,0.1",
        )
    for speed in options.speeds:
        if not 0 < speed <= 1000:
            raise UsageError(
                f"{speed:g} is no speed",
                where="--speeds",
                remedy="A speed is above 0, at most 1000; 1 is this machine.",
            )


def run_locally(options: LocalOptions, listener: Listener) -> dict[str, object]:
    """See a run through and return its result. Raises `HermesError`; leaves no process behind."""
    check_local(options)
    with contextlib.ExitStack() as stack:
        child = stack.enter_context(Child("embedded")) if options.broker is None else None
        address = child.address if child else options.broker
        assert address is not None
        log = _connected(address, options.patience)
        stack.callback(log.close)
        if child is not None:
            stack.enter_context(mourning(child, log))
        cluster = LocalCluster(options, address, listener)
        master = MasterProcess(log, _patient(options), cluster)
        cluster.master = master

        def at_once() -> None:
            log.abandon()
            cluster.kill()

        with on_interrupt(master.interrupt, at_once):
            try:
                cluster.start()
                return master.run()
            finally:
                # Without a broker nobody hears the stop, and nobody can say bye.
                cluster.stop(0.0 if log.abandoned else LEAVING)


def _connected(address: str, patience: float | None) -> KafkaLog:
    if patience is None:
        return KafkaLog(address, settings=OF_MASTER).connect()
    return KafkaLog(address, settings=OF_MASTER._replace(outage=patience)).connect()


def _patient(options: LocalOptions) -> MasterOptions:
    if options.patience is None:
        return options.master
    return options.master._replace(patience=options.patience)


@contextlib.contextmanager
def mourning(child: Child, log: KafkaLog) -> Iterator[None]:
    """A broker that is our own child does not come back: once it dies, nobody waits for it."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK):
            if not child.alive():
                log.abandon(
                    BrokerUnreachable(
                        "the embedded broker of this run has died, and its memory with it",
                        where=child.address,
                        remedy="Start the run again; for a broker that keeps its records: "
                        "hermes broker start --kind apache",
                    )
                )
                return

    watch = threading.Thread(target=look, name="broker-watch", daemon=True)
    watch.start()
    try:
        yield
    finally:
        over.set()
        watch.join(LEAVING)


class LocalCluster:
    """The worker processes of one run; listens, and passes on to whoever shows the run."""

    def __init__(self, options: LocalOptions, broker: str, listener: Listener) -> None:
        self.options, self.broker, self.listener = options, broker, listener
        self.master: MasterProcess | None = None
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._gone: set[str] = set()
        self._given_up = False
        self._last_death = 0.0
        self._said: list[LogLine] = []
        self.grace = GRACE
        self._looked = 0.0

    def start(self) -> None:
        """Prepare the job, measure a step while nothing else runs, start the workers."""
        options, master = self.options, self.master
        assert master is not None
        batch = master.prepare()
        speeds: Speeds | None = None
        if options.speeds is not None and batch is not None:
            measured = step_seconds(options.master.job, batch)
            speeds = fitting_speeds(options.speeds, measured, cores_here())
            self.listener.line(LogLine("run", "info", utc_now(), str(speeds)))
            master.steps = tuple(speeds.step_seconds / speed for speed in speeds.emulated)
        else:  # they share the cores with each other
            crowd = max(1.0, options.workers / cores_here())
            master.steps = tuple(crowd * seconds for seconds in master.steps)
        for index, name in enumerate(worker_names(options.workers)):
            self.processes[name] = self._start_worker(name, index, speeds)
        folder = options.master.folder
        pids = {name: process.pid for name, process in self.processes.items()}
        own = self.options.broker is None
        folder.take_note(note_of(folder.run, self.broker, pids, own_broker=own))

    def stop(self, patience: float = LEAVING) -> None:
        """Nobody is left behind: who does not leave within `patience` seconds is ended."""
        end = time.monotonic() + patience
        for process in self.processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, end - time.monotonic()))
        for process in self.processes.values():
            if process.poll() is None:
                process.terminate()
        end = time.monotonic() + LEAVING
        for process in self.processes.values():
            try:
                process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
        for process in self.processes.values():
            reap(process)

    def kill(self) -> None:
        """End them at once."""
        for process in list(self.processes.values()):
            process.kill()

    def _start_worker(
        self, name: str, index: int, speeds: Speeds | None
    ) -> subprocess.Popen[bytes]:
        options, folder = self.options, self.options.master.folder
        command = [sys.executable, "-m", "hermes", "worker", "--broker", self.broker]
        command += ["--run", folder.run, "--name", name, "--key-file", str(options.key_file)]
        command += ["--state", str(folder.work / "outbox")]
        command += ["--cache", str(options.master.cache), "--threads", str(options.threads)]
        command += ["--quiet"]
        if options.device is not None:
            command += ["--device", options.device]
        if speeds is not None:
            command += ["--speed", repr(speeds.emulated[index])]
            command += ["--step-seconds", repr(speeds.step_seconds)]
        plan = Plan(command, Address("", 0), None)
        return launch(plan, folder.log / f"{name}.out", child=True)

    # --- listening ------------------------------------------------------------------------------

    def opened(self, vitals: Callable[[], Vitals]) -> None:
        """Passed on."""
        self.listener.opened(vitals)

    def took(self, record: LedgerRecord) -> None:
        """Passed on."""
        self.listener.took(record)

    def uploading(self, sent: int, total: int) -> None:
        """Passed on."""
        self.listener.uploading(sent, total)

    def ready(self) -> None:
        """Passed on."""
        self.listener.ready()

    def line(self, line: LogLine) -> None:
        """Passed on; our own have been shown already."""
        if line not in self._said:
            self.listener.line(line)

    def changed(self, state: MasterState, now: int) -> None:
        """Passed on; and a look at the workers: a run that has none left cannot go on."""
        self.listener.changed(state, now)
        self._bound_outputs()
        if state.stopped is not None:
            return
        for name, process in self.processes.items():
            code = process.poll()
            if code is not None and name not in self._gone:
                self._gone.add(name)
                self._last_death = time.monotonic()
                text = f"the process of {name} has ended with code {code}: {self._last_words(name)}"
                self._say(text)
        if self._gone and time.monotonic() - self._last_death >= self.grace:
            self._look_for_the_end(state)

    def _look_for_the_end(self, state: MasterState) -> None:
        if self.master is None or self._given_up:
            return
        # Who cannot train has said so, and is not waited for.
        said = {name for name, member in state.members.items() if member.unable}
        if state.started is None and self._gone - said:
            # It is expected, and nobody starts it again: the others would wait for ever.
            self._give_up("worker-died-before-the-start")
        elif len(self._gone) == len(self.processes):
            self._give_up("no-worker-left")

    def _bound_outputs(self) -> None:
        """What a job prints goes to its worker's output, step after step."""
        if time.monotonic() - self._looked < OUTPUTS:
            return
        self._looked = time.monotonic()
        for name in self.processes:
            cut(self.options.master.folder.log / f"{name}.out")

    def _say(self, text: str) -> None:
        """At once to whoever looks on, and into the central log."""
        assert self.master is not None
        sender = LineSender(self.master.log, self.options.master.run, "run")
        line = sender.say(text, "warning")
        self._said.append(line)
        self.listener.line(line)

    def _give_up(self, why: str) -> None:
        assert self.master is not None
        self._given_up = True
        self.master.interrupt(why, "failed")

    def _last_words(self, name: str) -> str:
        path = self.options.master.folder.log / f"{name}.out"
        try:
            lines = path.read_text(errors="replace").strip().splitlines()
        except OSError:
            return f"see {path}"
        return " ".join(lines[-2:]) or "it said nothing"
