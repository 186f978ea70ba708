"""Who may come in at a cluster's broker? One user a worker, called as the worker; its password lies
in the folder of secrets, and is made once."""

from __future__ import annotations

import contextlib
from pathlib import Path

from hermes.broker.secured import BROKER, MASTER, USERS, password_file
from hermes.errors import UsageError
from hermes.secret_files import kept_password, private_folder
from hermes.transport.guards import Guards
from hermes.transport.log import Log
from hermes.transport.names import checked_worker

RESERVED = (BROKER, MASTER)


def ensure_user(log: Log, secrets: Path, name: str) -> Path:
    """See that this user can get in, with the password in the file that is returned; what a
    `revoke_user` took is given back, but for the password: that is a new one, wherever it was
    taken. Safe to do again.

    Raises `UsageError` for a bad name, or a broker whose users are not ours to make.
    """
    guards = guards_of(log)
    checked(name)
    private_folder(private_folder(secrets) / USERS)
    file = password_file(secrets, name)
    if name in guards.revoked():
        file.unlink(missing_ok=True)  # it may be the reason why
    guards.set_user(name, kept_password(file))
    guards.forget_rights("*", name)
    return file


def revoke_user(log: Log, secrets: Path | None, name: str) -> bool:
    """Lock this user out at once, open connections too, and delete its password here; whether it
    was a user. Raises `UsageError` as `ensure_user`."""
    guards = guards_of(log)
    checked(name)
    known = name in guards.users()
    guards.forbid(name)
    guards.drop_user(name)
    if secrets is not None:
        with contextlib.suppress(FileNotFoundError):
            password_file(secrets, name).unlink()
    return known


def refuse_stranger(log: Log, secrets: Path | None, name: str) -> None:
    """Raise `UsageError` for a name that nobody has here, nor had: most likely a slip, and the one
    who is meant would stay in. Raises as `ensure_user` does, too."""
    guards = guards_of(log)
    there = [user for user in guards.users() if user not in RESERVED]
    kept = secrets is not None and password_file(secrets, name).exists()
    if name in there or kept or name in guards.revoked():
        return
    raise UsageError(
        f"this broker knows no worker {name!r}; nobody was locked out",
        remedy=f"Those that may come in: {', '.join(there) or 'none'}.",
    )


def checked(name: str) -> str:
    """A user's name that is a worker's. Raises `UsageError`."""
    if name in RESERVED:
        raise UsageError(
            f"{name!r} is the user of the {name} itself", remedy="Name a worker: worker-3"
        )
    return checked_worker(name)


def guards_of(log: Log) -> Guards:
    """Of a broker whose users are ours to make. Raises `UsageError`."""
    if log.guards is None:
        raise UsageError(
            "this broker has no users, or they are not ours to make",
            remedy="Start it with --secure, and use the master's access file. A managed Kafka's "
            "users are made where that is managed.",
        )
    return log.guards
