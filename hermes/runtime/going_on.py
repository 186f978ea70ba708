"""How does a run go on whose master is gone? From its ledger, its data topic and the cluster key.

Nothing else is needed: neither the job file nor the folder of the machine that led it before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from msgspec.structs import replace

from hermes.codec import digest_of, encode
from hermes.data.cache import BlockCache
from hermes.errors import Defect, RunError, SettingError
from hermes.job import Job
from hermes.machine.events import Opened
from hermes.machine.repair import stateful
from hermes.machine.state import MasterState
from hermes.machine.stopping import stopping_rule
from hermes.messages import DataPublished, JobSource, MasterBeat, RunReopened
from hermes.perform.blocks import Blocks, read_upload
from hermes.perform.ledger import Ledger, Saved, Watcher
from hermes.perform.store import Store
from hermes.perform.upload import Signer
from hermes.policy.presets import Settings, from_tree, resettled, to_tree
from hermes.runtime.archive import kept_in
from hermes.runtime.folder import RunFolder
from hermes.runtime.heritage import Heritage, heritage_again
from hermes.runtime.join import ledger_of
from hermes.runtime.observe import beating, is_running, last_beat, refuse_other_key
from hermes.runtime.storage import Meter, StorageWatch, first_rounds, watch_over
from hermes.runtime.trying import fresh_trainer
from hermes.train import Batch, starting_weights
from hermes.transport import names
from hermes.transport.log import Log
from hermes.transport.settings import LEDGER_CONFIG
from hermes.values import SECOND, Reason, Tensors

CHANGEABLE = ("stop", "storage", "retention", "workers", "cache")
"""Sections of the settings that may change while a run goes on; the others make another run of it
(`hermes fork`)."""

LISTENING = 5.0
"""Seconds in which a master that lives is heard: it beats every 2 s (protocol 3)."""


class Known(NamedTuple):
    """A run as its topics have it."""

    state: MasterState
    source: JobSource
    batch: Batch | None
    """A first batch, to measure a step with; None where all data stay with the workers."""
    change: RunReopened | None = None
    """What the ledger is to say of how it goes on."""
    beat: MasterBeat | None = None
    """What its last master said last."""
    inherited: Heritage | None = None
    """What a fork begins with, where it had not stored that yet."""


# --- reading --------------------------------------------------------------------------------------


def folded(log: Log, run: str, watcher: Watcher | None = None, saved: Saved = tuple) -> MasterState:
    """The run as its ledger has it, and what this machine has `saved` of it beyond its end;
    `watcher` is told of each record. Raises `RunError` for a run that is not there, or that this
    version cannot read."""
    ledger = Ledger(log, ledger_of(log, run), watcher=watcher, saved=saved)
    ledger.fold_saved()
    if ledger.state.opened is None:
        raise _unopened(log, run, ledger)
    return ledger.state


def _unopened(log: Log, run: str, ledger: Ledger) -> RunError:
    place = f"the ledger of {run!r} at {log.place}"
    foreign = [(offset, why) for offset, why in ledger.voids if "another protocol" in why]
    if foreign:
        offset, why = foreign[0]
        return RunError(
            f"offset {offset}: {why}: another version of Hermes wrote it",
            where=place,
            remedy="Go on with the version that began the run.",
        )
    return RunError(
        "it was never opened: nothing was sent but its master's claim",
        where=place,
        remedy=f"Start it again with its job file: hermes master JOB.py --run {run}; a fork: "
        f"hermes clean {run}, and fork again.",
    )


def known_run(
    log: Log, folder: RunFolder, cache: BlockCache, key: bytes, watcher: Watcher | None = None
) -> Known:
    """All that is needed to go on; `watcher` is told of each record of the ledger. Raises
    `RunError`, `Unverified`, `BrokerError`, `JobError`."""
    run = folder.run
    state = folded(log, run, watcher, partial(kept_in, folder.ledger))
    refuse_other_key(state, run, key)
    data = state.data
    if data is None:
        raise RunError(
            "its data had not been sent when its master ended",
            where=f"run {run}",
            remedy=f"Start it again with its job file: hermes master JOB.py --run {run}",
        )
    _check_topics(log, run, data)
    store = Store(log, data.run or run)
    try:
        Signer(data.run or run, key).verify(data)
        source, manifest = read_upload(store, data)
        blocks = Blocks(store, manifest, cache)
        there = [split for split in ("probe", "validation") if blocks.count(split)]
        batch = blocks.read(there[0], 0) if there else None
    finally:
        store.close()
    return Known(state, source, batch, None, last_beat(log, run), _inherited(log, folder, state))


def _inherited(log: Log, folder: RunFolder, state: MasterState) -> Heritage | None:
    """What a fork has from its parent, where it ended before it had stored that."""
    if state.newest is not None or state.forked is None:
        return None
    momentum = stateful(state.settings.merge)
    return heritage_again(log, state.forked, folder.runs.parent, momentum=momentum)


def _check_topics(log: Log, run: str, data: DataPublished) -> None:
    """They are there, and kept as a run needs them. Raises `RunError`, `BrokerRefused`."""
    there = set(log.topics(names.prefix_of(run)))
    wanted = [names.physical(run, short) for short in names.RUN_TOPICS]
    if data.run:  # a fork reads its data from its parent's
        wanted.remove(names.physical(run, names.DATA))
        there |= set(log.topics(names.prefix_of(data.run)))
        wanted.append(names.physical(data.run, names.DATA))
    rotated = {name for topic in there if (name := names.parse(topic)) and name.generation}
    short_of = {names.physical(name.run, name.short) for name in rotated}
    missing = [topic for topic in wanted if topic not in there and topic not in short_of]
    if missing:
        raise RunError(
            f"the topic {missing[0]} is gone: somebody has deleted it",
            where=f"the broker {log.place}",
            remedy="The run cannot go on without it. Its models so far lie in its folder.",
        )
    log.check_topics([wanted[0]], LEDGER_CONFIG)
    log.check_topics([topic for topic in wanted[1:] if topic in there])


def refuse_other_job(known: Known, source: JobSource) -> None:
    """Raise `RunError` where a job file is not the one that the run was opened with."""
    source = replace(source, backend=known.source.backend)  # the run's own is taken anyhow
    if digest_of(encode(source)) == digest_of(encode(known.source)):
        return
    what = "other arguments" if source.text == known.source.text else "another job"
    raise RunError(
        f"the run was opened with {what} than {source.name}"
        + (f" {' '.join(source.args)}" if source.args else ""),
        where=f"run {known.state.opened.run if known.state.opened else ''}",
        remedy="Go on with its own (hermes resume RUN needs no file), or choose another --run.",
    )


# --- may we? --------------------------------------------------------------------------------------


def refuse_if_led(log: Log, folder: RunFolder, state: MasterState) -> None:
    """Raise `RunError` while another master of this run beats. Listens for 5 s, unless the master
    in force was a process of this machine that has ended."""
    note = folder.read_note()
    if note is not None and is_running(note):
        raise _led(folder.run, f"process {note.pid} on this machine")
    if note is not None and state.authority.nonce in {note.nonce, *note.before} - {""}:
        return  # whoever came later would be in force
    if beating(log, [folder.run], LISTENING):
        raise _led(folder.run, "it beats in the log")


def _led(run: str, how: str) -> RunError:
    return RunError(
        f"its master lives: {how}",
        where=f"run {run}",
        remedy="Look on with hermes status --watch; to take the run from it: "
        f"hermes resume {run} --take-over (it then ends).",
    )


# --- with which settings? -------------------------------------------------------------------------


def untold(state: MasterState, folder: RunFolder) -> bool:
    """Whether the run has stopped in order, and its master died before it had written the results.
    One that failed has said so: whoever resumes it has seen to the cause."""
    if state.stopped is None or state.newest is None or state.status == "failed":
        return False
    return not state.scored or (folder.note.exists() and not folder.tells_of(state))


def changed(
    state: MasterState,
    wanted: Mapping[str, Any],
    where: str,
    expect: int = 0,
    *,
    ending: bool = False,
) -> RunReopened | None:
    """What the ledger is to say, where other settings than before are wanted or the run had
    stopped; None where it simply goes on (a supervisor types the same command each time), or
    (`ending`) where all that is left is to write its results. Raises `SettingError`, `RunError`."""
    before = state.settings
    asked = {k: v for k, v in wanted.items() if resettled(before, {k: v}, where) != before}
    for key in asked:
        if key.partition(".")[0] not in CHANGEABLE:
            raise SettingError(
                f"{key} cannot change within a run: it would be another one",
                where=where,
                remedy=f"hermes fork RUN --at VERSION --set {key}=... begins another from any "
                f"version. Here: {', '.join(f'{section}.*' for section in CHANGEABLE)}.",
            )
    settings = resettled(state.settings, asked, where)
    if (state.stopped is None or ending) and not asked and not expect:
        return None
    _refuse_at_once(state, settings)
    _refuse_without_pools(state, expect)
    facts = {key: value for key, value in asked.items() if not isinstance(value, (dict, list))}
    return RunReopened(to_tree(settings), Reason("asked", facts), expect)


def _refuse_without_pools(state: MasterState, expect: int) -> None:
    """More workers than the data was divided for: they would be refused, one by one."""
    pools = len(state.data.pools) if state.data else 0
    if pools and expect > pools:
        raise SettingError(
            f"{expect} workers are expected, and the data was divided into {pools} pools: each "
            "worker has one of its own",
            where=f"run {state.opened.run if state.opened else ''}",
            remedy="Expect fewer workers, or begin a run of its own, with more data.pools.",
        )


def _refuse_at_once(state: MasterState, settings: Settings) -> None:
    """A run that had stopped and would stop again at once."""
    if state.stopped is None or state.newest is None or state.started is None:
        return
    who = f"it has {state.status} ({state.stopped.code}), and"
    run = state.opened.run if state.opened else ""
    refuse_reached(replace(state, settings=settings), who, run)


def refuse_reached(state: MasterState, who: str, run: str, hint: str = "") -> None:
    """Raise `RunError` where a stopping rule holds already; `who` would stop at once."""
    rule = stopping_rule(state, state.time)
    if rule is None:
        return
    limit, reached = rule.facts["limit"], next(iter(rule.facts.values()))
    raise RunError(
        f"{who} would stop at once: stop.{rule.code}={limit} is reached ({reached})",
        where=f"run {run}",
        remedy=f"{hint}To go on: --set stop.{rule.code}=MORE, or =off.",
    )


# --- going on -------------------------------------------------------------------------------------


class Continuation:
    """What a master needs beside the ledger, for a run that was opened before."""

    def __init__(self, known: Known, job: Job) -> None:
        self._known, self._job = known, job

    def tried(self) -> Batch | None:
        """A first batch: all of it was seen to fit when the run began."""
        return self._known.batch

    @property
    def model_bytes(self) -> int:
        """Of a version."""
        known = self._known
        inherited = known.inherited.bytes if known.inherited is not None else 0
        return known.state.newest.payload.length if known.state.newest else inherited

    def opened(self, *, trims: bool) -> Opened:
        """What the machine is told at first."""
        state, change = self._known.state, self._known.change
        assert state.opened is not None
        return Opened(state.opened, change, trims=trims)

    def storage(self, meter: Meter, steps: tuple[float, ...]) -> StorageWatch:
        """Whoever holds the run to its limit; `steps`: seconds of a step, by worker."""
        state = self._known.state
        settings = self.settings()
        if self._known.beat is not None:
            meter.begin(self._known.beat.topics)
        timings = [m.timings for m in state.members.values() if m.timings]
        rounds = [sum(busy for _, busy in some) / len(some) / SECOND for some in timings]
        data = state.data
        assert data is not None
        guessed = first_rounds(settings, data.first_size, data.batch, steps)
        return watch_over(meter, settings, self.model_bytes, rounds or guessed, 0)

    def settings(self) -> Settings:
        """Those in force from now on."""
        change = self._known.change
        return self._known.state.settings if change is None else from_tree(change.settings)

    def oddities(self) -> list[str]:
        """None that were not told before."""
        return []

    def send_data(self, store: Store, sent: Callable[[int, int], None]) -> DataPublished:
        """It was sent before: nobody asks."""
        del store, sent
        raise Defect("the data was sent before")

    def take_weights(self) -> Tensors:
        """The first model, for a run that ended between its data and its first version."""
        inherited, opened = self._known.inherited, self._known.state.opened
        if inherited is not None:
            return inherited.take_model()
        assert opened is not None
        trainer = fresh_trainer(self._job, opened.seed)
        starting_weights(self._job, trainer)
        return trainer.weights()

    def take_state(self) -> Tensors:
        """What a fork has of its parent's master, if it had not stored that yet."""
        inherited = self._known.inherited
        return {} if inherited is None else inherited.take_moments()
