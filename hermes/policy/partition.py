"""How unlike each other are the data of two workers? The settings of the partition. Pure.

- `iid`: every worker is granted any of the train split's samples, which were shuffled once.
- `dirichlet` (Yurochkin et al., ICML 2019; Li et al., ICDE 2022): the train split is divided into
  pools, and of each class a pool gets a share that is drawn from Dirichlet(a, ..., a).
- `by-class` (after the shards of McMahan et al., AISTATS 2017): a pool holds so many classes and no
  other, of each an equal part with all pools that hold it.

A worker is granted samples of one pool, and nobody else is. `hermes.data.partition` divides.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from hermes.errors import SettingError
from hermes.policy.ranges import SWITCH, Allowed, check_section, number, one_of, whole

IID = "iid"


class DataSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `--set data.X` sets."""

    partition: str = IID
    """Which samples a worker may be granted: `iid` (any), or those of a pool of its own, which
    `dirichlet` or `by-class` makes unlike the others."""
    dirichlet: float = 0.5
    """`dirichlet`: the concentration a, above 0. The smaller, the fewer classes make up most of a
    pool. Source: Li et al., ICDE 2022."""
    classes: int = 2
    """`by-class`: classes in each pool, at least 1. Source: McMahan et al., AISTATS 2017."""
    pools: int | None = None
    """Pools to divide the train split into, and so workers at a time at most; off: as many as
    workers are expected. One that no worker ever has is never trained."""
    resident: bool = False
    """Whether each worker keeps the data that it brings (a job with data=None says so itself).
    `hermes simulate` divides the job's own data among the devices, as `partition` says."""


RANGES: dict[str, Allowed] = {
    "partition": one_of(IID, "dirichlet", "by-class"),
    "dirichlet": number(above=0, most=1e6),
    "classes": whole(1),
    "pools": whole(1, off=True),
    "resident": SWITCH,
}
"""What each of `DataSettings` may be."""


class Partition(NamedTuple):
    """A partition to be made."""

    settings: DataSettings
    pools: int
    least: int
    """Samples that each pool holds at least: a batch."""


def partition_of(settings: DataSettings, expect: int, batch: int) -> Partition | None:
    """The partition for so many workers; None where it is `iid`.

    Raises `SettingError` where more are expected than there are pools.
    """
    check_section("data", settings, RANGES)
    if settings.partition == IID:
        return None
    pools = expect if settings.pools is None else settings.pools
    if pools < expect:
        raise SettingError(
            f"{expect} workers are expected, and the data is divided into {pools} "
            f"pool{'s' * (pools != 1)}: each worker has one of its own",
            where=f"data.pools={pools}",
            remedy=f"--set data.pools={expect} or more, or fewer workers.",
        )
    return Partition(settings, pools, batch)
