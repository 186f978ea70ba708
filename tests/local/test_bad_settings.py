"""What is a user told of a bad setting or flag? What, where it was set, and what it may be."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest
from commands import Shown

from hermes.cli.entry import run
from hermes.jobfile import build
from hermes.machine.grid import GRID as MACHINE_GRID
from hermes.policy.idle import GRID, NEVER, ODD
from hermes.policy.presets import (
    PRESETS,
    SECTIONS,
    Layer,
    Settings,
    known_keys,
    resolve,
    to_tree,
    warnings,
)
from hermes.values import SECOND

JOB = """\
import hermes
from hermes import nn

job = hermes.Job(
    model=lambda: nn.Linear(64, 10),
    data=hermes.data.digits,
    loss=nn.CrossEntropy(),
    optimizer=lambda params: nn.SGD(params, lr=0.1),
    stop=hermes.Stop(samples=1000),
)
"""

NOBODY = "--broker 127.0.0.1:9 --patience 0"


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("HERMES_")]:
        monkeypatch.delenv(name)
    for name in ("CONFIG", "STATE", "CACHE"):
        monkeypatch.setenv(f"HERMES_{name}", str(tmp_path / "home" / name.lower()))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.py").write_text(JOB)
    (tmp_path / "nometric.py").write_text(
        JOB.replace("samples=1000", "accuracy=0.9").replace("loss=nn", "metric=None, loss=nn")
    )
    (tmp_path / "epochs.py").write_text(JOB.replace("stop=", "round=hermes.Round(epochs=2), stop="))


Case = tuple[str, str, str]
"""(what is typed after `hermes run`, what it says with where, the remedy)"""

SETTINGS: dict[str, Case] = {
    "a word for a number": (
        "--set round.steps=many",
        '--set: round.steps is "many"',
        "It is a whole number of at least 1, or off.",
    ),
    "a number that is too small": (
        "--set round.steps=0",
        "--set: round.steps is 0",
        "It is a whole number of at least 1, or off.",
    ),
    "a fraction of a step": (
        "--set round.steps=1.5",
        "--set: round.steps is 1.5",
        "It is a whole number of at least 1, or off.",
    ),
    "a number beyond counting": (
        "--set size.first=99999999999999999999",
        "--set: size.first is 99999999999999999999",
        "It is a whole number of at least 1.",
    ),
    "a number that is none": (
        "--set gate.alpha=NaN",
        '--set: gate.alpha is "NaN"',
        "It is a number below 0.",
    ),
    "a number on the wrong side of zero": (
        "--set gate.alpha=1",
        "--set: gate.alpha is 1",
        "It is a number below 0.",
    ),
    "a share in percent": (
        "--set stop.accuracy=90",
        "--set: stop.accuracy is 90",
        "It is a number above 0 and of at most 1, or off.",
    ),
    "a time without end": (
        "--set stop.seconds=1e400",
        '--set: stop.seconds is "1e400"',
        "It is a number of at least 0.001 and of at most 1000000000, or off.",
    ),
    "a yes for a true": (
        "--set gate.reset_on_push=yes",
        '--set: gate.reset_on_push is "yes"',
        "It is true or false.",
    ),
    "off where nothing can be off": (
        "--set gate.lambda=off",
        "--set: gate.lambda is off",
        "It is a whole number of at least 1.",
    ),
    "a rule that there is not": (
        "--set gate.rule=zscores",
        '--set: gate.rule is "zscores"',
        "It is one of zscore, open, innovation, gradient.",
    ),
    "a size without its unit's name": (
        "--set storage.max=true",
        "--set: storage.max is true",
        "It is a number with its unit (500MB, 2GB, 1GiB), auto, or off.",
    ),
    "a key with a slip": (
        "--set gate.alhpa=-1",
        "--set: unknown setting 'gate.alhpa'",
        "Did you mean gate.alpha?",
    ),
    "a key in capitals": (
        "--set GATE.ALPHA=-1",
        "--set: unknown setting 'GATE.ALPHA'",
        "Did you mean gate.alpha?",
    ),
    "a key without its section": (
        "--set patience=3",
        "--set: unknown setting 'patience'",
        "Did you mean stop.patience?",
    ),
    "a section for a key": (
        "--set round=3",
        "--set: unknown setting 'round'",
        "It is one of: round.epochs, round.steps.",
    ),
    "the strategy as a setting": (
        "--set strategy=bsp",
        "--set: the strategy is no setting",
        "--strategy NAME",
    ),
    "a key set twice": (
        "--set gate.alpha=-1 --set gate.alpha=-2",
        "--set: gate.alpha is set twice: -1 and -2",
        "Set it once.",
    ),
    "no equals sign": (
        "--set gate.alpha",
        "--set: 'gate.alpha' is not KEY=VALUE",
        "For example: --set gate.alpha=-1.6",
    ),
    "a strategy that there is not": (
        "--strategy fedagv",
        "--strategy: unknown strategy 'fedagv'",
        "It is one of: hermes, hermes-paper, bsp, fedavg, fedavgm, asp, ssp, ebsp, selsync, "
        "fedbuff, fastest-alone, central. Did you mean "
        "fedavg?",
    ),
    "epochs of rounds that are steps": (
        "--strategy bsp --set round.epochs=2",
        "--set: round.epochs would never take effect: round.steps is set, and then a round is that "
        "many steps",
        "Leave it out, or add --set round.steps=off.",
    ),
    "a gate's number where the gate is open": (
        "--set gate.rule=open --set gate.alpha=-1",
        "--set: gate.alpha would never take effect: gate.rule is not zscore, the one rule that "
        "looks at it",
        "Leave it out, or take gate.rule=zscore.",
    ),
    "a fence where sizes are fixed": (
        "--set size.rule=fixed --set size.fence=2",
        "--set: size.fence would never take effect: size.rule is not iqr, the one rule that looks "
        "at it",
        "Leave it out.",
    ),
    "a dead band of another rule": (
        "--strategy hermes-paper --set size.deadband=0.1",
        "--set: size.deadband would never take effect: size.rule is not speed, the one rule that "
        "looks at it",
        "Leave it out.",
    ),
    "staleness where nobody else publishes": (
        "--workers 1 --set workers.max=1 --set merge.max_staleness=3",
        "--set: merge.max_staleness would never take effect: workers.max=1 leaves nobody who could "
        "publish a version meanwhile",
        "Leave it out.",
    ),
    "sizes by speed of rounds that are steps": (
        "--strategy bsp --set size.rule=speed",
        "--set: size.rule=speed re-sizes the rounds, and round.steps=1 fixes their length",
        "Take size.rule=fixed, or round.steps=off.",
    ),
    "a gate that nobody could pass": (
        "--strategy hermes-paper --set gate.alpha=-3.5 --set gate.beta=0",
        "--set: gate.alpha is -3.5, and no worker would ever push: z never lies beyond "
        "-sqrt(gate.window - 1) = -3, and with gate.beta=0 the threshold does not come within "
        "reach",
        "Take gate.alpha of at least -3, a larger gate.window, or a larger gate.beta.",
    ),
    "a barrier behind a gate": (
        "--set close.rule=all",
        "--set: close.rule=all waits for a push of every worker, and a gate lets workers be quiet",
        "Take gate.rule=open or close.rule=each.",
    ),
    "lost at the second heartbeat": (
        "--set workers.lost=1",
        "--set: workers.lost is 1 s, workers.heartbeat 1 s",
        "A worker must miss at least two heartbeats before it is lost: raise workers.lost.",
    ),
    "more workers than may come": (
        "--workers 100",
        "workers.max: 100 workers are expected, and workers.max=64 admits fewer: the run would "
        "never start",
        "--set workers.max=100, or fewer workers.",
    ),
}


def story(
    shown: Shown, capsys: pytest.CaptureFixture[str], title: str, typed: str, code: int
) -> str:
    """Type a command; the one message it prints, which goes into the transcript."""
    assert run(shlex.split(typed)) == code
    out = capsys.readouterr()
    assert out.out == ""
    shown(title, f"hermes {typed}", code, out.err)
    assert out.err.count("error: ") == 1, out.err
    return out.err


@pytest.mark.parametrize("title", SETTINGS)
def test_a_bad_setting(title: str, shown: Shown, capsys: pytest.CaptureFixture[str]) -> None:
    typed, what, remedy = SETTINGS[title]
    said = story(shown, capsys, title, f"run job.py {NOBODY} {typed}", 2)
    assert said == f"error: {what}\n  {remedy}\n"
    assert not Path("runs").exists()


def test_a_bad_setting_of_the_environment_names_it(
    shown: Shown, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HERMES_SET", "size.first=10 round.steps=many")
    said = story(shown, capsys, "HERMES_SET='... round.steps=many'", f"run job.py {NOBODY}", 2)
    assert said.startswith('error: HERMES_SET: round.steps is "many"\n')
    monkeypatch.setenv("HERMES_SET", "size.first")
    said = story(shown, capsys, "HERMES_SET=size.first", f"run job.py {NOBODY}", 2)
    assert said.startswith("error: HERMES_SET: 'size.first' is not KEY=VALUE\n")


def test_bad_accuracy_of_a_job_without_a_metric(
    shown: Shown, capsys: pytest.CaptureFixture[str]
) -> None:
    title = "a stop by accuracy, and no accuracy"
    said = story(shown, capsys, title, f"run nometric.py {NOBODY}", 2)
    assert said == (
        "error: nometric.py:4: stop.accuracy is 0.9, and this job measures none: its metric is "
        'None\n  Give the job metric="accuracy", or stop by another rule, such as stop.loss.\n'
    )
    typed = f"run nometric.py {NOBODY} --set stop.accuracy=0.5"
    assert story(shown, capsys, f"{title} (typed)", typed, 2).startswith("error: --set: stop.acc")


def test_a_bad_match_of_job_and_strategy_is_a_warning(
    shown: Shown, capsys: pytest.CaptureFixture[str]
) -> None:
    """A job is written once and run under any strategy."""
    typed = f"run epochs.py {NOBODY} --strategy bsp"
    said = story(shown, capsys, "a job's epochs under a strategy of steps", typed, 3)
    assert said.splitlines()[0] == (
        "warning: epochs.py:4: round.epochs will not take effect: round.steps is set, and then a "
        "round is that many steps"
    )


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (
            "--set stop.patience=100 --set stop.seconds=10",
            "--set: stop.patience will not take effect: stop.seconds ends the run first: there is "
            "a point of the grid every 0.5 s at most",
        ),
        (
            "--set stop.patience=100 --set stop.versions=10",
            "--set: stop.patience will not take effect: stop.versions ends the run first",
        ),
        (
            "--set merge.max_staleness=9 --set stop.versions=9",
            "--set: merge.max_staleness will not take effect: stop.versions ends the run before",
        ),
        (
            "--strategy hermes-paper --set gate.beta=0 --set gate.lambda=3",
            "--set: gate.lambda will not take effect: gate.beta=0: the threshold never gives",
        ),
        (
            "--strategy hermes-paper --set gate.alpha=-3.5",
            "gate.alpha=-3.5 lies beyond -sqrt(gate.window - 1) = -3, which z never does: no "
            "worker can push before its round 8, when the threshold has decayed",
        ),
    ],
)
def test_a_bad_idea_is_a_warning(
    typed: str, told: str, shown: Shown, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is odd and can work goes on; here as far as the broker, which is not there."""
    said = story(shown, capsys, f"odd: {typed}", f"run job.py {NOBODY} {typed}", 3)
    assert said.splitlines()[0] == f"warning: {told}"


def test_no_preset_is_warned_of_and_none_is_bad() -> None:
    for strategy in PRESETS:
        assert warnings(resolve(strategy, []), []) == []
        # Nor is what a user repeats of it, word for word, unless it is idle there.
        idle = {one.key for one in (*NEVER, *ODD) if one.holds(resolve(strategy, []))}
        said = {key: value for key, value in PRESETS[strategy].items() if key not in idle}
        assert resolve(strategy, [Layer("--set", said)]) == resolve(strategy, [])


def test_every_setting_says_what_it_may_be_and_no_default_is_bad() -> None:
    tree = to_tree(Settings())
    for key in known_keys():
        if key != "strategy":
            section, name = key.split(".")
            assert SECTIONS[section][name].fits(tree[section][name]), key
            assert not SECTIONS[section][name].fits(object()), key
    assert MACHINE_GRID == GRID * SECOND


def test_what_is_meant_is_taken_and_not_bad() -> None:
    """1e3 is a whole number, off switches off, and what is off is never idle."""
    settings = resolve("bsp", [Layer("--set", {"size.first": 1e3, "round.epochs": 1.0}, False)])
    assert (settings.size.first, type(settings.size.first)) == (1000, int)
    resolve("hermes-paper", [Layer("--set", {"merge.max_staleness": None, "workers.max": 1})])


def test_a_job_knows_its_bad_line() -> None:
    assert build(JOB, "job.py").place == "job.py:4"


# --- flags --------------------------------------------------------------------------------------

FLAGS: dict[str, tuple[str, int, str, str]] = {
    "a seed that is no number": (
        f"run job.py {NOBODY} --seed x",
        2,
        "--seed: 'x' is no whole number",
        "See: hermes run --help",
    ),
    "a seed below 0": (
        f"run job.py {NOBODY} --seed -1",
        2,
        "--seed: '-1' is not 0 or more",
        "See: hermes run --help",
    ),
    "a seed beyond counting": (
        f"run job.py {NOBODY} --seed 99999999999999999999",
        2,
        "--seed: '99999999999999999999' is more than 9007199254740992",
        "See: hermes run --help",
    ),
    "no workers": (
        f"run job.py {NOBODY} --workers 0",
        2,
        "--workers: 0 workers",
        "At least 1: --workers N",
    ),
    "workers in words": (
        f"run job.py {NOBODY} --workers three",
        2,
        "--workers: 'three' is no whole number",
        "See: hermes run --help",
    ),
    "speeds for other workers": (
        f"run job.py {NOBODY} --workers 3 --speeds 1,1",
        2,
        "--speeds: 2 speeds for 3 workers",
        "Give one speed a worker, or leave --workers out: --speeds 1,1,0.5,0.1",
    ),
    "a speed that is none": (
        f"run job.py {NOBODY} --speeds 1,nan",
        2,
        "--speeds: nan is no speed",
        "A speed is above 0, at most 1000; 1 is this machine.",
    ),
    "speeds in words": (
        f"run job.py {NOBODY} --speeds 1,fast",
        2,
        "--speeds: '1,fast' is no list of speeds",
        "Numbers with commas between, one a worker: --speeds 1,1,0.5,0.1",
    ),
    "patience without end": (
        "run job.py --broker 127.0.0.1:9 --patience inf",
        2,
        "--patience: 'inf' is more than 1000000000",
        "See: hermes run --help",
    ),
    "a broker that is no address": (
        "run job.py --broker nonsense",
        2,
        "--broker: 'nonsense' is not HOST:PORT",
        "For example --broker 127.0.0.1:9092",
    ),
    "a port beyond the last": (
        "worker --broker 127.0.0.1:99999",
        2,
        "--broker: '127.0.0.1:99999' is not HOST:PORT",
        "For example --broker 127.0.0.1:9092",
    ),
    "a run id with blanks": (
        f"run job.py {NOBODY} --run 'A run'",
        2,
        "--run: 'A run' is not a run id",
        "use 1 to 40 of a-z, 0-9 and -",
    ),
    "a run id that is taken by the folder": (
        f"run job.py {NOBODY} --run latest",
        2,
        "--run: 'latest' is no run id: runs/latest points at the newest run",
        "Choose another id.",
    ),
    "a worker's name with a dot": (
        f"worker {NOBODY} --name a.b",
        2,
        "--name: 'a.b' is not a worker's name",
        "use 1 to 40 of a-z, 0-9 and -",
    ),
    "a worker of endless speed": (
        f"worker {NOBODY} --speed inf",
        2,
        "--speed: inf is out of range",
        "It is a number above 0, at most 1000.",
    ),
    "nobody expected": (
        f"master job.py {NOBODY} --expect 0",
        2,
        "--expect: 0 workers are expected",
        "At least 1: --expect N",
    ),
    "a device that is not here": (
        f"run job.py {NOBODY} --device gpu",
        2,
        "--device: there is no device 'gpu'",
        "It is auto, cpu, cuda, cuda:N (N from 0 up) or mps.",
    ),
    "a broker's port beyond the last": (
        "broker start --port 65536",
        2,
        "--port: '65536' is more than 65535",
        "See: hermes broker start --help",
    ),
    "a broker of no kind": (
        "broker start --kind rabbit",
        2,
        "--kind: 'rabbit' is not one of 'embedded', 'apache'",
        "See: hermes broker start --help",
    ),
    "a broker at no address of ours": (
        "broker start --port 0 --listen 203.0.113.9 --insecure",
        2,
        "--listen: '203.0.113.9' is no address of this machine (Cannot assign requested address)",
        "--listen 127.0.0.1 for this machine alone, 0.0.0.0 for all its interfaces.",
    ),
    "a broker that would let everyone in": (
        "broker start --port 0 --listen 0.0.0.0",
        2,
        "--listen: at 0.0.0.0 everyone who reaches this machine could read and write all runs",
        "--secure (with --kind apache): TLS and users. In a network that you trust: --insecure",
    ),
    "a broker that knows no users": (
        "broker start --port 0 --secure",
        2,
        "--secure: the embedded broker lets everyone in: it knows neither TLS nor users",
        "--kind apache",
    ),
    "a broker's secrets, but no secure broker": (
        "broker start --port 0 --secrets there",
        2,
        "--secrets: a broker has secrets only with --secure",
        "--secure --kind apache, or leave --secrets out",
    ),
    "a broker both secure and not": (
        "broker start --port 0 --secure --insecure",
        2,
        "--insecure: --secure and --insecure cannot both be meant",
        "Leave one of them out.",
    ),
    "a broker that tells clients nonsense": (
        "broker start --port 0 --advertise foo",
        2,
        "--advertise: 'foo' is not HOST:PORT",
        "The address by which clients reach it, such as 192.168.0.5:9092",
    ),
    "no broker to stop": (
        "broker stop",
        2,
        "no broker that Hermes started runs",
        "See which do: hermes broker status; start one: hermes broker start",
    ),
    "a file where a folder should be": (
        f"run job.py {NOBODY} --out job.py --run r",
        2,
        "{here}/job.py/runs/r: the run's folder cannot be made: {here}/job.py is no folder",
        "Make it writable, or choose another place with --out DIR.",
    ),
}


@pytest.mark.parametrize("title", FLAGS)
def test_a_bad_flag(
    title: str, shown: Shown, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    typed, code, what, remedy = FLAGS[title]
    said = story(shown, capsys, title, typed, code)
    assert said == f"error: {what.format(here=tmp_path)}\n  {remedy}\n"


# --- job files ----------------------------------------------------------------------------------

JOBS: dict[str, tuple[str | None, str, str]] = {
    "a job file that is not there": (None, "j.py: there is no such job file", "Check the path."),
    "a job file that is a folder": (
        "/",
        "j.py: this is a folder, not a job file",
        "Name the .py file in it.",
    ),
    "a job file without a job": (
        "x = 1\n",
        "j.py: the job file defines no `job`",
        "End it with: job = hermes.Job(model=..., data=..., optimizer=..., loss=...)",
    ),
    "a job file that is not Python": (
        "import hermes\njob = (\n",
        "j.py:2: the job file is not Python: '(' was never closed",
        "Mend this line: job = (",
    ),
    "a job file that is not text": (
        "\0\1\2",
        "j.py: the job file is not text",
        "It is Python source, saved as UTF-8.",
    ),
    "a job file that raises": (
        "import hermes\nraise ValueError('out of luck')\n",
        "j.py:2: the job file raises ValueError: out of luck",
        "Mend that line; `hermes run JOB.py` tries the job before it starts anything.",
    ),
    "a job that needs a module": (
        "import hermes\nimport nosuchmodule\n",
        "j.py:2: the job file needs the module 'nosuchmodule', which is not here",
        "pip install nosuchmodule, on the master and all workers.",
    ),
    "a job that leaves the program": (
        "import sys\nsys.exit(3)\n",
        "j.py:2: the job file leaves the program (exit code 3)",
        'A job file only defines a job: guard what else it does with if __name__ == "__main__":',
    ),
}


@pytest.mark.parametrize("title", JOBS)
def test_a_bad_job_file(title: str, shown: Shown, capsys: pytest.CaptureFixture[str]) -> None:
    text, what, remedy = JOBS[title]
    if text == "/":
        Path("j.py").mkdir()
    elif text is not None:
        Path("j.py").write_text(text)
    said = story(shown, capsys, title, f"run j.py {NOBODY}", 2)
    assert said == f"error: {what}\n  {remedy}\n"
