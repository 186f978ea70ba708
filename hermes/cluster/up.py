"""How does a cluster come up? The broker here, and on every node an installed Hermes and a worker.

All nodes at once, and the broker beside them; a node waits for it only when it has installed all
that it needs. Everything is a step that is not done where it is done already (`remote`), so the
same command goes on where it was broken off, adds nodes that are new in conf/, stops those that
are in it no more, and leaves a worker alone that runs as it should: while a run goes on, too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from hermes.cluster import entrance, remote, wheel
from hermes.cluster.alone import alone
from hermes.cluster.brought import Notes
from hermes.cluster.conf import Cluster, Node
from hermes.cluster.crew import Outcome, on_all, safely, shell_of
from hermes.cluster.entrance import Door, Entrance
from hermes.cluster.progress import Board
from hermes.cluster.remote import File, Step
from hermes.cluster.ssh import Shell
from hermes.errors import BrokerError, HermesError, NodeError, UsageError

BROKER = "broker"
"""Of the table: what is no node."""


class Report(NamedTuple):
    """What came of it."""

    broker: str
    nodes: tuple[Outcome, ...]
    removed: tuple[Outcome, ...]
    """Nodes that conf/ does not have any more, at the place where they were."""
    error: HermesError | None
    """Of the broker."""
    shared: bool = False
    """All nodes have one and the same access."""
    still_in: HermesError | None = None
    """Why nodes that conf/ does not have any more may still come in."""

    @property
    def up(self) -> list[Node]:
        """The nodes whose workers run."""
        return [one.node for one in self.nodes if one.state in ("up", "unchanged")]


class Kit(NamedTuple):
    """What every node gets."""

    wheel: wheel.Wheel
    wheels: tuple[File, ...]


def names_of(cluster: Cluster) -> list[str]:
    """The rows of the table."""
    gone = Notes(cluster).elsewhere(cluster.nodes)
    names = [BROKER, *(node.name for node in cluster.nodes), *(node.name for node in gone)]
    return list(dict.fromkeys(names))


def bring_up(
    cluster: Cluster, board: Board, stop: threading.Event, *, dry_run: bool = False
) -> Report:
    """Bring it up. Raises `UsageError` for what is wrong here; what is wrong with a node, or with
    the broker, is in the report."""
    with alone(cluster, idle=dry_run):
        return _bring_up(cluster, board, stop, dry_run=dry_run)


def _bring_up(cluster: Cluster, board: Board, stop: threading.Event, *, dry_run: bool) -> Report:
    kit = Kit(wheel.pack(), wheels_of(cluster))
    notes, door = Notes(cluster), Door()
    gone = notes.elsewhere(cluster.nodes)
    moved = {node.name: node for node in gone}
    staying = {node.name for node in cluster.nodes}
    trouble: list[HermesError] = []

    def leave(node: Node) -> Outcome:
        return _leave(cluster, node, notes, board, stop, dry_run=dry_run)

    def work(node: Node) -> Outcome:
        if node not in cluster.nodes:
            return leave(node)
        told = _left(moved[node.name], leave, board) if node.name in moved else ()
        done = _bring(cluster, node, kit, notes, door, board, stop, dry_run=dry_run)
        return done._replace(warnings=told)

    def beside() -> None:
        _open(cluster, notes, door, board, dry_run=dry_run)
        if not dry_run and door.error is None:  # before a node that hangs could keep us from it
            trouble.extend(_forget(cluster, notes, staying))

    removed = [node for node in gone if node.name not in staying]
    outcomes = on_all([*cluster.nodes, *removed], work, board, stop, beside)
    found = door.wait(stop) if not stop.is_set() else None
    return Report(
        entrance.told(cluster),
        tuple(outcomes[: len(cluster.nodes)]),
        tuple(outcomes[len(cluster.nodes) :]),
        door.error,
        found.shared if found is not None else False,
        trouble[0] if trouble else None,
    )


def wheels_of(cluster: Cluster) -> tuple[File, ...]:
    """The wheels of `master.wheels`. Raises `UsageError`."""
    if cluster.master.wheels is None:
        return ()
    folder = cluster.path(cluster.master.wheels)
    where = cluster.places.get("master.wheels", "conf/master.json")
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix == ".whl")
        found = tuple(File(path.name, path.read_bytes(), 0o644) for path in files)
    except OSError as error:
        raise UsageError(
            f"the folder of wheels cannot be read: {error.strerror or error}",
            where=f"{where}: {folder}",
            remedy="Make it, where there is internet: pip download -d FOLDER hermes-edge, or leave "
            "wheels out.",
        ) from None
    if not found:
        raise UsageError(
            "there is no wheel in this folder",
            where=f"{where}: {folder}",
            remedy="Fill it, where there is internet: pip download -d FOLDER and what Hermes needs",
        )
    return found


def _open(cluster: Cluster, notes: Notes, door: Door, board: Board, *, dry_run: bool) -> None:
    """The broker, and everyone's way in."""
    try:
        if dry_run:
            opened, told = entrance.planned(cluster), _plan_of_broker(cluster)
        else:
            board.busy(BROKER, f"starting at {entrance.told(cluster)}")
            opened = entrance.enter(cluster, notes)
            told = f"up at {opened.broker}"
    except Exception as error:  # noqa: BLE001  (whatever it is, the nodes must not wait for ever)
        trouble = entrance.cause(error)
        door.shut(trouble)
        board.failed(BROKER, trouble.what)
        return
    door.opened(opened)
    board.done(BROKER, told)


def _plan_of_broker(cluster: Cluster) -> str:
    master = cluster.master
    if master.broker != "apache":
        return f"use the broker {master.broker}"
    secured = "TLS, a user for each node" if master.security == "on" else "open to everybody"
    return (
        f"start Apache Kafka at {master.listen}:{master.port}, told as {entrance.told(cluster)} "
        f"({secured}), unless it runs"
    )


def _forget(cluster: Cluster, notes: Notes, staying: Collection[str]) -> list[HermesError]:
    """Whoever is in conf/ no more may come in no more, reached or not; what went wrong with it."""
    names = [name for name in notes.now.users if name not in staying]
    try:
        entrance.forget(cluster, names, notes)
    except Exception as error:  # noqa: BLE001  (it is told; the nodes are worked at all the same)
        still = [name for name in names if name in notes.now.users]
        return [
            BrokerError(
                f"{', '.join(still)} may still come in: {entrance.cause(error).what}",
                where="the broker",
                remedy="The same command tries it again; or: hermes revoke NAME --cluster "
                f"{cluster.folder}",
            )
        ]
    return []


# --- one node -------------------------------------------------------------------------------------


def _bring(
    cluster: Cluster,
    node: Node,
    kit: Kit,
    notes: Notes,
    door: Door,
    board: Board,
    stop: threading.Event,
    *,
    dry_run: bool,
) -> Outcome:
    """From whatever is there to a worker that runs."""
    board.busy(node.name, "connecting")
    with shell_of(cluster, node, stop, board) as shell:
        first = remote.pending(shell, remote.installing(node, kit.wheel, kit.wheels))
        if not dry_run:
            notes.take(node)
            _perform(shell, node, first, board)
            board.busy(node.name, "waiting for the broker")
        opened = door.wait(stop)
        if opened is None:
            raise BrokerError("it is installed, but there is no broker", where=node.name)
        if node.name not in opened.files:
            raise NodeError(
                "it was revoked: it is installed, and gets no credentials",
                where=node.name,
                remedy=f"To let it in again: hermes invite {node.name}, then hermes up. Otherwise "
                "take it out of conf/config.json.",
            )
        second = _second(shell, node, kit, opened, dry_run=dry_run)
        if dry_run:
            return _planned(node, [*first, *second])
        _perform(shell, node, second, board)
    did = tuple(step.what for step in [*first, *second])
    return Outcome(node, "up" if did else "unchanged", did)


def _second(shell: Shell, node: Node, kit: Kit, opened: Entrance, *, dry_run: bool) -> list[Step]:
    installed = remote.installed(node, kit.wheel, kit.wheels)
    worker = remote.Worker(node, opened.broker, installed, opened.files[node.name])
    steps = remote.starting(worker)
    if dry_run and not all(file.data for file in worker.secrets):
        return steps  # they are made when it is done in earnest
    return remote.pending(shell, steps)


def _perform(shell: Shell, node: Node, steps: Sequence[Step], board: Board) -> None:
    for step in steps:
        board.busy(shell.target.name, step.doing)
        remote.perform(shell, node, step)


def _planned(node: Node, steps: Sequence[Step]) -> Outcome:
    return Outcome(
        node, "planned", tuple(step.what for step in steps), tuple(step.command for step in steps)
    )


def _left(node: Node, leave: Callable[[Node], Outcome], board: Board) -> tuple[str, ...]:
    """A node has another place now, and its old one is left; what is to be told of that. A place
    that is no more is no reason not to go to the new one."""

    def told(error: HermesError) -> tuple[str, ...]:
        board.say(node.name, f"its old place {node.host} cannot be left: {error.what}")
        return (
            f"{node.name}: its old place, {node.host}, {node.folder}, could not be left: "
            f"{error.what}. A worker may still run there. hermes up tries it again each time; if "
            f"that place is gone for good: hermes down --forget {node.name}",
        )

    def quietly() -> tuple[str, ...]:
        leave(node)
        return ()

    return safely(node, quietly, told)


def _leave(
    cluster: Cluster,
    node: Node,
    notes: Notes,
    board: Board,
    stop: threading.Event,
    *,
    dry_run: bool,
) -> Outcome:
    """A node that is in conf/ no more: its worker says bye, its secrets go."""
    board.busy(node.name, f"leaving {node.host}, which conf has no more")
    with shell_of(cluster, node, stop, board) as shell:
        steps = remote.pending(shell, remote.leaving(node, purge=False))
        if dry_run:
            return _planned(node, steps)
        _perform(shell, node, steps, board)
    notes.stopped(node)
    return Outcome(node, "down", tuple(step.what for step in steps))
