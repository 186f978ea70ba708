"""Is what is there to stay left alone by the collector, and only until it may go?"""

from __future__ import annotations

import gc
import weakref

from hermes.perform.room import be_as_before, settle


class Cycle:
    """Reaches itself: the collector alone can take it away."""

    def __init__(self) -> None:
        self.itself = self


def test_what_is_there_is_not_looked_at_until_all_is_as_before() -> None:
    before = Cycle()
    gone = weakref.ref(before)
    settle()
    try:
        after = Cycle()
        gone_after = weakref.ref(after)
        del before, after
        gc.collect()
        assert gone() is not None
        assert gone_after() is None
    finally:
        be_as_before()
    gc.collect()
    assert gone() is None
