"""How does everyone get in at the cluster's broker? The broker is up, each node has a user there,
and this module knows which files each node needs to prove who it is.

A broker of our own is started here, secured unless conf/master.json says otherwise; one that runs
already is entered as `access` says. Where the broker keeps users and lets us make them, each node
gets one of its own; a managed one that does not gives all nodes the access that it gives us.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hermes.cluster import address
from hermes.cluster.brought import Brought, Notes
from hermes.cluster.conf import Cluster, Node
from hermes.cluster.remote import File
from hermes.cluster.ssh import Interrupted
from hermes.errors import BrokerRefused, Defect, HermesError, UsageError
from hermes.secret_files import kept_password, private_folder, read_secret, write_secret

if TYPE_CHECKING:
    from hermes.broker.control import Running
    from hermes.transport.access import Access, Secret
    from hermes.transport.kafka import KafkaLog

CONNECTING = 10.0
"""Seconds until the broker must have answered."""

ACCESS, KEY = "access.json", "cluster.key"


class Entrance(NamedTuple):
    """An open one."""

    broker: str
    """HOST:PORT, as everybody is told."""
    files: Mapping[str, tuple[File, ...]]
    """What each node needs, by its name. A node that was revoked is not in here."""
    shared: bool
    """Whether all nodes have one and the same access."""


class Door:
    """Nodes wait in front of it until it is open, or known to stay shut."""

    def __init__(self) -> None:
        self._known = threading.Event()
        self._entrance: Entrance | None = None
        self.error: HermesError | None = None

    def opened(self, entrance: Entrance) -> None:
        """It is open."""
        self._entrance = entrance
        self._known.set()

    def shut(self, error: HermesError) -> None:
        """It stays shut."""
        self.error = error
        self._known.set()

    def wait(self, stop: threading.Event) -> Entrance | None:
        """The entrance; None where there is none. Raises `Interrupted`."""
        while not self._known.wait(0.1):
            if stop.is_set():
                raise Interrupted
        return self._entrance


def told(cluster: Cluster) -> str:
    """HOST:PORT of the broker, as everybody is told."""
    master = cluster.master
    if master.broker != "apache":
        return master.broker
    from hermes.transport.address import Address

    host = master.address
    if host is None and cluster.nodes:
        host = address.towards(cluster.nodes[0].host, cluster.nodes[0].port)
    return str(Address(host or socket.gethostname(), master.port))


def cluster_key_file(cluster: Cluster) -> Path:
    """The cluster key: this machine's, as it was when the cluster came up first, so that every
    command here signs with the key that the nodes know."""
    from hermes.runtime.keys import cluster_key

    path = private_folder(cluster.secrets) / KEY
    if not path.exists():
        write_secret(path, cluster_key().hex().encode() + b"\n")
    return path


def access_path(cluster: Cluster) -> Path:
    """The file that says how this machine gets in."""
    return cluster.secrets / ACCESS


def enter(cluster: Cluster, notes: Notes) -> Entrance:
    """See that the broker is up, and that every node has its user. Raises `BrokerError`,
    `UsageError`."""
    broker = told(cluster)
    key = File(KEY, read_secret(cluster_key_file(cluster)))
    if cluster.master.broker == "apache":
        access = _start(cluster, broker, notes)
    else:
        access = known_access(cluster, broker)
        notes.take_broker(broker, None, None)
    _write_ours(cluster, broker, access, notes)
    each = _users(cluster, broker, access, notes)
    shared = not each
    if shared:
        each = {node.name: access for node in cluster.nodes}
    files = {
        node.name: (key, *files_of(node, broker, each[node.name]))
        for node in cluster.nodes
        if node.name in each
    }
    return Entrance(broker, files, shared=shared and access.mechanism is not None)


def planned(cluster: Cluster) -> Entrance:
    """As it will be, as far as that is known before anything is made (`--dry-run`): secrets that
    are not there yet are empty."""
    return Entrance(
        told(cluster),
        {node.name: _planned_files(cluster, node) for node in cluster.nodes},
        shared=False,
    )


def _planned_files(cluster: Cluster, node: Node) -> tuple[File, ...]:
    from hermes.broker.secured import password_file
    from hermes.transport.access import Secret, read_access

    key, password = cluster.secrets / KEY, password_file(cluster.secrets, node.name)
    if key.exists() and access_path(cluster).exists():
        access = read_access(access_path(cluster))
        if password.exists():
            known = Secret(kept_password(password))
            access = access._replace(user=node.name, password=known)
        if password.exists() or access.password is None:
            return (File(KEY, read_secret(key)), *files_of(node, told(cluster), access))
    names = [KEY, ACCESS]
    if cluster.master.security == "on":
        names += ["ca.pem", f"{node.name}.password"]
    return tuple(File(name, b"") for name in names)


def files_of(node: Node, broker: str, access: Access) -> tuple[File, ...]:
    """What this access is on a node: its access file, and the files that that one names."""
    told: dict[str, Any] = {"version": 1, "broker": broker}
    files = []
    for name, path, file in (
        ("ca", access.ca, "ca.pem"),
        ("certificate", access.certificate, "client.pem"),
        ("key", access.key, "client.key"),
    ):
        if path is not None:
            files.append(File(file, path.read_bytes()))
            told[name] = file
    if access.password is not None:
        password = f"{node.name}.password"
        files.append(File(password, access.password.reveal().encode() + b"\n"))
        told |= {
            "mechanism": access.mechanism,
            "user": access.user,
            "password_file": password,
        }
    for name in ("tls", "insecure"):
        if getattr(access, name):
            told[name] = True
    text = json.dumps(told, indent=2) + "\n"
    return (File(ACCESS, text.encode()), *files)


def forget(cluster: Cluster, names: Iterable[str], notes: Notes) -> None:
    """These nodes may come in no more, at once. Raises `BrokerError`."""
    from hermes.cluster.users import revoke_user

    gone = [name for name in names if name in notes.now.users]
    if not gone:
        return
    with connected(cluster) as log:
        for name in gone:
            # Whom somebody has revoked before us is not ours to let in again.
            ours = name not in log.guards.revoked() if log.guards is not None else False
            revoke_user(log, cluster.secrets, name)
            notes.drop_user(name, may_come_back=ours)


def connected(cluster: Cluster, broker: str = "") -> KafkaLog:
    """A connection as this machine comes in. Raises `BrokerError`."""
    from hermes.transport.access import read_access
    from hermes.transport.kafka import KafkaLog

    access = read_access(access_path(cluster))
    return KafkaLog(broker or told(cluster), patience=CONNECTING, access=access).connect()


# --- the broker -----------------------------------------------------------------------------------


def _start(cluster: Cluster, broker: str, notes: Notes) -> Access:
    """Our own broker, started where it does not run as it should."""
    from hermes.broker import control
    from hermes.broker.secured import Secure
    from hermes.transport.access import Access

    master = cluster.master
    data = cluster.path(master.data).absolute()
    secure = Secure(private_folder(cluster.secrets)) if master.security == "on" else None
    running = [one for one in control.status() if one.data == str(data)]
    if running and not _as_wanted(running[0], cluster, broker):
        control.stop(running[0].port)
        running = []
    notes.take_broker(broker, master.port, str(data))
    if not running:
        control.start("apache", master.port, master.listen, broker, data, secure)
    if secure is None:
        return Access(insecure=True)
    return own_access(cluster)


def own_access(cluster: Cluster) -> Access:
    """As which this machine gets in at its own broker, as that one's start has left it."""
    from hermes.transport.access import read_access

    return read_access(access_path(cluster))


def _as_wanted(running: Running, cluster: Cluster, broker: str) -> bool:
    """What is not noted of one that an older Hermes has started counts as it is wanted."""
    master = cluster.master
    secrets = str(cluster.secrets.expanduser().absolute()) if master.security == "on" else None
    return (running.port, running.advertised, running.secrets, running.listen or master.listen) == (
        master.port,
        broker,
        secrets,
        master.listen,
    )


def known_access(cluster: Cluster, broker: str) -> Access:
    """How to get into a broker that runs already."""
    from hermes.transport.access import access_to, read_access

    if cluster.master.access is not None:
        return read_access(cluster.path(cluster.master.access))
    if cluster.master.security == "off":
        from hermes.transport.access import Access

        return Access(insecure=True)
    return access_to(broker)


def _write_ours(cluster: Cluster, broker: str, access: Access, notes: Notes) -> None:
    """So that `--cluster DIR`, and every command with this broker's address, get in. (For a secure
    broker of our own its start has done that.)"""
    from hermes.transport.access import access_file, write_access

    folder = private_folder(cluster.secrets)
    write_access(folder, broker, access)
    machine = access_file(broker)
    if not machine.exists():
        machine.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        notes.take_access(broker)
        write_access(folder, broker, access, file=machine)


def clear_ours(cluster: Cluster, before: Brought) -> None:
    """Take back what `enter` has left in this machine's configuration: what it wrote itself, and
    what the start of our own broker wrote, which a broker that has died leaves behind."""
    from hermes.broker.admission import forget_access
    from hermes.transport.access import access_file, read_access

    if before.port is not None:
        forget_access(_addresses(cluster, before), _masters(cluster))
    for broker in before.accesses:
        with contextlib.suppress(UsageError, OSError):
            if read_access(access_file(broker)) == read_access(access_path(cluster)):
                access_file(broker).unlink()


def _addresses(cluster: Cluster, before: Brought) -> list[str]:
    """By which our broker was called on this machine."""
    from hermes.broker.places import Wanted

    assert before.port is not None
    hosts = ("127.0.0.1", cluster.master.listen)
    return [before.broker, *(str(Wanted(before.port, host).local) for host in hosts)]


def _masters(cluster: Cluster) -> Secret | None:
    """The master's password at our broker; None if that is not known any more."""
    from hermes.broker.secured import MASTER, password_file
    from hermes.transport.access import Secret

    file = password_file(cluster.secrets, MASTER)
    return Secret(kept_password(file)) if file.exists() else None


def _users(cluster: Cluster, broker: str, access: Access, notes: Notes) -> dict[str, Access]:
    """Each node's own access, at a broker that keeps users and lets us make them. Whoever was
    revoked stays so, and is not in here."""
    from hermes.broker.secured import password_file
    from hermes.cluster.users import ensure_user
    from hermes.transport.access import Secret

    with connected(cluster, broker) as log:
        if log.guards is None:
            return {}
        try:
            there = log.guards.users()
        except BrokerRefused:  # a managed broker: its users are made elsewhere
            return {}
        # By whoever, from wherever: but for those whom we took out ourselves, since they were not
        # in conf/, or could not be reached when the cluster was taken down.
        revoked = set(log.guards.revoked()).difference(notes.now.taken)
        found = {}
        for node in cluster.nodes:
            file = password_file(cluster.secrets, node.name)
            if node.name in revoked or (not file.exists() and node.name in notes.now.users):
                continue
            if not file.exists() or node.name not in there:
                ensure_user(log, cluster.secrets, node.name)
            notes.take_users({*notes.now.users, node.name})
            found[node.name] = access._replace(
                user=node.name, password=Secret(kept_password(file)), certificate=None, key=None
            )
    return found


def cause(error: BaseException) -> HermesError:
    """What kept the door shut, as one of ours."""
    if isinstance(error, HermesError):
        return error
    return Defect(f"{type(error).__name__}: {error}", where="the broker")
