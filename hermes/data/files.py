"""Which data sets can be had with one call? `digits`, and any .npz file. Nothing is unpickled."""

from __future__ import annotations

import contextlib
import math
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from hermes.errors import JobError, RunFailed

Array: TypeAlias = npt.NDArray[Any]
Pair: TypeAlias = tuple[Array, Array]

PIECE = 1 << 20
"""Bytes that are unpacked at a time."""


def digits() -> Pair:
    """1797 handwritten digits of 8 x 8 grey values: x float32 (n, 8, 8) in 0 .. 1, y int64 (n,).

    Source: E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI Machine
    Learning Repository, 1998, https://doi.org/10.24432/C50P49, licence CC BY 4.0; the test part, as
    scikit-learn ships it (`load_digits`). Changed: stored as bytes 0 .. 16, here divided by 16.
    """
    with np.load(Path(__file__).parent / "digits.npz", allow_pickle=False) as file:
        return (file["x"] / np.float32(16)).astype(np.float32), file["y"].astype(np.int64)


def npz(path: str | Path) -> Pair | tuple[Pair, Pair]:
    """What an .npz file holds: `x` and `y`, or `x_train`, `y_train`, `x_test` and `y_test`.

    The arrays are memory maps: never whole in memory. Members that `numpy.savez` wrote are mapped
    where they lie; those of `savez_compressed` are unpacked into temporary files that go away with
    the process. Raises `JobError` for a file that is missing, damaged or without these names.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}

            def pair(x: str, y: str) -> Pair:
                return _member(path, archive, names[x]), _member(path, archive, names[y])

            if {"x_train", "y_train", "x_test", "y_test"} <= names.keys():
                return pair("x_train", "y_train"), pair("x_test", "y_test")
            if {"x", "y"} <= names.keys():
                return pair("x", "y")
    except OSError as error:
        raise JobError(
            f"the data cannot be read: {error.strerror or error}",
            where=str(path),
            remedy="Check the path; it is looked up on the machine of the master.",
        ) from None
    except (zipfile.BadZipFile, zlib.error, RuntimeError, ValueError, EOFError) as error:
        raise _damaged(path, str(error)) from None
    raise JobError(
        f"it holds {', '.join(sorted(names)) or 'nothing'}",
        where=str(path),
        remedy="Name its arrays x and y, or x_train, y_train, x_test and y_test.",
    )


def _member(path: str | Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    if info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1:
        with Path(path).open("rb") as file:
            file.seek(_start(file, info))
            return _mapped(path, info.filename, file)
    with _unpacked(archive, info) as file:
        return _mapped(path, info.filename, file)


def _start(file: IO[bytes], info: zipfile.ZipInfo) -> int:
    """Where the bytes of an uncompressed member begin: behind its local header, whose length
    only that header itself tells."""
    file.seek(info.header_offset)
    header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise zipfile.BadZipFile("a member's header is missing")
    name, extra = struct.unpack("<HH", header[26:30])
    return info.header_offset + 30 + int(name) + int(extra)


@contextlib.contextmanager
def _unpacked(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[IO[bytes]]:
    """The member in a file without a name: its space is free again once nobody maps it."""
    with archive.open(info) as packed, contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(packed, file, PIECE)
            file.seek(0)  # also writes what is still in its buffer
        except OSError as error:
            raise RunFailed(
                f"the data cannot be unpacked: {error.strerror or error}",
                where=tempfile.gettempdir(),
                remedy="Make room there, set TMPDIR, or save the data with numpy.savez "
                "(uncompressed).",
            ) from None
        yield file


def _mapped(path: str | Path, name: str, file: IO[bytes]) -> Array:
    """The .npy array that begins at the file's position, as a memory map."""
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
            version, np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read(file)
        if dtype.hasobject:
            raise JobError(
                f"{name} holds Python objects",
                where=str(path),
                remedy="Save plain numbers; pickled objects are never opened.",
            )
        if math.prod(shape) == 0:
            return np.empty(shape, dtype)
        order = "F" if fortran else "C"
        return np.memmap(file, dtype, "r", file.tell(), shape, order)  # type: ignore[call-overload,no-any-return]
    except ValueError as error:
        raise _damaged(path, f"{name}: {error}") from None


def _damaged(path: str | Path, why: str) -> JobError:
    return JobError(
        f"not a readable .npz file: {why}",
        where=str(path),
        remedy="Save it again with numpy.savez(path, x=x, y=y).",
    )
