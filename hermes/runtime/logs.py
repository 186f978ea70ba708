"""How does everybody's log become one? Lines go to the `logs` topic; the master writes them
down."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import sys
from datetime import datetime, timezone
from pathlib import Path

from hermes.codec import encode
from hermes.errors import BrokerError, RunFailed
from hermes.messages import LogLine
from hermes.transport import names
from hermes.transport.log import Log

ROTATE = 4 << 20
"""Bytes of `central.log` before it is rotated, and ..."""
TAIL = 1 << 20
"""Bytes of it in which a line is looked for that is heard again."""
KEPT = 3
"""... rotated files that are kept."""


def utc_now() -> str:
    """Wall time for people: ISO 8601, UTC, milliseconds."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class LineSender:
    """Sends lines of one process to the `logs` topic; a line that is lost is lost."""

    def __init__(self, log: Log, run: str, source: str) -> None:
        self._log, self._run, self._source = log, run, source
        self._topic = names.physical(run, names.LOGS)

    def move(self, generation: int) -> None:
        """Lines go to this generation of the topic from now on."""
        self._topic = names.physical(self._run, names.LOGS, generation)

    def say(self, text: str, level: str = "info") -> LogLine:
        """Send one line, and return it."""
        line = LogLine(self._source, level, utc_now(), text)
        try:
            self._log.append(self._topic, encode(line))
        except BrokerError:
            return line  # the machines ride the outage out; nobody waits for a log line
        return line


def as_text(line: LogLine) -> str:
    """As it stands in `central.log`."""
    return f"{plain(line.at)} {plain(line.source):<10} {plain(line.level):<7} {plain(line.text)}"


def written(line: LogLine) -> str:
    """As it stands in `central.log`, a second line indented."""
    return as_text(line).replace("\n", "\n    ")


def plain(text: str) -> str:
    """A peer's text without what would drive a terminal; a second line is indented later."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


class _Handler(logging.handlers.RotatingFileHandler):
    """Rotates; what cannot be written is an error of ours, not a traceback beside the display."""

    def handleError(self, record: logging.LogRecord) -> None:
        del record
        error = sys.exc_info()[1]
        if isinstance(error, RunFailed):  # this handler is called once more for its own error
            raise error
        raise RunFailed(
            f"the central log cannot be written: {getattr(error, 'strerror', None) or error}",
            where=self.baseFilename,
            remedy="Make room there, or choose another place with --out DIR.",
        ) from error


class CentralLog:
    """`central.log`, rotated."""

    def __init__(self, path: Path) -> None:
        try:
            self._handler = _Handler(path, maxBytes=ROTATE, backupCount=KEPT, encoding="utf-8")
        except OSError as error:
            raise RunFailed(
                f"the central log cannot be written: {error.strerror}",
                where=str(path),
                remedy="Choose another place with --out DIR.",
            ) from None

    def recent(self) -> list[str]:
        """The last lines that were written down, by this master or one before it."""
        try:
            with Path(self._handler.baseFilename).open("rb") as file:
                file.seek(max(0, file.seek(0, 2) - TAIL))
                return file.read().decode(errors="replace").splitlines()
        except OSError:
            return []

    def write(self, line: LogLine) -> None:
        """Write one line down."""
        text = written(line)
        self._handler.emit(logging.LogRecord("hermes", logging.INFO, "", 0, text, (), None))

    def close(self) -> None:
        """No more comes."""
        with contextlib.suppress(OSError):  # what a full disk did not take was told by `write`
            self._handler.close()
