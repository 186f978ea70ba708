"""What do damaged records do? A million of them, over every message type (see `damage`)."""

from __future__ import annotations

import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache

from benchmarks import common
from benchmarks.damage import Sample, collect, damaged, verdict_on

COUNT = 1_000_000
SLICE = 5_000
PATIENCE = 1.0
"""Seconds that one record may take its reader; a sound one takes some 0.0001."""


@cache
def samples() -> list[Sample]:
    """The sound records; by kind in turn, so that rare ones are damaged as often as common ones."""
    return collect()


@cache
def by_kind() -> dict[tuple[str, str], list[Sample]]:
    """The sound records by topic and type."""
    found: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples():
        found.setdefault((sample.where, sample.kind), []).append(sample)
    return found


class TooLong(BaseException):
    """A record that keeps its reader busy is as bad as one that crashes it."""


@contextmanager
def limited() -> Iterator[None]:
    """Raises `TooLong` after `PATIENCE` seconds of CPU time."""

    def over(_number: int, _frame: object) -> None:
        raise TooLong(f"took longer than {PATIENCE:g} s")

    before = signal.signal(signal.SIGVTALRM, over)
    signal.setitimer(signal.ITIMER_VIRTUAL, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
        signal.signal(signal.SIGVTALRM, before)


def one_slice(first: int, count: int = SLICE) -> tuple[Counter[tuple[str, str, str]], list[str]]:
    """The verdicts over records number first .. first + count - 1, and what crashed."""
    verdicts: Counter[tuple[str, str, str]] = Counter()
    crashes: list[str] = []
    kinds = list(by_kind())
    for number in range(first, first + count):
        chance = random.Random(number)
        where, kind = kinds[number % len(kinds)]
        sample = damaged(chance, chance.choice(by_kind()[where, kind]), samples())
        try:
            with limited():
                verdict = verdict_on(sample).verdict
            verdicts[where, kind, verdict] += 1
        except (Exception, TooLong):  # noqa: BLE001  (whatever it is, it is a crash)
            verdicts[where, kind, "CRASH"] += 1
            crashes.append(f"record {number} ({where}, {kind}):\n{traceback.format_exc()}")
    return verdicts, crashes


def rows(verdicts: Counter[tuple[str, str, str]]) -> list[Sequence[object]]:
    """By topic: what became of its records, most frequent first."""
    by_topic: dict[str, Counter[str]] = {}
    for (where, _, verdict), count in verdicts.items():
        by_topic.setdefault(where, Counter())[verdict] += count
    return [
        (where, verdict, f"{count:,}".replace(",", " "))
        for where, found in sorted(by_topic.items())
        for verdict, count in found.most_common()
    ]


def main() -> None:
    """Damage, and count."""
    parser = common.arguments(str(__doc__))
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--first", type=int, default=0, help="number of the first damaged record")
    parser.add_argument("--show", type=int, default=5, help="so many crashes are shown in full")
    wishes = parser.parse_args()
    verdicts: Counter[tuple[str, str, str]] = Counter()
    crashes: list[str] = []
    begun = time.perf_counter()
    starts = range(wishes.first, wishes.first + wishes.count, SLICE)
    with ProcessPoolExecutor() as pool:
        for done, (some, crashed) in enumerate(pool.map(one_slice, starts), 1):
            verdicts += some
            crashes += crashed
            if sys.stderr.isatty():
                print(f"\r{done * SLICE:,} of {wishes.count:,}", end="", file=sys.stderr)
    kinds = {(where, kind) for where, kind, _ in verdicts}
    text = common.table(("topic", "what became of it", "records"), rows(verdicts))
    head = (
        f"{verdicts.total():,} damaged records of {len(kinds)} types, {len(crashes)} crashes, "
        f"{time.perf_counter() - begun:.0f} s"
    ).replace(",", " ", 2)
    common.report("fuzz", f"{head}\n\n{text}", update=wishes.update and not crashes)
    if crashes:
        raise SystemExit("\n".join(crashes[: wishes.show]))


if __name__ == "__main__":
    main()
