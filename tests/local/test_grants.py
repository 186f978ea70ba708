"""A grant's samples, in memory or mapped, are the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hermes.errors import RunFailed
from hermes.perform.grants import gather
from hermes.train.protocol import Batch


def _blocks() -> list[Batch]:
    chance = np.random.default_rng(1)
    shapes = [7, 7, 7, 3]
    return [(chance.random((n, 2, 3), np.float32), chance.integers(0, 9, n)) for n in shapes]


@pytest.mark.parametrize("size", [1, 7, 15, 24])
def test_mapped_and_held_are_the_same(size: int) -> None:
    """The first samples in the order of the blocks, whichever way they are kept."""
    held = gather(iter(_blocks()), size)
    mapped = gather(iter(_blocks()), size, most=size * 32 - 1)
    assert isinstance(mapped[0], np.memmap)
    assert not isinstance(held[0], np.memmap)
    for one, other in zip(held, mapped, strict=True):
        assert len(one) == size
        np.testing.assert_array_equal(one, other)


def test_no_room_names_the_folder(tmp_path: Path) -> None:
    """A folder that is not there is an error that names it."""
    with pytest.raises(RunFailed, match="gone"):
        gather(iter(_blocks()), 5, tmp_path / "gone", most=0)
