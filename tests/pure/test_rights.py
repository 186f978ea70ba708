"""What a worker may do at a broker, and what it may not."""

from __future__ import annotations

import pytest

from hermes.errors import UsageError
from hermes.transport import names
from hermes.transport.rights import Right, of_run, of_worker

RUN = "digits-1"


def may(rights: tuple[Right, ...], user: str, what: str, topic: str) -> bool:
    """As a broker decides it."""
    return any(
        right.may == what
        and right.user in (user, "*")
        and (topic.startswith(right.topic) if right.prefix else topic == right.topic)
        for right in rights
    )


RIGHTS = (*of_run(RUN), *of_worker(RUN, "worker-1"), *of_worker(RUN, "worker-10"))


@pytest.mark.parametrize("generation", [0, 1, 12])
def test_of_a_worker(generation: int) -> None:
    def topic(short: str) -> str:
        return names.physical(RUN, short, generation)

    allowed = {
        ("read", "ledger"),
        ("read", "data"),
        ("read", "model"),
        ("read", "logs"),
        ("write", "lobby"),
        ("write", "logs"),
        ("write", "from.worker-1"),
    }
    shorts = [*names.RUN_TOPICS, "from.worker-1", "from.worker-10", "from.worker-2"]
    for short in shorts:
        for what in ("read", "write"):
            assert may(RIGHTS, "worker-1", what, topic(short)) == ((what, short) in allowed), short


def test_another_run_is_another_matter() -> None:
    for run in ("digits-10", "digits", "digits-1-b"):
        for short in names.RUN_TOPICS:
            for what in ("read", "write"):
                assert not may(RIGHTS, "worker-1", what, names.physical(run, short)), (run, short)


def test_nothing_but_topics_of_runs() -> None:
    with pytest.raises(UsageError):
        of_run("a.b")
    with pytest.raises(UsageError):
        of_worker(RUN, "worker.1")
