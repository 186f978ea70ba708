"""Is the extra that SSH needs asked for once, in words that fit a checkout, too?"""

from __future__ import annotations

import pytest

from hermes import extra
from hermes.errors import UsageError


def test_what_is_here_is_not_asked_for() -> None:
    extra.check()


def test_what_is_missing_is_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extra, "NEEDED", ("no_such_one", "json", "no_such_other"))
    with pytest.raises(UsageError) as told:
        extra.check()
    assert "needs no_such_one and no_such_other, which are not installed" in told.value.what
    assert "./scripts/install cluster" in told.value.remedy
    assert "pip install 'hermes-edge[cluster]'" in told.value.remedy
