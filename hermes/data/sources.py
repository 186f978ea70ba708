"""What did the job's `data()` return, and is it fit to train on?

    (x, y)                          arrays or memory maps
    ((x, y), (x_test, y_test))      with an official test set, which stays the test set
    an iterator of (x, y) blocks    of any sizes; spooled to disk, never whole in memory
    a Dataset of (x, y) samples     of torch, or anything with a length and items; spooled, too;
                                    in place of arrays, also in a pair with a test set

Whatever it was, it ends as `Samples` that can be indexed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from hermes.blame import call_user
from hermes.data.items import blocks_of, is_dataset
from hermes.errors import JobError, RunFailed

Array: TypeAlias = npt.NDArray[Any]

PIECE = 4 << 20
"""Bytes that are looked at or written at a time."""

SHAPES = (
    "It returns arrays: (x, y), ((x, y), (x_test, y_test)), an iterator of (x, y) blocks, or a "
    "torch.utils.data.Dataset of (x, y) samples. For a file: hermes.data.npz(path)."
)


class Samples(NamedTuple):
    """x of shape (n, ...) and y of shape (n, ...): arrays or memory maps."""

    x: Array
    y: Array

    @property
    def size(self) -> int:
        """How many samples."""
        return len(self.x)

    @property
    def bytes_each(self) -> int:
        """Bytes of one sample."""
        return sum(array.itemsize * int(np.prod(array.shape[1:])) for array in self)


class Dataset(NamedTuple):
    """All samples; `test` only where there is an official test set."""

    samples: Samples
    test: Samples | None


def open_data(returned: object, workdir: Path) -> Dataset:
    """What `data()` returned, checked but for its numbers (see `check_numbers`).

    An iterator or a Dataset is read to its end, into files under `workdir` that have no name and
    go away with the arrays. Raises `JobError` where it cannot be used, `RunFailed` where the disk
    is full.
    """
    if isinstance(returned, tuple | list) and len(returned) == 2:
        first, second = returned
        if _is_set(first) and _is_set(second):
            samples = _set(first, "", "the Dataset", workdir)
            test = _set(second, "_test", "the test Dataset", workdir)
            _check_alike(samples, test, "the data", "the test set")
            return Dataset(samples, test)
        return Dataset(_pair(returned, ""), None)
    if is_dataset(returned):
        return Dataset(_set(returned, "", "the Dataset", workdir), None)
    if isinstance(returned, Iterable) and not isinstance(
        returned, tuple | list | str | bytes | dict | np.ndarray
    ):
        return Dataset(_spooled(iter(returned), workdir), None)
    kind = "None" if returned is None else f"a {type(returned).__name__}"
    if isinstance(returned, tuple) and len(returned) == 3:
        raise JobError(
            "data() returned a tuple of three: a sample is x and y, without a weight",
            remedy="Return (x, y). Weights can be a column of y that the loss takes apart; those "
            "of classes belong into the loss.",
        )
    raise JobError(f"data() returned {kind}", remedy=SHAPES)


def check_numbers(
    samples: Samples, suffix: str = "", split_of: Callable[[int], str] = lambda _: "test"
) -> None:
    """Raise `JobError` naming the first sample whose x or y is not finite, and its split; reads
    all, in pieces."""
    for name, array in zip("xy", samples, strict=True):
        if array.dtype.kind != "f":
            continue
        for start, piece in pieces(array):
            rows = piece.reshape(len(piece), -1)
            bad: Array = np.logical_not(np.isfinite(rows).all(axis=1))
            if not bad.any():
                continue
            row = int(bad.argmax())
            value = rows[row][~np.isfinite(rows[row])][0]
            index, more = start + row, int(bad.sum())
            raise JobError(
                f"{name}{suffix}[{index}] is not finite: it holds {value} (a sample of the "
                f"{split_of(index)} split"
                f"{f'; {more} of the {len(bad)} samples looked at are so' if more > 1 else ''})",
                remedy="Drop such samples in data(), or fill them: "
                f"keep = numpy.isfinite({name}.reshape(len({name}), -1)).all(axis=1)",
            )


def pieces(array: Array) -> Iterator[tuple[int, Array]]:
    """Rows of the array in pieces of about PIECE bytes, each with the index of its first row."""
    row = max(1, array.nbytes // max(1, len(array)))
    rows = max(1, PIECE // row)
    for start in range(0, len(array), rows):
        yield start, array[start : start + rows]


def _is_set(value: object) -> bool:
    return _is_pair(value) or is_dataset(value)


def _set(value: Any, suffix: str, name: str, workdir: Path) -> Samples:
    """The samples of a pair of arrays, or of a Dataset."""
    if is_dataset(value):
        return _spooled(blocks_of(value, name), workdir)
    return _pair(value, suffix)


# --- arrays -------------------------------------------------------------------------------------


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, tuple | list)
        and len(value) == 2
        and all(hasattr(part, "__array__") for part in value)
    )


def _pair(pair: Sequence[object], suffix: str) -> Samples:
    samples = Samples(_array("x" + suffix, pair[0]), _array("y" + suffix, pair[1]))
    if len(samples.x) != len(samples.y):
        raise JobError(
            f"x{suffix} has {len(samples.x)} samples and y{suffix} has {len(samples.y)}",
            remedy="The first axis of both counts the samples.",
        )
    for name, array in zip("xy", samples, strict=True):
        if array.size == 0:
            raise JobError(
                f"{name}{suffix} is empty: its shape is {array.shape}",
                remedy="Return at least one sample, of at least one number.",
            )
    return samples


def _array(name: str, value: object) -> Array:
    if not hasattr(value, "__array__"):
        raise JobError(
            f"data() gave {name} as a {type(value).__name__}, not as an array", remedy=SHAPES
        )
    array = call_user(f"turning {name} into an array", np.asarray, value)
    # Kinds: truth values, whole numbers, floats; float128 and its like do not travel.
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise JobError(
            f"{name} has the type {array.dtype}",
            remedy="Return numbers: for example x.astype('float32') and y.astype('int64').",
        )
    if array.ndim == 0:
        raise JobError(f"{name} is a single number", remedy="Its first axis counts the samples.")
    return array


def _check_alike(first: Samples, other: Samples, there: str, here: str) -> None:
    for name, one, two in zip("xy", first, other, strict=True):
        if (one.shape[1:], one.dtype) != (two.shape[1:], two.dtype):
            raise JobError(
                f"a sample of {name} is {one.dtype} {one.shape[1:]} in {there}, and "
                f"{two.dtype} {two.shape[1:]} in {here}",
                remedy="Give all of them the same shape and type.",
            )


# --- an iterator of blocks ----------------------------------------------------------------------


def _spooled(blocks: Iterator[object], workdir: Path) -> Samples:
    """All blocks, one after the other, in two memory maps."""
    try:
        with tempfile.TemporaryFile(dir=workdir) as x, tempfile.TemporaryFile(dir=workdir) as y:
            return _spool(blocks, (x, y))
    except OSError as error:
        raise RunFailed(
            f"the data cannot be written: {error.strerror or error}",
            where=str(workdir),
            remedy="Make room there, or set another folder with --out.",
        ) from None


def _spool(blocks: Iterator[object], files: tuple[IO[bytes], IO[bytes]]) -> Samples:
    first: Samples | None = None
    count = 0
    end = object()
    while (block := call_user("the iterator of data()", next, blocks, end)) is not end:
        piece = _block(block, first, count)
        first = first or Samples(piece.x[:1].copy(), piece.y[:1].copy())
        for array, file in zip(piece, files, strict=True):
            for _, rows in pieces(array):
                file.write(np.ascontiguousarray(rows).data.cast("B"))
        count += piece.size
    if first is None:
        raise JobError("the iterator of data() gave no block", remedy=SHAPES)
    for file in files:
        file.flush()
    x, y = (
        np.memmap(file, like.dtype, "r", 0, (count, *like.shape[1:]))
        for like, file in zip(first, files, strict=True)
    )
    return Samples(x, y)


def _block(block: object, first: Samples | None, count: int) -> Samples:
    if not (isinstance(block, tuple | list) and len(block) == 2):
        raise JobError(
            f"the iterator of data() gave a {type(block).__name__} after {count} samples",
            remedy="Each block is a pair (x, y) of arrays.",
        )
    try:
        samples = _pair(block, "")
    except JobError as error:
        raise JobError(f"after {count} samples: {error.what}", remedy=error.remedy) from None
    if first is not None:
        _check_alike(first, samples, "the first block", f"the block after {count} samples")
    return samples
