"""Is the broker there, and when is it given up? A thread that looks, whoever waits meanwhile.

The threads that work wait for a broker that is away; none of them can say so, or stop waiting, when
somebody wants to leave. This one can: it abandons the log, and all of them get the error at once.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

from hermes.broker.postmortem import last_words
from hermes.errors import BrokerUnreachable
from hermes.runtime.acks import Acknowledgements
from hermes.transport.log import Log

LOOK = 0.25
"""Seconds between two looks."""

SAID = 5.0
"""Seconds without an answer before anybody is told."""

BACK = "the broker answers again"

STUCK = 60.0
"""Seconds without an acknowledgement from a broker that answers questions, at least."""

LEAVING = 1.0
"""Seconds without an answer before somebody who leaves asks whether the broker is there at all."""

STOPPING = 5.0
"""Seconds that a look under way may take at the end: a question to the broker takes 2."""

OUTAGE = 600.0
"""Seconds that the broker may be away, where nobody says otherwise."""


class BrokerWatch:
    """Looks at one process's acknowledgements until it is stopped."""

    def __init__(
        self,
        log: Log,
        who: str,
        patience: float,
        tell: Callable[[str], None],
        back: Callable[[], None] = lambda: None,
        away: Callable[[], None] = lambda: None,
    ) -> None:
        """`who` waits for the broker, for `patience` seconds; `tell` is called from this thread,
        `away` when it does not answer, and `back` when it does again, short outages included."""
        self.acks = Acknowledgements()
        self.gone = ""
        """Why the broker was given up; "" as long as it is not."""
        self.left = False
        """Whether the broker was given up because we leave, not because of our patience."""
        self._log, self._who, self._patience, self._tell = log, who, patience, tell
        self._said = self._away = False
        self._back, self._gone_away = back, away
        self._leaving, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="broker-watch", daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """We want to leave: from now on a broker that is away is not waited for. May be called
        from a signal handler."""
        self._leaving.set()

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join(STOPPING)

    def _watch(self) -> None:
        while not self._over.wait(LOOK):
            silent = self.acks.unanswered()
            if self._away and not silent:
                self._back()
            if not self._away and silent > LEAVING:
                self._gone_away()
            self._away = silent > LEAVING or (self._away and silent > 0)
            with contextlib.suppress(Exception):  # a display that is gone must not end the watch
                self._tell_news(silent)
            if self._is_over(silent):
                self.left = self._leaving.is_set()
                error = given_up(self._log, self._who, silent)
                self.gone = error.what
                self._log.abandon(error)
                return
        with contextlib.suppress(Exception):  # who was told of an outage is told of its end
            if self._said and not self._log.complaint():
                self._tell(BACK)

    def _is_over(self, silent: float) -> bool:
        """Whether the broker is given up. One that answers questions is slow, or stuck."""
        if silent > max(self._patience, STUCK):
            return True
        waits = silent > LEAVING or not self.acks.used
        tired = silent > self._patience or (self._leaving.is_set() and waits)
        return tired and bool(self._log.complaint())

    def _tell_news(self, silent: float) -> None:
        """Say it, once, when the broker is away and when it is back."""
        if (silent > SAID) != self._said:
            self._said = not self._said
            why = self._log.complaint() if self._said else ""
            cause = f": {why}" if why else ""
            waits = f"the broker does not answer{cause}. Waiting for it, up to {self._patience:g} s"
            self._tell(waits if self._said else BACK)


def given_up(log: Log, who: str, seconds: float) -> BrokerUnreachable:
    """The error of a broker that is waited for no longer: what is known of it, and what helps."""
    cause, words = log.complaint(), last_words(log.place)
    silent = f"the broker has not answered {who} for {seconds:.0f} s"
    if seconds < 1.0:
        silent = f"the broker does not answer {who}"
    if words is not None and words.no_room:
        return BrokerUnreachable(
            f"{silent}: its disk is full, says its output",
            where=log.place,
            remedy=f"Make room where its records lie, then start it again (its output: "
            f"{words.output}).",
        )
    output = f" Its output: {words.output}" if words is not None else ""
    if not cause:
        return BrokerUnreachable(
            f"{silent}: it is there, but takes no records; perhaps its disk is full",
            where=log.place,
            remedy=f"Make room on its disk, or start it again.{output}",
        )
    ended = "It has died or was stopped; perhaps its disk is full"
    stuck = "It is stuck, its machine is off, or the network is cut"
    return BrokerUnreachable(
        f"{silent}: {cause}. {ended if 'refused' in cause else stuck}",
        where=log.place,
        remedy=f"Make room on its disk if that is full, and start it again: hermes broker start."
        f"{output}",
    )
