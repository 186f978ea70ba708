"""Which of the two published figures are met here, against which baseline, and measured how? Pure.

Where a baseline never reached the target, its cell says how long it took *at least*: such a ratio
is a bound, and meets a figure only if the bound does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Any, NamedTuple

from hermes.compare.outcome import Outcome
from hermes.compare.score import Reached, Row
from hermes.report import words
from hermes.report.charts.chart import Table
from hermes.report.page.page import table_of

FASTER = 13.22
"""Times, "compared to state-of-the-art methods" (the abstract)."""

LESS = 0.621
"""Of the communication overhead saved, in the same comparison."""

CAVEATS = (
    "The paper's baselines, their settings, its machines and the accuracy to which it measured are "
    "not known here: the abstract gives the two figures and no more. What stands here was measured "
    "here, and no number of it is the paper's.",
    '"Up to" 13.22 times is the best of its settings; against which method is not said. One step a '
    "round over thin links (bsp, asp) makes large ratios easily: most of their time is transfer. "
    "bsp-rounds and asp-rounds do the same local work as hermes-paper between two exchanges.",
    "The published code counts API calls (log lines and polling among them) and no bytes; whether "
    "62.1 % is of those is not known. Calls here are reports of rounds, updates pushed and "
    "versions fetched; bytes are those of models and updates. Data is in neither.",
    "Model, learning rate, batch, E = 5 and D = 2500 are those of the published code's example; "
    "that the paper's tables were made with them is not known. No setting was searched.",
)


READ = (
    "One number a seed. Met: on every seed. At least: the baseline had not arrived when its cell "
    "ended; -: a cell is missing; open: that is not enough to tell. Below 1 time, or 0 %: more "
    "than the baseline."
)


class Measure(NamedTuple):
    """What one figure may be about."""

    key: str
    title: str
    bar: float
    value: Callable[[float, float], float]
    """Of a baseline's amount and one's own; larger is better."""
    text: Callable[[float], str]


def _saved(base: float, own: float) -> float:
    return 1 - own / base if base > 0 else 0.0


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


MEASURES = (
    Measure("seconds", "times faster", FASTER, lambda base, own: base / own, "{:.3g}".format),
    Measure("bytes", "fewer bytes", LESS, _saved, _percent),
    Measure("calls", "fewer calls", LESS, _saved, _percent),
)

MET, PARTLY, NOT, OPEN, NEVER = "met", "on some seeds", "not met", "open", "never got there"
NONE = "not run yet"
"""Of a figure for which no seed has both cells."""


class Finding(NamedTuple):
    """One strategy against one baseline, by one measure."""

    own: str
    baseline: str
    measure: Measure
    seeds: tuple[int, ...]
    """All that there are to be."""
    by_seed: dict[int, tuple[float, bool]]
    """(value, whether it is a lower bound) of those whose cells are there; -inf where the strategy
    itself never got there."""

    @property
    def verdict(self) -> str:
        """Over all seeds: what no seed that is missing, or left open by a bound, can change."""
        if not self.by_seed:
            return NONE
        found = {self._of(seed) for seed in self.seeds}
        if found > {MET} and found & {NOT, NEVER}:
            return PARTLY
        if OPEN in found:
            return OPEN
        return found.pop() if len(found) == 1 else NOT

    def _of(self, seed: int) -> str:
        if seed not in self.by_seed:
            return OPEN
        value, bound = self.by_seed[seed]
        if math.isinf(value):
            return NEVER
        if value >= self.measure.bar:
            return MET
        return OPEN if bound else NOT

    @property
    def text(self) -> str:
        """`3.1, at least 4.2, never, -`: the last where a cell is missing."""
        return ", ".join(self._text(seed) for seed in self.seeds)

    def _text(self, seed: int) -> str:
        if seed not in self.by_seed:
            return "-"
        value, bound = self.by_seed[seed]
        if math.isinf(value):
            return "never"
        return f"{'at least ' if bound else ''}{self.measure.text(value)}"


def findings(rows: Sequence[Row], own: Sequence[str], seeds: Sequence[int]) -> list[Finding]:
    """Each of `own` that is there against each of the others, by each measure. `seeds`: all that
    there are to be."""
    known = {row.strategy: row for row in rows}
    return [
        Finding(name, other, measure, tuple(seeds), _by_seed(known[name], known[other], measure))
        for measure in MEASURES
        for name in own
        if name in known
        for other in known
        if other not in own
    ]


def _by_seed(own: Row, base: Row, measure: Measure) -> dict[int, tuple[float, bool]]:
    found: dict[int, tuple[float, bool]] = {}
    for seed, mine in own.reached.items():
        if seed not in base.reached:
            continue
        theirs, bound = _amount(base.reached[seed], base.outcomes[seed], measure.key)
        ours = max(getattr(mine, measure.key), 1e-9)
        if not mine.ever:
            found[seed] = (-math.inf, False)
        elif math.isfinite(ours) and math.isfinite(theirs):  # not counted in cells of long ago
            found[seed] = (measure.value(theirs, ours), bound)
    return found


def _amount(reached: Reached, outcome: Outcome, key: str) -> tuple[float, bool]:
    """What it took to the target; what it had taken by its end, where it never got there."""
    if reached.ever:
        return getattr(reached, key), False
    if key == "seconds":
        return outcome.seconds, True
    last = outcome.points[-1] if outcome.points else None
    return float((getattr(last, key) if last else 0) or 0), True


# --- in words -------------------------------------------------------------------------------------


def sentences(found: Sequence[Finding], own: Sequence[str], target: float) -> list[str]:
    """The verdict, a sentence for each figure and strategy."""
    if all(one.verdict == NONE for one in found):
        return ["No strategy has a cell and a baseline's beside it yet: there is no verdict."]
    said = []
    for measure in MEASURES:
        for name in own:
            here = [one for one in found if (one.own, one.measure) == (name, measure)]
            if not here:
                continue
            said.append(
                f"{_bar(measure)} {_what(measure)} to {target:g} on test, {name}: {_against(here)}"
            )
    return said


def _bar(measure: Measure) -> str:
    return f"{measure.bar:g} times" if measure.key == "seconds" else _percent(measure.bar)


def _what(measure: Measure) -> str:
    return "faster" if measure.key == "seconds" else measure.title


def _against(here: Sequence[Finding]) -> str:
    groups: dict[str, list[str]] = {}
    for one in here:
        groups.setdefault(one.verdict, []).append(one.baseline)
    if set(groups) == {NEVER}:
        return "it never got there."
    order = (MET, PARTLY, NOT, OPEN, NEVER, NONE)
    parts = [
        f"{verdict} against {words.listed(groups[verdict], 9)}"
        for verdict in order
        if verdict in groups
    ]
    return "; ".join(parts) + "."


def table(found: Sequence[Finding]) -> Table:
    """One row for each strategy and baseline."""
    known = {(one.own, one.baseline, one.measure.key): one for one in found}
    columns = ["strategy", "against"]
    for measure in MEASURES:
        columns += [measure.title, f"{_bar(measure)}?"]
    rows = []
    for own, other in dict.fromkeys((one.own, one.baseline) for one in found):
        here = [known[own, other, measure.key] for measure in MEASURES]
        rows.append((own, other, *(text for one in here for text in (one.text, one.verdict))))
    return Table(tuple(columns), tuple(rows), left=len(columns))


def section(found: Sequence[Finding], own: Sequence[str], target: float) -> str:
    """The part of the page."""
    said = "".join(f"<li>{escape(text)}</li>" for text in sentences(found, own, target))
    caveats = "".join(f"<li>{escape(text)}</li>" for text in CAVEATS)
    return (
        '<section id="verdict"><h2>Which of the published figures are met?</h2>'
        f"<ul>{said}</ul>{table_of(table(found), 'all')}"
        f'<p class="note">{escape(READ)}</p>'
        f"<h3>What this cannot say</h3><ul>{caveats}</ul></section>"
    )


def told(found: Sequence[Finding]) -> list[dict[str, Any]]:
    """As JSON has it."""
    return [
        {
            "strategy": one.own,
            "against": one.baseline,
            "measure": one.measure.key,
            "published": one.measure.bar,
            "verdict": one.verdict,
            "by_seed": [
                {
                    "seed": seed,
                    "value": None if math.isinf(value) else round(value, 6),
                    "at_least": bound,
                }
                for seed, (value, bound) in one.by_seed.items()
            ],
        }
        for one in found
    ]
