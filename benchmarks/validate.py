"""Does a simulation tell what a run on Apache Kafka will do? Two levels of an answer, a strategy.

A run of four workers at emulated speeds is replayed from its log: the same machines, with real
training, have to come to every bit of it. Devices and links are fitted on its spans. With them the
simulator tells a run of another seed, which is then run for real, and compared: the time from the
start of the training to its stop, bytes, rounds of each worker, staleness. It is run for real once
more: how far two runs of one seed lie apart, nobody can tell beforehand.

Workers wait out the rest of each emulated step (`--step` seconds at speed 1), so that four of them,
a master and a broker fit on two cores; what Kafka sees are true processes, order and sizes.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import common
from hermes.broker.control import Kind
from hermes.messages import UpdateTaken, VersionPublished
from hermes.replay.spans import spans_of
from hermes.replay.story import Story
from hermes.runtime.archive import read_archive

JOB = Path(__file__).parents[1] / "examples" / "digits.py"
STRATEGIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "bsp": ("bsp", ()),
    "fedavg by speed": (
        "fedavg",
        ("size.rule=speed", "round.steps=off", "round.epochs=1", "size.first=256"),
    ),
    "hermes-paper": ("hermes-paper", ("size.first=64", "round.epochs=2")),
    "hermes": ("hermes", ("size.first=64", "size.mean=64")),
}
SPEEDS = (0.4, 0.3, 0.3, 0.2)
SAMPLES = {"bsp": 16_000, "fedavg by speed": 24_000, "hermes-paper": 30_000, "hermes": 29_400}
"""What ends a run. Of `hermes` between two versions of about 1,270 each: at 30,000 whether the last
one is needed hangs on a single late update, in two real runs of one seed, too."""
WARMING = 8_000
"""Samples of each of the two runs before those that count."""

STEP = 0.05
MOVED = ("data", "model", "update", "control")
"""Kinds of bytes that a simulation counts: lines for people are not among them."""

STEADY = ("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")
"""What a JVM is told by its environment, unless something is told there already: compile quickly,
and once. Left alone its broker may go on becoming quicker while the runs pass, of which A, on which
all is fitted, is the first."""

BARS = (0.05, 0.01, 1)
"""Of the time, of the bytes, of the rounds of a worker."""


class Wish(NamedTuple):
    """One kind of run."""

    name: str
    strategy: str
    settings: tuple[str, ...]
    speeds: tuple[float, ...]
    step: float

    def sets(self, seed: int) -> list[str]:
        """As the command line has them."""
        words = [word for one in self.settings for word in ("--set", one)]
        return ["--strategy", self.strategy, "--seed", str(seed), *words]


class Outcome(NamedTuple):
    """A run, real or simulated."""

    seconds: float
    bytes: dict[str, int]
    rounds: dict[str, int]
    staleness: Counter[int]
    versions: int
    settings: dict[str, object]


class Place:
    """A folder in which commands are typed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        named = {f"HERMES_{key}": str(folder / key.lower()) for key in ("CONFIG", "STATE", "CACHE")}
        plain = {key: text for key, text in os.environ.items() if not key.startswith("HERMES_")}
        self._environment = {**plain, **named, "OMP_NUM_THREADS": "1"}

    def start(self, *words: str) -> subprocess.Popen[str]:
        """One command, as a process."""
        command = [sys.executable, "-m", "hermes", *words]
        out = (self.folder / f"{words[0]}.out").open("a")
        with out:
            return subprocess.Popen(
                command, cwd=self.folder, env=self._environment, stdout=out, stderr=out, text=True
            )

    def __call__(self, *words: str) -> Any:
        """One command to its end; its JSON."""
        place = words.index("--") if "--" in words else len(words)  # what follows is the job's
        command = [sys.executable, "-m", "hermes", *words[:place], "--json", *words[place:]]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            said = f"{' '.join(words)}: exit code {done.returncode}"
            raise SystemExit(f"{said}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        return json.loads(done.stdout.strip().splitlines()[-1])


def real(place: Place, broker: str, wish: Wish, seed: int, run: str) -> Outcome:
    """A master and its workers, as processes of their own."""
    at = ("--broker", broker, "--run", run)
    with contextlib.ExitStack() as stack:
        count = str(len(wish.speeds))
        begin = ("master", str(JOB), *at, "--expect", count, *wish.sets(seed), "--quiet")
        master = place.start(*begin, "--threads", "1")
        stack.callback(_end, master)
        for index, speed in enumerate(wish.speeds):
            device = ("--speed", repr(speed), "--step-seconds", repr(wish.step), "--threads", "1")
            name = f"worker-{index + 1}"
            cache = str(place.folder / "caches" / run / name)  # as on machines of their own
            mine = ("--name", name, "--quiet", "--cache", cache)
            stack.callback(_end, place.start("worker", *at, *mine, *device))
        if master.wait(900):
            raise SystemExit(f"{run} failed:\n{(place.folder / 'master.out').read_text()[-4000:]}")
    return outcome(place.folder / "runs" / run)


def _end(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    if process.poll() is None:
        process.kill()
        process.wait()


def outcome(folder: Path) -> Outcome:
    """What the ledger and the result of a run say."""
    story = Story().read(read_archive(folder / "log" / "ledger.records"))
    spans = spans_of(story)
    result = json.loads((folder / "result.json").read_text())
    moved = {kind: sum(result["bytes"][kind].values()) for kind in MOVED}
    rounds = {name: row["rounds"] for name, row in sorted(result["workers"].items())}
    assert story.opened is not None
    of = _staleness(story), result["version"], story.opened.settings
    return Outcome(spans.seconds, moved, rounds, *of)


def _staleness(story: Story) -> Counter[int]:
    """How many versions came between an update's oldest step and the version that holds it."""
    oldest: dict[object, int] = {}
    found: Counter[int] = Counter()
    for told in story.told:
        for entry in told.record.entries:
            if isinstance(entry, UpdateTaken):
                oldest[entry.update.birth] = entry.update.oldest
            elif isinstance(entry, VersionPublished):
                found.update(entry.version - 1 - oldest[part.birth] for part in entry.members)
    return found


def distance(one: Counter[int], other: Counter[int]) -> float:
    """Wasserstein's, in versions; 0 where both are empty."""
    if not one or not other:
        return 0.0
    places = range(max(*one, *other) + 1)
    gone, total = 0.0, 0.0
    for place in places:
        gone += one[place] / one.total() - other[place] / other.total()
        total += abs(gone)
    return total


class Found(NamedTuple):
    """One strategy."""

    wish: Wish
    replayed: dict[str, Any]
    fitted: dict[str, Any]
    first: Outcome
    told: Outcome
    second: Outcome
    again: Outcome
    """The second's seed, once more."""


def measure(place: Place, broker: str, wish: Wish, seeds: tuple[int, int]) -> Found:
    """Run, replay, fit, predict, run twice."""
    slug = wish.name.replace(" ", "-")
    first = real(place, broker, wish, seeds[0], f"{slug}-a")
    replayed = place("replay", f"{slug}-a")
    devices = place.folder / f"{slug}.json"
    fitted = place("fit", f"{slug}-a", "--to", str(devices))
    run = f"{slug}-told"
    simulated = ("simulate", str(JOB), "--devices", str(devices), "--run", run)
    place(*simulated, "--processes", "1", *wish.sets(seeds[1]))
    told = outcome(place.folder / "runs" / run)
    second = real(place, broker, wish, seeds[1], f"{slug}-b")
    again = real(place, broker, wish, seeds[1], f"{slug}-b-again")
    if not first.settings == told.settings == second.settings == again.settings:
        raise SystemExit(f"{wish.name}: the program's presets were changed between its runs")
    return Found(wish, replayed, fitted, first, told, second, again)


# --- telling ------------------------------------------------------------------------------------


class Apart(NamedTuple):
    """How far one run of a seed is from another one of it."""

    time: float
    """As a part of the other's, as the bytes are."""
    bytes: float
    rounds: int
    """Of the worker of whom it is the most."""


def apart(one: Outcome, other: Outcome) -> Apart:
    """In what the bars are about."""
    moved = sum(one.bytes.values()) / sum(other.bytes.values()) - 1
    rounds = max(abs(one.rounds[name] - other.rounds[name]) for name in other.rounds)
    return Apart(one.seconds / other.seconds - 1, moved, rounds)


def row(found: Found) -> list[object]:
    """A line of the table."""
    told, second = found.told, found.second
    ours, theirs = apart(told, second), apart(found.again, second)
    rounds = " ".join(f"{told.rounds[name]}/{second.rounds[name]}" for name in second.rounds)
    return [
        found.wish.name,
        f"{found.replayed['rounds']} rounds, {found.replayed['payloads']} payloads",
        f"{found.first.seconds:.2f}",
        f"{told.seconds:.2f}",
        f"{second.seconds:.2f}",
        f"**{ours.time:+.1%}**",
        f"**{ours.bytes:+.2%}**",
        rounds,
        f"**{ours.rounds}**",
        f"{distance(told.staleness, second.staleness):.2f}",
        f"{theirs.time:+.1%}, {theirs.bytes:+.2%}, {theirs.rounds}",
    ]


HEAD = (
    "strategy",
    "replayed, bit for bit",
    "A, s",
    "B told, s",
    "B, s",
    "time (<= 5 %)",
    "bytes (<= 1 %)",
    "rounds told/real",
    "apart (<= 1)",
    "staleness apart",
    "B once more: time, bytes, rounds apart",
)


def meets(found: Found) -> bool:
    """Whether all three bars are met."""
    ours, (time, moved, rounds) = apart(found.told, found.second), BARS
    return abs(ours.time) <= time and abs(ours.bytes) <= moved and ours.rounds <= rounds


def text_of(found: Sequence[Found], seeds: tuple[int, int], kind: str) -> str:
    """The result, for the README."""
    wish = found[0].wish
    links = [
        f"{one.wish.name} {one.fitted['way'] * 1000:.0f} +- {one.fitted['way_spread'] * 1000:.0f}"
        for one in found
    ]
    residual = max(device["residual"] for one in found for device in one.fitted["devices"])
    met = [one.wish.name for one in found if meets(one)]
    return "\n\n".join(
        [
            common.table(HEAD, [row(one) for one in found]),
            f"{kind} broker ({STEADY[0]}: {os.environ[STEADY[0]]}), 4 workers of speeds "
            f"{', '.join(f'{s:g}' for s in wish.speeds)} (a "
            f"step lasts {wish.step * 1000:g} ms at speed 1), seeds A {seeds[0]}, B {seeds[1]}. "
            f"Messages there and back, ms (mean, spread): {'; '.join(links)}. Largest residual of "
            f"a device's rounds: {residual:.2%}. All bars met: {', '.join(met) or 'by none'}.",
        ]
    )


def details(found: Found) -> str:
    """For whoever looks for a cause; on stderr."""
    lines = [f"{found.wish.name}: link and master {found.fitted['world']['links']}"]
    lines.append(f"  {found.fitted['world']['master']}")
    for kind in MOVED:
        told, second, again = (o.bytes[kind] for o in (found.told, found.second, found.again))
        lines.append(f"  {kind}: told {told}, real {second}, again {again}")
    counts = (found.told.versions, found.second.versions, found.again.versions)
    lines.append(f"  versions: told {counts[0]}, real {counts[1]}, again {counts[2]}")
    lines.append(f"  staleness {dict(found.told.staleness)}, {dict(found.second.staleness)}")
    return "\n".join(lines)


def main() -> None:
    """Each strategy, and the table."""
    parser = common.arguments(str(__doc__))
    parser.add_argument("--broker", choices=common.KINDS, default="apache")
    parser.add_argument("--speeds", default=",".join(map(str, SPEEDS)), help="of four workers")
    parser.add_argument("--step", type=float, default=STEP, help="seconds of a step at speed 1")
    parser.add_argument("--seeds", default="1,2", help="of the runs A and B")
    parser.add_argument("--only", choices=STRATEGIES, action="append", help="some strategies alone")
    parser.add_argument("--quick", action="store_true", help="half of it: does it work?")
    parser.add_argument("--keep", type=Path, help="a folder in which everything stays")
    wishes = parser.parse_args()
    speeds = tuple(float(speed) for speed in wishes.speeds.split(","))
    one, other = (int(seed) for seed in wishes.seeds.split(","))
    kind: Kind = wishes.broker
    found: list[Found] = []
    os.environ.setdefault(*STEADY)
    with contextlib.ExitStack() as stack:
        folder = wishes.keep or stack.enter_context(common.scratch())
        folder.mkdir(parents=True, exist_ok=True)
        address = stack.enter_context(common.broker(kind)).address
        # Nothing is fitted on the first minute of a broker, which may be slower than the rest.
        warming = Wish("warming", "bsp", (f"stop.samples={WARMING}",), speeds, wishes.step)
        for seed in (one, other):
            real(Place(folder), address, warming, seed, f"warming-{seed}")
        for name in wishes.only or STRATEGIES:
            strategy, settings = STRATEGIES[name]
            samples = SAMPLES[name] // (2 if wishes.quick else 1)
            settings += (f"stop.samples={samples}", "stop.patience=off")
            wish = Wish(name, strategy, settings, speeds, wishes.step)
            found.append(measure(Place(folder), address, wish, (one, other)))
            print(details(found[-1]), file=sys.stderr, flush=True)
    common.report("validate", text_of(found, (one, other), kind), update=wishes.update)


if __name__ == "__main__":
    main()
