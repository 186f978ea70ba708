"""Is it told, from the text of a job alone, that the model reads what only data() sets?"""

from __future__ import annotations

import pytest

import hermes
from hermes.errors import JobError
from hermes.job import Job
from hermes.jobfile import build
from hermes.leavings import THEIRS, check_leavings

JOB = """\
import functools
import hermes, numpy as np
from hermes import nn
MEAN, SEEN, CACHE = None, {{}}, None

def load():
    global MEAN
    {load}
    return hermes.data.digits()

def scaled(x):
    return x - {scaled}

class Scale(nn.Linear):
    def forward(self, x):
        {forward}
        return super().forward(x)

def model(width=10):
    {model}
    return nn.Sequential(nn.Flatten(), Scale(64, width))

job = hermes.Job(model=functools.partial(model, 10), data=lambda: load(),
                 optimizer=lambda params: nn.SGD(params, lr=0.1),
                 loss={loss})
"""


def told(**parts: str) -> str:
    """Where and what; "" where nothing is wrong."""
    filled = {"load": "pass", "scaled": "1", "forward": "pass", "model": "pass"}
    text = JOB.format(**{**filled, "loss": "nn.CrossEntropy()", **parts})
    job = build(text, "job.py")
    try:
        check_leavings(job, text, "job.py")
    except JobError as error:
        return f"{error.where}: {error.what}"
    return ""


LATER = "MEAN = 3"
USES = {
    "in model() itself": ({"model": "print(MEAN)"}, "job.py:20: model()"),
    "in a class that it builds": ({"forward": "x = x - MEAN"}, "job.py:16: model()"),
    "in a function within a lambda": (
        {"model": "f = lambda x: scaled(x)", "scaled": "MEAN"},
        "job.py:12: model()",
    ),
    "in the loss": ({"loss": "lambda x, y: MEAN"}, "job.py:25: loss()"),
}


@pytest.mark.parametrize("title", USES)
def test_bad_a_constant_that_data_sets_is_told(title: str) -> None:
    parts, where = USES[title]
    assert told(load=LATER, **parts) == (
        f"{where} uses 'MEAN', which line 8 sets as data() is called: workers never call data()"
    )
    assert told(**parts) == ""


@pytest.mark.parametrize(
    "change", ["SEEN['mean'] = 3", "SEEN.update(mean=3)", "SEEN['a'][0] += 1", "SEEN.mean = 3"]
)
def test_bad_so_is_one_whose_value_changes(change: str) -> None:
    assert "uses 'SEEN', which line 8 sets" in told(load=change, model="print(SEEN)")


def test_what_is_sound_is_not_told() -> None:
    """Names of a function's own, what the model sets as well, modules, and what data() only
    reads."""
    assert told(load=LATER, model="MEAN = 3; print(MEAN)") == ""
    assert told(load=LATER, model="f = lambda MEAN: MEAN") == ""
    assert told(load=LATER, model="global MEAN; MEAN = 3; print(MEAN)") == ""
    assert told(load="SEEN['a'] = 1", model="SEEN.setdefault('a', 1); print(SEEN)") == ""
    assert told(load="print(SEEN, np.add(1, 2))", model="print(SEEN, np)") == ""
    assert told(load=LATER, scaled="MEAN") == ""  # nobody calls it


def test_fields_are_those_of_a_job() -> None:
    assert all(hasattr(Job, field) or field in Job.__dataclass_fields__ for field in THEIRS)


def test_data_of_ours_leaves_nothing() -> None:
    text = JOB.format(
        load="pass", scaled="1", forward="pass", model="pass", loss="nn.CrossEntropy()"
    )
    job = build(text.replace("data=lambda: load()", "data=hermes.data.digits"), "job.py")
    assert job.data is hermes.data.digits
    check_leavings(job, text, "job.py")
