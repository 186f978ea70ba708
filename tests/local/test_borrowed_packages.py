"""What a node needs of requirements: are those that are skipped unread never wanted?"""

from __future__ import annotations

import importlib.metadata
import re

import pytest
from packaging.requirements import Requirement

from hermes.cluster.snippets import ONLY, SEES

SKIPPED = (
    'a; extra == "x"',
    "a[b]>=1; extra == 'x'",
    'a; python_version < "3" and extra == "x"',
    'a; (os_name == "nt" and sys_platform == "win32") and extra == "a-b.c_d"',
)
READ = (
    "a>=1",
    'a; python_version < "4"',
    'a; python_version < "4" or extra == "x"',
    'a; python_version<"4"or extra == "x"',
    'a; python_version < "4" or(os_name == "posix") and extra == "x"',
    'a; extra == "x" and python_version < "4"',
    'a; (extra == "x" or extra == "y")',
    'a; extra != "x"',
    'a; "x" == extra',
)


@pytest.mark.parametrize("text", SKIPPED)
def test_what_only_an_extra_wants_is_skipped_without_it(text: str) -> None:
    found = re.search(ONLY, text)
    assert found is not None
    marker = Requirement(text).marker
    assert marker is not None
    assert found[1] in text
    assert not marker.evaluate({"extra": ""})
    assert not marker.evaluate({"extra": "another"})


@pytest.mark.parametrize("text", READ)
def test_all_else_is_read(text: str) -> None:
    assert re.search(ONLY, text) is None


def test_no_package_here_is_wanted_and_skipped() -> None:
    skipped = 0
    for package in importlib.metadata.distributions():
        for text in package.requires or ():
            found, marker = re.search(ONLY, text), Requirement(text).marker
            if found is not None:
                skipped += 1
                assert marker is not None
                assert not marker.evaluate({"extra": ""}), text
    assert skipped > 50


def test_it_is_that_expression_that_runs_at_a_node() -> None:
    assert f're.compile(r"{ONLY}")' in SEES
    compile(SEES, "sees", "exec")
