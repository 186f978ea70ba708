"""How do a batch's arrays become tensors? Floats as float32, whole labels as int64."""

from __future__ import annotations

import numpy as np
import torch

from hermes.train.protocol import Array


def samples_of(x: Array, device: torch.device) -> torch.Tensor:
    """x of shape (n, ...): float64 and float16 become float32, other types stay."""
    wide = x.dtype.kind == "f" and x.dtype.itemsize != 4
    return _tensor(x, np.dtype(np.float32) if wide else x.dtype, device)


def labels_of(y: Array, device: torch.device) -> torch.Tensor:
    """y of shape (n, ...): whole numbers (and truth values) as int64, floats as float32."""
    return _tensor(y, np.dtype(np.float32 if y.dtype.kind == "f" else np.int64), device)


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
