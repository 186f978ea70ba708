"""How do secrets lie on a disk? In files of mode 0600 in a folder of 0700, whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from hermes.errors import UsageError

OTHERS = 0o077
"""The bits of a mode that let others in."""

PASSWORD = 32
"""Bytes of a password: none is ever guessed, so none has to be remembered."""


def private_folder(folder: Path) -> Path:
    """This folder, made if it is missing, closed to others. Raises `UsageError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if folder.stat().st_mode & OTHERS:
            folder.chmod(0o700)
    except OSError as error:
        raise UsageError(
            f"the folder of secrets cannot be used: {error.strerror or error}",
            where=str(folder),
            remedy="It must be a folder of yours that can be written.",
        ) from None
    return folder


def write_private(file: Path, text: str) -> None:
    """Write a file that was at no moment for others to read, whole or not at all."""
    spare = file.with_name(f".{file.name}-{os.getpid()}")
    spare.unlink(missing_ok=True)
    handle = os.open(spare, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w") as writer:
            writer.write(text)
        spare.replace(file)
    except BaseException:
        spare.unlink(missing_ok=True)
        raise


def refuse_open(file: Path, what: str) -> None:
    """Raise `UsageError` where others may read this file. `what`: what it is, for people."""
    if file.stat().st_mode & OTHERS:
        raise UsageError(
            f"{what} can be read by others", where=str(file), remedy=f"chmod 600 {file}"
        )


def write_secret(path: Path, content: bytes) -> Path:
    """Write text for this user alone; whoever reads finds the old content or the new one, never a
    part. Raises `UsageError`."""
    try:
        write_private(path, content.decode())
    except OSError as error:
        raise UsageError(
            f"a secret cannot be written: {error.strerror or error}",
            where=str(path),
            remedy="Make room there, or make its folder writable.",
        ) from None
    return path


def read_secret(path: Path, what: str = "a secret") -> bytes:
    """What such a file holds; `what`: that, for people. Raises `UsageError` if it cannot be read,
    or others can read it."""
    try:
        refuse_open(path, what)
        return path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{what} cannot be read: {error.strerror or error}", where=str(path)
        ) from None


def kept_password(path: Path) -> str:
    """The password in this file; a random one is made where the file is missing or empty."""
    found = read_secret(path, "a password").strip() if path.exists() else b""
    if not found:
        found = secrets.token_urlsafe(PASSWORD).encode()
        write_secret(path, found + b"\n")
    return found.decode("ascii", "replace")
