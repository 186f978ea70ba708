"""Does a run whose data is divided train each worker on its own classes, whatever befalls it?"""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from blurred import JOB, finished, points
from msgspec.structs import replace

from hermes.data.blocks import decode_block
from hermes.data.prepare import Prepared, prepare
from hermes.errors import JobError, SettingError
from hermes.job import Split
from hermes.machine.audit import Audit
from hermes.machine.events import Action, DataStored, Event
from hermes.messages import BlocksGranted, BlocksReturned, WorkerAdmitted
from hermes.perform.blocks import read_upload
from hermes.perform.store import Store
from hermes.policy.partition import DataSettings, partition_of
from hermes.policy.presets import Layer, resolve
from hermes.runtime.forking import child_settings
from hermes.runtime.going_on import changed
from hermes.simulate import kills, schedules
from hermes.simulate.driver import Driver
from hermes.simulate.local import RUN
from hermes.simulate.references import ReferenceHands
from hermes.simulate.schedules import draw
from hermes.verify.decisions import Decisions


def divided(folder: Path, workers: int, data: object = points, **asked: object) -> Prepared:
    """This data, prepared for so many workers with batches of 16."""
    partition = partition_of(DataSettings(**asked), workers, 16)
    return prepare(data, Split(), 1, lambda train: train // workers, folder, partition)


def labels_by_pool(prepared: Prepared) -> list[Counter[int]]:
    """How often each label is in the blocks of each pool; no block has samples of two."""
    found: list[Counter[int]] = [Counter() for _ in prepared.pools]
    pool, left = 0, prepared.pools[0]
    for split, _, data in prepared:
        if split == "train":
            if not left:
                pool, left = pool + 1, prepared.pools[pool + 1]
            _, y = decode_block(data)
            found[pool].update(y.tolist())
            left -= len(y)
            assert left >= 0
    return found


def test_blocks_hold_samples_of_one_pool_and_the_other_splits_stay(tmp_path):
    plain = prepare(points, Split(), 1, lambda train: train // 3, tmp_path)
    prepared = divided(tmp_path, 3, partition="by-class", classes=1)
    found = labels_by_pool(prepared)
    train = Counter(plain.first(10**6)[1].tolist())
    assert sorted(tuple(pool.items()) for pool in found) == sorted((one,) for one in train.items())
    assert [sum(pool.values()) for pool in found] == list(prepared.pools)
    others = [(split, data) for split, _, data in prepared if split != "train"]
    assert others == [(split, data) for split, _, data in plain if split != "train"]
    assert sum(split == "train" for split, _, _ in prepared) == prepared.blocks["train"]


def test_the_same_seed_draws_the_same_proportions(tmp_path):
    first, again = (
        labels_by_pool(divided(tmp_path, 4, partition="dirichlet", dirichlet=0.5)) for _ in range(2)
    )
    assert first == again
    assert first[0] != first[1]


def test_a_regression_cannot_be_divided_and_the_job_is_named(tmp_path):
    def values() -> tuple[np.ndarray, np.ndarray]:
        return np.ones((99, 2), np.float32), np.ones(99, np.float32)

    with pytest.raises(JobError, match="y has the type float32") as caught:
        divided(tmp_path, 2, values, partition="dirichlet")
    assert Path(__file__).name in caught.value.where


@pytest.mark.parametrize(
    "keys",
    [
        {"data.dirichlet": 0.3},
        {"data.partition": "dirichlet", "data.classes": 3},
        {"data.pools": 4},
    ],
)
def test_a_setting_of_another_partition_is_refused(keys):
    with pytest.raises(SettingError, match="would never take effect"):
        resolve("fedavg", [Layer("--set", keys)])


def test_what_was_divided_stays_so_in_a_fork_and_when_it_is_resumed():
    settings = resolve("fedavg", [{"data.partition": "by-class"}])
    with pytest.raises(SettingError, match="the data was divided when it was sent"):
        child_settings(settings, JOB, None, {"data.classes": 3})
    # Another strategy for the child: its parent's pools all the same.
    assert child_settings(settings, JOB, "bsp", {}).data == settings.data
    driver = finished("bsp", {**BY_CLASS, "stop.versions": 2}, SPEEDS)
    state = driver.watch.state
    assert changed(state, {"stop.versions": 4}, "--set", 3) is not None
    with pytest.raises(SettingError, match="4 workers are expected, and the data was divided"):
        changed(state, {"stop.versions": 4}, "--set", 4)
    with pytest.raises(SettingError, match="cannot change within a run"):
        changed(state, {"data.classes": 2}, "--set")


# --- whole runs ----------------------------------------------------------------------------------

SPEEDS = {"worker-1": 1.0, "worker-2": 1.0, "worker-3": 0.5}
BY_CLASS = {
    "data.partition": "by-class",
    "data.classes": 1,
    "size.first": 64,
    "gate.rule": "open",  # what learns one class alone gets worse on the probe
}


def trained(driver: Driver) -> dict[str, set[int]]:
    """The labels of the blocks that each worker was granted."""
    state, store = driver.watch.state, Store(driver.log, RUN)
    assert state.data is not None
    _, manifest = read_upload(store, state.data)
    places = manifest.blocks["train"]
    found: dict[str, set[int]] = defaultdict(set)
    for record in driver.valid_records():
        for entry in record.entries:
            if isinstance(entry, BlocksGranted):
                for part in entry.ranges:
                    for index in range(part.first, part.last):
                        block = places[index % len(places)]
                        ((_, data),) = store.records("data", {block.offset: block.length})
                        found[entry.worker].update(decode_block(data)[1].tolist())
    return found


@pytest.mark.parametrize("strategy", ["hermes-paper", "hermes", "fedavg"])
def test_each_worker_trains_on_its_own_class_and_why_agrees(strategy):
    driver = finished(strategy, {**BY_CLASS, "stop.versions": 5}, SPEEDS)
    found = trained(driver)
    assert sorted(map(sorted, found.values())) == [[0], [1], [2]]
    records = driver.valid_records()
    Audit().read(records)
    entries = [entry for record in records for entry in record.entries]
    decisions = Decisions()
    for place, record in enumerate(records):
        decisions.take(record, place)
    assert not decisions.found
    pools = driver.watch.state.data.pools
    assert all(entry.size <= max(pools) for entry in entries if isinstance(entry, BlocksGranted))


def test_kills_everywhere_change_no_bit_and_no_pool():
    settings = {**BY_CLASS, "stop.versions": 5}
    calm = finished("hermes-paper", settings, SPEEDS)
    disturbed = finished("hermes-paper", settings, SPEEDS, kills.everywhere(calm))
    assert disturbed.masters > 5
    assert kills.outcome(disturbed) == kills.outcome(calm)
    assert trained(disturbed) == trained(calm)


# --- schedules of faults -------------------------------------------------------------------------

POOLS = (20, 13, 24, 9, 8, 21)


class DividedHands(ReferenceHands):
    """The upload is divided into six pools."""

    def perform(self, action: Action, now: int) -> Event:
        """As before, but for the data."""
        outcome = super().perform(action, now)
        if isinstance(outcome, DataStored):
            data = outcome.data
            return DataStored(replace(data, pools=POOLS, blocks={**data.blocks, "train": 14}))
        return outcome


def test_random_schedules_keep_every_invariant_with_pools(monkeypatch):
    """The audit and the state look at each grant; workers die, are lost, come late, come back."""
    monkeypatch.setattr(schedules, "ReferenceHands", DividedHands)
    seen: Counter[type] = Counter()
    for seed in range(20):
        driver = schedules.run(draw(seed))
        decisions = Decisions()
        for place, record in enumerate(driver.valid_records()):
            decisions.take(record, place)
            seen.update(type(entry) for entry in record.entries)
        reference = (", data", ", trimmed")  # sizes and places that stand for real ones
        assert not [f for f in decisions.found if not f.entry.endswith(reference)]
    assert min(seen[kind] for kind in (BlocksReturned, WorkerAdmitted)) > 10, seen
