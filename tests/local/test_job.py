"""Does a job file become a job, and does each mistake in it name its line and its remedy?"""

from __future__ import annotations

import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np
import pytest

import hermes
from hermes import nn
from hermes.blame import call_user
from hermes.chance import generator
from hermes.errors import HermesError, JobError, RunFailed
from hermes.job import Job, Round, Split, Stop
from hermes.jobfile import build, check_travels, load_source
from hermes.policy import presets
from hermes.train import make_trainer
from hermes.train.fit import check_fit
from hermes.travels import only_as_main

GOOD = """\
import hermes
from hermes import nn

def model():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

job = hermes.Job(
    model=model,
    data=hermes.data.digits,
    optimizer=lambda params: nn.SGD(params, lr=0.1),
    loss=nn.CrossEntropy(),
    stop=hermes.Stop(samples=1000),
)
"""


def make(**changes) -> Job:
    fields = {
        "model": lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 3)),
        "data": lambda: None,
        "optimizer": lambda params: nn.SGD(params, lr=0.1),
        "loss": nn.CrossEntropy(),
    }
    return Job(**{**fields, **changes})


# --- the values of a job ------------------------------------------------------------------------


def test_defaults():
    job = make()
    assert (job.batch, job.metric, job.device, job.stop) == (32, "accuracy", "auto", Stop())
    assert job.split == (0.70, 0.05, 0.10, 0.15)
    assert job.settings() == {}
    assert job.factor(0.5) == 1


def test_what_the_job_sets_are_settings_of_the_run():
    stop = Stop(accuracy=0.9, loss=0.1, patience=3, samples=4, versions=5, seconds=6)
    settings = make(stop=stop, round=Round(epochs=2)).settings()
    assert settings == {
        "stop.accuracy": 0.9,
        "stop.loss": 0.1,
        "stop.patience": 3,
        "stop.samples": 4,
        "stop.versions": 5,
        "stop.seconds": 6,
        "round.epochs": 2,
    }
    presets.resolve("hermes-paper", [settings])


def test_a_plain_tuple_is_a_split():
    assert make(split=(0.4, 0.2, 0.2, 0.2)).split == Split(0.4, 0.2, 0.2, 0.2)


BAD_VALUES = {
    "Job.batch is 0": lambda: make(batch=0),
    "Job.batch is 1.5": lambda: make(batch=1.5),
    "Job.batch is None": lambda: make(batch=None),
    "Job.batch is True": lambda: make(batch=True),
    "Job.model is of type Linear": lambda: make(model=object.__new__(_Linear)),
    "Job.data is of type tuple": lambda: make(data=(1, 2)),
    "Job.optimizer is of type SGD": lambda: make(optimizer=nn.SGD([], lr=1)),
    "Job.loss is <class 'hermes.nn.CrossEntropy'>": lambda: make(loss=nn.CrossEntropy),
    "Job.stop is of type dict": lambda: make(stop={"samples": 1}),
    "Job.round is of type int": lambda: make(round=3),
    "Job.schedule is of type float": lambda: make(schedule=0.5),
    "Job.clip is of type float": lambda: make(clip=1.0),
    "Job.autocast is of type str": lambda: make(autocast="bfloat16"),
    "Job.step is of type int": lambda: make(step=3),
    "Job.metric is 3": lambda: make(metric=3),
    "Job.callbacks is of type list": lambda: make(callbacks=[]),
    "Job.device is 'gpu'": lambda: make(device="gpu"),
    "Job.include is 'a.py'": lambda: make(include="a.py"),
    "Job.include names a.py": lambda: make(include=["a.py"]),
    "Job.requires is [1]": lambda: make(requires=[1]),
    "Job.init is 3": lambda: make(init=3),
    "Job.split is (0.5, 0.5)": lambda: make(split=(0.5, 0.5)),
    "Job.split is (0.5, 0.5, 0.5, 0.5)": lambda: make(split=(0.5,) * 4),
    "Job.split is (1.0, 0, 0, 0)": lambda: make(split=(1.0, 0, 0, 0)),
    "Job.split is 0.7": lambda: make(split=0.7),
    "Stop.accuracy is 97": lambda: Stop(accuracy=97),
    "Stop.loss is nan": lambda: Stop(loss=float("nan")),
    "Stop.patience is 0": lambda: Stop(patience=0),
    "Stop.samples is 200000.0": lambda: Stop(samples=2e5),
    "Stop.versions is '5'": lambda: Stop(versions="5"),
    "Stop.seconds is -1": lambda: Stop(seconds=-1),
    "Stop.seconds is '1'": lambda: Stop(seconds="1"),
    "Round has epochs None and steps None": lambda: Round(),
    "Round has epochs 1 and steps 2": lambda: Round(epochs=1, steps=2),
    "Round.epochs is 0": lambda: Round(epochs=0),
}


class _Linear:
    """Not callable, unlike a function that builds one."""


_Linear.__name__ = "Linear"


@pytest.mark.parametrize("message", BAD_VALUES)
def test_a_bad_value_names_its_field_and_remedy(message):
    with pytest.raises(JobError) as caught:
        BAD_VALUES[message]()
    assert caught.value.what == message
    assert caught.value.remedy.startswith(("It is", "For example", "Set one", "Only the job file"))


def test_a_schedule_must_give_a_factor():
    assert make(schedule=lambda progress: 1 - progress).factor(0.25) == 0.75
    assert make(schedule=lambda progress: np.float32(0.5)).factor(0.25) == 0.5
    for wrong in (None, -1, float("nan"), "1"):
        with pytest.raises(JobError, match=r"schedule\(0.25\) gave"):
            make(schedule=lambda progress, wrong=wrong: wrong).factor(0.25)
    with pytest.raises(JobError, match=r"schedule\(0.25\) raises ZeroDivisionError"):
        make(schedule=lambda progress: 1 / 0).factor(0.25)


# --- reading a job file -------------------------------------------------------------------------


def test_a_job_file_becomes_source_and_source_a_job(tmp_path):
    path = tmp_path / "job.py"
    path.write_text(GOOD)
    source = load_source(path)
    assert source == (str(path), GOOD)
    job = build(source.text, source.name, [])
    assert job.settings() == {"stop.samples": 1000}
    assert sys.modules["hermes_job"].__file__ == str(path)


def test_encodings_that_python_reads_are_read(tmp_path):
    path = tmp_path / "job.py"
    path.write_bytes(b"# -*- coding: latin-1 -*-\nname = '\xe9'\n")
    assert "é" in load_source(path).text
    path.write_bytes(b"\xef\xbb\xbfname = 1\r\n")
    assert load_source(path).text == "name = 1\r\n"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "there is no such job file"),
        ("folder", "this is a folder, not a job file"),
        (b"\xff\xfe\x00\x01", "the job file is not text"),
        (b"name = 1\x00", "the job file is not text"),
        (b"\x80\x04\x95", "the job file is not text"),
        (b"# coding: nonsense\n", "the job file is not text"),
    ],
)
def test_a_file_that_cannot_be_a_job(tmp_path, content, what):
    path = tmp_path / "job.py"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(JobError) as caught:
        load_source(path)
    assert (caught.value.what, caught.value.where) == (what, str(path))
    assert caught.value.remedy


def test_a_path_through_a_file_is_unreadable(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(JobError, match="cannot be read: Not a directory"):
        load_source(tmp_path / "file" / "job.py")


# --- executing a job file -----------------------------------------------------------------------

MISTAKES = [
    ("x = (1,\n", 1, "the job file is not Python: '(' was never closed", "Mend this line: x = (1,"),
    ("def f():\nx = 1\n", 2, "the job file is not Python: expected an indented", "x = 1"),
    ("x = 1\ny = 1 / 0\n", 2, "the job file raises ZeroDivisionError: division by zero", "Mend"),
    ("def f():\n    raise KeyError('a')\nf()\n", 2, "the job file raises KeyError: 'a'", "Mend"),
    ("import nosuchthing.part\n", 1, "needs the module 'nosuchthing'", "install nosuchthing,"),
    (
        "raise ModuleNotFoundError(name='skimage.io')\n",
        1,
        "needs the module 'skimage.io'",
        "pip install scikit-image, on the master and all workers.",
    ),
    ("import json.nosuch\n", 1, "needs the module 'json.nosuch'", "'json' is installed"),
    ("import beside\n", 1, "needs the module 'beside'", "only the job file travels"),
    ("import json\nimport json.nosuch\n", 2, "needs the module 'json.nosuch'", "rest of the name"),
    (
        f'{GOOD}\ndef f():\n    late()\nif __name__ == "__main__":\n    late = 1\nf()\n',
        16,
        "uses 'late', which line 18 defines under if __name__ == \"__main__\": alone",
        "define 'late' above it",
    ),
    (
        GOOD.replace("job =", 'if __name__ == "__main__":\n  job ='),
        8,
        'defines `job` under if __name__ == "__main__": alone',
        "define `job` above it",
    ),
    ("import sys\nsys.exit(3)\n", 2, "leaves the program (exit code 3)", "__main__"),
    ("x = 1\n", None, "the job file defines no `job`", "End it with"),
    (GOOD.replace("job =", "task ="), None, "the job file defines no `job`", "named 'task'"),
    ("job = 3\n", None, "`job` is of type int", "It is a hermes.Job, or a function"),
    ("class job: pass\n", None, "`job` is of type type", "It is a hermes.Job, or a function"),
    ("def job(args):\n    return args[0]\n", 2, "job(args) raises IndexError", "Mend"),
    ("def job(args):\n    pass\n", 1, "job(args) returned None", "It returns a hermes.Job"),
    ("def job(args):\n    return 3\n", 1, "job(args) returned a int", "It returns a hermes.Job"),
    ("def job():\n    return 3\n", 1, "job(args) raises TypeError", "Mend"),
    (
        "import argparse\ndef job(args):\n    argparse.ArgumentParser().parse_args(['--no'])\n",
        3,
        "job(args) leaves the program (exit code 2)",
        "__main__",
    ),
    (
        GOOD.replace("stop=hermes.Stop(samples=1000)", "batch=0"),
        7,
        "Job.batch is 0",
        "It is a whole number from 1 up.",
    ),
    (GOOD.replace("loss=", "losss="), 7, "unexpected keyword argument 'losss'", "Mend"),
    (
        GOOD.replace("hermes.Stop(samples=1000)", "hermes.Stop(),\n    requires=['nosuch>=2']"),
        None,
        "the job requires 'nosuch>=2', which is not installed here",
        "pip install 'nosuch>=2', on the master and all workers.",
    ),
    ("import hermes\nhermes.data.npz('/no/such.npz')\n", 2, "/no/such.npz: the data", "Check"),
]


@pytest.mark.parametrize(("source", "line", "what", "remedy"), MISTAKES)
def test_a_mistake_names_its_line_and_remedy(tmp_path, source, line, what, remedy):
    (tmp_path / "beside.py").touch()
    filename = str(tmp_path / "job.py")
    with pytest.raises(JobError) as caught:
        build(source, filename)
    error = caught.value
    assert what in error.what
    assert remedy in error.remedy
    assert error.where == filename + (f":{line}" if line else "")
    assert "Traceback" not in str(error)
    assert "\n" not in error.what


def test_a_missing_torch_is_told_with_its_extra(monkeypatch):
    class Missing:
        def find_spec(self, name, path=None, target=None):
            if name == "torch":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    with pytest.raises(JobError) as caught:
        build("import torch\n", "job.py")
    assert caught.value.what == "the job file needs the module 'torch', which is not here"
    assert "pip install 'hermes-edge[torch]'" in caught.value.remedy
    assert "https://download.pytorch.org/whl/cpu" in caught.value.remedy


def test_a_module_beside_the_file_works_here_alone_and_is_refused(tmp_path, monkeypatch):
    """Read by the file itself, or by model(); what data() alone reads need not travel."""
    (tmp_path / "besides.py").write_text("WIDTH = 10\n")
    monkeypatch.syspath_prepend(tmp_path)
    filename = str(tmp_path / "job.py")
    with pytest.raises(JobError, match="the job file imports 'besides', which workers do not") as e:
        build("from besides import WIDTH\n" + GOOD, filename)
    assert e.value.where == f"{filename}:1"
    assert "only the job file travels" in e.value.remedy
    del sys.modules["besides"]
    lazily = GOOD + "def f():\n    import besides\n    return besides.WIDTH\n"
    build(lazily, filename)
    known = frozenset(sys.modules)
    check_travels(lazily, filename, known)
    assert vars(sys.modules["hermes_job"])["f"]() == 10
    with pytest.raises(JobError, match="imports 'besides'") as e:
        check_travels(lazily, filename, known)
    assert e.value.where == f"{filename}:{len(lazily.splitlines()) - 1}"
    check_travels(lazily, filename, frozenset(sys.modules))
    del sys.modules["besides"]


def test_what_is_installed_from_where_the_job_lies_travels():
    """As `hermes` itself, where it is installed from a repository."""
    root = Path(hermes.__file__).parents[1]
    build(GOOD, str(root / "job.py"))


def test_names_under_the_main_guard_are_found_in_all_their_kinds():
    text = """
import a
both = 1
if __name__ == "__main__":
    import b.c as d, e.f
    both, one = 1, 2
    def two(): inner = 3
    class Three: pass
    for four in ():
        five = 5
    with open("x") as six:
        pass
if "__main__" == __name__:
    seven: int = 7
if other == "__main__":
    eight = 8
"""
    wanted = {"d": 5, "e": 5, "one": 6, "two": 7, "Three": 8, "four": 9, "five": 10, "six": 11}
    assert only_as_main(text) == {**wanted, "seven": 14}
    assert only_as_main("x = (") == {}


def test_a_null_byte_that_came_by_another_way_is_a_job_error():
    with pytest.raises(JobError, match="not Python"):
        build("x = 1\0", "job.py")


def test_the_innermost_line_of_the_user_is_named_even_where_a_library_raised():
    source = "import numpy as np\n\ndef inner():\n    np.zeros(3).reshape(2, 2)\n\ninner()\n"
    with pytest.raises(JobError) as caught:
        build(source, "some/job.py")
    assert caught.value.where == "some/job.py:4"


def test_functions_of_the_job_that_fail_later_name_their_line_too():
    job = build(GOOD.replace("nn.Linear(64, 10)", "1 / 0"), "job.py")
    with pytest.raises(JobError) as caught:
        make_trainer(job, generator(1))
    assert caught.value.what == "model() raises ZeroDivisionError: division by zero"
    assert caught.value.where == "job.py:5"


def test_tracebacks_show_lines_of_a_job_that_is_no_file_here():
    job = build(GOOD.replace("nn.Linear(64, 10)", "1 / 0"), "far/away.py")
    with pytest.raises(ZeroDivisionError) as caught:
        job.model()
    assert "nn.Flatten(), 1 / 0" in "".join(traceback.format_exception(caught.value))


def test_args_reach_the_function():
    source = GOOD.replace("job = hermes.Job(", "def job(args):\n  return hermes.Job(")
    source = source.replace("samples=1000", "samples=int(args[0])")
    assert build(source, "job.py", ["77"]).stop.samples == 77


def test_args_for_a_job_that_takes_none_are_an_error():
    with pytest.raises(JobError, match="takes no ARGS, and was given: --a b"):
        build(GOOD, "job.py", ["--a", "b"])


def test_the_job_is_no_main_program_and_its_classes_find_their_module():
    source = (
        GOOD
        + """
import dataclasses
@dataclasses.dataclass
class Config:
    size: "int" = 3
if __name__ == "__main__":
    raise SystemExit("ran as main")
"""
    )
    build(source, "job.py")


def test_errors_of_ours_that_are_not_the_jobs_fault_keep_their_kind():
    def full() -> None:
        raise RunFailed("full", where="/disk", remedy="room")

    with pytest.raises(RunFailed, match="full") as caught:
        call_user("data()", full)
    assert (caught.value.where, caught.value.remedy) == ("/disk", "room")


def test_an_interrupt_is_not_an_error_of_the_job():
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call_user("data()", interrupted)


# --- does it fit together? ----------------------------------------------------------------------

X, Y = np.linspace(0, 1, 32, dtype=np.float32).reshape(8, 2, 2), np.arange(8) % 3


def fit(x=X, y=Y, **changes) -> float:
    job = make(**changes)
    return check_fit(job, make_trainer(job, generator(1)), (x, y))


def test_a_job_that_fits_is_left_as_it_was():
    job = make(optimizer=lambda params: nn.SGD(params, lr=0.1, momentum=0.9))
    trainer, untouched = make_trainer(job, generator(1)), make_trainer(job, generator(1))
    assert 0 < check_fit(job, trainer, (X, Y)) < 5
    for _ in range(2):
        assert trainer.step(X, Y, 1.0) == untouched.step(X, Y, 1.0)


class Broken(nn.Module):
    def __init__(self) -> None:
        self.inner = nn.Linear(4, 3)

    def forward(self, x):
        return self.inner(x.reshape(3, 3))


def nan_model() -> nn.Module:
    class Log(nn.ReLU):
        def forward(self, x):
            return super().forward(np.log(x - 10))

    return nn.Sequential(nn.Flatten(), Log(), nn.Linear(4, 3))


MISFITS = {
    "Linear(5, 3) takes inputs of shape (n, 5) and was given (8, 4); the batch is x float32 "
    "(8, 2, 2), y int64 (8,)": {"model": lambda: nn.Sequential(nn.Flatten(), nn.Linear(5, 3))},
    "outputs have shape (8, 2, 3) and y has (8,)": {
        "model": lambda: nn.Sequential(nn.Linear(2, 3))
    },
    "labels from 0 to 2; the model's 2 outputs stand for the labels 0 to 1": {
        "model": lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    },
    "the loss of the first step is nan": {"model": nan_model},
    "the model raises ValueError: cannot reshape array": {"model": Broken},
    "the model raises ZeroDivisionError": {"metric": lambda outputs, y: 1 / 0},
    "schedule(1) raises ZeroDivisionError": {"schedule": lambda progress: 1 / (1 - progress)},
    "optimizer(params) raises ZeroDivisionError": {"optimizer": lambda params: 1 / 0},
    "optimizer(params) gave a NoneType": {"optimizer": lambda params: None},
}


@pytest.mark.parametrize("message", MISFITS)
def test_what_does_not_fit_is_named(message):
    with pytest.raises(JobError) as caught:
        fit(**MISFITS[message])
    assert message in caught.value.what
    assert caught.value.remedy


def test_labels_that_are_not_whole_numbers_are_named():
    with pytest.raises(JobError, match="y is float32") as caught:
        fit(y=Y.astype(np.float32))
    assert "astype(numpy.int64)" in caught.value.remedy


# --- the package --------------------------------------------------------------------------------


def test_importing_hermes_imports_nothing_else():
    code = (
        "import sys, hermes\n"
        "heavy = ('numpy', 'msgspec', 'torch', 'typer', 'asyncio')\n"
        "print([m for m in heavy if m in sys.modules])\n"
        "print(hermes.__version__, hermes.Job.__name__, hermes.Stop.__name__, hermes.Split(),\n"
        "      hermes.Round.__name__, hermes.nn.__name__, hermes.data.digits.__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    first, second = done.stdout.splitlines()
    assert first == "[]"
    assert second.endswith("Round hermes.nn digits")


def test_an_unknown_name_of_the_package_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Jobs'"):
        _ = hermes.Jobs
    assert "Job" in dir(hermes)


def test_the_example_is_a_sound_job():
    path = Path(__file__).parents[2] / "examples" / "digits.py"
    source = load_source(path)
    job = build(source.text, source.name)
    x, y = job.data()
    assert 2 < check_fit(job, make_trainer(job, generator(1)), (x[:32], y[:32])) < 3


def test_every_job_error_is_a_usage_error():
    assert issubclass(JobError, HermesError)
    assert JobError.exit_code == 2
