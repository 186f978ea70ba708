"""What has `hermes up` brought up? Nodes and broker as they were then, noted beside the secrets.

conf/ says what is wanted; this says what there is to take down: nodes that were taken out of conf/
since, or that have moved to another address or folder.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable
from pathlib import Path

import msgspec

from hermes.cluster.conf import Cluster, Node
from hermes.errors import UsageError
from hermes.secret_files import private_folder, write_secret

FILE = "up.json"


class Brought(msgspec.Struct, frozen=True, kw_only=True):
    """What was brought up, as far as it was not taken down again."""

    version: int = 1
    nodes: tuple[Node, ...] = ()
    left: tuple[Node, ...] = ()
    """Whose worker is stopped and whose secrets are gone; what is installed there is not."""
    broker: str = ""
    """HOST:PORT, as nodes are told; empty for none."""
    port: int | None = None
    """Of the broker, where we started it."""
    data: str | None = None
    """Folder of its records."""
    users: tuple[str, ...] = ()
    """Nodes that were given a user. One that has no password here any more was revoked."""
    taken: tuple[str, ...] = ()
    """Whose user we took away ourselves, since they were gone from conf/ or could not be reached:
    they get it back when they are there again. Who was revoked does not."""
    accesses: tuple[str, ...] = ()
    """Addresses whose access files in this machine's configuration were written by us."""


class Notes:
    """The file of it. May be used from any thread."""

    def __init__(self, cluster: Cluster) -> None:
        """Raises `UsageError` for a file that is not ours."""
        self._path = cluster.secrets / FILE
        self.there = self._path.exists()
        self._lock = threading.Lock()
        self.now = _read(self._path)

    def take(self, node: Node) -> None:
        """From now on there may be something on this node."""
        with self._lock:
            self._write(
                nodes=(*_without(self.now.nodes, node), node), left=_without(self.now.left, node)
            )

    def stopped(self, node: Node) -> None:
        """Its worker is stopped; what is installed there stays."""
        with self._lock:
            self._write(
                nodes=_without(self.now.nodes, node), left=(*_without(self.now.left, node), node)
            )

    def drop(self, node: Node) -> None:
        """There is nothing of ours on it any more."""
        with self._lock:
            self._write(nodes=_without(self.now.nodes, node), left=_without(self.now.left, node))

    def take_broker(self, broker: str, port: int | None, data: str | None) -> None:
        """This is the broker."""
        with self._lock:
            self._write(broker=broker, port=port, data=data)

    def take_users(self, names: Iterable[str]) -> None:
        """These have been given a user."""
        with self._lock:
            users = tuple(sorted(names))
            self._write(users=users, taken=tuple(sorted(set(self.now.taken).difference(users))))

    def drop_user(self, name: str, *, may_come_back: bool) -> None:
        """This one's user was taken away."""
        with self._lock:
            taken = {*self.now.taken, name} if may_come_back else {*self.now.taken} - {name}
            self._write(
                users=tuple(one for one in self.now.users if one != name),
                taken=tuple(sorted(taken)),
            )

    def take_access(self, broker: str) -> None:
        """The access file for this address is ours."""
        with self._lock:
            self._write(accesses=tuple(sorted({*self.now.accesses, broker})))

    def drop_accesses(self) -> None:
        """None is there any more."""
        with self._lock:
            self._write(accesses=())

    def remove(self) -> None:
        """Nothing is left."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    def elsewhere(self, nodes: tuple[Node, ...]) -> list[Node]:
        """Those that were brought up and are in conf/ no more, or are at another place now."""
        wanted = {place_of(node) for node in nodes}
        return [node for node in self.now.nodes if place_of(node) not in wanted]

    def _write(self, **changes: object) -> None:
        self.now = msgspec.structs.replace(self.now, **changes)
        private_folder(self._path.parent)
        write_secret(self._path, msgspec.json.format(msgspec.json.encode(self.now)) + b"\n")


def _without(nodes: tuple[Node, ...], gone: Node) -> tuple[Node, ...]:
    return tuple(one for one in nodes if place_of(one) != place_of(gone))


def place_of(node: Node) -> tuple[str, str, int, str | None, str]:
    """What tells one worker's place from another."""
    return (node.name, node.host, node.port, node.user, node.folder.rstrip("/"))


def _read(path: Path) -> Brought:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Brought)
    except FileNotFoundError:
        return Brought()
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(
            f"this is not what hermes up has noted: {error}",
            where=str(path),
            remedy="Remove it; nodes that are not in conf/config.json any more are then yours to "
            "clean: rm -r ~/.hermes-edge there.",
        ) from None
