"""How do the samples of a Dataset become blocks? One after the other: (x, y), (x, y), ...

A Dataset is one of `torch.utils.data`, told by its type alone (torch is not imported to see it), or
any object with a length and items by index. Never whole in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from hermes.blame import call_user
from hermes.errors import JobError

Array: TypeAlias = npt.NDArray[Any]

BLOCK = 1 << 20
"""Bytes of samples that are put together at a time, about."""

MOST = 1024
"""Samples of those at most."""

REMEDY = "Each sample of it is a pair (x, y) of tensors, arrays or numbers."


class _Item(NamedTuple):
    """One sample."""

    x: Array
    y: Array

    @property
    def bytes(self) -> int:
        return self.x.nbytes + self.y.nbytes


def is_dataset(value: object) -> bool:
    """Whether this is a Dataset: of torch, or a class of the user's own that is like one."""
    if any(kind.__module__ == "torch.utils.data.dataset" for kind in type(value).__mro__):
        return True
    known = isinstance(value, Sequence | Mapping | Iterable) or hasattr(value, "__array__")
    sized = hasattr(value, "__len__") and hasattr(value, "__getitem__")
    return sized and not known and not isinstance(value, type)


def blocks_of(dataset: Any, name: str) -> Iterator[tuple[Array, Array]]:
    """All samples in their order, as blocks x of shape (n, ...) and y of shape (n, ...).

    `name`: what the Dataset is called in messages. Raises `JobError` naming the first sample that
    cannot be used.
    """
    first: _Item | None = None
    waiting: list[_Item] = []
    for index, value in enumerate(_values(dataset, name)):
        item = _item(value, f"sample {index} of {name}")
        first = first or item
        _check_like(first, item, index, name)
        waiting.append(item)
        if len(waiting) * max(1, first.bytes) >= BLOCK or len(waiting) == MOST:
            yield _stacked(waiting)
            waiting = []
    if first is None:
        raise JobError(f"{name} is empty", remedy="Return at least one sample.")
    if waiting:
        yield _stacked(waiting)


def _values(dataset: Any, name: str) -> Iterator[object]:
    """The samples as the Dataset gives them."""
    if isinstance(dataset, Iterable):  # torch's IterableDataset: in the order in which they come
        values, end = call_user(f"iterating over {name}", iter, dataset), object()
        while (value := call_user(f"iterating over {name}", next, values, end)) is not end:
            yield value
        return
    if not hasattr(dataset, "__len__"):
        raise JobError(
            f"{name}, a {type(dataset).__name__}, has no length",
            remedy="Give it __len__, or make it an IterableDataset.",
        )
    for index in range(call_user(f"the length of {name}", len, dataset)):
        yield call_user(f"sample {index} of {name}", dataset.__getitem__, index)


def _item(value: object, what: str) -> _Item:
    if not isinstance(value, tuple | list):
        kind = "None" if value is None else f"a {type(value).__name__}"
        raise JobError(f"{what} is {kind}, not a pair", remedy=REMEDY)
    if len(value) != 2:
        raise JobError(f"{what} has {len(value)} parts", remedy=REMEDY)
    return _Item(_array(value[0], f"x of {what}"), _array(value[1], f"y of {what}"))


def _array(value: object, what: str) -> Array:
    fitting = hasattr(value, "__array__") or hasattr(value, "__array_interface__")
    if not (fitting or isinstance(value, bool | int | float)):
        raise JobError(f"{what} is a {type(value).__name__}, not numbers", remedy=REMEDY)
    return call_user(f"turning {what} into an array", np.asarray, value)


def _check_like(first: _Item, item: _Item, index: int, name: str) -> None:
    for axis, one, two in zip("xy", first, item, strict=True):
        if (one.shape, one.dtype) != (two.shape, two.dtype):
            raise JobError(
                f"{axis} of sample {index} of {name} is {two.dtype} {two.shape}, and that of "
                f"sample 0 is {one.dtype} {one.shape}",
                remedy="Give all samples the same shape and type: crop, pad or resize them in the "
                "Dataset.",
            )


def _stacked(items: list[_Item]) -> tuple[Array, Array]:
    x, y = (np.stack(parts) for parts in zip(*items, strict=True))
    return x, y
