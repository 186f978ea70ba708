"""Do splits, blocks and batches hold every sample exactly once, and the same ones every time?"""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes.chance import generator
from hermes.codec import encode_tensors
from hermes.data.blocks import (
    DEFLATED,
    LARGEST,
    block_samples,
    count_blocks,
    decode_block,
    encode_block,
    join_blocks,
)
from hermes.data.order import Part, batches, epoch_order
from hermes.data.splits import split_indices, split_sizes
from hermes.errors import DecodeError, JobError

SHARES = {"train": 0.70, "probe": 0.05, "validation": 0.10, "test": 0.15}
shares = st.lists(st.floats(0.001, 1), min_size=1, max_size=4).map(
    lambda values: dict(zip("abcd", values, strict=False))
)


# --- splits -------------------------------------------------------------------------------------


@given(st.integers(4, 10**9), shares)
def test_sizes_add_up_and_none_is_empty(samples, shares):
    sizes = split_sizes(samples, shares)
    assert list(sizes) == list(shares)
    assert sum(sizes.values()) == samples
    assert min(sizes.values()) >= 1


@given(st.integers(1000, 10**6))
def test_sizes_are_the_shares_to_within_one_sample(samples):
    for name, size in split_sizes(samples, SHARES).items():
        assert abs(size - samples * SHARES[name]) < 1


def test_sizes_known_beforehand():
    assert split_sizes(1000, SHARES) == {"train": 700, "probe": 50, "validation": 100, "test": 150}
    assert split_sizes(4, SHARES) == {"train": 1, "probe": 1, "validation": 1, "test": 1}
    assert split_sizes(1797, SHARES)["train"] == 1258


def test_too_few_samples_are_an_error():
    with pytest.raises(JobError, match="3 samples cannot be split into train, probe") as caught:
        split_sizes(3, SHARES)
    assert "at least 4" in caught.value.remedy


@given(st.integers(4, 500), st.integers(0, 9))
def test_splits_are_disjoint_cover_all_and_repeat(samples, seed):
    sizes = split_sizes(samples, SHARES)
    found = split_indices(generator(seed, "split"), sizes)
    assert {name: len(indices) for name, indices in found.items()} == sizes
    assert sorted(np.concatenate(list(found.values())).tolist()) == list(range(samples))
    again = split_indices(generator(seed, "split"), sizes)
    assert all(np.array_equal(found[name], again[name]) for name in found)


# --- blocks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first_size", "bytes_each", "samples"),
    [(2500, 264, 78), (10, 264, 1), (0, 264, 1), (10**6, 264, 256), (10**6, 12_296, 79)],
)
def test_a_block_is_a_32nd_of_a_first_shard_within_bounds(first_size, bytes_each, samples):
    assert block_samples(first_size, bytes_each) == samples


def test_a_sample_that_fits_no_block_is_an_error_naming_its_bytes():
    with pytest.raises(JobError, match="one sample takes 1048576 bytes") as caught:
        block_samples(2500, 1 << 20)
    assert "uint8" in caught.value.remedy


@given(st.integers(0, 10**5), st.integers(1, LARGEST // 4 - 300))
@settings(max_examples=25)
def test_no_encoded_block_is_too_large(first_size, floats):
    count = block_samples(first_size, 4 * floats + 8)
    data = encode_block(np.zeros((count, floats), np.float32), np.zeros(count, np.int64))
    assert len(data) <= LARGEST


def test_many_axes_fit_into_the_room_left_for_the_header():
    shape = (1,) * 50 + (240_000,)
    count = block_samples(10**6, 4 * 240_000)
    data = encode_block(np.zeros((count, *shape), np.float32), np.zeros((count, *shape[:-1]), "i1"))
    assert len(data) <= LARGEST


TYPES = ["?", "u1", "i2", "i4", "i8", "f2", "<f4", ">f4", ">i8", "f8"]


@given(st.sampled_from(TYPES), st.sampled_from(TYPES), st.integers(1, 9), st.integers(0, 9))
def test_a_block_comes_back_as_it_was(x_type, y_type, samples, seed):
    stream = generator(seed)
    x = stream.integers(0, 100, (samples, 2, 3)).astype(x_type).swapaxes(1, 2)
    y = stream.integers(0, 100, samples).astype(y_type)
    data = encode_block(x, y)
    back_x, back_y = decode_block(data)
    assert np.array_equal(back_x, x)
    assert np.array_equal(back_y, y)
    assert back_x.dtype == x.dtype.newbyteorder("=")
    assert back_y.dtype == y.dtype.newbyteorder("=")
    assert encode_block(x.copy(), y.copy()) == data


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 50))
def test_blocks_joined_are_the_first_samples_of_a_grant(samples, block, size):
    x, y = np.arange(samples * 2).reshape(samples, 2), np.arange(samples)
    cut = [
        encode_block(x[start : start + block], y[start : start + block])
        for start in range(0, samples, block)
    ]
    assert len(cut) == count_blocks(samples, block)
    joined_x, joined_y = join_blocks(cut, size)
    assert np.array_equal(joined_x, x[:size])
    assert np.array_equal(joined_y, y[:size])


def test_what_is_alike_travels_deflated_and_noise_as_it_is():
    alike, labels = np.zeros((50, 28, 28), np.uint8), np.zeros(50, np.int64)
    noise = generator(3).integers(0, 256, (50, 28, 28)).astype(np.uint8)
    assert len(encode_block(alike, labels)) < alike.nbytes // 50
    assert 0 < len(encode_block(noise, labels)) - noise.nbytes - labels.nbytes < 200


def test_what_is_not_a_block_is_refused():
    one = encode_block(generator(1).random((9, 20)), np.zeros(9))
    small = encode_block(np.zeros((40, 28)), np.zeros(40))
    assert (one[:8] == DEFLATED, small[:8] == DEFLATED) == (False, True)
    for data in (
        b"",
        one[:-1],
        b"\xff" * 100,
        encode_block(np.zeros((2, 3)), np.zeros(3)),
        one.replace(b'"y"', b'"z"'),
        small[:-1],
        small + b"more",
        small[:8],
        small[:8] + b"\xff" * 100,
        DEFLATED + zlib.compress(one[:-1]),
        DEFLATED + zlib.compress(small),
        DEFLATED + zlib.compress(encode_tensors({"x": np.zeros(LARGEST), "y": np.zeros(LARGEST)})),
    ):
        with pytest.raises(DecodeError):
            decode_block(data)
    assert np.array_equal(decode_block(DEFLATED + zlib.compress(one))[0], decode_block(one)[0])
    with pytest.raises(DecodeError, match="do not belong together"):
        join_blocks([one, encode_block(np.zeros((1, 3)), np.zeros(1))], 10)
    with pytest.raises(DecodeError):
        join_blocks([], 2)


# --- order and batches --------------------------------------------------------------------------


def test_the_order_is_another_for_each_worker_grant_and_pass():
    keys = [(1, "a", 0, 0), (2, "a", 0, 0), (1, "b", 0, 0), (1, "a", 1, 0), (1, "a", 0, 1)]
    orders = [epoch_order(*key, 50).tolist() for key in keys]
    assert len({tuple(order) for order in orders}) == len(keys)
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert orders[0] == epoch_order(*keys[0], 50).tolist()


parts = st.lists(st.integers(0, 20), max_size=4).map(
    lambda sizes: [
        Part(
            100 * number + np.arange(size),
            -(100 * number + np.arange(size)),
            epoch_order(1, "w", number, 0, size),
        )
        for number, size in enumerate(sizes)
    ]
)


@given(parts, st.integers(1, 9), st.booleans())
def test_batches_hold_each_sample_once_in_order(parts, batch, joined):
    found = list(batches(parts, batch, joined=joined))
    expected = [value for part in parts for value in part.x[part.indices].tolist()]
    assert [value for x, _ in found for value in x.tolist()] == expected
    assert all(np.array_equal(y, -x) for x, y in found)
    sizes = [len(x) for x, _ in found]
    if joined:
        assert all(size == batch for size in sizes[:-1])
    else:
        short = [len(part.indices) % batch for part in parts]
        assert [size for size in sizes if size != batch] == [size for size in short if size]
    assert all(1 <= size <= batch for size in sizes)
