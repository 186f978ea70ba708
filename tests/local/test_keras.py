"""Is the trainer of Keras the plain loop, on TensorFlow and on torch? A process loads one backend,
so that `keras_cases.py` is run in one for each."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).with_name("keras_cases.py")


ALONE = """\
import sys
from tests.local.keras_cases import *

found = trainer(normed)
found.step(*batch(0), 1.0)
found.evaluate([batch(0)])
keras_file.keras_bytes(found.architecture(), found.weights(), "here")
print(sorted({"tensorflow", "torch"} & sys.modules.keys()))
"""


@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
def test_one_framework_is_loaded_and_no_more(backend: str, tmp_path: Path) -> None:
    places = {"KERAS_HOME": str(tmp_path), "KERAS_BACKEND": backend}
    done = subprocess.run(
        [sys.executable, "-c", ALONE],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, **places},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"['{backend}']"


@pytest.mark.timeout(300)  # each is loaded, and compiles its steps
@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
def test_all_cases_hold_on_this_backend(backend: str, tmp_path: Path) -> None:
    places = {"KERAS_HOME": str(tmp_path), "KERAS_BACKEND": backend}
    threads = dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"), "1")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", str(CASES), "--tb=short", "-p", "no:cacheprovider"),
            *("-W", "ignore:__array__ implementation:DeprecationWarning"),  # Keras' own
        ],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, **places, **threads},
        timeout=290,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None, done.stdout
    assert int(passed[1]) == CASES.read_text().count("\ndef test_") + 3  # one is three, one two
    assert "skipped" not in done.stdout
