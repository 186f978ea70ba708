"""What does a strategy take on unequal devices behind thin links, which are really there?

Four machines of the test bed (tests/cluster), with shares of a core and cables of their own,
brought up by `hermes init` and `hermes up` as devices are; every byte goes over TLS. Each strategy
trains examples/mnist.py to an accuracy on validation, seed by seed; `fedavg` gives all workers
equal work. Beside it stands what the simulator tells, from devices that were fitted on the first
run with enough rounds of each worker. Needs root, and a computer with nothing else to do.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import common
from benchmarks.validate import MOVED
from hermes.messages import BlocksGranted, VersionEvaluated
from hermes.replay.spans import spans_of
from hermes.replay.story import Story
from hermes.runtime.archive import read_archive

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "cluster"))  # the bed, as its own tests find it

JOB = ROOT / "examples" / "mnist.py"
CODEC = ("codec.up=fp16", "codec.down=fp16")
STRATEGIES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "fedavg": (
        ("size.rule=fixed", "size.first=1000", "round.steps=off", "round.epochs=1"),
        ("batch=16", "lr=0.05", "momentum=0.9"),
    ),
    "hermes-paper": (
        ("size.first=1000", "round.epochs=1"),
        ("batch=16", "lr=0.05", "momentum=0.9"),
    ),
    "hermes": ((), ("batch=16", "lr=0.2", "momentum=0")),
}
"""Settings and the job's own arguments. Nothing was searched here."""

SLOWEST = "worker-4"


class Outcome(NamedTuple):
    """A run, real or simulated."""

    seconds: float
    """From the first grant to the stop."""
    reached: bool
    moved: int
    """Bytes of records."""
    samples: int
    shards: tuple[int, ...]
    """Of the slowest: its first grants."""
    fair: float
    """Its share of all samples of the last grants, as a multiple of its share of all speed."""


def outcome(folder: Path, accuracy: float) -> Outcome:
    """What the ledger and the result of a run say."""
    story = Story().read(read_archive(folder / "log" / "ledger.records"))
    result = json.loads((folder / "result.json").read_text())
    grants: dict[str, list[int]] = {}
    best = 0.0
    for told in story.told:
        for entry in told.record.entries:
            if isinstance(entry, BlocksGranted):
                grants.setdefault(entry.worker, []).append(entry.size)
            elif isinstance(entry, VersionEvaluated):
                best = max(best, entry.accuracy or 0.0)
    workers = result["workers"]
    pace = {name: row["samples"] / max(row["busy_seconds"], 1e-9) for name, row in workers.items()}
    last = {name: sizes[-1] for name, sizes in grants.items()}
    share = last[SLOWEST] / sum(last.values())
    return Outcome(
        spans_of(story).seconds,
        best >= accuracy,
        sum(sum(result["bytes"][kind].values()) for kind in MOVED),
        result["samples"],
        tuple(grants[SLOWEST][:6]),
        share / (pace[SLOWEST] / sum(pace.values())),
    )


class Cluster:
    """A cluster on a bed, as somebody types it at the master's shell."""

    def __init__(self, bed: Any, images: Path) -> None:
        self.bed, self.images = bed, images
        self.folder = bed.master.home / "lab"
        self._inside = "/root/lab"

    def up(self) -> float:
        """From an empty folder; seconds of `hermes up`."""
        names = ",".join(node.name for node in self.bed.workers)
        self._say(f"hermes init {self._inside} --workers {names} --framework torch", 60)
        file = self.folder / "conf" / "config.json"
        conf = json.loads(file.read_text())
        # The workers' file system is this computer's, to read: its PyTorch need not be sent.
        conf["defaults"] = {"python": sys.executable, "packages": "system", "threads": 1}
        file.write_text(json.dumps(conf, indent=2))
        begun = time.monotonic()
        self._say(f"hermes up {self._inside}", 300)
        return time.monotonic() - begun

    def run(self, strategy: str, seed: int, accuracy: float, limit: float) -> Path:
        """One run; its folder, as this computer sees it."""
        settings, knobs = STRATEGIES[strategy]
        run = f"{strategy}-{seed}"
        stops = (f"stop.accuracy={accuracy:g}", f"stop.seconds={limit:g}", "stop.patience=off")
        sets = " ".join(f"--set {one}" for one in (*CODEC, *settings, *stops))
        words = f"--strategy {strategy} --seed {seed} --run {run} {sets}"
        job = f"{JOB} --cluster {self._inside} --threads 1 --quiet --json"
        self._say(f"hermes run {job} {words} -- {self.images} {' '.join(knobs)}", limit + 240)
        return Path(self.folder / "runs" / run)

    def down(self) -> None:
        self._say(f"hermes down {self._inside} --purge", 120)

    def _say(self, command: str, seconds: float) -> str:
        done = self.bed.run(self.bed.master, command, timeout=seconds, env={"OMP_NUM_THREADS": "1"})
        if done.returncode:
            raise SystemExit(f"{command}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return str(done.stdout)


def to_fit(folders: list[Path], rounds: int = 8) -> Path:
    """The first run with so many rounds of each worker."""
    for folder in folders:
        workers = json.loads((folder / "result.json").read_text())["workers"].values()
        if min(row["rounds"] for row in workers) >= rounds:
            return folder
    raise SystemExit("no run has 8 rounds of each worker: --no-forecast")


def forecast(folder: Path, fitted: Path, wish: tuple[str, int], args: Any) -> Outcome:
    """What the simulator tells of a run on devices as `fitted` was led on."""
    from benchmarks.validate import Place

    place = Place(folder)
    strategy, seed = wish
    devices = folder / "devices.json"
    if not devices.exists():
        mbit = args.rate.removesuffix("mbit")
        run = ("fit", fitted.name, "--out", str(fitted.parents[1]), "--to", str(devices))
        place(*run, "--mbit", mbit)
    settings, knobs = STRATEGIES[strategy]
    stops = (
        f"stop.accuracy={args.accuracy:g}",
        f"stop.seconds={args.limit:g}",
        "stop.patience=off",
    )
    sets = [word for one in (*CODEC, *settings, *stops) for word in ("--set", one)]
    run = f"told-{strategy}-{seed}"
    mine = ("--strategy", strategy, "--seed", str(seed), "--run", run, "--processes", "2")
    arguments = ("--", str(args.images), *knobs)
    place("simulate", str(JOB), "--devices", str(devices), *mine, *sets, *arguments)
    return outcome(folder / "runs" / run, args.accuracy)


def rows(found: dict[str, list[tuple[int, Outcome, Outcome | None]]]) -> list[list[object]]:
    """The table's."""
    told = []
    for strategy, runs in found.items():
        for seed, real, simulated in runs:
            told.append(
                [
                    strategy,
                    seed,
                    f"{real.seconds:.0f}" if real.reached else f"never ({real.seconds:.0f})",
                    "-" if simulated is None else f"{simulated.seconds:.0f}",
                    f"{real.moved / 1e6:.1f}",
                    f"{real.samples:,}".replace(",", " "),
                    " ".join(map(str, real.shards)),
                    f"{real.fair:.2f}",
                ]
            )
    return told


def main() -> None:
    parser = common.arguments(__doc__ or "")
    parser.add_argument("--images", type=Path, required=True, help="mnist.npz")
    parser.add_argument("--accuracy", type=float, default=0.98, help="on validation")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--strategies", default=",".join(STRATEGIES))
    parser.add_argument("--shares", default="100,50,25,10", help="percent of a core")
    parser.add_argument("--rate", default="10mbit")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds of a run")
    parser.add_argument("--no-forecast", action="store_true")
    args = parser.parse_args()
    args.images = args.images.absolute()
    from bed import Bed, reason_against

    if why := reason_against():
        raise SystemExit(f"no test bed here: {why}")
    found: dict[str, list[tuple[int, Outcome, Outcome | None]]] = {}
    with (
        common.scratch() as folder,
        Bed(
            len(args.shares.split(",")),
            rates=[args.rate],
            shares=[float(share) for share in args.shares.split(",")],
        ) as bed,
    ):
        cluster = Cluster(bed, args.images)
        took = cluster.up()
        print(f"hermes up: {took:.0f} s", flush=True)
        ended = []
        for seed in map(int, args.seeds.split(",")):
            for strategy in args.strategies.split(","):
                path = cluster.run(strategy, seed, args.accuracy, args.limit)
                real = outcome(path, args.accuracy)
                ended.append((strategy, seed, path, real))
                print(strategy, seed, real, flush=True)
        runs = [path for _, _, path, _ in ended]
        for strategy, seed, _, real in ended:
            told = None
            if not args.no_forecast:
                told = forecast(folder, to_fit(runs), (strategy, seed), args)
                print("forecast", strategy, seed, told, flush=True)
            found.setdefault(strategy, []).append((seed, real, told))
        cluster.down()
    head = ("strategy", "seed", "s", "forecast, s", "MB", "samples", "slowest's shards", "fair")
    table = common.table(head, rows(found))
    common.report("bed", f"`hermes up` took {took:.0f} s.\n\n{table}", update=args.update)


if __name__ == "__main__":
    main()
