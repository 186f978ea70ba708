"""`hermes status`: how does a run stand? Once, or for as long as it goes on."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hermes.cli import options, refused
from hermes.cli.seen import Seen, see
from hermes.errors import BrokerError

if TYPE_CHECKING:
    from hermes.broker.refusals import Refusal
    from hermes.machine.state import MasterState
    from hermes.messages import LedgerRecord
    from hermes.report.live.waits import Around
    from hermes.runtime.quarantine import Quarantined

Watch = Annotated[
    bool,
    typer.Option(
        "--watch",
        "-w",
        envvar="HERMES_STATUS_WATCH",
        help="Go on until the run is over, as its own terminal shows it. Ctrl-C leaves; the run "
        "goes on.",
    ),
]
Every = Annotated[
    float | None,
    typer.Option(
        envvar="HERMES_STATUS_EVERY",
        metavar="SECONDS",
        min=0.25,
        max=3600,
        show_default="0.5; lines without a terminal: 3; --json: 1",
        help="With --watch: between two pictures, lines or objects.",
    ),
]


class Reading:
    """What a status is told from, beside the state: reads a run's records in order."""

    def __init__(self) -> None:
        from hermes.report.live.recent import Recent
        from hermes.report.story import MOST, Story

        self.story, self.recent = Story(MOST), Recent()

    def take(self, record: LedgerRecord) -> None:
        """Read one record more."""
        self.story.read(record)
        self.recent.read(record)


def status(
    run: options.Run = None,
    watch: Watch = False,
    every: Every = None,
    out: options.Out = Path(),
    broker: options.BrokerToAsk = None,
    json_: options.Json = False,
) -> None:
    """How a run stands: its version, scores, workers, last decisions and re-sizings.

    Asks the broker if it is there, else reads what the run left in its folder. With --watch it
    shows a live run, from its log alone, until it is over, and then how it stands.
    """
    if watch:
        from hermes.cli.watch import watch as follow

        follow(run, out, broker, every, json_=json_)
        return
    reading = Reading()
    tell(see(run, out, broker, reading.take), reading, json_=json_)


def tell(seen: Seen, reading: Reading, *, json_: bool, resizes: bool = True) -> None:
    """Print a status, once; with or without the re-sizings."""
    state = seen.view.state
    reading.recent.hear(seen.traffic, state.time)
    if json_:
        print_json(as_json(seen, reading))
        return
    from hermes.report.tables import output, status_view

    view, console = seen.view, output()
    growing = seen.lives and state.stopped is None
    place = f"live at {view.place}" if view.live else f"as saved in {view.place}"
    forked = state.forked
    origin = f", forked from {forked.parent} v{forked.version}" if forked is not None else ""
    facts = {
        "run": f"{view.run} ({place}){origin}",
        "state": condition(seen),
        "storage": seen.storage.told(growing=growing) if seen.storage else "-",
        "topics": (seen.storage.by_topic() if seen.storage else "") or "-",
        "quarantined": str(seen.quarantined) if seen.quarantined else "-",
    }
    if seen.quarantined and seen.quarantined.total:
        facts["evidence"] = seen.quarantined.where()
    story = reading.story if resizes else None
    refusals = _refused(seen)
    around = _around(seen, refusals)
    shown = status_view(state, story, reading.recent, facts, console.width, around)
    console.print(shown, soft_wrap=True)
    for line in refused.lines(refusals):
        console.print(line, soft_wrap=True, markup=False, highlight=False)


def _refused(seen: Seen) -> list[Refusal]:
    """Whom the run's broker has refused since the run was opened, where that is known here."""
    opened = seen.view.state.opened
    since = None
    if opened is not None:
        with contextlib.suppress(ValueError):
            since = datetime.fromisoformat(opened.opened.replace("Z", "+00:00")).timestamp()
    return refused.of_run(refused.at(seen.broker), seen.view.run, since)


def condition(seen: Seen) -> str:
    """In words: running, waiting, finished and why, or left alone."""
    state = seen.view.state
    if state.stopped is not None:
        from hermes.report.words import short

        return f"{state.status}: {short(state.stopped)}"
    if not seen.lives:
        return f"broken off: no sign of its master (hermes resume {seen.view.run})"
    return _going_on(state)


def _going_on(state: MasterState) -> str:
    from hermes.report.words import counted

    if state.started is None:
        expect = state.opened.expect if state.opened else 0
        return f"waiting for workers: {len(state.alive())} of {expect}"
    return f"running, {counted(len(state.alive()), 'worker')}"


def as_json(seen: Seen, reading: Reading) -> dict[str, Any]:
    """What `--json` prints; keys are only ever added."""
    from hermes.report.tables import status_json
    from hermes.runtime.lineage import origin

    view, refusals = seen.view, _refused(seen)
    return {
        "run": view.run,
        "source": "live" if view.live else "saved",
        "place": view.place,
        "broker": seen.broker,
        "master_alive": seen.lives,
        "forked": origin(view.state),
        "storage": seen.storage._asdict() if seen.storage else None,
        "quarantined": _quarantine_json(seen.quarantined),
        "refused": refused.as_json(refusals),
        **status_json(view.state, reading.story, reading.recent, _around(seen, refusals)),
    }


def _around(seen: Seen, refusals: Sequence[Refusal]) -> Around:
    """What the ledger does not say of the workers. Of a run that is over nobody is missed."""
    from hermes.report.live.waits import BROKEN_OFF, CALM

    goes_on = seen.view.state.stopped is None
    dead = () if seen.folder is None else seen.folder.dead_workers()
    revoked = _revoked(seen, refusals) if goes_on else ()
    return (CALM if seen.lives or not goes_on else BROKEN_OFF)._replace(dead=dead, revoked=revoked)


def _revoked(seen: Seen, refusals: Sequence[Refusal]) -> tuple[str, ...]:
    """Workers that the broker has refused since they were revoked, and would refuse again. Told
    where the broker is, whose log says whom it refused; and only then is it asked."""
    from hermes.broker.refusals import REVOKED
    from hermes.cli.connect import BRIEF, connected

    members = seen.view.state.members
    refused_ = {one.user for one in refusals if one.why == REVOKED}
    suspects = refused_.intersection(members)
    if not suspects or seen.broker is None:
        return ()
    with contextlib.suppress(BrokerError), connected(seen.broker, first=BRIEF) as log:
        revoked = log.guards.revoked() if log.guards is not None else []
        return tuple(name for name in revoked if name in suspects)
    return ()


def _quarantine_json(found: Quarantined | None) -> dict[str, Any] | None:
    import msgspec

    if found is None:
        return None
    return {
        "count": found.total,
        "last": [msgspec.to_builtins(aside) for aside in found.last],
        "by_reason": dict(found.counts),
        "path": str(found.path) if found.path else None,
    }


def print_json(value: dict[str, Any]) -> None:
    """One object on stdout."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()
