"""How is `report.html` kept up to date while a run goes? A thread folds the ledger and rewrites it.

The master's thread only hands over records. A page that cannot be written is told once and tried
again: a run never fails, or waits, for its report.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from hermes.errors import HermesError
from hermes.machine.state import MasterState
from hermes.messages import LedgerRecord
from hermes.perform.room import give_back
from hermes.runtime.folder import RunFolder
from hermes.runtime.logs import utc_now

if TYPE_CHECKING:
    from hermes.report.page.facts import Beside

EVERY = 5.0
"""Seconds between two pages, at least, and ..."""

SHARE = 20
"""... so many times what a page costs: at most this part of one core goes into it."""

DRAIN = 0.5
"""Seconds between two looks at what the master has handed over."""

LEAVING = 10.0
"""Seconds that a page under way may take at the end."""

Tell = Callable[[str], None]


class Reporter:
    """A thread that rewrites a run's page, until it is finished."""

    def __init__(
        self,
        folder: RunFolder,
        place: str,
        traffic: Callable[[], Mapping[str, tuple[int, ...]]],
        tell: Tell,
    ) -> None:
        """`place`: where the ledger is read; `traffic`: bytes moved by process, and `tell` takes a
        warning; both are called from this thread."""
        self._folder, self._place, self._traffic, self._tell = folder, place, traffic, tell
        self._records: queue.SimpleQueue[tuple[LedgerRecord, MasterState]] = queue.SimpleQueue()
        self._state = MasterState()
        self._over = threading.Event()
        self._warned = False
        self._thread = threading.Thread(target=self._serve, name="reporter", daemon=True)
        self._started = False
        # Imported by the thread: the run does not wait for it.
        self._page: Page | None = None

    def take(self, record: LedgerRecord, state: MasterState) -> None:
        """A record that counts, and the state after it. From the master's thread; does nothing but
        keep them."""
        self._records.put((record, state))
        if not self._started:
            self._started = True
            self._thread.start()

    def stop(self) -> None:
        """No more pages from the thread. More than once is no harm."""
        self._over.set()
        if self._started:
            self._thread.join(LEAVING)

    def finish(
        self,
        state: MasterState,
        traffic: Mapping[str, tuple[int, ...]],
        storage: Mapping[str, Any],
        aside: int,
    ) -> None:
        """The last page, with the very numbers of the result. Stops the thread first."""
        self.stop()
        if self._thread.is_alive():
            return  # it hangs on a disk; we do not
        told = used(storage.get("used"), storage.get("limit"), storage.get("of"))
        with self._harmless():
            self._drain()
            self._state = state
            self._write(self._beside(traffic, storage=told, aside=aside))

    # --- the thread -----------------------------------------------------------------------------

    def _serve(self) -> None:
        wait = EVERY
        due = time.monotonic() + wait
        while not self._over.wait(DRAIN):
            with self._harmless():
                self._drain()
            if time.monotonic() < due:
                continue
            began = time.monotonic()
            with self._harmless():
                self._write(self._beside(self._traffic(), lives=True, reload=wait))
            wait = max(EVERY, SHARE * (time.monotonic() - began))
            due = time.monotonic() + wait

    def _drain(self) -> None:
        page = self._page = self._page or Page()
        while not self._records.empty():
            record, self._state = self._records.get_nowait()
            page.story.read(record)

    def _beside(
        self,
        traffic: Mapping[str, tuple[int, ...]],
        *,
        lives: bool = False,
        reload: float = 0.0,
        storage: str = "",
        aside: int | None = None,
    ) -> Beside:
        from hermes.report.page.facts import Beside

        return Beside(
            self._folder.run,
            self._place,
            utc_now(),
            lives,
            traffic,
            storage,
            aside,
            reload,
        )

    def _write(self, beside: Beside) -> None:
        """Write the page."""
        assert self._page is not None
        self._folder.write(self._folder.report, self._page.html(self._state, beside))
        give_back()

    @contextlib.contextmanager
    def _harmless(self) -> Iterator[None]:
        """What goes wrong here is told once, and costs the run its page alone."""
        try:
            yield
        except HermesError as error:
            self._warn(f"the report is not written: {error.where}: {error.what}")
        except Exception as error:  # noqa: BLE001  (a run never fails for its report)
            self._warn(f"the report is not written: {type(error).__name__}: {error}")

    def _warn(self, text: str) -> None:
        if not self._warned:
            self._warned = True
            self._tell(text)


def used(count: int | None, limit: int | None, of: str | None) -> str:
    """Bytes that a run has at its broker, in words: `2.9 MB of 1.0 GB of the broker's memory`."""
    from hermes.report.words import size

    if count is None:
        return ""
    text = f"{size(count)} of {size(limit)}" if limit else size(count)
    return f"{text} of the broker's {of}" if of else text


class Page:
    """The story so far, and how it becomes HTML."""

    def __init__(self) -> None:
        from hermes.report.story import LIVE, Story

        self.story = Story(LIVE)

    def html(self, state: MasterState, beside: Beside) -> bytes:
        """The page, as UTF-8."""
        from hermes.report.page.page import page

        return page(self.story, state, beside).encode("utf-8", "replace")
