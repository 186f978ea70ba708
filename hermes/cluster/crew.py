"""How is something done on all nodes at once, so that one's failure never stops the others?"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from hermes.cluster.conf import Cluster, Node
from hermes.cluster.progress import Board
from hermes.cluster.ssh import Interrupted, Shell, Target
from hermes.errors import Defect, HermesError, NodeError

T = TypeVar("T")

LOOKING = 60.0
"""Seconds that a look at a worker may take."""

AT_ONCE = 32
"""Nodes that are worked at, at the same time."""


class Outcome(NamedTuple):
    """What became of a node."""

    node: Node
    state: str
    """`up`, `unchanged`, `down`, `planned`, `failed` or `interrupted`."""
    did: tuple[str, ...] = ()
    """What was done, or would be, in sentences."""
    commands: tuple[str, ...] = ()
    """What would be typed there (`--dry-run`)."""
    error: HermesError | None = None
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    """What is not as it should be, and no failure."""

    @property
    def well(self) -> bool:
        """Whether it is as it should be."""
        return self.state not in ("failed", "interrupted")


def target_of(cluster: Cluster, node: Node) -> Target:
    """Where to, and as whom."""
    import getpass

    return Target(
        node.name,
        node.host,
        node.user or getpass.getuser(),
        node.port,
        cluster.key_of(node),
        node.fingerprint,
    )


def shell_of(
    cluster: Cluster, node: Node, stop: threading.Event, board: Board | None = None
) -> Shell:
    """A connection to it. Raises `NodeError`, `UsageError`, `Interrupted`."""

    def tell(text: str) -> None:
        if board is not None:
            board.say(node.name, text)

    return Shell(target_of(cluster, node), stop, tell)


def running_on(cluster: Cluster, stop: threading.Event) -> list[tuple[Node, str | None]]:
    """Every node, and why its worker does not run; None where it does."""
    from hermes.cluster.remote import HELPERS, folder_of

    def look(node: Node) -> str | None:
        with shell_of(cluster, node, stop) as shell:
            said = shell.run(f"{HELPERS}\nruns {folder_of(node)}/worker.pid", timeout=LOOKING)
        return None if said.code == 0 else "its worker does not run"

    def one(node: Node) -> str | None:
        return safely(node, lambda: look(node), lambda error: error.what)

    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        return list(zip(cluster.nodes, pool.map(one, cluster.nodes), strict=True))


def on_all(
    nodes: Sequence[Node],
    work: Callable[[Node], Outcome],
    board: Board,
    stop: threading.Event,
    beside: Callable[[], None] | None = None,
) -> list[Outcome]:
    """Do it on each, in threads; `beside` runs beside them. What came of each, in their order."""

    def one(node: Node) -> Outcome:
        began = time.monotonic()
        try:
            outcome = safely(
                node, lambda: work(node), lambda error: Outcome(node, "failed", error=error)
            )
        except Interrupted:
            outcome = Outcome(node, "interrupted")
        if stop.is_set() and outcome.state == "failed":
            outcome = outcome._replace(state="interrupted")
        _show(board, outcome)
        return outcome._replace(seconds=round(time.monotonic() - began, 2))

    with ThreadPoolExecutor(max_workers=AT_ONCE + 1) as pool:
        aside = None if beside is None else pool.submit(beside)
        outcomes = list(pool.map(one, nodes))
        if aside is not None:
            aside.result()
    return outcomes


def safely(node: Node, act: Callable[[], T], failed: Callable[[HermesError], T]) -> T:
    """What comes of it, or of `failed` with what went wrong, whatever that is: a defect with one
    node is no reason to leave the others. Raises `Interrupted`."""
    try:
        return act()
    except Interrupted:
        raise
    except HermesError as error:
        return failed(error)
    except Exception as error:  # noqa: BLE001
        return failed(_defect(node, error))


def _defect(node: Node, error: Exception) -> HermesError:
    if isinstance(error, OSError):
        return NodeError(f"{error.strerror or error}", where=node.name)
    return Defect(f"{type(error).__name__}: {error}", where=node.name)


WORDS: Mapping[str, str] = {
    "up": "up",
    "unchanged": "up already, nothing was to be done",
    "down": "down",
    "planned": "looked at",
    "interrupted": "interrupted",
}


def _show(board: Board, outcome: Outcome) -> None:
    name = outcome.node.name
    if outcome.error is not None:
        board.failed(name, outcome.error.what)
    elif outcome.well:
        board.done(name, WORDS[outcome.state])
    else:
        board.failed(name, WORDS[outcome.state])
