"""How do a batch's arrays become tensors? Floats as float32, whole labels as int64."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from hermes.train.protocol import Array, Batch


def samples_of(x: Array, device: torch.device) -> torch.Tensor:
    """x of shape (n, ...): float64 and float16 become float32, other types stay."""
    wide = x.dtype.kind == "f" and x.dtype.itemsize != 4
    return _tensor(x, np.dtype(np.float32) if wide else x.dtype, device)


def labels_of(y: Array, device: torch.device) -> torch.Tensor:
    """y of shape (n, ...): whole numbers (and truth values) as int64, floats as float32."""
    return _tensor(y, np.dtype(np.float32 if y.dtype.kind == "f" else np.int64), device)


def gathered(batches: Iterable[Batch], size: int) -> Iterator[Batch]:
    """The same samples in the same order, in fewer batches: small ones are put together until they
    are of `size` samples at least."""
    waiting: list[Batch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(len(x) for x, _ in waiting) >= size:
            yield _joined(waiting)
            waiting = []
    if waiting:
        yield _joined(waiting)


def _joined(batches: list[Batch]) -> Batch:
    if len(batches) == 1:
        return batches[0]
    x, y = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return x, y


def tensor_of(array: Array) -> torch.Tensor:
    """A tensor of its own, on the CPU, which leaves the array as it is."""
    return torch.from_numpy(np.array(array, order="C"))


def array_of(tensor: torch.Tensor) -> Array:
    """An array of its own."""
    return np.array(tensor.detach().cpu().numpy(), order="C")


def _tensor(array: Array, dtype: np.dtype[np.generic], device: torch.device) -> torch.Tensor:
    """Shares the array's memory where that may be written to: torch warns of any other."""
    fitting = np.ascontiguousarray(array, dtype.newbyteorder("=")).reshape(array.shape)
    if not fitting.flags.writeable:
        fitting = fitting.copy()
    return torch.from_numpy(fitting).to(device)
