"""Does what `data()` returns reach the blocks whole, in bounded memory, or is it refused?"""

from __future__ import annotations

import itertools
import os
import resource
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hermes
from hermes.codec import digest_of
from hermes.data.blocks import LARGEST, decode_block
from hermes.data.cache import BlockCache
from hermes.data.prepare import Prepared, prepare
from hermes.errors import DecodeError, JobError, RunFailed
from hermes.job import Split
from hermes.jobfile import build

MIB = 1 << 20


def quarter(train: int) -> int:
    return min(2500, train // 4)


def ready(data: object, workdir: Path, seed: int = 1) -> Prepared:
    return prepare(lambda: data, Split(), seed, quarter, workdir)


def samples(count: int, start: int = 0) -> tuple[np.ndarray, np.ndarray]:
    y = np.arange(start, start + count)
    return np.repeat(y[:, None], 3, axis=1).astype(np.float32), y


def by_split(prepared: Prepared) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    found: dict[str, list] = {}
    for split, index, data in prepared:
        blocks = found.setdefault(split, [])
        assert index == len(blocks)
        blocks.append(decode_block(data))
    return {
        split: (np.concatenate([x for x, _ in blocks]), np.concatenate([y for _, y in blocks]))
        for split, blocks in found.items()
    }


# --- what may be returned -----------------------------------------------------------------------


def test_arrays_are_cut_into_disjoint_splits_that_hold_everything(tmp_path):
    prepared = ready(samples(1000), tmp_path)
    assert prepared.samples == {"train": 700, "probe": 50, "validation": 100, "test": 150}
    assert (prepared.first_size, prepared.block, prepared.bytes_each) == (175, 5, 20)
    assert prepared.blocks == {"train": 140, "probe": 10, "validation": 20, "test": 30}
    found = by_split(prepared)
    assert {split: len(x) for split, (x, _) in found.items()} == prepared.samples
    assert sorted(np.concatenate([y for _, y in found.values()]).tolist()) == list(range(1000))
    for x, y in found.values():
        assert np.array_equal(x, np.repeat(y[:, None], 3, axis=1))
        assert (x.dtype, y.dtype) == (np.float32, np.int64)
    assert found["train"][1].tolist() != sorted(found["train"][1].tolist())


def test_the_same_seed_gives_the_same_bytes_and_another_others(tmp_path):
    one, two, other = (list(ready(samples(200), tmp_path, seed)) for seed in (1, 1, 2))
    assert one == two
    assert one != other
    prepared = ready(samples(200), tmp_path)
    assert list(prepared) == list(prepared) == one


def test_an_official_test_set_stays_the_test_set(tmp_path):
    prepared = ready((samples(850), samples(40, 5000)), tmp_path)
    assert prepared.samples == {"train": 700, "probe": 50, "validation": 100, "test": 40}
    found = by_split(prepared)
    assert found["test"][1].tolist() == list(range(5000, 5040))
    assert max(found[name][1].max() for name in ("train", "probe", "validation")) < 850


@settings(max_examples=20)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=6), st.booleans())
def test_an_iterator_of_blocks_gives_the_same_bytes_as_the_arrays(tmp_path_factory, sizes, lists):
    workdir = tmp_path_factory.getbasetemp()
    x, y = samples(max(4, sum(sizes)))
    ends = list(itertools.accumulate(sizes, initial=0))
    ends[-1] = len(x)
    pairs = [(x[a:b], y[a:b]) for a, b in itertools.pairwise(ends)]
    blocks = ([x, y] for x, y in pairs) if lists else iter(pairs)
    assert list(ready(blocks, workdir)) == list(ready((x, y), workdir))


def test_the_files_of_an_iterator_are_gone_as_soon_as_they_are_made(tmp_path):
    prepared = ready(iter([samples(100)]), tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert len(list(prepared)) == sum(prepared.blocks.values())


class Loader:
    """Like torch's DataLoader: an iterable that is no iterator, of arrays that are not NumPy's."""

    class Tensor:
        def __init__(self, array):
            self.array = array

        def __array__(self, dtype=None, copy=None):
            return self.array

    def __iter__(self) -> Iterator[list]:
        return iter([[self.Tensor(array) for array in samples(50, start)] for start in (0, 50)])


def test_what_is_like_an_iterator_of_arrays_is_taken(tmp_path):
    assert list(ready(Loader(), tmp_path)) == list(ready(samples(100), tmp_path))


def test_orders_of_memory_and_bytes_do_not_matter(tmp_path):
    x, y = samples(100)
    odd = ready((np.asfortranarray(x).astype(">f4"), y.astype(">i8")), tmp_path)
    assert list(odd) == list(ready((x, y), tmp_path))
    blocks = iter([(np.asfortranarray(x)[::2][:50], y[::2]), (x[1::2], y[1::2])])
    assert sum(len(y) for _, y in by_split(ready(blocks, tmp_path)).values()) == 100


def test_large_samples_make_small_blocks(tmp_path):
    prepared = ready((np.zeros((40, 200_000), np.float32), np.zeros(40, int)), tmp_path)
    assert prepared.block == 1
    assert max(len(data) for _, _, data in prepared) <= LARGEST


def test_the_first_samples_can_be_looked_at(tmp_path):
    prepared = ready(samples(100), tmp_path)
    x, y = prepared.first(32)
    assert y.tolist() == by_split(prepared)["train"][1][:32].tolist()
    assert x.shape == (32, 3)
    assert len(prepared.first(32, "probe")[0]) == 5


def test_memory_stays_bounded_whatever_the_size(tmp_path):
    """100 MiB in a sparse file, as blocks of an iterator; the files are mapped, not held."""
    count, width = 25 * 1024, 1024
    with (tmp_path / "x").open("wb") as file:
        file.truncate(count * width * 4)
    x = np.memmap(tmp_path / "x", np.float32, "r", shape=(count, width))
    y = np.zeros(count, np.uint8)

    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, count, 5000):
            yield x[start : start + 5000], y[start : start + 5000]

    tracemalloc.start()
    try:
        prepared = ready(blocks(), tmp_path)
        total = sum(decode_block(data)[0].nbytes for _, _, data in prepared)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total == 100 * MIB
    assert peak < 16 * MIB


# --- what is refused ----------------------------------------------------------------------------

X, Y = samples(20)
NAN = X.copy()
NAN[7, 1] = np.nan
INF = Y.astype(np.float32)
INF[3] = np.inf

REFUSED = {
    "data() returned None": lambda: None,
    "data() returned a str": lambda: "file.npz",
    "data() returned a ndarray": lambda: X,
    "data() returned a dict": lambda: {"x": X, "y": Y},
    "data() returned a tuple": lambda: (X, Y, Y),
    "data() gave x as a list, not as an array": lambda: ([[1]], [1]),
    "data() gave y as a NoneType, not as an array": lambda: (X, None),
    "x has 20 samples and y has 19": lambda: (X, Y[:-1]),
    "x_test has 3 samples and y_test has 2": lambda: ((X, Y), (X[:3], Y[:2])),
    "x is empty: its shape is (0, 3)": lambda: (X[:0], Y[:0]),
    "x is empty: its shape is (20, 0)": lambda: (X[:, :0], Y),
    "x_test is empty: its shape is (0, 3)": lambda: ((X, Y), (X[:0], Y[:0])),
    "x is a single number": lambda: (np.float32(1), np.float32(1)),
    "x has the type object": lambda: (X.astype(object), Y),
    "y has the type <U1": lambda: (X, np.array(["a"] * 20)),
    "x has the type complex64": lambda: (X.astype("c8"), Y),
    "y has the type datetime64[D]": lambda: (X, Y.astype("M8[D]")),
    "x[7] is not finite: it holds nan (a sample of the ": lambda: (NAN, Y),
    "y[3] is not finite: it holds inf": lambda: (X, INF),
    "x_test[7] is not finite: it holds nan (a sample of the test": lambda: ((X, Y), (NAN, Y)),
    "3 samples cannot be split into train, probe, validation, test": lambda: (X[:3], Y[:3]),
    "2 samples cannot be split into train, probe, validation": lambda: ((X[:2], Y[:2]), (X, Y)),
    "one sample takes 4000008 bytes, and a block holds 982016": lambda: (
        np.zeros((20, 1_000_000), np.float32),
        Y,
    ),
    "a sample of x is float32 (3,) in the data, and float32 (2,) in the test set": lambda: (
        (X, Y),
        (X[:, :2], Y),
    ),
    "a sample of y is int64 () in the data, and int32 () in the test set": lambda: (
        (X, Y),
        (X, Y.astype("i4")),
    ),
    "the iterator of data() gave no block": lambda: iter([]),
    "the iterator of data() gave a int after 20 samples": lambda: iter([(X, Y), 3]),
    "after 20 samples: x has 20 samples and y has 1": lambda: iter([(X, Y), (X, Y[:1])]),
    "a sample of x is float32 (3,) in the first block, and float64 (3,) in the block after 20": (
        lambda: iter([(X, Y), (X.astype("f8"), Y)])
    ),
    "data() raises ZeroDivisionError: division by zero": lambda: 1 / 0,
}


@pytest.mark.parametrize("message", REFUSED)
def test_data_that_cannot_be_used_is_refused(tmp_path, message):
    with pytest.raises(JobError) as caught:
        prepare(REFUSED[message], Split(), 1, quarter, tmp_path)
    assert message in caught.value.what
    assert caught.value.remedy
    assert caught.value.where.startswith(__file__)
    assert list(tmp_path.iterdir()) == []


def test_an_iterator_that_raises_names_its_line(tmp_path):
    source = (
        "import hermes\n"
        "from hermes import nn\n"
        "def data():\n"
        "    x, y = hermes.data.digits()\n"
        "    yield x, y\n"
        "    yield x.reshape(3), y\n"
        "job = hermes.Job(model=nn.ReLU, data=data, optimizer=nn.SGD, loss=nn.CrossEntropy())\n"
    )
    job = build(source, "job.py")
    with pytest.raises(JobError) as caught:
        prepare(job.data, job.split, 1, quarter, tmp_path)
    assert caught.value.where == "job.py:6"
    assert caught.value.what.startswith("the iterator of data() raises ValueError: cannot reshape")


def test_a_folder_that_cannot_be_written_is_no_fault_of_the_job(tmp_path):
    with pytest.raises(RunFailed, match="the data cannot be written") as caught:
        ready(iter([samples(100)]), tmp_path / "missing")
    assert caught.value.where == str(tmp_path / "missing")


@pytest.fixture
def full_disk():
    """As on a full disk: no file grows beyond 64 KiB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_is_no_fault_of_the_job(tmp_path):
    with pytest.raises(RunFailed, match="the data cannot be written: File too large"):
        ready(iter([samples(10_000)]), tmp_path)


# --- files --------------------------------------------------------------------------------------


def test_the_digits_are_what_they_say():
    x, y = hermes.data.digits()
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((1797, 8, 8), "float32", (1797,), "int64")
    assert (x.min(), x.max()) == (0, 1)
    assert np.bincount(y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_file_is_mapped_and_not_read(tmp_path, save):
    path = tmp_path / "data.npz"
    x = np.asfortranarray(np.zeros((2000, 1000), np.float32))
    x[5, 7], y = 3, np.arange(2000)
    save(path, x=x, y=y)
    tracemalloc.start()
    try:
        found = hermes.data.npz(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * MIB
    assert all(isinstance(array, np.memmap) for array in found)
    assert np.array_equal(found[0], x)
    assert np.array_equal(found[1], y)


def test_an_npz_file_with_a_test_set(tmp_path):
    path = tmp_path / "data.npz"
    x, y = samples(30)
    np.savez(path, x_train=x[:20], y_train=y[:20], x_test=x[20:], y_test=y[20:], other=y)
    (x_train, y_train), (x_test, y_test) = hermes.data.npz(str(path))
    assert np.array_equal(np.concatenate([x_train, x_test]), x)
    assert np.array_equal(np.concatenate([y_train, y_test]), y)
    prepared = prepare(lambda: hermes.data.npz(path), Split(), 1, quarter, tmp_path)
    assert prepared.samples["test"] == 10


def damaged(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place : place + 20] = b"\xff" * 20
    path.write_bytes(data)


def test_npz_files_that_cannot_be_used(tmp_path):
    path = tmp_path / "data.npz"
    x, y = samples(2000)

    def message() -> str:
        with pytest.raises(JobError) as caught:
            hermes.data.npz(path)
        assert caught.value.where == str(path)
        assert caught.value.remedy
        return caught.value.what

    assert message() == "the data cannot be read: No such file or directory"
    path.write_bytes(b"no archive")
    assert message() == "not a readable .npz file: File is not a zip file"
    np.savez(path, a=x, b=y)
    assert message() == "it holds a, b"
    np.savez(path, x=np.array([{}], object), y=y[:1])
    assert message() == "x.npy holds Python objects"
    np.savez_compressed(path, x=x, y=y)
    damaged(path, 2000)
    assert message().startswith("not a readable .npz file")
    np.savez(path, x=x, y=y)
    damaged(path, 45)
    assert message().startswith("not a readable .npz file")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"no array")
        archive.writestr("y.npy", b"no array")
    assert message().startswith("not a readable .npz file: x.npy")


def test_an_empty_array_of_a_file_is_refused_like_any_other(tmp_path):
    np.savez(tmp_path / "data.npz", x=X[:0], y=Y[:0])
    with pytest.raises(JobError, match="x is empty"):
        ready(hermes.data.npz(tmp_path / "data.npz"), tmp_path)


@pytest.mark.usefixtures("full_disk")
def test_a_file_that_cannot_be_unpacked_for_lack_of_room(tmp_path):
    np.savez_compressed(tmp_path / "data.npz", x=np.zeros(10**6), y=np.zeros(10**6))
    with pytest.raises(RunFailed, match="cannot be unpacked: File too large") as caught:
        hermes.data.npz(tmp_path / "data.npz")
    assert "TMPDIR" in caught.value.remedy


# --- the cache ----------------------------------------------------------------------------------


def held(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_a_block_comes_back_also_after_a_restart(tmp_path):
    digest = BlockCache(tmp_path / "a" / "b", MIB).put(b"block")
    assert digest == digest_of(b"block")
    cache = BlockCache(tmp_path / "a" / "b", MIB)
    assert cache.get(digest) == b"block"
    assert cache.get(digest_of(b"other")) is None
    assert cache.put(b"block") == digest


@settings(max_examples=30)
@given(st.lists(st.integers(1, 400), max_size=30), st.integers(0, 1000))
def test_the_bound_holds_after_every_block(tmp_path_factory, sizes, bound):
    folder = tmp_path_factory.mktemp("cache")
    cache = BlockCache(folder, bound)
    for number, size in enumerate(sizes):
        data = bytes([number]) * size
        digest = cache.put(data)
        assert held(folder) <= bound
        assert cache.get(digest) == (data if size <= bound else None)


def test_the_longest_unused_goes_first(tmp_path):
    cache = BlockCache(tmp_path, 1000)
    digests = [cache.put(bytes([number]) * 240) for number in range(4)]
    assert cache.get(digests[0]) is not None
    cache.put(b"new" * 80)
    assert [cache.get(digest) is not None for digest in digests] == [True, False, True, True]


def test_a_smaller_bound_holds_from_the_start(tmp_path):
    cache = BlockCache(tmp_path, 1000)
    for number in range(4):
        cache.put(bytes([number]) * 240)
    BlockCache(tmp_path, 500)
    assert held(tmp_path) <= 500


@pytest.mark.parametrize("damage", [b"", b"bloc", b"BLOCK", b"block and more"])
def test_a_damaged_block_is_a_miss_and_can_be_had_anew(tmp_path, damage):
    cache = BlockCache(tmp_path, MIB)
    digest = cache.put(b"block")
    (tmp_path / digest).write_bytes(damage)
    assert cache.get(digest) is None
    assert list(tmp_path.iterdir()) == []
    cache.put(b"block")
    assert cache.get(digest) == b"block"


def test_two_processes_share_a_folder(tmp_path):
    code = (
        "import sys; from pathlib import Path; from hermes.data.cache import BlockCache\n"
        "cache = BlockCache(Path(sys.argv[1]), 20_000)\n"
        "for number in range(300):\n"
        "    data = bytes([number % 256]) * (100 + number % 7)\n"
        "    found = cache.get(cache.put(data))\n"
        "    assert found in (None, data)\n"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(tmp_path)]
    workers = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2)]
    for worker in workers:
        assert worker.communicate(timeout=60)[1] == b""
    assert held(tmp_path) <= 20_000 * (1 + 2 / 16)


def test_what_a_dead_process_left_half_written_is_cleared_away(tmp_path):
    for name, age in [("old.part", 10**6), ("new.part", 0)]:
        path = tmp_path / name
        path.write_bytes(b"half")
        if age:
            os.utime(path, (age, age))
    (tmp_path / "notes.txt").touch()
    BlockCache(tmp_path, MIB)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.part", "notes.txt"]


def test_a_digest_is_never_taken_for_a_path(tmp_path):
    for wrong in ("../secret", "A" * 64, "", "0" * 63):
        with pytest.raises(DecodeError, match="is not a digest"):
            BlockCache(tmp_path, MIB).get(wrong)


def test_a_folder_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "cache"):
        with pytest.raises(RunFailed, match="the cache of blocks cannot be used") as caught:
            BlockCache(folder, MIB)
        assert caught.value.where == str(folder)
        assert "cache.max" in caught.value.remedy


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_is_named_and_leaves_nothing_half_written(tmp_path):
    cache = BlockCache(tmp_path, MIB)
    with pytest.raises(RunFailed, match="File too large"):
        cache.put(bytes(1 << 17))
    assert list(tmp_path.iterdir()) == []


def test_what_another_process_takes_for_abandoned_is_written_again(tmp_path, monkeypatch):
    """Its clock leapt by an hour while the block was being written."""
    cache, told, real = BlockCache(tmp_path / "cache", MIB), [], os.utime

    def swept(path: Path, **more: Any) -> None:
        told.append(path)
        if len(told) == 1:
            path.unlink()
        real(path, **more)

    monkeypatch.setattr("hermes.data.cache.os.utime", swept)
    assert cache.get(cache.put(b"block")) == b"block"
    assert len(told) == 3, "written twice, and used once"
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [""]
