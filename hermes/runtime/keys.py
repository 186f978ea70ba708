"""Where is the cluster key? In a file of mode 0600, made at first use on this machine."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import NamedTuple

from hermes.codec import digest_of
from hermes.errors import UsageError
from hermes.secret_files import refuse_open, write_private
from hermes.transport.access import Secret, config_folder

BYTES = 32


class KeyFile(NamedTuple):
    """What a key file holds: the cluster key and, on its second line (`password: ...`), that of
    the worker whom `hermes invite` wrote it for."""

    key: bytes
    password: Secret | None = None


def default_key_file() -> Path:
    """`cluster.key` in the user's configuration folder."""
    return config_folder() / "cluster.key"


def cluster_key(path: Path | None = None) -> bytes:
    """The key in this file; the default file is made where it is missing.

    Raises `UsageError` naming the file and the remedy if it is missing, readable by others, or no
    key.
    """
    if path is not None:
        return read_key(path).key
    path = default_key_file()
    if not path.exists():
        _make(path)
    return read_key(path).key


def known_key(path: Path | None = None) -> bytes:
    """As `cluster_key`, for what needs the key of a run that is there: none is made."""
    found = path or default_key_file()
    if not found.exists():
        raise UsageError(
            "there is no cluster key here, and this needs the one of the run",
            where=str(found),
            remedy="Copy the key file of the machine that led the run here (mode 0600), or name it "
            "with --key-file.",
        )
    return read_key(found).key


def _make(path: Path) -> None:
    """Make a key, whole or not at all; whoever comes second takes the first one's."""
    spare = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(spare, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(BYTES) + "\n")
        with contextlib.suppress(FileExistsError):
            os.link(spare, path)
    except OSError as error:
        raise UsageError(
            f"the cluster key cannot be made: {error.strerror}",
            where=str(path),
            remedy="Name another file with --key-file, or another folder with HERMES_CONFIG.",
        ) from None
    finally:
        with contextlib.suppress(OSError):  # on a read-only disk even this is refused
            spare.unlink(missing_ok=True)


def fingerprint(key: bytes) -> str:
    """What may be shown of a key: 16 hex digits of its SHA-256."""
    return digest_of(b"hermes cluster key" + key)[:16]


def read_key(path: Path) -> KeyFile:
    """What a key file holds. Raises `UsageError` naming the file and the remedy."""
    try:
        refuse_open(path, "the cluster key")
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise UsageError(
            f"the cluster key cannot be read: {why}",
            where=str(path),
            remedy="Copy the master's key file here (mode 0600).",
        ) from None
    return parse_key(text, str(path))


def parse_key(text: str, where: str) -> KeyFile:
    """As `read_key`, of its text."""
    first, _, rest = text.partition("\n")
    try:
        key = bytes.fromhex(first)
    except ValueError:
        key = b""
    name, _, password = rest.strip().partition(":")
    if len(key) != BYTES or (rest and name != "password"):
        raise UsageError(
            f"this is not a cluster key: it holds {2 * BYTES} hex digits",
            where=where,
            remedy="Copy the master's key file here (mode 0600), or delete this one.",
        )
    return KeyFile(key, Secret(password.strip()) if password.strip() else None)


def write_key(path: Path, found: KeyFile) -> None:
    """A key file for nobody else to read. Raises `OSError`."""
    text = found.key.hex() + "\n"
    if found.password is not None:
        text += f"password: {found.password.reveal()}\n"
    write_private(path, text)
