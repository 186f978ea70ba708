"""How does a long series stay small? Thinned evenly, or neighbours put together. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Thinned(list[T]):
    """A list that holds at most `most` of what was put in: every so-manieth, and the newest."""

    def __init__(self, most: int | None = None) -> None:
        """`most`: at least 2; None keeps all."""
        super().__init__()
        self.most = most
        self.stride = 1
        """One of so many is here."""
        self.seen = 0
        """How many were put in."""

    def put(self, item: T) -> None:
        """One more; the newest is always here."""
        if (self.seen - 1) % self.stride:
            self.pop()
        self.append(item)
        self.seen += 1
        if self.most is not None and len(self) > self.most:
            dropped = len(self) % 2 == 0
            del self[1::2]
            self.stride *= 2
            if dropped:
                self.append(item)


class Stretch(NamedTuple):
    """A round of a worker, or several in a row. Times in nanoseconds of run time."""

    start: int
    end: int
    busy: int
    """Training and probing ..."""
    moved: int
    """... tensors stored and loaded ..."""
    waited: int
    """... and the rest of `end - start`, nanoseconds each."""
    rounds: int = 1
    pushes: int = 0
    quiet: int = 0
    vetoed: int = 0
    samples: int = 0
    """Sample passes trained."""

    def with_(self, other: Stretch) -> Stretch:
        """This and the one after it, as one; what lies between them counts as neither."""
        sums = (a + b for a, b in zip(self[2:], other[2:], strict=True))
        return Stretch(self.start, other.end, *sums)


def merged(stretches: Iterable[Stretch], width: int) -> list[Stretch]:
    """Neighbours put together as long as they are no longer than `width` (nanoseconds)."""
    found: list[Stretch] = []
    for stretch in stretches:
        if found and stretch.end - found[-1].start <= width:
            found[-1] = found[-1].with_(stretch)
        else:
            found.append(stretch)
    return found


class Stretches(list[Stretch]):
    """A worker's rounds; once they are more than `most`, short neighbours are put together."""

    def __init__(self, most: int | None = None) -> None:
        super().__init__()
        self.most = most

    def put(self, stretch: Stretch) -> None:
        """One round more."""
        self.append(stretch)
        if self.most is not None and len(self) > self.most:
            # Two neighbours are then longer than this together: at most half of `most` are left.
            width = 4 * (self[-1].end - self[0].start) // self.most
            self[:] = merged(self, width)
