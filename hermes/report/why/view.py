"""Which decisions does a person want to see, and how do they stand on a page?

A pushed round and what came of it (taken, merged or rejected) are one story; so is a round and the
size that its shard kept. Grants are in the JSON only: each round has one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.text import Text

from hermes.errors import UsageError
from hermes.report.scores import metric_of
from hermes.report.why.decided import MASTER, Decision
from hermes.report.why.decisions import Retelling
from hermes.report.why.of_run import told
from hermes.report.why.phrases import Setting, checked, clock, listed
from hermes.report.why.recompute import AGREES, DIFFERS, OPEN
from hermes.report.words import count, duration
from hermes.values import SECOND

LAST = 10
"""Stories that are shown by default, beside the last of each kind."""

MORE = "others: --last K, --round N, --at vN; all: --json"

WIDTH, INDENT = 110, 4
"""Columns: longer lines read badly."""

HIDDEN = ("granted",)
"""Kinds that are shown only where something is wrong with them."""

STYLES = {
    "pushed": "green",
    "vetoed": "red",
    "rejected": "red",
    "lost": "red",
    "refused": "red",
    "re-sized": "yellow",
}


class Wanted(NamedTuple):
    """Which decisions are asked for; none of the three: the last of each kind, and the last few."""

    at: int | None = None
    """A version."""
    last: int | None = None
    round: int | None = None


class Tale(NamedTuple):
    """A decision and what came of it, as one story."""

    main: Decision
    then: tuple[Decision, ...] = ()

    @property
    def all(self) -> tuple[Decision, ...]:
        return (self.main, *self.then)

    @property
    def kind(self) -> str:
        """What it is the like of: "round push merged", "admitted admitted-again"."""
        fates = [d.kind for d in self.then if d.kind in ("merged", "rejected")]
        which = self.main.details.get("verdict") or self.main.reason.code
        return " ".join([self.main.kind, str(which), *fates])

    def at_version(self, version: int) -> bool:
        """Whether any of it was decided while this version was the newest, or made it."""
        return any(version in (d.version, d.details.get("merged_into")) for d in self.all)


def tales(decisions: Iterable[Decision]) -> list[Tale]:
    """Decisions as stories, in order."""
    found: list[list[Decision]] = []
    by_birth: dict[str, list[Decision]] = {}
    rounds: dict[str, list[Decision]] = {}
    for decision in decisions:
        birth = decision.details.get("birth")
        home = by_birth.get(birth) if birth is not None else None
        if decision.kind == "kept":
            home = rounds.get(decision.worker)
        if home is not None and decision.check.outcome != DIFFERS:
            home.append(decision)
            continue
        if decision.kind in HIDDEN and decision.check.outcome != DIFFERS:
            continue
        found.append([decision])
        if birth is not None:
            by_birth[birth] = found[-1]
        if decision.kind == "round":
            rounds[decision.worker] = found[-1]
    return [Tale(first, tuple(then)) for first, *then in found]


# --- which --------------------------------------------------------------------------------------


def chosen(stories: Sequence[Tale], wanted: Wanted) -> list[Tale]:
    """Those that are asked for, in order; any that differs is always among them."""
    if wanted.at is not None:
        keep = {i for i, story in enumerate(stories) if story.at_version(wanted.at)}
    elif wanted.round is not None:
        keep = {i for i, story in enumerate(stories) if _is_round(story, wanted.round)}
    elif wanted.last is not None:
        keep = set(range(len(stories))[-wanted.last :])
    else:
        newest = {story.kind: index for index, story in enumerate(stories)}
        sizes = [i for i, story in enumerate(stories) if story.main.kind == "resized"]
        keep = {*newest.values(), *sizes[:1], *range(len(stories))[-LAST:]}
    keep |= {i for i, s in enumerate(stories) if any(d.check.outcome == DIFFERS for d in s.all)}
    return [story for index, story in enumerate(stories) if index in keep]


def _is_round(story: Tale, number: int) -> bool:
    return story.main.kind == "round" and story.main.details["round"] == number


def refuse_unknown(retelling: Retelling, worker: str, wanted: Wanted, place: str) -> None:
    """Raise `UsageError` for a worker, version or round that is not there; names those that are."""
    known = sorted({*retelling.state.members, *retelling.refused})
    if worker not in (*known, MASTER):
        names = listed(known) if known else "no worker has come yet"
        raise UsageError(
            f"there is no worker {worker!r} in this run",
            where=place,
            remedy=f"There are: {names}; and {MASTER}, for the run's own decisions.",
        )
    if wanted.at is not None and wanted.at not in retelling.versions:
        last = max(retelling.versions, default=-1)
        there = f"Versions 0 .. {last} are" if last >= 0 else "No version was published"
        raise UsageError(
            f"there is no version {wanted.at} in this run",
            where=place,
            remedy=f"{there} there: --at v{max(last, 0)}",
        )
    rounds = [d.details["round"] for d in retelling.decisions if d.kind == "round"]
    if wanted.round is not None and wanted.round not in rounds:
        there = f"Its rounds are {min(rounds)} .. {max(rounds)}." if rounds else "It has none."
        raise UsageError(f"{worker} has no round {wanted.round}", where=place, remedy=there)


# --- the page -----------------------------------------------------------------------------------


class Wrapped:
    """A text, broken into lines of at most WIDTH columns, each indented."""

    def __init__(self, text: Text, indent: int = 0) -> None:
        self._text, self._indent = text, indent

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        width = min(options.max_width, WIDTH) - self._indent
        for line in self._text.wrap(console, width):
            line.rstrip()
            yield Text.assemble(" " * self._indent, line) if self._indent else line


def _setting(retelling: Retelling) -> Setting:
    state = retelling.state
    return Setting(state.settings, retelling.started, metric_of(state.data))


def page(retelling: Retelling, worker: str, wanted: Wanted, head: str) -> RenderableType:
    """What `hermes why` prints. `head` names the run."""
    setting = _setting(retelling)
    stories = tales(retelling.decisions)
    shown = chosen(stories, wanted)
    parts: list[RenderableType] = [
        # Not broken: the path in it can be copied.
        Text.assemble((worker, "bold"), f" in {head}", no_wrap=True, overflow="ignore"),
        Wrapped(Text(summary(retelling, worker))),
    ]
    if wanted.at is not None:
        parts += [Wrapped(Text(f"\n{at_version(retelling, worker, wanted.at, shown)}"))]
    places = {id(story): index for index, story in enumerate(stories)}
    before = -1
    for story in shown:
        index = places[id(story)]
        between, before = index - before - 1, index
        gap = wanted == Wanted() and between
        parts += [Wrapped(Text(f"\n(... {between} more)\n" if gap else "", style="dim"))]
        parts += _lines(story, setting)
    parts += [Wrapped(Text()), Wrapped(_verdict_line(retelling.decisions))]
    if len(shown) < len(stories):
        rest = f"{len(shown)} of {len(stories)} shown; {MORE}"
        parts += [Wrapped(Text(rest, style="dim"))]
    return Group(*parts)


def _lines(story: Tale, setting: Setting) -> list[Wrapped]:
    say = told(story.main, setting)
    title, colon, verdict = say.title.rpartition(": ")
    style = STYLES.get(say.verdict, "")
    head = (
        Text.assemble((title + colon, "bold"), (verdict, f"bold {style}"))
        if colon and style
        else Text(say.title, style=f"bold {style}")
    )
    body = Text(_story(story, setting))
    for decision in story.all:
        if decision.check.outcome == DIFFERS:
            body.append(f" {checked(decision)}.", style="bold red")
    outcome = _outcome(story)
    if outcome:
        body.append(f" {outcome}", style="dim")
    return [Wrapped(head), Wrapped(body, INDENT)]


def _story(story: Tale, setting: Setting) -> str:
    ordered = sorted(story.all, key=lambda decision: decision.kind == "kept")
    text = " ".join(told(decision, setting).body for decision in ordered)
    kinds = [decision.kind for decision in story.all]
    if "taken" in kinds and not {"merged", "rejected"} & set(kinds):
        text += " It is not decided yet."
    return text


def _outcome(story: Tale) -> str:
    outcomes = [decision.check.outcome for decision in story.all]
    if DIFFERS in outcomes:
        return ""
    open_ = [f"{d.kind}: {d.check.why}" for d in story.all if d.check.outcome == OPEN]
    if len(open_) == len(outcomes):
        return f"[not recomputable: {story.main.check.why}]"
    if open_:
        return f"[recomputed: agrees; not recomputable: {'; '.join(open_)}]"
    return "[recomputed: agrees]"


def _verdict_line(decisions: Sequence[Decision]) -> Text:
    tally = outcomes(decisions)
    if tally[DIFFERS]:
        return Text(
            f"{tally[DIFFERS]} of {len(decisions)} decisions do not follow from what the ledger "
            "says.",
            style="bold red",
        )
    rest = f"; {tally[OPEN]} cannot be (each says why)" if tally[OPEN] else ""
    return Text(f"{count(tally[AGREES])} decisions recomputed: all agree{rest}.", style="dim")


def outcomes(decisions: Iterable[Decision]) -> dict[str, int]:
    """How many agree, differ, and are not recomputable."""
    found = dict.fromkeys((AGREES, DIFFERS, OPEN), 0)
    for decision in decisions:
        found[decision.check.outcome] += 1
    return found


# --- in a line ----------------------------------------------------------------------------------


def summary(retelling: Retelling, worker: str) -> str:
    """One line: how often what."""
    state, member = retelling.state, retelling.state.members.get(worker)
    if member is None and worker != MASTER:
        return "never let in"
    if member is None:
        known = state.evaluations
        stopped = f"; {state.status}: {state.stopped.code}" if state.stopped else ""
        return (
            f"{count(max(len(retelling.versions) - 1, 0))} versions after the first, "
            f"{count(known.count)} evaluations, {count(state.resizes)} re-sizings, terms: "
            f"{state.authority.term}{stopped}"
        )
    undecided = sum(pending.worker == worker for pending in state.pending)
    sizes = [d for d in retelling.decisions if d.kind == "resized"]
    first = sizes[0].details["before"] if sizes else member.size
    total = member.busy + member.waited
    share = f" ({100 * member.waited / total:.0f} %)" if total else ""
    resized = (
        f"re-sized {_times(len(sizes))}, {first} -> {member.size} samples"
        if sizes
        else f"shard {member.size} samples"
    )
    starts = retelling.starts.get(worker, 1)
    again = f"; started {_times(starts)}" if starts > 1 else ""
    return (
        f"{count(member.rounds)} rounds: {member.pushes} pushed, {member.quiet} quiet, "
        f"{member.vetoed} vetoed; updates: {member.applied} merged, {member.rejected} rejected, "
        f"{undecided} undecided; {resized}; waited {duration(member.waited / SECOND)} of "
        f"{duration(total / SECOND)}{share}; {member.status}{again}"
    )


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def at_version(retelling: Retelling, worker: str, version: int, shown: Sequence[Tale]) -> str:
    """What a version was made of, and what this worker was doing while it was the newest."""
    setting = _setting(retelling)
    members = retelling.members.get(version, ())
    made = f"of {listed(members)}" if members else "the job's first weights"
    begin, end = retelling.versions[version], retelling.versions.get(version + 1)
    until = "the end" if end is None else clock(end, setting)
    text = f"Version {version}: made {made}, the newest from {clock(begin, setting)} to {until}."
    if shown or worker == MASTER:
        return text
    return f"{text} Nothing was decided about {worker} then: {_doing(retelling, begin, setting)}."


def _doing(retelling: Retelling, at: int, setting: Setting) -> str:
    rounds = [d for d in retelling.decisions if d.kind == "round"]
    following = next((d for d in rounds if d.at >= at), None)
    if following is None:
        return "it finished no round after that"
    number, ended = following.details["round"], clock(following.at, setting)
    begun = following.at - following.details["busy"]
    doing = "training" if begun <= at else "waiting, or loading a version, before"
    return (
        f"it was {doing} its round {number}, which ended at {ended}, at version {following.version}"
    )


# --- as JSON ------------------------------------------------------------------------------------


def as_json(retelling: Retelling, worker: str, wanted: Wanted) -> dict[str, Any]:
    """What `hermes why --json` prints of the decisions; keys are only ever added."""
    setting = _setting(retelling)
    decisions = retelling.decisions
    if wanted != Wanted():
        stories = chosen(tales(decisions), wanted)
        decisions = [decision for story in stories for decision in story.all]
    tally = outcomes(retelling.decisions)
    return {
        "worker": worker,
        "summary": summary(retelling, worker),
        "agree": tally[AGREES],
        "differ": tally[DIFFERS],
        "not_recomputable": tally[OPEN],
        "decisions": [_decision_json(decision, setting) for decision in decisions],
    }


def _decision_json(decision: Decision, setting: Setting) -> dict[str, Any]:
    say = told(decision, setting)
    started = setting.started or 0
    return {
        "record": {"term": decision.term, "n": decision.n},
        "seconds": round((decision.at - started) / SECOND, 6),
        "version": decision.version,
        "worker": decision.worker,
        "kind": decision.kind,
        "code": decision.reason.code,
        "facts": decision.reason.facts,
        "details": msgspec.to_builtins(dict(decision.details)),
        "outcome": decision.check.outcome,
        "why": decision.check.why,
        "recorded": dict(decision.check.recorded),
        "recomputed": dict(decision.check.recomputed),
        "differing": decision.check.differing if decision.check.outcome == DIFFERS else [],
        "title": say.title,
        "text": say.body,
    }


def mismatches(decisions: Iterable[Decision]) -> list[str]:
    """One line for each fact that is not what the others give."""
    return [
        f"{d.worker}, {d.kind}, record {d.n} of term {d.term}: {checked(d)}"
        for d in decisions
        if d.check.outcome == DIFFERS
    ]
