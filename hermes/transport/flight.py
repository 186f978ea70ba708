"""How many bytes may be under way at once? A budget that appends wait for, a window of reads: what
is needed, and no more than the link carries in a moment."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from hermes.errors import BrokerUnreachable
from hermes.transport.settings import BATCH, FRAMING, MAX_RECORD

SPAN = 0.5
"""Seconds that one fetch may take on its way: a connection that is lost takes so much with it, and
a link that is up for a shorter time carries nothing."""

TELLING = 256 << 10
"""Bytes of an answer from which on its time tells how fast the link is, not how far the broker."""


class Budget:
    """Bytes in flight, bounded. Thread-safe."""

    def __init__(self, limit: int, patience: float = 600.0) -> None:
        """`patience`: seconds in which at least some bytes arrive, or fail."""
        self._limit, self._patience = limit, patience
        self._used = 0
        self._held = False
        self._ended = False
        self._changed = threading.Condition()

    def take(self, size: int) -> bool:
        """Wait until `size` bytes fit, or nothing else is under way; then count them. False, and
        nothing counted, once it was ended. Raises `BrokerUnreachable` if none arrive for long."""
        with self._changed:
            while not (self._ended or (not self._held and self._fits(size))):
                if not self._changed.wait(self._patience):
                    raise BrokerUnreachable(
                        f"an append of {size} bytes waits for room: the broker has acknowledged "
                        f"none of {self._used} under way for {self._patience:g} s"
                    )
            if not self._ended:
                self._used += size
            return not self._ended

    def end(self) -> None:
        """Nothing arrives any more: nobody waits."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def give(self, size: int) -> None:
        """`size` bytes have arrived or failed."""
        with self._changed:
            self._used -= size
            self._changed.notify_all()

    def idle(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until nothing is under way; whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._used, timeout)

    @contextmanager
    def alone(self, timeout: float) -> Iterator[bool]:
        """Wait up to `timeout` seconds until nothing is under way, and let nothing begin inside;
        gives False, and holds nothing back, if it did not come to that."""
        with self._changed:
            quiet = self._changed.wait_for(lambda: not (self._used or self._held), timeout)
            self._held = self._held or quiet
        try:
            yield quiet
        finally:
            if quiet:
                with self._changed:
                    self._held = False
                    self._changed.notify_all()

    def _fits(self, size: int) -> bool:
        return not self._used or self._used + size <= self._limit


class ReadAhead:
    """How much one fetch may bring. What is needed, and beyond it only while every place follows
    on the one before, the more the longer that goes on, as operating systems read files."""

    def __init__(self, most: int) -> None:
        """`most`: bytes of one fetch."""
        self._most = most
        self._need: int | None = None
        self._bonus = 0

    def aim(self, need: int | None, *, goes_on: bool) -> None:
        """`need` bytes are wanted next (None: whatever comes)."""
        self._need = need
        if need is None or not goes_on:
            self._bonus = 0
        else:
            self._bonus = min(self._most, max(need, 2 * self._bonus))

    def took(self, size: int) -> None:
        """So many bytes of it have come."""
        if self._need is not None:
            self._need = max(0, self._need - size)

    @property
    def expects(self) -> bool:
        """Whether bytes are wanted that are known to be there."""
        return bool(self._need)

    @property
    def window(self) -> int:
        """Bytes of the next fetch (a broker gives one batch at least)."""
        if self._need is None:
            return self._most
        return max(1, min(self._most, self._need + self._bonus))

    @property
    def window_of_one(self) -> int:
        """Bytes of one topic in it: no topic takes all the room where several are followed."""
        return min(self.window, max(MAX_RECORD, self._most // 2))


class LinkPace:
    """How many bytes does the link carry in `SPAN` seconds? As far as answers tell: it begins low
    and at most doubles with each; silence where more should come makes it low again."""

    def __init__(self, most: int) -> None:
        """`most`: bytes of one fetch, however fast the link."""
        self._most = most
        self._told = min(most, 2 * (BATCH + FRAMING))
        self._bytes = self._told  # less than that in silence
        self._record = 0.0  # bytes of one, on its way

    def told(self, asked: int, size: int, count: int, seconds: float) -> None:
        """Of `asked` bytes, `count` records with `size` bytes of values came, in `seconds` of
        waiting."""
        if size < TELLING:
            return
        self._record = size / count + FRAMING
        twice = int(2 * count * self._record)
        grown = max(self._told, twice) if 2 * size >= asked else self._told
        carried = SPAN * size / max(seconds, 1e-6)
        self._bytes = self._told = max(1, int(min(self._most, grown, carried)))

    def silent(self, seconds: float) -> None:
        """What was asked for has not come in `seconds`, and it is there: the link is slower than
        we thought, or down."""
        if seconds > SPAN:
            self._bytes = max(1, int(self._told * SPAN / seconds))

    def whole(self, size: int) -> int:
        """So many bytes, less what would be the begin of a further record: brokers send it, and
        it is thrown away."""
        fits = int(size / self._record) if self._record else 0
        return int(fits * self._record) if fits else size

    @property
    def window(self) -> int:
        """Bytes of the next fetch (a broker gives one batch at least)."""
        return self.whole(self._bytes)
