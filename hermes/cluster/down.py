"""How is a cluster taken down? Workers say bye, secrets leave the nodes, the broker stops.

What stays is told: on nodes what is installed, here the broker's records and the secrets that open
them, so that the next `hermes up` is quick and the runs are still there. With `purge` nothing stays
but what runs have written under `out`. A node that cannot be reached keeps what it has: its user is
taken from the broker, and what is left there is said.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hermes.cluster import entrance, remote
from hermes.cluster.alone import alone
from hermes.cluster.brought import Brought, Notes, place_of
from hermes.cluster.conf import Cluster, Node
from hermes.cluster.crew import Outcome, on_all, shell_of
from hermes.cluster.progress import Board
from hermes.errors import HermesError, RunError, UsageError

BROKER = "broker"


class Report(NamedTuple):
    """What came of it."""

    nodes: tuple[Outcome, ...]
    left: tuple[str, ...]
    """What is still somewhere, in sentences."""
    broker: str
    """What became of it, in words; empty where there was none of ours."""
    error: HermesError | None
    removed: tuple[str, ...] | None = None
    """What was removed here, in words; None where not all was to go."""


def nodes_of(cluster: Cluster, notes: Notes, *, purge: bool) -> list[Node]:
    """Where there may be something: what was brought up, and where nothing was noted, all of
    conf/."""
    now = notes.now
    known = [*now.nodes, *(now.left if purge else ())]
    if not notes.there:
        return list(cluster.nodes)
    in_conf = {place_of(node): node for node in cluster.nodes}
    # As conf/ says it now: a key or a fingerprint may have been mended since.
    return [in_conf.get(place_of(node), node) for node in known]


def names_of(cluster: Cluster, *, purge: bool) -> list[str]:
    """The rows of the table."""
    nodes = nodes_of(cluster, Notes(cluster), purge=purge)
    return list(dict.fromkeys([*(node.name for node in nodes), BROKER]))


def take_down(
    cluster: Cluster,
    board: Board,
    stop: threading.Event,
    *,
    purge: bool = False,
    dry_run: bool = False,
) -> Report:
    """Take it down. Raises `UsageError` for what is wrong here."""
    with alone(cluster, idle=dry_run):
        return _take_down(cluster, board, stop, purge=purge, dry_run=dry_run)


def give_up(cluster: Cluster, names: Sequence[str]) -> tuple[list[Node], HermesError | None]:
    """Places of these nodes that conf/ does not have any more, and that are gone for good: they are
    not tried again, and nobody comes in from there. Which they are, and why somebody may still.
    Raises `UsageError` for one of which nothing is noted."""
    with alone(cluster):
        notes = Notes(cluster)
        wanted = {place_of(node) for node in cluster.nodes}
        left = [node for node in notes.now.left if place_of(node) not in wanted]
        places = [*notes.elsewhere(cluster.nodes), *left]
        for name in names:
            if name not in {node.name for node in places}:
                raise UsageError(
                    f"{name} has no place that conf/ does not have any more",
                    where="--forget",
                    remedy="Take it out of conf/config.json first, or give it its new address "
                    "there.",
                )
        given_up = [node for node in places if node.name in names]
        staying = {node.name for node in cluster.nodes}
        out = [node for node in given_up if node.name not in staying]
        error = _forget(cluster, notes, out)
        for node in given_up:
            notes.drop(node)
    return given_up, error


def _take_down(
    cluster: Cluster, board: Board, stop: threading.Event, *, purge: bool, dry_run: bool
) -> Report:
    notes = Notes(cluster)

    def work(node: Node) -> Outcome:
        board.busy(node.name, "connecting")
        with shell_of(cluster, node, stop, board) as shell:
            steps = remote.pending(shell, remote.leaving(node, purge=purge))
            did = tuple(step.what for step in steps)
            if dry_run:
                return Outcome(node, "planned", did, tuple(step.command for step in steps))
            for step in steps:
                board.busy(node.name, step.doing)
                remote.perform(shell, node, step)
        if notes.there:
            (notes.drop if purge else notes.stopped)(node)
        return Outcome(node, "down", did)

    outcomes = on_all(nodes_of(cluster, notes, purge=purge), work, board, stop)
    before, lost = notes.now, [one.node for one in outcomes if not one.well]
    if dry_run or stop.is_set():
        return Report(tuple(outcomes), (), "", None)
    error = _forget(cluster, notes, lost)
    broker, trouble = _stop_broker(before, board)
    left = [_left_on(node, purge=purge) for node in lost]
    if before.broker:
        entrance.clear_ours(cluster, before)
        notes.drop_accesses()
    removed = _purge_here(cluster, notes, before) if purge and not lost else None
    left += _kept_here(cluster, before) if removed is None else []
    return Report(tuple(outcomes), tuple(left), broker, trouble or error, removed)


def _left_on(node: Node, *, purge: bool) -> str:
    rest = " and all that is installed there" if purge else ""
    return (
        f"{node.name} ({node.host}) could not be taken down: a worker may still run there, and "
        f"{node.folder} has its credentials, the cluster key{rest}. The same command goes on when "
        f"it is back; by hand there: sh -c 'kill $(cat {node.folder}/worker.pid)'; "
        f"rm -r {node.folder}"
    )


def _forget(cluster: Cluster, notes: Notes, lost: Sequence[Node]) -> HermesError | None:
    """Whoever could not be reached is at least let in no more."""
    try:
        entrance.forget(cluster, [node.name for node in lost], notes)
    except HermesError as error:
        return error
    return None


def _stop_broker(before: Brought, board: Board) -> tuple[str, HermesError | None]:
    from hermes.broker import control

    if before.port is None:
        return "", None
    board.busy(BROKER, "stopping")
    try:
        running = [one for one in control.status() if one.data == before.data]
        for one in running:
            control.stop(one.port)
    except RunError as error:
        board.failed(BROKER, error.what)
        return "", error
    text = "stopped" if running else "was not running"
    board.done(BROKER, text)
    return text, None


def _kept_here(cluster: Cluster, before: Brought) -> list[str]:
    """What stays on this machine, in a sentence."""
    kept = [path for path in (before.data, str(cluster.secrets)) if path and Path(path).exists()]
    return [f"here: {' and '.join(kept)} (hermes down --purge removes them)"] if kept else []


def _purge_here(cluster: Cluster, notes: Notes, before: Brought) -> tuple[str, ...]:
    """All that lies on this machine; what that was. Raises `UsageError` for what cannot be
    removed."""
    removed = []
    try:
        records = before.data is not None and _remove_records(Path(before.data))
        notes.remove()
        if _remove_folder(cluster.secrets):
            removed.append("secrets")
        if records:
            removed.append("the broker's records")
    except OSError as error:
        raise UsageError(
            f"it cannot be removed: {error.strerror or error}",
            where=str(error.filename or cluster.secrets),
        ) from None
    return tuple(removed)


def _remove_records(data: Path) -> bool:
    """Of the broker; a folder that holds anything else is left alone. Whether it was removed."""
    there = (data / "meta.properties").exists()
    if there:
        shutil.rmtree(data)
    return there


def _remove_folder(folder: Path) -> bool:
    """Whether there was one."""
    there = folder.is_dir() and not folder.is_symlink()
    if there:
        shutil.rmtree(folder)
    return there
