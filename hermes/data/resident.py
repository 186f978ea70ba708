"""What does the master hold where the data stay with the workers?

A validation set and a test set, if the job gives any. Under virtual time a job's own data are
divided among the devices, as if each had brought its part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hermes.blame import call_user, place_of
from hermes.chance import generator
from hermes.data.blocks import block_samples, count_blocks
from hermes.data.own import kind_of
from hermes.data.partition import in_order, owners
from hermes.data.prepare import Prepared, plan
from hermes.data.sources import Samples, check_numbers, open_data
from hermes.data.splits import SPLITS, Indices
from hermes.errors import JobError, SettingError
from hermes.job import Job
from hermes.policy.own import FEWEST, shares_of
from hermes.policy.partition import IID, Partition
from hermes.policy.presets import Settings

Parts = Mapping[str, tuple[Samples, Indices]]


def refuse_unsound(job: Job, settings: Settings) -> None:
    """Raise `SettingError` for what needs samples on the master, and there are none."""
    if settings.merge.rule == "interpolate" and job.validation is None:
        raise SettingError(
            "merge.rule=interpolate weighs each update by its loss on the master's validation set, "
            "and all data stay with the workers",
            where=f"strategy {settings.strategy}",
            remedy="Give the job a set of its own, validation=..., or take another strategy: "
            "--strategy hermes.",
        )


def prepare_central(job: Job, settings: Settings, workdir: Path) -> Prepared:
    """The master's own sets, of a job whose workers bring their data. Raises `JobError`,
    `SettingError`."""
    refuse_unsound(job, settings)
    if not settings.data.resident:
        raise SettingError(
            "the job gives no data (data=None), and data.resident=false lets no worker bring any",
            where="data.resident",
            remedy="Leave it out, or give the job data=...",
        )
    if settings.data.partition != IID:
        raise SettingError(
            f"data.partition={settings.data.partition} divides the data of the master, and the "
            "workers bring theirs",
            where="data.partition",
            remedy="Leave it out.",
        )
    return _prepared(job, settings, _central(job, workdir))


def divide(
    job: Job, settings: Settings, seed: int, devices: Sequence[str], workdir: Path
) -> tuple[Prepared, dict[str, Samples]]:
    """The job's own data, as if each of these devices had brought a part: all but the test set,
    which the master keeps. Raises `JobError`, `SettingError`."""
    if job.data is None:
        raise JobError(
            "the job gives no data: its workers bring theirs",
            where=job.place,
            remedy="To simulate it, give it data=..., which is divided among the devices: "
            "--set data.resident=true.",
        )
    refuse_unsound(job, settings)
    dataset = open_data(call_user("data()", job.data), workdir)
    check_numbers(dataset.samples)
    parts = plan(dataset, job.split, seed)
    samples = dataset.samples
    rest = np.concatenate([parts[name][1] for name in SPLITS if name != "test"])
    least = max(job.batch, FEWEST)
    if len(rest) < least * len(devices):
        raise SettingError(
            f"{len(rest)} samples are less than a batch of {least} for each of {len(devices)} "
            "devices",
            where="data.resident=true",
            remedy="Take fewer devices, a smaller batch, or more data.",
        )
    if settings.data.partition == IID:
        shares = np.array_split(rest, len(devices))
    else:
        partition = Partition(settings.data, len(devices), least)
        pool_of = owners(partition, samples.y[rest], generator(seed, "partition"))
        places, sizes = in_order(pool_of, len(devices))
        shares = np.split(rest[places], np.cumsum(sizes)[:-1])
    own = {
        name: Samples(samples.x[chosen], samples.y[chosen])
        for name, chosen in zip(devices, shares, strict=True)
    }
    central = {"test": parts["test"], **_central(job, workdir)}
    return _prepared(job, settings, central), own


def _central(job: Job, workdir: Path) -> dict[str, tuple[Samples, Indices]]:
    """What `validation()` gives, all of it."""
    if job.validation is None:
        return {}
    try:
        dataset = open_data(call_user("validation()", job.validation), workdir)
        check_numbers(dataset.samples)
        found = {"validation": (dataset.samples, np.arange(dataset.samples.size))}
        if dataset.test is not None:
            check_numbers(dataset.test, "_test")
            found["test"] = (dataset.test, np.arange(dataset.test.size))
    except JobError as error:
        what = error.what.replace("data()", "validation()")
        where = error.where or place_of(job.validation)
        raise JobError(what, where=where, remedy=error.remedy) from error
    return found


def _prepared(job: Job, settings: Settings, parts: Parts) -> Prepared:
    samples = {name: len(parts[name][1]) if name in parts else 0 for name in SPLITS}
    each = max((source.bytes_each for source, _ in parts.values()), default=0)
    block = block_samples(settings.size.first, each)
    return Prepared(
        samples=samples,
        blocks={name: count_blocks(size, block) for name, size in samples.items()},
        block=block,
        first_size=settings.size.first,
        bytes_each=each,
        parts={name: parts[name] for name in SPLITS if name in parts},
        shares=shares_of(*job.split[:3]),
        kind=next((kind_of(source) for source, _ in parts.values()), ""),
        metric="custom" if callable(job.metric) else job.metric or "",
    )
