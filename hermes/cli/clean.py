"""`hermes clean`: remove what a run has left, or what the cache holds. Says first what goes."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hermes.cli import options
from hermes.cli.connect import BRIEF, connected
from hermes.cli.trouble import note, warn
from hermes.errors import RunError, UsageError

if TYPE_CHECKING:
    from hermes.runtime.caches import Caches
    from hermes.runtime.clean import Leftovers, Thing, Topic
    from hermes.transport.kafka import KafkaLog

Yes = Annotated[
    bool, typer.Option("--yes", "-y", envvar="HERMES_CLEAN_YES", help="Do not ask: it may go.")
]
DryRun = Annotated[
    bool, typer.Option(envvar="HERMES_CLEAN_DRY_RUN", help="Say what would go; remove nothing.")
]
OfCaches = Annotated[
    bool,
    typer.Option(
        "--caches", envvar="HERMES_CLEAN_CACHES", help="Cached blocks and broken downloads."
    ),
]
Everything = Annotated[
    bool,
    typer.Option(
        "--all", envvar="HERMES_CLEAN_ALL", help="With --caches: Kafka's own files, too (45 MB)."
    ),
]


def clean(
    run: options.RunToClean = None,
    caches: OfCaches = False,
    everything: Everything = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    out: options.Out = Path(),
    broker: options.BrokerToAsk = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Remove a run: its topics, its files, what only it has in the cache. Says first what goes.

    Only what Hermes made is removed. A run that is under way is refused, and one that others were
    forked from: they need its data.
    """
    if caches != (run is None) or (everything and not caches):
        raise UsageError(
            "clean takes one run, or --caches (with --all, if you like)",
            remedy="Which run? See: hermes runs. Then: hermes clean RUN",
        )
    asking = Asking(yes=yes, dry_run=dry_run, json_=json_, quiet=quiet)
    if run is None:
        _clean_caches(asking, everything=everything)
    else:
        _clean_run(run, out, broker, asking)


class Asking:
    """How the person is told, and asked."""

    def __init__(self, *, yes: bool, dry_run: bool, json_: bool, quiet: bool) -> None:
        self._yes, self._dry, self._json, self._quiet = yes, dry_run, json_, quiet

    def may_go(self, lines: Sequence[str], nothing: bool) -> bool:
        """Say what goes, and ask. Raises `UsageError` where there is nobody to ask."""
        if not (self._json or self._quiet):
            typer.echo("\n".join(lines))
        if nothing:
            return False
        if self._dry or self._yes:
            return not self._dry
        if self._json or not sys.stdin.isatty():
            raise UsageError(
                "nothing was removed: there is no terminal to ask at",
                where="hermes clean",
                remedy="Add --yes to remove it, or --dry-run to see what would go.",
            )
        sys.stderr.write("Remove all this? [y/N] ")
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    def told(self, facts: dict[str, Any], removed: bool, summary: str) -> None:
        """What has come of it."""
        if self._json:
            told = {**facts, "removed": removed, "dry_run": self._dry}
            sys.stdout.write(json.dumps(told) + "\n")
        elif self._dry:
            note("nothing was removed (--dry-run)")
        elif not removed:
            note("nothing was removed")
        elif not self._quiet:
            typer.echo(f"removed: {summary}")


# --- a run --------------------------------------------------------------------------------------


def _clean_run(run: str, out: Path, broker: str | None, asking: Asking) -> None:
    from hermes.broker.places import cache_folder, state_folder
    from hermes.runtime import clean as cleaning
    from hermes.runtime.folder import RunFolder
    from hermes.runtime.lineage import refuse_parent
    from hermes.transport.names import checked_run

    remembered = RunFolder(out, checked_run(run)).read_note()
    address = broker or (remembered.broker if remembered else None) or None
    with _log(address, named=broker is not None) as log:
        left = cleaning.leftovers(out, run, state_folder(), cache_folder() / "blocks", log)
        if left.nothing:
            raise _unknown(run, out, address if log is not None else None)
        cleaning.refuse_live(out, left, log)
        refuse_parent(out, run, log)
        gone = address if log is None else None
        removed = asking.may_go(_run_lines(left, address, gone=gone is not None), left.clean)
        if removed:  # the answer may have taken its time: somebody may have begun meanwhile
            cleaning.refuse_live(out, left, log)
            refuse_parent(out, run, log)
            cleaning.remove(left, log)
    if log is None and removed:
        warn(_topics_stay(run, gone))
    facts = {"run": run, "broker": address if log is not None else None, **_facts(left)}
    asking.told(facts, removed, _summary(left))


@contextlib.contextmanager
def _log(address: str | None, *, named: bool) -> Iterator[KafkaLog | None]:
    """A connection; None where no broker is known, or the one that was noted is gone. One that
    was named has to be there."""
    from hermes.runtime.observe import answers

    if address is None or not (named or answers(address)):
        yield None
        return
    with connected(address, first=BRIEF) as log:
        yield log


def _unknown(run: str, out: Path, asked: str | None) -> RunError:
    at = f", nor at {asked}" if asked else ""
    return RunError(
        f"there is no run {run!r} here{at}",
        where=str((out / "runs").absolute()),
        remedy="See: hermes runs. Name a folder with --out DIR, a broker with --broker HOST:PORT.",
    )


def _topics_stay(run: str, broker: str | None) -> str:
    if broker is None:
        return f"no broker is noted: topics of {run}, if there are any, stay (--broker HOST:PORT)"
    return (
        f"{broker}: the broker does not answer, so topics of {run} could not be removed; they went "
        "with it if it was an embedded one, else, once it is back: "
        f"hermes clean {run} --broker {broker}"
    )


def _run_lines(left: Leftovers, broker: str | None, *, gone: bool) -> list[str]:
    lines = [f"run {left.run}"]
    if left.topics:
        lines += ["", f"at the broker {broker}, {_topics_line(left.topics)}:"]
        lines += [f"  {_topic_line(topic)}" for topic in left.topics]
    elif gone:
        lines += ["", f"the broker {broker} does not answer: nothing goes there"]
    if left.folder is not None:
        lines += ["", f"in {left.folder}, {_things(left.files.files, 'file')}:"]
        lines += [f"  {_thing_line(thing, left.folder)}" for thing in left.files.files]
        if left.latest is not None:
            lines.append(f"  and the link {left.latest}")
    if left.outboxes.files:
        outbox = left.outboxes.folders[-1]
        lines += ["", f"in {outbox}, {_things(left.outboxes.files, 'file')} (workers' outboxes)"]
    if left.blocks:
        cache = left.blocks[0].path.parent
        many = _things(left.blocks, "cached block")
        lines += ["", f"in {cache}, {many} that no other run here uses"]
    strangers = [*left.files.strangers, *left.outboxes.strangers, *left.strange_topics]
    if strangers:
        lines += ["", "left alone, for no run made it:", *(f"  {one}" for one in strangers)]
    return [*lines, ""]


def _topics_line(topics: Sequence[Topic]) -> str:
    from hermes.report.words import count, size

    records = f"{len(topics)} topics, {count(sum(topic.records for topic in topics))} records"
    known = [topic.size for topic in topics if topic.size is not None]
    return f"{records}, {size(sum(known))}" if known else records


def _topic_line(topic: Topic) -> str:
    from hermes.report.words import count, size

    held = f"  {size(topic.size)}" if topic.size is not None else ""
    return f"{topic.name}  {count(topic.records)} records{held}"


def _thing_line(thing: Thing, root: Path) -> str:
    from hermes.report.words import size

    return f"{thing.path.relative_to(root)}  {size(thing.size)}"


def _things(things: Sequence[Thing], noun: str) -> str:
    from hermes.report.words import count, size

    many = noun if len(things) == 1 else f"{noun}s"
    return f"{count(len(things))} {many}, {size(sum(thing.size for thing in things))}"


def _summary(left: Leftovers) -> str:
    parts = [_topics_line(left.topics)] if left.topics else []
    files = (*left.files.files, *left.outboxes.files)
    parts.append(_things(files, "file"))
    if left.blocks:
        parts.append(_things(left.blocks, "cached block"))
    return f"{left.run} ({'; '.join(parts)})"


def _facts(left: Leftovers) -> dict[str, Any]:
    files = (*left.files.files, *left.outboxes.files)
    strangers = (*left.files.strangers, *left.outboxes.strangers)
    return {
        "folder": str(left.folder) if left.folder is not None else None,
        "topics": [{"name": t.name, "records": t.records, "bytes": t.size} for t in left.topics],
        "files": [{"path": str(thing.path), "bytes": thing.size} for thing in files],
        "blocks": _sums(left.blocks),
        "left_alone": [*map(str, strangers), *left.strange_topics],
    }


def _sums(things: Sequence[Thing]) -> dict[str, int]:
    return {"count": len(things), "bytes": sum(thing.size for thing in things)}


# --- the caches ---------------------------------------------------------------------------------


def _clean_caches(asking: Asking, *, everything: bool) -> None:
    from hermes.broker.places import cache_folder
    from hermes.runtime.caches import caches, clear

    folder = cache_folder()
    if everything:
        _refuse_brokers()
    found = caches(folder, everything=everything)
    removed = asking.may_go(_cache_lines(found, folder), not (found.blocks or found.folders))
    if removed:
        clear(found)
    folders = [{"path": str(thing.path), "bytes": thing.size} for thing in found.folders]
    facts = {"folder": str(folder), "blocks": _sums(found.blocks), "folders": folders}
    parts = [_things(found.blocks, "cached block")]
    parts += [_thing_line(thing, folder) for thing in found.folders]
    asking.told(facts, removed, "; ".join(parts))


def _refuse_brokers() -> None:
    from hermes.broker.control import status

    for running in status():
        if running.kind == "apache":
            raise RunError(
                "an Apache Kafka broker runs from the files that would go",
                where=running.address,
                remedy=f"Stop it first: hermes broker stop --port {running.port}",
            )


def _cache_lines(found: Caches, folder: Path) -> list[str]:
    lines = [f"in {folder / 'blocks'}, {_things(found.blocks, 'cached block')}"]
    if found.blocks:
        lines.append("  (fetched from the broker again where a run needs them)")
    lines += [f"in {folder}: {_thing_line(thing, folder)}" for thing in found.folders]
    return [*lines, ""]
