"""Machines for the tests of SSH: servers on loopback, one a call, with temporary homes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest
from sshd import Sshd


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.ssh)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Callable[[], Sshd]]:
    """Makes a machine to reach by SSH, as often as it is called."""
    numbers = count(1)
    with ExitStack() as stack:
        yield lambda: stack.enter_context(Sshd(tmp_path / f"machine-{next(numbers)}"))


@pytest.fixture
def machine(machines: Callable[[], Sshd]) -> Sshd:
    """One machine to reach by SSH."""
    return machines()
