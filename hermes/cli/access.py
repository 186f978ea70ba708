"""`hermes invite`, `hermes revoke`: who may come in at a secure broker."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from hermes.cli import options
from hermes.cli.connect import advertised, at_flag, connected
from hermes.errors import HermesError, UsageError

if TYPE_CHECKING:
    from hermes.transport.access import Access

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="The worker: its name, and its user at the broker.")
]
Broker = Annotated[
    str | None,
    typer.Option(
        envvar="HERMES_BROKER",
        metavar="HOST:PORT",
        show_default="the only secure one that was started here, else 127.0.0.1:9092",
        help="A secure broker, as this machine gets in as its master.",
    ),
]
ClusterFolder = Annotated[
    Path | None,
    typer.Option(
        "--cluster",
        envvar="HERMES_CLUSTER",
        metavar="DIR",
        help="The broker of this cluster's folder.",
    ),
]
RunToJoin = Annotated[
    str | None,
    typer.Option(
        "--run",
        envvar="HERMES_RUN",
        metavar="ID",
        show_default="run after run",
        help="The run that it joins.",
    ),
]
To = Annotated[
    Path | None,
    typer.Option(
        "--to",
        envvar="HERMES_INVITE_TO",
        metavar="FILE",
        show_default="NAME.key",
        help="The key file to write, for the worker's machine.",
    ),
]


class _Place(NamedTuple):
    """Where users are kept."""

    broker: str
    access: Access
    secrets: Path | None
    """The folder of secrets, where that is on this machine."""
    key: Path | None
    """The cluster's key file; None: this machine's."""


def invite(
    name: Name,
    broker: Broker = None,
    cluster: ClusterFolder = None,
    run: RunToJoin = None,
    key_file: options.KeyFile = None,
    to: To = None,
    json_: options.Json = False,
) -> None:
    """Let one more worker in, on a machine that cannot be reached by SSH.

    Makes it a user of the broker and writes a key file for it (the cluster key and its password):
    carry that there by a way that you trust, and type the line that is printed. Who was revoked is
    let in again. A node of --cluster DIR needs no file: hermes up brings it its way in.
    """
    from hermes.cli.joining import Token, certificate
    from hermes.cluster.users import checked, ensure_user
    from hermes.runtime.keys import cluster_key, fingerprint

    with at_flag("NAME"):
        checked(name)
    place = _place(broker, cluster)
    if place.secrets is None:
        raise UsageError(
            f"the secrets of the broker at {place.broker} are not on this machine",
            remedy="Is it another one, --broker HOST:PORT or --cluster DIR? hermes broker status "
            "tells of those here. Or do it where that broker was started.",
        )
    key = cluster_key(key_file or place.key)
    with connected(place.broker, access=place.access) as log:
        password = ensure_user(log, place.secrets, name)
    is_node = cluster is not None and _is_node(cluster, name)
    if is_node and not json_ and to is None and run is None and key_file is None:
        typer.echo(f"{name} may come in. As a node of conf/ it is brought its way in by:")
        typer.echo(f"  hermes up {cluster}")
        return
    file = to or Path(f"{name}.key")
    _write(file, key, password)
    told = _told(place)
    token = Token(told, run or "", fingerprint(key), certificate(place.access), name).text()
    line = f"hermes worker --join {token} --key-file {file.name}"
    if json_:
        facts = {"name": name, "broker": told, "key_file": str(file.absolute()), "join": line}
        sys.stdout.write(json.dumps(facts) + "\n")
        return
    typer.echo(f"{name} may come in at {told}. Carry {file} to its machine (mode 0600); there:")
    typer.echo(f"  {line}")
    if is_node:
        typer.echo(
            f"(As a node of conf/ it needs no file: hermes up {cluster} brings it its way in)"
        )
    typer.echo(f"To lock it out again: hermes revoke {name}{_as_typed(broker, cluster)}")


def _write(file: Path, key: bytes, password: Path) -> None:
    """The key file: the cluster key, and the password of this file. Raises `UsageError`."""
    from hermes.runtime.keys import KeyFile, write_key
    from hermes.secret_files import read_secret
    from hermes.transport.access import Secret

    secret = Secret(read_secret(password, "a password").decode("ascii").strip())
    try:
        write_key(file, KeyFile(key, secret))
    except OSError as error:
        raise UsageError(
            f"the key file cannot be written: {error.strerror or error}",
            where=str(file),
            remedy="--to FILE",
        ) from None


def revoke(
    name: Name,
    broker: Broker = None,
    cluster: ClusterFolder = None,
    json_: options.Json = False,
) -> None:
    """Lock a worker out, at once: its password and, on open connections, every topic.

    Runs go on without it, as without a worker that is lost. It keeps the cluster key that it has;
    docs/security.md says what that opens.
    """
    from hermes.cluster.users import checked, refuse_stranger, revoke_user

    with at_flag("NAME"):
        checked(name)
    place = _place(broker, cluster)
    with connected(place.broker, access=place.access) as log:
        with at_flag("NAME"):
            refuse_stranger(log, place.secrets, name)
        known = revoke_user(log, place.secrets, name)
    if json_:
        facts = {"name": name, "broker": place.broker, "was_user": known}
        sys.stdout.write(json.dumps(facts) + "\n")
        return
    was = "" if known else " (it was no user there, or was revoked before)"
    typer.echo(f"{name} is locked out at {place.broker}{was}")
    typer.echo(f"To let it in again: hermes invite {name}{_as_typed(broker, cluster)}")


def invitation(broker: str, run: str, key: bytes) -> str:
    """What lets one more worker in to a run at this broker that takes this cluster key, as it is
    typed on the broker's machine."""
    from hermes.runtime.keys import default_key_file, read_key

    line = f"hermes invite NAME --run {run} --broker {broker}"
    with contextlib.suppress(HermesError):
        if read_key(default_key_file()).key == key:
            return line
    secrets = _secrets_at(broker)
    with contextlib.suppress(HermesError):
        if secrets is not None and read_key(secrets / "cluster.key").key == key:
            return f"hermes invite NAME --run {run} --cluster {secrets.parent}"
    return f"{line} --key-file FILE"


def _only_secure() -> str | None:
    """The one secure broker that was started on this machine, if there is one and no other."""
    from hermes.broker import control

    found = [one.address for one in control.status() if one.secrets]
    return found[0] if len(found) == 1 else None


def _secrets_at(broker: str) -> Path | None:
    """The folder of secrets of this broker, where it is on this machine."""
    from hermes.broker import control

    found = control.running_at(broker)
    return Path(found.secrets) if found is not None and found.secrets else None


def _place(broker: str | None, cluster: Path | None) -> _Place:
    """Raises `UsageError`."""
    if cluster is not None:
        return _of_cluster(cluster, broker)
    from hermes.transport.access import access_to

    broker = broker or _only_secure() or options.DEFAULT_BROKER
    with at_flag("--broker"):
        access = access_to(broker)
    secrets = _secrets_at(broker)
    return _Place(broker, access, secrets, _key_in(secrets) if secrets is not None else None)


def _of_cluster(cluster: Path, broker: str | None) -> _Place:
    import msgspec

    from hermes.transport.access import read_access

    secrets = cluster / "secrets"
    file = secrets / "access.json"
    if not file.exists():
        raise UsageError(
            "this cluster has no broker yet, or an open one",
            where=str(file),
            remedy=f"Bring it up first: hermes up {cluster}",
        )
    access = read_access(file)
    told = msgspec.json.decode(file.read_bytes()).get("broker", "")
    return _Place(broker or told, access, secrets, _key_in(secrets))


def _key_in(secrets: Path) -> Path | None:
    """The cluster's own key file, of a broker that hermes up has started."""
    key = secrets / "cluster.key"
    return key if key.exists() else None


def _is_node(cluster: Path, name: str) -> bool:
    from hermes.cluster.conf import load

    with contextlib.suppress(HermesError):  # what is wrong with conf/, hermes up tells
        return any(node.name == name for node in load(cluster.absolute()).nodes)
    return False


def _told(place: _Place) -> str:
    """Where a worker on another machine finds the broker."""
    from hermes.transport.address import is_local, parse_address

    if is_local(parse_address(place.broker).host):
        return advertised(place.broker, place.access)
    return place.broker


def _as_typed(broker: str | None, cluster: Path | None) -> str:
    return f" --cluster {cluster}" if cluster else f" --broker {broker}" if broker else ""
