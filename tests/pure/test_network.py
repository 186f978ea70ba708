"""Do links and devices of a simulated run take the time that they say? Closed forms."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes.simulate.devices import Device, Throttling
from hermes.simulate.network import Pipe
from hermes.simulate.pace import Pace
from hermes.simulate.queue import Queue
from hermes.values import SECOND

MBIT = 1_000_000
Transfer = tuple[str, int, int]
"""Device, bytes, and when it begins (ns)."""


def arrivals(
    shared: int,
    links: dict[str, int],
    transfers: list[Transfer],
    cuts: list[Transfer] | None = None,
) -> list[int]:
    """When each is through; `cuts`: device, how long, and when."""
    queue = Queue()
    pipe = Pipe(queue, shared, links)
    ends = [-1] * len(transfers)

    def end(index: int) -> None:
        ends[index] = queue.now

    for device, lasts, at in cuts or []:
        queue.at(at, lambda d=device, n=lasts: pipe.cut(d, n))  # type: ignore[misc]
    for index, (device, size, at) in enumerate(transfers):
        queue.at(at, lambda d=device, s=size, i=index: pipe.begin(d, s, lambda: end(i)))  # type: ignore[misc]
    while queue.step():
        pass
    return ends


def test_a_flow_alone_has_its_own_link() -> None:
    """1.25 MB at 10 Mbit/s: a second; zero bytes: at once."""
    assert arrivals(1000 * MBIT, {"a": 10 * MBIT}, [("a", 1_250_000, 7)]) == [SECOND + 7]
    assert arrivals(1000 * MBIT, {"a": 10 * MBIT}, [("a", 0, 7)]) == [7]


def test_flows_of_a_device_share_its_link_and_devices_the_shared_one() -> None:
    """Max-min: who cannot use its share leaves the rest to the others."""
    two = [("a", 1_250_000, 0), ("a", 1_250_000, 0)]
    assert arrivals(1000 * MBIT, {"a": 10 * MBIT}, two) == [2 * SECOND, 2 * SECOND]
    # Of 12 Mbit/s the thin link takes 2, the others 5 each; then they have 10 / 6 each alone.
    links = {"thin": 2 * MBIT, "b": 10 * MBIT, "c": 10 * MBIT}
    flows = [("thin", 250_000, 0), ("b", 625_000, 0), ("c", 1_250_000, 0)]
    # b is through after 1 s, as is the thin one; c has 5 of its 10 Mbit left, at 10 Mbit/s.
    assert arrivals(12 * MBIT, links, flows) == [SECOND, SECOND, SECOND * 3 // 2]


def test_a_cut_link_goes_on_where_it_was() -> None:
    """Half a second before the cut, half a second after it."""
    ends = arrivals(
        1000 * MBIT, {"a": 10 * MBIT}, [("a", 1_250_000, 0)], [("a", 3 * SECOND, SECOND // 2)]
    )
    assert ends == [4 * SECOND]


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.integers(1, 3_000_000),
            st.integers(0, 2 * SECOND),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_nothing_is_faster_than_its_links_or_slower_than_all_in_a_row(
    transfers: list[Transfer],
) -> None:
    """No bits come from nowhere, and none are lost."""
    links = {"a": 3 * MBIT, "b": 10 * MBIT, "c": 20 * MBIT}
    shared = 15 * MBIT
    ends = arrivals(shared, links, transfers)
    for (device, size, at), end in zip(transfers, ends, strict=True):
        assert end - at >= size * 8 * SECOND // min(links[device], shared)
    total = sum(size for _, size, _ in transfers)
    first, last = min(at for *_, at in transfers), max(at for *_, at in transfers)
    assert max(ends) >= first + total * 8 * SECOND // shared
    assert max(ends) <= last + total * 8 * SECOND // min(links.values()) + 1000 * len(transfers)


def test_work_takes_what_the_speed_says() -> None:
    assert Pace(Device(name="d", speed=0.25), 1).busy(5, 2.0) == 8 * SECOND


def test_chance_has_the_mean_that_is_said() -> None:
    """Jitter's factor is 1 in the mean; heat halves the speed for a third of the time."""
    jittery = Pace(Device(name="d", jitter=0.3), 1)
    times = [jittery.busy(0, 1.0) / SECOND for _ in range(4000)]
    assert min(times) < 0.6 < 1.6 < max(times)
    assert sum(times) / len(times) == pytest.approx(1, abs=0.02)
    hot = Pace(Device(name="d", throttling=Throttling(factor=0.5, hot=1.0, normal=2.0)), 1)
    now = 0
    for _ in range(4000):
        now += hot.busy(now, 1.0)
    # In 3 s of the clock: 2 s at full speed and 1 s at half, 2.5 s of work.
    assert now / SECOND / 4000 == pytest.approx(3 / 2.5, abs=0.02)


def test_chance_is_the_seeds() -> None:
    """Of the seed and the device's name alone."""
    device = Device(name="d", jitter=0.5)

    def times(seed: int, of: Device = device) -> list[int]:
        pace = Pace(of, seed)
        return [pace.busy(0, 1.0) for _ in range(3)]

    assert times(1) == times(1)
    assert times(1) != times(2)
    assert times(1) != times(1, Device(name="e", jitter=0.5))
