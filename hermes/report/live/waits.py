"""Who waits for what just now, and since when? Told from the ledger's fold and its history. Pure.

Only what is true is told: where the broker or the master is not heard, nothing else is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from hermes.machine import closing, missing, steps
from hermes.machine.grid import next_evaluation
from hermes.machine.state import MasterState, Member, Pending
from hermes.policy import sync
from hermes.policy.presets import PRESETS
from hermes.policy.sync import Close
from hermes.report import words
from hermes.report.live.recent import Recent
from hermes.values import SECOND

SHOWN = 0.5
"""Seconds that a wait lasts before it is shown."""

BEAT = 2.0
"""Seconds between two beats of a master, which tell what it heard of its workers."""

MASTER_SILENT = 5.0
"""Seconds without a beat after which the master is missed."""

AWAY = 1.5
"""Seconds without an answer of the broker before anybody is told."""

BUSY = 1.0
"""Seconds that a master may take for one turn before it is told: it polls 5 times a second."""


class Around(NamedTuple):
    """What the ledger cannot say; seconds."""

    away: float = 0.0
    """The broker has not answered."""
    silent: float = 0.0
    """Nothing was heard of the master."""
    busy: float = 0.0
    """The master has been in one turn: it merges or stores a version."""
    expected: tuple[str, ...] = ()
    """Names of the workers that must come, where anybody knows them."""
    dead: tuple[str, ...] = ()
    """Names of the workers whose process was on this machine, and is gone."""
    revoked: tuple[str, ...] = ()
    """Names of the workers that the broker has refused and lets in no more."""


CALM = Around()
"""All is well."""

BROKEN_OFF = Around(silent=float("inf"))
"""There is no master."""


class Wait(NamedTuple):
    """One wait; `key` is the same as long as it is the same wait."""

    key: str
    seconds: float
    pattern: str
    """What to tell, with `{age}` for how long."""

    @property
    def text(self) -> str:
        """`version 35 waits for worker-4 (2.1 s): the barrier of bsp`."""
        return self.pattern.replace("{age}", words.age(self.seconds))


class Standing(NamedTuple):
    """What a worker does, as far as the ledger lets one know; for how long, if it waits."""

    word: str
    seconds: float | None = None


def waits(state: MasterState, recent: Recent, now: int, around: Around = CALM) -> list[Wait]:
    """All waits of more than `SHOWN` seconds, the most telling first. `now` in run time."""
    if around.away > AWAY:
        return [Wait("broker", around.away, "the broker has not answered for {age}")]
    if around.silent > MASTER_SILENT and not over(state):
        return [Wait("master", around.silent, "nothing heard of the master for {age}")]
    found: list[Wait] = []
    if state.stopped is not None:
        found += _last_scores(state, recent, now)
    elif state.started is None:
        found += _before_start(state, recent, now, around)
    else:
        if around.busy > BUSY:
            found.append(Wait("turn", around.busy, "the master has been busy for {age}"))
        found += [*_first_rounds(state, now), *_steps(state, now), *_updates(state, recent, now)]
    if state.stopped is None:
        found += _silences(state, recent, now, around)
        found += _evaluation(state, recent, now)
    return [wait for wait in found if wait.seconds >= SHOWN]


def over(state: MasterState) -> bool:
    """Whether nothing more will come: the run has stopped, and its last version is scored."""
    return state.stopped is not None and (state.scored or state.newest is None)


def unheard(around: Around) -> bool:
    """Whether what the ledger says may be long past."""
    return around.away > AWAY or around.silent > MASTER_SILENT


def standing(
    state: MasterState, recent: Recent, member: Member, now: int, around: Around = CALM
) -> Standing:
    """What this worker does. That it sends an update, or loads a version, no ledger tells."""
    if member.status != "alive":
        return Standing("unable" if member.unable else member.status)
    if state.stopped is not None:
        return Standing("leaving")
    if state.started is None:
        return Standing("ready")
    if unheard(around):
        return Standing("unknown")
    quiet = silence(state, recent, member.name, now, around)
    if quiet is not None:
        return Standing("silent", quiet)
    if not missing.waits(state, member.name):
        # It builds the job first, and a framework may take its time to load.
        return Standing("training" if member.rounds else "starting")
    mine = next((p for p in state.pending if p.worker == member.name), None)
    if mine is None:
        return Standing("waiting")  # for the slowest of all, or for the end of a step
    since = _age(now, recent.taken.get(mine.update.birth, now))
    return Standing("merging" if mine in _closing(state) else "waiting", since)


def silence(
    state: MasterState, recent: Recent, worker: str, now: int, around: Around = CALM
) -> float | None:
    """Seconds without a sign of life of a worker; None as long as that is nothing unusual, or
    nobody would know."""
    if not recent.moved or around.busy > BUSY or unheard(around):
        return None
    seconds = _age(now, max(recent.heard.get(worker, now), recent.claimed))
    return seconds if seconds > 2 * state.settings.workers.heartbeat + BEAT else None


def _age(now: int, since: int) -> float:
    return max(0.0, (now - since) / SECOND)


# --- before and after ---------------------------------------------------------------------------


def _before_start(state: MasterState, recent: Recent, now: int, around: Around) -> Iterator[Wait]:
    opened = state.opened
    if opened is None or state.data is None:
        yield Wait("upload", _age(now, recent.claimed), "model and data are not sent yet ({age})")
    elif state.newest is None or recent.opened is None:
        yield Wait("first", _age(now, recent.claimed), "version 0 is not stored yet ({age})")
    else:
        came = len(state.alive()) + sum(m.unable for m in state.members.values())
        absent = [name for name in around.expected if name not in state.members]
        missing = f", without {words.listed(absent)}" if absent else ""
        text = f"waiting for workers: {came} of {opened.expect} ({{age}}){missing}"
        yield Wait("workers", _age(now, recent.opened), text)


def _last_scores(state: MasterState, recent: Recent, now: int) -> Iterator[Wait]:
    if over(state) or recent.stopped is None or state.newest is None:
        return
    text = f"version {state.newest.version}, the last, is being scored ({{age}})"
    yield Wait("scores", _age(now, recent.stopped), text)


# --- while it goes ------------------------------------------------------------------------------


def _closing(state: MasterState) -> list[Pending]:
    """What the next version is being made of, if the close rule says so now."""
    if state.newest is None or not state.pending:
        return []
    answer = closing.answer(state, state.time)
    return [state.pending[i] for i in answer.members] if isinstance(answer, Close) else []


def _first_rounds(state: MasterState, now: int) -> Iterator[Wait]:
    """Nobody has ended a round, quiet or not: frameworks take long to load."""
    starting = state.alive()
    if not starting or state.started is None or any(m.rounds for m in state.members.values()):
        return
    framework = state.opened.software.framework if state.opened is not None else ""
    name, _, backend = framework.partition(" on ")
    loads = " on ".join(filter(None, (name.partition(" ")[0], backend))) or "a framework"
    text = f"no round is done yet by {words.listed(starting)} ({{age}}): "
    text += f"each loads {loads} and builds the job first"
    yield Wait("first round", _age(now, state.started), text)


def _steps(state: MasterState, now: int) -> Iterator[Wait]:
    """Where all step together: who has not taken the step that others have."""
    told = [member.voted[1] for member in state.members.values() if member.voted is not None]
    if absent := steps.missing(state) if told else []:
        number = state.step.step + 1 if state.step is not None else 1
        text = f"step {number} waits for {words.listed(absent)} ({{age}}), as all step together"
        yield Wait(f"step {number}", _age(now, min(told)), text)


def _updates(state: MasterState, recent: Recent, now: int) -> Iterator[Wait]:
    """What becomes of the updates that were accepted."""
    if not state.pending or state.newest is None:
        return
    ages = [_age(now, recent.taken.get(p.update.birth, now)) for p in state.pending]
    version = state.newest.version + 1
    if state.settings.close.rule == "each":
        yield from _turns(state, ages)
    elif made := _closing(state):
        updates = words.counted(len(made), "update")
        text = f"version {version} is being made of {updates} ({{age}})"
        yield Wait(f"merge {version}", min(ages), text)
    else:
        text = f"version {version} {_missing(state)}"
        yield Wait(f"barrier {version}", max(ages), text)


def _missing(state: MasterState) -> str:
    """What the next version waits for."""
    rule, scene = state.settings.close, closing.scene(state)
    have = {pending.worker for pending in state.pending}
    absent = words.listed([n for n in scene.alive if n not in have and n not in scene.quiet])
    if rule.rule == "all":
        return f"waits for {absent} ({{age}}): {_barrier(state)}"
    if rule.rule == "count":
        need = min(rule.count, len(scene.alive))
        return f"waits for more updates ({{age}}): it has {len(state.pending)} of {need}"
    if sync.steps_together(rule):
        flagged = "a step was flagged, and all push"
        return f"waits for {absent} ({{age}}): {flagged}" if absent else "waits for a step ({age})"
    need, alive = sync.quorum(rule, len(scene.alive)), len(scene.alive)
    if sync.since(rule, scene) is not None:
        grace = sync.grace(rule, scene)
        return f"has a quorum ({{age}}), {need} of {alive}, and {grace:.2g} s for {absent}"
    return f"waits for a quorum ({{age}}), {need} of {alive}; not heard yet: {absent}"


def _barrier(state: MasterState) -> str:
    strategy = state.settings.strategy
    if PRESETS.get(strategy, {}).get("close.rule") == "all":
        return f"the barrier of {strategy}"
    return "close.rule is all"


def _turns(state: MasterState, ages: list[float]) -> Iterator[Wait]:
    """Merges come one at a time, in the order of acceptance; who pushed waits for its own."""
    for before, (pending, seconds) in enumerate(zip(state.pending, ages, strict=True)):
        if pending.worker not in state.alive():
            continue
        text = f"{pending.worker} waits {{age}} for the decision on its update"
        text += f", {before} before it" if before else ""
        yield Wait(f"decision {pending.update.birth}", seconds, text)


def _silences(state: MasterState, recent: Recent, now: int, around: Around) -> Iterator[Wait]:
    limit = state.settings.workers.lost
    for name in state.alive():
        seconds = silence(state, recent, name, now, around)
        if seconds is not None:
            since = recent.heard.get(name, 0)
            text = f"nothing heard of {name} for {{age}} (lost at {limit:g} s or later)"
            if name in around.dead:
                text = f"{name} is dead: its process is gone (heard {{age}} ago)"
            yield Wait(f"silence {name} {since}", seconds, text)


def _evaluation(state: MasterState, recent: Recent, now: int) -> Iterator[Wait]:
    """One is under way from the first point of the grid on at which there is a newer version."""
    known, newest = state.evaluations, state.newest
    first = recent.published(known.last_version)
    if newest is None or newest.version <= known.last_version or first is None:
        return
    since = max(next_evaluation(state), first, recent.claimed)
    if since > now:
        return
    version = max((number for number, at in recent.versions if at <= since), default=0)
    text = f"evaluation of version {version} under way, {{age}}"
    yield Wait(f"evaluation {version}", _age(now, since), text)
