"""How is memory had before something large is taken in? By letting go of what nobody can reach."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
from collections.abc import Callable

M_MMAP_THRESHOLD = -3
"""What `malloc.h` calls it."""

LARGE = 8 << 20
"""Bytes that are worth a look for garbage (to transfer them takes 60 ms; a look at most 20, once
`settle` was called)."""


def make_room(size: int) -> None:
    """Call before `size` bytes are taken in.

    The client's timeouts leave exceptions in cycles with the frames that they came through, ours
    among them, and with the models that those held. Python counts objects, not bytes, and would
    let a dozen of them pile up. And glibc keeps what was freed in pieces, of chunks for example;
    of many small payloads, too.
    """
    if _taken.after(size) >= LARGE:
        _taken.total = 0
        gc.collect()
        give_back()


def let_go(size: int) -> None:
    """Call after `size` bytes were taken in, once who took them has returned: an exception of the
    client's may hold its frame, and the pieces that they came in."""
    if size >= LARGE:
        gc.collect()
        give_back()


def give_back() -> None:
    """Call after much was made of small pieces: glibc would keep what they took."""
    _trim()(0)


class _Taken:
    """Bytes taken in since the last look. Any thread may count, and none need be exact."""

    def __init__(self) -> None:
        self.total = 0

    def after(self, size: int) -> int:
        """The total with these."""
        self.total += size
        return self.total


_taken = _Taken()


@functools.cache
def _trim() -> Callable[[int], int]:
    """glibc's `malloc_trim`; elsewhere something that does nothing."""
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return lambda _pad: 0
    return found


def settle() -> None:
    """Call once all is there that stays: the collector need not look at it again and again. With
    Keras and its backend loaded, a look at all takes a quarter of a second of CPU time."""
    gc.collect()
    gc.freeze()


def be_as_before() -> None:
    """Undo what `settle` told the collector: what was there may go now. At the interpreter's end it
    takes down what libraries left in cycles, and they complain where it may not (torch's do)."""
    gc.unfreeze()


def be_thrifty(size: int) -> None:
    """Call once where payloads of `size` bytes will come and go in chunks.

    What is there now stays (`settle`). And where payloads are large, glibc gives each chunk's
    memory back at once from now on. It would keep tens of MiB of them; faulting pages in anew costs
    a fraction of a CPU second a GB.
    """
    settle()
    if size >= LARGE:
        with contextlib.suppress(OSError, AttributeError, TypeError):
            ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 256 << 10)
