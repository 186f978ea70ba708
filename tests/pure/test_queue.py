"""Virtual time: what is due comes in order, whatever it puts into the queue meanwhile."""

from __future__ import annotations

import gc
import heapq
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.simulate.queue import Queue

DUES = st.tuples(st.integers(-2, 4), st.sampled_from(["", "a", "b"]), st.integers(0, 2))
"""From now (what should have been before is now), worker, number."""


@given(st.lists(DUES, max_size=12), st.lists(st.lists(DUES, max_size=3), max_size=24))
def test_it_is_the_heap_of_all_that_is_due(first, later):
    """Each callback puts some more in, at its own time and after."""
    seen, expected = [], []
    queue, heap, more, age = Queue(), [], list(later), 0

    def told(mark, due):
        seen.append((queue.now, mark))
        for after, worker, number in due:
            put(queue.now + after, worker, number)

    def put(time, worker, number):
        nonlocal age
        age += 1
        mark, due = age, more.pop() if more else []
        queue.at(time, lambda: told(mark, due), worker, number)
        heapq.heappush(heap, (max(time, queue.now), worker, number, mark))

    for after, worker, number in first:
        put(after, worker, number)
    while heap:
        time, *_, mark = heapq.heappop(heap)
        expected.append((time, mark))
        assert queue.step()
    assert not queue.step()
    assert seen == expected
    assert not queue._later


def test_what_should_have_been_before_is_now():
    queue, seen = Queue(), []
    queue.at(5, lambda: queue.at(2, lambda: seen.append(queue.now)))
    queue.at(6, lambda: seen.append(queue.now))
    while queue.step():
        pass
    assert seen == [5, 6]


def test_what_raises_was_called():
    """And is not called again: who catches the error may go on."""
    queue, seen = Queue(), []

    def fail():
        raise KeyError("mine")

    queue.at(1, fail)
    queue.at(1, lambda: seen.append(queue.now))
    with pytest.raises(KeyError):
        queue.step()
    assert queue.step()
    assert not queue.step()
    assert seen == [1]


def test_it_holds_nothing_that_was_called():
    class Held:
        """Something large."""

    queue, held = Queue(), Held()
    gone = weakref.ref(held)
    queue.at(1, lambda held=held: None)
    queue.at(1, lambda: None)
    del held
    queue.step()
    gc.collect()
    assert gone() is None
