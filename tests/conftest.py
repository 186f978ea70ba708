"""What every test may use: a transcript of the messages that users see."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Shell, Shown

# As the commands do it, before anything loads NumPy: sums over several threads end in other bits.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# What a shell leaves in the background starts with Ctrl-C ignored, and our children inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--transcript FILE` keeps every message that a test has shown (see `scripts/messages`)."""
    parser.addoption("--transcript", default=None, help="write the messages shown to this file")


@pytest.fixture
def shown(request: pytest.FixtureRequest) -> Shown:
    """Puts a message, as a user sees it, into the transcript (if one is kept).

    A message is one story: what, where, remedy. It holds no traceback, whatever went wrong.
    Messages stand below the question that their module asks.
    """
    target = request.config.getoption("--transcript")
    question = (request.module.__doc__ or "").partition("\n\n")[0].replace("\n", " ").strip()

    def show(title: str, command: str, code: int, text: str) -> None:
        assert "Traceback" not in text, text
        if target is not None:
            with Path(target).open("a+", encoding="utf-8") as file:
                file.seek(0)
                head = "" if f"## {question}\n" in file.read() else f"## {question}\n\n"
                file.write(
                    f"{head}### {title}\n\n`{command}` (exit code {code})\n\n"
                    f"```\n{text.strip()}\n```\n\n"
                )

    return show


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """Commands in a folder of the test's own; what is left of them is ended."""
    made = Shell(tmp_path)
    yield made
    made.close()
