"""How is one cell run? As `hermes simulate` runs it, and versions at points of the grid are scored
on the test set (`points`), off the clock and beside the run: it changes nothing in it."""

from __future__ import annotations

import functools
import hashlib
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as release
from pathlib import Path

import msgspec

import hermes
from hermes.codec import decode_tensors
from hermes.compare.matrix import Cell, Until
from hermes.compare.outcome import FORMAT, Outcome, Point, Spent
from hermes.compare.points import Points
from hermes.compare.score import held
from hermes.jobfile import build
from hermes.machine.state import MasterState
from hermes.messages import (
    JobSource,
    LedgerRecord,
    RoundNoted,
    RunStopped,
    VersionEvaluated,
    VersionPublished,
)
from hermes.perform.desk import Judge
from hermes.policy.presets import from_tree, to_tree
from hermes.simulate.charges import MODEL, RECEIVED, SENT, UPDATE, framed
from hermes.simulate.devices import MASTER, Loaded, World
from hermes.simulate.driver import Driver
from hermes.simulate.local import AtHand
from hermes.simulate.modelled import ModelledRun, drive
from hermes.simulate.scored import Kept
from hermes.values import SECOND, Payload

PACKAGES = ("numpy", "torch", "keras", "tensorflow", "tensorflow-cpu")
"""What a job may compute with; which it does, its text alone does not say."""

DIGITS = 12
"""Of a cell's digest, in the name of its file."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """All that a cell depends on, and where its outcome goes."""

    strategy: str
    devices: str
    seed: int
    settings: dict[str, object]
    world: World
    """As it is after --only, and with the matrix's grid."""
    world_file: str
    world_digest: str
    job_file: str
    """Where it lies; for messages."""
    job_name: str
    """What the ledger says."""
    job_text: str
    args: tuple[str, ...]
    device: str | None
    """Where it is computed; None: as the job says."""
    path: str
    until: Until | None = None
    """What ends it beside its settings."""
    backend: str = ""
    """What Keras computes on; "" for a job without Keras."""

    @property
    def name(self) -> str:
        """For people: what tells it from the others of its matrix."""
        return f"{self.strategy}--{self.devices}--{self.seed}"

    def digest(self) -> str:
        """Of what its outcome depends on: two cells with the same are the same."""
        parts = (
            *(FORMAT, release("hermes-edge"), zlib.ZLIB_RUNTIME_VERSION, *self._libraries()),
            *(self.settings, self.world, self.seed),
            *(self.job_name, self.job_text, self.args, self.device or "", self.backend),
            *(() if self.until is None else (self.until,)),
        )
        return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()

    def _libraries(self) -> list[str]:
        """Releases of what computes: another one may round otherwise."""
        return [f"{name} {_release(name)}" for name in PACKAGES]


@functools.cache
def _release(name: str) -> str:
    try:
        return release(name)
    except PackageNotFoundError:
        return ""


def order_of(cell: Cell, source: JobSource, job: Path, device: str | None, folder: Path) -> Order:
    """What a process needs to run this cell; of `source` its name and text. Its outcome will lie in
    this folder, under a name of its own: cells that are not the same do not take each other's."""
    order = Order(
        strategy=cell.strategy,
        devices=cell.devices,
        seed=cell.seed,
        settings=to_tree(cell.settings),
        world=cell.loaded.world,
        world_file=cell.loaded.file,
        world_digest=cell.loaded.digest,
        job_file=str(job),
        job_name=source.name,
        job_text=source.text,
        args=cell.args,
        device=device,
        path="",
        until=cell.until,
        backend=source.backend,
    )
    path = folder / f"{order.name}.{order.digest()[:DIGITS]}.json"
    return msgspec.structs.replace(order, path=str(path))


def code_digest() -> str:
    """SHA-256 of Hermes's source, as it lies on this disk."""
    root, found = Path(hermes.__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        found.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return found.hexdigest()


def run_cell(order: Order, tell: Callable[[float], None], kept: Kept | None = None) -> Outcome:
    """Run it to its end; `tell` is called with the share of it that is done. `kept`: what other
    cells have scored and deflated. Raises `HermesError` for what is wrong with the job or data."""
    began, code = time.monotonic(), code_digest()
    settings = from_tree(order.settings)
    job = build(order.job_text, order.job_file, order.args, order.backend).on(order.device)
    loaded = Loaded(order.world_file, order.world_digest, order.world)
    with tempfile.TemporaryDirectory(prefix="hermes-compare-") as work:
        run = ModelledRun(job, settings, order.seed, Path(work), loaded)
        run.source = JobSource(order.job_name, order.job_text, order.args, order.backend)
        run.threads, run.kept = 1, kept
        driver = run.driver()
        seen, wanted = Seen(run, driver, order.until), list[bool]()

        def look() -> None:
            tell(_part(driver))
            if not wanted and driver.watch.state.stopped is None and seen.held():
                wanted.append(True)

        stopped_at = drive(driver, wanted, look)
        state = driver.watch.state
        assert state.stopped is not None
        newest = state.newest
        return Outcome(
            digest=order.digest(),
            code=code,
            strategy=order.strategy,
            devices=order.devices,
            seed=order.seed,
            settings=order.settings,
            args=order.args,
            status=state.status,
            reason="target" if wanted else state.stopped.code,
            grid=order.world.evaluate_seconds,
            seconds=stopped_at / SECOND,
            version=newest.version if newest else 0,
            samples=newest.samples if newest else 0,
            trained=_trained(state),
            pushes=_pushes(state),
            test_accuracy=state.scores.get("test_accuracy"),
            points=seen.until(stopped_at),
            spent=seen.spent,
            model_digest=newest.payload.digest if newest else None,
            ledger_digest=seen.ledger.hexdigest(),
            real_seconds=round(time.monotonic() - began, 3),
        )


def _part(driver: Driver) -> float:
    """How much of its limit a run has come to, 0 .. 1."""
    state = driver.watch.state
    stop, newest = state.settings.stop, state.newest
    if state.started is None or newest is None:
        return 0.0
    done = [0.0]
    if stop.samples:
        done.append(newest.samples / stop.samples)
    if stop.seconds:
        done.append((driver.queue.now - state.started) / SECOND / stop.seconds)
    return min(1.0, max(done))


def _trained(state: MasterState) -> int:
    return sum(member.trained for member in state.members.values())


def _pushes(state: MasterState) -> int:
    return sum(member.pushes for member in state.members.values())


class Seen:
    """Told of each ledger record that counts."""

    def __init__(self, run: ModelledRun, driver: Driver, until: Until | None) -> None:
        self.ledger = hashlib.sha256()
        """As `ledger_digest` of a simulated run's `result.json`."""
        self.spent = Spent()
        self._run, self._driver = run, driver
        self._until, self._points = until, Points(run.loaded.world.evaluate_seconds, until)
        self._published: dict[int, tuple[Payload, int]] = {}
        """By version: its tensors, and the samples in it; those before the last one scored are
        dropped."""
        self._stopped_at: int | None = None
        self._judge: Judge | None = None
        self._due = 0.0
        """Virtual time of the next look at the target."""
        self._store = AtHand(run, driver.log, driver.log.generations)
        driver.heard.append(self._take)

    def until(self, stopped_at: int) -> tuple[Point, ...]:
        """The points of the grid up to the stop (virtual time, ns)."""
        points = self._points.known(stopped_at / SECOND)
        return tuple(p for p in points if round(p.seconds * SECOND) <= stopped_at)

    def held(self) -> bool:
        """Whether the last point of the grid that is surely scored is the third to hold what ends
        this cell."""
        until, now = self._until, self._driver.queue.now / SECOND
        if until is None or now < self._due:
            return False
        grid = self._run.loaded.world.evaluate_seconds
        self._due, last = now + grid, now - grid
        return held(self._points.known(last), grid, last, until.accuracy, until.on) is not None

    def _take(self, data: bytes, record: LedgerRecord) -> None:
        self.ledger.update(hashlib.sha256(data).digest())
        for entry in record.entries:
            if isinstance(entry, VersionPublished):
                self._published[entry.version] = (entry.payload, entry.samples)
            elif isinstance(entry, VersionEvaluated):
                if self._stopped_at is None or entry.started <= self._stopped_at:
                    self._point(entry)
            elif isinstance(entry, RunStopped):
                self._stopped_at = record.time
            elif isinstance(entry, RoundNoted):
                moved = min(entry.moved, entry.waited)
                spent = self.spent
                self.spent = Spent(
                    spent.training + entry.busy / SECOND,
                    spent.transfer + moved / SECOND,
                    spent.waiting + (entry.waited - moved) / SECOND,
                )

    def _point(self, entry: VersionEvaluated) -> None:
        payload, samples = self._published[entry.version]
        for version in [known for known in self._published if known < entry.version]:
            del self._published[version]
        if self._judge is None:
            blocks = self._run.blocks(self._store)
            self._judge = self._run.judge(self._run.trainer, blocks, self._store)
        model, judge = self._store.get(payload), self._judge
        state = self._driver.watch.state
        self._points.add(
            Point(
                entry.started / SECOND,
                entry.version,
                samples,
                _trained(state),
                _pushes(state),
                self._moved(),
                None,
                None,
                entry.accuracy,
                self._calls(payload),
            ),
            lambda: judge.scores(decode_tensors(model), "test"),
        )

    def _calls(self, payload: Payload) -> int:
        """Exchanges that workers began; all versions are as long as this one."""
        members = self._driver.watch.state.members.values()
        asked = sum(member.rounds + member.pushes for member in members)
        return asked + self._sum((MODEL + RECEIVED,)) // framed(payload)

    def _moved(self) -> int:
        """Bytes of models and updates that the workers have sent and received."""
        return self._sum([kind + way for kind in (MODEL, UPDATE) for way in (SENT, RECEIVED)])

    def _sum(self, places: Sequence[int]) -> int:
        """Of the workers' bytes."""
        assert self._run.charges is not None
        flat = self._run.charges.flat()
        return sum(flat[name][place] for name in flat if name != MASTER for place in places)
