"""How does a command find a run and read it? Live at its broker, or as its folder has it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hermes.cli.connect import BRIEF, connected
from hermes.cli.storage import Used, used_at_end
from hermes.cli.trouble import warn
from hermes.errors import HermesError

if TYPE_CHECKING:
    from hermes.messages import MasterBeat
    from hermes.runtime.folder import RunFolder
    from hermes.runtime.observe import Take, View
    from hermes.runtime.quarantine import Quarantined
    from hermes.transport.kafka import KafkaLog


class Seen(NamedTuple):
    """A run, and what is known of it beside its ledger."""

    view: View
    lives: bool
    """Whether its master lives."""
    broker: str | None
    folder: RunFolder | None
    """Where the run's files are on this machine."""
    storage: Used | None = None
    quarantined: Quarantined | None = None
    traffic: Mapping[str, tuple[int, ...]] = {}
    """Bytes moved, as a heartbeat has them, by process; empty where nobody has said."""


def see(run: str | None, out: Path, broker: str | None, take: Take) -> Seen:
    """A run (default: the newest) as it stands; `take` is given each record that counts, in order.

    With `broker` as that has it; else by the run's folder under `out`: at the broker that it names,
    if that is there and has the run, or as it is saved. Raises `RunError` for a run that is not
    there, `BrokerError`.
    """
    return _at_broker(run, broker, take) if broker else _on_this_machine(run, out, take)


def _at_broker(run: str | None, broker: str, take: Take) -> Seen:
    from hermes.runtime.observe import LiveRun, beating, last_beat, newest_at

    with connected(broker, first=BRIEF) as log:
        name = run or newest_at(log, broker)
        view = LiveRun(log, broker, name, take).look()
        lives = view.state.stopped is None and name in beating(log, [name])
        return Seen(view, lives, broker, None, *_told(last_beat(log, name)))


def _on_this_machine(run: str | None, out: Path, take: Take) -> Seen:
    from hermes.runtime.folder import find_run
    from hermes.runtime.observe import LiveRun, is_running, last_beat, saved
    from hermes.runtime.quarantine import read_quarantine

    folder = find_run(out, run)
    aside = read_quarantine(folder.quarantine)
    remembered = folder.read_note()
    lives = is_running(remembered)
    broker = (remembered.broker or None) if remembered else None
    if broker is not None and lives:
        with live_log(broker) as log:
            if log is not None and _has(log, folder.run):
                view = LiveRun(log, broker, folder.run, take).look()
                used, _, traffic = _told(last_beat(log, folder.run))
                return Seen(view, lives, broker, folder, used, aside, traffic)
    if broker is not None and not lives and remembered is not None:
        led = _led_elsewhere(folder, broker, remembered.nonce, take)
        if led is not None:
            return led
    view = saved(folder, take)
    if view.damage:
        warn(view.damage)
    return Seen(view, lives, broker, folder, used_at_end(folder), aside, _traffic_at_end(folder))


def _led_elsewhere(folder: RunFolder, broker: str, nonce: str, take: Take) -> Seen | None:
    """The run as its broker has it, where a master came after the one that this machine knows."""
    from hermes.runtime.observe import LiveRun, beating, last_beat

    if not unfinished(folder):
        return None
    with live_log(broker) as log:
        if log is None or not _has(log, folder.run):
            return None
        state = LiveRun(log, broker, folder.run).look().state
        if state.authority.nonce == nonce:
            return None
        view = LiveRun(log, broker, folder.run, take).look()
        lives = state.stopped is None and folder.run in beating(log, [folder.run])
        return Seen(view, lives, broker, folder, *_told(last_beat(log, folder.run)))


def _told(
    beat: MasterBeat | None,
) -> tuple[Used | None, Quarantined | None, Mapping[str, tuple[int, ...]]]:
    """What the run's master said last of itself."""
    from hermes.runtime.quarantine import Quarantined

    if beat is None:
        return None, None, {}
    return (
        Used(beat.used, beat.limit, beat.topics, beat.hourly, beat.of),
        Quarantined.heard(beat.aside),
        beat.traffic,
    )


def _traffic_at_end(folder: RunFolder) -> Mapping[str, tuple[int, ...]]:
    """As the run's result says, where it has one."""
    from hermes.transport.counting import KINDS

    try:
        told = json.loads(folder.result.read_bytes())["traffic"]
        return {
            process: tuple(int(of[kind][way]) for kind in KINDS for way in ("sent", "received"))
            for process, of in told.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


@contextlib.contextmanager
def live_log(broker: str) -> Iterator[KafkaLog | None]:
    """A connection to a broker that this machine noted; None if it is gone."""
    from hermes.runtime.observe import answers

    if not answers(broker):
        yield None
        return
    with connected(broker, first=BRIEF) as log:
        yield log


def _has(log: KafkaLog, run: str) -> bool:
    from hermes.runtime.join import runs_at

    return run in runs_at(log)


def unfinished(folder: RunFolder) -> bool:
    """Whether this run, as its folder has it, was not stopped."""
    from hermes.runtime.observe import saved

    try:
        return saved(folder).state.stopped is None
    except HermesError:
        return False
