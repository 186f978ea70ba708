"""How does a run look on a terminal? One picture that is drawn anew, log lines above it."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console, Group, RenderableType
from rich.control import Control
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import ControlType
from rich.table import Table

from hermes.cli.onlooker import Onlooker
from hermes.report.live.picture import picture


class Screen(Onlooker):
    """A live picture on a terminal."""

    def __init__(
        self,
        console: Console,
        greeting: Callable[[], str] | None = None,
        expected: tuple[str, ...] = (),
        run: str = "",
        *,
        remote: bool = False,
        every: float = 0.25,
    ) -> None:
        """As `Onlooker`; `every`: seconds between two pictures."""
        super().__init__(console, greeting, expected, run, remote=remote)
        self.every = every
        # Started at the first picture: --ask has the terminal to itself before.
        self._live = Live(
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._upload: tuple[int, int] | None = None
        self._drawn: tuple[int, list[int]] | None = None
        """The terminal's width at the last picture, and the widths of its lines."""

    def uploading(self, sent: int, total: int) -> None:
        """A bar."""
        self._upload = (sent, total) if sent < total else None
        self.begin()

    def show(self, *, last: bool = False) -> None:
        """The lines that wait go above the picture; at the end the picture goes."""
        if last:
            self._live.stop()
            if self._drawn is not None:  # what Ctrl-C has left on the line
                erase = (ControlType.CARRIAGE_RETURN,), (ControlType.ERASE_IN_LINE, 2)
                self.console.control(Control(*erase))
            self.print_lines()
            return
        size = self.console.size
        self._mind_the_size(size.width)
        self.print_lines()
        drawn = self._picture(size.width, size.height)
        if drawn is not None:
            self._live.start()
            self._live.update(drawn, refresh=True)

    def leave(self) -> None:
        """The picture goes, and the cursor is seen again."""
        self._live.stop()

    def _picture(self, width: int, height: int) -> RenderableType | None:
        if self._upload is not None:
            return _bar("sending model and data", *self._upload)
        with self._lock:
            moment = self.moment()
            if moment is None or moment.state.opened is None:
                return None
            drawn = picture(moment, width, height)
        self._drawn = (width, [line.cell_len for line in drawn])
        return Group(*drawn)

    def _mind_the_size(self, width: int) -> None:
        """A terminal made narrower has broken the picture's lines into several: take them all off
        before the next one is drawn."""
        if self._drawn is None or width >= self._drawn[0]:
            return
        extra = sum(max(0, -(-length // width) - 1) for length in self._drawn[1])
        off = [(ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1)] * extra
        self.console.control(Control(*off))


def _bar(title: str, done: int, total: int) -> RenderableType:
    row = Table.grid(padding=(0, 2))
    bar = ProgressBar(total=max(total, 1), completed=done, width=30)
    row.add_row(title, bar, f"{done} of {total} blocks")
    return row
