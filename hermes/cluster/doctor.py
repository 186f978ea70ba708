"""Is everything fit for a cluster? Every node is looked at, side by side, before anything is done.

Nothing is installed or changed. Each finding says whether it is fine, worth knowing or to be
mended, and what mends it.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from hermes.cluster import entrance, knock, up
from hermes.cluster.brought import Notes
from hermes.cluster.conf import Cluster, Node
from hermes.cluster.crew import AT_ONCE, safely, shell_of
from hermes.cluster.facts import Question, look
from hermes.cluster.judged import RUNS, Around, Finding, judged, modules_of
from hermes.cluster.progress import Board
from hermes.cluster.remote import File
from hermes.cluster.ssh import Interrupted
from hermes.errors import HermesError, UsageError

MASTER = "this machine"

DAYS = 30
"""Of a certificate that are few."""

UP_AT = "up at "
"""Of a broker that lets us in; its address follows."""


class Examined(NamedTuple):
    """A node, or this machine."""

    name: str
    findings: tuple[Finding, ...]

    def of(self, check: str) -> Finding | None:
        """The answer to one check."""
        return next((one for one in self.findings if one.check == check), None)


class Report(NamedTuple):
    """All that was found."""

    here: Examined
    nodes: tuple[Examined, ...]

    @property
    def bad(self) -> list[tuple[str, Finding]]:
        """What must be mended, and where."""
        return [
            (one.name, finding)
            for one in (self.here, *self.nodes)
            for finding in one.findings
            if finding.level == "bad"
        ]

    @property
    def up(self) -> bool:
        """Whether a run can begin: the broker is up, and every node's worker runs, with the Hermes
        that this machine has."""
        broker = self.here.of("broker")
        workers = [one.of("worker") for one in self.nodes]
        versions = [one.of("hermes") for one in self.nodes]
        return (
            broker is not None
            and broker.text.startswith(UP_AT)
            and all(found is not None and found.text == RUNS for found in workers)
            and all(found is not None and found.level == "fine" for found in versions)
        )


def examine(cluster: Cluster, board: Board, stop: threading.Event) -> Report:
    """Look at everything. Raises `Interrupted`."""
    here: list[Finding] = []
    wheels = _wheels(cluster, here)
    with _standing_in(cluster, here) as (question, word):
        question = question._replace(fetches=not wheels)
        around = Around(
            cluster, entrance.told(cluster), question, word, wheels, _revoked(cluster, here)
        )

        def one(node: Node) -> Examined:
            try:
                return _node(around, node, board, stop)
            except Interrupted:
                return Examined(node.name, ())

        with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
            nodes = tuple(pool.map(one, cluster.nodes))
    if stop.is_set():
        raise Interrupted
    here += _certificates(cluster)
    return Report(Examined(MASTER, tuple(here)), nodes)


# --- this machine ---------------------------------------------------------------------------------


def _wheels(cluster: Cluster, here: list[Finding]) -> tuple[File, ...]:
    try:
        return up.wheels_of(cluster)
    except UsageError as error:
        here.append(
            Finding("wheels", "bad", "unusable", f"{error.where}: {error.what}", error.remedy)
        )
        return ()


@contextlib.contextmanager
def _standing_in(cluster: Cluster, here: list[Finding]) -> Iterator[tuple[Question, str]]:
    """What nodes are to reach; where no broker is up, something that listens in its place."""
    from hermes.transport.address import parse_address

    broker = entrance.told(cluster)
    place = parse_address(broker)
    where = (place.host, place.port)
    if _own_broker_is_up(cluster) or cluster.master.broker != "apache":
        here += _broker(cluster, broker)
        yield Question(where, listening=False), ""
        return
    with contextlib.ExitStack() as stack:
        try:
            word = stack.enter_context(knock.listening(cluster.master.listen, cluster.master.port))
        except OSError as error:
            here.append(_cannot_listen(cluster, error))
            yield Question(None, listening=False), ""
            return
        here.append(_could_start(broker))
        here.append(Finding("limits", "fine", f"records of {_limit()}, as hermes up sets it"))
        yield Question(where, listening=True), word


def _could_start(broker: str) -> Finding:
    """Whether there is a Kafka to start; that it does start, only a start shows."""
    from hermes.broker.apache import could_run
    from hermes.broker.jars import OR_EMBEDDED

    try:
        by = could_run()
    except UsageError as error:
        remedy = error.remedy.removesuffix(OR_EMBEDDED)
        return Finding("broker", "bad", "no Apache Kafka", error.what, remedy)
    return Finding("broker", "fine", f"not up yet; will be at {broker}, run by {by}")


def _revoked(cluster: Cluster, here: list[Finding]) -> frozenset[str]:
    """Whom `hermes up` would not let in, where a broker is up that can tell."""
    usable = all(one.level != "bad" for one in here if one.check == "broker")
    is_up = _own_broker_is_up(cluster) or cluster.master.broker != "apache"
    if not (usable and is_up and entrance.access_path(cluster).exists()):
        return frozenset()
    with contextlib.suppress(HermesError), entrance.connected(cluster) as log:
        if log.guards is not None:
            return frozenset(log.guards.revoked()).difference(Notes(cluster).now.taken)
    return frozenset()


def _own_broker_is_up(cluster: Cluster) -> bool:
    from hermes.broker import control

    data = str(cluster.path(cluster.master.data).absolute())
    return any(one.data == data for one in control.status())


def _cannot_listen(cluster: Cluster, error: OSError) -> Finding:
    from hermes.broker.ports import listener

    master = cluster.master
    where = f"{master.listen}:{master.port}"
    who = listener(master.port)
    return Finding(
        "broker",
        "bad",
        f"cannot listen at {where}",
        f"the broker cannot listen at {where}: {os.strerror(error.errno or 0)}"
        + (f" (there is {who})" if who else ""),
        "Name another port, or an address of this machine: port, listen in conf/master.json.",
    )


def _limit() -> str:
    from hermes.transport.settings import MAX_RECORD

    return f"{MAX_RECORD >> 20} MiB"


def _broker(cluster: Cluster, broker: str) -> list[Finding]:
    """A broker that is up: does it let us in, and does it take our largest records?"""
    from hermes.transport.kafka import KafkaLog

    try:
        access = (
            entrance.known_access(cluster, broker)
            if cluster.master.broker != "apache"
            else entrance.own_access(cluster)
        )
        with KafkaLog(broker, patience=5.0, access=access).connect() as log:
            return [Finding("broker", "fine", f"{UP_AT}{broker}"), _limits(log)]
    except HermesError as error:
        return [
            Finding(
                "broker", "bad", "not usable", f"the broker {broker}: {error.what}", error.remedy
            )
        ]


def _limits(log: object) -> Finding:
    """The only sure way to know is to try: a topic as ours are, and a record as large as they
    get."""
    import secrets as chance

    from hermes.transport.broker_log import BrokerLog
    from hermes.transport.settings import MAX_VALUE

    assert isinstance(log, BrokerLog)
    topic = f"hermes.doctor-{chance.token_hex(4)}"
    try:
        log.create([topic])
        try:
            log.check_topics([topic])
            log.append(topic, bytes(MAX_VALUE))
        finally:
            log.delete([topic])
    except HermesError as error:
        return Finding(
            "limits",
            "bad",
            "too small",
            f"the broker does not take records of {_limit()}, which our topics need: {error.what}",
            error.remedy
            or "Raise message.max.bytes (and max.message.bytes, replica.fetch.max.bytes) there.",
        )
    return Finding("limits", "fine", f"records of {_limit()} go through")


def _certificates(cluster: Cluster) -> Iterator[Finding]:
    """Dates of what lies in the folder of secrets."""
    if not (cluster.secrets / "ca.pem").exists():
        return
    from hermes.broker.ca import certificate_in

    now = datetime.now(timezone.utc)
    for name in ("ca.pem", "broker.pem", "master.pem"):
        path = cluster.secrets / name
        if path.exists():
            try:
                until = certificate_in(path).not_valid_after_utc
            except HermesError as error:
                yield Finding("certificates", "bad", "unreadable", str(error), error.remedy)
                continue
            yield _dated(path, until, (until - now).days)


def _dated(path: Path, until: datetime, left: int) -> Finding:
    text = f"{path.name} until {until:%Y-%m-%d}"
    if left >= DAYS:
        return Finding("certificates", "fine", text)
    remedy = (
        "hermes down, then hermes up: the broker's certificate is renewed at its start."
        if path.name != "ca.pem"
        else "hermes down --purge, then hermes up: a new authority, for all nodes."
    )
    when = "has ended" if left < 0 else f"ends in {left} days"
    return Finding("certificates", "bad" if left < 0 else "note", text, f"{path} {when}", remedy)


# --- a node ---------------------------------------------------------------------------------------


def _node(around: Around, node: Node, board: Board, stop: threading.Event) -> Examined:
    def look_at() -> tuple[Finding, ...]:
        with shell_of(around.cluster, node, stop, board) as shell:
            board.busy(node.name, "looking")
            seen = look(shell, node, around.question, modules_of(node))
        return (Finding("ssh", "fine", "yes"), *judged(around, node, seen))

    def failed(error: HermesError) -> tuple[Finding, ...]:
        return (Finding("ssh", "bad", "no", error.what, error.remedy),)

    board.busy(node.name, "connecting")
    findings = safely(node, look_at, failed)
    bad = [one for one in findings if one.level == "bad"]
    if findings[0].level == "bad":
        board.failed(node.name, findings[0].what)
    elif bad:
        board.failed(node.name, f"{len(bad)} to be mended")
    else:
        board.done(node.name, "fine")
    return Examined(node.name, findings)
