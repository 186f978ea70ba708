"""What does the master say, and what does it write down? Its own lines go to the `logs` topic, as
everybody's do; all of them come back from there, to the central log and to whoever looks on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from hermes.messages import LogLine
from hermes.runtime.logs import CentralLog, LineSender, utc_now, written
from hermes.runtime.options import MasterOptions
from hermes.runtime.storage import Line
from hermes.transport.log import Log


class MasterLines:
    """The master's end of the `logs` topic."""

    def __init__(self, log: Log, options: MasterOptions, show: Callable[[LogLine], None]) -> None:
        """`show` is given each line once. Raises `RunFailed` where the central log cannot be
        written."""
        self.ended = False
        """Whether our own last line is in the central log."""
        self._sender = LineSender(log, options.run, "master")
        self._central = CentralLog(options.folder.central_log)
        self._show = show
        self._last = ""
        self._told: LogLine | None = None
        self._written = Counter(self._central.recent())
        """Lines that a master before this one has written down: they are heard again."""

    def move(self, generation: int) -> None:
        """Our lines go to this generation of the topic from now on."""
        self._sender.move(generation)

    def say(self, text: str, level: str = "info") -> LogLine:
        """Send one line, and return it."""
        return self._sender.say(text, level)

    def warn(self, text: str) -> None:
        """Send a warning."""
        self._sender.say(text, "warning")

    def tell(self, line: Line) -> None:
        """Say it to whoever looks on, before the upload; it comes by once more, in the topic."""
        self._told = self.say(line.text, line.level)
        self._show(self._told)

    def say_last(self, text: str) -> None:
        """Send the line after which none of ours comes: `ended` is true once it was heard."""
        self._last = text
        self.say(text)

    def heard(self, line: LogLine) -> None:
        """A line of the topic, ours or another's."""
        if self._written:
            text = written(line).partition("\n")[0]
            if self._written[text] > 0:
                self._written[text] -= 1
                return
        self._central.write(line)
        self.ended = self.ended or (bool(self._last) and line.text == self._last)
        if line != self._told:
            self._show(line)

    def write_last(self, text: str) -> None:
        """Into the central log itself: the topic cannot be counted on any more."""
        self._central.write(LogLine("master", "error", utc_now(), text))

    def close(self) -> None:
        """No more comes."""
        self._central.close()
