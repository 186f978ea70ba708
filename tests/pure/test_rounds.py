"""Which samples does a round train? Grants, passes and batches (protocol 9a)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hermes.machine.events import Segment
from hermes.machine.rounds import Plan, plan, probe_of
from hermes.machine.stopping import progress
from hermes.messages import BlocksGranted
from hermes.policy.presets import Settings, resolve
from hermes.values import BlockRange


def grant(number: int, size: int, batch: int = 8) -> BlocksGranted:
    return BlocksGranted("w", number, (BlockRange(number, number + 1),), size, batch)


def of(strategy: str, **changes: object) -> Settings:
    return resolve(strategy, [{key.replace("__", "."): v for key, v in changes.items()}])


def test_one_grant_is_one_round_of_five_passes() -> None:
    """`hermes-paper`: each pass cut for itself, the grant used up."""
    found = plan(of("hermes-paper"), [grant(1, 20), grant(2, 20)], 0)
    segments = tuple(Segment(1, number, 0, 20, 20) for number in range(5))
    assert found == Plan(segments, 8, False, (1,), 0)


def test_the_fresh_probe_is_held_out_of_every_pass() -> None:
    """`gate.probe=fresh15`: the last 15 % of the grant, rounded down, are never trained."""
    found = plan(of("hermes-paper", gate__probe="fresh15"), [grant(1, 20)], 0)
    assert found is not None
    assert {(part.stop, part.size) for part in found.segments} == {(17, 17)}


def test_there_is_a_probe_only_where_the_gate_looks() -> None:
    """`open` measures nothing."""
    assert probe_of(of("hermes-paper")) == "fixed"
    assert probe_of(of("bsp")) == ""


def test_batches_run_on_across_grants() -> None:
    """bsp and fedavg: what a grant has left, then the next; the offset says where to go on."""
    steps = of("fedavg", round__steps=3)
    found = plan(steps, [grant(1, 20), grant(2, 20)], 10)
    assert found == Plan((Segment(1, 0, 10, 20, 20), Segment(2, 0, 0, 14, 20)), 8, True, (1,), 14)
    assert plan(steps, [grant(1, 24)], 0) == Plan((Segment(1, 0, 0, 24, 24),), 8, True, (1,), 0)


def test_too_little_for_a_round_is_no_round() -> None:
    """It waits for the next grant; without any there is nothing to plan."""
    assert plan(of("fedavg", round__steps=3), [grant(1, 20)], 0) is None
    assert plan(of("bsp"), [], 0) is None
    assert plan(of("hermes-paper"), [], 0) is None


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(1, 5))
def test_no_sample_is_left_out_or_trained_twice(sizes: list[int], steps: int) -> None:
    """Round after round walks every grant from its first sample to its last, in order."""
    settings = of("fedavg", round__steps=steps)
    grants = [grant(number, size) for number, size in enumerate(sizes)]
    walked: list[tuple[int, int]] = []
    left, offset = grants, 0
    while (found := plan(settings, left, offset)) is not None:
        samples = [(s.grant, i) for s in found.segments for i in range(s.start, s.stop)]
        assert len(samples) == steps * 8
        walked += samples
        left = [g for g in left if g.number not in found.finished]
        offset = found.offset
    everything = [(g.number, index) for g in grants for index in range(g.size)]
    assert walked == everything[: len(walked)]
    assert len(everything) - len(walked) < steps * 8


def test_progress_is_a_share_of_the_samples_to_use() -> None:
    """Between 0 and 1; 0 where the job sets no number of samples."""
    assert [progress(s, 100) for s in (0, 50, 100, 150)] == [0.0, 0.5, 1.0, 1.0]
    assert progress(50, None) == 0.0
