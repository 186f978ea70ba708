"""A bed for the tests of a cluster; where there can be none, they are skipped and say why."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from bed import reason_against


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ours = [item for item in items if Path(__file__).parent in item.path.parents]
    reason = _reason() if ours else None
    for item in ours:
        item.add_marker(pytest.mark.cluster)
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))


def _reason() -> str | None:
    for name in ("CI", "HERMES_NO_CLUSTER"):
        if os.environ.get(name):
            return f"${name} is set: nobody's machine makes namespaces unasked"
    return reason_against()
