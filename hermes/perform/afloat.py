"""What does a worker carry over when it takes a version? What it pushed and has not sent (M1).

Protocol 7: on version v the local model is w_v - (pushed, and neither merged up to v nor rejected)
- unsent; what travels is w_v - unsent. Float64, elementwise, one rounding at the end. Buffers and
integers are taken by value: they are never carried over.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from hermes.errors import Defect
from hermes.policy import norm
from hermes.values import Tensors

Differences: TypeAlias = dict[str, npt.NDArray[np.float64]]


class Afloat:
    """The version that a worker stands on, and its updates that are in none.

    Memory: a copy of that version, and twice a model's bytes for each update that is undecided.
    """

    def __init__(self, buffers: Collection[str]) -> None:
        """`buffers`: names of the tensors that are not learned."""
        self._buffers = frozenset(buffers)
        self._base: Tensors = {}
        self._going: Tensors | None = None
        self._pushed: dict[str, Differences] = {}

    def outgoing(self, local: Tensors) -> Tensors:
        """The model that travels: the version less what is unsent."""
        self._going = self.standing(local)
        return self._going

    def arrives(self, model: Tensors) -> None:
        """What was last going comes to this model, where a codec rounds it: the rest is unsent."""
        self._going = model

    def sent(self, payload: str) -> None:
        """What was last going lies at the broker, under this payload id."""
        if self._going is None:
            raise Defect("sent, and nothing was going", where=payload)
        going, self._going = self._going, None
        pushed = {
            name: np.subtract(self._base[name], array, dtype=np.float64)
            for name, array in going.items()
            if self._learned(name, array)
        }
        # What is not finite is rejected, and would make every model that carries it so.
        if all(bool(np.isfinite(array).all()) for array in pushed.values()):
            self._pushed[payload] = pushed

    @property
    def base(self) -> Tensors:
        """The version that it stands on; not to be changed."""
        return self._base

    def unsent(self, local: Tensors) -> float:
        """The L2 norm of what is not sent."""
        return norm.distance(self.standing(local), self._base, self._buffers)

    def rebased(
        self, version: Tensors, local: Tensors, pending: Iterable[str], *, keeps: bool
    ) -> Tensors:
        """The local model on this version; `pending`: payload ids of what is still undecided,
        `keeps`: whether what is unsent stays in it."""
        before, base = list(self._pushed.values()), self._base
        self._pushed = {name: self._pushed[name] for name in pending if name in self._pushed}
        after, self._base = list(self._pushed.values()), version
        if not after and not keeps:
            return version
        model: dict[str, npt.NDArray[np.generic]] = {}
        for name, array in version.items():
            if not self._learned(name, array):
                model[name] = array
                continue
            moved = array.astype(np.float64)
            for pushed in after:
                moved -= pushed[name]
            if keeps:
                unsent = np.subtract(base[name], local[name], dtype=np.float64)
                for pushed in before:
                    unsent -= pushed[name]
                moved -= unsent
            model[name] = _rounded(moved, array.dtype)
        return model

    def standing(self, local: Tensors) -> Tensors:
        """The version less what is unsent: what would travel now."""
        if not self._pushed:
            return local
        return {name: self._back_in(name, array) for name, array in local.items()}

    def _back_in(self, name: str, array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        if not self._learned(name, array):
            return array
        whole = array.astype(np.float64)
        for pushed in self._pushed.values():
            whole += pushed[name]
        return _rounded(whole, array.dtype)

    def _learned(self, name: str, array: npt.NDArray[np.generic]) -> bool:
        return name not in self._buffers and array.dtype.kind == "f"


def _rounded(
    array: npt.NDArray[np.float64], dtype: np.dtype[np.generic]
) -> npt.NDArray[np.generic]:
    with np.errstate(over="ignore", invalid="ignore"):
        return array.astype(dtype)
