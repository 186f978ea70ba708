"""What does a person see of each worker, while a run goes and after it? One line each. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.text import Text

from hermes.machine.state import MasterState, Member
from hermes.report import words
from hermes.report.live.columns import Column, table
from hermes.report.live.health import GONE, health, last_decision, shown
from hermes.report.live.recent import Recent
from hermes.report.live.waits import CALM, Around, standing
from hermes.values import SECOND

STYLE = {
    "training": "green",
    "starting": "green",
    "ready": "green",
    "waiting": "yellow",
    "merging": "yellow",
    "silent": "red",
    "unknown": "yellow",
    "slow": "yellow",
    "quiet": "green",
    "stuck": "red",
    "dead": "red",
    "revoked": "red",
    GONE: "red",
    "unable": "red",
    "left": "bright_black",
    "leaving": "bright_black",
}
URGENT = (
    "dead", "revoked", "stuck", "silent", GONE, "unable", "slow", "waiting", "merging", "training",
    "quiet", "starting", "ready",
)  # fmt: skip
"""Whom to show first where not all have room."""


def worker_lines(
    state: MasterState,
    recent: Recent,
    now: int,
    around: Around = CALM,
    *,
    width: int,
    height: int = 1000,
    moving: bool = True,
) -> list[Text]:
    """A head and one line a worker, at most `height` lines. `moving`: with ages, which only a
    picture that is drawn anew can tell."""
    members = [member for _, member in sorted(state.members.items(), key=_numbered)]
    stands = {m.name: standing(state, recent, m, now, around) for m in members}
    conditions = {m.name: health(state, recent, m, stands[m.name], around) for m in members}
    hidden = 0
    if len(members) + 1 > height:
        hidden = len(members) - max(height - 2, 0)
        members = _first(members, conditions, len(members) - hidden)
    if not members:
        return []
    states = {
        name: shown(word, stands[name]) if moving else word for name, word in conditions.items()
    }
    lines = table(_columns(state, recent, members, (conditions, states), now, moving), width)
    if hidden:
        lines.append(Text(f"and {hidden} more", "bright_black"))
    return lines


def _numbered(item: tuple[str, Member]) -> tuple[str, int, str]:
    """worker-2 before worker-10."""
    name = item[0]
    stem = name.rstrip("0123456789")
    digits = name[len(stem) :]
    return stem, int(digits) if digits else -1, name


def _first(members: list[Member], conditions: Mapping[str, str], room: int) -> list[Member]:
    def urgency(member: Member) -> int:
        word = conditions[member.name]
        return URGENT.index(word) if word in URGENT else len(URGENT)

    kept = {member.name for member in sorted(members, key=urgency)[:room]}
    return [member for member in members if member.name in kept]


def _columns(
    state: MasterState,
    recent: Recent,
    members: Sequence[Member],
    told: tuple[Mapping[str, str], Mapping[str, str]],
    now: int,
    moving: bool,
) -> list[Column]:
    """All there are; those of the highest rank go first where room is short. `told`: the words for
    their health, and how they are shown."""
    conditions, states = told
    decisions = [last_decision(recent, m) for m in members]
    speeds = {m.name: recent.speed(m.name) for m in members}
    fastest = max((s for name in state.members if (s := recent.speed(name))), default=None)
    columns = [
        Column("worker", [m.name for m in members], 0, left=True),
        Column(
            "state",
            [states[m.name] for m in members],
            0,
            left=True,
            styles=[STYLE.get(conditions[m.name], "") for m in members],
        ),
        Column("samples/s", [_speed(speeds[m.name]) for m in members], 3),
        Column("speed", [_share(speeds[m.name], fastest) for m in members], 7),
        Column("shard", [_shard(recent, m) for m in members], 4),
        Column("rounds", [words.count(m.rounds) for m in members], 5),
        Column("push/quiet/veto", [f"{m.pushes}/{m.quiet}/{m.vetoed}" for m in members], 6),
        Column("samples", [words.count(m.samples) for m in members], 8),
        Column("sent", [_moved(recent, m.name, 0) for m in members], 9),
        Column("received", [_moved(recent, m.name, 1) for m in members], 11),
        Column("waited", [waiting_share(m.busy, m.waited) for m in members], 12),
        Column("last decision", decisions, 1, left=True, least=24),
    ]
    if moving:
        ages = [_ago(now, recent.decided.get(m.name)) for m in members]
        columns.append(Column("ago", ages, 2))
    return columns


def _speed(value: float | None) -> str:
    if value is None:
        return "-"
    return words.count(round(value)) if value >= 10 else f"{value:.2g}"


def _share(value: float | None, fastest: float | None) -> str:
    return f"{100 * value / fastest:.0f} %" if value and fastest else "-"


def _shard(recent: Recent, member: Member) -> str:
    first = recent.shards.get(member.name)
    if first is None or first == member.size:
        return words.count(member.size)
    return f"{words.count(first)}→{words.count(member.size)}"


def _moved(recent: Recent, worker: str, way: int) -> str:
    flat = recent.moved.get(worker)
    return words.size(sum(flat[way::2])) if flat else "-"


def _ago(now: int, at: int | None) -> str:
    return words.age((now - at) / SECOND) if at is not None else "-"


def waiting_share(busy: float, waited: float) -> str:
    """The share of a worker's time that it waited."""
    total = busy + waited
    return f"{100 * waited / total:.0f} %" if total else "-"
