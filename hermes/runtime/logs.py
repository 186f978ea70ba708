"""How does everybody's log become one? Lines go to the `logs` topic; the master writes them
down."""

from __future__ import annotations

import logging
import logging.handlers
from datetime import datetime, timezone
from pathlib import Path

from hermes.codec import encode
from hermes.errors import BrokerError, RunFailed
from hermes.messages import LogLine
from hermes.transport import names
from hermes.transport.log import Log

ROTATE = 4 << 20
"""Bytes of `central.log` before it is rotated, and ..."""
KEPT = 3
"""... rotated files that are kept."""


def utc_now() -> str:
    """Wall time for people: ISO 8601, UTC, milliseconds."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class LineSender:
    """Sends lines of one process to the `logs` topic; a line that is lost is lost."""

    def __init__(self, log: Log, run: str, source: str) -> None:
        self._log, self._topic, self._source = log, names.physical(run, names.LOGS), source

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
    return f"{line.at} {line.source:<10} {line.level:<7} {line.text}"


class CentralLog:
    """`central.log`, rotated."""

    def __init__(self, path: Path) -> None:
        try:
            self._handler = logging.handlers.RotatingFileHandler(
                path, maxBytes=ROTATE, backupCount=KEPT, encoding="utf-8"
            )
        except OSError as error:
            raise RunFailed(
                f"the central log cannot be written: {error.strerror}",
                where=str(path),
                remedy="Choose another place with --out DIR.",
            ) from None

    def write(self, line: LogLine) -> None:
        """Write one line down."""
        text = as_text(line).replace("\n", "\n    ")
        self._handler.emit(logging.LogRecord("hermes", logging.INFO, "", 0, text, (), None))

    def close(self) -> None:
        """No more comes."""
        self._handler.close()
